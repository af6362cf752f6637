"""Numbers that one mount raises in some way, and that another mount reads back.

Each function of KINDS prepares one way: file content, size, names, times, xattrs, link targets.
test_races.py lets one thread change and others watch, and no observation may miss what was complete
when it began, nor go back.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from tests.t4_mount.conftest import TwoViews

ROUNDS = 100
PAGE = 4096


class Watched:
    """A number that one side raises through a file system, and that the other side reads back."""

    def __init__(
        self, publish: Callable[[int], object], observe: Callable[[], int], *descriptors: int
    ) -> None:
        self._publish = publish
        self._observe = observe
        self._descriptors = descriptors
        self.completed = 0
        self.finished = False
        self.observations = 0

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

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


def page(views: TwoViews) -> Watched:
    """One page is written again and again, with a sync."""
    (views.a / "f").write_bytes(b"0" * PAGE)
    writer = os.open(views.a / "f", os.O_WRONLY)
    reader = os.open(views.b / "f", os.O_RDONLY)

    def publish(number: int) -> None:
        os.pwrite(writer, b"%d " % number * 500, 0)
        os.fsync(writer)

    return Watched(publish, lambda: int(os.pread(reader, PAGE, 0).split()[0]), writer, reader)


def large_file(views: TwoViews) -> Watched:
    """The same without a sync, in the middle of a file of several chunks; closing publishes."""
    size = 5 << 20
    (views.a / "f").write_bytes(b"0 " * (size // 2))
    reader = os.open(views.b / "f", os.O_RDONLY)

    def publish(number: int) -> None:
        with (views.a / "f").open("r+b") as writer:
            writer.seek(size - PAGE)
            writer.write(b"%d " % number * 500)

    return Watched(publish, lambda: int(os.pread(reader, 100, size - PAGE).split()[0]), reader)


def size(views: TwoViews) -> Watched:
    (views.a / "f").touch()

    def publish(number: int) -> None:
        with (views.a / "f").open("ab") as writer:
            writer.write(b"x")

    return Watched(publish, lambda: (views.b / "f").stat().st_size)


def replaced_file(views: TwoViews) -> Watched:
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


def new_names(views: TwoViews) -> Watched:
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


def removed_names(views: TwoViews) -> Watched:
    for number in range(1, ROUNDS + 1):
        (views.a / f"f{number}").touch()
    gone = 0

    def observe() -> int:
        nonlocal gone
        while gone < ROUNDS and not (views.b / f"f{gone + 1}").exists():
            gone += 1
        return gone

    return Watched(lambda number: (views.a / f"f{number}").unlink(), observe)


def listing(views: TwoViews) -> Watched:
    def publish(number: int) -> None:
        (views.a / f"f{number}").touch()

    return Watched(publish, lambda: len(os.listdir(views.b)))


def mode_and_times(views: TwoViews) -> Watched:
    (views.a / "f").touch()
    os.utime(views.a / "f", ns=(0, 0))

    def publish(number: int) -> None:
        os.utime(views.a / "f", ns=(number, number))

    return Watched(publish, lambda: (views.b / "f").stat().st_mtime_ns)


def xattr(views: TwoViews) -> Watched:
    (views.a / "f").touch()
    os.setxattr(views.a / "f", "user.x", b"0")

    def publish(number: int) -> None:
        os.setxattr(views.a / "f", "user.x", b"%d" % number)

    return Watched(publish, lambda: int(os.getxattr(views.b / "f", "user.x")))


def link_target(views: TwoViews) -> Watched:
    (views.a / "l").symlink_to("0")

    def publish(number: int) -> None:
        (views.a / "l.new").symlink_to(str(number))
        os.rename(views.a / "l.new", views.a / "l")

    return Watched(publish, lambda: int(os.readlink(views.b / "l")))


KINDS = (
    page,
    large_file,
    size,
    replaced_file,
    new_names,
    removed_names,
    listing,
    mode_and_times,
    xattr,
    link_target,
)
