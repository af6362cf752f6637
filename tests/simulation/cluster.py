"""A cluster of real metads, chunkds and clients on simulated disks and a simulated network.

Every process is a task that can be killed at any await, or whose machine loses its power inside a
system call; what it had stored is in the disks' hands then.  The settings are those of a real
cluster with all times shortened, so that a schedule of half a minute has everything in it: leases
that end, servers that are given up, repair, reclaim, scrubs.
"""

from __future__ import annotations

import functools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio

from chunkd.assembly import create_service as create_chunkd
from chunkd.config import ChunkdConfig
from chunkd.identity import ServerIdentity
from chunkd.store import ChunkStore
from dfsmount.client import FileSystem, open_file_system
from dfsmount.config import MountConfig
from dfswire.client import Client
from dfswire.dispatch import Dispatcher
from dfswire.errors import DFSError, Removed
from dfswire.hosts import HostFigures
from dfswire.metadata import OpenSession
from metad.config import MetadConfig
from metad.service import Service as Metad
from metad.service import create_service as create_metad
from tests.simulation.clocks import Clocks
from tests.simulation.database import MetadDisk, SimulatedDatabase, open_simulated
from tests.simulation.disk import ROOT, Crash, SimulatedDisk
from tests.simulation.network import Network

T = TypeVar("T")

METAD = "metad:1"
BLOCK_BYTES = 65_536  # has one checksum; the least chunk size that there is
START_AGAIN_S = 1.0
RECLAIM_GRACE_S = 10.0


@dataclass(frozen=True)
class Shape:
    """What cluster a schedule runs on."""

    servers: int = 3
    replicas: int = 2
    clients: int = 2
    inventory_s: float = 8.0
    scrub_s: float = 12.0
    chunk_blocks: int = 1  # of BLOCK_BYTES
    tokens: bool = False  # chunkds ask for them


def metad_config(replicas: int, chunk_blocks: int = 1, *, tokens: bool = False) -> MetadConfig:
    """The defaults with shorter times."""
    return MetadConfig(
        url="sqlite://",
        tokens="on" if tokens else "off",
        replicas=replicas,
        chunk_size_bytes=chunk_blocks * BLOCK_BYTES,
        inline_max_bytes=1024,
        lease_s=6.0,
        fence_s=9.0,
        renew_s=2.0,
        sign_of_life_s=2.5,
        heartbeat_s=1.0,
        suspect_s=2.5,
        down_s=5.0,
        repair_after_s=3.0,
        order_timeout_s=8.0,
        grant_expiry_s=30.0,
        reclaim_grace_s=RECLAIM_GRACE_S,
        restore_window_s=0.0,
        trim_after_s=4.0,
        gone_after_s=600.0,
        rebalance_band=1e-6,  # two chunks more or less
        compaction_idle_s=1.0,
    )


class Process:
    """Something that runs until it is killed."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

    async def kill(self) -> None:
        self.scope.cancel()
        await self.ended.wait()


class Machine:
    """Of one chunkd: its disk, its clock, and the process that runs on it, if any does."""

    def __init__(self, number: int, disk: SimulatedDisk) -> None:
        self.number = number
        self.party = f"chunkd{number}"
        self.address = f"{self.party}:1"
        self.disk = disk
        self.process: Process | None = None
        self.incarnation = 0
        self.started_s = 0.0
        self.cluster_id = ""


class _Identity(ServerIdentity):
    """On the machine's first disk, which is the same as in its memory here."""

    machine: Machine

    def _save(self) -> None:
        self.machine.cluster_id = self.cluster_id
        self.machine.incarnation = self.incarnation


class Cluster:
    """See the module's text."""

    def __init__(
        self,
        nursery: trio.Nursery,
        seed: object,
        shape: Shape,
        trace: Callable[[str], None],
    ) -> None:
        self.shape = shape
        self.trace = trace
        self.network = Network(
            nursery, random.Random(f"network {seed}"), lambda text: trace("   " + text)
        )
        self.clocks = Clocks()
        self.leaving: set[int] = set()  # machines that operators have drained, and may remove
        self.metad_disk = MetadDisk()
        self.database: SimulatedDatabase | None = None
        self.metad: Metad | None = None
        self._metad_process: Process | None = None
        self._metad_starts = False
        self._nursery = nursery
        self._seed = seed
        self._rng = random.Random(f"metad {seed}")
        self.machines = [
            Machine(
                number,
                SimulatedDisk(
                    f"disk{number}",
                    functools.partial(self.clocks.wall_s, f"chunkd{number}"),
                    random.Random(f"disk {number} {seed}"),
                ),
            )
            for number in range(shape.servers)
        ]

    # -- metad

    async def start_metad(self) -> None:
        if self.database is not None and self.database.failure.problem is not None:
            await self.metad_has_ended()
        if self.metad_is_off:  # its lock keeps a second one out
            self._metad_starts = True
            await self._nursery.start(self._run_metad)

    async def kill_metad(self) -> None:
        """Its power, too, for all that it has asked its disk for is synced."""
        if self._metad_process is not None:
            self.network.down(METAD)
            await self._metad_process.kill()

    @property
    def metad_is_off(self) -> bool:
        return self.metad is None and not self._metad_starts

    async def metad_has_ended(self) -> None:
        if self._metad_process is not None:
            await self._metad_process.ended.wait()

    def _metad_has_crashed(self) -> None:
        """Inside one of its own calls."""
        assert self._metad_process is not None
        self.trace("metad loses its power")
        self.network.down(METAD)
        self._metad_process.scope.cancel()

    async def _run_metad(self, task_status: trio.TaskStatus[None]) -> None:
        process = self._metad_process = Process()
        self._metad_starts = False
        now_ns = functools.partial(self.clocks.wall_ns, "metad")
        try:
            with process.scope:
                self.database = open_simulated(self.metad_disk, now_ns)
                config = metad_config(
                    self.shape.replicas, self.shape.chunk_blocks, tokens=self.shape.tokens
                )
                self.metad = create_metad(
                    self.database, config, clock=self.clocks.metad, now_ns=now_ns, rng=self._rng
                )
                self.metad.compactor.extents_least = 3
                self.network.up(METAD, Dispatcher("metad", self.metad.handlers))
                self.metad_disk.crashed = self._metad_has_crashed
                task_status.started()
                try:
                    await self.metad.run()
                except* Crash:
                    self.trace("metad was at a commit of its own")
                except* DFSError:
                    if self.database.failure.problem is None:
                        raise
                    self.trace("metad ends, for its disk has failed")
                    self.network.down(METAD)
        finally:
            self.metad = None
            if self.database is not None:
                self.database.switch_off()
            process.ended.set()

    # -- chunkds

    async def start_chunkd(self, machine: Machine) -> None:
        """Until it runs: the service manager tries again when the disk does not let it."""
        if machine.process is not None and machine.disk.crashed:
            await machine.process.ended.wait()
        while machine.process is None:
            await self._nursery.start(self._run_chunkd, machine)
            if machine.process is None:
                await trio.sleep(START_AGAIN_S)

    async def kill_chunkd(self, machine: Machine) -> None:
        """What is in the page cache stays."""
        if machine.process is not None:
            self.network.down(machine.address)
            machine.disk.off = True
            await machine.process.kill()

    async def cut_power(self, machine: Machine) -> None:
        await self.kill_chunkd(machine)
        machine.disk.power_cut()

    async def _run_chunkd(self, machine: Machine, task_status: trio.TaskStatus[None]) -> None:
        if machine.process is not None:  # two faults that end at one moment have both started it
            task_status.started()
            return
        process = machine.process = Process()
        machine.incarnation += 1
        machine.started_s = trio.current_time()
        machine.disk.start()
        disk = machine.disk
        address, party = machine.address, machine.party
        started = False

        async def run(work: Callable[[], T]) -> T:
            await trio.lowlevel.checkpoint()
            if disk.slow_s:
                await trio.sleep(disk.slow_s)
            try:
                return work()
            except Crash:
                self.network.down(address)
                process.scope.cancel()
                await trio.sleep_forever()
                raise

        try:
            with process.scope:
                store = ChunkStore(
                    ROOT,
                    disk.name,
                    files=disk,
                    monotonic=trio.current_time,
                    wall=functools.partial(self.clocks.wall_s, party),
                )
                try:
                    store.recover()
                except (Crash, DFSError) as problem:
                    self.trace(f"{party} does not start: {problem}")
                    return
                identity = _Identity(f"server{machine.number}", machine.incarnation)
                identity.machine, identity.cluster_id = machine, machine.cluster_id
                config = ChunkdConfig(
                    plaintext=True,  # addresses of a network in memory
                    metad=METAD,
                    data=["/none"],
                    listen=address,
                    sync_interval_s=2.0,
                    scrub_period_s=self.shape.scrub_s,
                    scrub_min_bytes_per_s=1 << 30,
                    inventory_interval_s=self.shape.inventory_s,
                    inventory_changes_s=self.shape.inventory_s / 2,
                    unknown_min_age_s=40.0,
                    unknown_kept_s=600.0,
                )
                service = create_chunkd(
                    [store],
                    self.client_of(party),
                    config,
                    identity,
                    address=address,
                    inline=True,
                    guarded=self.shape.tokens,
                    run=run,
                    host=lambda: HostFigures(hostname=f"host{machine.number}"),
                    rng=random.Random(f"{party} {machine.incarnation} {self._seed}"),
                )
                self.network.up(address, Dispatcher("chunkd", service.handlers))
                started = True
                task_status.started()
                try:
                    await service.run()
                except* Crash:
                    self.trace(f"{party} has crashed")
                except* Removed:
                    if machine.number not in self.leaving:
                        raise
                    self.trace(f"{party} ends: it was removed")
        finally:
            self.network.down(address)
            if disk.crashed:
                disk.power_cut()
            disk.off = True
            machine.process = None
            process.ended.set()
            if not started:
                task_status.started()

    def client_of(self, party: str) -> Client:
        """Calls as this party makes them."""
        jitter = random.Random(f"jitter {party} {self._seed}")
        return Client(transport=self.network.endpoint(party), jitter=jitter)

    # -- clients

    @asynccontextmanager
    async def client(self, party: str, soft_s: float = 0.0) -> AsyncIterator[FileSystem]:
        """A mount without a kernel, as this party."""
        introduction = OpenSession(host=party, mount_point="/m", pid=1, software="simulation")
        config = MountConfig(
            METAD, "/m", soft_s=soft_s, dirty_bytes=1 << 20, cache_bytes=1 << 20, atime="noatime"
        )
        async with open_file_system(
            self.client_of(party),
            config,
            introduction,
            now_ns=functools.partial(self.clocks.wall_ns, party),
        ) as file_system:
            yield file_system

    # -- all of it

    async def start(self) -> None:
        await self.start_metad()
        for machine in self.machines:
            await self.start_chunkd(machine)
        await self.until(lambda: len(self._servers()) == self.shape.servers, 60.0)

    def _servers(self) -> list[object]:
        return list(self.metad.state.servers) if self.metad is not None else []

    async def until(self, holds: Callable[[], bool], within_s: float) -> None:
        """Wait for something to become true.  Raises trio.TooSlowError."""
        with trio.fail_after(within_s):
            while not holds():  # noqa: ASYNC110 - time is virtual
                await trio.sleep(0.5)
