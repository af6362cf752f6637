"""Who this server is: one small file in each data directory.

DISK/identity names the cluster, the server and the disk, and counts the starts of the server.  All
data directories of a server agree.  A directory is held with flock while a process uses it.  What
belongs to another cluster or server, has a newer format, or is full of somebody else's files is
refused: mixing up disks is how data is lost.  Every change is fsynced before it is relied on; a
full disk is no obstacle while it has its ballast (ballast.py).
"""

from __future__ import annotations

import fcntl
import logging
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from chunkd import ballast
from chunkd.diskhealth import is_broken, is_full
from chunkd.filesystem import FileSystem
from dfswire.errors import AlreadyRunning, UsageError, WrongCluster, WrongVersion

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
_NOT_FOREIGN = {"identity", "identity.tmp", "lock", "lost+found"}


class DiskIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The content of DISK/identity, as JSON.  `cluster_id` is empty until first registered."""

    format: int
    cluster_id: str
    server_id: str
    disk: str
    incarnation: int


@dataclass
class ServerIdentity:
    """Who a chunkd is.  This one lives in memory (simulations); see DataDirectories."""

    server_id: str
    incarnation: int
    cluster_id: str = ""

    def adopt(self, cluster_id: str, incarnation: int = 0) -> None:
        """metad says which cluster this is, and perhaps that starts were counted further.

        Raises WrongCluster when it was another cluster before.
        """
        if self.cluster_id and self.cluster_id != cluster_id:
            raise WrongCluster(
                f"this server belongs to cluster {self.cluster_id}, not {cluster_id}"
            )
        before = self.cluster_id, self.incarnation
        self.cluster_id = cluster_id
        self.incarnation = max(self.incarnation, incarnation)
        if before != (self.cluster_id, self.incarnation):
            self._save()

    def _save(self) -> None:
        """Nothing to write down here."""


class DataDirectories(ServerIdentity):
    """The data directories of this server, locked for this process until `release`."""

    def __init__(
        self, roots: Sequence[Path], disks: list[DiskIdentity], locks: list[int], files: FileSystem
    ) -> None:
        first = disks[0]
        super().__init__(first.server_id, first.incarnation, first.cluster_id)
        self.roots = list(roots)
        self.disks = [disk.disk for disk in disks]
        self._locks = locks
        self._files = files

    def release(self) -> None:
        """Let another process have the directories."""
        while self._locks:
            os.close(self._locks.pop())

    def _save(self) -> None:
        for root, disk in zip(self.roots, self.disks, strict=True):
            _save(
                root,
                DiskIdentity(
                    format=FORMAT_VERSION,
                    cluster_id=self.cluster_id,
                    server_id=self.server_id,
                    disk=disk,
                    incarnation=self.incarnation,
                ),
                self._files,
            )


def _new_id() -> str:
    return uuid.uuid4().hex


def claim(
    roots: Sequence[Path], *, files: FileSystem | None = None, new_id: Callable[[], str] = _new_id
) -> DataDirectories:
    """Take the data directories for this process and count one more start.

    Fresh directories get an identity.  A broken disk is left out with a warning: the others go on.
    Raises AlreadyRunning, WrongCluster, WrongVersion, or UsageError (not a data directory, not
    writable, all broken).
    """
    files = files or FileSystem()
    usable: dict[Path, DiskIdentity | None] = {}
    locks: list[int] = []
    try:
        for root in roots:
            try:
                locks.append(_lock(root))
                usable[root] = _load(root)
            except OSError as problem:
                if not is_broken(problem):
                    raise UsageError(
                        f"cannot use data directory {root}: {problem.strerror}"
                    ) from problem
                log.warning("data directory %s is left out, its disk is broken: %s", root, problem)
        if not usable:
            raise UsageError("no data directory can be used: all their disks are broken")
        identities = _agree(list(usable.values()), new_id)
        directories = DataDirectories(list(usable), identities, locks, files)
        directories._save()
    except BaseException:
        for lock in locks:
            os.close(lock)
        raise
    return directories


def _lock(root: Path) -> int:
    root.mkdir(parents=True, exist_ok=True)
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        os.close(fd)
        raise AlreadyRunning(f"another chunkd uses the data directory {root}") from problem
    return fd


def _load(root: Path) -> DiskIdentity | None:
    """The identity in a directory; None for a fresh one."""
    try:
        data = (root / "identity").read_bytes()
    except FileNotFoundError:
        if foreign := sorted(path.name for path in root.iterdir() if path.name not in _NOT_FOREIGN):
            raise UsageError(
                f"{root} is no data directory and not empty (it has {foreign[0]!r}); "
                "give an empty directory"
            ) from None
        return None
    try:
        version = msgspec.json.decode(data)["format"]
        if version != FORMAT_VERSION:
            raise WrongVersion(
                f"{root} has format {version}; this software reads format {FORMAT_VERSION}"
            )
        return msgspec.json.decode(data, type=DiskIdentity)
    except (msgspec.DecodeError, KeyError, TypeError) as problem:
        raise UsageError(f"{root / 'identity'} cannot be read: {problem}") from problem


def _agree(found: Sequence[DiskIdentity | None], new_id: Callable[[], str]) -> list[DiskIdentity]:
    """Identities for all directories, with the next incarnation."""
    known = [disk for disk in found if disk is not None]
    servers = {disk.server_id for disk in known}
    clusters = {disk.cluster_id for disk in known if disk.cluster_id}
    if len(servers) > 1 or len(clusters) > 1:
        raise WrongCluster(
            "data directories of different servers: " + ", ".join(sorted(servers | clusters))
        )
    if len({disk.disk for disk in known}) < len(known):
        raise WrongCluster("one data directory is a copy of another: same disk identity")
    fresh = DiskIdentity(
        format=FORMAT_VERSION,
        cluster_id=next(iter(clusters), ""),
        server_id=next(iter(servers), None) or new_id(),
        disk="",
        incarnation=1 + max((disk.incarnation for disk in known), default=0),
    )
    return [msgspec.structs.replace(fresh, disk=disk.disk if disk else new_id()) for disk in found]


def _save(root: Path, identity: DiskIdentity, files: FileSystem) -> None:
    """Replace the identity file in one step and make it durable.  Raises UsageError."""
    try:
        try:
            _replace(root, identity, files)
        except OSError as problem:
            if not is_full(problem) or not ballast.give_up(root, files):
                raise
            _replace(root, identity, files)
        ballast.take(root, files)
    except OSError as problem:
        raise UsageError(f"cannot write the identity of {root}: {problem.strerror}") from problem


def _replace(root: Path, identity: DiskIdentity, files: FileSystem) -> None:
    temporary = root / "identity.tmp"
    fd = files.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        files.write(fd, [msgspec.json.format(msgspec.json.encode(identity)) + b"\n"])
        files.fsync(fd)
    finally:
        files.close(fd)
    files.rename(temporary, root / "identity")
    files.fsync_directory(root)
