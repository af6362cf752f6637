"""The scrub note of one disk: how far the scrubber is, as it is kept over restarts.

The scrubber saves one through its store, the store shows it in its figures.  A file that does not
make sense is no note: the pass starts again.
"""

from __future__ import annotations

from dataclasses import dataclass

from chunkd.layout import chunk_of


@dataclass(frozen=True)
class ScrubNote:
    """How far the scrubber of a disk is: the last chunk that the present pass has finished with
    (b"": between two passes), when that pass began and when the last whole one ended, in seconds
    since the epoch (0: not known)."""

    cursor: bytes = b""
    started_s: float = 0.0
    finished_s: float = 0.0

    @property
    def fraction(self) -> float:
        """Of the disk that is done.  Ids are random, so they tell."""
        return int.from_bytes(self.cursor[:4]) / 2**32

    @property
    def text(self) -> str:
        """What stands in the file."""
        return f"{self.cursor.hex() or '-'} {self.started_s:.0f} {self.finished_s:.0f}\n"


def parse_scrub(text: str) -> ScrubNote:
    """What the file says; of nonsense nothing, and the pass starts again.

    An earlier version wrote the cursor alone.
    """
    cursor, *times = text.split() or ["-"]
    try:
        started_s, finished_s = (float(each) for each in (times or ["0", "0"]))
    except ValueError:
        return ScrubNote()
    return ScrubNote(chunk_of(cursor) or b"", started_s, finished_s)
