"""When is a disk no longer to be trusted, and what does an OSError of a disk mean.

One failed write or fsync makes a disk suspect, a second one within ten minutes makes it failed (the
rule of MooseFS): it takes no new chunks, metad is told with the next heartbeat and repairs at once.
Failed reads do not count: they set one chunk aside, which repair replaces.  The store of each
data directory has one DiskHealth; `now` comes in.
"""

from __future__ import annotations

import errno

from dfswire.errors import DFSError, DiskFailed, InputOutput, NoSpace

FAILURE_WINDOW_S = 600.0
FAILURES_MAX = 2

_FULL = {errno.ENOSPC, errno.EDQUOT}
_BROKEN = {errno.EIO, errno.EROFS, errno.EUCLEAN, errno.ENODEV, errno.ENXIO, errno.ESTALE}
_UNREADABLE = {
    errno.EIO,
    errno.EBADMSG,  # a checksum of the file system itself
    errno.EUCLEAN,
    errno.ENODATA,  # medium error, from some block drivers
    errno.EREMOTEIO,
    errno.EISDIR,
}


def is_full(problem: OSError) -> bool:
    """Whether a write failed for want of room."""
    return problem.errno in _FULL


def is_broken(problem: OSError) -> bool:
    """Whether a failed call speaks against the disk."""
    return problem.errno in _BROKEN


def is_unreadable(problem: OSError) -> bool:
    """Whether a failed read says something about the file, rather than about this process."""
    return problem.errno in _UNREADABLE


class DiskHealth:
    """Counts failures of one disk."""

    def __init__(self) -> None:
        self.failed = False
        self._failures: list[float] = []

    def record(self, now: float) -> None:
        """A write or fsync failed at `now` (monotonic seconds)."""
        self._failures = [at for at in self._failures if now - at < FAILURE_WINDOW_S]
        self._failures.append(now)
        if len(self._failures) >= FAILURES_MAX:
            self.failed = True

    def translate(self, problem: OSError, now: float) -> DFSError:
        """Our error for a failed write; a broken disk is recorded."""
        if is_full(problem):
            return NoSpace(f"disk full: {problem}")
        if is_broken(problem):
            self.record(now)
            return DiskFailed(f"disk error: {problem}")
        # Too many open files, no memory, wrong permissions: our trouble, not the disk's.
        return InputOutput(str(problem))

    def refuse_writes(self) -> None:
        """Raise DiskFailed when the disk takes no more chunks."""
        if self.failed:
            raise DiskFailed("this disk failed and takes no more chunks")
