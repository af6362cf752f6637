"""How fast one data directory takes and gives chunks: `python bench/chunkstore.py [DIRECTORY]`.

Writes and reads chunks of 4 MiB (and of 16 KiB, as small files make) through ChunkStore, without
network and event loop: durable (fsync of file and directory each), not durable, then group sync,
then reading ranges as sendfile would, and verifying.  Prints MiB/s and chunks/s.
"""

from __future__ import annotations

import argparse
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from chunkd.store import ChunkStore
from dfswire.bodies import FileRange
from dfswire.chunks import block_checksums


def measure(label: str, count: int, length: int, work: Callable[[], object]) -> None:
    """Run `work`, which handles `count` chunks of `length` bytes, and print its speed."""
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    speed = count * length / seconds / (1 << 20)
    print(f"{length >> 10:6} KiB  {label:22} {speed:9.0f} MiB/s {count / seconds:9.0f} chunks/s")


def read_all(store: ChunkStore, chunks: list[bytes], length: int, sink: int) -> None:
    """Open each chunk as `chunk.read` does and send it to /dev/null."""
    for chunk in chunks:
        found = store.open_range(chunk, 0, length)
        assert isinstance(found.body, FileRange)
        os.sendfile(sink, found.body.fd, 0, length)
        found.body.close()


def run(root: Path, length: int, count: int) -> None:
    """All measurements for chunks of one size."""
    store = ChunkStore(root, "bench")
    store.recover()
    data = secrets.token_bytes(length)
    prepared = [
        (chunk, block_checksums(chunk, data))
        for chunk in (secrets.token_bytes(16) for _ in range(2 * count))
    ]
    lazy, durable = prepared[:count], prepared[count:]

    def write(chunks: list[tuple[bytes, bytes]], durably: bool) -> None:
        for chunk, checksums in chunks:
            store.write(chunk, data, checksums, durably)

    measure("write", count, length, lambda: write(lazy, False))
    measure("group sync of these", count, length, lambda: store.sync(store.unsynced()))
    measure("write, durable", count, length, lambda: write(durable, True))
    chunks = [chunk for chunk, _ in prepared]
    with open(os.devnull, "wb") as sink:
        measure(
            "open and sendfile",
            len(chunks),
            length,
            lambda: read_all(store, chunks, length, sink.fileno()),
        )
    measure("verify", len(chunks), length, lambda: [store.verify(chunk) for chunk in chunks])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("directory", nargs="?", help="where; default: a temporary directory")
    where = parser.parse_args().directory
    for length, count in ((4 << 20, 32), (16 << 10, 400)):
        with tempfile.TemporaryDirectory(dir=where) as root:
            run(Path(root), length, count)


if __name__ == "__main__":
    main()
