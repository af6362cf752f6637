"""Copying large files: cp(1) clones within the mount, keeps holes, and either side may change."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import LiveCluster, run
from tests.t6_apps.size import sized

MIB = 1 << 20
LARGE_MIB = sized(96, 10 << 10)
PATIENCE_S = sized(60, 4 * 3600)
PATCH = b"changed!" * 10_000


def write_large(path: Path, rng: random.Random) -> None:
    """Few random blocks, used many times: random bytes are slower to make than to store."""
    blocks = [rng.randbytes(MIB) for _ in range(16)]
    with path.open("wb") as file:
        for number in range(LARGE_MIB):
            file.write(number.to_bytes(8, "little") + rng.choice(blocks)[8:])


def sha256(path: Path) -> str:
    return run("sha256sum", path, cwd=path.parent, timeout_s=PATIENCE_S).split()[0]


def patch(path: Path, rng: random.Random) -> None:
    """Change a file here and there, and its end."""
    with path.open("r+b") as file:
        for _ in range(20):
            file.seek(rng.randrange(LARGE_MIB * MIB - len(PATCH)))
            file.write(PATCH)
        file.seek(0, os.SEEK_END)
        file.write(PATCH)


def copy_and_change(views: TwoViews, rng: random.Random, *words: str) -> None:
    """Whatever the two share, what is written to one must not be seen in the other, anywhere."""
    original = sha256(views.a / "large")
    run("cp", *words, "large", "copy", cwd=views.a, timeout_s=PATIENCE_S)
    assert sha256(views.b / "copy") == original
    patch(views.a / "copy", rng)
    changed = sha256(views.a / "copy")
    assert changed != original
    assert sha256(views.b / "copy") == changed
    assert sha256(views.b / "large") == original
    patch(views.b / "large", rng)
    os.truncate(views.b / "large", 5 * MIB + 3)
    assert sha256(views.a / "copy") == changed
    (views.a / "large").unlink()
    assert sha256(views.b / "copy") == changed


@pytest.mark.parametrize("way", ["auto", "never"])
def test_either_side_of_a_copy_may_change(views: TwoViews, rng: random.Random, way: str) -> None:
    write_large(views.a / "large", rng)
    copy_and_change(views, rng, f"--reflink={way}")


def test_a_copy_shares_its_chunks(cluster: LiveCluster, here: Path, rng: random.Random) -> None:
    """No byte is copied, and none is lost with the original."""
    write_large(here / "large", rng)
    before = sha256(here / "large")
    run("cp", "large", "copy", cwd=here, timeout_s=PATIENCE_S)
    # FUSE asks for 4 GiB less a page at most: the chunk there is in two extents of the copy.
    original, copy = (
        list(dict.fromkeys(extent["chunk"] for extent in cluster.info(here / name)["extents"]))
        for name in ("large", "copy")
    )
    assert copy == original
    (here / "large").unlink()
    assert sha256(here / "copy") == before


@pytest.mark.parametrize("way", ["always", "auto"])
def test_copies_of_sparse_files_are_sparse(here: Path, tmp_path: Path, way: str) -> None:
    """A hole costs nothing, whether the source has it as one or as zeros."""
    size = LARGE_MIB * MIB
    with (here / "sparse").open("wb") as file:
        os.truncate(file.fileno(), size)
        for place in (0, 10 * MIB, size - 1000):
            os.pwrite(file.fileno(), b"data" * 250, place)
    used = allocated(here / "sparse")
    assert 3000 <= used < MIB
    run("cp", f"--sparse={way}", "sparse", "copy", cwd=here, timeout_s=PATIENCE_S)
    run("cmp", "sparse", "copy", cwd=here, timeout_s=PATIENCE_S)
    assert allocated(here / "copy") < MIB
    run("cp", f"--sparse={way}", "copy", tmp_path / "local", cwd=here, timeout_s=PATIENCE_S)
    assert allocated(tmp_path / "local") < MIB
    if way == "always":
        run("dd", "if=/dev/zero", "of=zeros", "bs=1M", "count=8", "status=none", cwd=here)
        assert allocated(here / "zeros") == 8 * MIB
        run("cp", "--sparse=always", "zeros", "holes", cwd=here)
        assert ((here / "holes").stat().st_size, allocated(here / "holes")) == (8 * MIB, 0)


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("flags", ["direct", "sync", "dsync", "append", "direct,sync"])
def test_dd_with_flags(here: Path, tmp_path: Path, rng: random.Random, flags: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(rng.randbytes(3 * MIB))
    words = [f"oflag={flags}", "bs=64k", "status=none"]
    (here / "f").write_bytes(b"x" * 65536)
    run("dd", f"if={source}", "of=f", "conv=notrunc", *words, cwd=here)
    expected = source.read_bytes()
    if flags == "append":
        expected = b"x" * 65536 + expected
    assert (here / "f").read_bytes() == expected
    run("dd", "if=f", "of=g", "iflag=direct", *words, cwd=here)
    run("cmp", "f", "g", cwd=here)
