"""One disk of a storage host is taken out of service, and another one takes its place."""

from __future__ import annotations

from tests.t7_hosts.cluster import DISKS, STORES, Deployment
from tests.t7_hosts.load import Load


def disks(cluster: Deployment, name: str) -> dict[str, str]:
    """Path -> id of the disks that a server has now."""
    return {
        disk["path"]: disk["disk"]
        for each in cluster.servers()
        if each["address"] == cluster.chunkd(name)
        for disk in each["disks"]
    }


def test_a_disk_is_replaced(cluster: Deployment, load: Load) -> None:
    store, disk = STORES[0], DISKS[1]
    before = disks(cluster, store)
    cluster.playbooks.play("replace-disk.yml", extra={"node": store, "disk": disk})
    cluster.wait("it is gone", lambda: set(disks(cluster, store)) == {DISKS[0]})
    cluster.wait_whole()
    cluster.lab[store].ssh(f"sudo find {disk} -mindepth 1 -delete")  # the new one is empty
    cluster.playbooks.play("add-node.yml", extra={"node": store})
    cluster.wait("the new one is there", lambda: set(disks(cluster, store)) == set(DISKS))
    after = disks(cluster, store)
    assert after[DISKS[0]] == before[DISKS[0]]
    assert after[disk] != before[disk]
    load.stop()
    cluster.fsck()
