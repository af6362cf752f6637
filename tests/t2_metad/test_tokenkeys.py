"""The keys of servers, as metad has them: who gets one, when another, and what tokens say."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from dfswire import tokens
from dfswire.daemon import CALLER
from dfswire.identity import Identity
from dfswire.messages import ChunkLocation, Replica
from dfswire.orders import Order, Piece
from dfswire.tokens import READ, WRITE, Key, Leave
from metad.hosts.tokenkeys import ORDER_S, READ_S, ROTATE_S, WRITE_SPARE_S, TokenKeys

WALL_S = 1_700_000_000
CHUNK = b"c" * 16
DISKS = {"d1": "s1", "d2": "s2"}
DESK = Identity("lab", "client", "desk")


class Clock:
    now_s = 0.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(clock: Clock) -> TokenKeys:
    return make(clock)


def make(clock: Clock, *, on: bool = True) -> TokenKeys:
    return TokenKeys(
        random.Random(1),
        3,
        on=on,
        clock=lambda: clock.now_s,
        wall_ns=lambda: WALL_S * 10**9,
        server_of=lambda disk: DISKS.get(disk, ""),
    )


@pytest.fixture(autouse=True)
def _caller() -> Iterator[None]:
    token = CALLER.set(DESK)
    yield
    CALLER.reset(token)


def replica(disk: str) -> Replica:
    return Replica(disk=disk, address=f"{disk}:1")


def key_of(keys: TokenKeys, server_id: str) -> Key:
    message = keys.registered(server_id, knows_tokens=True)
    assert message is not None and message.now_s == WALL_S
    return Key(message.key_id, message.secret, message.epoch)


def test_servers_have_keys_of_their_own(keys: TokenKeys) -> None:
    one, other = key_of(keys, "s1"), key_of(keys, "s2")
    assert one.secret != other.secret and one.key_id != other.key_id
    assert one.epoch == 3
    assert key_of(keys, "s1") != one  # started again


def test_who_knows_no_tokens_gets_none(keys: TokenKeys) -> None:
    """An older chunkd; one that was newer before, too."""
    key_of(keys, "s1")
    assert keys.registered("s1", knows_tokens=False) is None
    assert keys.heard("s1", 0) is None
    location = ChunkLocation(chunk=CHUNK, length=1, replicas=[replica("d1")])
    assert keys.for_reading(location, "s").replicas == [replica("d1")]


def test_off_is_as_it_was(clock: Clock) -> None:
    keys = make(clock, on=False)
    assert keys.registered("s1", knows_tokens=True) is None
    location = ChunkLocation(chunk=CHUNK, length=1, replicas=[replica("d1")])
    assert keys.for_reading(location, "s") is location
    assert keys.for_writing(CHUNK, location.replicas, "s", 1.0) is location.replicas
    assert keys.good_for_s == 0


def test_another_key_every_hour_used_when_the_server_has_it(keys: TokenKeys, clock: Clock) -> None:
    first = key_of(keys, "s1")
    clock.now_s += ROTATE_S - 1
    assert keys.heard("s1", first.key_id) is None
    clock.now_s += 1
    second = keys.heard("s1", first.key_id)
    assert second is not None and second.key_id != first.key_id
    # Its way there was lost: it comes again, and is not used before it is there.
    assert keys.heard("s1", first.key_id) == second
    assert tokens.key_id_of(read_token(keys)) == first.key_id
    assert keys.heard("s1", second.key_id) is None
    assert tokens.key_id_of(read_token(keys)) == second.key_id
    assert keys.heard("unknown", 0) is None


def test_a_server_that_did_not_get_its_key_is_sent_it_again(keys: TokenKeys, clock: Clock) -> None:
    """A late copy of its registration has come, and the answer to that went to nobody."""
    first = key_of(keys, "s1")
    second = key_of(keys, "s1")
    for has in (first.key_id, 0):
        again = keys.heard("s1", has)
        assert again is not None and again.key_id == second.key_id
    assert keys.heard("s1", second.key_id) is None


def read_token(keys: TokenKeys) -> bytes:
    location = ChunkLocation(chunk=CHUNK, length=1, replicas=[replica("d1")])
    return keys.for_reading(location, "s").replicas[0].token


def test_what_tokens_say(keys: TokenKeys) -> None:
    one, other = key_of(keys, "s1"), key_of(keys, "s2")
    location = ChunkLocation(
        chunk=CHUNK, length=1, replicas=[replica("d1")], damaged=[replica("d2"), replica("gone")]
    )
    told = keys.for_reading(location, "s")
    reading = Leave(READ, CHUNK, "client/desk", tokens.session_tag("s"), WALL_S + int(READ_S))
    assert tokens.check(one, told.replicas[0].token, CHUNK, "client/desk") == reading
    assert tokens.check(other, told.damaged[0].token, CHUNK, "client/desk") == reading
    assert told.damaged[1].token == b""
    (target,) = keys.for_writing(CHUNK, [replica("d2")], "s", 600.0)
    ends_s = WALL_S + int(600 + WRITE_SPARE_S)
    writing = Leave(WRITE, CHUNK, "client/desk", tokens.session_tag("s"), ends_s)
    assert tokens.check(other, target.token, CHUNK, "client/desk") == writing


def test_orders_have_tokens_for_their_sources(keys: TokenKeys) -> None:
    CALLER.set(Identity("lab", "chunkd", "store2"))
    one = key_of(keys, "s1")
    piece = Piece(length=1, chunk=b"p" * 16, chunk_length=1, sources=[replica("d1")])
    copy = Order(order_id=1, kind="copy", chunk=CHUNK, disk="d2", sources=[replica("d1")])
    made = Order(order_id=2, kind="assemble", chunk=CHUNK, disk="d2", pieces=[piece])
    gone = Order(order_id=3, kind="delete", chunk=CHUNK, disk="d2")
    told = keys.for_orders([copy, made, gone])
    ends_s = WALL_S + int(ORDER_S)
    for chunk, source in (
        (CHUNK, told[0].sources[0]),
        (b"p" * 16, told[1].pieces[0].sources[0]),
    ):
        leave = tokens.check(one, source.token, chunk, "chunkd/store2")
        assert leave is not None and (leave.operation, leave.ends_s) == (READ, ends_s)
    assert told[2] is gone
    assert copy.sources[0].token == b""  # what waits in the queue has none
