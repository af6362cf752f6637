"""A mount that is killed while it alone has files: the others wait for its fence, and go on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.t5_process.harness import Cluster
from tests.t5_process.wholeness import hurried

SHORT = {"renew_s": 0.5, "sign_of_life_s": 0.5, "lease_s": 3.0, "fence_s": 5.0}
SIZE = 300_000


@pytest.fixture
def fenced(_usable: None, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that gives a silent client up soon."""
    cluster = Cluster(tmp_path / "cluster")
    try:
        cluster.write_files()
        with cluster.daemon("metad").config.open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in SHORT.items())
        cluster.up()
        cluster.mount()
        with hurried(cluster):
            yield cluster
    finally:
        cluster.close()


def test_the_leases_of_a_killed_mount_end_with_its_fence(fenced: Cluster) -> None:
    place = fenced.mount_point
    others = [fenced.mount(fenced.directory / name) for name in ("one", "two")]
    (place / "kept").write_bytes(b"1" * SIZE)
    for other in others:
        assert (other / "kept").read_bytes() == b"1" * SIZE
        assert [path.name for path in other.iterdir()] == ["kept"]
    writer = os.open(place / "kept", os.O_WRONLY)
    appender = os.open(place / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.pwrite(writer, b"2" * SIZE, 0)
    os.write(appender, b"synced;")
    os.fsync(writer)
    os.fsync(appender)
    os.pwrite(writer, b"3" * SIZE, 0)  # buffered, under leases that nobody has asked for
    os.write(appender, b"buffered;")
    fenced.kill(place.name)
    for descriptor in (writer, appender):
        with contextlib.suppress(OSError):  # the files went with the mount
            os.close(descriptor)
    assert len(fenced.status().sessions) == 3

    with ThreadPoolExecutor(2) as pool:  # they wait together
        found = list(pool.map(lambda other: (other / "kept").read_bytes(), others))
    assert len(fenced.status().sessions) == 2, "the answer came before the fence"
    assert found[0] == found[1]
    assert found[0] in (b"2" * SIZE, b"3" * SIZE), "neither what was synced nor what followed"
    for other in others:
        assert (other / "log").read_bytes() in (b"synced;", b"synced;buffered;")

    end = (others[0] / "log").stat().st_size
    for other in others:
        with (other / "log").open("ab", buffering=0) as log:
            log.write(other.name.encode())
            for each in others:
                assert (each / "log").read_bytes().endswith(other.name.encode())
    assert (others[0] / "log").read_bytes()[end:] == b"onetwo"
    (others[0] / "kept").write_bytes(b"4")
    assert (others[1] / "kept").read_bytes() == b"4"
    (others[1] / "kept").unlink()
    assert [path.name for path in others[0].iterdir()] == ["log"]
    for other in others:
        fenced.unmount(other)
    fenced.check_fsck()
    fenced.check_logs()
