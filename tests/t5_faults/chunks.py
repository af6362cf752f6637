"""The chunk files behind files on the mount, and how to damage them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from chunkd.layout import Layout
from tests.t5_faults.harness import FaultyCluster
from tests.t5_process.observed import sha256_of


@dataclass(frozen=True)
class Copy:
    """One replica of one chunk: on whose disk, in which file, and whose bytes it has."""

    server: str
    chunk: bytes
    file: Path
    path: Path


def copies_of(cluster: FaultyCluster, paths: Iterable[Path]) -> list[Copy]:
    """All good replicas of all chunks of these files."""
    servers = {daemon.port: daemon.name for daemon in cluster.local.chunkds}
    listed = list(paths)
    found = []
    for path, info in zip(listed, cluster.infos(listed), strict=True):
        for chunk in info.chunks:
            for replica in chunk.replicas:
                if replica.state == "good":
                    server = servers[int(replica.address.rpartition(":")[2])]
                    file = Layout(cluster.data(server)).file(chunk.chunk)
                    found.append(Copy(server, chunk.chunk, file, path))
    return found


def write_files(place: Path, count: int, size_bytes: int) -> dict[Path, str]:
    """Files of random bytes, each in a chunk of its own (or several), durable; their digests."""
    digests = {}
    for number in range(count):
        path = place / f"written-{number}"
        with path.open("xb") as file:
            file.write(os.urandom(size_bytes))
            file.flush()
            os.fsync(file.fileno())
        digests[path] = sha256_of(path)
    return digests


def check(digests: dict[Path, str]) -> None:
    """Every file has its bytes."""
    for path, digest in digests.items():
        assert sha256_of(path) == digest, f"wrong bytes in {path}"


# -- damage, each to `copy`; `other` is another replica on the same disk

Damage = Callable[[FaultyCluster, Copy, Copy], None]


def flip_first(cluster: FaultyCluster, copy: Copy, other: Copy) -> None:
    """A bit of the first byte, below the file system."""
    cluster.disks[copy.server].flip(copy.file, 0)


def flip_middle(cluster: FaultyCluster, copy: Copy, other: Copy) -> None:
    cluster.disks[copy.server].flip(copy.file, copy.file.stat().st_size // 2, 7)


def flip_tail(cluster: FaultyCluster, copy: Copy, other: Copy) -> None:
    """In the index behind the data: checksums, length, or what says where they are."""
    cluster.disks[copy.server].flip(copy.file, copy.file.stat().st_size - 1 - copy.chunk[0] % 60, 3)


def zero_sector(cluster: FaultyCluster, copy: Copy, other: Copy) -> None:
    """A write that never happened: a sector has nothing but zeros."""
    offset = copy.file.stat().st_size // 2 // 512 * 512
    cluster.disks[copy.server].overwrite(copy.file, offset, bytes(512))


def tear(cluster: FaultyCluster, copy: Copy, other: Copy) -> None:
    """The first half is that of another chunk."""
    with copy.file.open("r+b") as file:
        file.write(other.file.read_bytes()[: copy.file.stat().st_size // 2])


def truncate(cluster: FaultyCluster, copy: Copy, other: Copy) -> None:
    os.truncate(copy.file, copy.file.stat().st_size * 2 // 3)


def empty(cluster: FaultyCluster, copy: Copy, other: Copy) -> None:
    os.truncate(copy.file, 0)


def lengthen(cluster: FaultyCluster, copy: Copy, other: Copy) -> None:
    with copy.file.open("ab") as file:
        file.write(b"more")


def misdirect(cluster: FaultyCluster, copy: Copy, other: Copy) -> None:
    """A whole and valid chunk, under the wrong name."""
    data = other.file.read_bytes()
    copy.file.unlink()
    copy.file.write_bytes(data)


def delete(cluster: FaultyCluster, copy: Copy, other: Copy) -> None:
    copy.file.unlink()


def replace_by_directory(cluster: FaultyCluster, copy: Copy, other: Copy) -> None:
    copy.file.unlink()
    copy.file.mkdir()


DAMAGES: list[Damage] = [
    flip_first,
    flip_middle,
    flip_tail,
    zero_sector,
    tear,
    truncate,
    empty,
    lengthen,
    misdirect,
    delete,
    replace_by_directory,
]
