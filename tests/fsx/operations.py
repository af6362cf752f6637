"""The operations of fsx: how each is drawn by chance, and how it stands in a log.

An operation is a word and whole numbers, and says everything: the same operations on a fresh
directory do the same again.  What makes no sense in the state that the files are in (after others
were taken out by the shrinker) is left out by the player, not here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from tests.fsx.model import Model

KIB, MIB = 1 << 10, 1 << 20


class Operation(NamedTuple):
    """`kind` is a method of the player, `args` are its arguments: the file and the view first."""

    kind: str
    args: tuple[int, ...]

    def __str__(self) -> str:
        return " ".join([self.kind, *map(str, self.args)])

    @classmethod
    def parse(cls, line: str) -> Operation:
        kind, *args = line.split()
        return cls(kind, tuple(map(int, args)))


@dataclass(frozen=True)
class Shape:
    """Where operations fall.  `islands` are the ranges of offsets; sizes stay below their end."""

    islands: tuple[tuple[int, int], ...] = ((0, MIB),)
    length_max: int = 64 * KIB

    @property
    def end(self) -> int:
        return self.islands[-1][1]


SMALL = Shape()
# Around the places where 32-bit numbers, chunks, and the largest file end.
SPARSE = Shape(
    islands=(
        (0, 64 * KIB),
        (4 * MIB - 64 * KIB, 4 * MIB + 64 * KIB),
        ((1 << 31) - 64 * KIB, (1 << 31) + 64 * KIB),
        ((1 << 32) - 64 * KIB, (1 << 32) + 64 * KIB),
        ((1 << 44) - 256 * KIB, (1 << 44) - 64 * KIB),  # ext4 ends a page before
    ),
    length_max=32 * KIB,
)

# How often each kind is drawn, in relation to the others.
WEIGHTS = {
    "read": 18,
    "write": 18,
    "append": 4,
    "direct_read": 2,
    "direct_write": 3,
    "map_read": 8,
    "map_write": 8,
    "truncate": 5,
    "truncate_path": 2,
    "allocate": 2,
    "allocate_keep": 2,
    "punch": 4,
    "zero": 2,
    "zero_keep": 2,
    "copy": 6,
    "seek": 5,
    "look": 5,
    "sync": 2,
    "sync_data": 2,
    "reopen": 2,
    "forget": 2,
    "rename": 1,
    "link": 1,
    "unlink": 1,
    "check": 0.5,
    "drop_caches": 0.1,
    "remount": 0.01,
}


class Chooser:
    """Draws operations on `files` files through `views` mounts."""

    def __init__(
        self, rng: random.Random, shape: Shape, kinds: Iterable[str], views: int, files: int = 2
    ) -> None:
        self._rng = rng
        self._shape = shape
        self._views = views
        self._files = files
        self._fill = 0
        self._last_offset = 0
        self._sizes: list[int] = []
        self._now = 0
        self._kinds = [kind for kind in WEIGHTS if kind in set(kinds)]
        self._weights = [WEIGHTS[kind] for kind in self._kinds]
        ranged = [self._offset, self._length]
        filled = [*ranged, self._next_fill]
        self._arguments: dict[str, list[Callable[[], int]]] = {
            "read": ranged,
            "write": filled,
            "append": [self._length, self._next_fill],
            "direct_read": ranged,
            "direct_write": filled,
            "map_read": ranged,
            "map_write": [*filled, lambda: rng.randrange(2)],
            "truncate": [self._size],
            "truncate_path": [self._size],
            "allocate": ranged,
            "allocate_keep": ranged,
            "punch": [self._offset, self._long],
            "zero": ranged,
            "zero_keep": ranged,
            "copy": [self._offset, self._file, self._offset, self._length],
            "seek": [self._offset, lambda: rng.randrange(2)],
        }

    def draw(self, models: list[Model]) -> Operation:
        """One more operation.  `models` is what the files contain at this moment."""
        self._sizes = [model.size for model in models]
        (kind,) = self._rng.choices(self._kinds, self._weights)
        first = [self._file(), self._rng.randrange(self._views)]
        self._now = first[0]
        if kind == "append" and self._sizes[self._now] >= self._shape.end:
            kind = "look"  # or appending would lead behind the largest file
        return Operation(kind, (*first, *(draw() for draw in self._arguments.get(kind, []))))

    def _file(self) -> int:
        """The first file most of the time: what happens to one must meet."""
        return 0 if self._rng.random() < 0.8 else self._rng.randrange(self._files)

    def _offset(self) -> int:
        """Anywhere, or at a border: of a page, of a checksum block, of the file."""
        rng = self._rng
        start, end = rng.choice(self._shape.islands)
        dice = rng.random()
        if dice < 0.6:
            offset = rng.randrange(start, end)
        elif dice < 0.9:
            unit = rng.choice((512, 4 * KIB, 64 * KIB))
            offset = rng.randrange(start, end) // unit * unit + rng.choice((-1, 0, 0, 0, 1))
        else:
            offset = self._sizes[self._now] + rng.randrange(-20, 20)
        self._last_offset = min(max(0, offset), self._shape.end - 1)
        return self._last_offset

    def _length(self) -> int:
        rng = self._rng
        dice = rng.random()
        if dice < 0.2:
            return rng.randrange(1, 64)
        if dice < 0.5:
            return rng.randrange(1, 8 * KIB)
        if dice < 0.7:
            return rng.choice((512, 4 * KIB, 8 * KIB, self._shape.length_max))
        return rng.randrange(1, self._shape.length_max + 1)

    def _long(self) -> int:
        """A length for what costs nothing: now and then behind the end of everything."""
        rest = self._shape.end - self._last_offset
        return rest if self._rng.random() < 0.05 else self._length()

    def _size(self) -> int:
        """Small files are kept in another way than large ones, so a file is small now and then."""
        dice = self._rng.random()
        if dice < 0.1:
            return 0
        if dice < 0.2:
            return self._rng.randrange(12 * KIB)
        return self._offset()

    def _next_fill(self) -> int:
        self._fill += 1
        return self._fill
