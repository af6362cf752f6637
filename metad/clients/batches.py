"""Executing batches of mutations exactly once.

The service gives each Batch to `execute` inside one `Database.write`.  The same transaction holds
the mutations and the row of `applied` with their reply, so a batch that is sent again, even to a
restarted metad, is answered from that row.  Every reply is stored, also one that has only faults: a
delayed copy must not succeed after the client was told that it failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from dfswire import codec
from dfswire.batches import Batch, BatchReply, OpResult
from dfswire.errors import DFSError, Stale
from dfswire.messages import FILE_MAX_BYTES, Attr
from dfswire.operations import (
    Access,
    AnyOperation,
    Commit,
    CopyRange,
    Create,
    CreateUnnamed,
    Fallocate,
    Link,
    Release,
    RemoveXattr,
    Rename,
    RmDir,
    SetAttr,
    SetFlags,
    SetXattr,
    Unlink,
)
from metad.copies import policies
from metad.names import attributes, chunkmap, namespace, ranges, xattrs
from metad.names.effects import Effects
from metad.names.rename import rename
from metad.sessions import rows as sessions
from metad.storage.database import Database

PRUNE_EVERY = 64  # stored replies a session may have too many; deleting each at once costs a write


@dataclass(frozen=True)
class Executed:
    """What became of a batch.  `repeated`: it was executed before, so it has no effects now."""

    reply: BatchReply
    effects: Effects = field(default_factory=Effects)
    repeated: bool = False


def execute(
    db: Database,
    batch: Batch,
    now_ns: int,
    admit: Callable[[AnyOperation], DFSError | None] = lambda op: None,
    free_bytes: Callable[[], int] = lambda: FILE_MAX_BYTES,
) -> Executed:
    """Run a batch in the caller's transaction, unless that was done before.

    An operation that fails is undone alone and has its Fault in the reply.  Each has a nanosecond
    of its own, from `now_ns` on, so that ctimes tell the order of results.  `admit` is called
    before each, and returns why it must not be executed; what it raises leaves this function, for
    the caller to undo everything.  `free_bytes` is asked before room is promised.  Raises
    SessionLost; Stale for a late copy of a batch whose reply the client has.
    """
    acknowledged = sessions.acknowledged(db, batch.session)
    stored = db.read_one(
        "SELECT reply FROM applied WHERE session = ? AND sequence = ?",
        (batch.session, batch.sequence),
    )
    if stored is not None:
        return Executed(codec.decode(BatchReply, stored[0]), repeated=True)
    if batch.sequence <= acknowledged:
        raise Stale(f"batch {batch.sequence} was answered long ago")
    effects = Effects()
    results = []
    for index, op in enumerate(batch.operations):
        if refusal := admit(op):
            results.append(OpResult(fault=codec.fault_of(refusal)))
        else:
            results.append(_result(db, op, batch.session, now_ns + index, effects, free_bytes))
    reply = BatchReply(results=results)
    db.change(
        "INSERT INTO applied VALUES (?, ?, ?)",
        (batch.session, batch.sequence, codec.encode(reply)),
    )
    if batch.acknowledged > acknowledged:
        _acknowledge(db, batch)
    return Executed(reply, effects)


def _result(
    db: Database,
    op: AnyOperation,
    session: str,
    now_ns: int,
    effects: Effects,
    free_bytes: Callable[[], int],
) -> OpResult:
    own = Effects()
    length = 0
    try:
        with db.savepoint():
            if isinstance(op, CopyRange):
                attrs, length = ranges.copy_range(db, op, now_ns, own)
            elif isinstance(op, Fallocate):
                attrs = ranges.fallocate(db, op, free_bytes(), now_ns, own)
            else:
                attrs = _apply(db, op, session, now_ns, own)
    except DFSError as problem:
        return OpResult(fault=codec.fault_of(problem))
    effects.merge(own)
    policy = None
    if own.bare and isinstance(op, Create) and policies.any_assigned(db):
        policy = policies.of_directory(db, op.parent)[0]
    return OpResult(attrs=attrs, length=length, bare=bool(own.bare), policy=policy)


def _apply(
    db: Database, op: AnyOperation, session: str, now_ns: int, effects: Effects
) -> list[Attr]:
    run: Callable[[int, Effects], list[Attr]]
    match op:
        case Create():
            run = partial(namespace.create, db, op)
        case CreateUnnamed():
            run = partial(namespace.create_unnamed, db, op)
        case Link():
            run = partial(namespace.link, db, op)
        case Unlink():
            run = partial(namespace.unlink, db, op)
        case RmDir():
            run = partial(namespace.rmdir, db, op)
        case Rename():
            run = partial(rename, db, op)
        case SetAttr():
            run = partial(attributes.setattr_, db, op)
        case SetFlags():
            run = partial(attributes.set_flags, db, op)
        case Access():
            run = partial(attributes.access, db, op)
        case SetXattr():
            run = partial(xattrs.setxattr, db, op)
        case RemoveXattr():
            run = partial(xattrs.removexattr, db, op)
        case Commit():
            run = partial(_commit, db, op, session)
        case Release():
            effects.released.append(op.inode)
            return []
    return run(now_ns, effects)


def _commit(db: Database, op: Commit, session: str, now_ns: int, effects: Effects) -> list[Attr]:
    attrs = chunkmap.commit(db, op, session, now_ns, effects)
    if op.attributes is not None:
        attrs = attributes.setattr_(db, op.attributes, now_ns, effects)
    return attrs


def _acknowledge(db: Database, batch: Batch) -> None:
    db.change(
        "UPDATE session SET acknowledged = ? WHERE id = ?", (batch.acknowledged, batch.session)
    )
    if batch.sequence % PRUNE_EVERY == 0:
        db.change(
            "DELETE FROM applied WHERE session = ? AND sequence <= ?",
            (batch.session, batch.acknowledged),
        )
