"""What a daemon that was taken over cannot do: probes inside the sandbox of the deployed units.

Each probe succeeds without the sandbox, for the daemon's user or else for root, so nothing but the
sandbox and the user denies it; and it is denied in the way that is expected.  Trials take
directives away from a copy of the unit: then those probes succeed that they are there for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.t7_hosts import sandbox
from tests.t7_hosts.archives import CLONE
from tests.t7_hosts.cluster import CLIENT, DISKS, METAD, NEW, STORES, UNIT, Deployment
from tests.t7_hosts.playbooks import Played
from tests.t7_hosts.probes import DONE
from tests.t7_hosts.sandbox import Outcomes


class Deployed(NamedTuple):
    """A unit on its host, with the user, a directory and the port that are its own."""

    host: str
    unit: str
    user: str
    own: str
    port: int = 9400


DEPLOYED = {
    "metad": Deployed(METAD, "metad.service", "dfs-metad", "/var/lib/dfs/metad"),
    "backup": Deployed(METAD, "dfs-backup.service", "dfs-metad", "/var/lib/dfs/backup"),
    "chunkd": Deployed(STORES[0], "chunkd.service", "dfs-chunkd", DISKS[0], 9500),
    "mount": Deployed(CLIENT, UNIT, "dfs-mount", "/run/dfs-mount"),
}
# What a service needs.
NEEDED = ("write in its own directory", "listen on its port", "connect within the cluster")
# How all else is denied to metad.
DENIED = {
    "read /etc/shadow": "EACCES",
    "read /etc/shadow by a set-uid program": "EACCES",
    "read in a home directory": "EACCES",
    "read what others have in /tmp": "ENOENT",
    "write where everybody may": "EROFS",
    "write in /etc": "EROFS",
    "change its settings": "EACCES",  # they are root's; for ConfigurationDirectory= not read-only
    "change its program": "EROFS",
    "set a kernel tunable": "ENOENT",
    "make a control group": "EROFS",
    "make a set-uid file": "EPERM",
    "make a device file": "EPERM",
    "give a file away": "EPERM",
    "open a device": "ENOENT",
    "mount": "EPERM",
    "change its root": "EPERM",
    "see processes of others": "ENOENT",
    "signal processes of others": "EPERM",
    "read the memory of others": "ENOENT",
    "trace a process": "EPERM",
    "become another user": "EPERM",
    "allow core dumps": "EPERM",
    "real-time priority": "EPERM",
    "another priority": "EPERM",
    "new user namespace": "EPERM",
    "new mount namespace": "EPERM",
    "new pid namespace": "EPERM",
    "new network namespace": "EPERM",
    "another personality": "EPERM",
    "writable code": "EPERM",
    "read what the kernel knows of the clock": "EPERM",
    "change the host's name": "EPERM",
    "read the figures of the host": "ENOENT",
    "read the kernel's log": "EPERM",
    "measure with perf": "EPERM",
    "make a map for BPF": "EPERM",
    "keep a key": "EPERM",
    "shared memory of others": "ENOENT",
    "listen below 1024": "EACCES",
    "see all packets": "EAFNOSUPPORT",
    "send raw packets": "EPERM",
    "ask for routes and addresses": "EAFNOSUPPORT",
    "send to a multicast group": "EPERM",
    "connect elsewhere": "ETIMEDOUT",
    "send elsewhere": "EPERM",
}
# What other services may that metad may not, or how they are kept from it.
OTHERWISE: dict[str, dict[str, str]] = {
    "metad": {},
    "backup": {
        "change its settings": "EROFS",
        "set a kernel tunable": "EACCES",
        "read the figures of the host": DONE,
    },
    # Figures and addresses of its host are what it tells metad.
    "chunkd": {
        "set a kernel tunable": "EACCES",
        "read the figures of the host": DONE,
        "ask for routes and addresses": DONE,
    },
    # The host must see what it mounts, so it has no mount namespace, and sees all files itself.
    "mount": {
        "read in a home directory": DONE,
        "read what others have in /tmp": DONE,
        "write where everybody may": DONE,
        "write in /etc": "EACCES",
        "change its program": "EACCES",
        "set a kernel tunable": "EACCES",
        "make a control group": "EACCES",
        "open a device": DONE,  # /dev/fuse, which it is there for
        "mount": DONE,
        "see processes of others": DONE,
        "read the memory of others": "EACCES",
        "read the figures of the host": DONE,
        "shared memory of others": DONE,
    },
}
# What takes root without a sandbox; the other probes succeed for the user of a daemon as well.
FOR_ROOT = {
    "read /etc/shadow",
    "write in /etc",
    "change its settings",
    "change its program",
    "set a kernel tunable",
    "make a control group",
    "make a device file",
    "give a file away",
    "mount",
    "change its root",
    "signal processes of others",
    "read the memory of others",
    "become another user",
    "real-time priority",
    "new mount namespace",
    "new pid namespace",
    "new network namespace",
    "change the host's name",
    "read the kernel's log",
    "measure with perf",
    "make a map for BPF",
    "listen below 1024",
    "see all packets",
    "send raw packets",
}
# Lines at the end of metad's unit, and what it can do then.
WEAKER: dict[str, set[str]] = {
    "ProtectSystem=no": {"write where everybody may"},
    "ProtectHome=no": {"read in a home directory"},
    "PrivateTmp=no": {"read what others have in /tmp"},
    "PrivateDevices=no": set(),  # either of the two is enough
    "PrivateDevices=no DevicePolicy=auto": {"open a device"},
    "PrivateIPC=no": {"shared memory of others"},
    "ProtectProc=default": {"see processes of others"},
    "ProcSubset=all": {"read the figures of the host"},
    "RestrictNamespaces=no": {"new user namespace"},
    "RestrictSUIDSGID=no": {"make a set-uid file"},
    "LockPersonality=no": {"another personality"},
    "MemoryDenyWriteExecute=no": {"writable code"},
    "RestrictAddressFamilies=": {"ask for routes and addresses"},
    "IPAddressDeny=": {"send to a multicast group", "connect elsewhere", "send elsewhere"},
    "LimitCORE=infinity": {"allow core dumps"},
    "SystemCallFilter=": {"trace a process", "another priority", "keep a key"},
    "SystemCallFilter= ProtectClock=no": {
        *("trace a process", "another priority", "keep a key"),
        "read what the kernel knows of the clock",
    },
}


@pytest.fixture(scope="module")
def probed(hosts: Deployment, bootstrap: Played) -> Iterator[Deployment]:
    """The deployed hosts with the probes on them, and somebody elsewhere."""
    machines = {one.host: hosts.lab[one.host] for one in DEPLOYED.values()}
    sandbox.serve_elsewhere(hosts.lab[NEW])
    for machine in machines.values():
        sandbox.prepare(machine, hosts.lab[STORES[1]])
    yield hosts
    for machine in machines.values():
        sandbox.clear(machine)
    sandbox.stop_elsewhere(hosts.lab[NEW])


def inside(probed: Deployment, name: str, *weaker: str) -> Outcomes:
    """The sandbox of one of the units, with these lines at its end."""
    one = DEPLOYED[name]
    return sandbox.inside(probed.lab[one.host], one.unit, one.own, one.port, weaker)


def filters_binds(probed: Deployment, name: str) -> bool:
    """Does SocketBindDeny= have an effect?  In Debian 12 it has not."""
    return "+BPF_FRAMEWORK" in probed.lab[DEPLOYED[name].host].ssh("systemctl --version")


@pytest.mark.parametrize("name", DEPLOYED)
def test_nothing_is_done_but_what_is_needed(probed: Deployment, name: str) -> None:
    expected = {**dict.fromkeys(NEEDED, DONE), **DENIED, **OTHERWISE[name]}
    bound = "EPERM" if filters_binds(probed, name) else DONE
    expected["listen on another port"] = bound
    if name not in ("metad", "chunkd"):
        expected["listen on its port"] = bound  # it has none
    assert inside(probed, name) == expected


def test_the_document_says_what_they_may() -> None:
    text = (CLONE / "docs/operations.md").read_text()
    section = text.partition("\n## What the services may do on their hosts\n")[2]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.partition("\n## ")[0].splitlines()
        if line.startswith("| ")
    ]
    names = [re.sub(r"`(dfs)?-?(\w+)@?`", r"\2", cell) for cell in rows[0][1:]]
    assert names == ["metad", "backup", "chunkd", "mount"]
    written = {
        (name, row[0])
        for row in rows[1:]
        for name, cell in zip(names, row[1:], strict=True)
        if cell != "-"
    }
    may = {
        (name, what) for name in OTHERWISE for what, how in OTHERWISE[name].items() if how == DONE
    }
    assert written == may | {(name, "listen on another port") for name in DEPLOYED}


@pytest.mark.parametrize("name", DEPLOYED)
def test_without_a_sandbox_all_is_done(probed: Deployment, name: str) -> None:
    one = DEPLOYED[name]
    machine = probed.lab[one.host]
    root = sandbox.outside(machine, "root", one.port)
    assert set(root) == {*NEEDED, *DENIED, "listen on another port"}
    assert {probe: how for probe, how in root.items() if how != DONE} == {}
    user = sandbox.outside(machine, one.user, one.port)
    assert {probe for probe, how in user.items() if how != DONE} == FOR_ROOT


@pytest.mark.parametrize("lines", WEAKER)
def test_a_weaker_unit_is_seen(probed: Deployment, lines: str) -> None:
    outcomes = inside(probed, "metad", *lines.split(" "))
    done = {probe for probe, how in outcomes.items() if how == DONE and probe in DENIED}
    assert done == WEAKER[lines]


@pytest.mark.parametrize("name", ["metad", "chunkd"])
def test_nobody_elsewhere_connects(probed: Deployment, name: str) -> None:
    one = DEPLOYED[name]
    there = (probed.lab[one.host].address, one.port)
    assert sandbox.connects(probed.lab[NEW], probed.lab[NEW].address, there)
    assert not sandbox.connects(probed.lab[NEW], sandbox.ELSEWHERE, there)
