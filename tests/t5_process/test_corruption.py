"""Chunk files are damaged on one server's disk: readers get right bytes, and it is repaired."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from chunkd.layout import Layout
from dfswire.messages import BLOCK_SIZE_BYTES
from tests.t5_process.harness import Cluster
from tests.t5_process.observed import sha256_of, wait_for

MIB = 1 << 20
CHUNK_BYTES = 4 * MIB


def flip(file: Path, other: Path) -> None:
    """One bit in the middle turns over."""
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        octet = opened.read(1)[0]
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([octet ^ 4]))


def cut(file: Path, other: Path) -> None:
    """The last third is gone."""
    os.truncate(file, file.stat().st_size * 2 // 3)


def empty(file: Path, other: Path) -> None:
    """Nothing is left but the name."""
    os.truncate(file, 0)


def swap(file: Path, other: Path) -> None:
    """Two whole chunk files change places."""
    aside = file.with_name("aside")
    file.rename(aside)
    other.rename(file)
    aside.rename(other)


def delete(file: Path, other: Path) -> None:
    """Not even the name is left."""
    file.unlink()


DAMAGES: list[Callable[[Path, Path], None]] = [flip, cut, empty, swap, delete]


def on_server(cluster: Cluster, path: Path, name: str, index: int = 0) -> Path | None:
    """The file with that server's replica of one chunk of `path`, if it has one."""
    port = cluster.daemon(name).port
    chunk = cluster.info(path).chunks[index]
    for replica in chunk.replicas:
        if replica.state == "good" and replica.address.endswith(f":{port}"):
            return Layout(cluster.data(name)).file(chunk.chunk)
    return None


def write(path: Path, size_bytes: int) -> str:
    """Write random bytes, durable; their digest."""
    with path.open("wb") as file:
        file.write(os.urandom(size_bytes))
        file.flush()
        os.fsync(file.fileno())
    return sha256_of(path)


def quarantined(cluster: Cluster, name: str) -> int:
    """How many files a server has set aside."""
    return sum(1 for _ in (cluster.data(name) / "quarantine").iterdir())


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: str(damage.__name__))
def test_one_copy_damaged(
    cluster: Cluster, place: Path, damage: Callable[[Path, Path], None]
) -> None:
    victim, *others = cluster.chunkd_names
    digests: dict[Path, str] = {}
    found: list[tuple[Path, Path]] = []
    while len(found) < 2:
        path = place / f"file-{len(digests)}"
        digests[path] = write(path, MIB)
        if replica := on_server(cluster, path, victim):
            found.append((path, replica))
    (path, replica), (_, other) = found
    chunk = cluster.info(path).chunks[0].chunk
    before = quarantined(cluster, victim)
    cluster.remount()
    damage(replica, other)

    # With the others stopped, the damaged replica is the one that is asked.
    with cluster.stopped(*others):
        reader = subprocess.Popen(["cat", str(path)], stdout=subprocess.DEVNULL)
        wait_for(lambda: f"bad replica of {chunk.hex()}" in cluster.log_text("mnt"), "it is found")
    assert reader.wait(30) == 0
    for each, digest in digests.items():
        assert sha256_of(each) == digest

    if damage is not delete:
        wait_for(lambda: quarantined(cluster, victim) > before, "it is set aside")
        assert f"chunk {chunk.hex()} on disk" in cluster.log_text(victim)
        wait_for(
            lambda: cluster.server(victim).disks[0].quarantined == quarantined(cluster, victim),
            "`dfs status` says so",
        )
    cluster.wait_sound(path)


def test_all_copies_damaged(cluster: Cluster, place: Path) -> None:
    path = place / "file"
    write(path, 3 * CHUNK_BYTES)
    content = path.read_bytes()
    cluster.remount()
    info = cluster.info(path)
    middle = next(each for each in info.extents if each.offset == CHUNK_BYTES)
    index = next(i for i, each in enumerate(info.chunks) if each.chunk == middle.chunk)
    for name in cluster.chunkd_names:
        if replica := on_server(cluster, path, name, index):
            flip(replica, replica)

    descriptor = os.open(path, os.O_RDONLY)
    try:
        for offset in (0, 2 * CHUNK_BYTES, CHUNK_BYTES - MIB, 3 * CHUNK_BYTES - MIB):
            assert os.pread(descriptor, MIB, offset) == content[offset : offset + MIB]
        with pytest.raises(OSError) as caught:
            os.pread(descriptor, BLOCK_SIZE_BYTES, CHUNK_BYTES + CHUNK_BYTES // 2)
        assert caught.value.errno == errno.EIO
        assert os.pread(descriptor, MIB, 2 * CHUNK_BYTES) == content[2 * CHUNK_BYTES :][:MIB]
    finally:
        os.close(descriptor)
    wait_for(lambda: cluster.status().chunks.lost == 1, "`dfs status` counts it as lost")
    # Of the damaged chunk itself only one block is lost, and metad comes to know which.
    wait_for(lambda: [each.sure for each in cluster.info(path).lost] == [True], "it is looked for")
    (lost,) = cluster.info(path).lost
    assert lost.length == BLOCK_SIZE_BYTES
    assert lost.offset <= CHUNK_BYTES + CHUNK_BYTES // 2 < lost.offset + lost.length
    cluster.remount()
    readable = bytearray()
    with path.open("rb", buffering=0) as file:
        for offset in range(0, len(content), BLOCK_SIZE_BYTES):
            if offset != lost.offset:
                readable += os.pread(file.fileno(), BLOCK_SIZE_BYTES, offset)
    assert readable == content[: lost.offset] + content[lost.offset + lost.length :]
    path.unlink()
    wait_for(lambda: cluster.status().chunks.lost == 0, "it is not missed any more")
