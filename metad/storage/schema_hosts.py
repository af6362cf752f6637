"""The tables of who takes part: servers, their disks, and sessions of clients.

Part of metad/storage/schema.py, whose rules hold here.
"""

from __future__ import annotations

from peewee import (
    AutoField,
    BigIntegerField,
    BlobField,
    CompositeKey,
    IntegerField,
    Model,
    TextField,
)

from metad.storage.columns import ENABLED, NEVER_REUSED, NOBODY


# server: a chunkd, as it last registered.
#   id           its identity, kept on its disks;  incarnation  grows with each start.
#   address      "host:port";  zone, rack  empty when not set;  labels  JSON list of strings.
#   hostname, addresses   what it told of its host; addresses is JSON [{interface, ip: [], mac}].
#   admin        what an operator wants: enabled; draining (no new chunks, the others are copied
#                elsewhere), drained (that is done); removed (it may not come back, nothing counts).
#   party        the name in the certificate that it registered with; empty without TLS.
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
    admin = TextField(constraints=[ENABLED])
    party = TextField(constraints=[NOBODY])

    class Meta:
        table_name = "server"
        without_rowid = True


# disk: a data directory of a chunkd.
#   key       what replica.disk holds, never reused;  identity  the id that is kept on the disk.
#   server    server.id of who reported it last (disks may be moved);  path  on that host.
#   state     active, or failed: its replicas are not to be trusted.
#   admin     as of a server.  What is said of the server holds for its disks too.
class DiskRow(Model):
    key = AutoField(constraints=NEVER_REUSED)
    identity = TextField(unique=True)
    server = TextField(index=True)
    path = TextField()
    total_bytes = BigIntegerField()
    state = TextField()
    admin = TextField(constraints=[ENABLED])

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


TABLES: list[type[Model]] = [ServerRow, DiskRow, SessionRow, AppliedRow]
