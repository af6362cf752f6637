"""Rules on the bytes of open files: reading, writing, mapping, allocating, punching, copying."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.stateful.machine import offsets, sizes
from tests.stateful.opened import Open, OpenFiles, slots
from tests.stateful.twin import outcome
from tests.syscalls import fallocate

fallocate_modes = st.sampled_from([0, 1, 3, 3, 16, 17, 2, 19])
pieces = st.lists(st.integers(1, 10_000), min_size=1, max_size=4)


class Contents(OpenFiles):
    """What is read and written through descriptors."""

    @rule(slot=slots, offset=offsets, size=sizes)
    def write_at(self, slot: int, offset: int, size: int) -> None:
        data = self.payload(size)
        self.with_descriptor(
            slot, lambda it: os.pwrite(it, data, offset), f"pwrite {size} at {offset}"
        )

    @rule(slot=slots, size=sizes)
    def write_on(self, slot: int, size: int) -> None:
        data = self.payload(size)
        self.with_descriptor(
            slot, lambda it: (os.write(it, data), os.lseek(it, 0, os.SEEK_CUR)), f"write {size}"
        )

    @rule(slot=slots, offset=offsets, lengths=pieces)
    def write_pieces(self, slot: int, offset: int, lengths: list[int]) -> None:
        data = [self.payload(length) for length in lengths]
        self.with_descriptor(
            slot, lambda it: os.pwritev(it, data, offset), f"pwritev {lengths} at {offset}"
        )

    @rule(slot=slots, offset=offsets, size=sizes)
    def read_at(self, slot: int, offset: int, size: int) -> None:
        self.with_descriptor(
            slot, lambda it: os.pread(it, size, offset), f"pread {size} at {offset}"
        )

    @rule(slot=slots, size=sizes)
    def read_on(self, slot: int, size: int) -> None:
        self.with_descriptor(
            slot, lambda it: (os.read(it, size), os.lseek(it, 0, os.SEEK_CUR)), f"read {size}"
        )

    @rule(slot=slots, lengths=pieces)
    def read_pieces(self, slot: int, lengths: list[int]) -> None:
        def action(descriptor: int) -> tuple[int, list[bytes]]:
            buffers = [bytearray(length) for length in lengths]
            return os.readv(descriptor, buffers), [bytes(buffer) for buffer in buffers]

        self.with_descriptor(slot, action, f"readv {lengths}")

    @rule(slot=slots, offset=st.integers(-10, 100_000), whence=st.integers(0, 2))
    def set_position(self, slot: int, offset: int, whence: int) -> None:
        """In a directory a position is the file system's own affair."""
        if not self.is_directory(slot):
            what = f"lseek {offset}, {whence}"
            self.with_descriptor(slot, lambda it: os.lseek(it, offset, whence), what)

    @rule(slot=slots, offset=offsets, whence=st.sampled_from([os.SEEK_DATA, os.SEEK_HOLE]))
    def find_data_or_hole(self, slot: int, offset: int, whence: int) -> None:
        """What is called a hole must be zeros on the twin; how finely holes are told may differ."""
        it = self.used(slot)
        if it is None or self.is_directory(slot):
            return
        self.note(it.view, f"seek {whence} from {offset}, slot {self.open.index(it)}")
        mine = outcome(lambda: os.lseek(it.mine, offset, whence))
        theirs = outcome(lambda: os.lseek(it.theirs, offset, whence))
        size = os.fstat(it.theirs).st_size
        if mine[0] == "ok":
            self.must_be_same(theirs[0] == "ok" or whence == os.SEEK_DATA, True)
            found = mine[1]
            if not offset <= found <= size or (whence == os.SEEK_DATA and found == size):
                self.fail(f"found {found}; the size is {size}")
            hole = (offset, found) if whence == os.SEEK_DATA else (found, found + 1)
        else:
            self.must_be_same(mine[1], "ENXIO" if theirs[0] == "ok" else theirs[1])
            if whence == os.SEEK_HOLE or mine[1] != "ENXIO":
                self.must_be_same(mine, theirs)
            hole = (offset, size)
        os.lseek(it.mine, 0, os.SEEK_SET)
        os.lseek(it.theirs, 0, os.SEEK_SET)
        self._must_be_zeros(it, *hole)

    def _must_be_zeros(self, it: Open, start: int, end: int) -> None:
        try:
            content = os.pread(it.theirs, max(0, end - start), start)
        except OSError as problem:
            if problem.errno != errno.EBADF:  # not open for reading
                raise
            return
        if any(content):
            self.fail(f"not a hole: {start} to {end}")

    @rule(slot=slots, size=st.one_of(sizes, st.just(-1)))
    def truncate_open(self, slot: int, size: int) -> None:
        self.with_descriptor(slot, lambda it: os.ftruncate(it, size), f"ftruncate {size}")

    @precondition(lambda self: "fallocate" not in self.world.missing)
    @rule(slot=slots, mode=fallocate_modes, offset=offsets, length=sizes)
    def allocate_punch_or_zero(self, slot: int, mode: int, offset: int, length: int) -> None:
        self.with_descriptor(
            slot,
            lambda it: fallocate(it, mode, offset, length),
            f"fallocate {mode}, {length} at {offset}",
        )

    @rule(slot=slots, other=slots, offset=offsets, to=offsets, length=sizes)
    def copy_range(self, slot: int, other: int, offset: int, to: int, length: int) -> None:
        source, target = self.used(slot), self.used(other)
        if source is None or target is None or source.view != target.view:
            return
        self.note(
            source.view,
            f"copy {length} at {offset} of slot {self.open.index(source)} to {to} of "
            f"{self.open.index(target)}",
        )

        def copied(one: int, two: int) -> Any:
            """As cp does: it looks at the source, and goes on until nothing is left."""

            def action() -> int:
                rest = min(length, max(0, os.fstat(one).st_size - offset))
                done = 0
                while True:
                    count = os.copy_file_range(one, two, rest - done, offset + done, to + done)
                    done += count
                    if not count or done == rest:
                        return done

            return outcome(action)

        self.must_be_same(copied(source.mine, target.mine), copied(source.theirs, target.theirs))

    @rule(slot=slots, offset=offsets, size=sizes)
    def read_mapped(self, slot: int, offset: int, size: int) -> None:
        self.with_mappable(slot, offset, size, None)

    @rule(slot=slots, offset=offsets, size=sizes)
    def write_mapped(self, slot: int, offset: int, size: int) -> None:
        self.with_mappable(slot, offset, size, self.payload(size))

    def with_mappable(self, slot: int, offset: int, size: int, data: bytes | None) -> None:
        """Linux does not map what FUSE opens past the pages, as O_APPEND is by us."""
        it = self.used(slot)
        if it is None or not fcntl.fcntl(it.theirs, fcntl.F_GETFL) & os.O_APPEND:
            what = f"mmap {'write' if data else 'read'} {size} at {offset}"
            self.with_descriptor(slot, lambda it: _mapped(it, offset, size, data), what)

    @rule(slot=slots, data_only=st.booleans())
    def sync(self, slot: int, data_only: bool) -> None:
        self.with_descriptor(slot, os.fdatasync if data_only else os.fsync, "fsync")

    @rule(slot=slots)
    def forget_pages(self, slot: int) -> None:
        self.with_descriptor(
            slot, lambda it: os.posix_fadvise(it, 0, 0, os.POSIX_FADV_DONTNEED), "drop pages"
        )


def _mapped(descriptor: int, offset: int, size: int, data: bytes | None) -> bytes:
    """Read through a mapping, or write and msync(2); as much of it as the file has."""
    attributes = os.fstat(descriptor)
    if not stat.S_ISREG(attributes.st_mode):  # a directory has a size, but not the same one
        return b""
    end = min(offset + size, attributes.st_size)
    start = min(offset, end) // mmap.PAGESIZE * mmap.PAGESIZE
    if end <= start:
        return b""
    protection = mmap.PROT_READ if data is None else mmap.PROT_READ | mmap.PROT_WRITE
    with mmap.mmap(descriptor, end - start, prot=protection, offset=start) as mapping:
        if data is None:
            return mapping[max(0, offset - start) :]
        if end > offset:
            mapping[offset - start :] = data[: end - offset]
            mapping.flush()
    return b""
