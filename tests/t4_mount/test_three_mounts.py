"""Three mounts of one host that write and read one file at the same time, all caches on."""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import LiveCluster, LiveMount

PAGE = 4096
RECORDS = 60
ADDITIONS = 30
TURNS = 10


@pytest.fixture(scope="module")
def mount_c(cluster: LiveCluster) -> Iterator[LiveMount]:
    mount = cluster.mount("c")
    yield mount
    cluster.unmount(mount)


@pytest.fixture
def three(views: TwoViews, mount_c: LiveMount) -> tuple[Path, Path, Path]:
    """A fresh directory on all of them."""
    return views.a, views.b, mount_c.point / views.a.name


@contextmanager
def _opened(views: tuple[Path, ...], flags: int) -> Iterator[list[int]]:
    """The file `f` on each mount."""
    with ExitStack() as cleanup:
        descriptors = []
        for view in views:
            descriptor = os.open(view / "f", flags, 0o644)
            cleanup.callback(os.close, descriptor)
            descriptors.append(descriptor)
        yield descriptors


def _at_once(action: Callable[[int], object], count: int) -> None:
    """Run action(0), action(1) ... in threads that start together."""
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        action(number)

    with ThreadPoolExecutor(count) as pool:
        for task in [pool.submit(run, number) for number in range(count)]:
            task.result()


def test_no_appended_record_is_lost_or_torn(
    three: tuple[Path, Path, Path], rng: random.Random
) -> None:
    """Records of up to three pages, written without a sync, in the order of each writer."""
    records = [
        [b"%d:%d:" % (writer, number) + b"x" * rng.randrange(3 * PAGE) for number in range(RECORDS)]
        for writer in range(3)
    ]

    def append(writer: int) -> None:
        for record in records[writer]:
            assert os.write(descriptors[writer], record + b"\n") == len(record) + 1

    with _opened(three, os.O_CREAT | os.O_WRONLY | os.O_APPEND) as descriptors:
        _at_once(append, 3)
        for view in three:
            lines = (view / "f").read_bytes().splitlines()
            for writer in range(3):
                mine = [line for line in lines if line.startswith(b"%d:" % writer)]
                assert mine == records[writer]
            assert len(lines) == 3 * RECORDS


@pytest.mark.parametrize("lock", [fcntl.flock, fcntl.lockf], ids=["flock", "lockf"])
def test_a_counter_under_a_lock_misses_no_addition(
    three: tuple[Path, Path, Path], lock: Callable[[int, int], object]
) -> None:
    (three[0] / "f").write_bytes(b"%08d" % 0)

    def add(number: int) -> None:
        descriptor = descriptors[number]
        for _ in range(ADDITIONS):
            lock(descriptor, fcntl.LOCK_EX)
            value = int(os.pread(descriptor, 8, 0))
            os.pwrite(descriptor, b"%08d" % (value + 1), 0)
            lock(descriptor, fcntl.LOCK_UN)

    with _opened(three, os.O_RDWR) as descriptors:
        _at_once(add, 3)
        for descriptor in descriptors:
            assert int(os.pread(descriptor, 8, 0)) == 3 * ADDITIONS


@pytest.mark.parametrize("size", [12, 3 * PAGE, 300_000], ids=["inline", "pages", "chunk"])
def test_each_sees_what_the_others_have_written_without_closing(
    three: tuple[Path, Path, Path], size: int
) -> None:
    """They write by turns, into the same pages; all have the file open and cached."""
    expected = bytearray(size)
    (three[0] / "f").write_bytes(expected)
    with _opened(three, os.O_RDWR) as descriptors:
        for turn in range(TURNS * 3):
            at = size // 2 + turn % 3
            os.pwrite(descriptors[turn % 3], b"%d" % (turn % 10), at)
            expected[at] = ord("0") + turn % 10
            for descriptor in descriptors:
                assert os.pread(descriptor, size + 1, 0) == expected


def test_one_of_three_creates_exclusively(three: tuple[Path, Path, Path]) -> None:
    winners: list[tuple[int, int]] = []

    def create(number: int) -> None:
        for turn in range(20):
            try:
                os.close(os.open(three[number] / f"f{turn}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            winners.append((turn, number))

    _at_once(create, 3)
    assert sorted(turn for turn, _ in winners) == list(range(20))


def test_a_shared_mapping_is_coherent_with_read_and_write_on_its_mount(
    three: tuple[Path, Path, Path],
) -> None:
    """Both ways and without msync; on other mounts the stores are seen once they are synced."""
    here = three[0]
    (here / "f").write_bytes(b"1" * 3 * PAGE)
    with (
        _opened(three, os.O_RDWR) as descriptors,
        mmap.mmap(descriptors[0], 0) as mapping,
        mmap.mmap(descriptors[0], 0) as another,
        mmap.mmap(descriptors[1], 0, access=mmap.ACCESS_READ) as elsewhere,
    ):
        for turn in range(TURNS):
            at = turn * 1000
            mapping[at : at + 3] = b"%03d" % turn
            assert another[at : at + 3] == b"%03d" % turn
            assert os.pread(descriptors[0], 3, at) == b"%03d" % turn
            with (here / "f").open("rb") as fresh:
                assert os.pread(fresh.fileno(), 3, at) == b"%03d" % turn
            os.pwrite(descriptors[0], b"abc", at + 3)
            assert mapping[at : at + 6] == another[at : at + 6] == b"%03dabc" % turn
            assert elsewhere[at + 3 : at + 6] == b"abc"
            os.pwrite(descriptors[2], b"xyz", at + 6)
            assert mapping[at : at + 9] == b"%03dabcxyz" % turn
            mapping.flush()
            assert os.pread(descriptors[1], 9, at) == elsewhere[at : at + 9] == mapping[at : at + 9]
