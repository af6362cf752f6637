"""Cold ranges are read before they are sent; warm ones are not read twice."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chunkd.pagecache import load_into_page_cache

SIZE = 3 << 20


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    yield fd
    os.close(fd)


class Reads:
    """Stands in for os.preadv: cold or warm as told, and remembers what was really read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, probe_error: int = 0) -> None:
        self.probe_error = probe_error
        self.read: list[tuple[int, int]] = []
        monkeypatch.setattr(os, "preadv", self)

    def __call__(self, fd: int, buffers: list[bytearray], offset: int, flags: int = 0) -> int:
        if flags:
            if self.probe_error:
                raise OSError(self.probe_error, "injected")
            return 1
        self.read.append((offset, len(buffers[0])))
        return len(buffers[0])


def test_a_warm_range_is_not_read(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(monkeypatch)
    load_into_page_cache(fd, 0, SIZE)
    assert reads.read == []


def test_a_cold_range_is_read_in_pieces(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(monkeypatch, errno.EAGAIN)
    load_into_page_cache(fd, 65_536, (2 << 20) + 5)
    assert reads.read[0] == (65_536, 1 << 20)
    assert [offset for offset, _ in reads.read] == [65_536 + (n << 20) for n in range(3)]


def test_a_file_system_that_cannot_say(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(monkeypatch, errno.EOPNOTSUPP)
    load_into_page_cache(fd, 0, SIZE)
    assert reads.read == []


def test_a_disk_error_is_raised(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    Reads(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="injected"):
        load_into_page_cache(fd, 0, SIZE)


def test_for_real(fd: int) -> None:
    os.posix_fadvise(fd, 0, SIZE, os.POSIX_FADV_DONTNEED)
    load_into_page_cache(fd, 0, SIZE)
    load_into_page_cache(fd, SIZE - 1, 1)
