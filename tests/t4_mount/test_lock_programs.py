"""What programs make of locks: on and off without a pause, by many processes, on two mounts."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import eventually

F_OFD_SETLK = 37
PROGRAM_S = 60.0

COUNT = """
import fcntl, os, sys
path, kind, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
lock = fcntl.flock if kind == "flock" else fcntl.lockf
for number in range(rounds):
    fd = os.open(path, os.O_RDWR)
    lock(fd, fcntl.LOCK_EX)
    value = int(os.pread(fd, 100, 0))
    os.pwrite(fd, b"%d" % (value + 1), 0)
    if number % 2:
        lock(fd, fcntl.LOCK_UN)
    os.close(fd)
"""

FORK = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
fcntl.lockf(fd, fcntl.LOCK_EX)
if os.fork():
    os._exit(0)
print("child", flush=True)
sys.stdin.readline()
"""


def can_lock(path: Path, kind: str) -> bool:
    fd = os.open(path, os.O_RDWR)
    try:
        if kind == "flock":
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_one_process_after_the_other_on_one_mount(here: Path) -> None:
    """A flock goes when the kernel releases the file, after close(2) has returned; on the same
    mount nobody notices."""
    path = here / "f"
    path.write_bytes(b"")
    assert [can_lock(path, "flock") for _ in range(100)] == [True] * 100
    assert [can_lock(path, "fcntl") for _ in range(100)] == [True] * 100


@pytest.mark.parametrize("kind", ["flock", "fcntl"])
def test_a_counter_that_processes_of_two_mounts_share(views: TwoViews, kind: str) -> None:
    """Without fsync, and half the time without an unlock before the close."""
    (views.a / "count").write_bytes(b"0")
    rounds = 25
    processes = [
        subprocess.Popen([sys.executable, "-c", COUNT, str(view / "count"), kind, str(rounds)])
        for view in (views.a, views.b, views.a, views.b)
    ]
    try:
        for process in processes:
            assert process.wait(PROGRAM_S) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert (views.a / "count").read_bytes() == b"%d" % (4 * rounds)
    assert (views.b / "count").read_bytes() == b"%d" % (4 * rounds)


def test_a_forked_process_keeps_the_flock_and_not_the_ranges(views: TwoViews) -> None:
    (views.a / "f").write_bytes(b"")
    program = subprocess.Popen(
        [sys.executable, "-c", FORK, str(views.a / "f")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == b"child\n"
    program.wait(PROGRAM_S)
    eventually(lambda: can_lock(views.b / "f", "fcntl"))
    assert not can_lock(views.b / "f", "flock")
    program.communicate(b"\n", PROGRAM_S)
    eventually(lambda: can_lock(views.b / "f", "flock"))


def test_a_lock_of_an_open_file_goes_with_its_last_descriptor(views: TwoViews) -> None:
    """F_OFD_SETLK; the kernel does not say that it ends."""
    (views.a / "f").write_bytes(b"")
    first = os.open(views.a / "f", os.O_RDWR)
    second = os.dup(first)
    wanted = b"".join(
        [fcntl.F_WRLCK.to_bytes(2, sys.byteorder), bytes(30)]  # the whole file
    )
    fcntl.fcntl(first, F_OFD_SETLK, wanted)
    os.close(first)
    assert not can_lock(views.b / "f", "fcntl")
    os.close(second)
    eventually(lambda: can_lock(views.b / "f", "fcntl"))
