"""Does the operations of fsx on mounts, and compares what comes of them with the model.

Each file is seen through several views (mounts of one cluster), each view has descriptors of its
own: an ordinary one, one with O_APPEND, one with O_DIRECT.  Whatever one view has done must be true
on all others when it returns.  The first difference is raised as `Mismatch`.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fsx.model import Model
from tests.fsx.operations import MIB, Operation
from tests.fsx.system import MODES, drop_caches
from tests.syscalls import fallocate

PAGE = mmap.PAGESIZE
STEP = 64  # fills start at multiples of this
NOISE = random.Random("fsx").randbytes(4 * MIB)
READ_BACK_BYTES = MIB  # `check` reads in such pieces


class Mismatch(Exception):
    """The file system did something else than the model."""


def fill_bytes(fill: int, length: int) -> bytes:
    """The bytes that the write with this number writes; they tell where they come from."""
    start = fill_start(fill)
    return NOISE[start : start + length]


def fill_start(fill: int) -> int:
    return fill * 40_503 * STEP % (3 * MIB)


class File:
    """One file under test: the truth, its names, and its descriptors in every view."""

    def __init__(self, stem: str) -> None:
        self.model = Model()
        self.names = [f"{stem}.0"]
        self.named = 0  # counts names, so that each is new
        self.descriptors: dict[tuple[int, int], int] = {}
        self.stem = stem

    def new_name(self) -> str:
        self.named += 1
        return f"{self.stem}.{self.named}"


class Player:
    """`roots` are one directory as the views see it; `remounts` mount a view anew."""

    def __init__(
        self,
        roots: Sequence[Path],
        files: int = 2,
        remounts: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._roots = roots
        self._remounts = remounts
        self.files = [File(f"f{number}") for number in range(files)]
        for file in self.files:
            (roots[0] / file.names[0]).touch()

    @property
    def models(self) -> list[Model]:
        return [file.model for file in self.files]

    def play(self, operation: Operation) -> None:
        """Raises Mismatch; an error that the file system should not have made is one too."""
        try:
            getattr(self, f"do_{operation.kind}")(*operation.args)
        except OSError as problem:
            code = errno.errorcode.get(problem.errno or 0, "?")
            raise Mismatch(f"{operation.kind} failed with {code}: {problem}") from problem

    def close(self) -> None:
        for number in range(len(self.files)):
            for view in range(len(self._roots)):
                self._close(number, view)

    def _close(self, number: int, view: int) -> None:
        descriptors = self.files[number].descriptors
        for key in [key for key in descriptors if key[0] == view]:
            os.close(descriptors.pop(key))

    def _open(self, number: int, view: int, flags: int = 0) -> int:
        file = self.files[number]
        descriptor = file.descriptors.get((view, flags))
        if descriptor is None:
            descriptor = os.open(self._roots[view] / file.names[-1], os.O_RDWR | flags)
            file.descriptors[view, flags] = descriptor
        return descriptor

    # -- reading

    def do_read(self, number: int, view: int, offset: int, length: int) -> None:
        got = os.pread(self._open(number, view), length, offset)
        self._compare(number, offset, length, got)

    def do_direct_read(self, number: int, view: int, offset: int, length: int) -> None:
        """O_DIRECT wants memory at the start of a page on many file systems, so it gets that."""
        offset, length = offset - offset % 512, length + -length % 512
        with mmap.mmap(-1, length) as memory:
            got = os.preadv(self._open(number, view, os.O_DIRECT), [memory], offset)
            self._compare(number, offset, length, memory[:got])

    def do_map_read(self, number: int, view: int, offset: int, length: int) -> None:
        model = self.files[number].model
        length = min(length, model.size - offset)
        if length <= 0:
            return
        start = offset - offset % PAGE
        end = offset + length
        mapped = min(end + -end % PAGE, model.size) - start
        with mmap.mmap(
            self._open(number, view), mapped, access=mmap.ACCESS_READ, offset=start
        ) as mapping:
            self._compare(number, offset, length, mapping[offset - start : end - start])

    def _compare(self, number: int, offset: int, length: int, got: bytes) -> None:
        wanted = self.files[number].model.read(offset, length)
        if got == wanted:
            return
        if len(got) != len(wanted):
            raise Mismatch(f"{len(got)} bytes instead of {len(wanted)} from {offset}")
        pairs = zip(got, wanted, strict=True)
        first = next(index for index, (mine, model) in enumerate(pairs) if mine != model)
        last = max(index for index in range(first, len(got)) if got[index] != wanted[index])
        raise Mismatch(
            f"wrong bytes from {offset + first} to {offset + last}: "
            f"{_described(got[first : first + 16])} instead of "
            f"{_described(wanted[first : first + 16])}; file {number} of {self.models[number].size}"
        )

    # -- writing

    def do_write(self, number: int, view: int, offset: int, length: int, fill: int) -> None:
        self._write(number, self._open(number, view), offset, fill_bytes(fill, length))

    def do_direct_write(self, number: int, view: int, offset: int, length: int, fill: int) -> None:
        offset, length = offset - offset % 512, length + -length % 512
        with mmap.mmap(-1, length) as memory:
            memory[:] = fill_bytes(fill, length)
            written = os.pwritev(self._open(number, view, os.O_DIRECT), [memory], offset)
        self._written(number, offset, fill_bytes(fill, length), written)

    def _write(self, number: int, descriptor: int, offset: int, data: bytes) -> None:
        self._written(number, offset, data, os.pwrite(descriptor, data, offset))

    def _written(self, number: int, offset: int, data: bytes, count: int) -> None:
        if count != len(data):
            raise Mismatch(f"{count} of {len(data)} bytes written at {offset}")
        self.files[number].model.write(offset, data)

    def do_append(self, number: int, view: int, length: int, fill: int) -> None:
        data = fill_bytes(fill, length)
        count = os.write(self._open(number, view, os.O_APPEND), data)
        self._written(number, self.files[number].model.size, data, count)

    def do_map_write(
        self, number: int, view: int, offset: int, length: int, fill: int, unmap_only: int
    ) -> None:
        """Without msync(2) nothing is promised to other views, so there it is always called."""
        model = self.files[number].model
        length = min(length, model.size - offset)
        if length <= 0:
            return
        data = fill_bytes(fill, length)
        start = offset - offset % PAGE
        with mmap.mmap(self._open(number, view), offset + length - start, offset=start) as mapping:
            mapping[offset - start :] = data
            if len(self._roots) > 1 or not unmap_only:
                mapping.flush()
        model.write(offset, data)

    def do_truncate(self, number: int, view: int, size: int) -> None:
        os.ftruncate(self._open(number, view), size)
        self.files[number].model.truncate(size)

    def do_truncate_path(self, number: int, view: int, size: int) -> None:
        os.truncate(self._path(number, view), size)
        self.files[number].model.truncate(size)

    # -- ranges

    def do_allocate(self, number: int, view: int, offset: int, length: int) -> None:
        self._fallocate("allocate", number, view, offset, length)
        self._grow(number, offset + length)

    def do_allocate_keep(self, number: int, view: int, offset: int, length: int) -> None:
        self._fallocate("allocate_keep", number, view, offset, length)

    def do_punch(self, number: int, view: int, offset: int, length: int) -> None:
        self._fallocate("punch", number, view, offset, length)
        self.files[number].model.zero(offset, length)

    def do_zero(self, number: int, view: int, offset: int, length: int) -> None:
        self._fallocate("zero", number, view, offset, length)
        self._grow(number, offset + length)
        self.files[number].model.zero(offset, length)

    def do_zero_keep(self, number: int, view: int, offset: int, length: int) -> None:
        self._fallocate("zero_keep", number, view, offset, length)
        self.files[number].model.zero(offset, length)

    def _fallocate(self, kind: str, number: int, view: int, offset: int, length: int) -> None:
        fallocate(self._open(number, view), MODES[kind], offset, length)

    def _grow(self, number: int, size: int) -> None:
        model = self.files[number].model
        model.truncate(max(model.size, size))

    def do_copy(
        self, number: int, view: int, offset: int, target: int, target_offset: int, length: int
    ) -> None:
        """copy_file_range(2), until all is copied or the source ends.

        Before it asks the file system, Linux cuts the range at the size that it remembers of the
        source, which another view may have changed; fstat(2), which cp calls too, refreshes it.
        """
        data = self.files[number].model.read(offset, length)
        length = len(data)  # or a copy behind the end of the same file would find itself there
        if number == target and abs(offset - target_offset) < length:
            return  # overlapping ranges are EINVAL; the test of errors has that
        source, sink = self._open(number, view), self._open(target, view)
        copied = 0
        os.fstat(source)
        while copied < length:
            count = os.copy_file_range(
                source, sink, length - copied, offset + copied, target_offset + copied
            )
            if not count:
                break
            copied += count
        if copied != len(data):
            raise Mismatch(f"{copied} of {len(data)} bytes copied from {offset}")
        self.files[target].model.write(target_offset, data)

    def do_seek(self, number: int, view: int, offset: int, hole: int) -> None:
        """What is said to be a hole must be zeros, and what is not zeros must be said to be data.

        How finely holes are told is not promised.
        """
        model = self.files[number].model
        descriptor = self._open(number, view)
        found = _seek(descriptor, offset, os.SEEK_HOLE if hole else os.SEEK_DATA)
        if offset >= model.size:
            if found is not None:
                raise Mismatch(f"seek from {offset} found {found}, behind the end {model.size}")
            return
        if hole:
            if found is None or not offset <= found <= model.size:
                raise Mismatch(f"the hole after {offset} is at {found}, the end at {model.size}")
            following = _seek(descriptor, found, os.SEEK_DATA)
            self._must_be_zero(number, found, following)
        else:
            if found is not None and not offset <= found < model.size:
                raise Mismatch(f"the data after {offset} is at {found}, the end at {model.size}")
            self._must_be_zero(number, offset, found)

    def _must_be_zero(self, number: int, start: int, end: int | None) -> None:
        model = self.files[number].model
        if not model.is_zero(start, model.size if end is None else end):
            raise Mismatch(f"a hole is told from {start} to {end}, but data is there")

    # -- around the data

    def do_look(self, number: int, view: int) -> None:
        size = self.files[number].model.size
        attributes = self._path(number, view).stat()
        opened = os.fstat(self._open(number, view))
        if (attributes.st_size, opened.st_size) != (size, size):
            raise Mismatch(
                f"the size is {attributes.st_size} by name and {opened.st_size} by descriptor "
                f"instead of {size}"
            )
        if attributes.st_nlink != len(self.files[number].names):
            raise Mismatch(f"{attributes.st_nlink} links: {self.files[number].names}")

    def do_sync(self, number: int, view: int) -> None:
        os.fsync(self._open(number, view))

    def do_sync_data(self, number: int, view: int) -> None:
        os.fdatasync(self._open(number, view))

    def do_reopen(self, number: int, view: int) -> None:
        self._close(number, view)
        self._open(number, view)

    def do_forget(self, number: int, view: int) -> None:
        """The kernel's pages of this file go, as far as they are clean."""
        os.posix_fadvise(self._open(number, view), 0, 0, os.POSIX_FADV_DONTNEED)

    def do_drop_caches(self, number: int, view: int) -> None:
        drop_caches()

    def do_rename(self, number: int, view: int) -> None:
        file = self.files[number]
        new = file.new_name()
        self._path(number, view).rename(self._roots[view] / new)
        file.names[-1] = new

    def do_link(self, number: int, view: int) -> None:
        file = self.files[number]
        if len(file.names) < 5:
            new = file.new_name()
            os.link(self._path(number, view), self._roots[view] / new)
            file.names.append(new)

    def do_unlink(self, number: int, view: int) -> None:
        file = self.files[number]
        if len(file.names) > 1:
            (self._roots[view] / file.names.pop(0)).unlink()

    def do_remount(self, number: int, view: int) -> None:
        """Everything of this view is closed; other views keep what they have open."""
        if view < len(self._remounts):
            for each in range(len(self.files)):
                self._close(each, view)
            self._remounts[view]()

    def do_check(self, number: int, view: int) -> None:
        """All of a file that may be something else than zeros, its borders, and its size."""
        model = self.files[number].model
        descriptor = self._open(number, view)
        self.do_look(number, view)
        starts = {start - start % READ_BACK_BYTES for start in [*model.islands(), model.size, 0]}
        for start in sorted(starts):
            got = os.pread(descriptor, READ_BACK_BYTES, start)
            self._compare(number, start, READ_BACK_BYTES, got)

    def _path(self, number: int, view: int) -> Path:
        return self._roots[view] / self.files[number].names[-1]


def _seek(descriptor: int, offset: int, whence: int) -> int | None:
    """None for ENXIO: there is nothing more of that kind."""
    try:
        return os.lseek(descriptor, offset, whence)
    except OSError as problem:
        if problem.errno != errno.ENXIO:
            raise
        return None


def _described(data: bytes) -> str:
    """Bytes, and where in the noise they are, which tells what wrote them."""
    if not any(data):
        return f"{len(data)} zeros"
    place = NOISE.find(data) if len(data) >= 4 else -1
    return f"{data.hex()} (noise {place})" if place >= 0 else data.hex()
