"""Rules on open descriptors: they outlive names, truncation, and faults of the cluster."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.stateful.machine import (
    World,
    existing,
    file_paths,
    modes,
    moments,
    names,
    paths,
    views,
)
from tests.stateful.naming import Names
from tests.stateful.twin import described, outcome
from tests.syscalls import open_lock, open_lock_holder

DESCRIPTORS = 5
RELEASE_S = 5.0
O_TMPFILE = os.O_TMPFILE

access = st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR])
extra_flags = st.sets(
    st.sampled_from(
        [
            os.O_CREAT,
            os.O_EXCL,
            os.O_TRUNC,
            os.O_APPEND,
            os.O_DSYNC,
            os.O_DIRECTORY,
            os.O_NOFOLLOW,
            os.O_NOATIME,
        ]
    ),
    max_size=3,
).map(sum)
slots = st.integers(0, DESCRIPTORS - 1)
lock_kinds = st.sampled_from([fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK])


@dataclass
class Open:
    """A descriptor on a view of the mount, and one on the twin."""

    mine: int
    theirs: int
    view: int

    def close(self) -> None:
        os.close(self.theirs)
        os.close(self.mine)


class OpenFiles(Names):
    """Descriptors in slots; a slot is closed when something else is opened in it."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.open: list[Open | None] = [None] * DESCRIPTORS

    def teardown(self) -> None:
        for slot, it in enumerate(self.open):
            if it is not None:
                self.open[slot] = None
                it.close()
        super().teardown()

    def close_slot(self, slot: int) -> None:
        it, self.open[slot] = self.open[slot], None
        if it is not None:
            self.note(it.view, f"close {slot}")
            it.close()

    def close_view(self, view: int) -> None:
        for slot in range(DESCRIPTORS):
            if (it := self.open[slot]) is not None and it.view == view:
                self.close_slot(slot)

    def used(self, slot: int) -> Open | None:
        """That slot if it is used, or another one."""
        used = [it for it in self.open[slot:] + self.open[:slot] if it is not None]
        return used[0] if used else None

    def is_directory(self, slot: int) -> bool:
        it = self.used(slot)
        return it is not None and stat.S_ISDIR(os.fstat(it.theirs).st_mode)

    def with_descriptor(self, slot: int, action: Callable[[int], Any], what: str) -> None:
        """Do it with both descriptors of a slot; the outcomes must be the same."""
        if (it := self.used(slot)) is not None:
            self.note(it.view, f"{what}, slot {self.open.index(it)}")
            mine = outcome(lambda: action(it.mine))
            theirs = outcome(lambda: action(it.theirs))
            self.must_be_same(mine, theirs)

    def opened(self, slot: int, view: int, action: Callable[[Path], int], what: str) -> None:
        """Put what `action` opens into a slot; both open it or both fail."""
        self.close_slot(slot)
        view %= len(self.roots)
        self.note(view, f"{what}, slot {slot}")
        mine = outcome(lambda: action(self.roots[view]))
        theirs = outcome(lambda: action(self.plain))
        if mine[0] == theirs[0] == "ok":
            self.open[slot] = Open(mine[1], theirs[1], view)
            return
        for kind, value in (mine, theirs):
            if kind == "ok":
                os.close(value)
        self.must_be_same(mine, theirs)

    # -- opening and closing

    @rule(slot=slots, view=views, path=file_paths, flags=access, extra=extra_flags, mode=modes)
    def open_file(self, slot: int, view: int, path: str, flags: int, extra: int, mode: int) -> None:
        if not self.is_fifo(path):
            self.opened(
                slot,
                view,
                lambda root: os.open(root / path, flags | extra, mode),
                f"open {path} with {flags | extra:#o}",
            )

    @precondition(lambda self: "tmpfile" not in self.world.missing)
    @rule(slot=slots, view=views, path=st.one_of(st.just("."), existing), mode=modes)
    def open_without_a_name(self, slot: int, view: int, path: str, mode: int) -> None:
        self.opened(
            slot,
            view,
            lambda root: os.open(root / path, os.O_RDWR | O_TMPFILE, mode),
            f"open a nameless file in {path}",
        )

    @rule(slot=slots, path=paths)
    def give_it_a_name(self, slot: int, path: str) -> None:
        """linkat(2) of a descriptor: ENOENT when the file has lost its names."""
        if (it := self.used(slot)) is None:
            return
        self.note(it.view, f"link slot {self.open.index(it)} as {path}")

        def named(descriptor: int, root: Path) -> Any:
            return outcome(
                lambda: os.link(f"/proc/self/fd/{descriptor}", root / path, follow_symlinks=True)
            )

        mine, theirs = named(it.mine, self.roots[it.view]), named(it.theirs, self.plain)
        self.must_be_same(mine, theirs)

    @rule(slot=slots)
    def close_file(self, slot: int) -> None:
        self.close_slot(slot)

    @rule(slot=slots, other=slots)
    def duplicate(self, slot: int, other: int) -> None:
        """One open file, two descriptors: closing one leaves it open."""
        if (it := self.used(slot)) is not None:
            copy = Open(os.dup(it.mine), os.dup(it.theirs), it.view)
            self.note(it.view, f"dup slot {self.open.index(it)} to {other}")
            self.close_slot(other)
            self.open[other] = copy

    @rule(slot=slots, view=views)
    def unlink_what_is_open(self, slot: int, view: int) -> None:
        if (it := self.used(slot)) is None:
            return
        inode = os.fstat(it.theirs).st_ino
        for path in self.existing():
            if (self.plain / path).lstat().st_ino == inode and not (self.plain / path).is_dir():
                self.both(view, lambda root, path=path: os.unlink(root / path), f"unlink {path}")

    # -- attributes

    @rule(slot=slots)
    def look_at_open(self, slot: int) -> None:
        self.with_descriptor(slot, lambda it: described(os.fstat(it)), "fstat")

    @rule(slot=slots, moment_ns=moments)
    def set_times_of_open(self, slot: int, moment_ns: int) -> None:
        self.with_descriptor(
            slot, lambda it: os.utime(it, ns=(moment_ns, moment_ns)), f"futimens {moment_ns}"
        )

    @rule(slot=slots, mode=modes)
    def change_mode_of_open(self, slot: int, mode: int) -> None:
        self.with_descriptor(slot, lambda it: os.fchmod(it, mode), f"fchmod {mode:o}")

    @rule(slot=slots, uid=st.integers(-1, 3), gid=st.integers(-1, 3))
    def change_owner_of_open(self, slot: int, uid: int, gid: int) -> None:
        self.with_descriptor(slot, lambda it: os.fchown(it, uid, gid), f"fchown {uid} {gid}")

    @rule(slot=slots, name=names, value=st.binary(max_size=20))
    def set_xattr_of_open(self, slot: int, name: str, value: bytes) -> None:
        self.with_descriptor(
            slot,
            lambda it: (os.setxattr(it, f"user.{name}", value), sorted(os.listxattr(it))),
            f"fsetxattr {name}",
        )

    # -- locks

    def with_lock(self, slot: int, action: Callable[[int], Any], what: str) -> None:
        """As `with_descriptor`; but the kernel tells us of the end of a lock by close(2) a moment
        after that has returned, so a difference must last."""
        if (it := self.used(slot)) is None:
            return
        self.note(it.view, f"{what}, slot {self.open.index(it)}")
        theirs = outcome(lambda: action(it.theirs))
        deadline = time.monotonic() + RELEASE_S
        while (mine := outcome(lambda: action(it.mine))) != theirs and time.monotonic() < deadline:
            time.sleep(0.01)
        self.must_be_same(mine, theirs)

    @precondition(lambda self: "locks" not in self.world.missing)
    @rule(slot=slots, kind=st.sampled_from([fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN]))
    def lock_whole(self, slot: int, kind: int) -> None:
        self.with_lock(slot, lambda it: fcntl.flock(it, kind | fcntl.LOCK_NB), f"flock {kind}")

    @precondition(lambda self: "locks" not in self.world.missing)
    @rule(slot=slots, kind=lock_kinds, start=st.integers(0, 20), length=st.integers(0, 20))
    def lock_range(self, slot: int, kind: int, start: int, length: int) -> None:
        self.with_lock(
            slot,
            lambda it: open_lock(it, kind, start, length),
            f"lock {kind} of {length} at {start}",
        )

    @precondition(lambda self: "locks" not in self.world.missing)
    @rule(
        slot=slots,
        kind=st.sampled_from([fcntl.F_RDLCK, fcntl.F_WRLCK]),
        start=st.integers(0, 20),
        length=st.integers(0, 20),
    )
    def ask_for_a_lock(self, slot: int, kind: int, start: int, length: int) -> None:
        """Which of several locks in the way is told is not promised, so only whether there is."""
        self.with_lock(
            slot,
            lambda it: open_lock_holder(it, kind, start, length)[0] == fcntl.F_UNLCK,
            f"getlk {kind} of {length} at {start}",
        )
