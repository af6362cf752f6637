"""Attacks on the safety of data: each test once lost, doubled or misreported something.

Cluster tests run under the virtual clock; what needs a real directory or one module alone is here
as well, so that the attacks are in one place.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from chunkd.filesystem import FileSystem
from chunkd.store import ChunkStore
from dfsmount.client import FileSystem as Client
from dfswire.errors import Unavailable
from dfswire.messages import ROOT_INODE
from dfswire.operations import SetAttr
from metad.names.chunkmap import orphans
from tests.suites.chunkstore import A, B, content, get, put
from tests.t2_chunkd.lossyfiles import LossyFiles
from tests.t3_cluster.cluster import (
    CHUNK_SIZE_BYTES,
    Cluster,
    fully_replicated,
    pair,
    running_cluster,
)
from tests.t3_cluster.files import read_file, write_file

ExpectLog = Callable[[str], None]


async def open_new(client: Client, name: bytes) -> tuple[int, int]:
    """A new file's handle and inode."""
    handle, attr = await client.vfs.create(ROOT_INODE, name, 0o644, os.O_RDWR, 0, 0)
    return handle, attr.inode


class Held:
    """A message that waits."""

    def __init__(self, word: bytes) -> None:
        self.word = word
        self.reached, self.let_go = trio.Event(), trio.Event()


class Gate(httpx.AsyncBaseTransport):
    """One client's network: holds or loses the messages of batches that contain a word."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._requests: list[Held] = []
        self._replies: list[Held] = []
        self._lost = b""

    @classmethod
    def before(cls, cluster: Cluster, client: Client) -> Gate:
        transport = cluster._transports[client]
        transport._inner = gate = cls(transport._inner)
        return gate

    def hold_request(self, word: bytes) -> Held:
        """The first request with this word is not executed before it is let go."""
        self._requests.append(Held(word))
        return self._requests[-1]

    def hold_reply(self, word: bytes) -> Held:
        self._replies.append(Held(word))
        return self._replies[-1]

    def lose_replies(self, word: bytes) -> None:
        self._lost = word

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = bytes(getattr(request.stream, "memory", None) or b"")
        await self._wait(self._requests, body)
        response = await self._inner.handle_async_request(request)
        await self._wait(self._replies, body)
        if self._lost and self._lost in body:
            raise httpx.ReadError("reply lost (injected)")
        return response

    @staticmethod
    async def _wait(held: list[Held], body: bytes) -> None:
        for each in held:
            if each.word in body:
                held.remove(each)
                each.reached.set()
                await each.let_go.wait()
                return


# A chunk whose fsync failed and that cannot even be moved away


class BrokenDisk(FileSystem):
    """The first fsync of a file fails, and so does every rename into quarantine."""

    def __init__(self) -> None:
        self.fsyncs = 0

    def fsync(self, fd: int) -> None:
        self.fsyncs += 1
        if self.fsyncs == 1:
            raise OSError(errno.EIO, "injected")

    def rename(self, source: Path, target: Path) -> None:
        if target.parent.name == "quarantine":
            raise OSError(errno.EIO, "injected")
        super().rename(source, target)


def test_a_failed_fsync_is_not_repeated_when_the_chunk_cannot_be_moved_away(
    tmp_path: Path, expect_log: ExpectLog
) -> None:
    """The group sync fails; an fsync of a client afterwards must not hear that all is well."""
    expect_log("cannot be moved away")
    store = ChunkStore(tmp_path, "disk", files=BrokenDisk())
    store.recover()
    put(store, A, content(100))
    assert store.sync(store.unsynced()).failed == [A]
    outcome = store.sync([A])
    assert A in [*outcome.failed, *outcome.missing]
    store.close()


# A power cut leaves an empty or torn file under the name of a chunk that was not synced


@pytest.mark.parametrize("left", [0, 1, 70_000])
def test_torn_chunks_do_not_count_as_replicas_after_a_restart(
    tmp_path: Path, expect_log: ExpectLog, left: int
) -> None:
    expect_log("is bad")
    store = ChunkStore(tmp_path, "disk")
    store.recover()
    put(store, A, content(70_000))
    put(store, B, content(70_000), durable=True)
    store.close()
    (torn,) = tmp_path.glob(f"chunks/*/*/{A.hex()}")
    os.truncate(torn, left)
    store = ChunkStore(tmp_path, "disk")
    store.recover()
    assert store.list_chunks(b"", 9) == [B]
    assert [(report.chunk, report.state) for report in store.take_reports()] == [(A, "bad")]


def test_what_was_not_synced_when_the_process_died_is_synced_after_its_restart(
    tmp_path: Path, rng: random.Random
) -> None:
    """A power cut some time after that restart finds it on disk."""
    files = LossyFiles(tmp_path)
    for _ in range(2):
        store = ChunkStore(tmp_path, "disk", files=files)
        store.recover()
        if not store.list_chunks(b"", 9):
            put(store, A, content(70_000))
        else:
            store.sync(store.unsynced())  # the group sync
        store.close()
    files.power_cut(rng)
    store = ChunkStore(tmp_path, "disk")
    store.recover()
    assert get(store, A, 0, 70_000) == content(70_000)


# fsync after a server lost what was not synced


async def test_fsync_succeeds_when_a_copy_was_made_again_on_the_disk_that_lost_it(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """Two servers: the only place for the new copy is where the old one was."""
    async with running_cluster(rng, servers=2) as cluster, cluster.client() as client:
        handle, _ = await open_new(client, b"f")
        await client.vfs.write(handle, 0, rng.randbytes(CHUNK_SIZE_BYTES))
        await client.vfs.flush(handle)
        await cluster.kill_chunkd(0, power_cut=True)
        await cluster.start_chunkd(0)
        await cluster.until(fully_replicated, 60)
        await client.vfs.fsync(handle)
        assert client.data.durability.count() == 0
        await client.vfs.release(handle)


@pytest.mark.parametrize("servers", [2, 3])
async def test_a_replica_lost_before_its_commit_is_noticed_by_fsync(
    autojump_clock: MockClock, rng: random.Random, servers: int
) -> None:
    """Stored, not synced, lost by a power cut, counted (not missing: no file had it), committed."""
    async with running_cluster(rng, servers=servers) as cluster, cluster.client() as client:
        handle, inode = await open_new(client, b"f")
        writer = client.files.any_writer(inode)
        assert writer is not None
        async with writer._commits.turn:  # commits wait
            await client.vfs.write(handle, 0, rng.randbytes(CHUNK_SIZE_BYTES))
            await trio.sleep(1)
            (chunk,) = {chunk for store in cluster.stores for chunk in store.files}
            victim = next(n for n, store in enumerate(cluster.stores) if chunk in store.files)
            assert chunk in cluster.stores[victim].unsynced()
            await cluster.kill_chunkd(victim, power_cut=True)
            await cluster.start_chunkd(victim)
            await trio.sleep(3)  # its inventory
        await client.vfs.fsync(handle)
        assert sum(chunk in store.files for store in cluster.stores) == 2
        await client.vfs.release(handle)


async def test_a_lost_replica_of_a_closed_file_is_made_good_soon(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """The same without fsync: what is reported must not be more than there is for long."""
    async with running_cluster(rng) as cluster, cluster.client() as client:
        handle, inode = await open_new(client, b"f")
        writer = client.files.any_writer(inode)
        assert writer is not None
        async with writer._commits.turn:
            await client.vfs.write(handle, 0, rng.randbytes(CHUNK_SIZE_BYTES))
            await trio.sleep(1)
            (chunk,) = {chunk for store in cluster.stores for chunk in store.files}
            victim = next(n for n, store in enumerate(cluster.stores) if chunk in store.files)
            await cluster.kill_chunkd(victim, power_cut=True)
            await cluster.start_chunkd(victim)
            await trio.sleep(3)
        await client.vfs.flush(handle)
        await client.vfs.release(handle)
        await trio.sleep(60)
        assert sum(chunk in store.files for store in cluster.stores) == 2


# Many large operations while metad is away


async def test_what_gathers_while_metad_is_away_fits_into_messages(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("metad at metad:1 does not answer")
    value = bytes(65_536)
    async with running_cluster(rng) as cluster, cluster.client() as client:
        inodes = [await write_file(client.vfs, f"f{number}", b"x") for number in range(300)]
        await cluster.kill_metad()
        async with trio.open_nursery() as nursery:
            for inode in inodes:
                nursery.start_soon(client.vfs.setxattr, inode, b"user.large", value)
            await trio.sleep(5)
            await cluster.start_metad()
        for inode in inodes:
            assert await client.vfs.getxattr(inode, b"user.large") == value


# Two handles


async def test_closing_one_handle_does_not_drop_what_another_has_written_meanwhile(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """As with shared mappings: data that comes after the last flush(), before the release."""
    async with running_cluster(rng) as cluster, cluster.client() as client:
        first, inode = await open_new(client, b"f")
        writer = client.files.any_writer(inode)
        assert writer is not None
        await client.vfs.write(first, 0, b"a" * 100)
        async with trio.open_nursery() as nursery, writer._commits.turn:
            nursery.start_soon(client.vfs.release, first)
            await trio.sleep(0.1)
            second = await client.vfs.open(inode, os.O_RDWR)
            await client.vfs.write(second, 100, b"b" * 100)
            await client.vfs.release(second)
        assert await read_file(client.vfs, "f") == b"a" * 100 + b"b" * 100


async def test_appends_of_several_handles_do_not_overwrite_each_other(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """Not even while they wait for room in memory."""
    async with running_cluster(rng) as cluster, cluster.client() as client:
        inode = await write_file(client.vfs, "log", b"")
        handles = [await client.vfs.open(inode, os.O_WRONLY | os.O_APPEND) for _ in range(4)]
        client.data.writeback.budget._max_bytes = 10
        async with trio.open_nursery() as nursery:
            for number, handle in enumerate(handles):
                nursery.start_soon(client.vfs.write, handle, 0, b"%d" % number * 10)
        for handle in handles:
            await client.vfs.flush(handle)
            await client.vfs.release(handle)
        found = await read_file(client.vfs, "log")
        assert sorted(found) == sorted(b"".join(b"%d" % number * 10 for number in range(4)))


# Replies that are late or do not come


async def test_truncated_bytes_do_not_come_back_when_a_reply_is_late(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """truncate(2) of a file that is opened meanwhile: the commit is executed first, answered
    last."""
    async with running_cluster(rng) as cluster, cluster.client() as client:
        inode = await write_file(client.vfs, "f", b"")
        gate = Gate.before(cluster, client)
        truncation, commit = gate.hold_request(b"setattr"), gate.hold_reply(b"commit")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.vfs.setattr, SetAttr(inode=inode, size=10))
            await truncation.reached.wait()
            handle = await client.vfs.open(inode, os.O_RDWR)
            await client.vfs.write(handle, 0, rng.randbytes(CHUNK_SIZE_BYTES))
            nursery.start_soon(client.vfs.flush, handle)
            await commit.reached.wait()
            truncation.let_go.set()
            await trio.sleep(0.1)
            commit.let_go.set()
        await client.vfs.setattr(SetAttr(inode=inode, size=CHUNK_SIZE_BYTES))
        found = bytes(await client.vfs.read(handle, 10, CHUNK_SIZE_BYTES))
        assert found == bytes(CHUNK_SIZE_BYTES - 10)
        await client.vfs.release(handle)


@pytest.mark.parametrize("by", ["truncate", "write"])
async def test_a_soft_mount_believes_nothing_of_a_file_whose_change_may_have_happened(
    autojump_clock: MockClock, rng: random.Random, tolerate_log: ExpectLog, by: str
) -> None:
    tolerate_log("written bytes are lost")
    data, new = rng.randbytes(CHUNK_SIZE_BYTES), rng.randbytes(CHUNK_SIZE_BYTES)
    async with (
        running_cluster(rng) as cluster,
        cluster.client("soft", soft_s=2) as client,
        cluster.client("other") as other,
    ):
        inode = await write_file(client.vfs, "f", data)
        assert await read_file(client.vfs, "f") == data
        handle = await client.vfs.open(inode, os.O_RDWR)
        gate = Gate.before(cluster, client)
        gate.lose_replies(b"setattr" if by == "truncate" else b"commit")
        with pytest.raises(Unavailable):
            if by == "truncate":
                await client.vfs.setattr(SetAttr(inode=inode, size=10))
            else:
                await client.vfs.write(handle, 0, new)
                await client.vfs.flush(handle)
        truth = await read_file(other.vfs, "f")
        assert truth == (data[:10] if by == "truncate" else new)
        assert await read_file(client.vfs, "f") == truth
        await client.vfs.release(handle)


# Open files without a name


async def test_a_file_that_is_open_here_survives_an_unlink_that_meant_another(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """Another client renames the open file over the one whose removal is on its way."""
    data = rng.randbytes(CHUNK_SIZE_BYTES)
    async with pair(rng) as (cluster, one, other):
        inode = await write_file(one.vfs, "open", data)
        await write_file(one.vfs, "victim", b"")
        handle = await one.vfs.open(inode, os.O_RDONLY)
        unlink = Gate.before(cluster, one).hold_request(b"unlink")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.vfs.unlink, ROOT_INODE, b"victim")
            await unlink.reached.wait()
            await other.vfs.rename(ROOT_INODE, b"open", ROOT_INODE, b"victim", 0)
            unlink.let_go.set()
        await trio.sleep(5)
        assert bytes(await one.vfs.read(handle, 0, len(data))) == data
        await one.vfs.release(handle)
        await trio.sleep(5)
        assert not orphans(cluster.database)


async def test_a_file_closed_while_its_name_goes_is_not_kept_for_ever(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng) as cluster, cluster.client() as client:
        handle, _ = await open_new(client, b"f")
        unlink = Gate.before(cluster, client).hold_request(b"unlink")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.vfs.unlink, ROOT_INODE, b"f")
            await unlink.reached.wait()
            await client.vfs.release(handle)
            unlink.let_go.set()
        await trio.sleep(5)
        assert not orphans(cluster.database)
