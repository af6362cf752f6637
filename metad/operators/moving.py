"""Moving copies: rebalancing, and bringing chunks to where their policies want them.

Two kinds of jobs, which metad begins by itself or an operator does; both plan moves from what disks
and policies are like now, and moves.py carries them out.  Nothing is moved while anything is
endangered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial

import trio

from dfswire.errors import DFSError
from dfswire.moving import DiskPlan, PlannedMove, RebalancePlan, RebalanceRequest
from metad.copies import misplaced, policies
from metad.copies.misplaced import Found, Places, wanted_places
from metad.jobs.rebalance import Balancing, Fill, Movable, Move, better_place
from metad.jobs.rows import Job, Progress
from metad.jobs.runner import Jobs, Kind
from metad.operators.moves import Moves, good_copies
from metad.state import State
from metad.storage.database import Database
from metad.upkeep.rates import Throttle
from metad.upkeep.transfers import RepairLimits, Transfers

REBALANCE, SPREAD = "rebalance", "spread"  # kinds of jobs
PAGE = 256  # chunks read at once
FOUND_MAX = 20_000  # misplaced chunks of one search
LOOKED_AT_PER_STEP = 256  # of these; 15 ms on the loop
PLANNED_MAX = 10_000  # moves of a dry run
TOLD_MAX = 100
BUSY_MAX = 64  # moves between busy disks: then no others are looked for
STEP_S = 1.0
IDLE_S = 60.0  # how often it is looked whether disks are unevenly full
COUNT_S = 15.0  # how often misplaced chunks are counted, in a small cluster
COUNT_SHARE = 20.0  # and how many times the duration of a count is waited after it

_PAGE = (
    "SELECT c.id, c.length, c.policy FROM replica r JOIN chunk c ON c.id = r.chunk "
    "WHERE r.disk = (SELECT key FROM disk WHERE identity = ?) AND r.state = 'good' "
    "AND c.state = 'live' AND r.chunk > ? ORDER BY r.chunk LIMIT ?"
)


class Moving:
    """See the module's text.  `endangered`: how many chunks repair has to see to; `give_up` asks
    trim.py to drop a copy; `throttle` and `limits` are repair's: together they copy no faster than
    that, and no disk has more to do."""

    def __init__(
        self,
        state: State,
        jobs: Jobs,
        endangered: Callable[[], int],
        give_up: Callable[[bytes, str], None],
        throttle: Throttle,
        limits: RepairLimits,
    ) -> None:
        self._state = state
        self._jobs = jobs
        self._endangered = endangered
        self._moves = Moves(state, give_up, throttle, limits)
        self._found: deque[Found] = deque()
        self._ordered = 0  # moves, of what the last search found
        self._news = trio.Event()
        self._is_counted = True
        self._counts: dict[int, int] = {}
        self.misplaced = 0
        """Chunks that could be in more domains than they are, or on servers with their label, when
        that was counted last."""
        jobs.register(Kind(REBALANCE, "bytes", self._rebalance_step))
        jobs.register(Kind(SPREAD, "chunks", self._spread_step))

    # -- calls ----------------------------------------------------------------------------------

    async def plan(self, request: RebalanceRequest) -> RebalancePlan:
        """What a rebalancing would do now, as far as that can be told."""
        state = self._state
        fill = Fill.of(state.servers.candidates(state.clock()))
        before = {disk: fill.fraction(disk) for disk in fill.places}
        band = state.config.rebalance_band / 2

        def find(db: Database) -> list[Move]:
            supply = Balancing(fill, band, lambda disk: self._on_disk(db, disk))
            return list(supply.moves(PLANNED_MAX))

        moves = await state.db.read_in_thread(find)
        return RebalancePlan(
            moves=len(moves),
            bytes=sum(each.length for each in moves),
            described=[
                PlannedMove(
                    chunk=each.chunk,
                    bytes=each.length,
                    source=each.source,
                    destination=each.destination,
                )
                for each in moves[:TOLD_MAX]
            ],
            disks=[
                DiskPlan(disk=disk, before=before[disk], after=fill.fraction(disk))
                for disk in sorted(fill.places)
            ],
            complete=len(moves) < PLANNED_MAX,
        )

    def policy_changed(self) -> None:
        """Chunks follow another policy now, or will soon: it is counted at once what that moves."""
        self._is_counted = False
        self._news.set()

    def may_move(self, policy: int) -> bool:
        """Are chunks of this policy misplaced, or is that not known since a policy was changed?"""
        return not self._is_counted or self._counts.get(policy, 0) > 0

    # -- automatically --------------------------------------------------------------------------

    async def run_forever(self) -> None:
        """Start a job when disks are too unevenly full, or policies want copies elsewhere."""
        clock = self._state.clock
        looked_s = clock()
        at_once = False
        while True:
            began_s = clock()
            self._news = trio.Event()
            walked = not policies.any_converging(self._state.db)
            places = self._places()
            self._counts = await self._state.db.read_in_thread(
                partial(misplaced.counts, places=places)
            )
            self.misplaced = sum(self._counts.values())
            self._is_counted = self._is_counted or (walked and not self._news.is_set())
            if at_once:
                await self._repair_has_been_first()
            else:
                with trio.move_on_after(max(COUNT_S, COUNT_SHARE * (clock() - began_s))):
                    await self._news.wait()
            at_once = self._news.is_set()
            if at_once:
                continue
            try:
                if self.misplaced:
                    await self._begin_if(SPREAD, partial(self._can_be_better, places))
                if clock() - looked_s >= IDLE_S:
                    looked_s = clock()
                    await self._begin_if(REBALANCE, self._is_uneven)
            except DFSError:
                continue  # the database can't be written now

    async def _repair_has_been_first(self) -> None:
        """What has too few copies gets them in the right places; for a while that is waited for."""
        with trio.move_on_after(COUNT_S):
            while self._must_wait() and not self._news.is_set():  # noqa: ASYNC110 - repair tells nobody
                await trio.sleep(STEP_S)

    async def _begin_if(self, kind: str, is_due: Callable[[Fill, Database], bool]) -> None:
        if self._must_wait() or self._jobs.find(kind) is not None:
            return
        # Now: in a thread there is no clock.
        fill = Fill.of(self._state.servers.candidates(self._state.clock()))
        if await self._state.db.read_in_thread(partial(is_due, fill)):
            await self._jobs.begin(kind, {})

    def _places(self) -> dict[int, Places]:
        servers = self._state.servers
        known = servers.domains(servers.known_disks())
        usable = servers.candidates(self._state.clock())
        every = self._state.policies.all()
        return {key: wanted_places(policy, known, usable) for key, policy in every.items()}

    def _is_uneven(self, fill: Fill, db: Database) -> bool:
        """Outside of the band, and something can be done about it."""
        band = self._state.config.rebalance_band
        balancing = Balancing(fill, band, lambda disk: self._on_disk(db, disk))
        return next(balancing.moves(1), None) is not None

    def _can_be_better(self, places: dict[int, Places], fill: Fill, db: Database) -> bool:
        """Is there a better place for any of the first misplaced chunks?"""
        found = misplaced.find(db, places, LOOKED_AT_PER_STEP)
        return any(self._better(db, each, fill) for each in found)

    def _better(self, db: Database, found: Found, fill: Fill) -> Move | None:
        movable = self._movable(db, *found)
        return better_place(movable, self._state.policies.of(found.policy), fill)

    def _must_wait(self) -> bool:
        """For repair; or because a server is suspect, or not heard yet since metad's start, and
        how full its disks are is not known."""
        servers, now = self._state.servers, self._state.clock()
        return self._endangered() > 0 or any(
            servers.state(each, now) == "suspect" for each in servers
        )

    # -- jobs -----------------------------------------------------------------------------------

    async def _rebalance_step(self, job: Job) -> Progress:
        self._moves.follow_up()
        if self._must_wait():
            return Progress(None, job.done, job.total, "waits for repair", pause_s=STEP_S)
        state = self._state
        fill = Fill.of(state.servers.candidates(state.clock()))
        self._moves.expect(fill)
        mean = fill.mean
        left = sum(
            max(int((fill.fraction(disk) - mean) * place.total_bytes), 0)
            for disk, place in fill.places.items()
        )
        room = self._moves.room
        moving = frozenset(self._moves.chunks)
        transfers = self._moves.transfers()

        def find(db: Database) -> tuple[list[Move], bool]:
            band = state.config.rebalance_band / 2
            balancing = Balancing(fill, band, lambda disk: self._on_disk(db, disk, moving))
            return that_fit(balancing.moves(room), transfers)

        found, are_all = await state.db.read_in_thread(find) if room > 0 else ([], False)
        done = job.done + sum(
            self._moves.begin(each) for each in found if self._moves.may_begin(each)
        )
        if not found and are_all and not self._moves:
            return Progress(None, done, done, "disks are as even as they can be", finished=True)
        return Progress(None, done, max(job.total, done + left), self._moves.text, pause_s=STEP_S)

    async def _spread_step(self, job: Job) -> Progress:
        """Look at some of the misplaced chunks that the last search has found."""
        self._moves.follow_up()
        if self._must_wait() or self._moves.room <= 0:
            text = "waits for repair" if self._must_wait() else "waits for its moves"
            return Progress(None, job.done, job.total, text, pause_s=STEP_S)
        if not self._found and not self._moves:
            places = self._places()
            self._found.extend(
                await self._state.db.read_in_thread(
                    lambda db: misplaced.find(db, places, FOUND_MAX)
                )
            )
            self._ordered = 0
        ordered = self._order_better_places()
        done = job.done + ordered
        self._ordered += ordered
        if not self._found and not self._moves and not self._ordered:
            return Progress(None, done, done, "copies are where they should be", finished=True)
        total = done + len(self._found)
        return Progress(None, done, total, self._moves.text, pause_s=STEP_S / 5)

    def _order_better_places(self) -> int:
        """How many moves were ordered."""
        state, ordered = self._state, 0
        fill = Fill.of(state.servers.candidates(state.clock()))
        transfers = self._moves.transfers()
        for _ in range(min(len(self._found), LOOKED_AT_PER_STEP)):
            if self._moves.room <= 0:
                break
            found = self._found[0]
            move = self._better(state.db, found, fill)
            if move is not None and not (transfers.fit(move.disks) and self._moves.may_begin(move)):
                break
            self._found.popleft()
            if move is not None and self._moves.begin(move, to_label=True):
                transfers.occupy(move.disks, move.length)
                ordered += 1
        return ordered

    def _on_disk(
        self, db: Database, disk: str, but: Collection[bytes] = frozenset()
    ) -> Iterator[Movable]:
        after = b""
        while rows := db.read(_PAGE, (disk, after, PAGE)):
            for chunk, length, policy in rows:
                if chunk not in but:
                    yield self._movable(db, chunk, length, policy)
            after = rows[-1][0]

    def _movable(self, db: Database, chunk: bytes, length: int, policy: int) -> Movable:
        return Movable(chunk, length, good_copies(db, chunk), self._state.policies.of(policy).label)


def that_fit(moves: Iterable[Move], transfers: Transfers) -> tuple[list[Move], bool]:
    """Those whose disks have time for them, and whether these are all."""
    fitting: list[Move] = []
    busy = 0
    for move in moves:
        if transfers.fit(move.disks):
            transfers.occupy(move.disks, move.length)
            fitting.append(move)
        elif (busy := busy + 1) == BUSY_MAX:
            break
    return fitting, not busy
