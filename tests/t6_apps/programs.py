"""Programs that tests run: where they are, one beside a test, several at once.

`run` of the harness is for one program that ends; `started` is for one that runs while the test
does something else, and that is ended with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
END_S = 60.0


def find_program(name: str) -> str | None:
    """The path of a program.  Debian keeps those of PostgreSQL's server off PATH."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", *map(str, POSTGRES)])
    return shutil.which(name, path=path)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@contextmanager
def started(*command: str | Path, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """A program that runs inside of `with`; killed at its end, if it has not ended by itself."""
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd or ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def together(module: str, calls: Sequence[Sequence[str | Path]], timeout_s: float = END_S) -> None:
    """Run `python -m tests.t6_apps.MODULE WORDS` for each WORDS, all at once, to success."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"tests.t6_apps.{module}", *(str(word) for word in words)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in calls
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=timeout_s)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
            process.communicate()
