"""Open, read, write, truncate and map files on a real mount: what POSIX promises of their bytes."""

from __future__ import annotations

import errno
import mmap
import os
import random
from pathlib import Path

import pytest

MIB = 1 << 20


def test_exclusive_creation_refuses_what_exists(here: Path) -> None:
    os.close(os.open(here / "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    with pytest.raises(FileExistsError):
        os.open(here / "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    (here / "dangling").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        os.open(here / "dangling", os.O_CREAT | os.O_EXCL | os.O_WRONLY)


def test_opening_with_truncation_empties_a_file(here: Path) -> None:
    (here / "f").write_bytes(b"x" * 300_000)
    descriptor = os.open(here / "f", os.O_WRONLY | os.O_TRUNC)
    assert os.fstat(descriptor).st_size == 0
    os.write(descriptor, b"new")
    os.close(descriptor)
    assert (here / "f").read_bytes() == b"new"


def test_appending_goes_to_the_end_wherever_the_offset_is(here: Path) -> None:
    (here / "f").write_bytes(b"start;")
    descriptor = os.open(here / "f", os.O_RDWR | os.O_APPEND)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, b"one;")
    os.lseek(descriptor, 2, os.SEEK_SET)
    os.write(descriptor, b"two;")
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == len(b"start;one;two;")
    os.close(descriptor)
    assert (here / "f").read_bytes() == b"start;one;two;"


def test_two_appending_descriptors_never_overwrite_each_other(here: Path) -> None:
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
    descriptors = [os.open(here / "f", flags) for _ in range(2)]
    for line in range(100):
        os.write(descriptors[line % 2], b"%04d\n" % line)
    for descriptor in descriptors:
        os.close(descriptor)
    assert (here / "f").read_bytes() == b"".join(b"%04d\n" % line for line in range(100))


def test_holes_read_as_zeros_and_take_no_space(here: Path) -> None:
    with (here / "f").open("wb") as file:
        file.seek(40 * MIB)
        file.write(b"end")
    attributes = (here / "f").stat()
    assert attributes.st_size == 40 * MIB + 3
    assert attributes.st_blocks * 512 < MIB
    with (here / "f").open("rb") as file:
        assert file.read(MIB) == bytes(MIB)
        file.seek(40 * MIB - 5)
        assert file.read() == bytes(5) + b"end"


def test_allocated_space_follows_the_data(here: Path) -> None:
    (here / "f").write_bytes(b"x" * MIB)
    assert (here / "f").stat().st_blocks * 512 == MIB
    os.truncate(here / "f", MIB // 2)
    assert (here / "f").stat().st_blocks * 512 == MIB // 2


def test_a_file_of_several_chunks_written_at_random_offsets(here: Path, rng: random.Random) -> None:
    size = 13 * MIB + 4321
    expected = bytearray(size)
    with (here / "f").open("wb", buffering=0) as file:
        for _ in range(150):
            offset = rng.randrange(size)
            data = rng.randbytes(min(size - offset, rng.choice([1, 777, 65_536, 400_000])))
            os.pwrite(file.fileno(), data, offset)
            expected[offset : offset + len(data)] = data
        os.pwrite(file.fileno(), b"!", size - 1)
        expected[size - 1 :] = b"!"
        _forget_pages(file.fileno())
    assert (here / "f").read_bytes() == expected
    with (here / "f").open("rb", buffering=0) as file:
        for _ in range(50):
            _forget_pages(file.fileno())
            offset = rng.randrange(size)
            length = rng.choice([1, 100, 70_000])
            assert os.pread(file.fileno(), length, offset) == expected[offset : offset + length]


def test_data_is_there_after_a_sync_and_forgotten_pages(here: Path, rng: random.Random) -> None:
    for size in (1, 8192, 8193, 65_536, 65_537, 4 * MIB, 4 * MIB + 1):
        data = rng.randbytes(size)
        with (here / "f").open("wb+", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
            _forget_pages(file.fileno())
            assert os.pread(file.fileno(), size + 10, 0) == data
            os.fdatasync(file.fileno())


def test_truncation_cuts_and_what_grows_back_is_zeros(here: Path) -> None:
    with (here / "f").open("wb+", buffering=0) as file:
        file.write(b"x" * 200_000)
        file.truncate(70_000)
        file.truncate(150_000)
        assert os.pread(file.fileno(), 200_000, 0) == b"x" * 70_000 + bytes(80_000)
    os.truncate(here / "f", 10)
    os.truncate(here / "f", 20)
    assert (here / "f").read_bytes() == b"x" * 10 + bytes(10)


def test_an_unlinked_file_lives_as_long_as_it_is_open(here: Path) -> None:
    with (here / "f").open("wb+", buffering=0) as file:
        file.write(b"before")
        (here / "f").unlink()
        assert os.fstat(file.fileno()).st_nlink == 0
        os.pwrite(file.fileno(), b"after " + bytes(100_000), 6)
        os.fsync(file.fileno())
        _forget_pages(file.fileno())
        assert os.pread(file.fileno(), 12, 0) == b"beforeafter "
        os.ftruncate(file.fileno(), 3)
        os.fchmod(file.fileno(), 0o600)
        assert os.pread(file.fileno(), 12, 0) == b"bef"
    assert os.listdir(here) == []


def test_a_name_used_again_is_another_file(here: Path) -> None:
    old = (here / "f").open("wb+", buffering=0)
    with old:
        old.write(b"old")
        (here / "f").unlink()
        (here / "f").write_bytes(b"new")
        assert os.pread(old.fileno(), 9, 0) == b"old"
        assert os.fstat(old.fileno()).st_ino != (here / "f").stat().st_ino
    assert (here / "f").read_bytes() == b"new"


def test_renaming_over_an_open_file_leaves_it_to_its_readers(here: Path) -> None:
    (here / "old").write_bytes(b"old")
    (here / "new").write_bytes(b"new")
    with (here / "old").open("rb", buffering=0) as file:
        os.rename(here / "new", here / "old")
        assert file.read() == b"old"
        assert os.fstat(file.fileno()).st_nlink == 0
    assert (here / "old").read_bytes() == b"new"
    assert os.listdir(here) == ["old"]


def test_a_file_without_read_permission_is_usable_through_its_descriptor(here: Path) -> None:
    descriptor = os.open(here / "f", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o000)
    os.write(descriptor, b"data")
    assert os.pread(descriptor, 4, 0) == b"data"
    os.close(descriptor)


def test_a_descriptor_reads_or_writes_as_it_was_opened(here: Path) -> None:
    (here / "f").write_bytes(b"data")
    for flags, action in (
        (os.O_RDONLY, lambda descriptor: os.write(descriptor, b"x")),
        (os.O_WRONLY, lambda descriptor: os.read(descriptor, 1)),
    ):
        descriptor = os.open(here / "f", flags)
        with pytest.raises(OSError, match="Bad file descriptor"):
            action(descriptor)
        os.close(descriptor)


def test_a_mapping_shows_the_file(here: Path, rng: random.Random) -> None:
    data = rng.randbytes(5 * MIB + 100)
    (here / "f").write_bytes(data)
    with (
        (here / "f").open("rb") as source,
        mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as mapping,
    ):
        assert mapping[:] == data


def test_what_is_written_through_a_shared_mapping_is_in_the_file(here: Path) -> None:
    (here / "f").write_bytes(bytes(300_000))
    with (here / "f").open("rb+") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[100_000:100_005] = b"hello"
        mapping.flush()
        assert os.pread(file.fileno(), 5, 100_000) == b"hello"
        mapping[299_999:300_000] = b"!"
    with (here / "f").open("rb") as reader:
        _forget_pages(reader.fileno())
        assert os.pread(reader.fileno(), 5, 100_000) == b"hello"
        assert os.pread(reader.fileno(), 9, 299_990) == bytes(9)
        assert os.pread(reader.fileno(), 9, 299_999) == b"!"


def test_reading_a_directory_or_writing_it_is_refused(here: Path) -> None:
    descriptor = os.open(here, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        os.read(descriptor, 1)
    os.close(descriptor)
    with pytest.raises(IsADirectoryError):
        os.open(here, os.O_WRONLY)


def test_a_file_larger_than_the_largest_is_refused(here: Path) -> None:
    with (here / "f").open("wb", buffering=0) as file:
        with pytest.raises(OSError) as caught:
            os.pwrite(file.fileno(), b"x", 1 << 60)
        assert caught.value.errno == errno.EFBIG
        with pytest.raises(OSError) as caught:
            os.ftruncate(file.fileno(), 1 << 60)
        assert caught.value.errno == errno.EFBIG
    assert (here / "f").stat().st_size == 0


def _forget_pages(descriptor: int) -> None:
    """Let the next read ask the mount again."""
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
