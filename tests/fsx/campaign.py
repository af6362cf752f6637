"""Many operations in rounds, each round on fresh files, with a log that is written as it goes.

The log of a round holds its operations one a line, each written before it is done, so that it is
whole whatever happens; played again by `replay`, it does the same again.  A round that fails is cut
down by `shrink` as far as it still fails.
"""

from __future__ import annotations

import itertools
import random
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fsx.operations import SMALL, WEIGHTS, Chooser, Operation, Shape
from tests.fsx.player import Mismatch, Player
from tests.fsx.shrink import shrunk

ROUND = 5000  # operations: few enough for the shrinker, enough to meet one's own past

_directories = itertools.count()


@dataclass
class Settings:
    """What a campaign does.  `log` is a file; that of a failed round stays."""

    roots: Sequence[Path]
    log: Path
    seed: int = 0
    operations: int = 20_000
    shape: Shape = SMALL
    without: frozenset[str] = frozenset({"drop_caches"})
    files: int = 2
    remounts: Sequence[Callable[[], None]] = ()
    shrinks: bool = True
    say: Callable[[str], None] = field(default=lambda text: None)


class Failed(Exception):
    """The text says what differed, after which operations, and how to see it again."""


def run(settings: Settings) -> int:
    """Do `settings.operations` operations; how many were done.  Raises Failed."""
    done, number = 0, 0
    began = time.monotonic()
    while done < settings.operations:
        count = min(ROUND, settings.operations - done)
        _round(settings, f"{settings.seed}.{number}", count)
        done, number = done + count, number + 1
        rate = done / (time.monotonic() - began)
        settings.say(f"seed {settings.seed}: {done} operations, {rate:.0f} a second")
    return done


def _round(settings: Settings, seed: str, count: int) -> None:
    kinds = [kind for kind in WEIGHTS if kind not in settings.without]
    if not settings.remounts:
        kinds.remove("remount")
    rng = random.Random(f"fsx {seed}")
    chooser = Chooser(rng, settings.shape, kinds, len(settings.roots), settings.files)

    def operations(player: Player) -> Iterable[Operation]:
        for _ in range(count):
            yield chooser.draw(player.models)
        for number in range(settings.files):
            for view in range(len(settings.roots)):
                yield Operation("check", (number, view))

    try:
        _play(settings, operations, settings.log)
    except Mismatch as problem:
        played = load(settings.log)
        text = (
            f"round {seed}, operation {len(played)} ({played[-1]}): {problem}\nlog: {settings.log}"
        )
        if settings.shrinks:
            text += _shrink(settings, played)
        raise Failed(text) from problem


def replay(settings: Settings, operations: Sequence[Operation]) -> None:
    """Do exactly these operations on fresh files.  Raises Mismatch."""
    _play(settings, lambda player: operations, None)


def load(log: Path) -> list[Operation]:
    """The operations in a log."""
    lines = log.read_text().splitlines()
    return [Operation.parse(line) for line in lines if line and not line.startswith("#")]


def _play(
    settings: Settings, operations: Callable[[Player], Iterable[Operation]], log: Path | None
) -> None:
    """On files in a new directory, which is removed when all went well."""
    name = f"fsx-{settings.seed}-{next(_directories)}"
    places = [root / name for root in settings.roots]
    places[0].mkdir()
    player = Player(places, settings.files, settings.remounts)
    try:
        with open(log or "/dev/null", "w", buffering=1) as lines:
            for operation in operations(player):
                lines.write(f"{operation}\n")
                player.play(operation)
    finally:
        player.close()
        shutil.rmtree(places[0])


def _shrink(settings: Settings, played: list[Operation]) -> str:
    """Cut the operations down, and keep the result beside the log; what to tell of it."""

    def fails(operations: list[Operation]) -> bool:
        try:
            replay(settings, operations)
        except Mismatch:
            return True
        return False

    settings.say(f"shrinking {len(played)} operations")
    if not fails(played):
        return "\nplayed again, it does not fail: it depends on time"
    few = shrunk(played, fails)
    short = settings.log.with_suffix(".short")
    short.write_text("".join(f"{operation}\n" for operation in few))
    shown = "\n".join(f"  {operation}" for operation in few[-60:])
    return f"\n{len(few)} operations are enough ({short}):\n{shown}"
