"""Daemons, mounts and commands of different releases, which do not speak the same protocol.

Each is refused by one sentence that names both versions; what speaks the same goes on.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dfswire.messages import PROTOCOL_VERSION
from tests.t5_faults.altered import Altered
from tests.t5_faults.chunks import check, write_files
from tests.t5_faults.defective import speaking
from tests.t5_faults.harness import FaultyCluster
from tests.t5_faults.load import Load, seen
from tests.t5_process.observed import wait_for

VICTIM = "chunkd1"
OTHER = PROTOCOL_VERSION + 1
NEWER = f"you speak protocol version {OTHER}, this server speaks {PROTOCOL_VERSION}"
OLDER = f"you speak protocol version {PROTOCOL_VERSION}, this server speaks {OTHER}"
Saw = Callable[[str], None]


def refused(command: list[str], version: int) -> str:
    """Run a command that speaks this version; the one line by which it ends."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=40,
        env={**os.environ, **(speaking(version) if version != PROTOCOL_VERSION else {})},
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(lines) == 1, (done.returncode, done.stderr)
    return lines[0]


def status_command(cluster: FaultyCluster) -> list[str]:
    return [sys.executable, "-P", "-m", "dfsmount.cli", "status", "--url", cluster.address]


def refusals(cluster: FaultyCluster, name: str, sentence: str) -> int:
    """How often a chunkd has logged that metad does not want it."""
    return cluster.unseen_log(name).count(f"refuses this server: {sentence}")


def test_chunkd(
    cluster: FaultyCluster, load: Load, healing: Callable[[], float], tmp_path: Path, saw: Saw
) -> None:
    """F28: it counts as down, says why once, and goes on trying; nobody else notices."""
    cluster.see_log(VICTIM)
    other = Altered(cluster, VICTIM, speaking(OTHER))
    with load.watched() as longest:
        with other.running():
            pid = cluster.pid(VICTIM)
            wait_for(lambda: refusals(cluster, VICTIM, NEWER), "it says why")
            wait_for(lambda: cluster.server(VICTIM).state == "down", "metad counts it as down")
            wait_for(lambda: cluster.status().chunks.under_replicated == 0, "repair elsewhere")
            load.wait_progress()
            assert refusals(cluster, VICTIM, NEWER) == 1
            assert cluster.pid(VICTIM) == pid, "it has ended"
        back_s = healing()
    saw(f"{seen(longest)}; whole {back_s:.1f} s after the right one was started")


def test_mount_and_command(cluster: FaultyCluster, load: Load, tmp_path: Path) -> None:
    """F28: neither begins; what is mounted goes on."""
    point = tmp_path / "point"
    point.mkdir()
    mount = [sys.executable, "-P", "-m", "dfsmount", cluster.address, str(point)]
    line = refused([*cluster.network.inside("mnt"), *mount], OTHER)
    assert cluster.address in line and NEWER in line
    assert not point.is_mount()
    assert NEWER in refused(status_command(cluster), OTHER)
    load.wait_progress(1)


def test_metad(cluster: FaultyCluster, place: Path, healing: Callable[[], float], saw: Saw) -> None:
    """F28: all others are of the older release: calls fail with EPROTO until it is back."""
    digests = write_files(place, 4, 100_000)
    for name in cluster.chunkd_names:
        cluster.see_log(name)
    with Altered(cluster, "metad", speaking(OTHER)).running():
        for name in cluster.chunkd_names:
            wait_for(lambda name=name: refusals(cluster, name, OLDER), "a chunkd says why")
        assert OLDER in refused(status_command(cluster), PROTOCOL_VERSION)
        with pytest.raises(OSError) as caught:
            (place / "new").mkdir()
        assert caught.value.errno == errno.EPROTO
    started = time.monotonic()
    (place / "new").mkdir()
    back_s = time.monotonic() - started
    healed_s = healing()
    cluster.remount()
    check(digests)
    saw(f"{errno.errorcode[errno.EPROTO]}; went on {back_s:.1f} s, whole {healed_s:.1f} s later")
