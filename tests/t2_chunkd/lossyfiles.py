"""A file system that can stop after any step and then lose what was not fsynced.

`LossyFiles` makes every change on a real directory and remembers, per file and per directory, what
the last fsync covered.  `power_cut` leaves the directory as an adversary would: a name that was not
fsynced is there or not, a file that was not fsynced is empty, torn, full of zeros or whole.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from chunkd.filesystem import Buffers, FileSystem


class Crash(BaseException):
    """The process dies here; nothing may catch it."""


class LossyFiles(FileSystem):
    """`steps` are the changes so far; dies instead of the one numbered `crash_at`.

    `fail` sees each step before it happens and may raise OSError.
    """

    def __init__(self, root: Path, crash_at: int | None = None) -> None:
        self.root = root
        self.crash_at = crash_at
        self.steps: list[str] = []
        self.fail: Callable[[str], None] = lambda step: None
        self._synced_content: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        self._note_directory(root)

    def _step(self, step: str) -> None:
        if len(self.steps) == self.crash_at:
            raise Crash(step)
        self.fail(step)
        self.steps.append(step)

    def open(self, path: Path, flags: int) -> int:
        if flags & os.O_CREAT:
            if not path.parent.exists():
                raise FileNotFoundError(2, "no such directory", str(path))
            self._step("create")
        return super().open(path, flags)

    def write(self, fd: int, buffers: Buffers) -> None:
        self._step("write")
        super().write(fd, buffers)

    def fsync(self, fd: int) -> None:
        self._step("fsync")
        path = Path(f"/proc/self/fd/{fd}")
        self._synced_content[os.fstat(fd).st_ino] = path.read_bytes()

    def fsync_directory(self, path: Path) -> None:
        self._step("fsync_directory")
        self._note_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename")
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._step("unlink")
        super().unlink(path)

    def mkdir(self, path: Path) -> None:
        if not path.exists():
            self._step("mkdir")
            super().mkdir(path)

    def _note_directory(self, path: Path) -> None:
        self._names[path] = {entry.name: entry.inode() for entry in os.scandir(path)}

    def power_cut(self, rng: random.Random) -> None:
        """Leave on disk what a file system may leave.  Nothing else uses the directory now."""
        whole = {path.stat().st_ino: path.read_bytes() for path in self._all_files()}
        self._cut_directory(self.root, whole, rng)

    def _cut_directory(self, path: Path, whole: dict[int, bytes], rng: random.Random) -> None:
        durable = self._names.get(path, {})
        present = {entry.name: entry.inode() for entry in os.scandir(path)}
        for name, inode in present.items():
            entry = path / name
            if durable.get(name) != inode and rng.random() < 0.5:
                _remove(entry)
            elif entry.is_dir():
                self._cut_directory(entry, whole, rng)
            else:
                entry.write_bytes(self._left_of(inode, whole[inode], rng))
        for name, inode in durable.items():
            if name not in present and inode in self._synced_content and rng.random() < 0.5:
                (path / name).write_bytes(self._synced_content[inode])  # its removal was lost

    def _left_of(self, inode: int, data: bytes, rng: random.Random) -> bytes:
        if inode in self._synced_content:
            return self._synced_content[inode]
        torn = data[: rng.randrange(len(data) + 1)]
        return rng.choice([b"", torn, torn + bytes(len(data) - len(torn)), data])

    def _all_files(self) -> list[Path]:
        return [path for path in self.root.rglob("*") if path.is_file()]


def _remove(path: Path) -> None:
    if path.is_dir():
        for child in path.iterdir():
            _remove(child)
        path.rmdir()
    else:
        path.unlink()
