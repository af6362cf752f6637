"""How many events become rows: the first of a kind each, of a flood only how many they were.

Pure; eventlog.py owns one Intake.  Within a window of a minute the first events about a subject are
kept one by one; the others are merged into one row that counts them, which is due at the end of the
window.  So neither a disk that fails and returns all the time nor the loss of a million chunks can
fill the table, and nothing is left out without being counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

WINDOW_S = 60.0
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
    """The events of one kind since `began`."""

    began: float
    own: Counter[str] = field(default_factory=Counter)
    merged: dict[str, Entry] = field(default_factory=dict)

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

    def add(self, now: float, time_ns: int, kind: str, subject: str, message: str) -> None:
        """An event happened."""
        self._end_windows(now)
        window = self._windows.setdefault(kind, _Window(now))
        if (
            len(self._ready) < READY_MAX
            and window.own.total() < OWN_PER_KIND
            and window.own[subject] < OWN_PER_SUBJECT
        ):
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
        ends = [each.began + WINDOW_S for each in self._windows.values() if each.merged]
        return max(min(ends) - now, 0.0) if ends else None

    def _end_windows(self, now: float) -> None:
        # While nothing can be written a window goes on, so that it merges what comes.
        if len(self._ready) < READY_MAX:
            # The same sum as in due_in_s: by another one a window might be due and never end.
            self._flush([k for k, each in self._windows.items() if now >= each.began + WINDOW_S])

    def _flush(self, kinds: Sequence[str]) -> None:
        for kind in kinds:
            self._ready += self._windows.pop(kind).merged.values()
