"""What chunkds (and clients) report: registrations, heartbeats, bad replicas.

Reports change replica rows, results of orders are booked, and the reply of a heartbeat carries the
next orders.  A heartbeat is booked in one transaction before it is answered; chunkd repeats what
was not answered, and booking twice is harmless.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import msgspec

from dfswire.errors import AlreadyRunning, Forbidden, WrongCluster
from dfswire.heartbeats import Heartbeat, HeartbeatReply, ReplicaReport
from dfswire.hosts import DiskFigures, Register, Registered
from dfswire.messages import Empty
from dfswire.metadata import BadReplica
from dfswire.orders import Order, OrderResult
from metad.clients.sessioncalls import Clients
from metad.copies import damage, replicas
from metad.copies.verified import Verified
from metad.hosts import machines
from metad.hosts.server import Server
from metad.state import State
from metad.upkeep.inventories import Inventories
from metad.upkeep.reclaim import Reclaimer
from metad.upkeep.repair import Repairer

log = logging.getLogger(__name__)

_MAKES = ("copy", "rebuild")  # orders after which a disk has a chunk that it had not
EARLY_MAX = 10_000  # reports of chunks that no file has yet; a few at most in practice


class Reports:
    """Handlers of server.register and server.heartbeat, and of meta.bad_replica."""

    def __init__(
        self,
        state: State,
        clients: Clients,
        repairer: Repairer,
        reclaimer: Reclaimer,
        verified: Verified,
        inventories: Inventories,
    ) -> None:
        self._state = state
        self._clients = clients
        self._repairer = repairer
        self._reclaimer = reclaimer
        self._verified = verified
        self._inventories = inventories
        self._refused: dict[str, str] = {}  # server -> the process that was told last
        self._early: dict[bytes, set[str]] = {}
        self.on_result: list[Callable[[Order, OrderResult], None]] = []
        self.on_registered: list[Callable[[], None]] = []

    def stored(self, chunks: Iterable[bytes]) -> None:
        """These chunks became part of a file."""
        chunks = list(chunks)
        self._inventories.came(chunks)
        for chunk in chunks:
            for disk in self._early.pop(chunk, ()):
                self._state.servers.orders.add("verify", chunk, disk)

    # calls

    async def register(self, request: Register) -> Registered:
        """Raises WrongCluster, Removed, AlreadyRunning; see Servers.check.  Forbidden: Owners."""
        state = self._state
        known = state.servers.get(request.server_id)
        try:
            request = self._with_incarnation(request)
            state.servers.check(request, state.clock())
            state.owners.check(request.server_id)
        except (AlreadyRunning, WrongCluster, Forbidden) as problem:
            if self._refused.get(request.server_id) != request.process:
                self._refused[request.server_id] = request.process
                log.warning("%s is refused: %s", request.address, problem)
                state.event_log.add("server.refused", request.server_id, str(problem))
            raise
        self._refused.pop(request.server_id, None)
        bind = state.owners.bind(request.server_id)

        def save() -> None:
            machines.save_server(state.db, request)
            bind()

        await state.db.write(save)
        state.servers.register(request, state.clock())
        for tell in self.on_registered:
            tell()
        log.info("server %s registered at %s", request.server_id, request.address)
        if known is None or known.incarnation != request.incarnation:
            sentence = f"{request.address}: start number {request.incarnation}"
            state.event_log.add("server.registered", request.server_id, sentence)
        return Registered(
            cluster_id=state.cluster_id,
            heartbeat_s=state.config.heartbeat_s,
            incarnation=request.incarnation,
            token_key=state.tokens.registered(request.server_id, knows_tokens=request.tokens),
        )

    def _with_incarnation(self, request: Register) -> Register:
        """As asked, unless its starts must be counted on from what metad knows."""
        incarnation = self._state.servers.identities.incarnation_for(request, self._state.clock())
        if incarnation == request.incarnation:
            return request
        log.warning(
            "server %s comes with incarnation %d, which was used before: its data directories were "
            "set back or copied; it is %d now",
            request.server_id,
            request.incarnation,
            incarnation,
        )
        return msgspec.structs.replace(request, incarnation=incarnation)

    async def heartbeat(self, request: Heartbeat) -> HeartbeatReply:
        state = self._state
        known = state.servers.get(request.server_id)
        before = dict(known.disks) if known is not None else {}
        if known is None or not state.servers.heartbeat(request, state.clock()):
            return HeartbeatReply(register=True)
        state.traffic.note(request.disks, state.clock())
        state.servers.grayness.report(f"server {known.server_id}", request.peers, state.clock())
        changed = [each for each in request.disks if _failure_changed(before, each)]
        finished = [
            (order, result)
            for result in request.results
            if (order := state.servers.orders.find(result, known.disks)) is not None
        ]
        # Before the rows say so: an inventory that was made earlier may come during the commit.
        self._inventories.came(
            [order.chunk for order, result in finished if result.ok and order.kind in _MAKES]
        )
        if changed or finished or request.reports:
            lost = await state.db.write(
                lambda: self._book(known, changed, finished, request.reports)
            )
            self._after_booking(finished)
            if changed or request.reports:
                self._repairer.wake()
            self._tell(known, changed, request.reports, lost)
        orders = state.servers.orders
        return HeartbeatReply(
            orders=state.tokens.for_orders(orders.take(known.disks, state.clock())),
            called_off=orders.called_off(known.disks),
            inventory=self._inventories.take_wanted(request.server_id),
            token_key=state.tokens.heard(request.server_id, request.token_key),
        )

    async def bad_replica(self, request: BadReplica) -> Empty:
        """A client got no good bytes: the server that should have them shall look."""
        self._clients.check(request.session)
        if self._state.servers.server_of(request.disk) is not None:
            self._state.servers.orders.add("verify", request.chunk, request.disk)
        return Empty()

    # booking, in a mutation

    def _book(
        self,
        server: Server,
        changed: list[DiskFigures],
        finished: list[tuple[Order, OrderResult]],
        reports: list[ReplicaReport],
    ) -> list[bytes]:
        """The chunks that have no good replica now."""
        for figures in changed:
            machines.set_disk_failed(self._state.db, figures.disk, figures.failed)
        for order, result in finished:
            if result.ok:
                self._book_order(order)
            elif order.kind == "rebuild" and result.lost and self._asked_all(order):
                damage.record(self._state.db, order.chunk, result.lost, self._state.wall_ns())
        mine = [report for report in reports if report.disk in server.disks]
        for report in mine:
            self._verified.forget(report.chunk, report.disk)
        return [report.chunk for report in mine if self._book_report(report)]

    def _book_order(self, order: Order) -> None:
        if order.kind in ("copy", "rebuild"):
            self._repairer.book(order)
        elif order.kind == "delete":
            self._reclaimer.book(order)
        elif order.kind == "verify":
            self._book_verified(order.chunk, order.disk)

    def _asked_all(self, order: Order) -> bool:
        """Was every disk a source that has the chunk as far as is known, one that is away too?"""
        holders = {disk for disk, _state in replicas.replicas_of(self._state.db, order.chunk)}
        return holders <= {source.disk for source in order.sources}

    def _book_report(self, report: ReplicaReport) -> bool:
        """Is the chunk lost now?"""
        db, chunk, disk = self._state.db, report.chunk, report.disk
        stored = replicas.chunk_info(db, chunk)
        if stored is None:
            return False
        if report.state == "good":
            if self._state_of(chunk, disk):
                self._book_good(chunk, disk)
            elif stored.state == replicas.LIVE:
                # It may have been deleted, as one too many, after this was said.
                self._state.servers.orders.add("verify", chunk, disk)
        elif stored.state == replicas.GRANTED:
            # Its writer may not know, and commit it as good: looked at again when that happens.
            if len(self._early) < EARLY_MAX:
                self._early.setdefault(chunk, set()).add(disk)
        elif report.state == "missing":
            replicas.remove_replica(db, chunk, disk)
            return self._is_lost(chunk)
        elif self._state_of(chunk, disk) not in ("", replicas.EXCESS):
            replicas.set_replica(db, chunk, disk, replicas.BAD)
            return self._is_lost(chunk)
        return False

    def _book_verified(self, chunk: bytes, disk: str) -> None:
        """The copy was read through.  One that was condemned is good again only if no order to
        delete it can be under way: this verification came after any of an earlier metad."""
        if self._state_of(chunk, disk) != replicas.EXCESS:
            self._book_good(chunk, disk)
        elif self._state.servers.orders.withdraw("delete", chunk, disk):
            replicas.set_replica(self._state.db, chunk, disk, replicas.GOOD)

    def _book_good(self, chunk: bytes, disk: str) -> None:
        stored = replicas.chunk_info(self._state.db, chunk)
        if (
            stored is not None
            and stored.state == replicas.LIVE
            and self._state_of(chunk, disk) != replicas.EXCESS
        ):
            replicas.set_replica(self._state.db, chunk, disk, replicas.GOOD)

    def _state_of(self, chunk: bytes, disk: str) -> str:
        """The state of a replica; empty when there is none."""
        return dict(replicas.replicas_of(self._state.db, chunk)).get(disk, "")

    def _is_lost(self, chunk: bytes) -> bool:
        stored = replicas.chunk_info(self._state.db, chunk)
        states = [state for _, state in replicas.replicas_of(self._state.db, chunk)]
        return stored is not None and stored.state == replicas.LIVE and replicas.GOOD not in states

    def _tell(
        self,
        server: Server,
        changed: list[DiskFigures],
        reports: list[ReplicaReport],
        lost: list[bytes],
    ) -> None:
        add = self._state.event_log.add
        for disk in changed:
            kind = "disk.failed" if disk.failed else "disk.back"
            add(kind, disk.disk, f"{disk.path} on {server.address}")
        for report in reports:
            if report.state != "good":
                reason = f": {report.reason}" if report.reason else ""
                add(f"chunk.{report.state}", report.chunk.hex(), f"on disk {report.disk}{reason}")
        for chunk in lost:
            log.warning("chunk %s has no good replica left", chunk.hex())
            add("chunk.lost", chunk.hex(), "no good replica is left")

    def _after_booking(self, finished: list[tuple[Order, OrderResult]]) -> None:
        now = self._state.clock()
        for order, result in finished:
            called_off = self._state.servers.orders.finish(order)
            if result.ok and order.kind in ("copy", "verify"):
                self._verified.note(order.chunk, order.disk, now)
            if order.kind == "copy":
                if result.ok:
                    self._repairer.done(order)
                elif not called_off:
                    self._repairer.failed(order, result)
            elif order.kind == "rebuild":
                self._tell_of_rebuild(order, result)
            for listener in self.on_result:
                listener(order, result)

    def _tell_of_rebuild(self, order: Order, result: OrderResult) -> None:
        add = self._state.event_log.add
        if result.ok:
            add("chunk.rebuilt", order.chunk.hex(), "made whole of damaged copies")
        elif result.lost:
            where = "lost" if self._asked_all(order) else "on no disk that is present"
            text = f"{len(result.lost)} of its blocks are {where}: dfs fsck --lost shows the files"
            add("chunk.damaged", order.chunk.hex(), text)


def _failure_changed(before: dict[str, DiskFigures], figures: DiskFigures) -> bool:
    known = before.get(figures.disk)
    return known is not None and known.failed != figures.failed
