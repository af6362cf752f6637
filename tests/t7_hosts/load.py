"""A program on the client that writes and reads through the mount until it is told to stop.

It is this file, sent over SSH and run by the host's own Python: each round makes a file, syncs and
renames it, reads another one back and compares.  The first operation that fails ends it with a
line that says which.  `Load` is the test's side: it starts the program, and `stop` returns what
was done.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

FILES = 24
SIZES_BYTES = (100, 70_000, 1_500_000)
ROUNDS_MIN = 30
PAUSE_S = 0.2  # every round leaves chunks that are kept for an hour


def content(serial: int) -> bytes:
    """The same for the same number."""
    seed = hashlib.sha256(str(serial).encode()).digest()
    size = SIZES_BYTES[serial % len(SIZES_BYTES)]
    return (seed * (size // len(seed) + 1))[:size]


def work(directory: Path) -> dict[str, float]:
    """Until standard input ends; how many rounds there were, and the longest one in seconds.

    Some rounds come after the end of it, when what disturbs them is over.
    """
    held: dict[int, int] = {}
    serial, longest_s, left = 0, 0.0, ROUNDS_MIN
    while left:
        left -= _told_to_stop()
        begun = time.monotonic()
        name = directory / f"{serial % FILES}"
        new = directory / f"{serial % FILES}.new"
        with new.open("wb") as file:
            file.write(content(serial))
            file.flush()
            os.fsync(file.fileno())
        new.rename(name)
        held[serial % FILES] = serial
        other = (serial * 7) % FILES
        if other in held and (directory / f"{other}").read_bytes() != content(held[other]):
            raise ValueError(f"file {other} is not what was written in round {held[other]}")
        longest_s = max(longest_s, time.monotonic() - begun)
        serial += 1
        time.sleep(PAUSE_S)
    for place, last in held.items():
        if (directory / f"{place}").read_bytes() != content(last):
            raise ValueError(f"file {place} is not what was written in round {last}")
    return {"rounds": serial, "longest_s": longest_s}


def _told_to_stop() -> bool:
    """Nothing is ever said on standard input, so it is readable when it ends."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


class Load:
    """The program on a client, started with `ssh_command(COMMAND)`."""

    def __init__(self, ssh: list[str], directory: str) -> None:
        self._process = subprocess.Popen(
            ssh, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.directory = directory

    def stop(self, within_s: float = 180.0) -> dict[str, float]:
        """No operation has failed; what was done."""
        output, errors = self._process.communicate(timeout=within_s)
        assert self._process.returncode == 0, f"the load failed: {errors[-2000:]}"
        done: dict[str, float] = json.loads(output)
        return done

    def close(self) -> None:
        """However it is."""
        self._process.kill()
        self._process.communicate()


if __name__ == "__main__":
    print(json.dumps(work(Path(sys.argv[1]))))
