"""Two processes never share a database or a disk, and disks are not mixed between clusters."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from chunkd.identity import FORMAT_VERSION, DiskIdentity
from dfsmount.cli.localcluster import HOST, choose_ports
from metad.storage.schema import SCHEMA_VERSION
from metad.storage.sumsfile import forget_sums
from tests.t5_process.harness import Cluster
from tests.t5_process.observed import run_dfs, wait_for


@pytest.fixture
def other(_usable: None, tmp_path: Path) -> Iterator[Cluster]:
    """Another cluster: metad and one chunkd."""
    cluster = Cluster(tmp_path / "other")
    try:
        cluster.write_files()
        cluster.start("metad", "chunkd1")
        yield cluster
    finally:
        cluster.close()


def refusal(cluster: Cluster, name: str, directory: Path, **changes: str) -> str:
    """Start a daemon a second time, with another port and other changes; its one line."""
    daemon = cluster.daemon(name)
    changes = {"listen": f"{HOST}:{choose_ports(1)[0]}", **changes}
    lines = daemon.config.read_text().splitlines()
    kept = [line for line in lines if line.partition(" = ")[0] not in changes]
    config = directory / daemon.config.name
    config.write_text("\n".join([*kept, *(f'{key} = "{value}"' for key, value in changes.items())]))
    command = [str(config) if word == str(daemon.config) else word for word in daemon.command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert len(lines) == 1, done.stderr
    return lines[0]


def cluster_of(cluster: Cluster, name: str) -> str:
    """The cluster that a chunkd's disk says it belongs to; empty before it has registered."""
    identity = cluster.data(name) / "identity"
    if not identity.exists():
        return ""
    return msgspec.json.decode(identity.read_bytes(), type=DiskIdentity).cluster_id


def test_second_metad_on_one_database(cluster: Cluster, tmp_path: Path) -> None:
    line = refusal(cluster, "metad", tmp_path)
    assert "metad.db" in line


def test_second_chunkd_on_one_directory(cluster: Cluster, tmp_path: Path) -> None:
    line = refusal(cluster, "chunkd1", tmp_path)
    assert str(cluster.data("chunkd1")) in line


def test_directory_of_another_cluster(cluster: Cluster, other: Cluster, tmp_path: Path) -> None:
    # metad shows the server as up before the answer that names the cluster is on its disk: killed
    # in between it belongs to nobody yet, and the first cluster would rightly take it.
    wait_for(lambda: cluster_of(other, "chunkd1"), "the other cluster's name on the disk")
    other.kill("chunkd1")
    config = other.daemon("chunkd1").config
    config.write_text(config.read_text().replace(other.address, cluster.address))
    other.start("chunkd1")
    wait_for(lambda: "refuses this server" in other.see_log("chunkd1"), "it is told")
    status = cluster.status()
    assert len(status.servers) == 3
    assert status.foreign == [f"{HOST}:{other.daemon('chunkd1').port}"]
    assert "belongs to another cluster" in cluster.see_log("metad")


def contents(directory: Path) -> dict[str, bytes]:
    """Everything that is in a directory."""
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_database_of_a_newer_release(other: Cluster, tmp_path: Path) -> None:
    """After a downgrade: one line, and nothing is changed."""
    os.kill(other.pid("metad"), signal.SIGTERM)
    assert other.exit_status("metad") == 0
    database = other.local.metad.config.parent / "metad.db"
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE setting SET value = '99' WHERE name = 'schema_version'")
    forget_sums(str(database))
    before = contents(database.parent)
    line = refusal(other, "metad", tmp_path)
    assert f"schema version is 99, this metad knows {SCHEMA_VERSION}" in line
    forget_sums(str(database))  # which were made of what is there
    assert contents(database.parent) == before


def test_a_data_directory_of_a_newer_release(other: Cluster, tmp_path: Path) -> None:
    os.kill(other.pid("chunkd1"), signal.SIGTERM)
    assert other.exit_status("chunkd1") == 0
    directory = other.data("chunkd1")
    identity = msgspec.json.decode((directory / "identity").read_bytes())
    (directory / "identity").write_bytes(
        msgspec.json.encode({**identity, "format": FORMAT_VERSION + 1})
    )
    before = contents(directory)
    line = refusal(other, "chunkd1", tmp_path)
    assert f"has format {FORMAT_VERSION + 1}; this software reads format {FORMAT_VERSION}" in line
    assert contents(directory) == before


def test_metad_without_its_database(other: Cluster, tmp_path: Path) -> None:
    """Nobody takes the new, empty cluster for the old one: programs wait, chunks stay, and metad is
    restored from what the chunkd keeps."""
    other.start("chunkd2")
    point = other.mount()
    (point / "kept").write_bytes(b"kept" * 5000)
    os.sync()
    wait_for(lambda: other.status().journal_copies == 2, "its journal is kept")
    other.kill("metad")
    database = other.local.metad.config.parent / "metad.db"
    for path in database.parent.glob("metad.db*"):
        path.unlink()
    other.start("metad")
    wait_for(lambda: "refuses this server" in other.see_log("chunkd1"), "the chunkd is refused")
    wait_for(lambda: "waiting for the right one" in other.see_log("mnt"), "so is the mount")
    with ThreadPoolExecutor(1) as program:
        reading = program.submit((point / "kept").read_bytes)
        with pytest.raises(TimeoutError):
            reading.result(1.0)
        other.kill("metad")
        for path in database.parent.glob("metad.db*"):
            path.unlink()
        words = ["metad", "restore", "--to", f"sqlite:///{database}"]
        for name in ("chunkd1", "chunkd2"):
            words += ["--from", f"{HOST}:{other.daemon(name).port}"]
        assert run_dfs(*words)[0] == 0
        other.start("metad")
        assert reading.result(60.0) == b"kept" * 5000
    assert "belongs to another cluster" in other.see_log("metad")
    other.see_log("mnt")
