"""The keys of tokens: a server gets one when it registers, and another one every hour.

Keys are in memory only, here and at the server: whoever has the database, or its journal, cannot
make tokens.  After a restart of either side the server registers, and gets a new one.  One that is
sent with a heartbeat is used when the server has said that it has it.  Servers that know no tokens
get no keys, and nobody gets tokens for them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from dfswire import tokens
from dfswire.daemon import CALLER
from dfswire.hosts import TokenKey
from dfswire.messages import ChunkLocation, Replica
from dfswire.orders import Order, Piece
from dfswire.tokens import READ, WRITE, Key, Leave

ROTATE_S = 3600.0
READ_S = 60.0  # readers ask for new ones after half of it
ORDER_S = 3600.0  # orders wait in the queues of busy servers
WRITE_SPARE_S = 60.0  # beyond the end of the grant


@dataclass
class _Keys:
    """Of one server."""

    current: Key
    since_s: float
    following: Key | None = None


class TokenKeys:
    """Of all servers; makes tokens for whoever is being answered.  `on`: chunkds ask for them."""

    def __init__(
        self,
        rng: random.Random,
        epoch: int,
        *,
        on: bool,
        clock: Callable[[], float],
        wall_ns: Callable[[], int],
        server_of: Callable[[str], str],
    ) -> None:
        """`server_of`: the id of the server that has a disk; empty when nobody knows."""
        self._rng = rng
        self._epoch = epoch
        self.on = on
        self._clock = clock
        self._wall_ns = wall_ns
        self._server_of = server_of
        self._keys: dict[str, _Keys] = {}

    @property
    def good_for_s(self) -> float:
        """How long the tokens of a reader are good; 0: there are none."""
        return READ_S if self.on else 0.0

    # keys

    def registered(self, server_id: str, *, knows_tokens: bool) -> TokenKey | None:
        """A server starts, or metad has: what it is sent."""
        if not self.on or not knows_tokens:
            self._keys.pop(server_id, None)
            return None
        key = self._draw()
        self._keys[server_id] = _Keys(key, self._clock())
        return self._message(key)

    def heard(self, server_id: str, has: int) -> TokenKey | None:
        """A heartbeat of a server whose newest key is `has`; what it is sent, if anything."""
        keys = self._keys.get(server_id)
        if keys is None:
            return None
        if keys.following is not None and has == keys.following.key_id:
            keys.current, keys.since_s, keys.following = keys.following, self._clock(), None
        elif has != keys.current.key_id:
            # The answer to a registration was lost; or it was a late copy, and nobody waited.
            return self._message(keys.current)
        if keys.following is None and self._clock() - keys.since_s >= ROTATE_S:
            keys.following = self._draw()
        return None if keys.following is None else self._message(keys.following)

    def _draw(self) -> Key:
        secret = self._rng.randbytes(tokens.SECRET_BYTES)
        return Key(self._rng.getrandbits(63), secret, self._epoch)

    def _message(self, key: Key) -> TokenKey:
        now_s = self._wall_ns() / 1e9
        return TokenKey(key_id=key.key_id, secret=key.secret, epoch=key.epoch, now_s=now_s)

    # tokens

    def for_reading(self, location: ChunkLocation, session: str) -> ChunkLocation:
        """The location, with tokens for whoever is being answered."""
        if not self.on:
            return location
        return msgspec.structs.replace(
            location,
            replicas=self._with_tokens(location.chunk, location.replicas, READ, READ_S, session),
            damaged=self._with_tokens(location.chunk, location.damaged, READ, READ_S, session),
        )

    def for_writing(
        self, chunk: bytes, targets: list[Replica], session: str, lives_s: float
    ) -> list[Replica]:
        """The targets of a grant, likewise: good for a little longer than the grant."""
        lives_s += WRITE_SPARE_S
        return self._with_tokens(chunk, targets, WRITE, lives_s, session) if self.on else targets

    def for_orders(self, orders: Iterable[Order]) -> list[Order]:
        """The orders, with tokens for the server that is being answered to get their sources."""
        return [self._order(each) for each in orders] if self.on else list(orders)

    def _order(self, order: Order) -> Order:
        if not order.sources and not order.pieces:
            return order
        return msgspec.structs.replace(
            order,
            sources=self._with_tokens(order.chunk, order.sources, READ, ORDER_S, ""),
            pieces=[self._piece(each) for each in order.pieces],
        )

    def _piece(self, piece: Piece) -> Piece:
        sources = self._with_tokens(piece.chunk, piece.sources, READ, ORDER_S, "")
        return msgspec.structs.replace(piece, sources=sources)

    def _with_tokens(
        self, chunk: bytes, replicas: list[Replica], operation: int, lives_s: float, session: str
    ) -> list[Replica]:
        leave = Leave(
            operation,
            chunk,
            tokens.holder_of(CALLER.get()),
            tokens.session_tag(session),
            int(self._wall_ns() / 1e9 + lives_s),
        )
        return [self._with_token(each, leave) for each in replicas]

    def _with_token(self, replica: Replica, leave: Leave) -> Replica:
        keys = self._keys.get(self._server_of(replica.disk))
        if keys is None:
            return replica
        return msgspec.structs.replace(replica, token=tokens.mint(keys.current, leave))
