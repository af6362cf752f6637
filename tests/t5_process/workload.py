"""Programs that use a mount and write down, outside of it, what was acknowledged.

    python -m tests.t5_process.workload KIND DIRECTORY RECORD [PAUSE_S]

Run by the tests as own processes, so that one that hangs can be killed.  Each line of RECORD is
written after the operations that it speaks of have returned.  A program goes on until its standard
input is closed, and fails at the first error of the file system, which it names.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

SMALL_BYTES = 700  # lives in metadata alone
MEDIUM_BYTES = 300_000  # one chunk
LARGE_BYTES = 12_000_000  # several
LARGE_READS = 4


def note(record: TextIO, **what: Any) -> None:
    """One line of the record."""
    record.write(json.dumps(what) + "\n")
    record.flush()


def names(directory: Path, record: TextIO, number: int) -> None:
    """Operations that fail when they are executed twice, or not at all."""
    started = time.monotonic()
    home = directory / f"names-{number}"
    home.mkdir()
    temporary, final, extra = home / "temporary", home / "final", home / "extra"
    data = f"content {number}".encode()
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
    os.write(descriptor, data)
    os.close(descriptor)
    temporary.rename(final)
    os.link(final, extra)
    extra.unlink()
    (home / "passing").mkdir()
    (home / "passing").rmdir()
    note(
        record,
        name=f"{home.name}/final",
        sha256=hashlib.sha256(data).hexdigest(),
        took_s=time.monotonic() - started,
    )


def files(directory: Path, record: TextIO, number: int) -> None:
    """A file that is recorded when it and its name were fsynced."""
    started = time.monotonic()
    data = random.Random(number).randbytes(MEDIUM_BYTES if number % 3 else SMALL_BYTES)
    path = directory / f"file-{number}"
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    took_s = time.monotonic() - started
    note(record, name=path.name, sha256=hashlib.sha256(data).hexdigest(), took_s=took_s)


def large(directory: Path, record: TextIO, number: int) -> None:
    """One of three large files is replaced by a new one, which is read past the page cache."""
    longest_s = 0.0
    data = random.Random(number).randbytes(LARGE_BYTES)
    path, fresh = directory / f"large-{number % 3}", directory / "large-new"
    started = time.monotonic()
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    sha256 = hashlib.sha256(data).hexdigest()
    for _ in range(LARGE_READS):
        longest_s = max(longest_s, time.monotonic() - started)
        started = time.monotonic()
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise ValueError(f"wrong bytes in {path}")
    longest_s = max(longest_s, time.monotonic() - started)
    note(record, name=path.name, sha256=sha256, took_s=longest_s)


def reads(directory: Path, record: TextIO, number: int) -> None:
    """Read a file at a random place, not from the page cache; its bytes must be what they were.

    The file is made of 8-byte numbers, each saying where it stands.
    """
    started = time.monotonic()
    path = directory / "numbers"
    rng = random.Random(number)
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        size = os.fstat(file.fileno()).st_size
        place = rng.randrange(size // 8 - 8192)
        data = os.pread(file.fileno(), 65_536, place * 8)
    if data != numbers(place, 8192):
        raise ValueError(f"wrong bytes in {path} at {place * 8}")
    note(record, place=place, took_s=time.monotonic() - started)


def numbers(first: int, count: int) -> bytes:
    """The content of "numbers" from its number `first` on."""
    return b"".join(number.to_bytes(8, "big") for number in range(first, first + count))


KINDS: dict[str, Callable[[Path, TextIO, int], None]] = {
    "names": names,
    "files": files,
    "large": large,
    "reads": reads,
}


def main() -> None:
    """Do one kind of work, again and again."""
    kind, directory, record_path, pause_s = [*sys.argv[1:], "0"][:4]
    with open(record_path, "a") as record:
        number = 0
        while not select.select([sys.stdin], [], [], float(pause_s))[0]:
            try:
                KINDS[kind](Path(directory), record, number)
            except (OSError, ValueError) as problem:
                raise SystemExit(f"{kind} {number}: {problem!r}") from problem
            number += 1


if __name__ == "__main__":
    main()
