"""Entries of the journal as chunkds keep them, described for operators: `dfs metad journal`.

Only what a restore would believe too: entries of the history that counts, each with a digest that
fits.  Nothing is asked of metad, so this works when it is gone.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dfswire.client import Client
from dfswire.errors import UsageError
from dfswire.journal import Entry, decode_changes
from metad.recovery.gathering import NEWEST, Gathering

_CHANGE = re.compile(
    r"\b(INSERT(?: OR \w+)? INTO|REPLACE INTO|UPDATE(?: OR \w+)?|DELETE FROM)\s+\"?(\w+)", re.I
)


@dataclass(frozen=True)
class Range:
    """Which entries: the `last` of those from `first` to `end` and from `since_ns` to `until_ns`;
    0 is no limit."""

    last: int = 0
    first: int = 0
    end: int = 0
    since_ns: int = 0
    until_ns: int = 0

    def has(self, number: int, time_ns: int) -> bool:
        return (
            number >= self.first
            and (not self.end or number <= self.end)
            and time_ns >= self.since_ns
            and (not self.until_ns or time_ns <= self.until_ns)
        )


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """An entry: one group commit.  `changes`: rows by what was done to which table; `statements`:
    SQL texts and how many rows of parameters each had, if asked for."""

    number: int
    epoch: int
    term: int
    time_ns: int
    size_bytes: int
    changes: dict[str, int]
    statements: list[tuple[str, int]] = []


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Oldest first; `warnings`: what could not be asked, is damaged or is not kept any more."""

    entries: list[Listed]
    warnings: list[str]


async def list_entries(
    client: Client, addresses: Sequence[str], wanted: Range, *, statements: bool
) -> Listing:
    """What the chunkds at `addresses` keep.  Raises UsageError when none of them has an entry."""
    with tempfile.TemporaryDirectory(prefix="dfs-journal-") as directory:
        kept = Gathering(client, Path(directory))
        await kept.ask(addresses, kept.warnings.append)
        await kept.fetch_segments(NEWEST)
        tip = kept.lineage.tip()
        if tip is None:
            raise UsageError("; ".join(["none of these chunkds has an entry", *kept.warnings]))
        last = min(tip.number, wanted.end or tip.number)
        if wanted.until_ns:
            last = min(last, _before(kept, wanted.until_ns))
        begin = max(wanted.first - 1, last - wanted.last if wanted.last else 0, 0)
        begin = max(begin, _before(kept, wanted.since_ns))
        await kept.fetch_segments(begin)
        back = [node for node in kept.lineage.back_from(tip) if node.position.number > begin]
        if back and back[-1].position.number > begin + 1:
            kept.warnings.append(f"entries before {back[-1].position.number} are not kept any more")
        found = [node for node in back if wanted.has(node.position.number, node.position.time_ns)]
        if not found:
            kept.warnings.append(
                f"no entry that is kept is in that range; the newest is {tip.number}"
            )
        if wanted.last:
            found = found[: wanted.last]
        return Listing(
            entries=[_listed(kept.entry(node), statements) for node in reversed(found)],
            warnings=kept.warnings,
        )


def _before(kept: Gathering, since_ns: int) -> int:
    """The number of an entry that is surely older than that."""
    return max(
        (
            segment.base.number
            for source in kept.sources
            for segment in source.segments()
            if segment.base.time_ns < since_ns
        ),
        default=0,
    )


def _listed(entry: Entry, statements: bool) -> Listed:
    changes: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    for text, rows in decode_changes(entry.body):
        changes[_kind(text)] += len(rows)
        texts[" ".join(text.split())] += len(rows)
    return Listed(
        number=entry.number,
        epoch=entry.epoch,
        term=entry.term,
        time_ns=entry.time_ns,
        size_bytes=len(entry.body),
        changes=dict(sorted(changes.items())),
        statements=list(texts.items()) if statements else [],
    )


def _kind(text: str) -> str:
    """Such as "insert inode"."""
    found = _CHANGE.search(text)
    if found is None:
        return text.split(maxsplit=1)[0].lower()
    return f"{found[1].split()[0].lower()} {found[2]}"
