"""The tables of metad's database, as peewee models; created here, used by every module above.

The comment above each table, here and in the modules schema_*.py, is the authoritative reference
of what is on disk: the meaning of each column, sentinels and invariants (metad/checks tests them).
Hot paths use prepared SQL over these tables instead of peewee's query builder, which costs about
50 us for each query it builds.  All times are nanoseconds since the epoch, all sizes bytes.
Nothing is ever NULL unless it says so.
"""

from __future__ import annotations

import logging
import secrets
import stat
from collections.abc import Callable
from typing import Any

from peewee import BigIntegerField, BlobField, IntegerField, Model, SqliteDatabase, TextField

from dfswire.errors import UsageError
from dfswire.messages import ROOT_INODE
from metad.storage import schema_admin, schema_admission, schema_chunks, schema_files, schema_hosts
from metad.storage.upgrades import FIRST_POLICY, UPGRADES

log = logging.getLogger(__name__)

SCHEMA_VERSION = 4
FIRST_COOKIE = 3  # 1 and 2 stand for "." and ".." in readdir


# setting: facts about the database itself, by name.
#   schema_version  decimal SCHEMA_VERSION; a database with a higher one is refused.
#   cluster_id      32 hex digits drawn at creation; chunkds keep it and refuse another one.
#   epoch           decimal, from 1; raised by each restore, so that what an older metad of this
#                   cluster said, did and wrote can be told from what counts.
#   reclaim_held    only while a restore is not confirmed: why nothing may be deleted.
class Setting(Model):
    name = TextField(primary_key=True)
    value = TextField()

    class Meta:
        table_name = "setting"
        without_rowid = True


# journal: one row (id 1), how far the journal is; changed in the transaction of each entry, and
# the only table that the journal does not carry itself (see dfswire/journal.py).
#   term     grows with each start of metad and each commit that failed; orders entries that have
#            the same number, of which one was never acknowledged.
#   number   of the last entry; 0 before the first;  time_ns  of that entry, never less than of
#            the one before;  digest  of it: covers all entries before.
class JournalRow(Model):
    id = IntegerField(primary_key=True)
    term = BigIntegerField()
    number = BigIntegerField()
    time_ns = BigIntegerField()
    digest = BlobField()

    class Meta:
        table_name = "journal"


TABLES: list[type[Model]] = [
    Setting,
    *schema_files.TABLES,
    *schema_chunks.TABLES,
    *schema_hosts.TABLES,
    *schema_admin.TABLES,
    *schema_admission.TABLES,
    JournalRow,
]


def prepare(database: SqliteDatabase, now_ns: int) -> None:
    """Create the tables in an empty database, or make sure that they are ours; one of an older
    version is upgraded, all at once or not at all.

    Raises UsageError for a database of something else or of a newer metad.
    """
    found = set(database.get_tables())
    if not found:
        with database.atomic("IMMEDIATE"):
            _create(database, now_ns)
        return
    if Setting._meta.table_name not in found:
        raise UsageError("it has tables of another program; name another file in `url`")
    run: Callable[..., Any] = database.execute_sql
    rows = run("SELECT value FROM setting WHERE name = 'schema_version'")
    version = next((value for (value,) in rows), None)
    if version is None or not version.isdecimal():
        raise UsageError("it has no schema version of metad; name another file in `url`")
    if int(version) > SCHEMA_VERSION:
        raise UsageError(
            f"its schema version is {version}, this metad knows {SCHEMA_VERSION}: "
            "it was used by a newer metad; install that version again"
        )
    if int(version) < SCHEMA_VERSION:
        with database.atomic("IMMEDIATE"):
            _upgrade(run, int(version))


def cluster_of(database: SqliteDatabase) -> str:
    """Whose database it is, once it is prepared."""
    run: Callable[..., Any] = database.execute_sql
    return "".join(value for (value,) in run("SELECT value FROM setting WHERE name = 'cluster_id'"))


def _upgrade(run: Callable[..., Any], version: int) -> None:
    for each in range(version, SCHEMA_VERSION):
        for statement in UPGRADES[each]:
            run(statement)
    run("UPDATE setting SET value = ? WHERE name = 'schema_version'", (str(SCHEMA_VERSION),))
    log.info("the database is of schema version %d now, no longer of %d", SCHEMA_VERSION, version)


def _create(database: SqliteDatabase, now_ns: int) -> None:
    with database.bind_ctx(TABLES):
        database.create_tables(TABLES, safe=False)
    run: Callable[..., Any] = database.execute_sql
    run("INSERT INTO setting VALUES ('schema_version', ?)", (str(SCHEMA_VERSION),))
    run("INSERT INTO setting VALUES ('cluster_id', ?)", (secrets.token_hex(16),))
    run(FIRST_POLICY)
    run("INSERT INTO setting VALUES ('epoch', '1')")
    run("INSERT INTO journal VALUES (1, 0, 0, 0, zeroblob(16))")
    run("INSERT INTO sqlite_sequence (name, seq) VALUES ('dentry', ?)", (FIRST_COOKIE - 1,))
    run(
        "INSERT INTO inode VALUES (?, 0, ?, 0, 0, 0, 2, 0, 0, ?, ?, ?, ?, x'', 0)",
        (ROOT_INODE, stat.S_IFDIR | 0o755, now_ns, now_ns, now_ns, ROOT_INODE),
    )
