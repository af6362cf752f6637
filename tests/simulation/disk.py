"""A disk in memory below the real ChunkStore: chunkd/filesystem.py's system calls, with faults.

It keeps what programs see and what the platters hold apart, for each file and for each directory:
fsync of a file makes its bytes durable, fsync of a directory its names, and a power cut leaves
of the rest whatever an adversary likes.  After a failed fsync the bytes that were to be written are
gone from the platters' future too: another fsync succeeds without writing them, as Linux does.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from chunkd import chunkfile
from chunkd.filesystem import Buffers, Facts, FileSystem, Space
from dfswire.bodies import Octets
from dfswire.chunks import chunk_digest
from dfswire.errors import DFSError

ROOT = Path("/disk")
CAPACITY_BYTES = 1 << 32


class Crash(BaseException):
    """The machine stops inside a system call; nothing may catch this but the simulation."""


class _File:
    """`durable` is what the platters hold: None when nothing was ever synced."""

    def __init__(self, modified_s: float) -> None:
        self.content = bytearray()
        self.durable: bytes | None = None
        self.dirty = True
        self.modified_s = modified_s


class _Directory:
    """Names to files; None stands for a directory, which is found by its path."""

    def __init__(self) -> None:
        self.names: dict[str, _File | None] = {}
        self.durable: dict[str, _File | None] = {}


class SimulatedDisk(FileSystem):
    """See the module's text.  The attributes below are what the nemesis turns."""

    def __init__(self, name: str, now_s: Callable[[], float], rng: random.Random) -> None:
        self.name = name
        self.full = False
        self.slow_s = 0.0  # each call of the store takes about so long
        self.failing: dict[str, int] = {}  # "read", "write", "fsync": so many of the next fail
        self.crash_in = -1  # steps until the power goes, inside a system call
        self.off = False
        self.crashed = False  # and nobody has decided yet what the platters hold
        self._now_s = now_s
        self._rng = rng
        self._directories: dict[str, _Directory] = {str(ROOT): _Directory()}
        self._open: dict[int, tuple[_File, str]] = {}
        self._next_fd = 1000

    # -- faults

    def _step(self, kind: str, path: object) -> None:
        if self.off:
            raise Crash(f"{self.name} is off")
        if self.crash_in >= 0:
            self.crash_in -= 1
            if self.crash_in < 0:
                self.off = self.crashed = True
                raise Crash(f"{self.name} loses its power at a {kind}")
        if self.failing.get(kind, 0) > 0:
            self.failing[kind] -= 1
            raise OSError(errno.EIO, f"{kind} error (injected)", str(path))
        if self.full and kind in ("create", "write", "mkdir"):
            raise OSError(errno.ENOSPC, "disk full (injected)", str(path))

    def start(self) -> None:
        """The machine (or only its process) starts: nothing is open."""
        self.off, self.crash_in = False, -1
        self._open.clear()

    def power_cut(self) -> None:
        """Of what was not synced, each thing is there, or not, or something between."""
        self.crashed = False
        for directory in self._directories.values():
            for name in sorted({*directory.names, *directory.durable}):
                seen = directory.names.get(name, self)
                kept = directory.durable.get(name, self)
                if seen is not kept and self._rng.random() < 0.5:
                    if kept is self:
                        del directory.names[name]
                    else:
                        directory.names[name] = directory.durable[name]
            directory.durable = dict(directory.names)
        for path in [path for path in self._directories if not self._is_reachable(path)]:
            del self._directories[path]
        files = [file for _, _, file in self._files()]
        for file in files:
            left = self._left_of(file) if file.dirty else file.durable or b""
            file.content = bytearray(left)
            file.durable, file.dirty = bytes(file.content), False

    def _left_of(self, file: _File) -> bytes:
        torn = bytes(file.content[: self._rng.randrange(len(file.content) + 1)])
        return self._rng.choice(
            [
                b"" if file.durable is None else file.durable,
                torn,
                torn + bytes(len(file.content) - len(torn)),
                bytes(file.content),
            ]
        )

    def _files(self) -> Iterator[tuple[str, str, _File]]:
        for path, directory in self._directories.items():
            for name, file in directory.names.items():
                if file is not None:
                    yield path, name, file

    # -- damage behind the daemon's back, to a chunk by its id

    def chunks(self) -> list[bytes]:
        """All that lie where chunks lie, sorted."""
        found = (name for path, name, _ in self._files() if path.startswith("/disk/chunks/"))
        return sorted(bytes.fromhex(name) for name in found if len(name) == 32)

    def _found(self, chunk: bytes) -> tuple[_Directory, str, _File]:
        name = chunk.hex()
        directory = self._directories[f"/disk/chunks/{name[:2]}/{name[2:4]}"]
        file = directory.names[name]
        assert file is not None
        return directory, name, file

    def rewrite(self, chunk: bytes, content: bytes) -> None:
        """The file has this content, durably."""
        file = self._found(chunk)[2]
        file.content, file.durable, file.dirty = bytearray(content), content, False

    def has(self, chunk: bytes) -> bool:
        """Is a file where this chunk belongs?"""
        try:
            self._found(chunk)
        except KeyError:
            return False
        return True

    def content(self, chunk: bytes) -> bytes:
        return bytes(self._found(chunk)[2].content)

    def vanish(self, chunk: bytes) -> None:
        """The file is not there any more, durably."""
        directory, name, _ = self._found(chunk)
        del directory.names[name]
        directory.durable.pop(name, None)

    def wipe(self) -> None:
        """An empty disk in its place."""
        self._directories = {str(ROOT): _Directory()}

    # -- the truth, for oracles

    def holds(self, chunk: bytes, *, durable: bool, digest: bytes = b"") -> bool:
        """Is a good copy (of this digest) here, which if `durable` survives a power cut?"""
        try:
            directory, name, file = self._found(chunk)
        except KeyError:
            return False
        content = bytes(file.content)
        if durable:
            if directory.durable.get(name) is not file or not self._is_durable(chunk):
                return False
            if file.durable != content:
                return False
        try:
            tail = content[-chunkfile.TAIL_MAX_BYTES :]
            index = chunkfile.parse_tail(chunk, len(content), tail)
            chunkfile.check_blocks(chunk, content[: index.length], index.checksums)
        except DFSError:
            return False
        return not digest or digest == chunk_digest(chunk, index.length, index.checksums)

    def has_evidence(self, chunk: bytes) -> bool:
        """Whether a file of this chunk is somewhere here, however damaged."""
        return bool(self.remains(chunk))

    def remains(self, chunk: bytes) -> list[bytes]:
        """The contents of all files of this chunk, wherever a daemon has put them."""
        prefix = chunk.hex()
        return [bytes(file.content) for _, name, file in self._files() if name.startswith(prefix)]

    def _is_durable(self, chunk: bytes) -> bool:
        """Are the names of the directories on the way?"""
        first, second = chunk.hex()[:2], chunk.hex()[2:4]
        steps = [("/disk", "chunks"), ("/disk/chunks", first), (f"/disk/chunks/{first}", second)]
        return all(name in self._directories[path].durable for path, name in steps)

    # -- the system calls

    def _directory(self, path: str) -> _Directory:
        directory = self._directories.get(path)
        if directory is None:
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        return directory

    def _is_reachable(self, path: str) -> bool:
        while path != "/disk":
            parent, _, name = path.rpartition("/")
            if parent not in self._directories or name not in self._directories[parent].names:
                return False
            path = parent
        return True

    def _file(self, path: Path) -> _File:
        parent, _, name = str(path).rpartition("/")
        file = self._directory(parent).names.get(name)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return file

    def open(self, path: Path, flags: int) -> int:
        parent, _, name = str(path).rpartition("/")
        directory = self._directory(parent)
        file = directory.names.get(name)
        if file is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
            self._step("create", path)
            file = directory.names[name] = _File(self._now_s())
        elif flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        fd, self._next_fd = self._next_fd, self._next_fd + 1
        self._open[fd] = (file, str(path))
        return fd

    def write(self, fd: int, buffers: Buffers) -> None:
        file, path = self._open[fd]
        for buffer in buffers:
            self._step("write", path)
            file.content += bytes(buffer)
            file.dirty, file.modified_s = True, self._now_s()

    def pread(self, fd: int, size_bytes: int, offset: int) -> bytes:
        file, path = self._open[fd]
        self._step("read", path)
        return bytes(file.content[offset : offset + size_bytes])

    def outgoing(self, fd: int, offset: int, length: int) -> Octets:
        return self.pread(fd, length, offset)

    def fsync(self, fd: int) -> None:
        file, path = self._open[fd]
        try:
            self._step("fsync", path)
        except OSError:
            file.dirty = False  # the kernel has dropped the pages: nothing will write them any more
            raise
        if file.dirty:
            file.durable, file.dirty = bytes(file.content), False

    def fsync_directory(self, path: Path) -> None:
        directory = self._directory(str(path))
        self._step("fsync", path)
        directory.durable = dict(directory.names)

    def close(self, fd: int) -> None:
        self._open.pop(fd, None)

    def rename(self, source: Path, target: Path) -> None:
        file = self._file(source)
        self._step("rename", source)
        from_parent, _, old = str(source).rpartition("/")
        to_parent, _, new = str(target).rpartition("/")
        self._directory(to_parent).names[new] = file
        del self._directory(from_parent).names[old]

    def unlink(self, path: Path) -> None:
        self._file(path)
        self._step("unlink", path)
        parent, _, name = str(path).rpartition("/")
        del self._directory(parent).names[name]

    def mkdir(self, path: Path) -> None:
        parent, _, name = str(path).rpartition("/")
        above = self._directory(parent)
        if name not in above.names:
            self._step("mkdir", path)
            above.names[name] = None
            self._directories[str(path)] = _Directory()

    def exists(self, path: Path) -> bool:
        try:
            self._file(path)
        except FileNotFoundError:
            return False
        return True

    def stat(self, path: Path) -> Facts:
        file = self._file(path)
        return Facts(len(file.content), file.modified_s)

    def size(self, fd: int) -> int:
        return len(self._open[fd][0].content)

    def set_modified(self, path: Path, at_s: float) -> None:
        self._file(path).modified_s = at_s

    def changed_s(self, path: Path) -> float:
        self._directory(str(path))
        return self._now_s()  # so that it is always listed again

    def names(self, path: Path) -> list[str]:
        return list(self._directory(str(path)).names)

    def space(self, path: Path) -> Space:
        used = sum(len(file.content) for _, _, file in self._files())
        return Space(CAPACITY_BYTES, 0 if self.full else CAPACITY_BYTES - used)

    def name_of(self, path: Path) -> str:
        return self.name

    def read_text(self, path: Path) -> str:
        self._step("read", path)
        return self._file(path).content.decode("latin-1")

    def write_text(self, path: Path, text: str) -> None:
        fd = self.open(path, os.O_CREAT | os.O_WRONLY)
        try:
            self._open[fd][0].content.clear()
            self.write(fd, [text.encode("latin-1")])
        finally:
            self.close(fd)
