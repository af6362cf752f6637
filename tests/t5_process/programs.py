"""Programs that use the mount while the cluster is treated badly: workload.py, and cp."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.t5_process.observed import HEAL_S, wait_for

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def copying(source: Path, target: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`cp source target`, running inside of `with`; ended at its end, if need be."""
    copy = subprocess.Popen(["cp", str(source), str(target)])
    try:
        yield copy
    finally:
        copy.kill()
        copy.wait()


class Worker:
    """A program that uses the mount (workload.py), with its record of what was acknowledged."""

    def __init__(self, what: str, directory: Path, record: Path, *words: str) -> None:
        self.record = record
        record.touch()
        command = [sys.executable, "-m", "tests.t5_process.workload", what]
        self.process = subprocess.Popen(
            [*command, str(directory), str(record), *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def entries(self) -> list[dict[str, Any]]:
        """What it has recorded so far, oldest first."""
        lines = self.record.read_text().split("\n")
        return [json.loads(line) for line in lines[:-1]]  # the last one may be half-written

    def wait_progress(self, more: int, timeout_s: float = HEAL_S) -> None:
        """Wait until it has recorded `more` entries than now."""
        wanted = len(self.entries()) + more
        wait_for(
            lambda: len(self.entries()) >= wanted or self.process.poll() is not None,
            f"{more} more operations",
            timeout_s,
        )
        assert self.process.poll() is None, f"ended early: {self._errors()}"

    def finish(self, timeout_s: float = HEAL_S) -> list[dict[str, Any]]:
        """Tell it to stop and check that it met no error; all that it recorded."""
        assert self.end(timeout_s) == 0, self._errors()
        return self.entries()

    def end(self, timeout_s: float = HEAL_S) -> int:
        """Tell it to stop; its exit status."""
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        return self.process.wait(timeout_s)

    def _errors(self) -> str:
        return self.process.stderr.read() if self.process.stderr else ""

    def close(self) -> None:
        """End it in any case."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stderr):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
