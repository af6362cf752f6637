"""Repairing names and inodes; see mend.py."""

from __future__ import annotations

import stat

from dfswire.messages import ROOT_INODE
from dfswire.operations import ACL_DEFAULT, FS_KEPT
from metad.checks.rescue import Mended, Rescue

_TYPE = f"(mode & {0o170000})"
_DIRECTORY = f"{_TYPE} = {stat.S_IFDIR}"
_REGULAR = f"{_TYPE} = {stat.S_IFREG}"
_SYMLINK = f"{_TYPE} = {stat.S_IFLNK}"
_TREE = (
    "WITH RECURSIVE tree (inode) AS (VALUES (?1) UNION SELECT i.inode FROM tree "
    "JOIN dentry d ON d.parent = tree.inode JOIN inode i ON i.inode = d.inode) "
)


def mend_root(work: Rescue) -> Mended:
    if not work.one(f"SELECT 1 FROM inode WHERE inode = ? AND {_DIRECTORY}", ROOT_INODE):
        work.change("DELETE FROM inode WHERE inode = ?", ROOT_INODE)
        work.insert_inode(ROOT_INODE, stat.S_IFDIR | 0o755, nlink=2, parent=ROOT_INODE)
        yield "inode 1", "the root directory is made anew, of root, mode 755"


def mend_dentry_inode(work: Rescue) -> Mended:
    for cookie, parent, name, inode in work.all(
        "SELECT cookie, parent, name, inode FROM dentry d "
        "WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.inode = d.inode)"
    ):
        work.change("DELETE FROM dentry WHERE cookie = ?", cookie)
        work.effects.name(parent, bytes(name))
        yield f"dentry {cookie}", f"removed {bytes(name)!r}: there is no inode {inode}"
    for cookie, inode in work.all(
        "SELECT cookie, d.inode FROM dentry d WHERE NOT EXISTS "
        f"(SELECT 1 FROM inode i WHERE i.inode = d.parent AND {_DIRECTORY})"
    ):
        yield f"dentry {cookie}", work.rescue(inode, cookie)


def mend_name(work: Rescue) -> Mended:
    for cookie, parent, name in work.all(
        "SELECT cookie, parent, name FROM dentry WHERE length(name) NOT BETWEEN 1 AND 255 "
        "OR name IN (x'2e', x'2e2e') OR instr(name, x'2f') OR instr(name, x'00')"
    ):
        fresh = work.free_name(parent, b"fsck-%d" % cookie)
        work.change("UPDATE dentry SET name = ? WHERE cookie = ?", fresh, cookie)
        work.effects.entries(parent)
        yield f"dentry {cookie}", f"renamed {bytes(name)!r} to {fresh!r}"


def mend_parent(work: Rescue) -> Mended:
    for inode in work.inodes(f"SELECT inode FROM inode WHERE NOT {_DIRECTORY} AND parent"):
        work.change("UPDATE inode SET parent = 0 WHERE inode = ?", inode)
        yield f"inode {inode}", "no directory: it has no parent any more"
    if work.change("UPDATE inode SET parent = ?1 WHERE inode = ?1 AND parent <> ?1", 1):
        yield "inode 1", "the root is its own parent again"
    for inode, parent in work.all(
        f"SELECT i.inode, max(d.parent) FROM inode i JOIN dentry d USING (inode) "
        f"WHERE {_DIRECTORY} AND inode <> ? GROUP BY inode "
        "HAVING count(*) = 1 AND max(d.parent) <> i.parent",
        ROOT_INODE,
    ):
        work.change("UPDATE inode SET parent = ? WHERE inode = ?", parent, inode)
        work.effects.attr(inode)
        yield f"inode {inode}", f"its parent is {parent}, where its name is"
    for cookie, inode, parent, name in work.all(
        "SELECT d.cookie, d.inode, d.parent, d.name FROM dentry d JOIN inode i USING (inode) "
        f"WHERE {_DIRECTORY} AND d.parent <> i.parent AND 1 = "
        "(SELECT count(*) FROM dentry o WHERE o.inode = i.inode AND o.parent = i.parent)"
    ):
        work.change("DELETE FROM dentry WHERE cookie = ?", cookie)
        work.effects.name(parent, bytes(name))
        yield f"inode {inode}", f"removed its second name {bytes(name)!r} in {parent}"


def mend_orphan(work: Rescue) -> Mended:
    for inode in work.inodes(
        "SELECT o.inode FROM orphan o WHERE NOT EXISTS "
        "(SELECT 1 FROM inode i WHERE i.inode = o.inode)"
    ):
        work.change("DELETE FROM orphan WHERE inode = ?", inode)
        yield f"inode {inode}", "is no orphan: it does not exist"
    for inode in work.inodes("SELECT inode FROM orphan JOIN dentry USING (inode)"):
        work.change("DELETE FROM orphan WHERE inode = ?", inode)
        yield f"inode {inode}", "is no orphan: it has a name"
    for inode in work.inodes(
        "SELECT inode FROM inode i WHERE nlink = 0 AND inode NOT IN (SELECT inode FROM orphan) "
        "AND NOT EXISTS (SELECT 1 FROM dentry d WHERE d.inode = i.inode)"
    ):
        work.change("INSERT INTO orphan VALUES (?, ?, 0)", inode, work.now_ns)
        yield f"inode {inode}", "was unlinked: it is an orphan, and goes when nobody uses it"


def mend_reachable(work: Rescue) -> Mended:
    for inode in work.inodes(
        "SELECT inode FROM inode i WHERE nlink > 0 AND inode <> ? "
        "AND inode NOT IN (SELECT inode FROM orphan) "
        "AND NOT EXISTS (SELECT 1 FROM dentry d WHERE d.inode = i.inode)",
        ROOT_INODE,
    ):
        yield f"inode {inode}", work.rescue(inode)
    # What still is not reached has a name below itself: a circle of directories.
    circle = _circle(work)
    if circle is not None:
        cookie = work.one("SELECT cookie FROM dentry WHERE inode = ?", circle)
        yield f"inode {circle}", work.rescue(circle, cookie)


def _circle(work: Rescue) -> int | None:
    unreached = work.inodes(
        f"{_TREE} SELECT inode FROM inode WHERE {_DIRECTORY} AND nlink > 0 AND inode NOT IN tree "
        "AND inode NOT IN (SELECT inode FROM orphan) ORDER BY inode",
        ROOT_INODE,
    )
    if not unreached:
        return None
    seen: list[int] = []
    inode = unreached[0]
    while inode not in seen:
        seen.append(inode)
        inode = work.one("SELECT parent FROM dentry WHERE inode = ?", inode)
    return inode


def mend_nlink(work: Rescue) -> Mended:
    for inode, nlink, counted in work.all(
        "SELECT * FROM (SELECT i.inode, nlink, (SELECT count(*) FROM dentry d "
        f"WHERE d.inode = i.inode) AS counted FROM inode i WHERE NOT {_DIRECTORY} "
        "UNION ALL SELECT i.inode, nlink, CASE WHEN i.inode = ?1 OR EXISTS (SELECT 1 "
        "FROM dentry d WHERE d.inode = i.inode) THEN 2 + (SELECT count(*) FROM dentry d "
        f"JOIN inode c ON c.inode = d.inode WHERE d.parent = i.inode AND "
        f"(c.mode & {0o170000}) = {stat.S_IFDIR}) ELSE 0 END FROM inode i WHERE {_DIRECTORY}) "
        "WHERE nlink <> counted",
        ROOT_INODE,
    ):
        work.change("UPDATE inode SET nlink = ? WHERE inode = ?", counted, inode)
        work.effects.attr(inode)
        yield f"inode {inode}", f"nlink is {counted}, no longer {nlink}"


def mend_size(work: Rescue) -> Mended:
    for sql, action in (
        (
            "UPDATE inode SET size = length(target) "
            f"WHERE {_SYMLINK} AND size <> length(target) AND length(target) > 0",
            "its size is that of its target",
        ),
        (
            f"UPDATE inode SET size = 0 WHERE NOT {_REGULAR} AND NOT {_SYMLINK} AND size <> 0",
            "its size is 0",
        ),
        (
            f"UPDATE inode SET target = x'' WHERE NOT {_SYMLINK} AND length(target) > 0",
            "no symlink: it has no target any more",
        ),
        (
            "UPDATE inode SET size = coalesce((SELECT max(offset + length) FROM extent e "
            f"WHERE e.inode = inode.inode), 0) WHERE {_REGULAR} AND size < 0",
            "its size is where its last extent ends",
        ),
    ):
        for (inode,) in work.db.read(f"{sql} RETURNING inode"):
            work.effects.attr(inode)
            yield f"inode {inode}", action


def mend_flags(work: Rescue) -> Mended:
    for inode, flags in work.db.read(
        f"UPDATE inode SET flags = iif({_REGULAR} OR {_DIRECTORY}, flags & ?1, 0) "
        f"WHERE flags & ~?1 OR (flags AND NOT {_REGULAR} AND NOT {_DIRECTORY}) "
        "RETURNING inode, flags",
        (FS_KEPT,),
    ):
        work.effects.attr(inode)
        yield f"inode {inode}", f"flags are {flags}"


def mend_xattr(work: Rescue) -> Mended:
    for number, inode, name in work.db.read(
        "DELETE FROM xattr WHERE inode NOT IN (SELECT inode FROM inode) RETURNING id, inode, name"
    ):
        yield f"xattr {number}", f"removed {bytes(name)!r}: there is no inode {inode}"


def mend_acl(work: Rescue) -> Mended:
    for (inode,) in work.db.read(
        "DELETE FROM xattr WHERE name = ?1 AND inode IN "
        f"(SELECT inode FROM inode WHERE NOT {_DIRECTORY}) RETURNING inode",
        (ACL_DEFAULT,),
    ):
        work.effects.attr(inode)
        yield f"inode {inode}", "no directory: removed its default ACL, which had no effect"
