"""Two mounts at work in one directory at the same time.

Either they race for the same names, where the outcome must be one that some order explains; or one
changes and the other watches, where no operation may miss what was complete when it began.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from tests.t4_mount.conftest import TwoViews

T = TypeVar("T")
ROUNDS = 150
PAGE = 4096


def test_exclusive_creation_has_one_winner(views: TwoViews) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    for number in range(30):
        name = f"lock{number}"
        barrier = threading.Barrier(2)

        def attempt(view: Path, name: str = name, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            try:
                os.close(os.open(view / name, flags))
            except FileExistsError:
                return False
            return True

        assert sorted(_in_parallel(attempt, views)) == [False, True]


def test_both_create_in_one_directory_at_once(views: TwoViews) -> None:
    """The kernel takes the directory's lock for a create, and to forget one of its names as well;
    no circle of waiting may come of that."""
    count = 200
    started = time.monotonic()

    def create(view: Path) -> None:
        for number in range(count):
            (view / f"{view.parent.name}{number}").write_bytes(b"%d" % number)

    _in_parallel(create, views)
    assert time.monotonic() - started < 40
    for view in (views.a, views.b):
        names = os.listdir(view)
        assert len(names) == len(set(names)) == 2 * count
    for number in range(count):
        assert (views.a / f"b{number}").read_bytes() == b"%d" % number
        assert (views.b / f"a{number}").read_bytes() == b"%d" % number


def test_both_rename_across_directories_at_once(views: TwoViews) -> None:
    """A moves files from one directory to the other while B moves others back."""
    count = 60
    for name in ("left", "right"):
        (views.a / name).mkdir()
    for number in range(count):
        (views.a / "left" / f"a{number}").write_bytes(b"a%d" % number)
        (views.a / "right" / f"b{number}").write_bytes(b"b%d" % number)
    assert len(os.listdir(views.b / "left")) == len(os.listdir(views.b / "right")) == count
    started = time.monotonic()

    def move(view: Path) -> None:
        mine = view.parent.name
        source, target = ("left", "right") if mine == "a" else ("right", "left")
        for number in range(count):
            os.rename(view / source / f"{mine}{number}", view / target / f"{mine}{number}")
            os.stat(view / target / f"{mine}{number}")

    _in_parallel(move, views)
    assert time.monotonic() - started < 30
    for view in (views.a, views.b):
        assert sorted(os.listdir(view / "left")) == sorted(f"b{n}" for n in range(count))
        assert sorted(os.listdir(view / "right")) == sorted(f"a{n}" for n in range(count))


def test_both_create_remove_and_list_the_same_names_at_once(views: TwoViews) -> None:
    """Whoever loses a race gets the errno for it, and in the end both see the same."""

    def churn(view: Path) -> None:
        for turn in range(60):
            name = f"f{turn % 5}"
            for action in (
                lambda name=name: (view / name).write_bytes(b"x"),
                lambda name=name: os.rename(view / name, view / f"{name}.moved"),
                lambda: os.listdir(view),
                lambda name=name: (view / f"{name}.moved").unlink(),
            ):
                try:
                    action()
                except FileNotFoundError:
                    continue

    _in_parallel(churn, views)
    assert sorted(os.listdir(views.a)) == sorted(os.listdir(views.b))
    for name in os.listdir(views.a):
        assert (views.b / name).read_bytes() == (views.a / name).read_bytes()


class Watched:
    """A number that one side raises through a file system, and that the other side reads back."""

    def __init__(self, publish: Callable[[int], object], observe: Callable[[], int]) -> None:
        self._publish = publish
        self._observe = observe
        self.completed = 0
        self.finished = False
        self.observations = 0

    def change(self) -> None:
        try:
            for number in range(1, ROUNDS + 1):
                self._publish(number)
                self.completed = number
        finally:
            self.finished = True

    def watch(self) -> None:
        """Whatever was complete before an observation began must be seen by it."""
        last = 0
        while not self.finished:
            completed, before = self.completed, last
            last = self._observe()
            assert last >= completed, f"{last} seen when {completed} was complete"
            assert last >= before, f"{last} seen after {before}"
            self.observations += 1


def _page(views: TwoViews) -> Watched:
    """One page is written again and again, with a sync."""
    (views.a / "f").write_bytes(b"0" * PAGE)
    writer = os.open(views.a / "f", os.O_WRONLY)
    reader = os.open(views.b / "f", os.O_RDONLY)

    def publish(number: int) -> None:
        os.pwrite(writer, b"%d " % number * 500, 0)
        os.fsync(writer)

    return Watched(publish, lambda: int(os.pread(reader, PAGE, 0).split()[0]))


def _large_file(views: TwoViews) -> Watched:
    """The same without a sync, in the middle of a file of several chunks; closing publishes."""
    size = 5 << 20
    (views.a / "f").write_bytes(b"0 " * (size // 2))
    reader = os.open(views.b / "f", os.O_RDONLY)

    def publish(number: int) -> None:
        with (views.a / "f").open("r+b") as writer:
            writer.seek(size - PAGE)
            writer.write(b"%d " % number * 500)

    return Watched(publish, lambda: int(os.pread(reader, 100, size - PAGE).split()[0]))


def _size(views: TwoViews) -> Watched:
    (views.a / "f").touch()

    def publish(number: int) -> None:
        with (views.a / "f").open("ab") as writer:
            writer.write(b"x")

    return Watched(publish, lambda: (views.b / "f").stat().st_size)


def _replaced_file(views: TwoViews) -> Watched:
    """Written aside and renamed over the old one; every reader gets a whole version."""
    (views.a / "f").write_bytes(b"0 " * 20_000)

    def publish(number: int) -> None:
        (views.a / "f.new").write_bytes(b"%d " % number * 20_000)
        os.rename(views.a / "f.new", views.a / "f")

    def observe() -> int:
        words = set((views.b / "f").read_bytes().split())
        assert len(words) == 1, f"a mixture of versions: {words}"
        return int(words.pop())

    return Watched(publish, observe)


def _new_names(views: TwoViews) -> Watched:
    """The watcher asks for names that do not exist yet, and so remembers that they do not."""

    def publish(number: int) -> None:
        (views.a / f"f{number}").touch()

    known = 0

    def observe() -> int:
        nonlocal known
        while (views.b / f"f{known + 1}").exists():
            known += 1
        return known

    return Watched(publish, observe)


def _removed_names(views: TwoViews) -> Watched:
    for number in range(1, ROUNDS + 1):
        (views.a / f"f{number}").touch()
    gone = 0

    def observe() -> int:
        nonlocal gone
        while gone < ROUNDS and not (views.b / f"f{gone + 1}").exists():
            gone += 1
        return gone

    return Watched(lambda number: (views.a / f"f{number}").unlink(), observe)


def _listing(views: TwoViews) -> Watched:
    def publish(number: int) -> None:
        (views.a / f"f{number}").touch()

    return Watched(publish, lambda: len(os.listdir(views.b)))


def _mode_and_times(views: TwoViews) -> Watched:
    (views.a / "f").touch()
    os.utime(views.a / "f", ns=(0, 0))

    def publish(number: int) -> None:
        os.utime(views.a / "f", ns=(number, number))

    return Watched(publish, lambda: (views.b / "f").stat().st_mtime_ns)


def _xattr(views: TwoViews) -> Watched:
    (views.a / "f").touch()
    os.setxattr(views.a / "f", "user.x", b"0")

    def publish(number: int) -> None:
        os.setxattr(views.a / "f", "user.x", b"%d" % number)

    return Watched(publish, lambda: int(os.getxattr(views.b / "f", "user.x")))


def _link_target(views: TwoViews) -> Watched:
    (views.a / "l").symlink_to("0")

    def publish(number: int) -> None:
        (views.a / "l.new").symlink_to(str(number))
        os.rename(views.a / "l.new", views.a / "l")

    return Watched(publish, lambda: int(os.readlink(views.b / "l")))


KINDS = (
    _page,
    _large_file,
    _size,
    _replaced_file,
    _new_names,
    _removed_names,
    _listing,
    _mode_and_times,
    _xattr,
    _link_target,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.strip("_"))
def test_no_observation_misses_what_was_complete(
    views: TwoViews, kind: Callable[[TwoViews], Watched]
) -> None:
    watched = kind(views)
    with ThreadPoolExecutor(3) as pool:
        tasks = [pool.submit(watched.watch), pool.submit(watched.watch)]
        pool.submit(watched.change).result()
        for task in tasks:
            task.result()
    assert watched.observations > ROUNDS // 10


def _in_parallel(action: Callable[[Path], T], views: TwoViews) -> list[T]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(action, (views.a, views.b)))
