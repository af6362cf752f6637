"""Capability tokens: metad's leave for one party to do one thing with one chunk on one server.

metad mints them with a key that only it and that server have; the server checks them before it
touches a disk, and asks nobody.  A token is good for a chunk, an operation (reading, or writing
too), a holder (whose certificate is shown), the server whose key it was made with, and until a
moment of metad's time; the session it was given to and the cluster's epoch are in it too.  The MAC
is HMAC-SHA-256 (RFC 2104), cut to 16 bytes.  Pure.

    version 1 | operation 1 | key id 8 | ends at, Unix seconds 4 | session tag 8 | MAC 16
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field

from dfswire.identity import Identity

VERSION = 1
READ, WRITE = 1, 2
"""What a token is good for: who may write a chunk may read it, too."""

SECRET_BYTES = 32
TAG_BYTES = 8
MAC_BYTES = 16
_HEAD = struct.Struct(">BBQL8s")
TOKEN_BYTES = _HEAD.size + MAC_BYTES
_DOMAIN = b"dfs token 1\0"


@dataclass(frozen=True)
class Key:
    """What one server checks tokens with, and metad makes them with.  `epoch` is the cluster's."""

    key_id: int
    secret: bytes = field(repr=False)
    epoch: int


@dataclass(frozen=True)
class Leave:
    """What a token says."""

    operation: int
    chunk: bytes
    holder: str
    session: bytes
    ends_s: int


def holder_of(caller: Identity | None) -> str:
    """How a party stands in its tokens; empty without TLS."""
    return "" if caller is None else f"{caller.role}/{caller.name}"


def session_tag(session: str) -> bytes:
    """What tells sessions apart in tokens, and is of no use to whoever reads it there."""
    return hashlib.blake2b(session.encode(), digest_size=TAG_BYTES, person=b"dfs session").digest()


def mint(key: Key, leave: Leave) -> bytes:
    """The token."""
    head = _HEAD.pack(VERSION, leave.operation, key.key_id, leave.ends_s, leave.session)
    return head + _mac(key, head, leave.chunk, leave.holder)


def key_id_of(token: bytes) -> int | None:
    """With which key it was made, as it says; None for what is no token of this version."""
    if len(token) != TOKEN_BYTES or token[0] != VERSION:
        return None
    key_id: int = _HEAD.unpack_from(token)[2]
    return key_id


def check(key: Key, token: bytes, chunk: bytes, holder: str) -> Leave | None:
    """What it gives leave for, if it is right: for this chunk and holder, and made with this key.

    Whether it is over, and good for what is wanted, is for the caller to compare.
    """
    if key_id_of(token) != key.key_id:
        return None
    head, mac = token[: _HEAD.size], token[_HEAD.size :]
    if not hmac.compare_digest(mac, _mac(key, head, chunk, holder)):
        return None
    _version, operation, _key_id, ends_s, session = _HEAD.unpack(head)
    return Leave(operation, chunk, holder, session, ends_s)


def _mac(key: Key, head: bytes, chunk: bytes, holder: str) -> bytes:
    # Each part but the last has a fixed length, so no two sets of parts look the same.
    text = _DOMAIN + key.epoch.to_bytes(8, "big") + head + chunk + holder.encode()
    return hmac.digest(key.secret, text, "sha256")[:MAC_BYTES]
