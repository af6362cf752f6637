"""The tables of who is let in: invitations, and what is not accepted any more.

Part of metad/storage/schema.py, whose rules hold here.
"""

from __future__ import annotations

from peewee import BigIntegerField, BlobField, CompositeKey, Model, TextField


# invitation: a certificate of a guest, with which one party can join once.
#   id       the name in that certificate;  role, name  who joins with it.
#   inviter  the operator who asked for it; his revocation voids it.
#   ends_ns  when it is over; rows go some time later.
#   key      SHA-256 of the public key that joined with it, which may ask again when it did not hear
#            the answer; empty until then.
class InvitationRow(Model):
    id = TextField(primary_key=True)
    role = TextField()
    name = TextField()
    inviter = TextField()
    ends_ns = BigIntegerField()
    key = BlobField()

    class Meta:
        table_name = "invitation"
        without_rowid = True


# revocation: certificates of a party that were signed before `since_s` (Unix seconds) are refused,
# for ever: a clock may be set back.
class RevocationRow(Model):
    role = TextField()
    name = TextField()
    since_s = BigIntegerField()

    class Meta:
        table_name = "revocation"
        primary_key = CompositeKey("role", "name")
        without_rowid = True


TABLES: list[type[Model]] = [InvitationRow, RevocationRow]
