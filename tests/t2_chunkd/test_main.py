"""The daemon as a process: starts without metad, stops cleanly, refuses in one line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from chunkd.identity import claim
from dfswire.calls import CALLS
from dfswire.chunks import WriteChunk, block_checksums
from dfswire.client import Client
from dfswire.errors import Removed
from dfswire.hosts import Register
from dfswire.messages import Empty
from dfswire.server import bound_address, listen, serve
from tests.fakes import DirectTransport
from tests.suites.chunkstore import A
from tests.t2_chunkd.servers import FakeMetad

pytestmark = pytest.mark.process


class Daemon:
    """One chunkd with its directory, and a metad address where nobody listens."""

    def __init__(self, root: Path) -> None:
        self.data = root / "data"
        self.config = root / "chunkd.toml"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.settimeout(20)
        self.notify.bind(str(root / "notify"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.write_config()

    def write_config(self, more: str = "", metad: str = "127.0.0.1:1") -> None:
        self.config.write_text(
            f'metad = "{metad}"\nlisten = "127.0.0.1:{self.port}"\ndata = ["{self.data}"]\n{more}\n'
        )

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "chunkd", "--config", str(self.config)],
            env=os.environ
            | {"NOTIFY_SOCKET": self.notify.getsockname(), "WATCHDOG_USEC": "600000000"},
            stderr=subprocess.PIPE,
            text=True,
        )

    def refused(self) -> str:
        """Start a daemon that ends with status 2; its one line."""
        process = self.start()
        _, text = process.communicate(timeout=20)
        assert process.returncode == 2, text
        lines = [line for line in text.splitlines() if '"level": "INFO"' not in line]
        assert len(lines) == 1, text
        return lines[0]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.notify.close()


async def test_it_serves_without_metad_and_stops_cleanly(daemon: Daemon) -> None:
    process = daemon.start()
    try:
        assert daemon.notify.recv(100) == b"WATCHDOG=1"
        serving = f"STATUS=serving 1 disks on 127.0.0.1:{daemon.port}\nREADY=1"
        assert daemon.notify.recv(100).decode() == serving
        client = Client()
        address = f"127.0.0.1:{daemon.port}"
        hello = await client.call("chunkd.hello", address, Empty())
        assert hello.service == CALLS["chunkd.hello"].service
        disk = (daemon.data / "identity").read_text().partition('"disk": "')[2][:32]
        request = WriteChunk(chunk=A, length=4, checksums=block_checksums(A, b"data"), disk=disk)
        reply = await client.call("chunk.write", address, request, body=b"data")
        assert [result.error for result in reply.results] == [""]
        await client.aclose()
        process.send_signal(signal.SIGTERM)
        assert daemon.notify.recv(100) == b"STOPPING=1"
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.communicate()
    assert list(daemon.data.rglob(A.hex()))
    directories = claim([daemon.data])
    assert (directories.incarnation, directories.server_id) == (2, hello.server_id)
    directories.release()


async def test_to_be_removed_ends_it(daemon: Daemon) -> None:
    metad = FakeMetad(DirectTransport({}))

    def refuse(message: Register) -> None:
        raise Removed("this server was removed")

    metad.on_register = refuse
    listeners = await listen("127.0.0.1:0")
    daemon.write_config(metad=bound_address(listeners[0]))
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, metad.dispatcher, listeners)
        line = await trio.to_thread.run_sync(daemon.refused)
        nursery.cancel_scope.cancel()
    assert line.endswith("chunkd: this server was removed")


def test_a_port_in_use(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", daemon.port)):
        assert "cannot listen" in daemon.refused()


def test_a_directory_in_use(daemon: Daemon) -> None:
    directories = claim([daemon.data])
    assert "another chunkd uses" in daemon.refused()
    directories.release()


def test_a_data_directory_that_cannot_be_read(daemon: Daemon) -> None:
    claim([daemon.data]).release()
    (daemon.data / "chunks").write_bytes(b"not a directory")
    process = daemon.start()
    _, text = process.communicate(timeout=20)
    assert process.returncode == 2
    warning, line = text.splitlines()
    assert "is left out" in warning
    assert line == "chunkd: no data directory can be used"


def test_a_mistake_in_the_settings(daemon: Daemon) -> None:
    daemon.write_config("zonk = 3")
    assert "zonk" in daemon.refused()
