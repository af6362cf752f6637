"""Small services for the tests of this directory, and a server on loopback to put them in."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Protocol

import trio

from dfswire import chunks, hosts
from dfswire.bodies import BodySource, FileRange, read_body
from dfswire.calls import by_path
from dfswire.credentials import Credentials
from dfswire.dispatch import Dispatcher, Handler, Reply
from dfswire.errors import NotSupported, Unavailable
from dfswire.messages import Empty, Event
from dfswire.server import DEFAULT_LIMITS, Limits, bound_address, listen, serve

CHUNK = b"c" * 16


async def refuse(request: Any, body: BodySource) -> Empty:
    raise NotSupported("not in this test")


def dispatcher(service: str, handlers: dict[str, Handler]) -> Dispatcher:
    """A dispatcher whose other calls are refused."""
    names = [call.name for call in by_path(service).values()]
    return Dispatcher(service, dict.fromkeys(names, refuse) | handlers)


class Chunkd:
    """A chunkd of one chunk in memory, which counts its calls and can misbehave."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = content
        self.counts: Counter[str] = Counter()
        self.fail_next = 0  # so many calls answer Unavailable
        self.hang = False
        self.called = trio.Event()
        self.dispatcher = dispatcher(
            "chunkd",
            {
                "chunkd.hello": self.hello,
                "chunk.write": self.write,
                "chunk.read": self.read,
                "chunk.sync": self.sync,
                "chunk.verify": self.verify,
            },
        )

    async def _count(self, name: str) -> None:
        self.counts[name] += 1
        self.called.set()
        if self.hang:
            await trio.sleep_forever()
        if self.fail_next:
            self.fail_next -= 1
            raise Unavailable("told to")

    async def hello(self, request: Empty, body: BodySource) -> hosts.Hello:
        await self._count("hello")
        return hosts.Hello(service="chunkd", protocol=1, software="test", cluster_id="c")

    async def write(self, request: chunks.WriteChunk, body: BodySource) -> chunks.WriteReply:
        """A chunk on the disk "full" is refused before its body is read."""
        await self._count("write")
        if request.disk == "full":
            raise NotSupported("disk full")
        self.content = bytes(await read_body(body))
        assert not await body.receive_into(memoryview(bytearray(1))), "more than announced"
        return chunks.WriteReply(results=[chunks.WriteResult(disk=request.disk)])

    async def read(self, request: chunks.ReadChunk, body: BodySource) -> Reply:
        """From a file for the disk "file", from memory for any other."""
        await self._count("read")
        message = chunks.ReadReply(chunk_length=len(self.content), checksums=b"12345678")
        if request.disk != "file":
            return Reply(message, self.content[request.offset :][: request.length])
        fd = os.memfd_create("chunk")
        os.write(fd, self.content)
        return Reply(message, FileRange(fd, request.offset, request.length))

    async def sync(self, request: chunks.SyncChunks, body: BodySource) -> chunks.SyncReply:
        await self._count("sync")
        return chunks.SyncReply()

    async def verify(self, request: chunks.VerifyChunk, body: BodySource) -> chunks.VerifyReply:
        """A defect, for the disk "bug"."""
        await self._count("verify")
        if request.disk == "bug":
            raise ZeroDivisionError("told to")
        return chunks.VerifyReply(state="good")


class Metad:
    """A metad that sends the events put into `sender`, and says when its stream ended."""

    def __init__(self) -> None:
        self.sender, self._receiver = trio.open_memory_channel[Event](100)
        self.stream_ended = trio.Event()
        self.dispatcher = dispatcher("metad", {"session.events": self.events})

    async def events(self, request: Any, body: BodySource) -> AsyncIterator[Event]:
        return self._events()

    async def _events(self) -> AsyncIterator[Event]:
        try:
            async for event in self._receiver:
                if event.number < 0:
                    raise NotSupported("told to")
                if event.drop_all:
                    raise ZeroDivisionError("told to")
                yield event
        finally:
            self.stream_ended.set()


class Service(Protocol):
    """Whatever has a dispatcher."""

    dispatcher: Dispatcher


async def start(
    nursery: trio.Nursery,
    service: Service,
    limits: Limits = DEFAULT_LIMITS,
    credentials: Credentials | None = None,
) -> str:
    """Serve on loopback until the nursery ends; the address."""
    listeners = await listen("127.0.0.1:0")

    async def run(task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        await serve(
            service.dispatcher,
            listeners,
            limits=limits,
            credentials=credentials,
            task_status=task_status,
        )

    await nursery.start(run)
    return bound_address(listeners[0])


def write_request(length: int, disk: str = "d") -> chunks.WriteChunk:
    checksums = bytes(chunks.CHECKSUM_BYTES * chunks.block_count(length))
    return chunks.WriteChunk(chunk=CHUNK, length=length, disk=disk, checksums=checksums)


def read_request(length: int, disk: str = "d", offset: int = 0) -> chunks.ReadChunk:
    return chunks.ReadChunk(chunk=CHUNK, disk=disk, offset=offset, length=length)
