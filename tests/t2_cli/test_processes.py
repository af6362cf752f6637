"""Who a process is, and that only this one is ended."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dfsmount.cli import processes
from dfsmount.cli.processes import (
    handle_of,
    identity_of,
    recall,
    remember,
    stop,
    wait_end,
)

STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_process_is_recalled_while_it_runs(
    sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    file = tmp_path / "x.pid"
    identity = identity_of(sleeper.pid, "/mnt")
    assert identity is not None
    assert identity.pid == sleeper.pid
    remember(identity, file)
    assert recall(file) == identity
    sleeper.kill()
    with handle_of(identity) as handle:
        assert handle is None or wait_end(handle, 10)
    assert recall(file) is None  # a corpse does not run
    sleeper.wait()
    assert recall(file) is None
    assert identity_of(sleeper.pid) is None


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "another boot"}])
def test_somebody_else_with_the_same_pid_is_left_alone(
    change: dict[str, object], sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    real = identity_of(sleeper.pid)
    assert real is not None
    stale = msgspec.structs.replace(real, **change)
    remember(stale, tmp_path / "x.pid")
    assert recall(tmp_path / "x.pid") is None
    assert stop(stale, grace_s=10) == ["gone"]
    assert sleeper.poll() is None


@pytest.mark.parametrize("content", [None, b"", b"{}", b"123\n"])
def test_a_pid_file_that_says_nothing(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "x.pid"
    if content is not None:
        file.write_bytes(content)
    assert recall(file) is None


def test_stop_asks_first(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper.pid)
    assert identity is not None
    assert stop(identity, grace_s=10) == ["stopped"]
    assert sleeper.wait() == -15
    assert stop(identity, grace_s=10) == ["gone"]


def test_stop_insists_in_the_end() -> None:
    command = [sys.executable, "-I", "-S", "-c", STUBBORN]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it ignores SIGTERM now
        identity = identity_of(process.pid)
        assert identity is not None
        assert stop(identity, grace_s=0.05) == ["killed"]
        assert process.wait() == -9


def test_the_name_of_a_process_may_contain_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = ["S", *map(str, range(4, 53))]
    (tmp_path / "stat").write_text(f"7 (a) Z (b) {' '.join(fields)}\n")
    boot = tmp_path / "boot"
    boot.write_text("b\n")
    monkeypatch.setattr(processes, "BOOT_ID_FILE", boot)
    monkeypatch.setattr(
        processes, "Path", lambda path: tmp_path / "stat" if path.startswith("/proc") else path
    )
    identity = identity_of(7)
    assert identity is not None
    assert identity.start_ticks == 22  # proc(5): field 22 is the start time


def test_one_that_ends_by_itself_meanwhile(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = identity_of(sleeper.pid)
    assert identity is not None
    with handle_of(identity) as handle:
        sleeper.kill()
        sleeper.wait()
        monkeypatch.setattr(processes, "handle_of", lambda _: contextlib.nullcontext(handle))
        assert stop(identity, grace_s=10) == ["stopped"]
