"""rename(2), the one operation with so many cases that it has a file of its own.

Used by batches.py like the functions of namespace.py: in the caller's transaction, so it is atomic.
The dentry of a replaced name stays and names the new inode: no reader of the directory can miss it.
"""

from __future__ import annotations

from typing import NamedTuple

from dfswire.errors import Exists, Invalid, IsDirectory, NoEntry, NotDirectory
from dfswire.messages import Attr
from dfswire.operations import RENAME_EXCHANGE, RENAME_NOREPLACE, Rename
from metad.copies import policies
from metad.names import protection, rows
from metad.names.dentries import check_empty, check_length, drop_name, may_be_held, remove_dentry
from metad.names.effects import Effects
from metad.storage.database import Database


class _Place(NamedTuple):
    """One end of a rename: a name in a directory."""

    parent: int
    name: bytes


def rename(db: Database, op: Rename, now_ns: int, effects: Effects) -> list[Attr]:
    """Move a name, replace another one, or exchange two; see operations.Rename."""
    if op.flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
        raise Invalid(f"rename flags {op.flags}")
    old, new = _Place(op.parent, op.name), _Place(op.new_parent, op.new_name)
    parent, source = rows.find_alive(db, *old)
    new_parent, target = rows.find_alive(db, *new)
    check_length(new.name)
    if source is None:
        raise NoEntry(f"no {old.name!r} in directory {old.parent}")
    if op.flags == RENAME_NOREPLACE and target is not None:
        raise Exists(f"{new.name!r} exists")
    _check_not_below(db, source, new.parent)
    if op.flags == RENAME_EXCHANGE:
        if target is None:
            raise NoEntry(f"no {new.name!r} in directory {new.parent}")
        _check_not_below(db, target, old.parent)
    if target is not None and target.inode == source.inode:
        return [source, *_parents(db, old, new)]  # two names of one file: rename(2) does nothing
    protection.check_old_name(parent, source)
    if target is None:
        protection.check_new_name(new_parent)
    else:
        protection.check_old_name(new_parent, target)
    effects.name(*old)
    effects.name(*new)
    if target is not None and op.flags == RENAME_EXCHANGE:
        return _exchange(db, (old, source), (new, target), now_ns, effects)
    held = target is not None and may_be_held(op, target)
    return _move(db, (old, source), (new, target), now_ns, effects, held=held)


def _move(
    db: Database,
    origin: tuple[_Place, Attr],
    destination: tuple[_Place, Attr | None],
    now_ns: int,
    effects: Effects,
    *,
    held: bool,
) -> list[Attr]:
    (old, source), (new, target) = origin, destination
    if target is None:
        db.change(
            "UPDATE dentry SET parent = ?, name = ? WHERE parent = ? AND name = ?", (*new, *old)
        )
        replaced = []
    else:
        _check_replaceable(db, source, target)
        remove_dentry(db, *old)
        _point(db, new, source)
        replaced = [drop_name(db, target, now_ns, effects, held=held)]
    moved = int(rows.is_directory(source))
    lost = int(target is not None and rows.is_directory(target))
    subject = _arrive(db, source, new, now_ns, effects)
    _follow(db, source.inode, old.parent, new.parent, effects)
    return [subject, *_touch(db, (old, -moved), (new, moved - lost), now_ns), *replaced]


def _exchange(
    db: Database,
    one: tuple[_Place, Attr],
    other: tuple[_Place, Attr],
    now_ns: int,
    effects: Effects,
) -> list[Attr]:
    (old, source), (new, target) = one, other
    _point(db, new, source)
    _point(db, old, target)
    gained = int(rows.is_directory(source)) - int(rows.is_directory(target))
    subject = _arrive(db, source, new, now_ns, effects)
    counterpart = _arrive(db, target, old, now_ns, effects)
    _follow(db, source.inode, old.parent, new.parent, effects)
    _follow(db, target.inode, new.parent, old.parent, effects)
    return [subject, *_touch(db, (old, -gained), (new, gained), now_ns), counterpart]


def _follow(db: Database, inode: int, old: int, new: int, effects: Effects) -> None:
    """The policy of another directory, if that is another one."""
    if policies.renamed(db, inode, old, new):
        effects.policies.append(inode)


def _check_not_below(db: Database, directory: Attr, place: int) -> None:
    """Raise Invalid when `place` is `directory` or lies below it."""
    if not rows.is_directory(directory):
        return
    # UNION drops repetitions, so the walk ends even in a damaged tree.
    found = db.read_one(
        "WITH RECURSIVE up (inode) AS (VALUES (?1) UNION "
        "SELECT i.parent FROM up JOIN inode i ON i.inode = up.inode) "
        "SELECT 1 FROM up WHERE inode = ?2",
        (place, directory.inode),
    )
    if found:
        raise Invalid(f"directory {directory.inode} cannot move into itself")


def _check_replaceable(db: Database, source: Attr, target: Attr) -> None:
    if rows.is_directory(target):
        if not rows.is_directory(source):
            raise IsDirectory(f"inode {target.inode} is a directory")
        check_empty(db, target.inode)
    elif rows.is_directory(source):
        raise NotDirectory(f"inode {target.inode} is not a directory")


def _point(db: Database, place: _Place, attr: Attr) -> None:
    db.change("UPDATE dentry SET inode = ? WHERE parent = ? AND name = ?", (attr.inode, *place))


def _arrive(db: Database, attr: Attr, place: _Place, now_ns: int, effects: Effects) -> Attr:
    """The inode under its new name: ctime, and a directory's parent."""
    effects.attr(attr.inode)
    if rows.is_directory(attr):
        return rows.update(db, attr.inode, {"ctime_ns": now_ns, "parent": place.parent})
    return rows.relink(db, attr.inode, now_ns)


def _touch(
    db: Database, old: tuple[_Place, int], new: tuple[_Place, int], now_ns: int
) -> list[Attr]:
    """The parents, each with its change of subdirectories; once if they are the same."""
    (old_place, old_links), (new_place, new_links) = old, new
    if old_place.parent == new_place.parent:
        return [rows.touch(db, old_place.parent, now_ns, old_links + new_links)]
    return [
        rows.touch(db, old_place.parent, now_ns, old_links),
        rows.touch(db, new_place.parent, now_ns, new_links),
    ]


def _parents(db: Database, old: _Place, new: _Place) -> list[Attr]:
    return [rows.need(db, parent) for parent in dict.fromkeys((old.parent, new.parent))]
