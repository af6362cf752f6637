"""The `dfs` command with real daemons: up, mount, look at a file, lose a server, down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfsmount.cli.localcluster import LocalCluster
from dfsmount.cli.mounts import mount_at
from dfswire.credentials import ENVIRONMENT
from tests.t4_mount.harness import missing_for_mounts

DFS = [sys.executable, "-P", "-m", "dfsmount.cli"]


def dfs(*arguments: str | Path, status: int = 0) -> str:
    """What one command prints; its exit status must be `status`."""
    command = [*DFS, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done
    return done.stdout


def answer(*arguments: str | Path, status: int = 0) -> dict[str, Any]:
    """The JSON that one command prints."""
    loaded: dict[str, Any] = json.loads(dfs(*arguments, "--json", status=status))
    return loaded


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where a cluster may be; what was started there is stopped."""
    place = tmp_path / "a cluster"
    yield place
    if LocalCluster.is_at(place):
        dfs("down", "--dir", place, "--force")


@pytest.mark.process
def test_a_cluster_comes_up_and_goes_down(directory: Path) -> None:
    url = answer("up", "--dir", directory, "--nodes", "2")["url"]
    assert answer("up", "--dir", directory)["url"] == url  # nothing changes
    assert answer("fsck", "--dir", directory)["findings"] == []
    lines = dfs("events", "--dir", directory, "--json").splitlines()
    assert json.loads(lines[0])["kind"] == "metad.started"
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds.count("server.registered") == 2
    shown = answer("status", "--url", url)
    assert [server["state"] for server in shown["servers"]] == ["up", "up"]
    assert shown["chunks"]["total"] == shown["chunks"]["lost"] == 0
    identity = LocalCluster.open(directory).chunkds[0].running()
    assert identity is not None
    os.kill(identity.pid, signal.SIGKILL)
    assert "chunkd1    started" in dfs("up", "--dir", directory)
    assert answer("down", "--dir", directory)["stopped"]["metad"].startswith("stopped")
    assert dfs("down", "--dir", directory) == "nothing was running\n"
    dfs("status", "--url", url, status=2)


@pytest.mark.process
@pytest.mark.mount
@pytest.mark.skipif(missing_for_mounts() != "", reason=missing_for_mounts())
def test_a_mount_comes_and_goes_with_it(directory: Path, tmp_path: Path) -> None:
    point = tmp_path / "m n"
    dfs("up", "--dir", directory, "--nodes", "2", "--mount", point)
    mount = mount_at(point)
    assert mount is not None
    assert mount.metad == LocalCluster.open(directory).metad_address
    content = os.urandom(300_000)
    (point / "file").write_bytes(content)
    (point / "file").rename(point / "renamed")
    info = answer("info", point / "renamed")
    assert info["paths"] == ["/renamed"]
    assert sum(extent["length"] for extent in info["extents"]) == len(content)
    assert [len(chunk["replicas"]) for chunk in info["chunks"]] == [2]
    with (point / "renamed").open():
        dfs("down", "--dir", directory, status=2)  # it is in use
    dfs("down", "--dir", directory)
    assert mount_at(point) is None
    dfs("up", "--dir", directory)
    second = tmp_path / "second"
    second.mkdir()
    log = tmp_path / "log"
    mounted = answer("mount", mount.metad, second, "--log", log)
    assert (mounted["directory"], mounted["log"]) == (str(second), str(log))
    assert (second / "renamed").read_bytes() == content
    assert answer("umount", second) == {"directory": str(second), "stored": True}
    dfs("umount", second, status=2)


@pytest.mark.process
@pytest.mark.mount
@pytest.mark.skipif(missing_for_mounts() != "", reason=missing_for_mounts())
def test_a_cluster_with_certificates(directory: Path, tmp_path: Path) -> None:
    """Every kind of command finds its credentials, by the directory or by DFS_TLS."""
    point = tmp_path / "m"
    url = answer("up", "--dir", directory, "--nodes", "2", "--tls", "--mount", point)["url"]
    (point / "file").write_bytes(bytes(300_000))
    assert answer("status", "--dir", directory)["health"]["state"] == "ok"
    assert answer("fsck", "--dir", directory)["findings"] == []
    assert answer("metad", "journal", "--last", "1", "--dir", directory)["entries"]
    assert answer("metad", "backup", tmp_path / "copy", "--dir", directory)["size_bytes"]
    assert answer("info", point / "file", "--dir", directory)["chunks"]
    dfs("status", "--url", url, status=2)
    environment = {**os.environ, ENVIRONMENT: LocalCluster.open(directory).operator_tls}
    for words in (["status", "--url", url], ["info", str(point / "file")]):
        subprocess.run([*DFS, *words], env=environment, check=True, capture_output=True)
    assert f"'dfs mount {url} DIR -o tls=" in dfs("up", "--dir", directory)
