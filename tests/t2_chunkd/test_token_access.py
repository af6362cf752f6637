"""The access matrix of tokens: each call about a chunk, with each kind of wrong token, is refused.

Generated from the call table: a call of chunkd that is in neither table here fails the test.  The
requests go to the handlers of a real chunkd, as if from a connection on which the caller has proved
who it is; what is refused touches no chunk.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio

from dfswire import codec, tokens
from dfswire.calls import MESSAGE_HEADER, Call, by_path
from dfswire.chunks import (
    ReadChunk,
    SyncChunks,
    VerifyChunk,
    WriteChunk,
    block_checksums,
    chunk_digest,
)
from dfswire.dispatch import Response
from dfswire.hosts import TokenKey
from dfswire.identity import Identity
from dfswire.messages import Fault
from dfswire.tokens import READ, WRITE, Key, Leave
from dfswire.verify import SalvageChunk
from tests.fakes import DirectTransport
from tests.t2_chunkd.servers import ChunkServer

NOW_S = 1_700_000_000
CHUNK, OTHER, NEW = b"c" * 16, b"d" * 16, b"n" * 16
DATA = b"x" * 1000
OURS, OLDER = Key(1, b"k" * 32, 2), Key(2, b"o" * 32, 1)
DESK = Identity("lab", "client", "desk")
STORE = Identity("lab", "chunkd", "store2")
DISK = "one"
CALLS = {call.name: call for call in by_path("chunkd").values()}


def write(token: bytes) -> WriteChunk:
    checksums = block_checksums(NEW, DATA)
    return WriteChunk(chunk=NEW, length=len(DATA), checksums=checksums, disk=DISK, token=token)


def read(token: bytes) -> ReadChunk:
    return ReadChunk(chunk=CHUNK, disk=DISK, offset=0, length=len(DATA), token=token)


def sync(token: bytes) -> SyncChunks:
    return SyncChunks(chunks=[CHUNK], tokens=[token] if token else [])


def verify(token: bytes) -> VerifyChunk:
    return VerifyChunk(chunk=CHUNK, disk=DISK, token=token)


def salvage(token: bytes) -> SalvageChunk:
    digest = chunk_digest(CHUNK, len(DATA), block_checksums(CHUNK, DATA))
    return SalvageChunk(chunk=CHUNK, disk=DISK, length=len(DATA), digest=digest, token=token)


# Call -> its request, who makes it, what it takes.
GUARDED: dict[str, tuple[Callable[[bytes], Any], Identity, int]] = {
    "chunk.write": (write, DESK, WRITE),
    "chunk.read": (read, DESK, READ),
    "chunk.sync": (sync, DESK, READ),
    "chunk.verify": (verify, DESK, READ),
    "chunk.salvage": (salvage, STORE, READ),
}
# Call -> why it takes no token.
FREE = {
    "chunkd.hello": "says who is there, and nothing else",
    "journal.files": "of operators: whoever restores metad has nobody to ask for tokens",
    "journal.read": "likewise",
}


def minted(call: str, key: Key = OURS, **other: Any) -> bytes:
    """A token that is right for a call, but for what is said otherwise."""
    _, caller, operation = GUARDED[call]
    leave = {
        "operation": operation,
        "chunk": NEW if call == "chunk.write" else CHUNK,
        "holder": tokens.holder_of(caller),
        "session": bytes(8),
        "ends_s": NOW_S + 60,
    }
    return tokens.mint(key, Leave(**{**leave, **other}))


def flipped(token: bytes, at: int) -> bytes:
    return token[:at] + bytes([token[at] ^ 1]) + token[at + 1 :]


WRONG: dict[str, Callable[[str], bytes]] = {
    "none": lambda call: b"",
    "cut off": lambda call: minted(call)[:-1],
    "garbage": lambda call: b"g" * tokens.TOKEN_BYTES,
    "for another chunk": lambda call: minted(call, chunk=OTHER),
    "for another holder": lambda call: minted(call, holder="client/thief"),
    "for nobody": lambda call: minted(call, holder=""),
    "with an unknown key": lambda call: minted(call, Key(9, b"k" * 32, 2)),
    "of another server": lambda call: minted(call, Key(1, b"s" * 32, 2)),
    "of an older epoch": lambda call: minted(call, Key(1, b"k" * 32, 1)),
    "of a key before a restore": lambda call: minted(call, OLDER),
    "end changed": lambda call: flipped(minted(call), 13),
    "session changed": lambda call: flipped(minted(call), 20),
    "operation changed": lambda call: flipped(minted(call), 1),
    "MAC changed": lambda call: flipped(minted(call), tokens.TOKEN_BYTES - 1),
    # But for syncing, which harms nobody.
    "over": lambda call: minted(call, ends_s=NOW_S - 1),
    "stolen": minted,
    "to read only": lambda call: minted(call, operation=READ),
}
CASES = [
    (call, kind)
    for call in GUARDED
    for kind in WRONG
    if (call, kind) != ("chunk.sync", "over") and (call == "chunk.write" or kind != "to read only")
]


class Body:
    """A request's body in memory."""

    def __init__(self, data: bytes) -> None:
        self.data, self.length = data, len(data)

    async def receive_into(self, buffer: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        taken, self.data = self.data[: len(buffer)], self.data[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


@pytest.fixture
async def server() -> ChunkServer:
    """With a chunk, and the key of a metad that was restored once."""
    server = ChunkServer(DISK, DirectTransport({}))
    server.store.write(CHUNK, DATA, block_checksums(CHUNK, DATA), True)
    for key in (OLDER, OURS):
        message = TokenKey(key_id=key.key_id, secret=key.secret, epoch=key.epoch, now_s=NOW_S)
        server.service.heartbeat._guard.registered(message)
    return server


async def asked(server: ChunkServer, call: Call, request: Any, caller: Identity) -> Response:
    headers, body = {}, codec.encode(request, codec.MSGPACK)
    if call.request_body:
        headers = {MESSAGE_HEADER.lower(): codec.to_header(request).decode()}
        body = DATA
    return await server.dispatcher.dispatch(
        call.method, call.path, headers, Body(body), caller, b"shown"
    )


@pytest.mark.parametrize(("name", "kind"), CASES)
async def test_wrong_tokens_are_refused(server: ChunkServer, name: str, kind: str) -> None:
    request, caller, _ = GUARDED[name]
    role = caller.role
    thief = Identity("lab", role, "thief")
    response = await asked(
        server,
        CALLS[name],
        request(WRONG[kind](name)),
        thief if kind == "stolen" else caller,
    )
    assert isinstance(response.body, bytes)
    assert codec.decode(Fault, response.body).code == "token_refused"
    assert response.status == 403
    assert set(server.store.files) == {CHUNK}


@pytest.mark.parametrize("name", GUARDED)
async def test_the_right_one_will_do(server: ChunkServer, name: str) -> None:
    request, caller, _ = GUARDED[name]
    response = await asked(server, CALLS[name], request(minted(name)), caller)
    assert response.status == 200
    assert (NEW in server.store.files) == (name == "chunk.write")


async def test_a_replayed_one_does_what_was_done_already(server: ChunkServer) -> None:
    """A chunk never changes: who writes it again, with the same token, finds it there."""
    request, caller, _ = GUARDED["chunk.write"]
    for _ in range(2):
        response = await asked(server, CALLS["chunk.write"], request(minted("chunk.write")), caller)
        assert response.status == 200
    changed = msgspec.structs.replace(
        request(minted("chunk.write")), checksums=random.Random(0).randbytes(8)
    )
    await asked(server, CALLS["chunk.write"], changed, caller)
    right = chunk_digest(NEW, len(DATA), block_checksums(NEW, DATA))
    assert server.store.digest(NEW) == right


def test_every_call_is_in_one_of_the_tables() -> None:
    assert set(GUARDED) | set(FREE) == set(CALLS)
    assert not set(GUARDED) & set(FREE) and all(FREE.values())
    assert len(CASES) > 70


def test_nobody_can_ask_for_a_deletion() -> None:
    """Chunks are deleted on metad's order, in the answer to a call of the chunkd itself."""
    words = ("delete", "remove", "trim", "quarantine", "order")
    assert not [name for name in CALLS if any(word in name for word in words)]
