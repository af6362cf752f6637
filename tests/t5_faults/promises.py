"""Small writers that fsync all the time, and what must be there after a power cut.

    python -m tests.t5_faults.promises DIRECTORY RECORDS SEED

starts all writers as threads, in DIRECTORY on a mount, and goes on until an error.  Each keeps a
file in RECORDS: a line before an operation ("tries") and one after it has returned ("has"), with
the time.  `check` reads these and looks: what an operation that has returned promised is there, and
nothing is there that nobody has written; at the end, or as it was at an earlier moment.  All
content follows from the seed, so not one byte must be kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 4096
BLOCKS = 24
STREAM_BYTES = 1 << 20
NAMES = 4
BLUR_NS = 2_000_000  # of a moment: the clock is read before and after an operation, not in it


class Record:
    """What one writer tries and has."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    @contextlib.contextmanager
    def step(self, **what: Any) -> Iterator[None]:
        """The line before the block, and the one after it when nothing was raised."""
        self._note("tries", what)
        yield
        self._note("has", what)

    def _note(self, word: str, what: dict[str, Any]) -> None:
        os.write(self._file, f"{json.dumps([word, what, time.time_ns()])}\n".encode())


def lines(path: Path, at_ns: int | None = None) -> list[tuple[str, dict[str, Any]]]:
    """A record, read back: what was tried and had until `at_ns`."""
    if not path.exists():
        return []
    return [
        (word, what)
        for word, what, time_ns in map(json.loads, path.read_text().splitlines())
        if at_ns is None or time_ns <= at_ns + (BLUR_NS if word == "tries" else -BLUR_NS)
    ]


class Writer:
    """One file or directory of its own, named after it.

    `at_ns`: it is judged by what was so then.  `is_mounted`: the mount has lived on, so what was
    written is there, synced or not.
    """

    def __init__(
        self,
        place: Path,
        records: Path,
        name: str,
        seed: int,
        *,
        at_ns: int | None = None,
        is_mounted: bool = False,
    ) -> None:
        self.path = place / name
        self.record_path = records / name
        self.at_ns = at_ns
        self.is_mounted = is_mounted
        self.rng = random.Random(f"{seed}:{name}")
        self.salt = f"{seed}:{name}"

    def bytes_of(self, *what: int, length: int) -> bytes:
        """Content that nobody else has."""
        return random.Random(f"{self.salt}:{what}").randbytes(length)

    def work(self) -> None:
        """Until an OSError."""
        record = Record(self.record_path)
        with contextlib.suppress(OSError):
            self.write(record)

    def lines(self) -> list[tuple[str, dict[str, Any]]]:
        """What it has tried, and what it had."""
        return lines(self.record_path, self.at_ns)

    def promises(self) -> int:
        """How often something was promised to it."""
        return sum(word == "has" for word, _what in lines(self.record_path))

    @property
    def is_over(self) -> bool:
        """Whether it has nothing more to do."""
        return False

    def write(self, record: Record) -> None:
        raise AssertionError("each kind has its own")

    def check(self) -> int:
        """Compare; how many promises there were.  Raises AssertionError."""
        raise AssertionError("each kind has its own")


class Appends(Writer):
    """A log: what is there is a beginning of what was written, and has all that was synced."""

    def write(self, record: Record) -> None:
        stream = self.bytes_of(length=STREAM_BYTES)
        handle = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        end = 0
        while end < STREAM_BYTES:
            more = min(end + self.rng.choice([30, 300, 3000, 30_000]), STREAM_BYTES)
            with record.step(end=more):
                os.write(handle, stream[end:more])
                if self.rng.random() < 0.7:
                    os.fdatasync(handle)
                    with record.step(synced=more):
                        pass
            end = more

    @property
    def is_over(self) -> bool:
        return any(
            what.get("end", 0) >= STREAM_BYTES
            for word, what in lines(self.record_path)
            if word == "has"
        )

    def check(self) -> int:
        found = self.lines()
        had = [what for word, what in found if word == "has"]
        promise = "end" if self.is_mounted else "synced"
        synced = [what[promise] for what in had if promise in what]
        tried = max([what["end"] for _, what in found if "end" in what], default=0)
        data = self.path.read_bytes() if self.path.exists() else b""
        least = max(synced, default=0)
        assert len(data) >= least, f"{self.path} has {len(data)} bytes, {least} were synced"
        assert len(data) <= tried, f"{self.path} has {len(data)} bytes, {tried} were written"
        assert data == self.bytes_of(length=STREAM_BYTES)[: len(data)], f"{self.path}: wrong bytes"
        return len(synced)


class Blocks(Writer):
    """A file whose blocks are overwritten: each has its last synced version, or a later one."""

    def write(self, record: Record) -> None:
        handle = os.open(self.path, os.O_CREAT | os.O_WRONLY)
        with record.step(version=0, blocks=list(range(BLOCKS))):
            content = [self.bytes_of(block, 0, length=BLOCK) for block in range(BLOCKS)]
            os.write(handle, b"".join(content))
            os.fsync(handle)
        version = 0
        while True:
            version += 1
            blocks = self.rng.sample(range(BLOCKS), self.rng.choice([1, 1, 2, 5]))
            with record.step(version=version, blocks=blocks):
                for block in blocks:
                    os.pwrite(handle, self.bytes_of(block, version, length=BLOCK), block * BLOCK)
                os.fsync(handle)

    def check(self) -> int:
        synced: dict[int, int] = {}
        allowed: dict[int, list[int]] = {}
        count = 0
        for word, what in self.lines():
            count += word == "has"
            for block in what["blocks"]:
                if word == "has":
                    synced[block] = what["version"]
                else:
                    allowed.setdefault(block, []).append(what["version"])
        data = self.path.read_bytes() if self.path.exists() else b""
        assert not synced or len(data) == BLOCKS * BLOCK, f"{self.path} has {len(data)} bytes"
        for block in range(len(data) // BLOCK):
            versions = [each for each in allowed[block] if each >= synced.get(block, 0)]
            found = data[block * BLOCK : (block + 1) * BLOCK]
            assert any(
                found == self.bytes_of(block, version, length=BLOCK) for version in versions
            ), f"{self.path}: block {block} is none of the versions {versions}"
        return count


class Replacements(Writer):
    """Whole files that replace others: temporary file, fsync, rename, fsync of the directory."""

    def content(self, name: int, version: int) -> bytes:
        size_bytes = random.Random(f"{self.salt}{name}.{version}").choice([0, 90, 5000, 150_000])
        return b"%d\n" % version + self.bytes_of(name, version, length=size_bytes)

    def write(self, record: Record) -> None:
        self.path.mkdir()
        directory = os.open(self.path, os.O_RDONLY)
        version = 0
        while True:
            version += 1
            name = self.rng.randrange(NAMES)
            with record.step(name=name, version=version):
                with (self.path / "new").open("wb", buffering=0) as file:
                    file.write(self.content(name, version))
                    os.fsync(file.fileno())
                (self.path / "new").rename(self.path / str(name))
                os.fsync(directory)

    def check(self) -> int:
        found = self.lines()
        for name in range(NAMES):
            mine = [(word, what["version"]) for word, what in found if what["name"] == name]
            had = max([version for word, version in mine if word == "has"], default=0)
            path = self.path / str(name)
            if not path.exists():
                assert not had, f"{path} is not there; version {had} was synced"
                continue
            data = path.read_bytes()
            version = int(data.partition(b"\n")[0] or b"0")
            assert version in {each for _, each in mine if each >= had}, (
                f"{path} has version {version}; {had} was synced"
            )
            assert data == self.content(name, version), f"{path}: wrong bytes"
        return sum(word == "has" for word, _ in found)


class Names(Writer):
    """Directories made, renamed and removed: each is durable when the call returns."""

    def write(self, record: Record) -> None:
        with record.step(make="."):
            self.path.mkdir()
        number = 0
        while True:
            number += 1
            first, second = f"a{number}", f"b{number}"
            with record.step(make=first):
                (self.path / first).mkdir()
            with record.step(make=second, gone=first):
                (self.path / first).rename(self.path / second)
            if number % 2:
                with record.step(gone=second):
                    (self.path / second).rmdir()

    def check(self) -> int:
        expected: dict[str, bool | None] = {}
        found = self.lines()
        for word, what in found:
            for name, made in ((what.get("make"), True), (what.get("gone"), False)):
                if name:
                    expected[name] = made if word == "has" else None
        for name, is_there in expected.items():
            if is_there is not None:
                assert (self.path / name).exists() == is_there, (
                    f"{self.path / name}: should be there: {is_there}"
                )
        if self.path.exists():
            unknown = {path.name for path in self.path.iterdir()} - set(expected)
            assert not unknown, f"names that nobody made: {unknown}"
        return sum(word == "has" for word, _ in found)


CAST: dict[str, type[Writer]] = {
    **{f"log-{number}": Appends for number in range(4)},
    **{f"blocks-{number}": Blocks for number in range(3)},
    **{f"files-{number}": Replacements for number in range(3)},
    **{f"names-{number}": Names for number in range(2)},
}


def writers(
    place: Path,
    records: Path,
    seed: int,
    *,
    at_ns: int | None = None,
    is_mounted: bool = False,
) -> list[Writer]:
    """All of them."""
    return [
        kind(place, records, name, seed, at_ns=at_ns, is_mounted=is_mounted)
        for name, kind in CAST.items()
    ]


def main() -> None:
    """Work until the mount goes away."""
    place, records, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    threads = [threading.Thread(target=each.work) for each in writers(place, records, seed)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
