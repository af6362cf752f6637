"""What all rules stand on: the same operation on a mount and on its twin, and the comparison.

A machine works in one directory that it sees through one or more mounts of a cluster (`views`), and
in a directory of ext4, its twin.  What a rule does on any view and on the twin must come to the
same: the value, or the errno.  Now and then both trees are compared whole.
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from tests.stateful.twin import assert_same_tree, outcome

COMPARE_EVERY = 10  # steps; a comparison reads everything
TRACE = 12  # operations that a failure tells of

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
modes = st.sampled_from(
    [0o000, 0o400, 0o600, 0o644, 0o666, 0o700, 0o755, 0o777, 0o1777, 0o2755, 0o4755, 0o6777]
)
moments = st.integers(1, 10**17)
views = st.integers(0, 1)

_numbers = itertools.count()


@dataclass
class World:
    """Where a machine works.

    `missing`: words for what this file system can't do, see running.py.
    `remount` mounts a view anew; the others are done to the cluster's processes.
    """

    roots: list[Path]
    plain: Path
    missing: frozenset[str] = frozenset()
    remount: Callable[[int], None] | None = None
    restart_metad: Callable[[], None] | None = None
    lose_chunkd: Callable[[int], None] | None = None
    return_chunkds: Callable[[], None] | None = None
    check: Callable[[], None] = field(default=lambda: None)


class Machine(RuleBasedStateMachine):
    """Begins with a few directories and files, and ends with both trees the same."""

    def __init__(self, world: World) -> None:
        super().__init__()
        name = f"stateful{next(_numbers)}"
        self.world = world
        self.roots = [root / name for root in world.roots]
        self.plain = world.plain / name
        self.roots[0].mkdir(mode=0o755)
        self.plain.mkdir(mode=0o755)
        self.steps = 0
        self.fill = 0
        self.trace: list[str] = []
        # A few things to begin with, or most of the first operations would end with ENOENT.
        for root in (self.roots[0], self.plain):
            for directory in ("a", "b", "a/c"):
                (root / directory).mkdir(mode=0o755)
            for file in ("c", "a/a", "b/a", "a/c/b"):
                (root / file).write_bytes(file.encode())

    # -- doing

    def both(self, view: int, action: Callable[[Path], Any], what: str) -> None:
        """Do it on one view of the mount and on the twin; the outcomes must be the same."""
        view %= len(self.roots)
        self.note(view, what)
        mine = outcome(lambda: action(self.roots[view]))
        theirs = outcome(lambda: action(self.plain))
        self.must_be_same(mine, theirs)

    def note(self, view: int, what: str) -> None:
        """To be called before each operation: for the text of a failure, and now and then all is
        compared."""
        self.trace.append(f"{view}: {what}")
        self.steps += 1
        if self.steps % COMPARE_EVERY == 0:
            self.compare()

    def must_be_same(self, mine: Any, theirs: Any) -> None:
        if mine != theirs:
            self.fail(f"{mine} instead of {theirs}")

    def fail(self, difference: str) -> None:
        text = "\n".join([difference[:1000], *self.trace[-TRACE:]])
        print(text)  # hypothesis tells nothing of a failure that does not come again
        raise AssertionError(text)

    # -- what there is

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

    def is_fifo(self, path: str) -> bool:
        """Opening one waits for who opens the other end, who may be on another mount."""
        try:
            return stat.S_ISFIFO((self.plain / path).stat().st_mode)
        except OSError:
            return False

    # -- comparing

    def compare(self) -> None:
        """Compare both trees whole, through one view after the other."""
        view = self.steps // COMPARE_EVERY % len(self.roots)
        try:
            assert_same_tree(self.roots[view], self.plain)
        except AssertionError as difference:
            self.fail(str(difference))

    def teardown(self) -> None:
        try:
            self.compare()
            self.world.check()
        finally:
            for place in (self.roots[0], self.plain):
                _remove(place)


def _remove(place: Path) -> None:
    for directory, _, _ in os.walk(place):
        os.chmod(directory, 0o700)
    shutil.rmtree(place)
