"""tar, zip and cp -a: many small files, written and read in one go, with all their attributes."""

from __future__ import annotations

import io
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.stateful.twin import assert_same_tree
from tests.t4_mount.harness import run
from tests.t6_apps.programs import names_in
from tests.t6_apps.size import sized

SMALL_FILES = sized(1500, 1_000_000)
ZIPPED_FILES = sized(500, 5000)
PER_DIRECTORY = 500
PATIENCE_S = sized(300, 12 * 3600)


def times(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.lstat().st_mtime_ns for path in sorted(root.rglob("*"))
    }


def test_cp_a_copies_everything(here: Path, source: Path) -> None:
    run("cp", "-a", source, here / "copy", cwd=here)
    assert_same_tree(here / "copy", source)
    assert times(here / "copy") == times(source)
    run("cp", "-a", here / "copy" / "d1", here / "second", cwd=here)
    assert_same_tree(here / "second", source / "d1")
    assert times(here / "second") == times(source / "d1")


def test_tar_there_and_back(here: Path, source: Path, tmp_path: Path) -> None:
    run("tar", "cf", tmp_path / "all.tar", "--xattrs", "-C", source, ".", cwd=here)
    run("tar", "xf", tmp_path / "all.tar", "--xattrs", cwd=here)
    assert_same_tree(here, source)
    run("diff", "-r", "--no-dereference", source, here, cwd=tmp_path)
    run("tar", "cf", "again.tar", *names_in(source), cwd=here)
    (tmp_path / "back").mkdir()
    run("tar", "xf", here / "again.tar", "-C", tmp_path / "back", cwd=here)
    run("diff", "-r", "--no-dereference", source, tmp_path / "back", cwd=here)


def small_file(number: int) -> tuple[str, bytes]:
    """Name and content of a small file; most are shorter than a block."""
    text = b"file %d\n" % number * (number % 97 + (2000 if number % 251 == 0 else 1))
    return f"d{number // PER_DIRECTORY:04}/f{number}", text


def write_tar(stream: IO[bytes]) -> None:
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        for number in range(SMALL_FILES):
            name, text = small_file(number)
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(text), 1_700_000_000 + number, 0o640
            archive.addfile(entry, io.BytesIO(text))


def read_tar(stream: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            if entry.isreg():
                content = archive.extractfile(entry)
                assert content is not None
                yield entry, content.read()


def test_tar_of_many_small_files(here: Path) -> None:
    """Unpacked, packed, counted and removed; the archive itself is never in memory or on disk."""
    with subprocess.Popen(["tar", "x"], cwd=here, stdin=subprocess.PIPE) as unpacking:
        assert unpacking.stdin is not None
        write_tar(unpacking.stdin)
    assert unpacking.returncode == 0
    seen = set()
    with subprocess.Popen(["tar", "c", "."], cwd=here, stdout=subprocess.PIPE) as packing:
        assert packing.stdout is not None
        for entry, content in read_tar(packing.stdout):
            number = int(entry.name.rpartition("f")[2])
            assert (entry.name.removeprefix("./"), content) == small_file(number)
            assert (entry.mtime, entry.mode) == (1_700_000_000 + number, 0o640)
            seen.add(number)
    assert packing.returncode == 0
    assert len(seen) == SMALL_FILES
    found = run("find", ".", "-type", "f", "-printf", ".", cwd=here, timeout_s=PATIENCE_S)
    assert len(found) == SMALL_FILES
    used = int(run("du", "-s", "--block-size=1", ".", cwd=here, timeout_s=PATIENCE_S).split()[0])
    assert used >= sum(len(small_file(number)[1]) for number in range(SMALL_FILES))
    run("rm", "-r", *names_in(here), cwd=here, timeout_s=PATIENCE_S)
    assert names_in(here) == []


@pytest.mark.needs("zip", "unzip")
def test_zip_and_unzip(here: Path) -> None:
    """zip writes beside the archive and renames; unzip sets times and modes of what it wrote."""
    checks = {}
    for number in range(ZIPPED_FILES):
        name, text = small_file(number)
        path = here / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
        checks[name] = zlib.crc32(text)
    run("zip", "-qr", "all.zip", "tree", cwd=here, timeout_s=PATIENCE_S)
    name, text = small_file(0)
    (here / "tree" / name).write_bytes(text * 2)
    checks[name] = zlib.crc32(text * 2)
    run("zip", "-q", "all.zip", f"tree/{name}", cwd=here, timeout_s=PATIENCE_S)
    run("unzip", "-tq", "all.zip", cwd=here, timeout_s=PATIENCE_S)
    run("unzip", "-q", "all.zip", "-d", "out", cwd=here, timeout_s=PATIENCE_S)
    out = here / "out" / "tree"
    assert {name: zlib.crc32((out / name).read_bytes()) for name in checks} == checks
    assert sum(path.is_file() for path in out.rglob("*")) == ZIPPED_FILES
