"""A history of a metad, and chunkds that keep parts of it as a test wants them.

Chunkds have their real journal directories; metad is a database whose entries and copies are put
there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from chunkd.identity import ServerIdentity
from chunkd.journal import Journal
from chunkd.journalcalls import JournalCalls
from dfswire.client import Client
from dfswire.errors import UsageError
from dfswire.journal import Entry, Position
from metad.recovery.restore import Restored, Wish, restore
from metad.storage.database import Database
from metad.storage.opening import open_database
from tests.fakes import DirectTransport
from tests.replaying import Shadow
from tests.t1_wire.services import dispatcher
from tests.t2_chunkd.journals import encoded, keep_snapshot, opened

ADD = "INSERT INTO xattr (inode, name, value) VALUES (1, ?, x'')"
CLUSTER = "c" * 32
T = TypeVar("T")
Copy = tuple[Position, bytes]


class History:
    """A database and its entries; a `copy` is what a snapshot has."""

    def __init__(self) -> None:
        self.now_ns = 10**18
        self.db: Database = open_database("sqlite://", inline=True, now_ns=lambda: self.now_ns)
        self.start = self.db.new_term()
        self._shadow = Shadow(self.db)
        self.entries: list[Entry] = self._shadow.entries

    def add(self, *names: bytes) -> list[Entry]:
        """Each in an entry of its own, a second after the one before."""
        for name in names:
            self.now_ns += 10**9
            with self.db.transaction():
                self.db.change(ADD, (name,))
        return self.entries[-len(names) :]

    def copy(self) -> Copy:
        return self.db.position, self.db.image()

    def back(self, copy: Copy) -> None:
        """metad is started on an old copy of its database, in the next term."""
        self.db._writer.deserialize(copy[1])
        term = self.db.term + (1 << 32)
        self.db._writer.execute("UPDATE journal SET term = ?", (term,))
        self.db.start_recording(lambda: self.now_ns)
        self.db.new_term()

    def close(self) -> None:
        self._shadow.close()
        self.db.close()


class Kept:
    """Chunkds and what they keep, by their names, which are their addresses too."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.target = directory / "db"
        self.journals: dict[str, Journal] = {}
        self.cluster: dict[str, str] = {}
        self.network = DirectTransport({})

    def root(self, name: str) -> Path:
        return self.directory / name.partition(":")[0]

    def chunkd(self, name: str, *, cluster: str = CLUSTER) -> Journal:
        root = self.root(name)
        if not root.exists():
            root.mkdir()
        journal = self.journals[name] = opened(root, segment_bytes=1 << 20)
        identity = ServerIdentity(name, 1, cluster)
        calls = JournalCalls(journal, identity, at_once)
        self.network.up(name, dispatcher("chunkd", calls.handlers))
        return journal

    def keep(
        self, name: str, base: Position, entries: list[Entry], copy: Copy | None = None
    ) -> None:
        """It gets these after `base`, and a snapshot."""
        journal = self.journals.get(name) or self.chunkd(name)
        journal.begin(CLUSTER, base)
        if entries:
            journal.append(CLUSTER, encoded(entries))
        if copy is not None:
            keep_snapshot(journal, *copy)

    def damage(self, name: str, suffix: str, at: float = 0.5) -> None:
        """A bit of its newest such file."""
        path = sorted((self.root(name) / "journal").glob(f"*{suffix}"))[-1]
        data = bytearray(path.read_bytes())
        data[int(at * len(data))] ^= 1
        path.write_bytes(data)

    def restore(self, *more: str, **wish: Any) -> Restored:
        addresses = [*self.journals, *more]

        async def run() -> Restored:
            client = Client(transport=self.network)
            return await restore(client, addresses, self.target, Wish(**wish))

        return trio.run(run)

    def names(self) -> list[bytes]:
        """What the database that was made has."""
        with closing(sqlite3.connect(self.target)) as connection:
            rows = connection.execute("SELECT name FROM xattr ORDER BY id").fetchall()
        return [name for (name,) in rows]

    def refused(self, reason: str, *more: str, **wish: Any) -> None:
        """And nothing is left behind."""
        with pytest.raises(UsageError, match=reason):
            self.restore(*more, **wish)
        assert not self.target.exists()
        assert [each for each in self.directory.iterdir() if "restor" in each.name] == []


async def at_once(work: Callable[[], T]) -> T:
    await trio.lowlevel.checkpoint()
    return work()
