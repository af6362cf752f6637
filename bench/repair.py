"""How fast lost copies are made anew: a server of three dies, and everything gets its second copy.

Usage: python bench/repair.py [--small 2000] [--large 100] [--directory DIR]

Makes a cluster of real daemons in a temporary directory (in DIR), fills it with small files (16
KiB) or large ones (4 MiB), kills one chunkd, and tells at which rate copies are made on the other
two, from the first order to full redundancy.  Both kinds have a cluster of their own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.t5_process.harness import Cluster

SMALL_BYTES, LARGE_BYTES = 16 << 10, 4 << 20
LOOK_S = 0.05
PATIENCE_S = 600.0


def fill(root: Path, files: int, size_bytes: int) -> None:
    """Some hundred a directory, and all durable."""
    for number in range(files):
        directory = root / str(number // 200)
        directory.mkdir(exist_ok=True)
        (directory / str(number)).write_bytes(os.urandom(size_bytes))
    os.sync()


def wait_until(condition: Callable[[], bool]) -> float:
    """When it held."""
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"not within {PATIENCE_S:g} s")
        time.sleep(LOOK_S)
    return time.monotonic()


def measure(directory: Path, files: int, size_bytes: int) -> str:
    """One line."""
    cluster = Cluster(directory)
    try:
        cluster.write_files()
        cluster.up()
        cluster.mount()
        fill(cluster.mount_point, files, size_bytes)
        cluster.wait_healthy()
        victim = cluster.local.chunkds[0].name
        cluster.kill(victim)
        wait_until(lambda: cluster.status().chunks.under_replicated > 0)
        missing = cluster.status().chunks.under_replicated
        begun_s = wait_until(lambda: cluster.status().repair.running > 0)
        took_s = wait_until(lambda: cluster.status().chunks.under_replicated == 0) - begun_s
    finally:
        cluster.close()
    rate = missing / took_s
    return (
        f"{missing} chunks of {size_bytes >> 10} KiB: {took_s:.1f} s, {rate:.0f} a second, "
        f"{rate * size_bytes / 1e6:.1f} MB/s"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--large", type=int, default=100)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    words = parser.parse_args()
    for files, size_bytes in ((words.small, SMALL_BYTES), (words.large, LARGE_BYTES)):
        with tempfile.TemporaryDirectory(prefix="dfs-repair-", dir=words.directory) as place:
            sys.stdout.write(f"{measure(Path(place), files, size_bytes)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
