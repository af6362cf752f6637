"""Services that die or hang are started again by systemd, and nobody loses an operation by that.

Of the mount itself, programs that use it do lose operations: their files are gone with its process.
What was synced is there when it is back.
"""

from __future__ import annotations

import pytest

from tests.t7_hosts.cluster import CLIENT, METAD, MOUNT, STORES, Deployment
from tests.t7_hosts.load import Load

RESTART_S = 30.0
# WatchdogSec= of the units is 30 s and 60 s; systemd looks when it is over.
WATCHDOG_S = 120.0


def started_again(cluster: Deployment, host: str, signal: str, within_s: float) -> None:
    """Send its service a signal, and wait until systemd has another process of it ready."""
    machine, unit = cluster.lab[host], cluster.services()[host]
    before = machine.started(unit)
    machine.ssh(f"sudo kill -{signal} {machine.main_pid(unit)}")
    machine.wait_started_again(unit, before, within_s)


@pytest.mark.parametrize("host", [METAD, STORES[0]])
def test_a_killed_daemon_is_started_again(cluster: Deployment, load: Load, host: str) -> None:
    started_again(cluster, host, "KILL", RESTART_S)
    cluster.wait_whole()
    load.stop()
    cluster.fsck()


@pytest.mark.parametrize("host", [METAD, STORES[0]])
def test_a_hung_daemon_is_started_again(cluster: Deployment, load: Load, host: str) -> None:
    started_again(cluster, host, "STOP", WATCHDOG_S)
    assert "Watchdog timeout" in cluster.lab[host].journal(cluster.services()[host])
    cluster.wait_whole()
    load.stop()
    cluster.fsck()


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_a_mount_is_there_again(cluster: Deployment, signal: str) -> None:
    machine = cluster.lab[CLIENT]
    file = f"{MOUNT}/before-{signal}"
    machine.ssh(f"sudo sh -c 'head -c 300000 /dev/urandom | tee {file} >/tmp/kept; sync {file}'")
    started_again(cluster, CLIENT, signal, WATCHDOG_S)
    machine.ssh(f"sudo cmp /tmp/kept {file}")
    cluster.fsck()
