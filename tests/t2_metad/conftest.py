"""A database in memory, and short ways to do things to it; each test ends with a clean fsck."""

from __future__ import annotations

import itertools
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dfswire.hosts import DiskFigures, HostFigures, Register
from dfswire.messages import ROOT_INODE, Attr, Extent, WrittenChunk
from dfswire.operations import (
    Access,
    Commit,
    CopyRange,
    Create,
    CreateUnnamed,
    Fallocate,
    Link,
    Operation,
    Release,
    RemoveXattr,
    Rename,
    RmDir,
    SetAttr,
    SetFlags,
    SetXattr,
    Unlink,
)
from metad.checks import fsck
from metad.copies import replicas
from metad.hosts import machines
from metad.names import attributes, chunkmap, namespace, ranges, xattrs
from metad.names.effects import Effects
from metad.names.rename import rename
from metad.sessions import rows as sessions
from metad.storage import pagesums
from metad.storage.database import Database
from metad.storage.opening import open_database
from tests.t2_metad import pages
from tests.t2_metad.kept_for_tests import History, Kept
from tests.t2_metad.lease_holders import Clients
from tests.t2_metad.metad_for_tests import Metad

OPERATIONS: dict[type[Operation], Any] = {
    Create: namespace.create,
    CreateUnnamed: namespace.create_unnamed,
    Link: namespace.link,
    Unlink: namespace.unlink,
    RmDir: namespace.rmdir,
    Rename: rename,
    SetAttr: attributes.setattr_,
    SetFlags: attributes.set_flags,
    Access: attributes.access,
    SetXattr: xattrs.setxattr,
    RemoveXattr: xattrs.removexattr,
}


class World:
    """A database with a session `s` and disks d1, d2, d3 (one per server); time moves by 1 ns with
    each operation."""

    session = "s"

    def __init__(self, db: Database) -> None:
        self.db = db
        self.now_ns = 10**18
        self.effects = Effects()
        self.free_bytes = 10**6  # what preallocation finds
        self._chunks = itertools.count(1)
        with db.transaction():
            sessions.open_session(
                db, sessions.StoredSession(self.session, "host", "/mnt", 1, "0", self.now_ns)
            )
            for number in (1, 2, 3):
                machines.save_server(db, registration(number))

    def do(self, op: Operation) -> list[Attr]:
        """One operation in a transaction of its own; its effects are in `effects`."""
        assert not isinstance(op, Release)
        self.now_ns += 1
        self.effects = Effects()
        with self.db.transaction():
            if isinstance(op, Commit):
                return chunkmap.commit(self.db, op, self.session, self.now_ns, self.effects)
            if isinstance(op, Fallocate):
                return ranges.fallocate(self.db, op, self.free_bytes, self.now_ns, self.effects)
            if isinstance(op, CopyRange):
                return ranges.copy_range(self.db, op, self.now_ns, self.effects)[0]
            attrs: list[Attr] = OPERATIONS[type(op)](self.db, op, self.now_ns, self.effects)
            return attrs

    def make(self, name: bytes, parent: int = ROOT_INODE, mode: int = 0o644, **more: Any) -> int:
        """A regular file (or what `mode` says); its inode."""
        mode = mode if stat.S_IFMT(mode) else mode | stat.S_IFREG
        fields = {"uid": 0, "gid": 0, **more}
        return self.do(Create(parent=parent, name=name, mode=mode, **fields))[0].inode

    def mkdir(self, name: bytes, parent: int = ROOT_INODE, mode: int = 0o755, **more: Any) -> int:
        """A directory; its inode."""
        return self.make(name, parent, mode | stat.S_IFDIR, **more)

    def attr(self, inode: int) -> Attr:
        """The attributes of an inode."""
        return namespace.getattr_(self.db, inode)

    def names(self, directory: int = ROOT_INODE) -> dict[bytes, int]:
        """What is in a directory."""
        entries, _end, _parent = namespace.readdir(self.db, directory, 0, 10_000)
        return {entry.name: entry.attr.inode for entry in entries}

    def purge(self, inode: int) -> None:
        """Remove an orphan for good."""
        self.now_ns += 1
        with self.db.transaction():
            chunkmap.purge_inode(self.db, inode, self.now_ns)

    def granted(self, *disks: str, expires_in_ns: int = 10**9) -> bytes:
        """A new chunk granted to the session."""
        chunk = next(self._chunks).to_bytes(16, "big")
        with self.db.transaction():
            chunkmap.grant(
                self.db, self.session, [(chunk, list(disks))], self.now_ns + expires_in_ns
            )
        return chunk

    def written(self, length: int = 100, disks: tuple[str, ...] = ("d1", "d2")) -> WrittenChunk:
        """A chunk that was granted and stored."""
        return written(self.granted(*disks), length, disks)

    def commit(self, inode: int, *extents: Extent, size: int | None = None, **more: Any) -> Attr:
        """Commit extents; the size defaults to their end."""
        if size is None:
            size = max((extent.offset + extent.length for extent in extents), default=0)
        fields = {"mtime_ns": self.now_ns, **more}
        return self.do(Commit(inode=inode, extents=list(extents), size=size, **fields))[0]

    def live_chunk(
        self, inode: int, offset: int = 0, length: int = 100, disks: tuple[str, ...] = ("d1", "d2")
    ) -> bytes:
        """A chunk that is part of a file."""
        chunk = self.written(length, disks)
        extent = Extent(offset=offset, length=length, chunk=chunk.chunk)
        self.commit(inode, extent, chunks=[chunk])
        return chunk.chunk

    def chunk(self, chunk: bytes) -> replicas.StoredChunk:
        """The row of a chunk."""
        stored = replicas.chunk_info(self.db, chunk)
        assert stored is not None
        return stored


def written(chunk: bytes, length: int, disks: tuple[str, ...] = ("d1", "d2")) -> WrittenChunk:
    """What a client says of a chunk it has stored."""
    return WrittenChunk(chunk=chunk, length=length, digest=b"d" * 16, disks=list(disks))


def registration(number: int, disk: str = "", **more: Any) -> Register:
    """Server number N with disk dN."""
    figures = DiskFigures(
        disk=disk or f"d{number}",
        path=f"/disk{number}",
        total_bytes=1000,
        free_bytes=900,
        chunks=0,
        used_bytes=0,
    )
    fields: dict[str, Any] = {"host": HostFigures(hostname=f"h{number}"), "disks": [figures]}
    return Register(
        server_id=f"server{number}",
        incarnation=1,
        address=f"h{number}:9401",
        software="0",
        **(fields | more),
    )


def fsck_findings(db: Database) -> list[str]:
    """What fsck has to say, as lines."""
    report = fsck.run(db, 100)
    return [f"{found.check}: {found.subject} {found.message}" for found in report.findings]


@pytest.fixture
def db() -> Iterator[Database]:
    """A new database in memory; it must be clean at the end."""
    database = open_database("sqlite://", inline=True, now_ns=lambda: 10**18)
    yield database
    assert fsck_findings(database) == []
    database.close()


@pytest.fixture
async def metad(
    db: Database, nursery: trio.Nursery, autojump_clock: MockClock
) -> AsyncIterator[Metad]:
    """A metad on `db` that runs, with all that it does by itself."""
    made = Metad(db, nursery)
    await made.start()
    yield made
    made.crash()


@pytest.fixture
async def clients(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> AsyncIterator[Clients]:
    """A running metad with three of them; time moves when the test says so."""
    running = Metad(db, nursery)
    await running.start()
    three = Clients(running, nursery)
    for each in (three.a, three.b, three.c):
        await each.open()
    yield three
    running.crash()


@pytest.fixture
def history() -> Iterator[History]:
    """A journal, with the database that it is of."""
    made = History()
    yield made
    made.close()


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """What chunkds keep of journals."""
    return Kept(tmp_path)


@pytest.fixture
def paged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A closed database with a table of the test's own; its log is folded in early."""
    monkeypatch.setattr(pagesums, "CHECKPOINT_FRAMES", pages.FRAMES)
    monkeypatch.setattr(pagesums, "AGAIN_FRAMES", pages.FRAMES)
    return pages.made(tmp_path / "db")


@pytest.fixture
def world(db: Database) -> World:
    """See World."""
    return World(db)


@pytest.fixture(scope="session")
def new_world() -> Callable[[], World]:
    """Makes Worlds, for hypothesis, which needs a new one for each example; close its db."""
    return lambda: World(open_database("sqlite://", inline=True))


@pytest.fixture(scope="session")
def findings() -> Callable[[Database], list[str]]:
    """fsck_findings, for tests with databases of their own."""
    return fsck_findings
