"""Names that the kernel was given a moment ago, and may not have taken in yet.  Pure.

Linux asks for a name that it knows, and that has expired, without the directory's lock; the answer
is taken in by the process that asked, when it runs again.  A notification that comes in between
expires the entry, and then the late answer makes it valid once more.  So kernel.py, which uses
this, does not rely on such a notification for a name that was just answered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from math import inf

TAKEN_IN_S = 1.0  # microseconds, unless the host has far more to do than it can


class JustAnswered:
    """The names that were answered in the last `TAKEN_IN_S`, each (directory, name)."""

    def __init__(self) -> None:
        self._answered_s: OrderedDict[tuple[int, bytes], float] = OrderedDict()

    def note(self, parent: int, name: bytes, now: float) -> None:
        """The kernel is given it, to keep."""
        key = (parent, name)
        self._answered_s[key] = now
        self._answered_s.move_to_end(key)
        while next(iter(self._answered_s.values())) < now - TAKEN_IN_S:
            self._answered_s.popitem(last=False)

    def has_any_of(self, names: Iterable[tuple[int, bytes]], now: float) -> bool:
        """Might the kernel still be about to take in one of these?"""
        return any(now - self._answered_s.get(name, -inf) < TAKEN_IN_S for name in names)
