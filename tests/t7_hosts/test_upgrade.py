"""Another release, one host after the other, under load; and the way back, which is a symlink."""

from __future__ import annotations

import pytest

from tests.t7_hosts.archives import archives, release
from tests.t7_hosts.cluster import CLIENT, METAD, MOUNT, REBUILT, STORES, UNIT, Deployment
from tests.t7_hosts.load import Load


@pytest.fixture(scope="module", autouse=True)
def _rebuilt(hosts: Deployment) -> None:
    archives(hosts.lab.directory / "dist", REBUILT)


def versions(cluster: Deployment) -> set[str]:
    """What the daemons say that they are; those of removed servers are asked by nobody."""
    return {cluster.status()["software"], *(each["software"] for each in cluster.servers())}


def test_there_and_back(cluster: Deployment, load: Load, fsx: Load) -> None:
    before = cluster.pids()
    cluster.playbooks.play("upgrade.yml", extra={"dfs_version": REBUILT})
    assert versions(cluster) == {REBUILT}
    after = cluster.pids()
    assert after[CLIENT] == before[CLIENT]  # programs use it
    assert all(after[host] != before[host] for host in (METAD, *STORES))
    again = cluster.playbooks.play("upgrade.yml", extra={"dfs_version": REBUILT})
    assert again.changed() == {}
    client = cluster.lab[CLIENT]
    assert client.ssh("readlink /opt/dfs/current") == REBUILT
    played = cluster.playbooks.play("upgrade.yml", extra={"dfs_version": release()})
    assert "Unpack the wheels" not in played.output  # it is still there
    assert versions(cluster) == {release()}
    load.stop()
    assert fsx.stop()["rounds"] > 100
    cluster.fsck()
    client.ssh(f"sudo touch {MOUNT}/synced")
    client.ssh(f"sudo systemctl restart {UNIT} && ls {MOUNT}/synced")


def test_it_stops_when_redundancy_would_drop(cluster: Deployment) -> None:
    before = cluster.pids()
    away = cluster.lab[STORES[1]]
    away.ssh("sudo systemctl stop chunkd")
    try:
        cluster.wait("it is missed", lambda: cluster.state_of(STORES[1]) == "down")
        played = cluster.playbooks.run(
            "upgrade.yml", extra={"dfs_version": REBUILT, "dfs_wait_s": 6}
        )
    finally:
        away.ssh("sudo systemctl start chunkd")
    assert played.status != 0
    cluster.wait_whole()
    assert versions(cluster) == {release()}
    after = cluster.pids()
    assert {host for host in before if before[host] != after[host]} == {STORES[1]}


def test_site_does_not_upgrade(cluster: Deployment) -> None:
    played = cluster.playbooks.run("site.yml", extra={"dfs_version": REBUILT})
    assert played.status != 0
    assert "Upgrade (or go back) with upgrade.yml" in played.output
    assert played.changed() == {}
