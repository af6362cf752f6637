"""The tables of operators: policies of directories, jobs, and what happened.

Part of metad/storage/schema.py, whose rules hold here.
"""

from __future__ import annotations

from peewee import (
    AutoField,
    BigIntegerField,
    IntegerField,
    Model,
    TextField,
)

from metad.storage.columns import NEVER_REUSED


# policy: a way of keeping chunks.  No two rows are the same, and no row but 0 ever changes.
#   key               what chunk.policy and directory_policy.policy hold.  0 is the cluster's
#                     default: metad makes it what its settings state, at each start.
#   replicas          copies of each chunk;  chunk_size_bytes  of new chunks (0: the default's).
#   domain            host, rack or zone: copies are on different ones as far as there are any;
#                     apart: as different as there are, and nothing is missed.
#   label             a label that servers must have to take copies; empty: any server.
class PolicyRow(Model):
    key = AutoField(constraints=NEVER_REUSED)
    replicas = IntegerField()
    chunk_size_bytes = BigIntegerField()
    domain = TextField()
    label = TextField()

    class Meta:
        table_name = "policy"


# directory_policy: the directories that have a policy of their own.  It applies to everything below
# up to the next directory in this table; the default applies above.
class DirectoryPolicyRow(Model):
    inode = BigIntegerField(primary_key=True)
    policy = IntegerField()

    class Meta:
        table_name = "directory_policy"


# converging: directories and files whose chunks may still follow a policy that applies no more.
#   inode     to be looked at with all below it, up to directories with a policy of their own.
#   position  how far that has come: the cookie of a directory's entry, or an offset in a file.
class ConvergingRow(Model):
    inode = BigIntegerField(primary_key=True)
    position = BigIntegerField()

    class Meta:
        table_name = "converging"


# job: long work that metad does in steps (metad/jobs/runner.py); ended ones stay for some days.
#   id        a number, never reused;  name  chosen by who started it: the same is the same job.
#   kind      what is done;  argument  JSON: with what;  cursor  JSON: where the next step begins.
#   state     running, stopped (by an operator), done or failed.
#   done, total, unit   progress; total is 0 while it is not known.
#   errors    steps that failed and were tried again;  message  the last problem, or the outcome.
#   started_ns;  ended_ns  0 until it is done, failed or stopped.
class JobRow(Model):
    id = AutoField(constraints=NEVER_REUSED)
    name = TextField(unique=True)
    kind = TextField()
    argument = TextField()
    state = TextField()
    cursor = TextField()
    done = BigIntegerField()
    total = BigIntegerField()
    unit = TextField()
    errors = IntegerField()
    message = TextField()
    started_ns = BigIntegerField()
    ended_ns = BigIntegerField()

    class Meta:
        table_name = "job"


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


TABLES: list[type[Model]] = [PolicyRow, DirectoryPolicyRow, ConvergingRow, JobRow, EventRow]
