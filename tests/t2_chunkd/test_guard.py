"""Who is let near a chunk: the guard of a server, with keys of a metad that is played here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from trio.testing import MockClock

from chunkd.guard import KEYS_MAX, Guard
from dfswire import tokens
from dfswire.daemon import CALLER
from dfswire.errors import TokenRefused, Unavailable
from dfswire.hosts import TokenKey
from dfswire.identity import Identity
from dfswire.tokens import READ, WRITE, Key, Leave

NOW_S = 1_700_000_000.0
CHUNK, OTHER = b"c" * 16, b"d" * 16
DESK = Identity("lab", "client", "desk")
STORE = Identity("lab", "chunkd", "store1")
ANNA = Identity("lab", "operator", "anna")


class Metad:
    """Has keys for a server."""

    def __init__(self, epoch: int = 1) -> None:
        self.epoch = epoch
        self.keys: list[Key] = []

    def key(self, now_s: float = NOW_S) -> TokenKey:
        key = Key(len(self.keys) + 1 + 100 * self.epoch, bytes([len(self.keys)]) * 32, self.epoch)
        self.keys.append(key)
        return TokenKey(key_id=key.key_id, secret=key.secret, epoch=key.epoch, now_s=now_s)

    def token(
        self,
        operation: int = READ,
        *,
        chunk: bytes = CHUNK,
        holder: Identity | None = DESK,
        ends_s: float = NOW_S + 60,
        key: int = -1,
    ) -> bytes:
        leave = Leave(operation, chunk, tokens.holder_of(holder), bytes(8), int(ends_s))
        return tokens.mint(self.keys[key], leave)


@contextmanager
def called_by(caller: Identity | None) -> Iterator[None]:
    token = CALLER.set(caller)
    try:
        yield
    finally:
        CALLER.reset(token)


@pytest.fixture
def metad() -> Metad:
    return Metad()


@pytest.fixture
def guard(metad: Metad) -> Guard:
    """One whose clock is years behind metad's, which it does not ask."""
    guard = Guard(closed=True, clock=lambda: guard_clock[0])
    guard_clock[0] = 5.0
    guard.registered(metad.key())
    return guard


guard_clock = [0.0]


def refused(guard: Guard, token: bytes, caller: Identity | None = DESK) -> str:
    with called_by(caller), pytest.raises(TokenRefused) as problem:
        guard.check_read(CHUNK, token)
    return str(problem.value)


def test_before_metad_was_asked_nobody_is_answered() -> None:
    guard = Guard(closed=True, clock=lambda: 0.0)
    with called_by(DESK):
        for check in (
            lambda: guard.check_read(CHUNK, b""),
            lambda: guard.check_write(CHUNK, b"", ""),
            lambda: guard.check_sync([CHUNK], []),
            lambda: guard.check_verify(CHUNK, b""),
        ):
            with pytest.raises(Unavailable, match="not heard from metad"):
                check()
        guard.registered(None)
        guard.check_read(CHUNK, b"")


def test_without_keys_roles_are_all_there_is(guard: Guard, metad: Metad) -> None:
    guard.registered(None)  # of a metad that uses no tokens
    with called_by(DESK):
        guard.check_read(CHUNK, b"")
        guard.check_sync([CHUNK], [])
        assert guard.check_write(CHUNK, b"", "client/other") == "client/desk"
    assert guard.newest == 0


def test_reading_takes_a_token(guard: Guard, metad: Metad) -> None:
    with called_by(DESK):
        guard.check_read(CHUNK, metad.token())
        guard.check_read(CHUNK, metad.token(WRITE))
        guard.check_verify(CHUNK, metad.token())
    assert refused(guard, b"") == "no token"
    assert "not for this" in refused(guard, metad.token(chunk=OTHER))
    assert "not for this" in refused(guard, metad.token(), STORE)
    assert "not for this" in refused(guard, metad.token(), None)
    forged = bytearray(metad.token())
    forged[-1] ^= 1
    assert "not for this" in refused(guard, bytes(forged))
    assert "not known here" in refused(guard, b"x" * len(forged))


def test_a_token_ends_by_metads_clock(guard: Guard, metad: Metad) -> None:
    token = metad.token(ends_s=NOW_S + 10)
    guard_clock[0] += 9.5
    with called_by(DESK):
        guard.check_read(CHUNK, token)
    guard_clock[0] += 1
    assert refused(guard, token) == "the token is over"
    # metad's clock was set back since: it says so with the next key.
    guard.adopt(metad.key(NOW_S))
    with called_by(DESK):
        guard.check_read(CHUNK, token)


def test_writing_takes_another_one(guard: Guard, metad: Metad) -> None:
    with called_by(DESK):
        assert guard.check_write(CHUNK, metad.token(WRITE), "") == "client/desk"
        with pytest.raises(TokenRefused, match="another operation"):
            guard.check_write(CHUNK, metad.token(READ), "")
        # A client speaks for nobody else.
        other = Identity("lab", "client", "other")
        with pytest.raises(TokenRefused, match="not for this"):
            guard.check_write(CHUNK, metad.token(WRITE, holder=other), "client/other")


def test_a_chunkd_passes_on_for_whom_it_names(guard: Guard, metad: Metad) -> None:
    with called_by(STORE):
        assert guard.check_write(CHUNK, metad.token(WRITE), "client/desk") == "client/desk"
        with pytest.raises(TokenRefused, match="not for this"):
            guard.check_write(CHUNK, metad.token(WRITE), "client/other")
        # What was given to a client does not let a chunkd read.
        with pytest.raises(TokenRefused, match="not for this"):
            guard.check_read(CHUNK, metad.token())


def test_syncing_takes_any_token_of_any_age(guard: Guard, metad: Metad) -> None:
    chunks = [CHUNK, OTHER]
    given = [metad.token(WRITE, ends_s=1), metad.token(READ, chunk=OTHER, ends_s=1)]
    with called_by(DESK):
        guard.check_sync(chunks, given)
        for wrong in ([], given[:1], given[::-1], [given[0], b""]):
            with pytest.raises(TokenRefused):
                guard.check_sync(chunks, wrong)
    with called_by(STORE), pytest.raises(TokenRefused):
        guard.check_sync(chunks, given)


def test_operators_verify_without(guard: Guard, metad: Metad) -> None:
    for caller in (ANNA, None):
        with called_by(caller):
            guard.check_verify(CHUNK, b"")
    with called_by(STORE), pytest.raises(TokenRefused, match="no token"):
        guard.check_verify(CHUNK, b"")


def test_the_last_keys_are_good(guard: Guard, metad: Metad) -> None:
    for _ in range(KEYS_MAX):
        guard.adopt(metad.key())
    assert guard.newest == metad.keys[-1].key_id
    with called_by(DESK):
        for key in range(-1, -1 - KEYS_MAX, -1):
            guard.check_read(CHUNK, metad.token(key=key))
    assert "not known here" in refused(guard, metad.token(key=0))


def test_a_key_that_comes_twice_counts_once(guard: Guard, metad: Metad) -> None:
    second = metad.key()
    for _ in range(KEYS_MAX):
        guard.adopt(second)
    with called_by(DESK):
        guard.check_read(CHUNK, metad.token(key=0))


def test_no_key_of_an_older_epoch_is_good(guard: Guard, metad: Metad) -> None:
    before = metad.token()
    restored = Metad(epoch=2)
    guard.registered(restored.key())
    assert "not known here" in refused(guard, before)
    with called_by(DESK):
        guard.check_read(CHUNK, restored.token())


def test_a_token_of_another_server(guard: Guard, metad: Metad) -> None:
    elsewhere = Metad()
    elsewhere.keys = [Key(metad.keys[0].key_id, b"another secret, as long as the 1st", 1)]
    assert "not for this" in refused(guard, elsewhere.token())


def test_refusals_are_logged_once_a_second(
    guard: Guard, metad: Metad, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(5):
        refused(guard, b"")
    assert [each.getMessage() for each in caplog.records] == ["client desk is refused: no token"]
    guard_clock[0] += 1
    refused(guard, b"", None)
    assert caplog.records[-1].getMessage() == "a caller is refused: no token"


def test_the_clock_is_trios(autojump_clock: MockClock) -> None:
    assert Guard().newest == 0
