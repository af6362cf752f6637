"""Clusters whose chunkds ask for tokens: nobody notices, but whoever has none."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from chunkd.guard import Guard
from dfsmount.client import FileSystem
from dfswire.chunks import ReadChunk, SyncChunks, WriteChunk, block_checksums
from dfswire.client import Client
from dfswire.errors import DFSError, TokenRefused, Unavailable
from dfswire.messages import ROOT_INODE, Replica
from dfswire.metadata import LayoutReply
from dfswire.verify import SalvageChunk
from metad.hosts.tokenkeys import READ_S, ROTATE_S, TokenKeys
from tests.t3_cluster.cluster import (
    CHUNK_SIZE_BYTES,
    Cluster,
    fully_replicated,
    running_cluster,
)
from tests.t3_cluster.files import find, opened, read_file, write_file

ON = {"tokens": "on"}


@asynccontextmanager
async def guarded(rng: random.Random, **options: Any) -> AsyncIterator[Cluster]:
    """It ends whole, whatever was done to it."""
    async with running_cluster(rng, metad_settings=ON, **options) as cluster:
        yield cluster
        await cluster.until(fully_replicated, 200)
        assert (await cluster.fsck()).findings == []


async def layout(client: FileSystem, path: str) -> LayoutReply:
    inode = (await find(client.vfs, path)).inode
    return await client.data.layouts._metadata.layout(inode, 0, 1 << 20)


async def somewhere(client: FileSystem, path: str) -> tuple[bytes, int, Replica]:
    """A chunk of a file, its length, and a replica with a token for it."""
    location = (await layout(client, path)).chunks[0]
    assert location.replicas[0].token
    return location.chunk, location.length, location.replicas[0]


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why tokens were refused."""
    reasons: list[str] = []
    refusal = Guard._refusal

    def noted(guard: Guard, why: str) -> TokenRefused:
        reasons.append(why)
        return refusal(guard, why)

    monkeypatch.setattr(Guard, "_refusal", noted)
    return reasons


async def test_files_are_written_read_and_moved(
    autojump_clock: MockClock, rng: random.Random, refusals: list[str]
) -> None:
    """By two clients, at once and much later, and by the servers among themselves."""
    files = {f"f{n}": rng.randbytes(3 * CHUNK_SIZE_BYTES + 7) for n in range(6)}
    async with guarded(rng, servers=4) as cluster:
        async with cluster.client("a") as one, cluster.client("b", options="nocache") as other:
            for path, data in files.items():
                await write_file(one.vfs, path, data, sync=rng.random() < 0.5)
            for _ in range(3):
                for path, data in files.items():
                    assert await read_file(one.vfs, path) == data
                    assert await read_file(other.vfs, path) == data
                await trio.sleep(2 * READ_S)
            await cluster.kill_chunkd(0)
            await cluster.until(fully_replicated, 200)
            for path, data in files.items():
                assert await read_file(other.vfs, path) == data
            assert refusals == []
        await cluster.start_chunkd(0)


async def test_an_open_file_is_read_for_hours(
    autojump_clock: MockClock, rng: random.Random, refusals: list[str]
) -> None:
    """Tokens end, and keys change, while nothing else happens."""
    data = rng.randbytes(2 * CHUNK_SIZE_BYTES)
    async with guarded(rng) as cluster, cluster.client(options="nocache") as client:
        await write_file(client.vfs, "f", data, sync=True)
        async with opened(client.vfs, "f", os.O_RDONLY) as handle:
            for _ in range(300):
                assert await client.vfs.read(handle, 0, len(data)) == data
                await trio.sleep(ROTATE_S / 50)
    assert refusals == []


async def test_a_writer_does_without_metad_for_minutes(
    autojump_clock: MockClock, rng: random.Random, expect_log: Callable[[str], None]
) -> None:
    """Its grants were fetched ahead; more of them come when metad is back.  Nothing is lost."""
    expect_log("metad at metad:1 does not answer")
    expect_log("the lease ended without an answer")
    data = rng.randbytes(20 * CHUNK_SIZE_BYTES)
    async with guarded(rng) as cluster, cluster.client() as client:
        await write_file(client.vfs, "before", b"x" * CHUNK_SIZE_BYTES, sync=True)
        handle, _ = await client.vfs.create(ROOT_INODE, b"f", 0o644, os.O_RDWR, 0, 0)
        async with trio.open_nursery() as nursery:
            await cluster.kill_metad()

            async def write() -> None:
                for at in range(0, len(data), CHUNK_SIZE_BYTES):
                    await client.vfs.write(handle, at, data[at : at + CHUNK_SIZE_BYTES])
                    await trio.sleep(1)
                await client.vfs.fsync(handle)

            nursery.start_soon(write)
            await trio.sleep(200)
            await cluster.start_metad()
        await client.vfs.release(handle)
        assert await read_file(client.vfs, "f") == data


async def test_servers_that_are_started_again(
    autojump_clock: MockClock, rng: random.Random, expect_log: Callable[[str], None]
) -> None:
    """One after the other, while files are written, synced and read: they forget their keys."""
    expect_log("metad at metad:1 does not answer")
    async with guarded(rng) as cluster, cluster.client(options="nocache") as client:
        ended = trio.Event()

        async def work() -> None:
            number = 0
            while not ended.is_set():
                data = rng.randbytes(CHUNK_SIZE_BYTES + number)
                await write_file(client.vfs, f"f{number % 5}", data, sync=number % 2 == 0)
                assert await read_file(client.vfs, f"f{number % 5}") == data
                number += 1
                await trio.sleep(0.7)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            for number in (0, 1, 2):
                await trio.sleep(5)
                await cluster.kill_chunkd(number)
                await trio.sleep(2)
                await cluster.start_chunkd(number)
            await trio.sleep(10)
            await cluster.kill_metad()
            await trio.sleep(5)
            await cluster.start_metad()
            await trio.sleep(10)
            ended.set()


async def test_a_file_is_synced_long_after_it_was_written(
    autojump_clock: MockClock, rng: random.Random, refusals: list[str]
) -> None:
    """The tokens of its grants are over then, and the servers were started anew."""
    data = rng.randbytes(2 * CHUNK_SIZE_BYTES)
    async with guarded(rng) as cluster, cluster.client() as client:
        handle, _ = await client.vfs.create(ROOT_INODE, b"f", 0o644, os.O_RDWR, 0, 0)
        await client.vfs.write(handle, 0, data)
        await client.vfs.flush(handle)
        for number in range(3):
            await cluster.kill_chunkd(number)
            await cluster.start_chunkd(number)
        await client.vfs.fsync(handle)
        await client.vfs.release(handle)
        assert client.data.durability.count() == 0


async def test_who_has_no_token_gets_nothing(autojump_clock: MockClock, rng: random.Random) -> None:
    """Nor with one for something else, or one that is over."""
    data = rng.randbytes(CHUNK_SIZE_BYTES)
    async with guarded(rng) as cluster, cluster.client() as client:
        await write_file(client.vfs, "f", data, sync=True)
        await write_file(client.vfs, "g", data, sync=True)
        chunk, length, place = await somewhere(client, "f")
        _, _, elsewhere = await somewhere(client, "g")
        stranger = Client(transport=cluster.network)

        async def ask(request: Any, name: str, **more: Any) -> str:
            try:
                await stranger.call(name, place.address, request, **more)
            except DFSError as problem:
                return problem.code
            return "done"

        def read(token: bytes) -> ReadChunk:
            return ReadChunk(chunk=chunk, disk=place.disk, offset=0, length=length, token=token)

        assert await ask(read(place.token), "chunk.read") == "done"
        assert await ask(read(b""), "chunk.read") == "token_refused"
        assert await ask(read(elsewhere.token), "chunk.read") == "token_refused"
        replicas = (await layout(client, "f")).chunks[0].replicas
        another = next(each for each in replicas if each.disk != place.disk)
        assert await ask(read(another.token), "chunk.read") == "token_refused"
        checksums = block_checksums(chunk, data)
        write = WriteChunk(
            chunk=chunk, length=length, checksums=checksums, disk=place.disk, token=place.token
        )
        code = await ask(write, "chunk.write", body=memoryview(data), body_length=length)
        assert code == "token_refused"
        assert await ask(SyncChunks(chunks=[chunk]), "chunk.sync") == "token_refused"
        salvage = SalvageChunk(chunk=chunk, disk=place.disk, length=length, digest=b"d" * 16)
        assert await ask(salvage, "chunk.salvage") == "token_refused"
        await trio.sleep(READ_S + 1)
        assert await ask(read(place.token), "chunk.read") == "token_refused"
        sync = SyncChunks(chunks=[chunk], tokens=[place.token])
        assert await ask(sync, "chunk.sync") == "done"
        await stranger.aclose()


async def test_a_server_that_waits_for_metad_answers_nobody(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """It does not know whether tokens are asked for."""
    async with guarded(rng) as cluster:
        async with cluster.client() as client:
            await write_file(client.vfs, "f", rng.randbytes(CHUNK_SIZE_BYTES), sync=True)
            chunk, length, place = await somewhere(client, "f")
        number = int(place.disk.removeprefix("disk"))
        await cluster.kill_metad()
        await cluster.kill_chunkd(number)
        await cluster.start_chunkd(number)
        stranger = Client(transport=cluster.network)
        request = ReadChunk(
            chunk=chunk, disk=place.disk, offset=0, length=length, token=place.token
        )
        with pytest.raises(Unavailable, match="not heard from metad"):
            await stranger.call("chunk.read", place.address, request)
        await stranger.aclose()
        await cluster.start_metad()


async def test_tokens_are_switched_off_and_on(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """As by an older metad on the way back, and by the newer one: clients go on."""
    data = rng.randbytes(2 * CHUNK_SIZE_BYTES)
    async with guarded(rng) as cluster, cluster.client(options="nocache") as client:
        await write_file(client.vfs, "f", data, sync=True)
        for tokens in ("off", "on", "off", "on"):
            await cluster.kill_metad()
            cluster.set_metad(tokens=tokens)
            await cluster.start_metad()
            assert await read_file(client.vfs, "f") == data
            await trio.sleep(30)
            data = rng.randbytes(2 * CHUNK_SIZE_BYTES)
            await write_file(client.vfs, "f", data, sync=True)
            assert await read_file(client.vfs, "f") == data


async def test_a_server_that_knows_no_tokens(
    autojump_clock: MockClock, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an older release, beside newer ones: it lets everybody in, and clients notice nothing."""
    registered = TokenKeys.registered

    def older(keys: TokenKeys, server_id: str, *, knows_tokens: bool) -> Any:
        return registered(keys, server_id, knows_tokens=knows_tokens and server_id != "server1")

    monkeypatch.setattr(TokenKeys, "registered", older)
    files = {f"f{n}": rng.randbytes(CHUNK_SIZE_BYTES) for n in range(8)}
    async with guarded(rng) as cluster, cluster.client(options="nocache") as client:
        for path, data in files.items():
            await write_file(client.vfs, path, data, sync=True)
        await trio.sleep(2 * READ_S)
        for path, data in files.items():
            assert await read_file(client.vfs, path) == data
