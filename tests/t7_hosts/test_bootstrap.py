"""From hosts with nothing but Debian to a mounted cluster; the second run changes nothing."""

from __future__ import annotations

from tests.t7_hosts.archives import release
from tests.t7_hosts.cluster import CLIENT, METAD, MOUNT, STORES, UNIT, Deployment
from tests.t7_hosts.playbooks import Played

FILES = (0, 5, 8192, 300_000, 9_000_000)


def test_files_are_written_by_cp(cluster: Deployment, bootstrap: Played) -> None:
    assert set(bootstrap.changed()) == {METAD, *STORES, CLIENT}
    client = cluster.lab[CLIENT]
    client.ssh(f"mountpoint {MOUNT}; sudo mkdir -m 1777 -p {MOUNT}/cp; mkdir /tmp/original")
    for size_bytes in FILES:
        client.ssh(f"head -c {size_bytes} /dev/urandom > /tmp/original/{size_bytes}")
    client.ssh(f"cp -r /tmp/original {MOUNT}/cp/ && sync")
    # From the servers, not from a cache.
    client.ssh(f"sudo systemctl restart {UNIT}")
    original = client.ssh("cd /tmp/original && sha256sum *")
    assert client.ssh(f"cd {MOUNT}/cp/original && sha256sum *") == original
    assert len(original.splitlines()) == len(FILES)
    client.ssh("rm -r /tmp/original")


def test_servers_are_where_the_inventory_says(cluster: Deployment) -> None:
    servers = {each["address"]: each for each in cluster.status()["servers"]}
    first, _, third = (servers[cluster.chunkd(name)] for name in STORES)
    assert (first["zone"], first["rack"], first["labels"]) == ("north", "n1", ["ssd"])
    assert (third["zone"], third["rack"], third["labels"]) == ("south", "s1", [])
    assert all(len(each["disks"]) == 2 for each in servers.values())
    assert {each["software"] for each in servers.values()} == {release()}


def test_the_services_are_not_root(cluster: Deployment) -> None:
    for host, unit in cluster.services().items():
        user = cluster.lab[host].ssh(f"ps -o user:20= -p {cluster.lab[host].main_pid(unit)}")
        assert user in ("dfs-metad", "dfs-chunkd", "dfs-mount")


def test_the_second_run_changes_nothing(cluster: Deployment) -> None:
    before = cluster.pids()
    assert cluster.playbooks.play("site.yml").changed() == {}
    assert cluster.pids() == before


def test_a_check_reports_nothing(cluster: Deployment) -> None:
    assert cluster.playbooks.play("site.yml", "--check").changed() == {}


def test_a_check_sees_what_would_change(cluster: Deployment) -> None:
    store = cluster.lab[STORES[0]]
    store.ssh("sudo sed -i s/n1/n9/ /etc/dfs/chunkd.toml")
    try:
        assert set(cluster.playbooks.play("site.yml", "--check").changed()) == {STORES[0]}
    finally:
        store.ssh("sudo sed -i s/n9/n1/ /etc/dfs/chunkd.toml")


def test_the_status_is_shown(cluster: Deployment) -> None:
    shown = cluster.playbooks.play("status.yml")
    assert shown.changed() == {}
    assert "health   OK" in shown.output
    assert f"{UNIT} active" in shown.output
