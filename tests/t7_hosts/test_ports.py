"""Hosts listen on what the table in docs/operations.md says, and on nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.t7_hosts import listeners
from tests.t7_hosts.archives import CLONE
from tests.t7_hosts.cluster import CLIENT, METAD, NEW, STORES, Deployment
from tests.t7_hosts.listeners import Listener

DOCUMENT = CLONE / "docs/operations.md"
ROW = re.compile(r"^\| (\d+)/(tcp|udp)\b[^|]*\| `(\w+)`[^|]*\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$")
SCAN_S = 300.0
# As the table calls them.
HOSTS = {METAD: "the host of metad", STORES[0]: "storage hosts", CLIENT: "clients"}
EVERYWHERE = "all hosts"


class Row(NamedTuple):
    """One port of the table."""

    port: int
    protocol: str
    program: str
    hosts: str
    callers: str
    authentication: str


def table() -> list[Row]:
    """The rows below "## Ports"."""
    section = DOCUMENT.read_text().partition("\n## Ports\n")[2].partition("\n## ")[0]
    rows = [match.groups() for line in section.splitlines() if (match := ROW.match(line))]
    return [Row(int(port), *rest) for port, *rest in rows]


def documented(host: str) -> set[tuple[int, str, str]]:
    """What a host may listen on: port, protocol, program."""
    return {
        (row.port, row.protocol, row.program)
        for row in table()
        if row.hosts in (HOSTS[host], EVERYWHERE)
    }


def scanned(cluster: Deployment, host: str, *ports: int) -> set[int]:
    """Its open TCP ports (of these), as a host sees them that is not in the cluster."""
    other = cluster.lab[NEW]
    other.ssh("cat > /tmp/listeners.py", stdin=Path(listeners.__file__).read_text())
    words = " ".join([cluster.lab[host].address, *map(str, ports)])
    return set(json.loads(other.ssh(f"python3 /tmp/listeners.py {words}", timeout_s=SCAN_S)))


def asked(cluster: Deployment, host: str) -> set[Listener]:
    """All that listens there, on whatever address."""
    return listeners.parse(cluster.lab[host].ssh("sudo ss -H -lntup"))


def test_the_table_says_everything() -> None:
    rows = table()
    assert {row.hosts for row in rows} <= {*HOSTS.values(), EVERYWHERE}
    assert {row.program for row in rows} >= {"metad", "chunkd"}
    assert all(row.callers and row.authentication for row in rows)


@pytest.mark.parametrize("host", HOSTS)
def test_only_what_is_documented_listens(cluster: Deployment, host: str) -> None:
    found = {(each.port, each.protocol, each.program) for each in asked(cluster, host)}
    assert found == documented(host)
    assert scanned(cluster, host) == {
        port for port, protocol, _ in documented(host) if protocol == "tcp"
    }


@pytest.mark.parametrize("host", [METAD, STORES[0]])
def test_daemons_listen_on_the_address_of_the_inventory(cluster: Deployment, host: str) -> None:
    addresses = {each.address for each in asked(cluster, host) if each.program != "sshd"}
    assert addresses == {cluster.lab[host].address}


# What would be found: one that others reach, one on loopback, one of UDP.
OTHERS = {
    "reachable": ("0.0.0.0", "SOCK_STREAM"),
    "on loopback": ("127.0.0.1", "SOCK_STREAM"),
    "of UDP": ("0.0.0.0", "SOCK_DGRAM"),
}
OTHER = """\
import os, signal, socket, sys
other = socket.socket(type=socket.{kind})
other.bind(("{address}", {port}))
if other.type == socket.SOCK_STREAM:
    other.listen()
told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
told.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
signal.pause()
"""
OTHER_PORT = 8123


@pytest.mark.parametrize("which", OTHERS)
def test_another_listener_is_found(cluster: Deployment, which: str) -> None:
    address, kind = OTHERS[which]
    client = cluster.lab[CLIENT]
    code = OTHER.format(kind=kind, address=address, port=OTHER_PORT)
    client.ssh("cat > /tmp/other.py", stdin=code)
    client.ssh("sudo systemd-run --quiet --unit=other -p Type=notify python3 /tmp/other.py")
    try:
        assert OTHER_PORT in {each.port for each in asked(cluster, CLIENT)}
        reached = scanned(cluster, CLIENT, OTHER_PORT)
        assert reached == ({OTHER_PORT} if which == "reachable" else set())
    finally:
        client.ssh("sudo systemctl stop other")
