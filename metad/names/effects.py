"""What a committed mutation means for others: which clients' caches it makes stale, which inodes it
left without a name.

The operations of namespace.py and chunkmap.py note it here while they run; the service announces it
after the commit and before the reply.  One Effects belongs to one operation, so that those of a
failed operation can be dropped with it; `merge` gathers the effects of a batch.  Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dfswire.messages import Invalidated, Invalidation

_ATTR = int(Invalidated.ATTR)
_DATA = int(Invalidated.DATA)
_NAME = int(Invalidated.NAME)
_ALL_NAMES = int(Invalidated.ALL_NAMES)
_GONE = int(Invalidated.GONE)


@dataclass
class Effects:
    """`orphaned`: inodes whose last name went; `held`: those of them that the client said it has
    open; `adopted`: inodes that got their first name; `released`: inodes that the client does not
    have open (any more); `bare`: inodes that were made just now and have no extended attributes;
    `policies`: inodes to which (and to what is below them) another policy applies from now on;
    `read`: inodes with a new time of reading.
    """

    orphaned: list[int] = field(default_factory=list)
    held: set[int] = field(default_factory=set)
    adopted: list[int] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    bare: list[int] = field(default_factory=list)
    policies: list[int] = field(default_factory=list)
    read: set[int] = field(default_factory=set)
    _changed: dict[tuple[int, bytes], int] = field(default_factory=dict)

    @property
    def invalidations(self) -> list[Invalidation]:
        """What everyone else must forget: one for each inode, and one for each changed name."""
        return self.foretold + [Invalidation(inode=each, what=_ATTR) for each in self.read]

    @property
    def foretold(self) -> list[Invalidation]:
        """The same without times of reading, which change at once: a message has those of many
        files, and all who want to write them would wait for whoever is slow to forget one."""
        return [
            Invalidation(inode=inode, what=what, name=name)
            for (inode, name), what in self._changed.items()
        ]

    def attr(self, inode: int) -> None:
        """The attributes (or xattrs) of `inode` changed."""
        self._note(inode, b"", _ATTR)

    def data(self, inode: int) -> None:
        """The bytes of `inode` changed, and so did its attributes."""
        self._note(inode, b"", _ATTR | _DATA)

    def name(self, parent: int, name: bytes) -> None:
        """A name appeared in, went from, or changed its meaning in directory `parent`, whose
        attributes changed with it."""
        self._note(parent, b"", _ATTR)
        self._note(parent, name, _NAME)

    def entry(self, parent: int, name: bytes) -> None:
        """`name` means the same as before, but kernels must ask again before they use it."""
        self._note(parent, name, _NAME)

    def entries(self, parent: int) -> None:
        """The same of every name in a directory."""
        self._note(parent, b"", _ALL_NAMES)

    def orphan(self, inode: int, held: bool) -> None:
        """The last name of `inode` went; `held` by the client that removed it."""
        self._note(inode, b"", _ATTR | _GONE)
        self.orphaned.append(inode)
        if held:
            self.held.add(inode)

    def unnamed(self, inode: int) -> None:
        """`inode` was made without a name: its client has it open, and nobody can know anything of
        it yet.  (Sessions of which it is not known what they have open are asked all the same.)"""
        self._note(inode, b"", _GONE)
        self.orphaned.append(inode)
        self.held.add(inode)

    def merge(self, other: Effects) -> None:
        """Add what a later operation of the same batch did."""
        self.orphaned += other.orphaned
        self.held |= other.held
        self.adopted += other.adopted
        self.released += other.released
        self.bare += other.bare
        self.policies += other.policies
        self.read |= other.read
        for (inode, name), what in other._changed.items():
            self._note(inode, name, what)

    def _note(self, inode: int, name: bytes, what: int) -> None:
        key = (inode, name)
        self._changed[key] = self._changed.get(key, 0) | what
