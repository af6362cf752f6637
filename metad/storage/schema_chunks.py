"""The tables of what chunkds keep: chunks, their replicas, and what of them is lost.

Part of metad/storage/schema.py, whose rules hold here.
"""

from __future__ import annotations

from peewee import (
    SQL,
    BigIntegerField,
    BlobField,
    CompositeKey,
    IntegerField,
    Model,
    TextField,
)

from metad.storage.columns import ZERO, optional


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
    policy = IntegerField(constraints=[ZERO])

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
ChunkRow.add_index(ChunkRow.session, where=optional(ChunkRow.session), name="chunk_session")
ChunkRow.add_index(ChunkRow.expires_ns, where=optional(ChunkRow.expires_ns), name="chunk_expires")
ChunkRow.add_index(
    ChunkRow.dead_since_ns, where=optional(ChunkRow.dead_since_ns), name="chunk_dead"
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


# damage: ranges of a live chunk of which no copy has the bytes any more, though every disk in
# `replica` was asked.  The rest of such a chunk is still read from damaged copies.  A chunk without
# a good replica that has no rows here was not looked at yet, or some of its disks are away.
#   offset, length   of the bytes in the chunk;  since_ns  when that was found.
class DamageRow(Model):
    chunk = BlobField()
    offset = BigIntegerField()
    length = BigIntegerField()
    since_ns = BigIntegerField()

    class Meta:
        table_name = "damage"
        primary_key = CompositeKey("chunk", "offset")
        without_rowid = True


TABLES: list[type[Model]] = [ChunkRow, ReplicaRow, DamageRow]
