"""Which copies a chunkd has read through and found good a short while ago.

Pure.  reports.py notes the results of orders (a verification, a copy that was just made); trim.py
gives up a copy of a chunk only when those that stay are noted here.  Memory is bounded: the oldest
notes are forgotten, and then the copies are verified again.
"""

from __future__ import annotations

from collections import OrderedDict

NOTES_MAX = 100_000  # about 20 MB
VALID_S = 3600.0


class Verified:
    """(chunk, disk) -> when it was last found good."""

    def __init__(self) -> None:
        self._at_s: OrderedDict[tuple[bytes, str], float] = OrderedDict()

    def note(self, chunk: bytes, disk: str, now: float) -> None:
        self._at_s[chunk, disk] = now
        self._at_s.move_to_end((chunk, disk))
        if len(self._at_s) > NOTES_MAX:
            self._at_s.popitem(last=False)

    def forget(self, chunk: bytes, disk: str) -> None:
        """It was reported bad or missing."""
        self._at_s.pop((chunk, disk), None)

    def since(self, chunk: bytes, disk: str, after_s: float, now: float) -> bool:
        """Was it found good lately, and not before `after_s` (the server may have been away)?"""
        at_s = self._at_s.get((chunk, disk))
        return at_s is not None and at_s >= after_s and now - at_s < VALID_S
