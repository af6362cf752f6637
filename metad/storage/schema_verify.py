"""The tables of verifying: which bytes no disk has any more.  Part of schema.TABLES."""

from __future__ import annotations

from peewee import BigIntegerField, BlobField, CompositeKey, Model


# damage: ranges of a live chunk of which no copy has the bytes any more, though every disk that may
# have one was asked.  The rest of such a chunk is still read from damaged copies.  A chunk without
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


UPGRADE = (
    'CREATE TABLE "damage" ("chunk" BLOB NOT NULL, "offset" INTEGER NOT NULL, '
    '"length" INTEGER NOT NULL, "since_ns" INTEGER NOT NULL, PRIMARY KEY ("chunk", "offset")) '
    "WITHOUT ROWID",
)
