"""flock(2) and fcntl(2) on two mounts of one host.

One process is two lock owners when it locks on two mounts, so most tests need no other process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import eventually

KILL_S = 5.0
FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, length, pid

CHILD = """
import errno, fcntl, os, signal, sys
fd = os.open(sys.argv[1], os.O_RDWR)
def alarm(number, frame):
    raise InterruptedError(errno.EINTR, "alarm")
signal.signal(signal.SIGALRM, alarm)
for line in sys.stdin:
    try:
        eval(line)
        print("done", flush=True)
    except OSError as problem:
        print(errno.errorcode[problem.errno], flush=True)
"""


class Child:
    """Another process with the file open, which does as it is told, a line at a time."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, expression: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def result(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def do(self, expression: str) -> str:
        self.begin(expression)
        return self.result()

    @property
    def has_answered(self) -> bool:
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    @property
    def waits(self) -> bool:
        """For an answer of the mount."""
        return "request_wait_answer" in Path(f"/proc/{self.process.pid}/stack").read_text()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def child() -> Iterator[Callable[[Path], Child]]:
    children: list[Child] = []

    def start(path: Path) -> Child:
        children.append(Child(path))
        assert children[-1].do("None") == "done"  # it has the file open, and its signal handler
        return children[-1]

    yield start
    for one in children:
        one.end()


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture
def both(views: TwoViews) -> Iterator[tuple[int, int]]:
    """One file, open on both mounts."""
    (views.a / "f").write_bytes(b"content")
    with opened(views.a / "f") as a, opened(views.b / "f") as b:
        yield a, b


def is_free(fd: int, *where: int) -> bool:
    """Can all, or `where` (length, start), be locked?  It is not locked afterwards."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, *where)
    except OSError as problem:
        assert problem.errno == errno.EAGAIN
        return False
    fcntl.lockf(fd, fcntl.LOCK_UN, *where)
    return True


def flock_is_free(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as problem:
        assert problem.errno == errno.EAGAIN
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


def test_flock(both: tuple[int, int]) -> None:
    a, b = both
    fcntl.flock(a, fcntl.LOCK_EX)
    assert not flock_is_free(b)
    assert is_free(b)  # the two kinds do not see each other
    fcntl.flock(a, fcntl.LOCK_SH)
    assert flock_is_free(b, fcntl.LOCK_SH)
    assert not flock_is_free(b)
    fcntl.flock(a, fcntl.LOCK_UN)
    assert flock_is_free(b)


def test_flock_ends_with_the_last_descriptor(views: TwoViews, both: tuple[int, int]) -> None:
    _, b = both
    with opened(views.a / "f") as first:
        second = os.dup(first)
        fcntl.flock(first, fcntl.LOCK_EX)
    assert not flock_is_free(b)
    os.close(second)
    eventually(lambda: flock_is_free(b))  # close(2) does not wait for the release


def test_ranges(both: tuple[int, int]) -> None:
    a, b = both
    fcntl.lockf(a, fcntl.LOCK_EX, 10, 100)
    fcntl.lockf(a, fcntl.LOCK_SH, 10, 105)
    assert [is_free(b, 1, at) for at in (99, 100, 104, 105, 114, 115)] == [
        *(True, False, False, False, False, True)
    ]
    fcntl.lockf(b, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 105)
    fcntl.lockf(a, fcntl.LOCK_UN, 0, 0)
    fcntl.lockf(b, fcntl.LOCK_UN, 0, 0)
    assert is_free(b)


def test_who_holds_a_lock(both: tuple[int, int]) -> None:
    a, b = both
    fcntl.lockf(a, fcntl.LOCK_EX, 10, 100)
    asked = FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, start, length, pid = FLOCK.unpack(fcntl.fcntl(b, fcntl.F_GETLK, asked))
    assert (kind, start, length, pid) == (fcntl.F_WRLCK, 100, 10, os.getpid())
    fcntl.lockf(a, fcntl.LOCK_UN)
    assert FLOCK.unpack(fcntl.fcntl(b, fcntl.F_GETLK, asked))[0] == fcntl.F_UNLCK


def test_closing_any_descriptor_unlocks(views: TwoViews, both: tuple[int, int]) -> None:
    a, b = both
    fcntl.lockf(a, fcntl.LOCK_EX)
    assert not is_free(b)
    with opened(views.a / "f"):
        pass
    assert is_free(b)


def test_locks_of_open_files(both: tuple[int, int]) -> None:
    """F_OFD_SETLK: closing another descriptor changes nothing."""
    a, b = both
    wanted = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    fcntl.fcntl(a, 37, wanted)  # F_OFD_SETLK
    with opened(Path(f"/proc/self/fd/{a}")):
        pass
    assert not is_free(b)
    with pytest.raises(BlockingIOError):
        fcntl.fcntl(b, 37, wanted)
    fcntl.fcntl(a, 37, FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))
    assert is_free(b)


WAIT = {"flock": "fcntl.flock(fd, fcntl.LOCK_EX)", "fcntl": "fcntl.lockf(fd, fcntl.LOCK_EX)"}


def lock(kind: str, fd: int, operation: int) -> None:
    (fcntl.flock if kind == "flock" else fcntl.lockf)(fd, operation)


@pytest.mark.parametrize("kind", WAIT)
@pytest.mark.parametrize("where", ["a", "b"])
def test_waiting_for_a_lock(
    kind: str, where: str, views: TwoViews, both: tuple[int, int], child: Callable[[Path], Child]
) -> None:
    a, _ = both
    lock(kind, a, fcntl.LOCK_EX)
    other = child(getattr(views, where) / "f")
    other.begin(WAIT[kind])
    eventually(lambda: other.waits)
    lock(kind, a, fcntl.LOCK_UN)
    assert other.result() == "done"


@pytest.mark.parametrize("kind", WAIT)
def test_a_signal_ends_the_waiting(
    kind: str, views: TwoViews, both: tuple[int, int], child: Callable[[Path], Child]
) -> None:
    a, b = both
    lock(kind, a, fcntl.LOCK_EX)
    other = child(views.b / "f")
    other.begin(WAIT[kind])
    eventually(lambda: other.waits)
    other.process.send_signal(signal.SIGALRM)
    assert other.result() == "EINTR"
    lock(kind, a, fcntl.LOCK_UN)
    assert flock_is_free(b) if kind == "flock" else is_free(b)  # nobody is in the queue


@pytest.mark.parametrize("kind", WAIT)
def test_who_waits_can_be_killed(
    kind: str, views: TwoViews, both: tuple[int, int], child: Callable[[Path], Child]
) -> None:
    a, b = both
    lock(kind, a, fcntl.LOCK_EX)
    other = child(views.b / "f")
    other.begin(WAIT[kind])
    eventually(lambda: other.waits)
    other.process.kill()
    assert other.process.wait(KILL_S) == -signal.SIGKILL
    lock(kind, a, fcntl.LOCK_UN)
    assert flock_is_free(b) if kind == "flock" else is_free(b)


@pytest.mark.parametrize("kind", WAIT)
def test_locks_of_the_dead_are_free(
    kind: str, views: TwoViews, both: tuple[int, int], child: Callable[[Path], Child]
) -> None:
    _, b = both
    other = child(views.a / "f")
    assert other.do(WAIT[kind]) == "done"
    other.process.kill()
    other.process.wait(KILL_S)
    eventually(lambda: flock_is_free(b) if kind == "flock" else is_free(b))


def test_a_deadlock_is_refused(
    views: TwoViews, both: tuple[int, int], child: Callable[[Path], Child]
) -> None:
    first, second = child(views.a / "f"), child(views.b / "f")
    assert first.do("fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)") == "done"
    assert second.do("fcntl.lockf(fd, fcntl.LOCK_EX, 1, 1)") == "done"
    first.begin("fcntl.lockf(fd, fcntl.LOCK_EX, 1, 1)")
    second.begin("fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)")
    eventually(lambda: first.has_answered or second.has_answered)
    # Refused is who came second to metad, and only he: the other one waits on.
    refused, other, its = (first, second, 0) if first.has_answered else (second, first, 1)
    assert refused.result() == errno.errorcode[errno.EDEADLK]
    assert not other.has_answered
    assert refused.do(f"fcntl.lockf(fd, fcntl.LOCK_UN, 1, {its})") == "done"
    assert other.result() == "done"
