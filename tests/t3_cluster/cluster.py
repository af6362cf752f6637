"""A whole cluster in one trio task tree: the real metad, chunkds and clients, no sockets, no
threads.

The network is tests/fakes.py, the disks are stores in memory that can forget what was not synced,
the database is in-memory SQLite, time is virtual.  A "process" is a task that can be killed (its
memory is gone, what it stored is not) and started again.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from chunkd.assembly import Service as ChunkdService
from chunkd.assembly import create_service as create_chunkd
from chunkd.config import ChunkdConfig
from chunkd.filesystem import FileSystem as Files
from chunkd.identity import ServerIdentity
from chunkd.journal import Journal
from dfsmount.client import FileSystem, open_file_system
from dfsmount.config import MountConfig, parse_options
from dfswire.client import Client
from dfswire.dispatch import Dispatcher
from dfswire.fsck import FsckReport, FsckRequest
from dfswire.hosts import HostFigures
from dfswire.messages import Empty
from dfswire.metadata import OpenSession
from dfswire.status import ClusterStatus
from dfswire.verify import FindLost, LostReply
from metad.config import MetadConfig
from metad.recovery.restore import Restored, Wish, restore
from metad.service import create_service as create_metad
from metad.storage.database import Database
from metad.storage.opening import open_database
from tests.fakes import DirectTransport, Faults, FaultyTransport
from tests.memorystore import MemoryChunkStore
from tests.t3_cluster.links import LinkedTransport, Links

METAD = "metad:1"
CHUNK_SIZE_BYTES = 65_536  # files of a few hundred KiB have several chunks


class _Quick(Files):
    """Files of hosts that do not lose power."""

    def fsync(self, fd: int) -> None:
        """Nothing to do."""

    def fsync_directory(self, path: Path) -> None:
        """Nothing to do."""


class Process:
    """Something that runs until it is killed."""

    def __init__(self) -> None:
        self.scope: trio.CancelScope | None = None
        self.ended = trio.Event()

    async def kill(self) -> None:
        if self.scope is not None:
            self.scope.cancel()
            await self.ended.wait()
            self.scope = None


class Cluster:
    """See the module's text.  `rng` decides everything that is random."""

    def __init__(
        self,
        nursery: trio.Nursery,
        rng: random.Random,
        *,
        servers: int = 3,
        replicas: int = 2,
        chunk_size_bytes: int = CHUNK_SIZE_BYTES,
        chunkd_settings: Mapping[str, Any] | None = None,
        make_store: Callable[[int, Cluster], Any] | None = None,
        racks: Sequence[str] = (),
        metad_settings: Mapping[str, Any] | None = None,
        directory: Path | None = None,
    ) -> None:
        self.rng = rng
        self.faults = Faults()  # of the clients' connections
        self.labels: dict[int, list[str]] = {}  # of servers, from their next start on
        self.network = DirectTransport({}, nursery=nursery)
        self.links = Links()
        self._nursery = nursery
        self._wall_ns = 1_700_000_000 * 10**9
        self._directory = directory
        self.database = self._open_database()
        self._config = MetadConfig(
            url="sqlite://",
            replicas=replicas,
            chunk_size_bytes=chunk_size_bytes,
            **{"reclaim_grace_s": 60.0, "restore_window_s": 0.0, **(metad_settings or {})},
        )
        self.stores = [
            MemoryChunkStore(f"disk{number}", now=trio.current_time) for number in range(servers)
        ]
        if make_store is not None:
            self.stores = [make_store(number, self) for number in range(servers)]
        self._chunkd_settings = dict(chunkd_settings or {})
        self._incarnations = [0] * servers
        self._racks = [*racks, *[""] * servers][:servers]
        self._metad = Process()
        self._chunkds = [Process() for _ in range(servers)]
        self._transports: dict[FileSystem, FaultyTransport] = {}

    def now_ns(self) -> int:
        """A wall clock that goes with the virtual one."""
        return self._wall_ns + int(trio.current_time() * 1e9)

    # Processes

    async def start_all(self) -> None:
        await self.start_metad()
        for number in range(len(self.stores)):
            await self.start_chunkd(number)

    async def start_metad(self) -> None:
        await self._nursery.start(self._run_metad)

    def set_metad(self, **settings: Any) -> None:
        """For the next start."""
        self._config = msgspec.structs.replace(self._config, **settings)

    async def kill_metad(self) -> None:
        self.network.down(METAD)
        await self._metad.kill()

    @property
    def metadata(self) -> Path:
        """Where the database is, in a cluster that has a directory."""
        assert self._directory is not None
        return self._directory / "metad.db"

    def _open_database(self) -> Database:
        where = f"sqlite://{self.metadata}" if self._directory else "sqlite://"
        database = open_database(where, inline=True, now_ns=self.now_ns)
        database._writer.execute("PRAGMA synchronous = off")  # processes die here, hosts do not
        return database

    def journal(self, number: int) -> Journal | None:
        """The journal on the disk of a chunkd; none in a cluster without a directory."""
        if self._directory is None:
            return None
        root = self._directory / f"server{number}"
        root.mkdir(exist_ok=True)
        return Journal(root, _Quick(), kept_s=86_400.0, max_bytes=1 << 30)

    async def lose_metadata(self) -> None:
        """metad dies, and its disk with it."""
        await self.kill_metad()
        self.database.close()
        for file in self.metadata.parent.glob("metad.db*"):
            file.unlink()

    async def start_stranger(self) -> None:
        """metad is started without its database, and begins a new, empty cluster."""
        self.database = self._open_database()
        await self.start_metad()

    async def restore_metadata(self, wish: Wish | None = None) -> Restored:
        """What `dfs metad restore` does, asking every chunkd that runs; metad is not started."""
        client = Client(transport=self.network)
        addresses = [self.address(n) for n in range(len(self.stores)) if self.runs(n)]
        done = await restore(client, addresses, self.metadata, wish)
        self.database = self._open_database()
        return done

    async def start_chunkd(self, number: int) -> None:
        await self._nursery.start(self._run_chunkd, number)

    async def kill_chunkd(self, number: int, *, power_cut: bool = False) -> None:
        """A killed process keeps the page cache; a power cut loses it."""
        self.network.down(self.address(number))
        await self._chunkds[number].kill()
        if power_cut:
            self.stores[number].crash()

    def runs(self, number: int) -> bool:
        return self._chunkds[number].scope is not None

    @staticmethod
    def address(number: int) -> str:
        return f"chunkd{number}:1"

    async def _run_metad(self, task_status: trio.TaskStatus[None]) -> None:
        process = self._metad = Process()
        try:
            with trio.CancelScope() as process.scope:
                service = create_metad(
                    self.database, self._config, now_ns=self.now_ns, rng=self.rng
                )
                self.network.up(METAD, Dispatcher("metad", service.handlers))
                task_status.started()
                await service.run()
        finally:
            process.ended.set()

    def set_back(self, number: int, starts: int) -> None:
        """The identity on the disk of a chunkd that does not run is of so many starts ago."""
        self._incarnations[number] -= starts

    async def _run_chunkd(self, number: int, task_status: trio.TaskStatus[None]) -> None:
        process = self._chunkds[number] = Process()
        self._incarnations[number] += 1
        identity = ServerIdentity(f"server{number}", self._incarnations[number], "")
        address = self.address(number)
        try:
            with trio.CancelScope() as process.scope:
                service = self.make_chunkd(number, address, identity)
                self.network.up(address, Dispatcher("chunkd", service.handlers))
                task_status.started()
                await service.run()
        finally:
            process.ended.set()

    def make_chunkd(self, number: int, address: str, identity: ServerIdentity) -> ChunkdService:
        """A chunkd with the disk of server `number`."""
        config = ChunkdConfig(
            plaintext=True,  # addresses of a network in memory
            metad=METAD,
            data=["/none"],
            listen=address,
            rack=self._racks[number],
            labels=self.labels.get(number, []),
            **self._chunkd_settings,
        )
        return create_chunkd(
            [self.stores[number]],
            Client(transport=LinkedTransport(self.network, self.links, address)),
            config,
            identity,
            address=address,
            inline=True,
            host=lambda: HostFigures(hostname=f"host{number}"),
            rng=self.rng,
            journal=self.journal(number),
            now_ns=self.now_ns,
            guarded=self._config.uses_tokens,
        )

    # Clients

    @asynccontextmanager
    async def client(
        self, name: str = "client", soft_s: float = 0.0, options: str = ""
    ) -> AsyncIterator[FileSystem]:
        """A client whose connections have the cluster's faults."""
        network = LinkedTransport(self.network, self.links, name)
        transport = FaultyTransport(network, source=self.rng, faults=self.faults)
        introduction = OpenSession(host=name, mount_point="/m", pid=1, software="test")
        config = parse_options(MountConfig(METAD, "/m", soft_s=soft_s), options)
        async with AsyncExitStack() as stack:
            client = Client(transport=transport)
            stack.push_async_callback(client.aclose)
            file_system = await stack.enter_async_context(
                open_file_system(client, config, introduction, now_ns=self.now_ns)
            )
            self._transports[file_system] = transport
            yield file_system

    @contextmanager
    def cut_off(self, file_system: FileSystem) -> Iterator[None]:
        """Nothing that this client sends arrives; what it hears by its event stream still does."""
        transport = self._transports[file_system]
        transport.faults, before = Faults(lost_request=1.0), transport.faults
        try:
            yield
        finally:
            transport.faults = before

    def set_faults(self, faults: Faults) -> None:
        """For all clients, present and future."""
        self.faults = faults
        for transport in self._transports.values():
            transport.faults = faults

    # Questions

    async def status(self) -> ClusterStatus:
        reply: ClusterStatus = await Client(transport=self.network).call(
            "cluster.status", METAD, Empty()
        )
        return reply

    async def fsck(self) -> FsckReport:
        reply: FsckReport = await Client(transport=self.network).call(
            "cluster.fsck", METAD, FsckRequest()
        )
        return reply

    async def lost(self) -> LostReply:
        """The damaged files."""
        reply: LostReply = await Client(transport=self.network).call(
            "cluster.lost", METAD, FindLost()
        )
        return reply

    async def until(self, holds: Callable[[ClusterStatus], bool], within_s: float) -> float:
        """Wait for a state of the cluster; how long it took.  Raises trio.TooSlowError."""
        began = trio.current_time()
        with trio.fail_after(within_s):
            while not holds(await self.status()):  # noqa: ASYNC110 - time is virtual
                await trio.sleep(0.5)
        return trio.current_time() - began


def fully_replicated(status: ClusterStatus) -> bool:
    chunks = status.chunks
    return not chunks.under_replicated and not chunks.lost


@asynccontextmanager
async def running_cluster(
    rng: random.Random, *, servers: int = 3, **options: Any
) -> AsyncIterator[Cluster]:
    """A cluster (see Cluster) whose servers are all up, for the length of the context."""
    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery, rng, servers=servers, **options)
        await cluster.start_all()
        await cluster.until(lambda s: len(s.servers) == servers, 30)
        yield cluster
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def pair(rng: random.Random) -> AsyncIterator[tuple[Cluster, FileSystem, FileSystem]]:
    """A cluster with two clients."""
    async with (
        running_cluster(rng) as cluster,
        cluster.client("a") as one,
        cluster.client("b") as other,
    ):
        yield cluster, one, other
