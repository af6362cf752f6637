"""The archives that hosts install dfs from, built by scripts/wheels.sh and kept between runs.

Building takes a minute, most of it for packages of others; an archive is kept under the hash of all
that goes into it, so it is built once for each state of the code.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.t7_hosts.baseroot import cache

CLONE = Path(__file__).parents[2]
BUILD_S = 560.0
KEPT = 6
SOURCES = (
    *("pyproject.toml", "setup.py", "scripts/wheels.sh"),
    *("requirements.txt", "requirements-build.txt"),
)
PACKAGES = ("dfswire", "metad", "chunkd", "dfsmount")
# The Python that hosts have, as Debian 12 has it.
TAG = f"cp311-{os.uname().machine}"


def release() -> str:
    """The version in pyproject.toml."""
    for line in (CLONE / "pyproject.toml").read_text().splitlines():
        if line.startswith("version = "):
            return line.split('"')[1]
    raise AssertionError("pyproject.toml names no version")


def archives(directory: Path, *versions: str) -> None:
    """Put archives of these versions into `directory`; 0.1.0+X is 0.1.0, built another time."""
    for version in versions:
        name = f"dfs-{version}-{TAG}.tar"
        kept = cache() / f"wheels-{_digest()}" / name
        if not kept.exists():
            _build(kept.parent, version.partition("+")[2])
        os.utime(kept.parent)
        (directory / name).symlink_to(kept)


def _digest() -> str:
    digest = hashlib.sha256()
    files = [CLONE / name for name in SOURCES]
    for package in PACKAGES:
        files += [each for kind in ("py", "c") for each in (CLONE / package).rglob(f"*.{kind}")]
    for file in sorted(files):
        digest.update(f"{file.relative_to(CLONE)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _build(directory: Path, local: str) -> None:
    # Of older states of the code the latest stay: others may be testing them.
    known = sorted(cache().glob("wheels-*"), key=lambda each: each.stat().st_mtime)
    for old in known[:-KEPT]:
        shutil.rmtree(old)
    done = subprocess.run(
        ["scripts/wheels.sh", str(directory), *([local] if local else [])],
        cwd=CLONE,
        env={**os.environ, "PYTHON": "/usr/bin/python3"},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
    )
    assert done.returncode == 0, f"scripts/wheels.sh: {done.stderr[-2000:]}"
