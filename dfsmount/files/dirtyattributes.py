"""Changed attributes of one inode that metad does not have yet, and the times of its last write.

They belong to a Writer: while an inode is leased, chmod, chown and utimens are kept here and
travel with the next commit of its bytes.  What is on its way and what came since are kept apart, so
a commit that has to be repeated takes both, in their order.
"""

from __future__ import annotations

import msgspec

from dfswire.attrchanges import changed, merged
from dfswire.messages import Attr
from dfswire.operations import SetAttr


class DirtyAttributes:
    """Of one inode."""

    def __init__(self) -> None:
        self.mtime_ns = 0  # of the last write, or as it was set since
        self.sending: SetAttr | None = None
        """On its way to metad."""
        self._shown: SetAttr | None = None  # the same, unless metad's are known to be newer
        self._ctime_ns = 0
        self._waiting: SetAttr | None = None

    def __bool__(self) -> bool:
        return self.are_waiting or self._shown is not None

    @property
    def are_waiting(self) -> bool:
        """Is there anything that is not on its way yet?"""
        return self._waiting is not None

    def change(self, change: SetAttr, now_ns: int) -> None:
        """To be committed.  It must not have a size."""
        self._waiting = merged(self._waiting, change)
        self._ctime_ns = now_ns
        if change.mtime_ns is not None:
            self.mtime_ns = change.mtime_ns  # commits of what is dirty now keep it

    def touch(self, now_ns: int) -> None:
        """Something was written."""
        self.mtime_ns = self._ctime_ns = now_ns
        if self._waiting is not None:
            self._waiting = msgspec.structs.replace(self._waiting, mtime_ns=None)

    def overlaid(self, attr: Attr, dirty_end: int) -> Attr:
        """Committed attributes, with what is not committed yet; bytes are dirty up to there."""
        changes = [each for each in (self._shown, self._waiting) if each is not None]
        if not changes and not dirty_end:
            return attr
        for change in changes:
            attr = changed(attr, change)
        return msgspec.structs.replace(
            attr,
            size=max(attr.size, dirty_end),
            mtime_ns=self.mtime_ns if dirty_end else attr.mtime_ns,
            ctime_ns=max(attr.ctime_ns, self._ctime_ns),
        )

    def send(self) -> SetAttr | None:
        """What waits is on its way from now on, until `sent`."""
        self.sending = self._shown = self._waiting
        self._waiting = None
        return self.sending

    def superseded(self) -> None:
        """metad's attributes are newer than what is on its way, or rather has arrived."""
        self._shown = None

    def send_again(self) -> None:
        """What was on its way did not arrive: it waits again, before what came since."""
        if self.sending is not None:
            self._waiting = merged(self.sending, self._waiting or self.sending)

    def sent(self) -> None:
        """Nothing is on its way any more."""
        self.sending = self._shown = None

    def drop(self) -> None:
        """What waits is not wanted any more."""
        self._waiting = None
