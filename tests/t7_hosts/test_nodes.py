"""Storage hosts come and go under load: added, drained, removed, rebooted, cut from power.

The programs on the mount see nothing of it: no operation fails.  Nobody else is started anew.
"""

from __future__ import annotations

from tests.t7_hosts.cluster import CREDENTIALS, METAD, NEW, PLACES, STORES, Deployment
from tests.t7_hosts.load import Load

# Asks metad to renew what a copy of a host's credentials has; run by the Python of dfs there.
RENEW = """\
import sys, trio
from pathlib import Path
from dfswire.client import Client
from dfswire.credentialfiles import signing_request
from dfswire.credentials import credentials_at
from dfswire.errors import DFSError
from dfswire.renewal import signed_by_metad

async def main(directory, metad):
    client = Client(credentials=credentials_at(directory))
    try:
        await signed_by_metad(client, metad)(signing_request(Path(directory)))
        print("renewed")
    except DFSError as problem:
        print(problem)
    finally:
        await client.aclose()

trio.run(main, *sys.argv[1:])
"""


def renewed(cluster: Deployment, name: str, directory: str) -> str:
    """ "renewed", or what metad says to whoever shows these credentials."""
    command = f"sudo /opt/dfs/current/bin/python - {directory} {cluster.metad}"
    return cluster.lab[name].ssh(command, stdin=RENEW)


def test_a_node_is_added_drained_and_removed(cluster: Deployment, load: Load) -> None:
    before = cluster.pids()
    cluster.playbooks.groups["chunkd"][NEW] = PLACES[NEW]
    try:
        played = cluster.playbooks.play("add-node.yml", extra={"node": NEW})
        assert set(played.changed()) == set(played.counts) == {NEW}  # no other host was touched
        again = cluster.playbooks.play("add-node.yml", "--check", extra={"node": NEW})
        assert again.changed() == {}
        cluster.lab[NEW].ssh(f"sudo cp -r {CREDENTIALS}/chunkd /root/stolen")
        assert renewed(cluster, NEW, "/root/stolen") == "renewed"
        cluster.wait("it receives chunks", lambda: cluster.chunks_of(NEW) > 0)
        cluster.playbooks.play("drain-node.yml", extra={"node": NEW})
        assert cluster.playbooks.play("drain-node.yml", extra={"node": NEW}).changed() == {}
    finally:
        cluster.remove(NEW)
    assert {cluster.chunkd(name) for name in STORES} == {
        each["address"] for each in cluster.servers()
    }
    cluster.lab[NEW].ssh(f"sudo test ! -e {CREDENTIALS}/chunkd")
    assert f"chunkd {NEW} was revoked" in renewed(cluster, NEW, "/root/stolen")
    cluster.lab[NEW].ssh("sudo rm -r /root/stolen")
    assert cluster.pids() == before
    load.stop()
    cluster.fsck()


def test_a_node_that_is_not_drained_is_not_removed(cluster: Deployment) -> None:
    played = cluster.playbooks.run("remove-node.yml", extra={"node": STORES[0]})
    assert played.status != 0
    assert "run drain-node.yml first" in played.output
    assert cluster.lab[STORES[0]].main_pid("chunkd.service")


def test_a_dead_node_is_removed(cluster: Deployment, load: Load) -> None:
    cluster.playbooks.groups["chunkd"][NEW] = PLACES[NEW]
    dead = cluster.lab[NEW]
    try:
        cluster.playbooks.play("add-node.yml", extra={"node": NEW})
        dead.cut_power()
        cluster.wait("it is missed", lambda: cluster.state_of(NEW) == "down")
        cluster.wait_repaired()
        played = cluster.playbooks.play("remove-node.yml", extra={"node": NEW, "accept_loss": True})
        assert "Unreachable" in played.output or "UNREACHABLE" in played.output
        cluster.wait_whole()
        dead.power_on()  # somebody has found the switch: now its chunkd is stopped as well
    finally:
        cluster.remove(NEW)
    assert not dead.main_pid("chunkd.service")
    load.stop()
    cluster.fsck()


def test_a_node_reboots(cluster: Deployment, load: Load) -> None:
    store = cluster.lab[STORES[1]]
    store.reboot()
    cluster.wait_whole()
    assert store.main_pid("chunkd.service")
    load.stop()
    cluster.fsck()


def test_a_node_loses_its_power(cluster: Deployment, load: Load) -> None:
    store = cluster.lab[STORES[2]]
    store.cut_power()
    cluster.wait("it is missed", lambda: cluster.state_of(STORES[2]) == "down")
    cluster.wait_repaired()
    store.power_on()
    cluster.wait_whole()
    load.stop()
    cluster.fsck()


def test_metads_host_reboots(cluster: Deployment, load: Load) -> None:
    cluster.lab[METAD].reboot()
    cluster.wait_whole()
    load.stop()
    cluster.fsck()
