"""Attributes, names, link targets and xattrs that this client holds under its lease.

The vfs asks here before it asks metad.  Nothing in here ages: entries stay until metad says that
they are no longer true (`forget_*`), until the lease ends, or until there are too many
(`drop_all`).  An answer that was asked for before an invalidation and arrives after it must not be
kept: every question runs inside `asking()`, whose token `put_*` compares with the invalidations
since (questions.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import msgspec

from dfsmount.leases.questions import Questions
from dfswire.messages import Attr, Xattr

ATTRS_MAX = 500_000  # about 300 MiB of Python objects; then everything is dropped at once


class AttrCache:
    """See the module's text.  `valid()` says whether the lease holds at this moment."""

    def __init__(self, valid: Callable[[], bool], *, attrs_max: int = ATTRS_MAX) -> None:
        self._valid = valid
        self._attrs_max = attrs_max
        self._attrs: dict[int, Attr] = {}
        self._names: dict[int, dict[bytes, int | None]] = {}
        self._name_count = 0
        self._targets: dict[int, bytes] = {}
        self._xattrs: dict[int, dict[bytes, bytes]] = {}
        self._complete: set[int] = set()  # directories all of whose names are known
        self._forgotten: dict[int, int] = {}  # inode -> when it was invalidated last
        self._forgotten_names: dict[int, int] = {}  # directory -> when any of its names was
        self._renamed: dict[int, int] = {}  # directory -> when this client changed it last
        self._dropped = 0
        self._questions = Questions(self._forgotten, self._forgotten_names, self._renamed)

    def asking(self) -> AbstractContextManager[int]:
        """Around a question to metad: the token for its answer."""
        return self._questions.asking()

    def is_current(self, inode: int, token: int) -> bool:
        """May an answer about this inode, asked for at `token`, be kept?"""
        return token >= self._dropped and token >= self._forgotten.get(inode, 0) and self._valid()

    def _is_name_current(self, directory: int, token: int) -> bool:
        """The same of an answer about its names."""
        forgotten = self._forgotten_names.get(directory, 0)
        return token >= self._dropped and token >= forgotten and self._valid()

    # What is known

    def attr(self, inode: int) -> Attr | None:
        return self._attrs.get(inode) if self._valid() else None

    def child(self, parent: int, name: bytes) -> tuple[bool, int | None]:
        """(known, inode); a known name without inode does not exist.

        Whoever is told so may keep it (the kernel does), so it is remembered for drop_all.
        """
        if not self._valid():
            return False, None
        names = self._names.get(parent)
        if names is not None and name in names:
            return True, names[name]
        if parent in self._complete:
            self._set_name(parent, name, None)
            return True, None
        return False, None

    def target(self, inode: int) -> bytes | None:
        return self._targets.get(inode) if self._valid() else None

    def xattrs(self, inode: int) -> dict[bytes, bytes] | None:
        return self._xattrs.get(inode) if self._valid() else None

    @property
    def is_full(self) -> bool:
        """Time to drop everything (the kernel's share too)."""
        return len(self._attrs) + self._name_count > self._attrs_max

    # What was learnt

    def put_attr(self, attr: Attr, token: int) -> None:
        """Keep attributes unless something newer is known; metad's ctime of an inode only grows.

        What may not be kept still proves that older attributes are outdated: those that are known,
        and those that are on their way.
        """
        known = self._attrs.get(attr.inode)
        if known is not None and known.ctime_ns > attr.ctime_ns:
            return
        if self.is_current(attr.inode, token):
            self._attrs[attr.inode] = attr
        else:
            self._questions.note(self._forgotten, attr.inode)
            self._attrs.pop(attr.inode, None)

    def put_atime(self, inode: int, atime_ns: int, ctime_ns: int) -> None:
        """Reading gave the inode a new atime, unless it was changed since it had this ctime."""
        known = self._attrs.get(inode)
        if known is not None and known.ctime_ns == ctime_ns:
            self._attrs[inode] = msgspec.structs.replace(known, atime_ns=atime_ns)

    def outdated_by(self, attr: Attr) -> bool:
        """Whether older attributes were kept than these; if so they are forgotten."""
        known = self._attrs.get(attr.inode)
        if known is None or known.ctime_ns >= attr.ctime_ns:
            return False
        del self._attrs[attr.inode]
        return True

    def put_name(self, parent: int, name: bytes, inode: int | None, token: int) -> bool:
        """Keep what metad said that a name stands for; None: it does not exist.

        What may not be kept still proves that something else is outdated.  True when something else
        was known and is forgotten: the kernel may have it too.
        """
        if token < self._renamed.get(parent, 0):
            return False
        if self._is_name_current(parent, token):
            self._set_name(parent, name, inode)
            return False
        if self._names.get(parent, {}).get(name, inode) == inode:
            return False  # what is known stays, so that drop_all can tell the kernel
        self.forget_name(parent, name)
        return True

    def put_changed_name(self, parent: int, name: bytes, inode: int | None, token: int) -> None:
        """Keep what a name stands for after this client's own change.

        Answers about names of this directory that were asked for before now are older.
        """
        self._renamed[parent] = self._questions.tick()
        if self._is_name_current(parent, token):
            self._set_name(parent, name, inode)
        else:
            self.forget_name(parent, name)

    def put_complete(self, directory: int, token: int) -> None:
        """Every name of the directory has been put; others do not exist."""
        if token >= self._renamed.get(directory, 0) and self._is_name_current(directory, token):
            self._complete.add(directory)

    def _set_name(self, parent: int, name: bytes, inode: int | None) -> None:
        names = self._names.setdefault(parent, {})
        self._name_count += name not in names
        names[name] = inode

    def put_target(self, inode: int, target: bytes, token: int) -> None:
        if self.is_current(inode, token):
            self._targets[inode] = target

    def put_xattrs(self, inode: int, xattrs: list[Xattr], token: int) -> None:
        if self.is_current(inode, token):
            self._xattrs[inode] = {xattr.name: xattr.value for xattr in xattrs}

    # What is no longer true, or soon will be

    def forget_answers(self, attributes: Iterable[int], names: Iterable[int]) -> None:
        """Answers about these inodes' attributes, and these directories' names, that were asked for
        before now must not be kept."""
        for inode in attributes:
            self._questions.note(self._forgotten, inode)
        for directory in names:
            self._questions.note(self._forgotten_names, directory)

    def forget_attr(self, inode: int) -> None:
        """Attributes, xattrs and link target of an inode."""
        self._questions.note(self._forgotten, inode)
        self._attrs.pop(inode, None)
        self._xattrs.pop(inode, None)
        self._targets.pop(inode, None)

    def forget_xattrs(self, inode: int) -> None:
        self._questions.note(self._forgotten, inode)
        self._xattrs.pop(inode, None)

    def forget_name(self, parent: int, name: bytes) -> None:
        self._questions.note(self._forgotten_names, parent)
        self._complete.discard(parent)
        names = self._names.get(parent, {})
        if name in names:
            del names[name]
            self._name_count -= 1

    def forget_names(self, parent: int) -> list[bytes]:
        """Every name of a directory; returns those that were known."""
        self._questions.note(self._forgotten_names, parent)
        self._complete.discard(parent)
        names = self._names.pop(parent, {})
        self._name_count -= len(names)
        return list(names)

    def drop_all(self) -> list[tuple[int, bytes]]:
        """Everything; returns the names that were known, as (parent, name)."""
        self._dropped = self._questions.tick()
        known = [(parent, name) for parent, names in self._names.items() for name in names]
        for table in (
            self._attrs,
            self._names,
            self._targets,
            self._xattrs,
            self._forgotten,
            self._forgotten_names,
        ):
            table.clear()
        self._complete.clear()
        self._name_count = 0
        return known
