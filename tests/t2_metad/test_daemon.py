"""The real process: it says when it is ready, refuses clearly, and stops cleanly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dfswire.client import Client
from dfswire.messages import Empty
from dfswire.status import ClusterStatus

pytestmark = pytest.mark.process

STARTED_WITHIN_S = 20.0


@dataclass
class Daemon:
    """How to start metad in a directory, and hear what it notifies."""

    directory: Path
    port: int
    notifications: socket.socket

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, name: str = "metad.toml", **settings: object) -> subprocess.Popen[str]:
        fields = {
            "url": f"sqlite:///{self.directory}/metad.db",
            "listen": self.address,
            **settings,
        }
        lines = [f"{key} = {value!r}".replace("'", '"') for key, value in fields.items()]
        config = self.directory / name
        config.write_text("\n".join(lines))
        return subprocess.Popen(
            [sys.executable, "-m", "metad", "--config", str(config)],
            env={
                **os.environ,
                "NOTIFY_SOCKET": self.notifications.getsockname(),
                "WATCHDOG_USEC": "600000000",
            },
            stderr=subprocess.PIPE,
            text=True,
        )

    def notified(self) -> bytes:
        return self.notifications.recv(200)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        notifications.bind(str(tmp_path / "notify"))
        notifications.settimeout(STARTED_WITHIN_S)
        yield Daemon(tmp_path, port, notifications)


def refusal(process: subprocess.Popen[str]) -> str:
    """The one line of a daemon that did not start."""
    _, errors = process.communicate(timeout=STARTED_WITHIN_S)
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("metad: ")]
    return line


async def test_start_serve_refuse_a_second_and_stop(daemon: Daemon) -> None:
    process = daemon.start()
    try:
        assert daemon.notified() == b"WATCHDOG=1"
        status, ready = daemon.notified().splitlines()
        assert status.endswith(f" at {daemon.address}".encode()) and ready == b"READY=1"
        client = Client()
        shown: ClusterStatus = await client.call("cluster.status", daemon.address, Empty())
        assert shown.inodes == 1
        await client.aclose()
        assert "another metad" in refusal(daemon.start("second.toml"))
        other = f"sqlite:///{daemon.directory}/other.db"
        assert "cannot listen" in refusal(daemon.start("third.toml", url=other))
        process.send_signal(signal.SIGTERM)
        assert daemon.notified() == b"STOPPING=1"
        _, errors = process.communicate(timeout=STARTED_WITHIN_S)
        assert (process.returncode, "Traceback" in errors) == (0, False), errors
        assert not (daemon.directory / "metad.db-wal").exists(), "the log is folded in"
    finally:
        process.kill()
        process.wait()


def test_a_mistake_in_the_settings_is_one_line(daemon: Daemon) -> None:
    assert "setting replicas" in refusal(daemon.start(replicas=0))
    assert "replicaz" in refusal(daemon.start(replicaz=2))
    assert "postgresql" in refusal(daemon.start(url="postgresql://host/db"))
