"""`dfs mount` and `dfs umount`, with processes that only say that they are mounted."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfsmount.cli import mount as module
from dfsmount.cli.app import main
from dfsmount.cli.lifecycle import mount_command
from dfsmount.cli.mount import default_log
from dfsmount.cli.mounts import Mount
from dfsmount.cli.processes import identity_of, stop

# Nobody waits for what `dfs mount` starts: it is to outlive it.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

READY = """
import os, signal, socket
print(os.getpid(), flush=True)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
signal.pause()
"""


class Told:
    """The commands that would have been started."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.calls: list[tuple[str, Path, str]] = []

    def __call__(self, metad: str, point: Path, options: str) -> list[str]:
        self.calls.append((metad, point, options))
        return [sys.executable, "-I", "-S", "-c", self.text]


@pytest.fixture
def point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory "m" of the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    return tmp_path / "m"


@pytest.fixture
def served(point: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Told, int]]:
    """`dfs mount` of something that is mounted on `point`; and the pid that serves it."""
    told = Told(READY)
    monkeypatch.setattr(module, "mount_command", told)
    log = point.parent / "log"
    assert main(["mount", "http://h:7/", "m", "-o", "a,b", "-o", "c=1", "--log", str(log)]) == 0
    pid = int(log.read_text())
    yield told, pid
    identity = identity_of(pid)
    if identity is not None:
        stop(identity, grace_s=10)


def test_mount(served: tuple[Told, int], point: Path) -> None:
    told, pid = served
    assert told.calls == [("h:7", point, "a,b,c=1")]
    assert os.getsid(pid) == pid  # the terminal's hang-up does not reach it


def test_the_command_that_serves_a_mount() -> None:
    head = [sys.executable, "-P", "-m", "dfsmount", "h:1", "/m"]
    assert mount_command("h:1", Path("/m"), "") == head
    assert mount_command("h:1", Path("/m"), "ro") == [*head, "-o", "ro"]


@pytest.mark.parametrize(
    ("text", "status", "line"),
    [
        ("raise SystemExit('dfs mount: no metad answers')", 1, "dfs: no metad answers\n"),
        ("print('dfs mount: not empty'); raise SystemExit(2)", 2, "dfs: not empty\n"),
        (
            "import os; os.kill(os.getpid(), 9)",
            2,
            "dfs: ended with status -9, silently\n",
        ),
    ],
)
def test_a_mount_that_fails_is_quoted(
    text: str,
    status: int,
    line: str,
    point: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "mount_command", Told(text))
    assert main(["mount", "h:7", str(point), "--log", "log"]) == status
    assert capsys.readouterr().err == line


def test_in_the_foreground_it_becomes_the_mount(
    point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Replaced(Exception):
        pass

    def execv(program: str, command: list[str]) -> None:
        assert program == command[0]
        raise Replaced(command)

    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(Replaced, match=f"'dfsmount', 'h:7', '{point}'"):
        main(["mount", "-f", "h:7", "m"])


def test_umount_waits_for_the_process(
    served: tuple[Told, int],
    point: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, pid = served
    here = Mount("h:7", point, (0, 9))
    asked: list[bool] = []

    def unmount(mount: Mount, *, lazy: bool, dead: bool) -> None:
        assert mount == here
        asked.append(lazy)

    monkeypatch.setattr(module, "mount_at", lambda path: here if Path("m") == path else None)
    monkeypatch.setattr(module, "mount_process", lambda _: pid)
    monkeypatch.setattr(module, "unmount", unmount)
    monkeypatch.setattr(module, "UNMOUNT_TIMEOUT_S", 0.01)
    assert main(["umount", "m"]) == 2
    assert "its process still stores data" in capsys.readouterr().err
    assert main(["umount", "-z", "m"]) == 0  # does not wait
    os.kill(pid, signal.SIGTERM)
    monkeypatch.setattr(module, "UNMOUNT_TIMEOUT_S", 10)
    assert main(["umount", "m"]) == 0
    assert capsys.readouterr().err in ("", f"dfs: {lost(point)}\n")
    assert main(["umount", "m"]) == 0
    assert capsys.readouterr().err == f"dfs: {lost(point)}\n"
    assert asked == [False, True, False, False]


def lost(point: Path) -> str:
    return f"no process serves {point}; what it had not stored yet is lost"


def test_where_it_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_log(Path("/mnt/a")) == Path("/var/log/dfs/mount-mnt-a.log")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert default_log(Path("/m")) == Path("/home/me/.local/state/dfs/mount-m.log")
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    assert default_log(Path("/m")) == Path("/s/dfs/mount-m.log")
