"""Holes, preallocation, shared copies, flags and files without a name, through whole clients."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from dfsmount.client import FileSystem
from dfsmount.vfs import Vfs
from dfswire.errors import (
    FileTooBig,
    Invalid,
    NoData,
    NoEntry,
    NoSpace,
    NotPermitted,
    NotSupported,
)
from dfswire.messages import FILE_MAX_BYTES, Attr
from dfswire.metadata import SEEK_DATA, SEEK_HOLE
from dfswire.operations import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    FALLOC_ZERO_RANGE,
    FS_APPEND,
    FS_IMMUTABLE,
    AnyOperation,
    CreateUnnamed,
)
from tests.fakes import Faults
from tests.t3_cluster.cluster import CHUNK_SIZE_BYTES, Cluster, fully_replicated, running_cluster
from tests.t3_cluster.files import find, names, opened, read_file, write_file

PUNCH = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE
DATA = random.Random(1).randbytes(3 * CHUNK_SIZE_BYTES + 77)


@pytest.fixture
async def cluster(autojump_clock: MockClock) -> AsyncIterator[Cluster]:
    async with running_cluster(random.Random(1)) as cluster:
        yield cluster
        report = await cluster.fsck()
        assert report.findings == []


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[FileSystem]:
    async with cluster.client() as client:
        yield client


async def clone(vfs: Vfs, source: str, target: str, *, sync: bool = False) -> None:
    """As cp(1) does."""
    await write_file(vfs, target, b"")
    async with opened(vfs, source, os.O_RDONLY) as old, opened(vfs, target) as new:
        at = 0
        while count := await vfs.copy_range(old, at, new, at, 1 << 40):
            at += count
        if sync:
            await vfs.fsync(new)
        await vfs.flush(new)


async def test_seek_finds_data_that_is_not_committed_yet(
    client: FileSystem, autojump_clock: MockClock
) -> None:
    vfs = client.vfs
    await write_file(vfs, "f", b"")
    async with opened(vfs, "f") as handle:
        await vfs.write(handle, 200_000, b"x" * 1000)
        assert await vfs.seek(handle, 0, SEEK_DATA) == 200_000
        assert await vfs.seek(handle, 0, SEEK_HOLE) == 0
        assert await vfs.seek(handle, 200_500, SEEK_HOLE) == 201_000
        with pytest.raises(NoData):
            await vfs.seek(handle, 201_000, SEEK_DATA)


async def test_a_hole_is_punched_into_dirty_and_clean_data(
    client: FileSystem, autojump_clock: MockClock
) -> None:
    vfs = client.vfs
    await write_file(vfs, "f", DATA)
    expected = bytearray(await read_file(vfs, "f"))  # and now the layout is known here
    async with opened(vfs, "f") as handle:
        await vfs.write(handle, 1000, b"dirty" * 100)
        expected[1000:1500] = b"dirty" * 100
        await vfs.fallocate(handle, PUNCH, 1200, 100_000)
        expected[1200:101_200] = bytes(100_000)
        assert await vfs.read(handle, 0, len(DATA)) == expected
        await vfs.fallocate(handle, FALLOC_ZERO_RANGE, len(DATA) - 7, 100)
        expected[len(DATA) - 7 :] = bytes(100)
        assert (await vfs.getattr((await find(vfs, "f")).inode)).size == len(expected)
        await vfs.write(handle, len(expected), b"end")
        assert await vfs.read(handle, 0, 1 << 20) == bytes(expected) + b"end"
    assert await read_file(vfs, "f") == bytes(expected) + b"end"


async def test_preallocation_keeps_what_is_there(
    client: FileSystem, autojump_clock: MockClock
) -> None:
    vfs = client.vfs
    await write_file(vfs, "f", b"abc")
    async with opened(vfs, "f") as handle:
        await vfs.fallocate(handle, FALLOC_KEEP_SIZE, 0, 1000)
        assert (await find(vfs, "f")).size == 3
        await vfs.fallocate(handle, 0, 0, 10)
        assert await vfs.read(handle, 0, 100) == b"abc" + bytes(7)
        with pytest.raises(NoSpace):
            await vfs.fallocate(handle, 0, 0, FILE_MAX_BYTES)
        with pytest.raises(FileTooBig):
            await vfs.fallocate(handle, PUNCH, 1, FILE_MAX_BYTES)
        with pytest.raises(NotSupported):
            await vfs.fallocate(handle, 8, 0, 10)


@pytest.mark.parametrize("size", [1, 8192, 50_000, len(DATA)])
async def test_a_clone_stores_no_bytes_and_lives_on_its_own(
    cluster: Cluster, client: FileSystem, size: int, autojump_clock: MockClock
) -> None:
    vfs, data = client.vfs, DATA[:size]
    await write_file(vfs, "a", data)
    before = (await cluster.status()).chunks.total
    await clone(vfs, "a", "b")
    assert (await cluster.status()).chunks.total == before
    async with opened(vfs, "a") as a, opened(vfs, "b") as b:
        await vfs.write(a, 0, b"A")
        await vfs.write(b, size - 1, b"B")
    assert await read_file(vfs, "a") == b"A" + data[1:]
    assert await read_file(vfs, "b") == data[:-1] + b"B"
    await vfs.unlink(1, b"a")
    async with cluster.client("other") as other:
        assert await read_file(other.vfs, "b") == data[:-1] + b"B"


async def test_a_copy_has_what_was_written_just_before(
    client: FileSystem, autojump_clock: MockClock
) -> None:
    vfs = client.vfs
    await write_file(vfs, "a", DATA)
    await write_file(vfs, "b", DATA)
    async with opened(vfs, "a") as a, opened(vfs, "b") as b:
        await vfs.read(b, 0, len(DATA))
        await vfs.write(a, 10, b"new in a")
        await vfs.write(b, 10, b"new in b")
        await vfs.write(b, 100_000, b"more")
        count = await vfs.copy_range(a, 4, b, 6, 90_000)
        assert count == 90_000
        expected = bytearray(DATA)
        expected[100_000:100_004] = b"more"
        changed = DATA[:10] + b"new in a" + DATA[18:]
        expected[6:90_006] = changed[4:90_004]
        assert await vfs.read(b, 0, len(DATA)) == expected


@pytest.mark.parametrize("length", [100, 70_000])
async def test_a_file_is_copied_within_itself(
    client: FileSystem, length: int, autojump_clock: MockClock
) -> None:
    vfs = client.vfs
    await write_file(vfs, "a", DATA)
    async with opened(vfs, "a") as a:
        assert await vfs.copy_range(a, 5, a, 100_000, length) == length
        expected = bytearray(DATA)
        expected[100_000 : 100_000 + length] = DATA[5 : 5 + length]
        assert await vfs.read(a, 0, len(DATA)) == expected
        with pytest.raises(Invalid):
            await vfs.copy_range(a, 5, a, 5 + length - 1, length)
        assert await vfs.copy_range(a, len(DATA), a, 0, length) == 0


async def test_a_synced_copy_survives_a_power_cut_that_its_source_does_not_expect(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    """The source was written by another client, which never called fsync."""
    async with cluster.client("one") as one, cluster.client("two") as two:
        await write_file(one.vfs, "a", DATA)
        await clone(two.vfs, "a", "b", sync=True)
        for number in range(3):
            await cluster.kill_chunkd(number, power_cut=True)
        for number in range(3):
            await cluster.start_chunkd(number)
        await cluster.until(fully_replicated, 600)
        assert await read_file(two.vfs, "b") == DATA


async def test_copies_are_settled_in_the_background(
    cluster: Cluster, client: FileSystem, autojump_clock: MockClock
) -> None:
    await write_file(client.vfs, "a", DATA)
    await clone(client.vfs, "a", "b")
    await client.vfs.unlink(1, b"a")
    await clone(client.vfs, "b", "c")
    await client.vfs.unlink(1, b"c")
    assert client.data.durability.count()
    await trio.sleep(60)
    assert not client.data.durability.count()


async def test_a_copy_whose_answer_is_lost_happens_once(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    cluster.set_faults(Faults(lost_reply=0.3, duplicate=0.2))
    async with cluster.client() as client:
        await write_file(client.vfs, "a", DATA)
        for _ in range(10):
            await clone(client.vfs, "a", "b")
        assert await read_file(client.vfs, "b") == DATA
        cluster.set_faults(Faults())


# -- flags and files without a name ---------------------------------------------------------------


async def test_flags_forbid_opening_and_writing(
    client: FileSystem, autojump_clock: MockClock
) -> None:
    vfs = client.vfs
    inode = await write_file(vfs, "f", b"abc")
    early = await vfs.open(inode, os.O_WRONLY)
    await vfs.write(early, 3, b"def")  # is stored before the flag is set
    await vfs.set_flags(inode, FS_IMMUTABLE)
    assert await vfs.get_flags(inode) == FS_IMMUTABLE
    for flags in (os.O_WRONLY, os.O_RDWR | os.O_APPEND, os.O_RDWR | os.O_TRUNC):
        with pytest.raises(NotPermitted):
            await vfs.open(inode, flags)
    with pytest.raises(NotPermitted):
        await vfs.write(early, 6, b"late")
    await vfs.fsync(early)
    assert await read_file(vfs, "f") == b"abcdef"
    await vfs.set_flags(inode, FS_APPEND)
    for flags in (os.O_WRONLY, os.O_RDWR | os.O_APPEND | os.O_TRUNC):
        with pytest.raises(NotPermitted):
            await vfs.open(inode, flags)
    async with opened(vfs, "f", os.O_WRONLY | os.O_APPEND) as handle:
        await vfs.write(handle, 0, b"ghi")
    with pytest.raises(NotPermitted):
        await vfs.write(early, 8, b"over")
    await vfs.write(early, 9, b"jkl")
    with pytest.raises(NotPermitted):
        await vfs.write(early, 9, b"not even now")
    await vfs.fsync(early)
    assert await read_file(vfs, "f") == b"abcdefghijkl"
    await vfs.set_flags(inode, 0)
    await vfs.release(early)


async def test_a_flag_set_elsewhere_does_not_lose_what_was_written_before(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    async with cluster.client("one") as one, cluster.client("two") as two:
        inode = await write_file(one.vfs, "f", b"abc")
        async with opened(one.vfs, "f", os.O_WRONLY) as handle:
            await one.vfs.write(handle, 0, b"ABC")
            await one.vfs.flush(handle)
            await two.vfs.set_flags(inode, FS_IMMUTABLE)
            assert await one.vfs.get_flags(inode) == FS_IMMUTABLE
            with pytest.raises(NotPermitted):
                await one.vfs.write(handle, 0, b"xyz")
        assert await read_file(two.vfs, "f") == b"ABC"


async def exists(vfs: Vfs, inode: int) -> bool:
    """After metad had time to remove what nobody has open."""
    await trio.sleep(10)
    try:
        await vfs.getattr(inode)
    except NoEntry:
        return False
    return True


async def test_a_file_without_a_name_goes_when_it_is_closed(
    client: FileSystem, autojump_clock: MockClock
) -> None:
    vfs = client.vfs
    handle, attr = await vfs.tmpfile(1, 0o666, os.O_RDWR, 5, 6, 0o022)
    assert (attr.mode & 0o7777, attr.uid, attr.gid, attr.nlink) == (0o644, 5, 6, 0)
    await vfs.write(handle, 0, DATA)
    await vfs.fsync(handle)
    assert await exists(vfs, attr.inode)
    assert await vfs.read(handle, 0, len(DATA)) == DATA
    assert await names(vfs, "") == []
    await vfs.release(handle)
    assert not await exists(vfs, attr.inode)


async def test_a_file_without_a_name_is_linked(
    cluster: Cluster,
    client: FileSystem,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vfs = client.vfs
    released: list[int] = []
    monkeypatch.setattr(client.files, "_release", released.append)
    handle, attr = await vfs.tmpfile(1, 0o600, os.O_RDWR, 0, 0, 0)
    await vfs.write(handle, 0, b"bytes")
    assert (await vfs.link(attr.inode, 1, b"f")).nlink == 1
    await vfs.release(handle)
    assert await exists(vfs, attr.inode)
    assert not released, "it is a file like any other now"
    async with cluster.client("other") as other:
        assert await read_file(other.vfs, "f") == b"bytes"


async def test_a_linked_file_that_is_unlinked_while_open_goes_at_the_end(
    client: FileSystem, autojump_clock: MockClock
) -> None:
    vfs = client.vfs
    handle, attr = await vfs.tmpfile(1, 0o600, os.O_RDWR, 0, 0, 0)
    await vfs.link(attr.inode, 1, b"f")
    await vfs.unlink(1, b"f")
    with pytest.raises(NoEntry):
        await vfs.link(attr.inode, 1, b"g")
    assert await exists(vfs, attr.inode)
    await vfs.release(handle)
    assert not await exists(vfs, attr.inode)


async def test_a_file_without_a_name_that_may_not_be_linked(
    client: FileSystem, autojump_clock: MockClock
) -> None:
    handle, attr = await client.vfs.tmpfile(1, 0o600, os.O_RDWR | os.O_EXCL, 0, 0, 0)
    with pytest.raises(NoEntry):
        await client.vfs.link(attr.inode, 1, b"f")
    await client.vfs.release(handle)


async def test_a_file_without_a_name_survives_a_restart_of_metad(
    cluster: Cluster, client: FileSystem, autojump_clock: MockClock
) -> None:
    vfs = client.vfs
    handle, _attr = await vfs.tmpfile(1, 0o600, os.O_RDWR, 0, 0, 0)
    await vfs.write(handle, 0, b"bytes")
    await cluster.kill_metad()
    await cluster.start_metad()
    await trio.sleep(40)
    assert await vfs.read(handle, 0, 100) == b"bytes"
    await vfs.release(handle)


async def test_a_file_made_while_the_stream_was_opened_again_is_made_once_more(
    client: FileSystem, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """metad was told what is open between the making of the file and its opening."""
    vfs = client.vfs
    submit = client.vfs._submit
    made: list[int] = []

    async def slow(operation: AnyOperation) -> list[Attr]:
        attrs = await submit(operation)
        if isinstance(operation, CreateUnnamed):
            made.append(attrs[0].inode)
            if len(made) == 1:
                client.session.stream.count += 1  # what _follow_once does
        return attrs

    monkeypatch.setattr(vfs, "_submit", slow)
    handle, attr = await vfs.tmpfile(1, 0o600, os.O_RDWR, 0, 0, 0)
    assert made[1:] == [attr.inode]
    assert not await exists(vfs, made[0])
    await vfs.release(handle)
