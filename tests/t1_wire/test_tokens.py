"""Tokens: right for exactly what they were made for, and for nothing else, whatever is changed."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfswire import tokens
from dfswire.identity import Identity
from dfswire.tokens import READ, SECRET_BYTES, TOKEN_BYTES, WRITE, Key, Leave

KEY = Key(7, b"k" * SECRET_BYTES, 1)
LEAVE = Leave(READ, b"c" * 16, "client/desk", tokens.session_tag("s"), 2_000_000_000)
TOKEN = tokens.mint(KEY, LEAVE)

leaves = st.builds(
    Leave,
    st.sampled_from([READ, WRITE]),
    st.binary(min_size=16, max_size=16),
    st.text(max_size=40),
    st.binary(min_size=8, max_size=8),
    st.integers(0, 2**32 - 1),
)
keys = st.builds(
    Key,
    st.integers(0, 2**63 - 1),
    st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES),
    st.integers(1, 2**63 - 1),
)


@given(keys, leaves)
def test_it_says_what_it_was_made_for(key: Key, leave: Leave) -> None:
    token = tokens.mint(key, leave)
    assert len(token) == TOKEN_BYTES
    assert tokens.key_id_of(token) == key.key_id
    assert tokens.check(key, token, leave.chunk, leave.holder) == leave


@pytest.mark.parametrize("bit", range(8 * TOKEN_BYTES))
def test_every_bit_counts(bit: int) -> None:
    """The operation, the end, the session and the key are in the token itself."""
    forged = bytearray(TOKEN)
    forged[bit // 8] ^= 1 << bit % 8
    assert tokens.check(KEY, bytes(forged), LEAVE.chunk, LEAVE.holder) is None


@pytest.mark.parametrize("length", [0, 1, TOKEN_BYTES - 1, TOKEN_BYTES + 1, 1000])
def test_what_is_no_token(length: int) -> None:
    token = (TOKEN * 30)[:length]
    assert tokens.key_id_of(token) is None
    assert tokens.check(KEY, token, LEAVE.chunk, LEAVE.holder) is None


def test_it_is_for_one_chunk_and_one_holder() -> None:
    assert tokens.check(KEY, TOKEN, b"d" * 16, LEAVE.holder) is None
    for holder in ("", "client/desk2", "chunkd/desk", "client/des"):
        assert tokens.check(KEY, TOKEN, LEAVE.chunk, holder) is None


def test_it_is_for_one_server_and_one_epoch() -> None:
    """Another server has another secret; after a restore the same one would not do either."""
    for other in (
        dataclasses.replace(KEY, secret=b"x" * SECRET_BYTES),
        dataclasses.replace(KEY, epoch=2),
        dataclasses.replace(KEY, key_id=8),
    ):
        assert tokens.check(other, TOKEN, LEAVE.chunk, LEAVE.holder) is None


def test_holders_are_parties() -> None:
    assert tokens.holder_of(Identity("lab", "client", "desk")) == "client/desk"
    assert tokens.holder_of(None) == ""


def test_the_session_itself_is_not_told() -> None:
    assert tokens.session_tag("secret") != tokens.session_tag("secret2")
    assert b"secret" not in tokens.session_tag("secret")


def test_secrets_are_not_shown() -> None:
    assert "kkk" not in repr(KEY)
