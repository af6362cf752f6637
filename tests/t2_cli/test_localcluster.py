"""The files of a cluster of `dfs up`, its ports, and what may be asked of it."""

from __future__ import annotations

import socket
import tomllib
from pathlib import Path

import pytest

from dfsmount.cli import localcluster
from dfsmount.cli.lifecycle import plan
from dfsmount.cli.localcluster import (
    HOST,
    PORTS,
    LocalCluster,
    Settings,
    choose_ports,
    port_is_free,
)
from dfswire.errors import AlreadyRunning, UsageError


def test_a_new_cluster(tmp_path: Path) -> None:
    cluster = plan(tmp_path / "c", None, None)
    assert not (tmp_path / "c").exists()  # a plan writes nothing
    assert len(set(cluster.settings.chunkd_ports) | {cluster.settings.metad_port}) == 4
    assert cluster.settings.replicas == 2
    assert plan(tmp_path / "c", 1, None).settings.replicas == 1


def test_what_is_written_is_found_again(tmp_path: Path) -> None:
    cluster = LocalCluster(
        tmp_path / 'a "b"', Settings(replicas=2, metad_port=20001, chunkd_ports=[20002, 20003])
    )
    cluster.write_files()
    assert LocalCluster.open(cluster.directory).settings == cluster.settings
    config = tomllib.loads(cluster.chunkds[1].config.read_text())
    assert config == {
        "metad": "127.0.0.1:20001",
        "listen": "127.0.0.1:20003",
        "data": [str(cluster.directory / "chunkd2" / "data")],
        "tls": "",
    }
    assert tomllib.loads(cluster.metad.config.read_text()) == {
        "url": f"sqlite:///{cluster.directory}/metad/metad.db",
        "listen": "127.0.0.1:20001",
        "replicas": 2,
        "cluster_id": "",
        "tls": "",
        "authority": "",
    }
    assert (cluster.directory / "chunkd1" / "data").is_dir()


def test_tls_is_kept_and_every_party_is_told_where_its_files_are(tmp_path: Path) -> None:
    plan(tmp_path, 2, None).write_files()
    plan(tmp_path, None, None, tls=True).write_files()
    cluster = plan(tmp_path, None, None)
    assert cluster.settings.tls
    for daemon in cluster.daemons:
        told = tomllib.loads(daemon.config.read_text())["tls"]
        assert told == str(cluster.directory / "tls" / daemon.name)
    assert cluster.operator_tls == str(cluster.directory / "tls" / "operator")


def test_a_cluster_may_grow_but_not_shrink(tmp_path: Path) -> None:
    first = plan(tmp_path, 2, None)
    first.write_files()
    grown = plan(tmp_path, 4, None)
    assert grown.settings.chunkd_ports[:2] == first.settings.chunkd_ports
    assert len(set(grown.settings.chunkd_ports)) == 4
    assert plan(tmp_path, None, None).settings == first.settings
    with pytest.raises(UsageError, match="only adds"):
        plan(tmp_path, 1, None)
    with pytest.raises(UsageError, match="3 replicas need"):
        plan(tmp_path, None, 3)


def test_a_spoilt_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text("replicas = 'two'\n")
    with pytest.raises(UsageError, match=r"cluster\.toml: "):
        LocalCluster.open(tmp_path)


def test_ports_that_somebody_has_are_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as somebody:
        somebody.bind((HOST, 0))
        somebody.listen()
        port = somebody.getsockname()[1]
        assert not port_is_free(port)
        monkeypatch.setattr(localcluster, "PORTS", range(port, port + 1))
        with pytest.raises(UsageError, match="no 1 free ports"):
            choose_ports(1)
    monkeypatch.setattr(localcluster, "port_is_free", lambda _: True)
    assert choose_ports(1) == [port]
    with pytest.raises(UsageError):
        choose_ports(1, taken=[port])


def test_ports_are_outside_the_range_for_outgoing_connections() -> None:
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if low < 32_768:
        pytest.skip(f"this host lets outgoing connections begin at port {low}")
    assert PORTS.stop <= low


def test_two_at_once(tmp_path: Path) -> None:
    cluster = plan(tmp_path, None, None)
    with cluster.lock(), pytest.raises(AlreadyRunning, match="at work"), cluster.lock():
        pass
    with cluster.lock():
        pass


def test_pid_files_of_mounts(tmp_path: Path) -> None:
    cluster = plan(tmp_path, None, None)
    names = {
        cluster.mount_pid_file(Path(point)).name
        for point in ("/a/b", "/a%2Fb", "/a", "/" + "deep/" * 700)
    }
    assert len(names) == 4
    assert all(len(name) < 256 for name in names)
