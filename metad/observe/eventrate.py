"""How many events become rows: the first of a kind each, of a flood only how many they were.

Pure; eventlog.py owns one Intake.  Within a window of ten minutes the first events about a subject
are kept one by one; the others are merged into one row that counts them, which is due at the end of
the window.  As long as there is something to merge each window is twice as long as the one before,
up to an hour.  So neither a disk that fails and returns for months nor the loss of a million chunks
can fill the table, and nothing is left out without being counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

WINDOW_S = 600.0
WINDOW_MAX_S = 3600.0
SLACK_S = 0.001
OWN_PER_SUBJECT = 3  # rows for one subject and kind in a window
OWN_PER_KIND = 100  # rows for one kind in a window, not counting the merged ones
READY_MAX = 1000  # while the database can't be written
OTHERS = "(others)"  # the subject of what is merged across subjects


@dataclass
class Entry:
    """A row to be; `times` events, the last of them with this time and message."""

    time_ns: int
    kind: str
    subject: str
    message: str
    times: int = 1


@dataclass
class _Window:
    """The events of one kind from `began` to `end`; of noisy subjects fewer are kept one by one."""

    began: float
    end: float
    noisy: frozenset[str] = frozenset()
    own: Counter[str] = field(default_factory=Counter)
    merged: dict[str, Entry] = field(default_factory=dict)

    def has_room(self, subject: str) -> bool:
        """May an event about it have a row of its own?"""
        own = 1 if subject in self.noisy else OWN_PER_SUBJECT
        return self.own[subject] < own and self.own.total() < OWN_PER_KIND

    def next(self, now: float) -> _Window:
        """The window after this one, for an event at `now`."""
        length_s = self.end - self.began
        if not self.merged or now - self.end >= length_s:
            return _Window(now, now + WINDOW_S)
        return _Window(now, now + min(2 * length_s, WINDOW_MAX_S), frozenset(self.merged))

    def merge(self, time_ns: int, kind: str, subject: str, message: str) -> None:
        known = subject if subject in self.own else OTHERS
        entry = self.merged.get(known)
        if entry is None:
            self.merged[known] = Entry(time_ns, kind, known, message)
        else:
            entry.time_ns, entry.message, entry.times = time_ns, message, entry.times + 1


class Intake:
    """Events on their way into the table."""

    def __init__(self) -> None:
        self._ready: list[Entry] = []
        self._windows: dict[str, _Window] = {}
        self._ended: dict[str, _Window] = {}

    def add(self, now: float, time_ns: int, kind: str, subject: str, message: str) -> None:
        """An event happened."""
        self._end_windows(now)
        window = self._windows.get(kind)
        if window is None:
            ended = self._ended.pop(kind, None)
            window = ended.next(now) if ended is not None else _Window(now, now + WINDOW_S)
            self._windows[kind] = window
        if len(self._ready) < READY_MAX and window.has_room(subject):
            window.own[subject] += 1
            self._ready.append(Entry(time_ns, kind, subject, message))
        else:
            window.merge(time_ns, kind, subject, message)

    def take(self, now: float) -> list[Entry]:
        """What is due now, and leaves the intake."""
        self._end_windows(now)
        taken, self._ready = self._ready, []
        return taken

    def take_all(self) -> list[Entry]:
        """Everything, windows that are not over too: metad ends."""
        self._flush(list(self._windows))
        taken, self._ready = self._ready, []
        return taken

    def put_back(self, entries: Sequence[Entry]) -> None:
        """These could not be written."""
        self._ready[:0] = entries

    def due_in_s(self, now: float) -> float | None:
        """When there is something to take; None: not before the next event."""
        if self._ready:
            return 0.0
        ends = [each.end for each in self._windows.values() if each.merged]
        return max(min(ends) - now, 0.0) if ends else None

    def _end_windows(self, now: float) -> None:
        # While nothing can be written a window goes on, so that it merges what comes.
        if len(self._ready) < READY_MAX:
            # Sums are rounded: who slept until a window was due must not find it still open.
            self._flush([k for k, each in self._windows.items() if now >= each.end - SLACK_S])

    def _flush(self, kinds: Sequence[str]) -> None:
        for kind in kinds:
            window = self._ended[kind] = self._windows.pop(kind)
            self._ready += window.merged.values()
