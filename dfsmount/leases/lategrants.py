"""Which grants of leases come too late to be worth anything.  Pure.

A grant may arrive after the event stream was opened anew without it, or after the lease ended in
another way.  So every question that may bring a lease runs inside `asking()`, whose token is
compared with what has happened since (questions.py).  Used by exclusive.py.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from dfsmount.leases.questions import Questions
from dfswire.messages import Lease


class LateGrants:
    """What has happened to leases while questions were under way."""

    def __init__(self) -> None:
        self._ended: dict[int, int] = {}  # inode -> when its lease ended last
        self._all_ended = 0
        self._returned: dict[int, int] = {}  # inode -> number; before the grant was there
        self._questions = Questions(self._ended, self._returned)

    def asking(self) -> AbstractContextManager[int]:
        """Around a question or mutation that may bring a lease: its token."""
        return self._questions.asking()

    def is_void(self, lease: Lease, token: int) -> bool:
        """Did it end before it was there?"""
        return token < self._all_ended or token < self._ended.get(lease.inode, 0)

    def was_returned(self, lease: Lease) -> bool:
        """Was it (or a newer one) given back before it was there?"""
        return lease.number <= self._returned.get(lease.inode, 0)

    def returned(self, lease: Lease) -> None:
        """It was recalled, and is given back, before it was there."""
        if self._questions.are_under_way():
            self._returned[lease.inode] = lease.number

    def ended(self, inode: int) -> None:
        """The lease of an inode has ended."""
        self._questions.note(self._ended, inode)

    def all_ended(self) -> None:
        """metad knows no lease of this client any more, or only those that it was told of."""
        self._all_ended = self._questions.tick()
