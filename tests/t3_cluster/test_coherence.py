"""Two clients, one of whose messages are late, lost or held back: nobody is told what is not so."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, cast

import httpx
import pytest
import trio
from trio.testing import MockClock

from dfsmount.client import FileSystem
from dfsmount.fuse import Handlers
from dfsmount.kernel import Notices
from dfsmount.kernelcaches import KernelCaches
from dfsmount.lowlevel.requests import NoLibrary, Requests
from dfsmount.vfs import Vfs
from dfswire.bodies import BodyStream, Octets
from dfswire.errors import DFSError, NoEntry, NoSpace, NotDirectory, Unavailable
from dfswire.messages import ROOT_INODE
from dfswire.operations import RENAME_EXCHANGE, SetAttr
from tests.fakes import Faults
from tests.t3_cluster.cluster import Cluster, running_cluster
from tests.t3_cluster.files import find, names, read_file, write_file

ExpectLog = Callable[[str], None]


class Held:
    """One message that waits at the gate."""

    def __init__(self) -> None:
        self.arrived = trio.Event()
        self._go = trio.Event()

    def release(self) -> None:
        self._go.set()

    async def pass_by(self) -> None:
        self.arrived.set()
        await self._go.wait()


class Gate(httpx.AsyncBaseTransport):
    """Holds back the requests or the replies of one client, and breaks or mutes its streams."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._requests: list[tuple[str, Held]] = []
        self._replies: list[tuple[str, Held]] = []
        self._streams: list[_Stream] = []
        self.latency: Callable[[], float] = lambda: 0.0  # seconds, each way

    def request(self, path: str) -> Held:
        """The next request with this end of its path waits before it is sent."""
        self._requests.append((path, held := Held()))
        return held

    def reply(self, path: str) -> Held:
        """The reply to the next such request waits before it is received."""
        self._replies.append((path, held := Held()))
        return held

    def break_streams(self) -> None:
        for stream in self._streams:
            stream.cut()

    def mute_streams(self) -> None:
        """Their other ends are gone without a word, as after a power cut."""
        for stream in self._streams:
            stream.muted = True

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.sleep(self.latency())
        await _pass(self._requests, request)
        reply_waits = _take(self._replies, request)
        response = await self._inner.handle_async_request(request)
        await trio.sleep(self.latency())
        if reply_waits is not None:
            await reply_waits.pass_by()
        if request.url.path.endswith("session/events") and response.status_code == 200:
            self._streams.append(stream := _Stream(response.stream))
            return httpx.Response(200, headers=response.headers, stream=BodyStream(stream))
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Stream:
    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._pieces: AsyncIterator[Octets] = aiter(inner)
        self.muted = False
        self._scope = trio.CancelScope()

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> Octets:
        with trio.CancelScope() as self._scope:
            piece = await anext(self._pieces)
            if self.muted:
                await trio.sleep_forever()
            return piece
        raise httpx.ReadError("stream broken (injected)")

    def cut(self) -> None:
        self._scope.cancel()

    async def aclose(self) -> None:
        await self._inner.aclose()


def _take(waiting: list[tuple[str, Held]], request: httpx.Request) -> Held | None:
    for entry in waiting:
        if request.url.path.endswith(entry[0]):
            waiting.remove(entry)
            return entry[1]
    return None


async def _pass(waiting: list[tuple[str, Held]], request: httpx.Request) -> None:
    held = _take(waiting, request)
    if held is not None:
        await held.pass_by()


@asynccontextmanager
async def gated(
    cluster: Cluster, name: str = "a", soft_s: float = 0.0
) -> AsyncIterator[tuple[FileSystem, Gate]]:
    """A client that speaks through a gate, its event stream open."""
    network, gate = cluster.network, Gate(cluster.network)
    context = cluster.client(name, soft_s)
    cluster.network = gate  # type: ignore[assignment]  # a client needs no more of it
    try:
        client = await context.__aenter__()
    finally:
        cluster.network = network
    try:
        await trio.sleep(0.1)
        assert client.session.lease_left_s() > 0
        yield client, gate
    finally:
        await context.__aexit__(None, None, None)


class Kernel:
    """Writes down what it is told to forget."""

    def __init__(self) -> None:
        self.names: list[tuple[int, bytes]] = []
        self.known: list[int] = []

    def forget_inode(self, inode: int, data: bool) -> None: ...

    def forget_pages(self, inode: int, offset: int, end: int | None) -> None: ...

    def expire_names(self) -> bool:
        return False

    def forget_name(self, parent: int, name: bytes) -> None:
        self.names.append((parent, name))

    def inodes(self) -> list[int]:
        return self.known


@contextmanager
def kernel_of(client: FileSystem, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """A kernel for the client, told without threads, which a virtual clock would not wait for."""

    async def inline(
        self: Notices,
        inodes: dict[int, bool],
        names: list[tuple[int, bytes]],
        pages: Iterable[tuple[int, int, int | None]] = (),
    ) -> None:
        for parent, name in names:
            self.kernel.forget_name(parent, name)
        for inode, data in inodes.items():
            self.kernel.forget_inode(inode, data)

    monkeypatch.setattr(Notices, "_in_thread", inline)
    client.notices.kernel = kernel = Kernel()
    yield kernel


# The event stream


async def reconnect(gate: Gate) -> Held:
    """Break the client's stream; the request for a new one waits at the gate."""
    held = gate.request("session/events")
    gate.break_streams()
    await held.arrived.wait()
    return held


async def test_a_layout_learnt_before_the_stream_is_open_is_not_kept(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with (
        running_cluster(rng) as cluster,
        gated(cluster) as (one, gate),
        cluster.client("b") as other,
    ):
        await write_file(other.vfs, "f", b"old")
        held = await reconnect(gate)
        assert await read_file(one.vfs, "f") == b"old"
        held.release()
        await trio.sleep(1)
        await write_file(other.vfs, "f", b"new")
        assert await read_file(one.vfs, "f") == b"new"


async def test_an_answer_from_before_the_stream_was_open_is_not_kept(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with (
        running_cluster(rng) as cluster,
        gated(cluster) as (one, gate),
        cluster.client("b") as other,
    ):
        inode = await write_file(other.vfs, "f", b"f")
        held = await reconnect(gate)
        late = gate.reply("meta/getattr")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.vfs.getattr, inode)
            await late.arrived.wait()
            held.release()
            await trio.sleep(1)
            late.release()
        await other.vfs.setattr(SetAttr(inode=inode, mode=0o600))
        assert (await one.vfs.getattr(inode)).mode & 0o777 == 0o600


async def test_a_stream_that_falls_silent_is_opened_again(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """metad's host lost its power, say: the connection is dead, and nobody says so."""
    async with (
        running_cluster(rng) as cluster,
        gated(cluster) as (one, gate),
        cluster.client("b") as other,
    ):
        await write_file(other.vfs, "f", b"old")
        assert await read_file(one.vfs, "f") == b"old"
        gate.mute_streams()
        with trio.fail_after(60):
            await write_file(other.vfs, "f", b"new")
        assert await read_file(one.vfs, "f") == b"new"


# What the kernel was told


async def test_the_kernel_forgets_names_that_do_not_exist_when_the_stream_breaks(
    autojump_clock: MockClock, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_cluster(rng) as cluster, gated(cluster) as (client, gate):
        with kernel_of(client, monkeypatch) as kernel:
            directory = (await client.vfs.mkdir(ROOT_INODE, b"d", 0o755, 0, 0)).inode
            assert await client.vfs.lookup(directory, b"none") is None
            assert client.vfs.name_timeout_s(directory, b"none", None) > 0  # so the kernel keeps it
            gate.break_streams()
            await trio.sleep(1)
            assert (directory, b"none") in kernel.names


async def test_the_kernel_forgets_names_whose_second_answer_came_late(
    autojump_clock: MockClock, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        running_cluster(rng) as cluster,
        gated(cluster) as (one, gate),
        cluster.client("b") as other,
    ):
        with kernel_of(one, monkeypatch) as kernel:
            directory = (await other.vfs.mkdir(ROOT_INODE, b"d", 0o755, 0, 0)).inode
            await write_file(other.vfs, "d/x", b"")
            found = await one.vfs.lookup(directory, b"x")
            assert found is not None
            assert one.vfs.name_timeout_s(directory, b"x", found.inode) > 0
            late = gate.reply("meta/readdir")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(names, one.vfs, "d")
                await late.arrived.wait()
                await write_file(other.vfs, "d/y", b"")
                late.release()
            assert (directory, b"x") not in kernel.names
            gate.break_streams()
            await trio.sleep(1)
            assert (directory, b"x") in kernel.names


async def test_the_kernel_forgets_names_after_an_exchange_and_a_failure(
    autojump_clock: MockClock, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It moves its entries, or leaves them; nothing here would tell it of them later."""
    async with running_cluster(rng) as cluster, gated(cluster) as (client, _gate):
        with kernel_of(client, monkeypatch) as kernel:
            await write_file(client.vfs, "f", b"f")
            await write_file(client.vfs, "g", b"g")
            await client.vfs.rename(ROOT_INODE, b"f", ROOT_INODE, b"g", RENAME_EXCHANGE)
            await trio.sleep(0.1)
            assert sorted(kernel.names) == [(ROOT_INODE, b"f"), (ROOT_INODE, b"g")]
            assert await read_file(client.vfs, "f") == b"g"
            kernel.names.clear()
            with pytest.raises(NotDirectory):
                await client.vfs.rmdir(ROOT_INODE, b"f")
            await trio.sleep(0.1)
            assert kernel.names == [(ROOT_INODE, b"f")]


async def test_the_kernel_forgets_the_new_name_of_a_rename_that_was_overtaken(
    autojump_clock: MockClock, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        running_cluster(rng) as cluster,
        gated(cluster) as (one, gate),
        cluster.client("b") as other,
    ):
        with kernel_of(one, monkeypatch) as kernel:
            await write_file(one.vfs, "f", b"f")
            late = gate.reply("meta/batch")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.vfs.rename, ROOT_INODE, b"f", ROOT_INODE, b"g", 0)
                await late.arrived.wait()
                await write_file(other.vfs, "h", b"h")
                late.release()
            await trio.sleep(0.1)
            assert (ROOT_INODE, b"g") in kernel.names


# Names


async def test_a_name_that_was_given_away_meanwhile_is_asked_for_again(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """rename(2) promises that the replaced name is always there."""
    async with (
        running_cluster(rng) as cluster,
        gated(cluster) as (one, gate),
        cluster.client("b") as other,
    ):
        old = await write_file(other.vfs, "f", b"old")
        new = await write_file(other.vfs, "tmp", b"new")
        assert (await find(one.vfs, "f")).inode == old
        await other.vfs.setattr(SetAttr(inode=old, mtime_ns=1))  # the name stays known
        found = []

        async def look() -> None:
            found.append(await one.vfs.lookup(ROOT_INODE, b"f"))

        late = gate.request("meta/getattr")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await late.arrived.wait()
            await other.vfs.rename(ROOT_INODE, b"tmp", ROOT_INODE, b"f", 0)
            await cluster.until(lambda s: s.inodes == 2, 10)  # the old one is purged
            late.release()
        assert found[0] is not None and found[0].inode == new


async def test_an_answer_about_a_name_that_means_something_else_by_now_is_not_for_keeps(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """A page of a directory, for one, may be given to the kernel long after it came."""
    async with running_cluster(rng) as cluster, gated(cluster) as (client, _gate):
        vfs = client.vfs
        old = await write_file(vfs, "f", b"old")
        new = await write_file(vfs, "tmp", b"new")
        handle = await vfs.opendir(ROOT_INODE)
        page = await vfs.readdir(handle, 0)
        await vfs.rename(ROOT_INODE, b"tmp", ROOT_INODE, b"f", 0)
        entry = next(entry for entry in page if entry.name == b"f")
        assert entry.attr.inode == old
        assert vfs.name_timeout_s(ROOT_INODE, b"f", entry.attr.inode) == 0
        assert vfs.name_timeout_s(ROOT_INODE, b"f", None) == 0
        assert vfs.name_timeout_s(ROOT_INODE, b"f", new) > 0
        vfs.releasedir(handle)


async def test_a_directory_that_is_new_here_shows_what_others_make_in_it(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """Who made it knows that it is empty, without a question."""
    async with (
        running_cluster(rng) as cluster,
        cluster.client("a") as one,
        cluster.client("b") as other,
    ):
        await trio.sleep(1)  # until its stream of events is open nothing is kept
        made = await one.vfs.mkdir(ROOT_INODE, b"d", 0o755, 0, 0)
        assert one.vfs.name_timeout_s(made.inode, b"x", None) > 0
        await other.vfs.mkdir(made.inode, b"x", 0o755, 0, 0)
        assert await one.vfs.lookup(made.inode, b"x") is not None


async def test_dot_and_dotdot_of_a_directory_whose_names_are_all_known(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng) as cluster, gated(cluster) as (client, _gate):
        directory = (await client.vfs.mkdir(ROOT_INODE, b"d", 0o755, 0, 0)).inode
        parent = await client.vfs.lookup(directory, b"..")
        itself = await client.vfs.lookup(directory, b".")
        assert parent is not None and parent.inode == ROOT_INODE
        assert itself is not None and itself.inode == directory


async def test_dot_of_a_file_is_the_file(autojump_clock: MockClock, rng: random.Random) -> None:
    """The kernel asks so for what it has only a file handle of (open_by_handle_at, NFS)."""
    async with running_cluster(rng) as cluster, cluster.client() as client:
        inode = await write_file(client.vfs, "f", b"f")
        found = await client.vfs.lookup(inode, b".")
        assert found is not None and found.inode == inode


# Open files whose name goes


async def test_a_file_is_not_opened_after_it_was_given_up(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """An open that succeeds is an open that lasts."""
    async with (
        running_cluster(rng) as cluster,
        gated(cluster) as (one, gate),
        cluster.client("b") as other,
    ):
        inode = await write_file(other.vfs, "f", b"data")
        assert (await find(one.vfs, "f")).inode == inode
        release = gate.request("meta/batch")
        await other.vfs.unlink(ROOT_INODE, b"f")
        await release.arrived.wait()  # "not open here" is on its way
        try:
            handle = await one.vfs.open(inode, os.O_RDONLY)
        except NoEntry:
            release.release()
            return
        release.release()
        await trio.sleep(5)
        assert bytes(await one.vfs.read(handle, 0, 10)) == b"data"


@pytest.mark.parametrize("first", ["open", "unlink"])
async def test_a_file_opened_while_the_stream_is_being_opened_again(
    autojump_clock: MockClock, rng: random.Random, first: str
) -> None:
    """Too late to be named in the request for the stream, too early to be told of the unlink."""
    async with (
        running_cluster(rng) as cluster,
        gated(cluster) as (one, gate),
        cluster.client("b") as other,
    ):
        inode = await write_file(other.vfs, "f", b"data")
        assert (await find(one.vfs, "f")).inode == inode
        handles = []

        async def open_it() -> None:
            with suppress(NoEntry):
                handles.append(await one.vfs.open(inode, os.O_RDONLY))

        async def unlink_it() -> None:
            await other.vfs.unlink(ROOT_INODE, b"f")

        held = await reconnect(gate)
        async with trio.open_nursery() as nursery:
            for task in (open_it, unlink_it) if first == "open" else (unlink_it, open_it):
                nursery.start_soon(task)
                await trio.sleep(1)
            held.release()
        await trio.sleep(5)
        for handle in handles:
            assert bytes(await one.vfs.read(handle, 0, 10)) == b"data"
            await one.vfs.release(handle)
        await cluster.until(lambda s: s.inodes == 1, 10)


async def test_an_open_on_a_soft_mount_does_not_wait_for_ever(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng) as cluster, gated(cluster, soft_s=3.0) as (client, gate):
        inode = await write_file(client.vfs, "f", b"f")
        held = await reconnect(gate)
        began = trio.current_time()
        with pytest.raises(Unavailable):
            await client.vfs.open(inode, os.O_RDONLY)
        assert trio.current_time() - began < 5
        assert client.files.open_inodes() == []
        held.release()


async def test_removing_a_name_that_was_given_to_an_open_file_meanwhile(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with (
        running_cluster(rng) as cluster,
        gated(cluster) as (one, gate),
        cluster.client("b") as other,
    ):
        await write_file(other.vfs, "f", b"old")
        inode = await write_file(other.vfs, "tmp", b"data")
        assert await read_file(one.vfs, "f") == b"old"
        handle = await one.vfs.open(inode, os.O_RDONLY)
        late = gate.request("meta/batch")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.vfs.unlink, ROOT_INODE, b"f")
            await late.arrived.wait()
            await other.vfs.rename(ROOT_INODE, b"tmp", ROOT_INODE, b"f", 0)
            late.release()
        await trio.sleep(5)
        assert bytes(await one.vfs.read(handle, 0, 10)) == b"data"
        await one.vfs.release(handle)
        await cluster.until(lambda s: s.inodes == 1, 10)


async def test_a_rename_over_a_name_that_was_given_to_an_open_file_meanwhile(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with (
        running_cluster(rng) as cluster,
        gated(cluster) as (one, gate),
        cluster.client("b") as other,
    ):
        await write_file(one.vfs, "mine", b"mine")
        inode = await write_file(other.vfs, "tmp", b"data")
        handle = await one.vfs.open(inode, os.O_RDONLY)
        assert await one.vfs.lookup(ROOT_INODE, b"f") is None
        late = gate.request("meta/batch")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.vfs.rename, ROOT_INODE, b"mine", ROOT_INODE, b"f", 0)
            await late.arrived.wait()
            await other.vfs.rename(ROOT_INODE, b"tmp", ROOT_INODE, b"f", 0)
            late.release()
        await trio.sleep(5)
        assert bytes(await one.vfs.read(handle, 0, 10)) == b"data"
        await one.vfs.release(handle)
        await cluster.until(lambda s: s.inodes == 2, 10)


# Attributes


async def test_results_that_come_out_of_order_leave_the_newest(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """The kernel believes the answer that it gets for as long as `attr_timeout_s` says."""
    async with running_cluster(rng) as cluster, gated(cluster) as (client, gate):
        inode = await write_file(client.vfs, "f", b"f")
        late = gate.reply("meta/batch")
        answers = []

        async def link() -> None:
            answers.append(await client.vfs.link(inode, ROOT_INODE, b"g"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(link)
            await late.arrived.wait()
            await client.vfs.setattr(SetAttr(inode=inode, mode=0o600))
            late.release()
        assert client.vfs.attr_timeout_s(inode) == 0 or answers[0].mode & 0o777 == 0o600


# Errors


@pytest.mark.parametrize("time_ns", [10**23, -(10**23)])
async def test_times_beyond_what_can_be_kept_are_the_nearest_that_can(
    autojump_clock: MockClock, rng: random.Random, time_ns: int
) -> None:
    """utimensat(2) takes seconds of 64 bits; Linux's own file systems take the nearest time."""
    async with running_cluster(rng) as cluster, cluster.client() as client:
        inode = await write_file(client.vfs, "f", b"f")
        await client.vfs.setattr(SetAttr(inode=inode, mtime_ns=time_ns, atime_ns=5))
        attr = await client.vfs.getattr(inode)
        assert (attr.mtime_ns > 2**62) == (time_ns > 0) and attr.atime_ns == 5


async def test_a_mount_survives_a_metad_that_cannot_write(
    autojump_clock: MockClock, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is full: nothing can be changed, but the mount lives on, and so it ends later."""
    async with (
        running_cluster(rng) as cluster,
        cluster.client("a") as one,
        cluster.client("b") as other,
    ):
        inode = await write_file(other.vfs, "f", b"f")
        assert (await find(one.vfs, "f")).inode == inode
        handle = await one.vfs.open(inode, os.O_RDONLY)
        await other.vfs.unlink(ROOT_INODE, b"f")
        with full_disk(cluster, monkeypatch):
            await one.vfs.release(handle)
            await trio.sleep(10)
            with pytest.raises(DFSError):
                await one.vfs.mkdir(ROOT_INODE, b"d", 0o755, 0, 0)
        await cluster.until(lambda s: s.inodes == 1, 60)


async def test_a_session_is_opened_anew_once_metad_can_write_again(
    autojump_clock: MockClock,
    rng: random.Random,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: ExpectLog,
) -> None:
    expect_log("metad ended this client's session")
    async with running_cluster(rng) as cluster, cluster.client() as client:
        await write_file(client.vfs, "f", b"f")
        assert client.session.grant is not None
        client.session.lost(client.session.grant.session)
        with full_disk(cluster, monkeypatch):
            await trio.sleep(10)
        assert await read_file(client.vfs, "f") == b"f"


async def test_a_session_that_metad_cannot_close_ends_with_its_lease(
    autojump_clock: MockClock, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_cluster(rng) as cluster, cluster.client() as client:
        await write_file(client.vfs, "f", b"f")
        monkeypatch.setattr(cluster._database, "write", no_space)


async def no_space(work: Callable[[], object]) -> object:
    raise NoSpace("the metadata database failed: disk full (injected)")


@contextmanager
def full_disk(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(cluster._database, "write", no_space)
        yield


async def test_a_file_that_cannot_be_told_of_after_its_creation_is_not_left_open(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with (
        running_cluster(rng) as cluster,
        gated(cluster, soft_s=1.0) as (one, gate),
        cluster.client("b") as other,
    ):
        inode = await write_file(one.vfs, "f", b"f")
        created, first = gate.reply("meta/batch"), gate.reply("meta/getattr")

        async def create() -> None:
            with pytest.raises(Unavailable):
                await one.vfs.create(ROOT_INODE, b"f", 0o644, os.O_RDWR, 0, 0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(create)
            for held in (created, first):  # neither answer may be kept
                await held.arrived.wait()
                await other.vfs.setattr(SetAttr(inode=inode, mode=0o600))
                if held is first:
                    gate.request("meta/getattr")  # never answered
                held.release()
        assert one.files.open_inodes() == []


@pytest.mark.parametrize("change", ["mode", "name"])
async def test_a_change_that_happens_after_it_was_given_up_is_seen(
    autojump_clock: MockClock, rng: random.Random, change: str
) -> None:
    """A soft mount: the application was told ETIMEDOUT, and metad's disk got to it later."""
    async with running_cluster(rng) as cluster, gated(cluster, soft_s=1.0) as (client, _gate):
        inode = await write_file(client.vfs, "f", b"f")
        write, slow = cluster._database.write, trio.Event()

        async def slow_write(work: Callable[[], Any]) -> Any:
            await slow.wait()
            return await write(work)

        cluster._database.write = slow_write  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            if change == "mode":
                await client.vfs.setattr(SetAttr(inode=inode, mode=0o600))
            else:
                await client.vfs.unlink(ROOT_INODE, b"f")
        assert (await find(client.vfs, "f")).mode & 0o777 == 0o644
        slow.set()
        await trio.sleep(10)
        # It has happened or it never will; either way this client sees what others see.
        async with cluster.client("b") as other:
            truth = await other.vfs.lookup(ROOT_INODE, b"f")
        assert await client.vfs.lookup(ROOT_INODE, b"f") == truth


async def test_slow_answers_of_the_kernel_do_not_keep_later_ones_from_being_asked(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """Forty threads wait for pages that are being read: the next invalidation needs one more."""
    told: list[int] = []
    go_on = threading.Event()

    class Slow(Kernel):
        def forget_inode(self, inode: int, data: bool) -> None:
            if not go_on.is_set() and len(told) < 60:
                told.append(inode)
                go_on.wait(10)

    async with trio.open_nursery() as nursery:
        notices = Notices(nursery)
        notices.kernel = Slow()
        try:
            for inode in range(1, 51):
                await notices.tell({inode: True}, [])
            await trio.to_thread.run_sync(time.sleep, 0.2, limiter=trio.CapacityLimiter(1))
            assert sorted(told) == list(range(1, 51))
        finally:
            go_on.set()


async def test_df_counts_inodes_once(autojump_clock: MockClock, rng: random.Random) -> None:
    async with running_cluster(rng) as cluster, cluster.client() as client:
        requests = Requests(NoLibrary(), client.coherence.drop_all)
        figures = await Handlers(client.vfs, KernelCaches(), requests).statfs(cast(Any, None))
        assert figures.f_files - figures.f_ffree == 1  # the root


# Everything at once


NAMES = [b"a", b"b", b"c", b"d"]


class Model:
    """The truth: what each name is, as after every completed change."""

    def __init__(self, rng: random.Random, clients: list[FileSystem]) -> None:
        self._rng = rng
        self._clients = clients
        self.files: dict[bytes, tuple[bytes, int]] = {}  # name -> (content, mode)

    async def change(self) -> None:
        """One random change by a random client, done when it returns."""
        rng, vfs = self._rng, self._rng.choice(self._clients).vfs
        name, other = rng.sample(NAMES, 2)
        kind = rng.choice(["write", "write", "chmod", "unlink", "rename", "truncate"])
        if kind == "write":
            content = rng.randbytes(rng.choice([0, 10, 9000]))
            await write_file(vfs, name.decode(), content)
            self.files[name] = (content, self.files.get(name, (b"", 0o644))[1])
        elif name not in self.files:
            assert await vfs.lookup(ROOT_INODE, name) is None
        elif kind == "unlink":
            await vfs.unlink(ROOT_INODE, name)
            del self.files[name]
        elif kind == "rename":
            await vfs.rename(ROOT_INODE, name, ROOT_INODE, other, 0)
            self.files[other] = self.files.pop(name)
        else:
            await self._set_attributes(vfs, name, kind)

    async def _set_attributes(self, vfs: Vfs, name: bytes, kind: str) -> None:
        content, mode = self.files[name]
        inode = (await find(vfs, name.decode())).inode
        if kind == "chmod":
            mode = self._rng.choice([0o600, 0o640, 0o644])
            await vfs.setattr(SetAttr(inode=inode, mode=mode))
        else:
            size = self._rng.choice([0, 5, 9500])
            await vfs.setattr(SetAttr(inode=inode, size=size))
            content = content[:size].ljust(size, b"\0")
        self.files[name] = (content, mode)

    async def check(self) -> None:
        """Every client sees the truth."""
        for number, client in enumerate(self._clients):
            assert sorted(await names(client.vfs, "")) == sorted(self.files), number
            for name in NAMES:
                attr = await client.vfs.lookup(ROOT_INODE, name)
                assert (attr is not None) == (name in self.files), (number, name)
                if attr is not None:
                    content, mode = self.files[name]
                    assert (attr.size, attr.mode & 0o777) == (len(content), mode), (number, name)
                    assert await read_file(client.vfs, name.decode()) == content, (number, name)

    async def make_noise(self, client: FileSystem) -> None:
        """Questions whose answers are under way whenever something changes."""
        while True:
            with suppress(NoEntry):
                name = self._rng.choice([*NAMES, b""]).decode()
                await (read_file(client.vfs, name) if name else names(client.vfs, ""))
            await trio.sleep(self._rng.choice([0.01, 0.1, 1.0, 3.0]))


@pytest.mark.parametrize("seed", range(12))
async def test_two_clients_see_every_completed_change(
    autojump_clock: MockClock, seed: int, tolerate_log: ExpectLog
) -> None:
    """Late, lost and doubled messages, broken streams, a metad that is killed; and always some
    answers that are overtaken."""
    tolerate_log("lease ended|does not answer")
    rng = random.Random(seed)
    async with (
        running_cluster(rng) as cluster,
        gated(cluster, "a") as (one, gate),
        gated(cluster, "b") as (other, other_gate),
    ):
        model = Model(rng, [one, other])
        gate.latency = other_gate.latency = lambda: rng.choice([0.0, 0.01, 0.1])
        cluster.set_faults(Faults(lost_request=0.02, lost_reply=0.02, duplicate=0.02, delay=0.1))
        async with trio.open_nursery() as nursery:
            for client in (one, one, other, other):
                nursery.start_soon(model.make_noise, client)
            for step in range(60):
                if rng.random() < 0.3:
                    rng.choice([gate, other_gate]).break_streams()
                    await trio.sleep(rng.choice([0.0, 0.2, 0.4]))
                if step in (20, 40):
                    await cluster.kill_metad()
                    await cluster.start_metad()
                await model.change()
                await model.check()
            nursery.cancel_scope.cancel()
        cluster.set_faults(Faults())
