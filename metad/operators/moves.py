"""Moves under way: each is a copy to make, and an old copy to give up when the new one is booked.

moving.py decides what moves; here a move is begun, counted in how full disks will be, and followed
until the figures of both disks show it.  The old copy is given up by trim.py, which verifies first
that the others suffice: so no move ever lowers redundancy, and one that is interrupted leaves a
copy too many at worst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set

from metad.copies import replicas
from metad.jobs.rebalance import Fill, Move
from metad.state import State
from metad.storage.database import Database
from metad.upkeep.rates import Throttle
from metad.upkeep.transfers import RepairLimits, Transfers

MOVES_MAX = 512  # under way at once, most of them until their old copies are gone


class Moves:
    """`give_up` asks trim.py to drop a copy; `throttle` and `limits` are repair's: together they
    copy no faster than that, and no disk has more to do."""

    def __init__(
        self,
        state: State,
        give_up: Callable[[bytes, str], None],
        throttle: Throttle,
        limits: RepairLimits,
    ) -> None:
        self._state = state
        self._give_up = give_up
        self._throttle = throttle
        self._limits = limits
        self._to_label: set[bytes] = set()
        self._under_way: dict[bytes, Move] = {}  # until the figures of both disks show it

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def chunks(self) -> Set[bytes]:
        """Of which a copy moves."""
        return self._under_way.keys()

    @property
    def room(self) -> int:
        """How many more may be under way."""
        return MOVES_MAX - len(self._under_way)

    @property
    def text(self) -> str:
        """What a job says of them."""
        text = f"{len(self._under_way)} moves are under way"
        rates = [
            f"{bytes_per_s / 1e6:g} MB/s {of}"
            for bytes_per_s, of in self._throttle.rates
            if bytes_per_s
        ]
        return f"{text}, at {' and '.join(rates)} at most" if rates else text

    def transfers(self) -> Transfers:
        """What the disks have to do now."""
        return Transfers.of_copies(self._limits, self._state.servers.orders.copies())

    def may_begin(self, move: Move) -> bool:
        """By the rates: looked at for each, as those before it have spent of them."""
        return self._throttle.allows(move.disks, self._state.clock())

    def begin(self, move: Move, *, to_label: bool = False) -> int:
        """Order the copy; its bytes, or 0 when it can't be had now.

        `to_label`: the copy moves to where its policy's label is.
        """
        state, now = self._state, self._state.clock()
        stored = replicas.chunk_info(state.db, move.chunk)
        if stored is None or stored.state != replicas.LIVE or move.chunk in self._under_way:
            return 0
        disks = good_copies(state.db, move.chunk)
        alive = [disk for disk in disks if state.servers.disk_state(disk, now) == "up"]
        if move.source not in disks or not alive:
            return 0
        # The source first: it is its time that is spent.
        sources = sorted(
            state.servers.replicas(alive, now), key=lambda each: each.disk != move.source
        )
        ordered = state.servers.orders.add(
            "copy",
            move.chunk,
            move.destination,
            length=stored.length,
            digest=stored.digest,
            sources=sources,
        )
        if not ordered:
            return 0
        self._under_way[move.chunk] = move
        if to_label:
            self._to_label.add(move.chunk)
        self._throttle.spend(move.disks, move.length, now)
        return move.length

    def expect(self, fill: Fill) -> None:
        """What the figures of the disks do not show yet.

        The heartbeat that tells of a copy that was made or deleted has figures with it.
        """
        for chunk, move in self._under_way.items():
            states = dict(replicas.replicas_of(self._state.db, chunk))
            if states.get(move.destination) != replicas.GOOD:
                fill.arrive(move)
            if move.source in states:
                fill.leave(move)

    def follow_up(self) -> None:
        """Ask for the old copies of moves whose new one is booked; forget those that are over."""
        servers, now = self._state.servers, self._state.clock()
        ordered = {(each.chunk, each.disk) for each in servers.orders.copies()}
        self._to_label.intersection_update(self._under_way)
        for chunk, move in list(self._under_way.items()):
            states = dict(replicas.replicas_of(self._state.db, chunk))
            if states.get(move.destination) != replicas.GOOD:
                over = (chunk, move.destination) not in ordered
            elif servers.disk_state(move.source, now) == "down":
                over = True  # its copies are too many when it returns, and that is seen to
            elif states.get(move.source) == replicas.GOOD:
                self._give_up(chunk, move.source)
                # No copy without the label goes before there are enough with it.
                over = chunk in self._to_label or not self._is_abundant(chunk)
            else:
                over = move.source not in states
            if over:
                del self._under_way[chunk]

    def _is_abundant(self, chunk: bytes) -> bool:
        """Are there more copies than wanted?  Not if one was lost or is away since the move began,
        and none of a chunk that nobody needs any more."""
        state = self._state
        stored = replicas.chunk_info(state.db, chunk)
        if stored is None or stored.state != replicas.LIVE:
            return False
        living = state.servers.live_disks(state.clock()).intersection(good_copies(state.db, chunk))
        return len(living) > state.policies.of(stored.policy).replicas


def good_copies(db: Database, chunk: bytes) -> list[str]:
    """The disks with a good copy of a chunk."""
    rows: Iterable[tuple[str, str]] = replicas.replicas_of(db, chunk)
    return [disk for disk, state in rows if state == replicas.GOOD]
