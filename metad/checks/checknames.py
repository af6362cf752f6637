"""The invariants of names, inodes and their attributes; mendnames.py mends what breaks them."""

from __future__ import annotations

import stat

from dfswire.errors import Invalid
from dfswire.messages import ROOT_INODE
from dfswire.operations import ACL_ACCESS, ACL_DEFAULT, FS_KEPT
from metad.checks.queries import IS_DIRECTORY, IS_REGULAR, IS_SYMLINK, Check, Violations, violations
from metad.names import acl
from metad.storage.database import Database


def check_dentry_inode(db: Database) -> Violations:
    """Every name leads to an inode and is in a directory."""
    return violations(
        db,
        "SELECT 'dentry ' || cookie, 'names inode ' || d.inode || ', which does not exist' "
        "FROM dentry d WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.inode = d.inode) "
        "UNION ALL SELECT 'dentry ' || cookie, 'is in ' || d.parent || ', not a directory' "
        "FROM dentry d WHERE NOT EXISTS "
        f"(SELECT 1 FROM inode i WHERE i.inode = d.parent AND {IS_DIRECTORY})",
    )


def check_name(db: Database) -> Violations:
    """Names are 1 to 255 bytes without slash and NUL, and not "." or ".."."""
    return violations(
        db,
        "SELECT 'dentry ' || cookie, 'has the impossible name x''' || lower(hex(name)) || '''' "
        "FROM dentry WHERE length(name) NOT BETWEEN 1 AND 255 OR name IN (x'2e', x'2e2e') "
        "OR instr(name, x'2f') OR instr(name, x'00')",
    )


def check_nlink(db: Database) -> Violations:
    """nlink counts the names of a file; of a directory 2 + its subdirectories (0: removed)."""
    files = (
        "SELECT i.inode, nlink, (SELECT count(*) FROM dentry d WHERE d.inode = i.inode) AS counted "
        f"FROM inode i WHERE NOT {IS_DIRECTORY}"
    )
    directories = (
        "SELECT i.inode, nlink, CASE WHEN i.inode = ?1 OR EXISTS (SELECT 1 FROM dentry d "
        "WHERE d.inode = i.inode) THEN 2 + coalesce(below, 0) ELSE 0 END AS counted FROM inode i "
        "LEFT JOIN (SELECT d.parent AS directory, count(*) AS below FROM dentry d "
        f"JOIN inode c ON c.inode = d.inode WHERE {IS_DIRECTORY} GROUP BY d.parent) "
        f"ON directory = i.inode WHERE {IS_DIRECTORY}"
    )
    return violations(
        db,
        "SELECT 'inode ' || inode, 'nlink is ' || nlink || ', counted ' || counted "
        f"FROM ({files} UNION ALL {directories}) WHERE nlink <> counted",
        (ROOT_INODE,),
    )


def check_parent(db: Database) -> Violations:
    """A directory has one name, in the directory that is its parent; files have no parent."""
    return violations(
        db,
        "SELECT 'inode ' || i.inode, 'its parent is ' || i.parent || ', its name is in ' || "
        "coalesce(group_concat(d.parent), 'none') FROM inode i "
        f"LEFT JOIN dentry d ON d.inode = i.inode WHERE {IS_DIRECTORY} AND nlink > 0 "
        "AND i.inode <> ?1 GROUP BY i.inode "
        "HAVING count(d.cookie) <> 1 OR max(d.parent) <> i.parent "
        "UNION ALL SELECT 'inode ' || inode, 'is no directory but has parent ' || parent "
        f"FROM inode WHERE NOT {IS_DIRECTORY} AND parent <> 0 "
        "UNION ALL SELECT 'inode ' || inode, 'the root has parent ' || parent "
        "FROM inode WHERE inode = ?1 AND parent <> ?1",
        (ROOT_INODE,),
    )


def check_reachable(db: Database) -> Violations:
    """Every directory is reached from the root (there are no cycles), every other inode has a
    name or is an orphan."""
    return violations(
        db,
        "WITH RECURSIVE tree (inode) AS (VALUES (?1) UNION SELECT i.inode FROM tree "
        "JOIN dentry d ON d.parent = tree.inode JOIN inode i ON i.inode = d.inode) "
        "SELECT 'inode ' || inode, 'cannot be reached from the root' FROM inode "
        "WHERE inode NOT IN (SELECT inode FROM tree) AND inode NOT IN (SELECT inode FROM orphan) "
        "UNION ALL SELECT 'inode ' || ?1, 'the root does not exist' "
        f"WHERE NOT EXISTS (SELECT 1 FROM inode WHERE inode = ?1 AND {IS_DIRECTORY})",
        (ROOT_INODE,),
    )


def check_orphan(db: Database) -> Violations:
    """Orphans are exactly the inodes with nlink 0."""
    return violations(
        db,
        "SELECT 'inode ' || o.inode, 'is an orphan, but ' || "
        "coalesce('nlink is ' || i.nlink, 'does not exist') FROM orphan o "
        "LEFT JOIN inode i ON i.inode = o.inode WHERE i.nlink IS NOT 0 "
        "UNION ALL SELECT 'inode ' || inode, 'nlink is 0, but it is not an orphan' FROM inode "
        "WHERE nlink = 0 AND inode NOT IN (SELECT inode FROM orphan)",
    )


def check_size(db: Database) -> Violations:
    """Sizes: none negative, a symlink's that of its target, none where there are no contents."""
    return violations(
        db,
        "SELECT 'inode ' || inode, 'size is ' || size || ', target has ' || length(target) "
        f"FROM inode WHERE size < 0 OR CASE WHEN {IS_REGULAR} THEN length(target) > 0 "
        f"WHEN {IS_SYMLINK} THEN size <> length(target) OR size = 0 "
        "ELSE size <> 0 OR length(target) > 0 END",
    )


def check_flags(db: Database) -> Violations:
    """Flags are those that are kept, on files and directories only."""
    return violations(
        db,
        "SELECT 'inode ' || inode, 'flags are ' || flags FROM inode WHERE flags & ~?1 "
        f"OR (flags AND NOT {IS_REGULAR} AND NOT {IS_DIRECTORY})",
        (FS_KEPT,),
    )


def check_xattr(db: Database) -> Violations:
    """Extended attributes belong to an inode."""
    return violations(
        db,
        "SELECT 'xattr ' || id, 'of inode ' || inode || ', which does not exist' FROM xattr "
        "WHERE inode NOT IN (SELECT inode FROM inode)",
    )


def check_acl(db: Database) -> Violations:
    """ACLs are well formed and where they can be; an access ACL says the same as the mode."""
    for inode, mode, name, value in db.read(
        "SELECT i.inode, mode, x.name, value FROM xattr x JOIN inode i ON i.inode = x.inode "
        "WHERE x.name IN (?, ?)",
        (ACL_ACCESS, ACL_DEFAULT),
    ):
        subject = f"inode {inode}"
        try:
            entries = acl.parse(value)
        except Invalid as problem:
            yield subject, f"{name!r} is broken: {problem}"
            continue
        if name == ACL_DEFAULT and not stat.S_ISDIR(mode):
            yield subject, "has a default ACL, but is no directory"
        if name == ACL_ACCESS and (not entries or acl.mode_of(entries) != mode & 0o777):
            yield subject, f"its mode is {mode:o}, its ACL says something else"


CHECKS: tuple[Check, ...] = (
    check_dentry_inode,
    check_name,
    check_nlink,
    check_parent,
    check_reachable,
    check_orphan,
    check_size,
    check_flags,
    check_xattr,
    check_acl,
)
