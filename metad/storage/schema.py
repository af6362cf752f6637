"""The tables of metad's database, as peewee models; created here, used by every module above.

The comment above each table is the authoritative reference of what is on disk: the meaning of each
column, sentinels and invariants (fsck.py checks them).  Hot paths use prepared SQL over these
tables instead of peewee's query builder, which costs about 50 us for each query it builds.  All
times are nanoseconds since the epoch, all sizes bytes.  Nothing is ever NULL unless it says so.
"""

from __future__ import annotations

import logging
import secrets
import stat
from collections.abc import Callable
from typing import Any

from peewee import (
    SQL,
    AutoField,
    BigIntegerField,
    BlobField,
    CompositeKey,
    IntegerField,
    Model,
    Node,
    SqliteDatabase,
    TextField,
)

from dfswire.errors import UsageError
from dfswire.messages import ROOT_INODE
from metad.storage import schema_admin, schema_verify

log = logging.getLogger(__name__)

SCHEMA_VERSION = 3
FIRST_COOKIE = 3  # 1 and 2 stand for "." and ".." in readdir

_never_reused: list[Node] = [SQL("AUTOINCREMENT")]
_ZERO = SQL("DEFAULT 0")  # of columns that came later: what it is in rows that are older
_ENABLED = SQL("DEFAULT 'enabled'")


def _optional(column: Any) -> SQL:
    """The condition of a partial index that has only the rows where `column` is in use."""
    return SQL(f'"{column.column_name}" IS NOT NULL')


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


# inode: every file, directory, symlink, device, fifo and socket.
#   inode            the number, never reused: kernels and NFS clients may remember a dead one.
#   generation       creation time in seconds, 32 bits: tells apart two lives of one number when an
#                    older database was restored.
#   mode             file type and permission bits, as in stat(2); the type never changes.
#   nlink            dentries that name it; for a directory 2 + its subdirectories.  0: no name is
#                    left and the inode is in `orphan`.
#   size             of a symlink the length of its target; of a directory 0.
#   allocated_bytes  the sum of the lengths of its extents, always exact.
#   parent           of a directory the directory that names it (the root names itself), for "..";
#                    of anything else 0, for it may have several names.  Of a removed directory
#                    the last one, which may be gone.
#   target           of a symlink its target; else empty.
#   flags            of regular files and directories what chattr has set, of operations.FS_KEPT.
class InodeRow(Model):
    inode = AutoField(constraints=_never_reused)
    generation = BigIntegerField()
    mode = IntegerField()
    uid = IntegerField()
    gid = IntegerField()
    rdev = BigIntegerField()
    nlink = IntegerField()
    size = BigIntegerField()
    allocated_bytes = BigIntegerField()
    atime_ns = BigIntegerField()
    mtime_ns = BigIntegerField()
    ctime_ns = BigIntegerField()
    parent = BigIntegerField()
    target = BlobField()
    flags = BigIntegerField(constraints=[_ZERO])

    class Meta:
        table_name = "inode"


# dentry: a name in a directory.
#   cookie  the readdir position, from FIRST_COOKIE, never reused, grows; it stays with the name
#           when rename replaces the inode behind it, and goes along when the name is changed, so
#           a program that renames what it lists does not meet its own work.
#   parent  the directory's inode;  name  1 to 255 bytes, no "/" or NUL;  inode  what it names.
# (parent, name) is unique.  The index on parent yields cookie order, as cookie is the rowid.
class Dentry(Model):
    cookie = AutoField(constraints=_never_reused)
    parent = BigIntegerField(index=True)
    name = BlobField()
    inode = BigIntegerField(index=True)

    class Meta:
        table_name = "dentry"
        indexes = ((("parent", "name"), True),)


# xattr: extended attributes; (inode, name) is unique.
class XattrRow(Model):
    inode = BigIntegerField()
    name = BlobField()
    value = BlobField()

    class Meta:
        table_name = "xattr"
        indexes = ((("inode", "name"), True),)


# extent: which bytes of a file are where; what no extent covers, below the size, is a hole.
#   inode, offset, length   the range of the file; length >= 1; extents of an inode never overlap
#                           and end at or before its size.
#   chunk, chunk_offset     the live chunk that has the bytes and where they start in it; or
#   data                    the bytes themselves, exactly `length` of them.
# Exactly one of chunk and data is not NULL; chunk_offset is 0 for data.
class ExtentRow(Model):
    inode = BigIntegerField()
    offset = BigIntegerField()
    length = BigIntegerField()
    chunk = BlobField(null=True)
    chunk_offset = BigIntegerField()
    data = BlobField(null=True)

    class Meta:
        table_name = "extent"
        indexes = ((("inode", "offset"), True),)


ExtentRow.add_index(ExtentRow.chunk, where=_optional(ExtentRow.chunk), name="extent_chunk")


# chunk: immutable bytes kept by chunkds.
#   id             16 random bytes, never reused.
#   length, digest of the whole chunk (dfswire.chunks.chunk_digest); 0 and empty while granted.
#   state          granted: a session may write it until `expires_ns`; no extent may name it.
#                  live: at least one extent names it.
#                  dead: none does any more, since `dead_since_ns`; deleted after a grace period.
#   refs           extents that name it, always exact.
#   good           replicas in state good, always exact (so that repair need not count).
#   session, expires_ns   NULL unless granted (session also when metad itself has it made, for
#                  compaction);  dead_since_ns  NULL unless dead.
#   policy         policy.key: how it is to be kept; of the policies of all files that name it the
#                  strictest.  While a row of `converging` says so it may be an older one.
class ChunkRow(Model):
    id = BlobField(primary_key=True)
    length = BigIntegerField()
    digest = BlobField()
    state = TextField()
    refs = BigIntegerField()
    good = IntegerField()
    session = TextField(null=True)
    expires_ns = BigIntegerField(null=True)
    dead_since_ns = BigIntegerField(null=True)
    policy = IntegerField(constraints=[_ZERO])

    class Meta:
        table_name = "chunk"
        without_rowid = True


ChunkRow.add_index(
    ChunkRow.policy,
    ChunkRow.good,
    ChunkRow.length,
    where=SQL("\"state\" = 'live'"),
    name="chunk_live",
)
ChunkRow.add_index(ChunkRow.session, where=_optional(ChunkRow.session), name="chunk_session")
ChunkRow.add_index(ChunkRow.expires_ns, where=_optional(ChunkRow.expires_ns), name="chunk_expires")
ChunkRow.add_index(
    ChunkRow.dead_since_ns, where=_optional(ChunkRow.dead_since_ns), name="chunk_dead"
)


# replica: a disk that has, or may have, a chunk.
#   disk   disk.key, an integer because there are as many rows as replicas.
#   state  granted: a writer was sent there, nothing is proven (also when it never acknowledged);
#          good: the disk acknowledged it, or a verified copy was made;
#          bad: damaged or missing; never read, counted or used as a source;
#          excess: one too many, its deletion is or will be ordered; as little worth as a bad one.
# Rows in every state are places to delete from once the chunk is dead.
class ReplicaRow(Model):
    chunk = BlobField()
    disk = IntegerField()
    state = TextField()

    class Meta:
        table_name = "replica"
        primary_key = CompositeKey("chunk", "disk")
        without_rowid = True


ReplicaRow.add_index(ReplicaRow.disk, ReplicaRow.chunk, ReplicaRow.state, name="replica_disk")
ReplicaRow.add_index(
    ReplicaRow.disk,
    ReplicaRow.chunk,
    where=SQL("\"state\" = 'excess'"),
    name="replica_excess",
)


# server: a chunkd, as it last registered.
#   id           its identity, kept on its disks;  incarnation  grows with each start.
#   address      "host:port";  zone, rack  empty when not set;  labels  JSON list of strings.
#   hostname, addresses   what it told of its host; addresses is JSON [{interface, ip: [], mac}].
#   admin        what an operator wants: enabled; draining (no new chunks, the others are copied
#                elsewhere), drained (that is done); removed (it may not come back, nothing counts).
class ServerRow(Model):
    id = TextField(primary_key=True)
    incarnation = BigIntegerField()
    address = TextField()
    software = TextField()
    zone = TextField()
    rack = TextField()
    labels = TextField()
    hostname = TextField()
    addresses = TextField()
    admin = TextField(constraints=[_ENABLED])

    class Meta:
        table_name = "server"
        without_rowid = True


# disk: a data directory of a chunkd.
#   key       what replica.disk holds, never reused;  identity  the id that is kept on the disk.
#   server    server.id of who reported it last (disks may be moved);  path  on that host.
#   state     active, or failed: its replicas are not to be trusted.
#   admin     as of a server.  What is said of the server holds for its disks too.
class DiskRow(Model):
    key = AutoField(constraints=_never_reused)
    identity = TextField(unique=True)
    server = TextField(index=True)
    path = TextField()
    total_bytes = BigIntegerField()
    state = TextField()
    admin = TextField(constraints=[_ENABLED])

    class Meta:
        table_name = "disk"


# session: a client that is, or may be, alive.  acknowledged: it has the replies of all batches up
# to this sequence; their rows in `applied` may be gone, and copies of them are refused.
class SessionRow(Model):
    id = TextField(primary_key=True)
    host = TextField()
    mount_point = TextField()
    pid = IntegerField()
    software = TextField()
    opened_ns = BigIntegerField()
    acknowledged = BigIntegerField()

    class Meta:
        table_name = "session"
        without_rowid = True


# applied: batches that were executed, with their encoded BatchReply, so that a repeated one gets
# the same answer and is not executed again.  Goes with the session.
class AppliedRow(Model):
    session = TextField()
    sequence = BigIntegerField()
    reply = BlobField()

    class Meta:
        table_name = "applied"
        primary_key = CompositeKey("session", "sequence")
        without_rowid = True


# orphan: inodes without a name that some client may have open; purged when none has.
#   linkable  1: made without a name (O_TMPFILE), so a link may still give it its first one; 0.
class OrphanRow(Model):
    inode = BigIntegerField(primary_key=True)
    since_ns = BigIntegerField()
    linkable = IntegerField(constraints=[_ZERO])

    class Meta:
        table_name = "orphan"


# event: what happened to the cluster, for operators; the newest 10,000 (eventlog.py).
#   number    grows, never reused.
#   kind      one of eventlog.KINDS;  severity  what that table said then.
#   subject   what it happened to: a server, disk, chunk, session, job ...;  message  a sentence.
#   times     how many such events the row stands for; time and message are those of the last.
class EventRow(Model):
    number = IntegerField(primary_key=True)
    time_ns = BigIntegerField()
    kind = TextField()
    severity = TextField()
    subject = TextField()
    message = TextField()
    times = BigIntegerField()

    class Meta:
        table_name = "event"


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
    InodeRow,
    Dentry,
    XattrRow,
    ExtentRow,
    ChunkRow,
    ReplicaRow,
    ServerRow,
    DiskRow,
    SessionRow,
    AppliedRow,
    OrphanRow,
    EventRow,
    *schema_admin.TABLES,
    JournalRow,
    schema_verify.DamageRow,
]


# Replaced by what the settings state as soon as a metad starts on the database.
_FIRST_POLICY = "INSERT INTO policy VALUES (0, 2, 4194304, 'host', '')"

# What makes a database of the next version, by the version that it has.
_UPGRADES = {
    1: (
        'ALTER TABLE inode ADD COLUMN "flags" INTEGER NOT NULL DEFAULT 0',
        'ALTER TABLE orphan ADD COLUMN "linkable" INTEGER NOT NULL DEFAULT 0',
    ),
    2: (
        'CREATE TABLE "event" ("number" INTEGER NOT NULL PRIMARY KEY, "time_ns" INTEGER NOT NULL, '
        '"kind" TEXT NOT NULL, "severity" TEXT NOT NULL, "subject" TEXT NOT NULL, '
        '"message" TEXT NOT NULL, "times" INTEGER NOT NULL)',
        'ALTER TABLE chunk ADD COLUMN "policy" INTEGER NOT NULL DEFAULT 0',
        "DROP INDEX chunk_live",
        'CREATE INDEX "chunk_live" ON "chunk" ("policy", "good", "length") '
        "WHERE \"state\" = 'live'",
        "ALTER TABLE server ADD COLUMN \"admin\" TEXT NOT NULL DEFAULT 'enabled'",
        "ALTER TABLE disk ADD COLUMN \"admin\" TEXT NOT NULL DEFAULT 'enabled'",
        # It had the root's policy only, which the settings state again when metad starts.
        "DROP TABLE policy",
        'CREATE TABLE "policy" ("key" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, '
        '"replicas" INTEGER NOT NULL, "chunk_size_bytes" INTEGER NOT NULL, '
        '"domain" TEXT NOT NULL, "label" TEXT NOT NULL)',
        _FIRST_POLICY,
        'CREATE TABLE "directory_policy" ("inode" INTEGER NOT NULL PRIMARY KEY, '
        '"policy" INTEGER NOT NULL)',
        'CREATE TABLE "converging" ("inode" INTEGER NOT NULL PRIMARY KEY, '
        '"position" INTEGER NOT NULL)',
        'CREATE TABLE "job" ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, '
        '"name" TEXT NOT NULL, "kind" TEXT NOT NULL, "argument" TEXT NOT NULL, '
        '"state" TEXT NOT NULL, "cursor" TEXT NOT NULL, "done" INTEGER NOT NULL, '
        '"total" INTEGER NOT NULL, "unit" TEXT NOT NULL, "errors" INTEGER NOT NULL, '
        '"message" TEXT NOT NULL, "started_ns" INTEGER NOT NULL, "ended_ns" INTEGER NOT NULL)',
        'CREATE UNIQUE INDEX "jobrow_name" ON "job" ("name")',
        'CREATE INDEX "replica_excess" ON "replica" ("disk", "chunk") WHERE "state" = \'excess\'',
        'CREATE TABLE "journal" ("id" INTEGER NOT NULL PRIMARY KEY, "term" INTEGER NOT NULL, '
        '"number" INTEGER NOT NULL, "time_ns" INTEGER NOT NULL, "digest" BLOB NOT NULL)',
        "INSERT INTO journal VALUES (1, 0, 0, 0, zeroblob(16))",
        "INSERT INTO setting VALUES ('epoch', '1')",
        *schema_verify.UPGRADE,
    ),
}


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


def _upgrade(run: Callable[..., Any], version: int) -> None:
    for each in range(version, SCHEMA_VERSION):
        for statement in _UPGRADES[each]:
            run(statement)
    run("UPDATE setting SET value = ? WHERE name = 'schema_version'", (str(SCHEMA_VERSION),))
    log.info("the database is of schema version %d now, no longer of %d", SCHEMA_VERSION, version)


def _create(database: SqliteDatabase, now_ns: int) -> None:
    with database.bind_ctx(TABLES):
        database.create_tables(TABLES, safe=False)
    run: Callable[..., Any] = database.execute_sql
    run("INSERT INTO setting VALUES ('schema_version', ?)", (str(SCHEMA_VERSION),))
    run("INSERT INTO setting VALUES ('cluster_id', ?)", (secrets.token_hex(16),))
    run(_FIRST_POLICY)
    run("INSERT INTO setting VALUES ('epoch', '1')")
    run("INSERT INTO journal VALUES (1, 0, 0, 0, zeroblob(16))")
    run("INSERT INTO sqlite_sequence (name, seq) VALUES ('dentry', ?)", (FIRST_COOKIE - 1,))
    run(
        "INSERT INTO inode VALUES (?, 0, ?, 0, 0, 0, 2, 0, 0, ?, ?, ?, ?, x'', 0)",
        (ROOT_INODE, stat.S_IFDIR | 0o755, now_ns, now_ns, now_ns, ROOT_INODE),
    )
