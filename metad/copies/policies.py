"""Policies: how many copies of a chunk there are, and where; which one applies to a directory.

Everything that places, repairs or trims chunks asks `Policies.of(chunk.policy)`.  Key 0 is the
cluster's default, which the settings of metad state at each start.  Directories may have policies
of their own; below one it applies up to the next.  The functions on the database are synchronous,
and those that change it belong in a mutation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dfswire.errors import InputOutput
from dfswire.policies import DOMAINS, Domain
from metad.storage.database import Database

DEFAULT_KEY = 0
NEEDED_MAX = 2  # copies that must be made before a write is acknowledged; repair makes the others
DEPTH_MAX = 100_000  # directories above one another; more can only be a damaged tree
_COLUMNS = "replicas, chunk_size_bytes, domain, label"


class Policy(NamedTuple):
    """A row of table policy, without its key."""

    replicas: int
    chunk_size_bytes: int
    domain: Domain = "apart"
    label: str = ""

    @property
    def strictness(self) -> tuple[int, int, bool, str]:
        """Of several policies the one where this is largest is followed.

        More copies matter more than their distance, and that more than what they are on.
        """
        return self.replicas, DOMAINS.index(self.domain), bool(self.label), self.label


class Policies:
    """All policies, by key.  One that `of` does not know yet is looked up in the database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: dict[int, Policy] = {}
        self.refresh()

    def refresh(self) -> None:
        """After a commit: know all rows.  (What is not committed may get its key anew.)"""
        rows = self._db.read(f"SELECT key, {_COLUMNS} FROM policy")
        self._known = {key: Policy(*row) for key, *row in rows}

    @property
    def default(self) -> Policy:
        """What applies where nothing else does."""
        return self._known[DEFAULT_KEY]

    def of(self, key: int) -> Policy:
        """The policy that chunk.policy names."""
        return self._known.get(key) or policy_of(self._db, key)

    def chunk_size_bytes(self, key: int) -> int:
        """How large new chunks are: by this policy, or where it says nothing, by the default."""
        return self.of(key).chunk_size_bytes or self.default.chunk_size_bytes

    def needed(self, key: int) -> int:
        """What clients are told in ChunkGrant.needed: 0 where the session has said it."""
        needed = min(self.of(key).replicas, NEEDED_MAX)
        return 0 if needed == min(self.default.replicas, NEEDED_MAX) else needed

    def all(self) -> dict[int, Policy]:
        """Every policy there is, by key."""
        return dict(self._known)


def settle(db: Database, stated: Policy) -> Policies:
    """Make what the settings state the default; the database keeps it."""
    row = db.read_one(f"SELECT {_COLUMNS} FROM policy WHERE key = ?", (DEFAULT_KEY,))
    if row is None or Policy(*row) != stated:
        with db.transaction():
            db.change(
                "INSERT OR REPLACE INTO policy VALUES (?, ?, ?, ?, ?)", (DEFAULT_KEY, *stated)
            )
    return Policies(db)


def policy_of(db: Database, key: int) -> Policy:
    """A row of the table.  Raises InputOutput when a chunk or directory names one that is not."""
    row = db.read_one(f"SELECT {_COLUMNS} FROM policy WHERE key = ?", (key,))
    if row is None:
        raise InputOutput(f"there is no policy {key}: run fsck")
    return Policy(*row)


def key_of(db: Database, policy: Policy) -> int:
    """In a mutation: the key of the row that says this; made when there is none."""
    row = db.read_one(
        "SELECT key FROM policy WHERE replicas = ? AND chunk_size_bytes = ? AND domain = ? "
        "AND label = ? AND key <> ?",
        (*policy, DEFAULT_KEY),
    )
    if row is None:
        row = db.read_one(
            f"INSERT INTO policy ({_COLUMNS}) VALUES (?, ?, ?, ?) RETURNING key", tuple(policy)
        )
        assert row is not None
    key: int = row[0]
    return key


def any_assigned(db: Database) -> bool:
    """Has any directory a policy of its own?"""
    return db.read_one("SELECT 1 FROM directory_policy LIMIT 1") is not None


def of_directory(db: Database, directory: int) -> tuple[int, int]:
    """(key, where it comes from): of the nearest directory with a policy, from this one upward.

    (DEFAULT_KEY, 0) when there is none, also for a directory that is no more.
    """
    row = db.read_one(
        "WITH RECURSIVE up (inode, depth) AS (VALUES (?1, 0) UNION ALL "
        "SELECT i.parent, depth + 1 FROM up JOIN inode i USING (inode) "
        "WHERE i.parent <> i.inode AND depth < ?2) "
        "SELECT policy, inode FROM up JOIN directory_policy USING (inode) ORDER BY depth LIMIT 1",
        (directory, DEPTH_MAX),
    )
    return (row[0], row[1]) if row else (DEFAULT_KEY, 0)


def of_file(db: Database, inode: int) -> int:
    """The key that applies to the contents of a file: the strictest of where it has names.

    DEFAULT_KEY for one without a name.
    """
    if not any_assigned(db):
        return DEFAULT_KEY
    directories = db.read("SELECT DISTINCT parent FROM dentry WHERE inode = ?", (inode,))
    keys = {of_directory(db, directory)[0] for (directory,) in directories}
    return strictest(db, keys)


def strictest(db: Database, keys: Iterable[int]) -> int:
    """Of several keys the one that is followed; DEFAULT_KEY of none.

    Among equal ones the smaller, so that everybody chooses the same.
    """
    return max(sorted(keys), key=lambda key: policy_of(db, key).strictness, default=DEFAULT_KEY)


def assign(db: Database, directory: int, key: int) -> None:
    """In a mutation: the directory has a policy of its own from now on."""
    db.change("INSERT OR REPLACE INTO directory_policy VALUES (?, ?)", (directory, key))


def unassign(db: Database, directory: int) -> bool:
    """In a mutation: the directory follows its parent again.  False when it did anyway."""
    return db.change("DELETE FROM directory_policy WHERE inode = ?", (directory,)) > 0


def converge_later(db: Database, inode: int) -> None:
    """In a mutation: another policy may apply to this file or directory from now on."""
    db.change("INSERT OR REPLACE INTO converging VALUES (?, 0)", (inode,))


def any_converging(db: Database) -> bool:
    """May any chunk follow an older policy?"""
    return db.read_one("SELECT 1 FROM converging LIMIT 1") is not None


def renamed(db: Database, inode: int, old_parent: int, new_parent: int) -> bool:
    """In a mutation: an inode has come from one directory to another one.

    While a walk is under way it may move from where that has not been to where it has been.  True
    when another policy applies in its new place.
    """
    if old_parent == new_parent:
        return False
    differs = (
        any_assigned(db) and of_directory(db, old_parent)[0] != of_directory(db, new_parent)[0]
    )
    if differs or any_converging(db):
        converge_later(db, inode)
    return differs


def linked(db: Database, inode: int) -> None:
    """In a mutation: a file got or lost a name, or shares chunks with another one now."""
    if any_assigned(db) or any_converging(db):
        converge_later(db, inode)
