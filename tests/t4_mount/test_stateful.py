"""Random operations on a mount and on a plain local directory must have the same results.

hypothesis chooses the operations.  `OneMount` adds open descriptors and remounting; `TwoMounts`
does each operation on either of two mounts, and what one did must be true on the other at once.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.t4_mount.harness import LiveCluster, LiveMount
from tests.t4_mount.syscalls import rename_with_flags
from tests.t4_mount.twin import assert_same_tree, described, outcome

COMPARE_EVERY = 7  # steps; a comparison reads everything
DESCRIPTORS = 4

names = st.sampled_from(["a", "b", "c"])
any_paths = st.lists(names, min_size=1, max_size=3).map("/".join)
# Mostly what is there at this moment, else most operations would end with ENOENT or ENOTDIR.
existing = st.runner().flatmap(lambda machine: st.sampled_from(machine.existing()))
files = st.runner().flatmap(lambda machine: st.sampled_from(machine.existing(files=True)))
below = st.builds("{}/{}".format, existing, names)
paths = st.one_of(any_paths, existing, existing, below)
file_paths = st.one_of(any_paths, files, files)
# Around the limits of inline data, checksum blocks and pages.
sizes = st.one_of(
    st.integers(0, 20),
    st.sampled_from([4095, 4096, 8191, 8192, 8193, 65_535, 65_536, 65_537, 150_000]),
)
offsets = st.one_of(st.just(0), sizes)
modes = st.sampled_from([0o600, 0o644, 0o700, 0o755, 0o1777, 0o2755])
access = st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
extra_flags = st.sets(
    st.sampled_from([os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND]), max_size=3
).map(sum)
slots = st.integers(0, DESCRIPTORS - 1)

_numbers = itertools.count()


class Names(RuleBasedStateMachine):
    """Operations by path.  `roots` are views of one directory, `plain` is its local twin."""

    def __init__(self, mounts: list[LiveMount], scratch: Path) -> None:
        super().__init__()
        name = f"stateful{next(_numbers)}"
        self.mounts = mounts
        self.roots = [mount.point / name for mount in mounts]
        self.plain = scratch / name
        self.roots[0].mkdir(mode=0o755)
        self.plain.mkdir(mode=0o755)
        self.steps = 0
        self.fill = 0
        # A few things to begin with, or most of the first operations would end with ENOENT.
        for root in (self.roots[0], self.plain):
            for directory in ("a", "b", "a/c"):
                (root / directory).mkdir(mode=0o755)
            for file in ("c", "a/a", "b/a", "a/c/b"):
                (root / file).write_bytes(file.encode())

    def both(self, view: int, action: Callable[[Path], Any]) -> None:
        """Do it on one view of the mount and on the twin; the outcomes must be the same."""
        mine = outcome(lambda: action(self.roots[view % len(self.roots)]))
        theirs = outcome(lambda: action(self.plain))
        assert mine == theirs, f"{mine} instead of {theirs}"

    def payload(self, size: int) -> bytes:
        """`size` bytes that differ from those of every other write."""
        self.fill += 1
        return (b"%d;" % self.fill * size)[:size]

    def existing(self, files: bool = False) -> list[str]:
        """Paths that exist, those of regular files only if asked; never an empty list."""
        found = [
            str(path.relative_to(self.plain))
            for path in sorted(self.plain.rglob("*"))
            if not files or (path.is_file() and not path.is_symlink())
        ]
        return found or ["a"]

    @rule(view=st.integers(0, 1), path=file_paths, offset=offsets, size=sizes, flags=extra_flags)
    def write_file(self, view: int, path: str, offset: int, size: int, flags: int) -> None:
        data = self.payload(size)

        def action(root: Path) -> int:
            descriptor = os.open(root / path, os.O_WRONLY | flags, 0o644)
            try:
                return os.pwrite(descriptor, data, offset)
            finally:
                os.close(descriptor)

        self.both(view, action)

    @rule(view=st.integers(0, 1), path=file_paths)
    def read_file(self, view: int, path: str) -> None:
        self.both(view, lambda root: (root / path).read_bytes())

    @rule(view=st.integers(0, 1), path=file_paths, size=sizes)
    def truncate(self, view: int, path: str, size: int) -> None:
        self.both(view, lambda root: os.truncate(root / path, size))

    @rule(view=st.integers(0, 1), path=paths, mode=modes)
    def make_directory(self, view: int, path: str, mode: int) -> None:
        self.both(view, lambda root: os.mkdir(root / path, mode))

    @rule(view=st.integers(0, 1), path=paths)
    def remove_directory(self, view: int, path: str) -> None:
        self.both(view, lambda root: os.rmdir(root / path))

    @rule(view=st.integers(0, 1), path=paths)
    def unlink(self, view: int, path: str) -> None:
        self.both(view, lambda root: os.unlink(root / path))

    @rule(
        view=st.integers(0, 1), old=paths, new=paths, flags=st.sampled_from([0, 0, 0, 1, 2, 3, 8])
    )
    def rename(self, view: int, old: str, new: str, flags: int) -> None:
        self.both(view, lambda root: rename_with_flags(root / old, root / new, flags))

    @rule(view=st.integers(0, 1), old=paths, new=paths)
    def link(self, view: int, old: str, new: str) -> None:
        self.both(view, lambda root: os.link(root / old, root / new, follow_symlinks=False))

    @rule(view=st.integers(0, 1), points_to=paths, path=paths)
    def make_link(self, view: int, points_to: str, path: str) -> None:
        self.both(view, lambda root: os.symlink(points_to, root / path))

    @rule(view=st.integers(0, 1), path=paths)
    def read_link(self, view: int, path: str) -> None:
        self.both(view, lambda root: os.readlink(root / path))

    @rule(view=st.integers(0, 1), path=paths, follow=st.booleans())
    def look_at(self, view: int, path: str, follow: bool) -> None:
        self.both(view, lambda root: described(os.stat(root / path, follow_symlinks=follow)))

    @rule(view=st.integers(0, 1), path=st.one_of(st.just("."), paths))
    def list_directory(self, view: int, path: str) -> None:
        self.both(view, lambda root: sorted(os.listdir(root / path)))

    @rule(view=st.integers(0, 1), path=paths, mode=modes)
    def change_mode(self, view: int, path: str, mode: int) -> None:
        self.both(view, lambda root: os.chmod(root / path, mode))

    @rule(view=st.integers(0, 1), path=paths, uid=st.integers(-1, 3), gid=st.integers(-1, 3))
    def change_owner(self, view: int, path: str, uid: int, gid: int) -> None:
        self.both(view, lambda root: os.chown(root / path, uid, gid, follow_symlinks=False))

    @rule(view=st.integers(0, 1), path=paths, moment_ns=st.integers(1, 10**17))
    def set_times(self, view: int, path: str, moment_ns: int) -> None:
        times = (moment_ns, moment_ns)
        self.both(view, lambda root: os.utime(root / path, ns=times, follow_symlinks=False))

    @rule(view=st.integers(0, 1), path=paths, name=names, value=st.binary(max_size=40))
    def set_xattr(self, view: int, path: str, name: str, value: bytes) -> None:
        self.both(view, lambda root: os.setxattr(root / path, f"user.{name}", value))

    @rule(view=st.integers(0, 1), path=paths, name=names)
    def get_xattr(self, view: int, path: str, name: str) -> None:
        self.both(view, lambda root: os.getxattr(root / path, f"user.{name}"))

    @rule(view=st.integers(0, 1), path=paths, name=names)
    def remove_xattr(self, view: int, path: str, name: str) -> None:
        self.both(view, lambda root: os.removexattr(root / path, f"user.{name}"))

    @invariant()
    def now_and_then_everything_is_the_same(self) -> None:
        self.steps += 1
        if self.steps % COMPARE_EVERY == 0:
            self.compare()

    def compare(self) -> None:
        """Compare both trees whole, through the view that did not change last."""
        assert_same_tree(self.roots[self.steps % len(self.roots)], self.plain)

    def teardown(self) -> None:
        self.compare()
        shutil.rmtree(self.roots[0])
        shutil.rmtree(self.plain)


class TwoMounts(Names):
    """Each operation goes through either of two mounts."""


class OneMount(Names):
    """Descriptors that stay open over unlinking, renaming and truncation; remounting."""

    def __init__(self, mounts: list[LiveMount], scratch: Path) -> None:
        super().__init__(mounts, scratch)
        self.open_files: list[tuple[int, int] | None] = [None] * DESCRIPTORS
        self.remounted = False

    def with_descriptor(self, slot: int, action: Callable[[int], Any]) -> None:
        """Do it with the descriptors of an open file; the outcomes must be the same."""
        used = [each for each in self.open_files if each is not None]
        if not used:
            return
        descriptors = used[slot % len(used)]
        mine, theirs = (outcome(partial(action, it)) for it in descriptors)
        assert mine == theirs, f"{mine} instead of {theirs}"

    @rule(slot=slots, path=file_paths, flags=access, extra=extra_flags, mode=modes)
    def open_file(self, slot: int, path: str, flags: int, extra: int, mode: int) -> None:
        self.close_file(slot)
        mine = outcome(lambda: os.open(self.roots[0] / path, flags | extra, mode))
        theirs = outcome(lambda: os.open(self.plain / path, flags | extra, mode))
        if mine[0] == theirs[0] == "ok":
            self.open_files[slot] = (mine[1], theirs[1])
        else:
            assert mine == theirs, f"{mine} instead of {theirs}"

    @rule(slot=slots)
    def close_file(self, slot: int) -> None:
        if (descriptors := self.open_files[slot]) is not None:
            self.open_files[slot] = None
            assert outcome(lambda: os.close(descriptors[0])) == ("ok", None)
            os.close(descriptors[1])

    @rule(slot=slots, offset=offsets, size=sizes)
    def write_at(self, slot: int, offset: int, size: int) -> None:
        data = self.payload(size)
        self.with_descriptor(slot, lambda it: os.pwrite(it, data, offset))

    @rule(slot=slots, size=sizes)
    def write_on(self, slot: int, size: int) -> None:
        data = self.payload(size)
        self.with_descriptor(slot, lambda it: (os.write(it, data), os.lseek(it, 0, os.SEEK_CUR)))

    @rule(slot=slots, offset=offsets, size=sizes)
    def read_at(self, slot: int, offset: int, size: int) -> None:
        self.with_descriptor(slot, lambda it: os.pread(it, size, offset))

    @rule(slot=slots, size=sizes)
    def truncate_open(self, slot: int, size: int) -> None:
        self.with_descriptor(slot, lambda it: os.ftruncate(it, size))

    @rule(slot=slots)
    def look_at_open(self, slot: int) -> None:
        self.with_descriptor(slot, lambda it: described(os.fstat(it)))

    @rule(slot=slots, moment_ns=st.integers(1, 10**17))
    def set_times_of_open(self, slot: int, moment_ns: int) -> None:
        self.with_descriptor(slot, lambda it: os.utime(it, ns=(moment_ns, moment_ns)))

    @rule(slot=slots, mode=modes)
    def change_mode_of_open(self, slot: int, mode: int) -> None:
        self.with_descriptor(slot, lambda it: os.fchmod(it, mode))

    @rule(slot=slots)
    def sync(self, slot: int) -> None:
        self.with_descriptor(slot, os.fsync)

    @rule(slot=slots)
    def forget_pages(self, slot: int) -> None:
        self.with_descriptor(slot, lambda it: os.posix_fadvise(it, 0, 0, os.POSIX_FADV_DONTNEED))

    @precondition(lambda self: not self.remounted and self.steps > 15)
    @rule()
    def remount(self) -> None:
        for slot in range(DESCRIPTORS):
            self.close_file(slot)
        self.mounts[0].restart()
        self.remounted = True
        self.compare()

    def teardown(self) -> None:
        for slot in range(DESCRIPTORS):
            self.close_file(slot)
        super().teardown()


def _run(machine: Callable[[], RuleBasedStateMachine], examples: int, steps: int) -> None:
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        suppress_health_check=list(hypothesis.HealthCheck),
        # Shrinking repeats the whole thing hundreds of times, at milliseconds a step.
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate),
    )
    run_state_machine_as_test(machine, settings=settings)


def test_one_mount_behaves_like_a_local_directory(cluster: LiveCluster, tmp_path: Path) -> None:
    mount = cluster.mount("stateful")
    try:
        _run(lambda: OneMount([mount], tmp_path), examples=25, steps=60)
    finally:
        mount.stop()
        cluster.mounts.remove(mount)


def test_two_mounts_behave_like_one_local_directory(
    mount_a: LiveMount, mount_b: LiveMount, tmp_path: Path
) -> None:
    _run(lambda: TwoMounts([mount_a, mount_b], tmp_path), examples=25, steps=60)
