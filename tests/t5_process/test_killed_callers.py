"""metad is away and programs wait for it: each can be killed, and nobody else notices anything.

metad is back only after all of them have ended, so it is not for its answers that they did.  How
soon that is (two looks of the mount at its callers, at most 2 s) is a matter of virtual time, in
t2_dfsmount/test_requests.py: here it would be a matter of what else the machine has to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfsmount.cli.mounts import mount_at
from dfsmount.lowlevel.requests import caller_is_dying
from tests.t5_process.harness import Cluster
from tests.t5_process.observed import run_dfs, sha256_of, wait_for

HANGS_S = 60.0  # after that it has not ended because it cannot
KILL_S = 2.0  # what is promised
UNMOUNT_S = 20.0
CONTENT = bytes(range(256)) * 10_000

# Each gets a directory with the files `old` and `large` and the directory `full`.
PROGRAMS = {
    "stat": "stat none",
    "ls": "ls -l full",
    "cat": "cat large",
    "touch": "touch new",
    "touch old": "touch old",
    "mkdir": "mkdir made",
    "ln": "ln old linked",
    "ln -s": "ln -s target symlink",
    "rm": "rm old",
    "mv": "mv old moved",
    "chmod": "chmod 600 old",
    "cp in": "cp /etc/passwd copied",
    "cp out": "cp large /dev/null",
    "cp over": "cp large full/copied",
    "echo": "echo more >>old",
    "truncate": ": >old",
    "fsync": "dd if=/dev/zero of=large bs=1M count=2 conv=notrunc,fsync",
    "df": "stat -f .",
    "getfattr": f'{sys.executable} -c \'import os; os.getxattr("old", "user.x")\'',
    "setfattr": f'{sys.executable} -c \'import os; os.setxattr("old", "user.x", b"1")\'',
}


@contextlib.contextmanager
def standing(command: str, place: Path) -> Iterator[subprocess.Popen[str]]:
    """A shell in `place` that becomes the command, as the same process, when told to (`begin`).

    To be entered while metad answers: the way to `place` may have to be asked of metad too, and a
    shell that waits there is not the program, and catches SIGINT.
    """
    exec_ = "" if is_builtin(command) else "exec "
    process = subprocess.Popen(
        ["sh", "-c", f'cd "$0" && echo there && read go && {exec_}{command}', str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_in_a_terminal,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def as_in_a_terminal() -> None:
    """Also where the tests run in the background, which ignores SIGINT.  No core is dumped: it
    would go to the mount."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def is_builtin(command: str) -> bool:
    return command.split()[0] in (":", "echo")


def begin(process: subprocess.Popen[str]) -> None:
    """Nothing but the command waits for the mount from here on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def waits_for_the_mount(process: subprocess.Popen[str]) -> bool:
    """It sits in request_wait_answer (or is over)."""
    stack = Path(f"/proc/{process.pid}/stack")
    return process.poll() is not None or b"request_wait_answer" in stack.read_bytes()


def is_stopped(pid: int) -> bool:
    """By a signal; it does nothing until another one comes."""
    return "State:\tT" in Path(f"/proc/{pid}/status").read_text()


def furnish(place: Path) -> None:
    (place / "full").mkdir()
    for number in range(3):
        (place / "full" / str(number)).touch()
    (place / "old").write_bytes(b"old")
    (place / "large").write_bytes(CONTENT)


@contextlib.contextmanager
def directories(cluster: Cluster, count: int) -> Iterator[Path]:
    """A directory with some of them, "0" and so on; kernel and client know nothing of it, except
    for the way there."""
    root = cluster.mount_point / "killed"
    root.mkdir()
    for number in range(count):
        (root / str(number)).mkdir()
        furnish(root / str(number))
    cluster.remount()
    for number in range(count):
        (root / str(number)).stat()
    yield root
    subprocess.run(["rm", "-r", str(root)], check=True)


@pytest.fixture
def furnished(cluster: Cluster) -> Iterator[Path]:
    with directories(cluster, 1) as root:
        yield root


@pytest.fixture
def all_furnished(cluster: Cluster) -> Iterator[Path]:
    """One for each program, since the kernel lets one at a time change a directory."""
    with directories(cluster, len(PROGRAMS)) as root:
        yield root


def test_everything_that_waits_for_metad_can_be_killed(
    cluster: Cluster, all_furnished: Path
) -> None:
    with contextlib.ExitStack() as cleanup:
        processes = {
            name: cleanup.enter_context(standing(command, all_furnished / str(number)))
            for number, (name, command) in enumerate(PROGRAMS.items())
        }
        cleanup.enter_context(cluster.stopped("metad"))
        for process in processes.values():
            begin(process)
        for name, process in processes.items():
            wait_for(lambda p=process: waits_for_the_mount(p), f"{name} waits")
            assert process.poll() is None, f"{name} did not wait: it ended with {process.poll()}"
        for process in processes.values():
            process.kill()
        for name, process in processes.items():
            assert process.wait(HANGS_S) == -signal.SIGKILL, name
        assert is_stopped(cluster.pid("metad")), "metad may have answered"
    # The mount goes on, and believes nothing that is not so.
    for number in range(len(PROGRAMS)):
        place = all_furnished / str(number)
        seen = {path.name: path.stat().st_size for path in place.iterdir()}
        assert {"full", "large"} <= seen.keys()
        (place / "after").write_bytes(CONTENT)
        assert sha256_of(place / "after") == hashlib.sha256(CONTENT).hexdigest()
    cluster.remount()
    for number in range(len(PROGRAMS)):
        place = all_furnished / str(number)
        assert sha256_of(place / "after") == hashlib.sha256(CONTENT).hexdigest()
        for path in place.iterdir():
            path.stat()
    wait_for(lambda: cluster.orphans() == 0, "nothing is kept open for the dead")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
def test_a_terminated_program_ends_as_well(
    cluster: Cluster, furnished: Path, number: signal.Signals
) -> None:
    """Signals kill a program that does not handle them, also one that would dump core."""
    with standing("cat old", furnished / "0") as process, cluster.stopped("metad"):
        begin(process)
        wait_for(lambda: waits_for_the_mount(process), "it waits")
        process.send_signal(number)
        assert process.wait(HANGS_S) == -number


WRITER = """
import os, sys
fd = os.open("kept", os.O_CREAT | os.O_WRONLY)
os.write(fd, bytes(range(256)) * 10_000)
print("written", flush=True)
sys.stdin.readline()
os.fsync(fd)
"""


def test_what_a_killed_program_has_written_is_kept(
    cluster: Cluster, furnished: Path, tmp_path: Path
) -> None:
    """Its write(2) has returned, so the data is the mount's to store."""
    (tmp_path / "writer.py").write_text(WRITER)
    command = f"{sys.executable} {tmp_path / 'writer.py'}"
    with standing(command, furnished / "0") as process:
        begin(process)
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "written\n"
        with cluster.stopped("metad"):
            process.stdin.write("\n")
            process.stdin.flush()
            wait_for(lambda: waits_for_the_mount(process), "fsync waits")
            process.kill()
            assert process.wait(HANGS_S) == -signal.SIGKILL
    cluster.remount()
    assert (furnished / "0/kept").read_bytes() == CONTENT


TICKER = """
import os, signal, sys
caught = 0
def tick(number, frame):
    global caught
    caught += 1
signal.signal(signal.SIGALRM, tick)
signal.siginterrupt(signal.SIGALRM, True)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
import ctypes
libc = ctypes.CDLL(None, use_errno=True)  # Python itself would repeat what gave EINTR
def call(function, *arguments):
    result = function(*arguments)
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result
call(libc.access, b"old", 0)
fd = call(libc.open, b"made", os.O_CREAT | os.O_RDWR, 0o644)
assert call(libc.write, fd, b"x" * 100, 100) == 100
call(libc.fsync, fd)
call(libc.rename, b"made", b"renamed")
call(libc.unlink, b"renamed")
signal.setitimer(signal.ITIMER_REAL, 0)
print(caught)
"""


@pytest.fixture
def ticker(tmp_path: Path) -> str:
    (tmp_path / "ticker.py").write_text(TICKER)
    return f"{sys.executable} {tmp_path / 'ticker.py'}"


def test_a_program_with_a_timer_sees_no_eintr(
    cluster: Cluster, furnished: Path, ticker: str
) -> None:
    with standing(ticker, furnished / "0") as process:
        with cluster.stopped("metad"):
            begin(process)
            wait_for(lambda: waits_for_the_mount(process), "it waits")
            # Long enough for the mount to look at the process several times.
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2.0)
            assert not caller_is_dying(process.pid)
        output, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    assert int(output) >= 1  # a timer that has gone off many times is one signal until then


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_program_with_a_timer_ends(
    cluster: Cluster, furnished: Path, ticker: str, number: signal.Signals
) -> None:
    """The kernel tells of its first signal only, which was not the one that kills."""
    with standing(ticker, furnished / "0") as process, cluster.stopped("metad"):
        begin(process)
        wait_for(lambda: waits_for_the_mount(process), "it waits")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
        process.send_signal(number)
        assert process.wait(HANGS_S) == -number


@pytest.mark.parametrize("command", ["fusermount3 -u", "dfs umount"])
def test_unmounting_while_metad_is_away(cluster: Cluster, furnished: Path, command: str) -> None:
    """Nothing is dirty, so nothing has to wait; the session ends with its lease.

    Not so umount(8), which first looks at the directory.
    """
    point = str(cluster.mount_point)
    pid = cluster.pid(cluster.mount_point.name)
    with cluster.stopped("metad"):
        if command == "dfs umount":
            assert run_dfs("umount", point)[0] == 0
        else:
            subprocess.run([*command.split(), point], check=True, timeout=UNMOUNT_S)
        assert mount_at(cluster.mount_point) is None
        wait_for(lambda: not Path(f"/proc/{pid}/root").exists(), "the process ends", UNMOUNT_S)
    cluster.restore()


def test_a_mount_that_is_told_to_end_while_a_program_waits(
    cluster: Cluster, furnished: Path
) -> None:
    """It does not wait for metad; the program gets an error."""
    pid = cluster.pid(cluster.mount_point.name)
    with standing("stat none", furnished / "0") as process, cluster.stopped("metad"):
        begin(process)
        wait_for(lambda: waits_for_the_mount(process), "it waits")
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{pid}/root").exists(), "the process ends", UNMOUNT_S)
        assert process.wait(KILL_S) == 1
        assert mount_at(cluster.mount_point) is None
    cluster.restore()
