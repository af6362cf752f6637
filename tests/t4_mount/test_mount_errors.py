"""What cannot be mounted is refused by one clear line and exit status 2, and nothing is mounted."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from dfsmount.cli.mounts import mount_at
from dfswire.errors import WrongVersion
from dfswire.hosts import Hello
from dfswire.messages import Fault
from tests.t4_mount.harness import STOOD_STILL, LiveCluster, LiveMount, dfs


def mount(metad: str, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "dfsmount", metad, str(directory), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert done.returncode == 2, lines[0]
    for word in words:
        assert word in lines[0]


def test_a_missing_directory(cluster: LiveCluster, tmp_path: Path) -> None:
    assert_refused(mount(cluster.metad, tmp_path / "none"), "none", "does not exist")


def test_a_file_in_place_of_the_directory(cluster: LiveCluster, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_refused(mount(cluster.metad, tmp_path / "file"), "not a directory")


def test_a_directory_that_is_not_empty(cluster: LiveCluster, tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    assert_refused(mount(cluster.metad, tmp_path), "not empty", "nonempty")


def test_a_directory_that_is_mounted_already(cluster: LiveCluster, mount_a: LiveMount) -> None:
    assert_refused(mount(cluster.metad, mount_a.point), "mounted already")
    assert mount_at(mount_a.point) is not None


def test_a_directory_whose_mount_died(cluster: LiveCluster, tmp_path: Path) -> None:
    """Looking at it fails with ENOTCONN."""
    dead = cluster.mount("dead")
    try:
        dead.kill()
        assert_refused(mount(cluster.metad, dead.point), "mounted already", "umount")
    finally:
        cluster.mounts.remove(dead)
        dead.clear()


def test_an_unknown_option(cluster: LiveCluster, tmp_path: Path) -> None:
    assert_refused(mount(cluster.metad, tmp_path, "-o", "allow_other,fast"), "fast", "allow_other")


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999"])
def test_an_address_that_is_none(address: str, tmp_path: Path, cluster: LiveCluster) -> None:
    assert_refused(mount(address, tmp_path))


def test_a_metad_that_is_not_there(tmp_path: Path, cluster: LiveCluster) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        assert_refused(mount(address, tmp_path), "no metad answers", address)


def test_the_address_of_a_chunkd(cluster: LiveCluster, tmp_path: Path) -> None:
    address = f"127.0.0.1:{cluster.files.chunkds[0].port}"
    assert_refused(mount(address, tmp_path), address)


@contextmanager
def answering(reply: bytes) -> Iterator[str]:
    """A server that gives the same reply to everybody; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed: the test is over
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _reply(status: bytes, message: msgspec.Struct) -> bytes:
    body = msgspec.msgpack.encode(message)
    head = b"HTTP/1.1 %s\r\ncontent-type: application/msgpack\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def test_another_version_of_the_protocol(tmp_path: Path, cluster: LiveCluster) -> None:
    """A server that refuses our version, and one that says hello in its own."""
    fault = Fault(code=WrongVersion.code, message="you speak 1, this server speaks 999")
    with answering(_reply(b"400 Bad Request", fault)) as address:
        assert_refused(mount(address, tmp_path), address, "this server speaks 999")
    hello = Hello(service="metad", protocol=999, software="9.9.9", cluster_id="c")
    with answering(_reply(b"200 OK", hello)) as address:
        assert_refused(mount(address, tmp_path), address, "version 999")


def test_a_server_of_another_kind(tmp_path: Path, cluster: LiveCluster) -> None:
    reply = b"HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 5\r\n\r\nsorry"
    with answering(reply) as address:
        assert_refused(mount(address, tmp_path), address)
    with answering(b"SSH-2.0-OpenSSH_9.2\r\n") as address:
        assert_refused(mount(address, tmp_path), address)


def test_the_command_says_the_same(cluster: LiveCluster, tmp_path: Path) -> None:
    done = dfs("mount", cluster.metad, tmp_path / "none", "--log", tmp_path / "log")
    assert_refused(done, "does not exist")
    done = dfs("umount", tmp_path)
    assert_refused(done, "not a dfs mount")


def test_mounting_and_unmounting_by_command(cluster: LiveCluster, tmp_path: Path) -> None:
    point = tmp_path / "point"
    point.mkdir()
    done = dfs("mount", f"http://{cluster.metad}", point, "--log", tmp_path / "log")
    assert (done.returncode, done.stderr) == (0, "")
    (point / "by-command").write_bytes(b"x" * 100_000)
    done = dfs("umount", point)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(point) == []
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert not [line for line in log.splitlines() if "WARNING" in line and STOOD_STILL not in line]


def test_a_read_only_mount_refuses_changes(cluster: LiveCluster, here: Path) -> None:
    (here / "f").write_bytes(b"data")
    mounted = cluster.mount("readonly", "ro")
    try:
        there = mounted.point / here.name
        assert (there / "f").read_bytes() == b"data"
        with pytest.raises(OSError, match="Read-only file system"):
            (there / "g").touch()
        (here / "g").touch()
        assert sorted(os.listdir(there)) == ["f", "g"]
    finally:
        mounted.stop()
        cluster.mounts.remove(mounted)
