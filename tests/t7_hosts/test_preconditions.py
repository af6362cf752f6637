"""What a host lacks is said before anything on it is changed, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.t7_hosts.cluster import METAD, NEW, Deployment
from tests.t7_hosts.machine import Machine

# What is wrong, how it comes about, how it goes away, variables, and what must be said.
CASES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "disk not empty": (
        "sudo touch /srv/dfs/disk2/somebodys",
        "sudo rm /srv/dfs/disk2/somebodys",
        {},
        "/srv/dfs/disk2 is not empty and does not belong to a chunkd: move away",
    ),
    "disk not mounted": (
        "sudo mkdir /srv/dfs/plain",
        "sudo rmdir /srv/dfs/plain",
        {"dfs_disks": ["/srv/dfs/plain"]},
        "/srv/dfs/plain is not a mount point: mount the disk there",
    ),
    "no disk": ("true", "true", {"dfs_disks": ["/srv/none"]}, "/srv/none does not exist: make"),
    "port in use": (
        "sudo systemd-run --quiet --unit=other --property=Type=exec"
        " python3 -m http.server 9500 && timeout 20 sh -c"
        " 'until ss -Hltn sport = :9500 | grep -q .; do sleep 0.1; done'",
        "sudo systemctl stop other",
        {},
        "port 9500 is in use",
    ),
    "wrong system": (
        "sudo cp -L /etc/os-release /etc/kept; sudo cp /etc/debian_version /etc/kept2;"
        " sudo rm /etc/os-release; sed s/12/11/g /etc/kept | sudo tee /etc/os-release;"
        " echo 11.9 | sudo tee /etc/debian_version",
        "sudo mv /etc/kept /etc/os-release; sudo mv /etc/kept2 /etc/debian_version",
        {},
        "dfs needs Debian 12 or Ubuntu 24.04, or newer",
    ),
    "wrong clock": (
        'printf \'#!/bin/sh\\nexec /bin/date -d "1 hour" "$@"\\n\' |'
        " sudo tee /usr/local/bin/date && sudo chmod +x /usr/local/bin/date",
        "sudo rm /usr/local/bin/date",
        {},
        "Let it be set by NTP",
    ),
    "outside the networks": (
        "true",
        "true",
        {"dfs_networks": ["192.0.2.0/24"]},
        "Outside dfs_networks (192.0.2.0/24): ",
    ),
    "no name for a certificate": (
        *("true", "true", {"dfs_party": "Store 4"}),
        "Store 4: names of a cluster and its hosts in certificates are 1 to 63 of",
    ),
    "no archive": ("true", "true", {"dfs_version": "9.9"}, "Build it on a machine like"),
}


@pytest.fixture
def fresh(hosts: Deployment) -> Iterator[Machine]:
    """A host that is in the inventory, and has nothing of dfs yet."""
    hosts.playbooks.groups["chunkd"][NEW] = {}
    yield hosts.lab[NEW]
    del hosts.playbooks.groups["chunkd"][NEW]


def refusal(hosts: Deployment, variables: dict[str, Any]) -> str:
    """What add-node.yml says; nothing was changed, and no task after the checks begun."""
    played = hosts.playbooks.run("add-node.yml", extra={"node": NEW, **variables})
    assert played.status != 0, played.output[-2000:]
    assert played.changed() == {}
    assert set(played.counts) == {NEW}
    return " ".join(played.output.split())


@pytest.mark.parametrize("case", CASES)
def test_it_is_said(hosts: Deployment, fresh: Machine, case: str) -> None:
    make, unmake, variables, expected = CASES[case]
    fresh.ssh(make)
    try:
        assert expected in refusal(hosts, variables)
    finally:
        fresh.ssh(unmake)


def test_they_need_no_package_that_is_installed_later(cluster: Deployment) -> None:
    machine = cluster.lab[METAD]
    # As without iproute2; where metad runs nobody asks for its port.
    machine.ssh("sudo systemctl stop metad; sudo mv /usr/bin/ss /usr/bin/ss-away")
    try:
        played = cluster.playbooks.run("preconditions.yml", extra={"dfs_hosts": METAD})
    finally:
        machine.ssh("sudo mv /usr/bin/ss-away /usr/bin/ss; sudo systemctl start metad")
    assert played.status == 0, played.output[-2000:]


def test_a_cluster_that_runs_is_not_changed_over(cluster: Deployment) -> None:
    before = cluster.pids()
    played = cluster.playbooks.run("site.yml", extra={"dfs_tls": False})
    assert played.status != 0
    assert "The cluster runs with TLS, and dfs_tls is False" in " ".join(played.output.split())
    assert played.changed() == {}
    assert cluster.pids() == before


def test_a_client_without_fuse(hosts: Deployment) -> None:
    clients = hosts.playbooks.groups["dfsmount"]
    clients[NEW] = {}
    hosts.lab[NEW].ssh("sudo mv /dev/fuse /dev/nofuse")
    try:
        played = hosts.playbooks.run("mount.yml", "--limit", NEW)
    finally:
        hosts.lab[NEW].ssh("sudo mv /dev/nofuse /dev/fuse")
        del clients[NEW]
    assert played.status != 0
    assert "there is no /dev/fuse: load the module" in " ".join(played.output.split())
    assert played.changed() == {}


def test_a_host_with_another_key_is_not_believed(hosts: Deployment) -> None:
    known = hosts.lab.access.known_hosts
    right = known.read_text()
    lines = right.splitlines()
    address = hosts.lab[METAD].address
    other = next(line for line in lines if not line.startswith(f"{address} "))
    wrong = [
        f"{address} {other.split(maxsplit=1)[1]}" if line.startswith(f"{address} ") else line
        for line in lines
    ]
    known.write_text("\n".join(wrong) + "\n")
    try:
        played = hosts.playbooks.run("status.yml", "--limit", METAD, anew=True)
    finally:
        known.write_text(right)
    assert "Host key verification failed" in played.output
    assert played.counts[METAD]["unreachable"] == 1
