"""How fast the network runtime is on this machine: small calls, chunks up and down.

    python bench/wire.py [--seconds 2] [--tls]

The server runs in a process of its own, on loopback.  Beside each chunk figure stands the limit
that plain sockets reach from Python with the same kernel calls (sendfile, recv_into) and no HTTP,
trio or codec.  Medians of three rounds; other work on the machine shows in the spread.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from dfswire import chunks, hosts
from dfswire.bodies import BodySource, FileRange, fill
from dfswire.calls import by_path
from dfswire.certificates import Authority, new_key, public_key_of
from dfswire.client import Client
from dfswire.credentials import AUTHORITY, CERTIFICATE, KEY, Credentials
from dfswire.dispatch import Dispatcher, Handler, Reply
from dfswire.errors import NotSupported
from dfswire.identity import Identity
from dfswire.messages import Empty
from dfswire.server import bound_address, listen, serve

CHUNK = b"c" * 16
CHUNK_BYTES = 4 << 20
CHECKSUMS = bytes(chunks.CHECKSUM_BYTES * chunks.block_count(CHUNK_BYTES))
MIB = 1 << 20
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round")
    parser.add_argument("--tls", action="store_true", help="with certificates on both sides")
    options = parser.parse_args()
    seconds = options.seconds
    with tempfile.TemporaryDirectory() as directory:
        server, client = _credentials(Path(directory)) if options.tls else (None, None)
        with _Process(partial(_run_server, server)) as address:
            trio.run(_measure, address, seconds, client)
    with _Process(_run_raw_server) as address:
        _measure_raw(address, seconds)


def _credentials(directory: Path) -> tuple[Credentials, Credentials]:
    """The server's and the client's."""
    authority = Authority.new("bench", 3600)
    for role in ("chunkd", "client"):
        key = new_key()
        (directory / role).mkdir()
        (directory / role / AUTHORITY).write_bytes(authority.certificate_pem)
        identity = Identity("bench", role, role)
        certificate = authority.issue(identity, public_key_of(key), 3600)
        (directory / role / CERTIFICATE).write_bytes(certificate)
        (directory / role / KEY).write_bytes(key)
    return Credentials(directory / "chunkd"), Credentials(directory / "client")


async def _measure(address: str, seconds: float, credentials: Credentials | None) -> None:
    client = Client(credentials=credentials)
    buffers = [memoryview(bytearray(CHUNK_BYTES)) for _ in range(4)]
    read = chunks.ReadChunk(chunk=CHUNK, disk="d", offset=0, length=CHUNK_BYTES)
    write = chunks.WriteChunk(chunk=CHUNK, disk="d", length=CHUNK_BYTES, checksums=CHECKSUMS)

    async def hello(_: int) -> None:
        await client.call("chunkd.hello", address, Empty())

    async def get(index: int) -> None:
        await client.call("chunk.read", address, read, into=buffers[index])

    async def put(index: int) -> None:
        await client.call("chunk.write", address, write, body=buffers[index])

    for name, work, tasks in [
        ("small calls in sequence", hello, 1),
        ("small calls, 16 in flight", hello, 16),
        ("4 MiB GET in sequence", get, 1),
        ("4 MiB GET, 4 in flight", get, 4),
        ("4 MiB PUT in sequence", put, 1),
        ("4 MiB PUT, 4 in flight", put, 4),
    ]:
        per_second = [await _rate(work, tasks, seconds) for _ in range(ROUNDS)]
        _report(name, per_second, is_chunk=work is not hello)
    await client.aclose()


async def _rate(work: Callable[[int], Awaitable[None]], tasks: int, seconds: float) -> float:
    """How often `work` completes in a second, with `tasks` of it at a time."""
    done = 0
    await work(0)
    started = time.perf_counter()

    async def repeat(index: int) -> None:
        nonlocal done
        while time.perf_counter() - started < seconds:
            await work(index)
            done += 1

    async with trio.open_nursery() as nursery:
        for index in range(tasks):
            nursery.start_soon(repeat, index)
    return done / (time.perf_counter() - started)


def _report(name: str, per_second: list[float], *, is_chunk: bool) -> None:
    factor, unit = (CHUNK_BYTES / MIB, "MiB/s") if is_chunk else (1, "calls/s")
    values = sorted(each * factor for each in per_second)
    print(f"{name:28} {statistics.median(values):8.0f} {unit}  ({values[0]:.0f}-{values[-1]:.0f})")


# The server


async def _hello(request: Empty, body: BodySource) -> hosts.Hello:
    return hosts.Hello(service="chunkd", protocol=1, software="bench", cluster_id="bench")


async def _refuse(request: Any, body: BodySource) -> Empty:
    raise NotSupported("not in this benchmark")


def _chunk_file() -> int:
    fd = os.memfd_create("chunk")
    os.write(fd, os.urandom(CHUNK_BYTES))
    return fd


def _handlers() -> dict[str, Handler]:
    fd = _chunk_file()
    buffer = memoryview(bytearray(CHUNK_BYTES))

    async def read(request: chunks.ReadChunk, body: BodySource) -> Reply:
        message = chunks.ReadReply(chunk_length=CHUNK_BYTES, checksums=CHECKSUMS)
        return Reply(message, FileRange(os.dup(fd), request.offset, request.length))

    async def write(request: chunks.WriteChunk, body: BodySource) -> chunks.WriteReply:
        await fill(body, buffer[: body.length])
        return chunks.WriteReply(results=[chunks.WriteResult(disk=request.disk)])

    names = [call.name for call in by_path("chunkd").values()]
    handlers: dict[str, Handler] = dict.fromkeys(names, _refuse)
    handlers.update({"chunkd.hello": _hello, "chunk.read": read, "chunk.write": write})
    return handlers


def _run_server(credentials: Credentials | None, tell: Callable[[str], None]) -> None:
    async def run() -> None:
        listeners = await listen("127.0.0.1:0")
        tell(bound_address(listeners[0]))
        await serve(Dispatcher("chunkd", _handlers()), listeners, credentials=credentials)

    trio.run(run)


# The same bytes without anything of ours


def _run_raw_server(tell: Callable[[str], None]) -> None:
    """One byte "g" asks for a chunk; "p" announces one, to be answered by a byte."""
    fd, buffer = _chunk_file(), memoryview(bytearray(CHUNK_BYTES))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tell(f"127.0.0.1:{listener.getsockname()[1]}")
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while command := connection.recv(1):
            if command == b"g":
                sent = 0
                while sent < CHUNK_BYTES:
                    sent += os.sendfile(connection.fileno(), fd, sent, CHUNK_BYTES - sent)
            else:
                _receive(connection, buffer)
                connection.sendall(b"k")


def _measure_raw(address: str, seconds: float) -> None:
    host, port = address.split(":")
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def get() -> None:
            connection.sendall(b"g")
            _receive(connection, buffer)

        def put() -> None:
            connection.sendall(b"p")
            connection.sendall(buffer)
            connection.recv(1)

        for name, work in (("limit: plain sockets, GET", get), ("limit: plain sockets, PUT", put)):
            per_second = [_raw_rate(work, seconds) for _ in range(ROUNDS)]
            _report(name, per_second, is_chunk=True)


def _raw_rate(work: Callable[[], None], seconds: float) -> float:
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        work()
        done += 1
    return done / (time.perf_counter() - started)


def _receive(connection: socket.socket, buffer: memoryview) -> None:
    received = 0
    while received < CHUNK_BYTES:
        received += connection.recv_into(buffer[received:])


class _Process:
    """A server in its own process while the `with` block lasts; gives its address."""

    def __init__(self, run: Callable[[Callable[[str], None]], None]) -> None:
        context = multiprocessing.get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=run, args=(sender.send,), daemon=True)

    def __enter__(self) -> str:
        self._process.start()
        address: str = self._receiver.recv()
        return address

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()


if __name__ == "__main__":
    main()
