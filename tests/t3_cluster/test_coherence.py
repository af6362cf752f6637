"""Two clients, whose messages are late, lost or held back: nobody is told what is not so."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from dfsmount.client import FileSystem
from dfsmount.vfs import Vfs
from dfswire.errors import NoEntry
from dfswire.messages import ROOT_INODE
from dfswire.operations import SetAttr
from tests.fakes import Faults
from tests.t3_cluster.cluster import running_cluster
from tests.t3_cluster.files import find, names, read_file, write_file
from tests.t3_cluster.gate import gated

ExpectLog = Callable[[str], None]


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


async def test_what_is_about_to_change_is_not_remembered(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    """While a change waits for a client that is dead, others see what is, and keep nothing."""
    expect_log("the lease ended without an answer from metad")
    async with running_cluster(rng) as cluster, cluster.client() as one, cluster.client() as other:
        inode = await write_file(one.vfs, "f", b"f")
        async with cluster.client() as dead:
            await names(dead.vfs, "")
            with cluster.cut_off(dead):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(one.vfs.rename, ROOT_INODE, b"f", ROOT_INODE, b"g", 0)
                    await trio.sleep(10)
                    with trio.fail_after(1):
                        assert await names(other.vfs, "") == [b"f"]
                        assert await other.vfs.lookup(ROOT_INODE, b"g") is None
                        assert (await other.vfs.getattr(inode)).nlink == 1
                    assert other.vfs.name_timeout_s(ROOT_INODE, b"f", inode) == 0
                    assert other.vfs.name_timeout_s(ROOT_INODE, b"g", None) == 0
                assert await names(other.vfs, "") == [b"g"]
                assert await other.vfs.lookup(ROOT_INODE, b"f") is None
                assert other.vfs.name_timeout_s(ROOT_INODE, b"f", None) > 0
