"""The rows of the coherence promise about what files contain; used like those of coherent.py."""

from __future__ import annotations

import os
from collections.abc import Callable

from tests.syscalls import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate
from tests.t4_mount.coherent import Row, Scene

PAGE = 4096
LARGE = 100_000  # more than a file that lives in metadata
OLD, NEW = b"1" * LARGE, b"1" * PAGE + b"222" + b"1" * (LARGE - PAGE - 3)


def write_seen_by_read(at: Scene) -> Row:
    """Neither closed nor synced."""
    return Row((at.b / "f").read_bytes, _write(at), NEW)


def write_seen_by_pread(at: Scene) -> Row:
    """Through a descriptor that is open all the time."""
    change = _write(at)
    reader = at.opened(at.b / "f")
    return Row(lambda: os.pread(reader, 2 * LARGE, 0), change, NEW)


def write_seen_by_mmap(at: Scene) -> Row:
    change = _write(at)
    mapping = at.mapped(at.b / "f")
    return Row(lambda: mapping[:], change, NEW)


def write_to_a_small_file(at: Scene) -> Row:
    """One that lives in metadata."""
    (at.a / "f").write_bytes(b"old")
    reader, writer = at.opened(at.b / "f"), at.opened(at.a / "f", os.O_WRONLY)
    return Row(lambda: os.pread(reader, 9, 0), lambda: os.pwrite(writer, b"new", 0), b"new")


def mapping_stored_by_msync(at: Scene) -> Row:
    (at.a / "f").write_bytes(OLD)
    mapping = at.mapped(at.a / "f", os.O_RDWR)
    reader = at.opened(at.b / "f")

    def change() -> None:
        mapping[PAGE : PAGE + 3] = b"222"
        mapping.flush()

    return Row(lambda: os.pread(reader, 2 * LARGE, 0), change, NEW)


def append_seen_past_the_old_end(at: Scene) -> Row:
    (at.a / "f").write_bytes(OLD)
    reader, writer = at.opened(at.b / "f"), at.opened(at.a / "f", os.O_WRONLY | os.O_APPEND)
    return Row(lambda: os.pread(reader, PAGE, LARGE - 2), lambda: os.write(writer, b"2"), b"112")


def truncate_and_extend(at: Scene) -> Row:
    """The size is the old one again, the end is gone."""
    (at.a / "f").write_bytes(b"1" * PAGE * 3)

    def change() -> None:
        os.truncate(at.a / "f", PAGE)
        os.truncate(at.a / "f", PAGE * 3)

    return Row(_pread(at), change, b"1" * PAGE + bytes(PAGE * 2))


def punched_hole(at: Scene) -> Row:
    return _allocated(at, PUNCH_HOLE | KEEP_SIZE)


def zeroed_range(at: Scene) -> Row:
    return _allocated(at, ZERO_RANGE)


def hole_found_by_seek(at: Scene) -> Row:
    """SEEK_HOLE."""
    (at.a / "f").write_bytes(b"1" * PAGE * 3)
    reader, writer = at.opened(at.b / "f"), at.opened(at.a / "f", os.O_RDWR)
    return Row(
        lambda: os.lseek(reader, 0, os.SEEK_HOLE),
        lambda: fallocate(writer, PUNCH_HOLE | KEEP_SIZE, PAGE, PAGE),
        PAGE,
    )


def copied_into(at: Scene) -> Row:
    (at.a / "f").write_bytes(OLD)
    (at.a / "g").write_bytes(b"2" * LARGE)
    source, target = at.opened(at.a / "g"), at.opened(at.a / "f", os.O_RDWR)
    return Row(
        _pread(at),
        lambda: os.copy_file_range(source, target, PAGE, 0, PAGE),
        b"1" * PAGE + b"2" * PAGE + b"1" * (LARGE - 2 * PAGE),
    )


def file_replaced(at: Scene) -> Row:
    """Written aside and renamed over the old one, as editors do."""
    (at.a / "f").write_bytes(OLD)
    (at.a / "g").write_bytes(NEW)
    return Row((at.b / "f").read_bytes, lambda: os.rename(at.a / "g", at.a / "f"), NEW)


def unlinked_while_open(at: Scene) -> Row:
    """Without a name, and still all there."""
    (at.a / "f").write_bytes(OLD)
    reader = at.opened(at.b / "f")

    def look() -> tuple[int, bool]:
        os.posix_fadvise(reader, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.fstat(reader).st_nlink, os.pread(reader, 2 * LARGE, 0) == OLD

    return Row(look, (at.a / "f").unlink, (0, True))


def _write(at: Scene) -> Callable[[], int]:
    (at.a / "f").write_bytes(OLD)
    writer = at.opened(at.a / "f", os.O_WRONLY)
    return lambda: os.pwrite(writer, b"222", PAGE)


def _pread(at: Scene) -> Callable[[], bytes]:
    reader = at.opened(at.b / "f")
    return lambda: os.pread(reader, 2 * LARGE, 0)


def _allocated(at: Scene, mode: int) -> Row:
    (at.a / "f").write_bytes(b"1" * PAGE * 3)
    writer = at.opened(at.a / "f", os.O_RDWR)
    return Row(
        _pread(at),
        lambda: fallocate(writer, mode, PAGE, PAGE),
        b"1" * PAGE + bytes(PAGE) + b"1" * PAGE,
    )


DATA = (
    write_seen_by_read,
    write_seen_by_pread,
    write_seen_by_mmap,
    write_to_a_small_file,
    mapping_stored_by_msync,
    append_seen_past_the_old_end,
    truncate_and_extend,
    punched_hole,
    zeroed_range,
    hole_found_by_seek,
    copied_into,
    file_replaced,
    unlinked_while_open,
)
