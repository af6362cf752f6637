"""Batches: how metadata mutations travel from a client to metad, and what became of each.

A client sends `Batch(session, sequence, operations)`; metad executes it exactly once, in order, in
one transaction together with the record that makes a retry harmless.  Each operation stands alone:
one that fails is undone and reports its error in its own `OpResult`; those after it are still
tried.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from dfswire.messages import Answer, Attr, Fault, Lease, Message, Natural
from dfswire.operations import AnyOperation

BATCH_MAX_OPERATIONS = 1000


class OpResult(Message, frozen=True, kw_only=True):
    """What became of one operation.

    `attrs` has the new attributes of every inode that it changed, the subject first (the created,
    linked, renamed or changed inode), then the parent(s), then a replaced inode with its nlink.
    `lease`: the exclusive lease that was asked for with the operation, if it could be had at once.
    `length`: of CopyRange.
    `bare`: (Create, CreateUnnamed) the inode was made just now, and has no extended attributes.
    `policy`: (Create) the key of what applies to the new inode, where directories have policies.
    """

    attrs: list[Attr] = []
    length: Natural = 0
    fault: Fault | None = None
    lease: Lease | None = None
    bare: bool = False
    policy: Natural | None = None


class Batch(Message, frozen=True, kw_only=True):
    """Operations with an identity.  `sequence` is unique in the session and starts at 1.

    `acknowledged`: the client has the replies of this and of all lower sequences, so metad may
    forget them; a copy of such a batch that arrives late is refused.
    `no_wait`: operations about something that another session has leased fail with `leased` and are
    not executed; the holder is asked to give it back.  Without it the whole batch waits for that.
    All of several operations fail with it when somebody is slow to forget what they change.
    """

    session: str
    sequence: Annotated[int, msgspec.Meta(ge=1)]
    operations: Annotated[
        list[AnyOperation], msgspec.Meta(min_length=1, max_length=BATCH_MAX_OPERATIONS)
    ]
    acknowledged: Natural = 0
    no_wait: bool = False


class BatchReply(Answer, frozen=True, kw_only=True):
    """One result for each operation, in order."""

    results: list[OpResult]
