"""Mutations gather into batches by themselves, and each is executed exactly once.

While some batches are under way, operations that come in wait and then travel together in one
request.  One that must wait for another client's lease is answered so, and sent again alone.  Every
batch carries `(session, sequence)` and is repeated until it is answered, however often metad or the
network fails.  The metaclient is its only user.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from dfsmount.remote.retries import Retries
from dfsmount.remote.session import Session
from dfswire.batches import BATCH_MAX_OPERATIONS, Batch, BatchReply, OpResult
from dfswire.errors import DFSError, Leased, SessionLost, Unavailable, from_code
from dfswire.messages import INLINE_MAX_BYTES, MESSAGE_MAX_BYTES, SYMLINK_MAX_BYTES
from dfswire.operations import Access, AnyOperation, Commit, SetXattr

OPERATION_BYTES = 1000  # encoded, without what is counted apart: two names and some numbers
EXTENT_BYTES = 256  # encoded; measured: 75, and a written chunk with four disks 200
BATCHES_IN_FLIGHT_MAX = 4  # more would gain nothing: they share metad's next group commit anyway


@dataclass(eq=False)
class _Pending:
    """An operation on its way; `outcome` is set when `done` is."""

    operation: AnyOperation
    losses: int  # of sessions, before it was submitted
    done: trio.Event = field(default_factory=trio.Event)
    outcome: OpResult | DFSError | None = None
    session: str = ""  # under which it was sent
    leads: bool = False  # woken up to carry the next batch, its own operation included


@dataclass(eq=False)
class _Flight:
    """A batch under way.  `message` is there when it may have been sent."""

    pending: list[_Pending]
    message: Batch | None = None
    sent: list[_Pending] = field(default_factory=list)
    over: trio.Event = field(default_factory=trio.Event)


class Batches:
    """The mutations of one client.

    A batch whose carrier is cancelled goes on in `nursery`, for it has operations of others.
    """

    def __init__(
        self, session: Session, retries: Retries, nursery: trio.Nursery | None = None
    ) -> None:
        self._session = session
        self._retries = retries
        self._nursery = nursery
        self._waiting: deque[_Pending] = deque()
        self._flights: set[_Flight] = set()

    async def submit(self, operation: AnyOperation) -> OpResult:
        """Execute one mutation, exactly once.

        Raises the error of metad's answer; SessionLost when the session ended before an answer came
        (then nobody knows whether it happened); Unavailable on a soft mount.
        """
        pending = _Pending(operation, self._session.losses)
        self._waiting.append(pending)
        try:
            if len(self._flights) < BATCHES_IN_FLIGHT_MAX:
                await self._lead()
            while pending.outcome is None:
                await pending.done.wait()
                if pending.leads:
                    await self._lead()
        except trio.Cancelled:
            if pending in self._waiting:
                self._waiting.remove(pending)
                if pending.leads:
                    self._wake_leader()
            raise
        if isinstance(pending.outcome, OpResult) and _must_wait(pending.outcome):
            return _result_of(await self._send_alone(pending))
        return _result_of(pending.outcome)

    async def landed(self) -> None:
        """Wait until every batch that is under way now has been answered or given up."""
        for flight in list(self._flights):
            await flight.over.wait()

    async def _send_alone(self, pending: _Pending) -> OpResult:
        """Another client has a lease on what the operation is about: it waits for that.

        Not in a batch with others, and not counted among those under way: what that other client
        waits for, perhaps, is a commit of ours.
        """
        if await self._retries.current() != pending.session:
            raise SessionLost("the session ended before the operation was executed")
        batch = await self._begin([pending.operation], no_wait=False)
        try:
            return (await self._send(batch)).results[0]
        finally:
            self._session.finish(batch.session, batch.sequence)

    async def _lead(self) -> None:
        """Carry what waits in one batch, then wake the next leader."""
        flight = _Flight(self._take_batch())
        for pending in flight.pending:
            if pending.leads:  # woken to lead, but another task came first
                pending.leads, pending.done = False, trio.Event()
        self._flights.add(flight)
        try:
            outcomes = await self._fly(flight)
        except BaseException as problem:
            if isinstance(problem, trio.Cancelled) and self._nursery is not None:
                self._nursery.start_soon(self._fly_on, flight)
            else:
                self._land(flight, [Unavailable("the client is ending")] * len(flight.pending))
            raise
        self._land(flight, outcomes)

    async def _fly_on(self, flight: _Flight) -> None:
        """For a carrier that was cancelled."""
        outcomes: Sequence[OpResult | DFSError]
        outcomes = [Unavailable("the client is ending")] * len(flight.pending)
        try:
            outcomes = await self._fly(flight)
        finally:
            self._land(flight, outcomes)

    async def _fly(self, flight: _Flight) -> Sequence[OpResult | DFSError]:
        """Get a batch executed.  When this is cancelled and begun again, it is the same batch."""
        try:
            if flight.message is None:
                await self._retries.current()
                flight.sent = [each for each in flight.pending if not self._is_late(each)]
                if not flight.sent:
                    return _spread(flight.pending, {})
                flight.message = await self._begin([each.operation for each in flight.sent])
            reply = await self._send(flight.message)
        except DFSError as problem:
            return [problem] * len(flight.pending)
        return _spread(flight.pending, dict(zip(flight.sent, reply.results, strict=True)))

    def _land(self, flight: _Flight, outcomes: Sequence[OpResult | DFSError]) -> None:
        self._flights.remove(flight)
        flight.over.set()
        session = ""
        if flight.message is not None:
            session = flight.message.session
            self._session.finish(session, flight.message.sequence)
        for pending, outcome in zip(flight.pending, outcomes, strict=True):
            pending.outcome, pending.session = outcome, session
            pending.done.set()
        self._wake_leader()

    def _wake_leader(self) -> None:
        if self._waiting:
            self._waiting[0].leads = True
            self._waiting[0].done.set()

    def _is_late(self, pending: _Pending) -> bool:
        """Bytes that were to be committed under a session that is lost are lost with it: whoever
        wrote them may have held a lock that others have by now."""
        return isinstance(pending.operation, Commit) and pending.losses != self._session.losses

    def _take_batch(self) -> list[_Pending]:
        """What waits, as far as one message can hold it; at least one operation."""
        batch: list[_Pending] = []
        size_bytes = 0
        while self._waiting and len(batch) < BATCH_MAX_OPERATIONS:
            size_bytes += _most_bytes(self._waiting[0].operation)
            if batch and size_bytes > MESSAGE_MAX_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _begin(self, operations: list[AnyOperation], *, no_wait: bool = True) -> Batch:
        """A batch with a number of its own, to be given back when it is answered or given up."""
        session, sequence = await self._session.begin()
        return Batch(
            session=session,
            sequence=sequence,
            operations=operations,
            acknowledged=self._session.acknowledged,
            no_wait=no_wait,
        )

    async def _send(self, batch: Batch) -> BatchReply:
        reply: BatchReply = await self._retries.persist("meta.batch", batch)
        return reply


def _spread(batch: list[_Pending], results: dict[_Pending, OpResult]) -> list[OpResult | DFSError]:
    """The outcomes of all, where those without a result were not sent."""
    lost = SessionLost("the session was lost before this was committed")
    return [results.get(each, lost) for each in batch]


def _most_bytes(operation: AnyOperation) -> int:
    """An operation is encoded in at most so many bytes."""
    match operation:
        case Commit():
            parts = len(operation.extents) + len(operation.chunks)
            return OPERATION_BYTES + INLINE_MAX_BYTES + parts * EXTENT_BYTES
        case Access():
            return OPERATION_BYTES + len(operation.times) * EXTENT_BYTES
        case SetXattr():
            return OPERATION_BYTES + len(operation.value)
    return OPERATION_BYTES + SYMLINK_MAX_BYTES


def _must_wait(outcome: OpResult) -> bool:
    return outcome.fault is not None and outcome.fault.code == Leased.code


def _result_of(outcome: OpResult | DFSError) -> OpResult:
    if isinstance(outcome, DFSError):
        raise outcome
    if outcome.fault is not None:
        raise from_code(outcome.fault.code, outcome.fault.message)
    return outcome
