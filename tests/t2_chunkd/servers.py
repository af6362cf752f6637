"""Chunk servers in one process, and a metad that says what a test wants.

Everything runs inline over tests.fakes.DirectTransport; stores are in memory.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from typing import Any

from chunkd.assembly import Service, create_service
from chunkd.config import ChunkdConfig
from chunkd.identity import ServerIdentity
from dfswire.bodies import BodySource
from dfswire.calls import by_path
from dfswire.chunks import WriteChunk, WriteReply, block_checksums
from dfswire.client import Client
from dfswire.dispatch import Dispatcher, Handler
from dfswire.errors import Invalid
from dfswire.heartbeats import Heartbeat, HeartbeatReply
from dfswire.hosts import HostFigures, Register, Registered
from dfswire.inventories import ChangesReply, Inventory, InventoryChanges, InventoryReply
from dfswire.messages import Replica
from dfswire.orders import Order
from tests.fakes import DirectTransport
from tests.memorystore import MemoryChunkStore

METAD = "metad:9400"


def config_for(**settings: Any) -> ChunkdConfig:
    """Settings for a server in memory."""
    return ChunkdConfig(metad=METAD, data=["/nowhere"], **settings)


class ChunkServer:
    """One chunkd with one disk; `name` is its server id, disk and host."""

    def __init__(self, name: str, transport: DirectTransport, **settings: Any) -> None:
        self.name = name
        self.address = f"{name}:9500"
        self.store = MemoryChunkStore(name)
        self.identity = ServerIdentity(name, 1)
        self.client = Client(transport=transport, jitter=random.Random(0))
        self.service: Service = create_service(
            [self.store],
            self.client,
            config_for(**settings),
            self.identity,
            address=self.address,
            inline=True,
            host=lambda: HostFigures(hostname=name),
            rng=random.Random(0),
        )
        self.dispatcher = Dispatcher("chunkd", self.service.handlers)
        transport.up(self.address, self.dispatcher)

    @property
    def replica(self) -> Replica:
        return Replica(disk=self.name, address=self.address)


class FakeMetad:
    """Remembers what it hears; answers are attributes that a test changes."""

    def __init__(self, transport: DirectTransport) -> None:
        self.transport = transport
        self.registrations: list[Register] = []
        self.heartbeats: list[Heartbeat] = []
        self.pages: list[Inventory] = []
        self.changes: list[InventoryChanges] = []
        self.wants_whole = False
        self.orders: list[Order] = []
        self.unknown: set[bytes] = set()
        self.called_off: list[int] = []
        self.incarnation = 0
        self.wants_registration = True
        self.on_register: Callable[[Register], None] = lambda message: None
        self.on_page: Callable[[Inventory], None] = lambda message: None

        async def refuse(request: Any, body: BodySource) -> Any:
            raise Invalid("not a call of a chunkd")

        self.handlers: dict[str, Handler] = {
            **{call.name: refuse for call in by_path("metad").values()},
            "server.register": self.register,
            "server.heartbeat": self.heartbeat,
            "server.inventory": self.inventory,
            "server.changes": self.hear_changes,
        }
        self.dispatcher = Dispatcher("metad", self.handlers)
        self.up()

    def up(self) -> None:
        self.transport.up(METAD, self.dispatcher)

    def down(self) -> None:
        self.transport.down(METAD)

    async def register(self, request: Register, body: BodySource) -> Registered:
        self.on_register(request)
        self.registrations.append(request)
        self.wants_registration = False
        return Registered(cluster_id="c1", heartbeat_s=1.0, incarnation=self.incarnation)

    async def heartbeat(self, request: Heartbeat, body: BodySource) -> HeartbeatReply:
        if self.wants_registration:
            return HeartbeatReply(register=True)
        self.heartbeats.append(request)
        orders, self.orders = self.orders, []
        called_off, self.called_off = self.called_off, []
        return HeartbeatReply(orders=orders, called_off=called_off)

    async def hear_changes(self, request: InventoryChanges, body: BodySource) -> ChangesReply:
        self.changes.append(request)
        new = {request.new[at : at + 16] for at in range(0, len(request.new), 16)}
        return ChangesReply(unknown=sorted(new & self.unknown), whole=self.wants_whole)

    async def inventory(self, request: Inventory, body: BodySource) -> InventoryReply:
        self.pages.append(request)
        self.on_page(request)
        listed = {request.chunks[at : at + 16] for at in range(0, len(request.chunks), 16)}
        return InventoryReply(unknown=sorted(listed & self.unknown))


async def write_chain(
    client: Client,
    chain: list[ChunkServer],
    chunk: bytes,
    data: bytes,
    *,
    durable: bool = False,
    checksums: bytes | None = None,
    pieces: int = 1,
    deadline_s: float = 5.0,
) -> WriteReply:
    """As a client writes: to the first server, in so many pieces."""
    head, *rest = chain
    request = WriteChunk(
        chunk=chunk,
        length=len(data),
        checksums=checksums if checksums is not None else block_checksums(chunk, data),
        disk=head.name,
        chain=[server.replica for server in rest],
        durable=durable,
    )

    async def body() -> AsyncIterator[bytes]:
        step = -(-len(data) // pieces)
        for at in range(0, len(data), step):
            yield data[at : at + step]

    reply: WriteReply = await client.call(
        "chunk.write",
        head.address,
        request,
        body=body(),
        body_length=len(data),
        deadline_s=deadline_s,
    )
    return reply
