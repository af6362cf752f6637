"""Attributes of one inode that all clients set and ask for, and what they may have been told.

Each is a register: whoever sets it takes a value that nobody else takes.  It is linearizable, as
docs/consistency.md promises of names and attributes, if the operations about each value (what set
it, what found it) can be put side by side: the zones of Gibbons and Korach, "Testing shared
memories" (1997).  markwork.py is what clients do with them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from tests.simulation.history import FOR_EVER, Moments, Violation

NAME = "marks"
SIZE_MIN_BYTES = 20_000  # no write reaches that far, so only truncations change it


@dataclass
class Marking:
    """A value was set, or found; one whose outcome nobody knows never ends."""

    party: str
    value: int
    began: int
    ended: int = FOR_EVER

    def __str__(self) -> str:
        return f"[{self.began}..{self.ended}] {self.party}"


@dataclass
class Register:
    """All that was done with one attribute; it begins with `first`."""

    name: str
    first: int
    settings: list[Marking] = field(default_factory=list)
    findings: list[Marking] = field(default_factory=list)

    def check(self) -> None:
        """Raise Violation unless some order explains what was found."""
        set_by = {each.value: each for each in self.settings}
        set_by[self.first] = Marking("nobody", self.first, -1, 0)
        found: dict[int, list[Marking]] = defaultdict(list)
        for each in self.findings:
            setting = set_by.get(each.value)
            if setting is None or each.ended < setting.began:
                raise Violation("I3", f"{self.name}: {each} finds {each.value}, not set till then")
            if not self._waits(each):
                found[each.value].append(each)
        zones = [
            _Zone.of([setting, *found[value]])
            for value, setting in set_by.items()
            if found[value] or setting.ended < FOR_EVER
        ]
        zones.sort(key=lambda zone: zone.low)
        for zone in zones:
            if not zone.forward:
                continue
            for other in zones:
                if other is not zone and zone.excludes(other):
                    raise Violation(
                        "I3", f"no order explains these answers about {self.name}:\n{zone}\n{other}"
                    )

    def _waits(self, finding: Marking) -> bool:
        """Had the same client a change of its own under way?"""
        return any(
            each.party == finding.party
            and each.began < finding.ended
            and finding.began < each.ended
            for each in self.settings
        )


@dataclass
class _Zone:
    """From the first end to the last beginning of what is about one value, or the other way."""

    operations: list[Marking]
    low: int
    high: int
    forward: bool  # the value was there from `low` to `high`

    @classmethod
    def of(cls, operations: list[Marking]) -> _Zone:
        first_end = min(each.ended for each in operations)
        last_begin = max(each.began for each in operations)
        return cls(
            operations,
            min(first_end, last_begin),
            max(first_end, last_begin),
            first_end < last_begin,
        )

    def excludes(self, other: _Zone) -> bool:
        """Was this value there when the other had to be?  (Of a forward zone.)"""
        if other.forward:
            return self.low < other.high and other.low < self.high
        return self.low < other.low and other.high < self.high

    def __str__(self) -> str:
        lines = sorted(self.operations, key=lambda each: each.began)
        return f"{lines[0].value}: " + ", ".join(map(str, lines))


class Marks:
    """The inode, and its attributes."""

    def __init__(self, moments: Moments) -> None:
        self.inode = 0
        self.moments = moments
        self.mode = Register("its mode", 0o644)
        self.size = Register("its size", SIZE_MIN_BYTES)
        self.tag = Register("its xattr", 0)

    def begin(self, register: Register, party: str, value: int) -> Marking:
        """It is about to be set."""
        marking = Marking(party, value, self.moments.next())
        register.settings.append(marking)
        return marking

    def end(self, marking: Marking) -> None:
        """It was answered."""
        marking.ended = self.moments.next()

    def check(self) -> None:
        """Raises Violation."""
        for register in (self.mode, self.size, self.tag):
            register.check()
