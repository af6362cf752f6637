"""Bugs planted on purpose, to know that the simulation would find them.

Each patch in planted/ has a first line that says what it breaks.  It is applied to a copy of the
sources, and seeds run there until one fails: seeds of `beyond` for those in planted/beyond/.  A
patch is no use when it finds nothing, or when it does not apply any more; the latter is a test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
PATCHES = Path(__file__).parent / "planted"
SOURCES = ("metad", "chunkd", "dfsmount", "dfswire", "tests", "pyproject.toml")
_FOUND = re.compile(r"^seed (\d+): (.*)$", re.MULTILINE)


@dataclass
class Hunt:
    """What became of one patch."""

    name: str
    what: str
    seed: int | None
    violation: str
    took_s: float


def patches() -> list[Path]:
    """All planted bugs, by name."""
    return sorted(PATCHES.rglob("*.patch"))


def title(patch: Path) -> str:
    """What the bug is."""
    return patch.read_text(encoding="utf-8").partition("\n")[0]


def check(patch: Path, root: Path = ROOT) -> str:
    """Why the patch does not apply; empty when it does."""
    command = ["git", "apply", "--check", str(patch)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stderr.strip()


def hunt(patch: Path, limit: int) -> Hunt:
    """Plant one bug in a scratch copy and run seeds until one fails."""
    with tempfile.TemporaryDirectory(prefix="dfs-planted-") as scratch:
        copy = Path(scratch) / "dfs"
        copy.mkdir()
        for name in SOURCES:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
                shutil.copytree(source, copy / name, ignore=ignored)
            else:
                shutil.copy(source, copy / name)
        # Without a repository around it git applies patches to whatever directory it is in.
        subprocess.run(["git", "apply", str(patch)], cwd=copy, check=True)
        began = time.monotonic()
        mode = "beyond" if patch.parent.name == "beyond" else "run"
        command = [sys.executable, "-m", "tests.simulation", mode]
        command += ["--seeds", str(limit), "--failures", "1", "--jobs", "1"]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
        took_s = time.monotonic() - began
    found = _FOUND.search(done.stdout)
    if found is None and done.returncode:
        raise RuntimeError(f"{patch.name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    seed = int(found[1]) if found else None
    return Hunt(patch.stem, title(patch), seed, found[2] if found else "", took_s)


def hunt_all(only: str, limit: int, console: Console) -> bool:
    """All (or some) of them, as many at a time as there are cores; whether each was found."""
    table = Table("bug", "seed", "time", "violation")
    missed = []
    chosen = [patch for patch in patches() if only in patch.stem]
    pool = ThreadPoolExecutor(os.cpu_count())
    for done in as_completed([pool.submit(hunt, patch, limit) for patch in chosen]):
        found = done.result()
        seed = str(found.seed) if found.seed is not None else "not found"
        console.print(f"{found.name}: {seed}, {found.took_s:.0f} s, {found.violation[:90]}")
        table.add_row(found.what, seed, f"{found.took_s:.0f} s", found.violation[:60])
        if found.seed is None:
            missed.append(found.name)
    pool.shutdown()
    console.print(table)
    if missed:
        console.print(f"not found within {limit} seeds: {', '.join(missed)}")
    return not missed
