"""How fast metad's storage half is: mutations through group commit, lookups, listings.

Usage: python bench/metadata.py [--seconds 3] [--directory DIR] [--profile] [--copies]

Needs a directory on the disk that is to be measured (by default a temporary one); prints one line
per figure.  No network and no FUSE: this is the ceiling for everything above.  With --copies only
what waiting for copies of the journal costs: three metads, for whom 0, 1 and 2 chunkds must have
each change (processes of their own, over TCP, on the same disk), take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import itertools
import os
import pstats
import random
import stat
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import trio

from chunkd.follower import FollowerTask
from chunkd.identity import ServerIdentity
from chunkd.journal import Journal
from chunkd.storage import run_in_thread
from dfswire.batches import Batch
from dfswire.client import Client as RemoteClient
from dfswire.dispatch import Dispatcher
from dfswire.messages import Extent
from dfswire.operations import AnyOperation, Commit, Create
from dfswire.server import bound_address, listen, serve
from metad.clients import batches
from metad.config import MetadConfig
from metad.names import namespace
from metad.service import create_service
from metad.sessions import rows as sessions
from metad.storage.database import Database
from metad.storage.opening import open_database

FILES = 2000
SESSION = "bench"


def create(name: bytes) -> Create:
    """A new file in the root."""
    return Create(parent=1, name=name, mode=stat.S_IFREG | 0o644, uid=0, gid=0)


class Client:
    """Sends batches as one session would, each acknowledging what it has."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._sequence = itertools.count(1)
        self.session = SESSION

    async def send(self, *operations: AnyOperation) -> batches.Executed:
        """Execute one batch through the group commit."""
        sequence = next(self._sequence)
        batch = Batch(
            session=self.session,
            sequence=sequence,
            operations=list(operations),
            acknowledged=max(sequence - 200, 0),
        )
        return await self._db.write(lambda: batches.execute(self._db, batch, time.time_ns()))


async def sequential(action: Callable[[int], Awaitable[object]], seconds: float) -> float:
    """Actions per second, one after the other."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        await action(count)
        count += 1
    return count / (time.perf_counter() - start)


async def concurrent(
    action: Callable[[int], Awaitable[object]], seconds: float, tasks: int
) -> float:
    """Actions per second of several tasks."""
    numbers = itertools.count()
    start, done = time.perf_counter(), 0

    async def one() -> None:
        nonlocal done
        while time.perf_counter() - start < seconds:
            await action(next(numbers))
            done += 1

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(one)
    return done / (time.perf_counter() - start)


def repeated(action: Callable[[int], object], seconds: float) -> float:
    """Synchronous actions per second."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(100):
            action(count)
            count += 1
    return count / (time.perf_counter() - start)


def fsyncs(directory: Path, seconds: float) -> float:
    """What the disk itself can do: 4 KiB appends, each synced."""
    with (directory / "probe").open("wb", buffering=0) as file:

        def append(_number: int) -> None:
            file.write(bytes(4096))
            os.fdatasync(file.fileno())

        return repeated(append, seconds)


async def measure(directory: Path, seconds: float) -> None:
    """All figures."""
    print(f"{'4 KiB append + fdatasync':44}{fsyncs(directory, seconds):12,.0f}/s")
    with contextlib.closing(open_database(f"sqlite://{directory}/db")) as db:
        await measure_database(db, seconds)


async def measure_database(db: Database, seconds: float) -> None:
    """The figures of metad."""
    stored = sessions.StoredSession(SESSION, "host", "/mnt", 1, "0", 0)
    await db.write(lambda: sessions.open_session(db, stored))
    client, names = Client(db), (b"%d" % number for number in itertools.count())
    made = await client.send(*(create(next(names)) for _ in range(FILES // 2)))
    await client.send(*(create(next(names)) for _ in range(FILES // 2)))
    inode = made.reply.results[0].attrs[0].inode
    await mutations(db, client, names, inode, seconds)
    reads(db, seconds)


COPIES = (0, 1, 2)
ROUNDS = 5


async def measure_copies(directory: Path, seconds: float) -> None:
    """Each metad has as many followers as it waits for; the medians of several rounds."""
    found: dict[tuple[int, int], list[float]] = {}
    async with trio.open_nursery() as nursery:
        metads = [await start_metad(directory / str(copies), copies, nursery) for copies in COPIES]
        names = (b"%d" % number for number in itertools.count())
        for _ in range(ROUNDS):
            for tasks in (1, 64):
                for copies, client in metads:
                    rate = await concurrent(
                        lambda _n, client=client: client.send(create(next(names))), seconds, tasks
                    )
                    found.setdefault((tasks, copies), []).append(rate)
        nursery.cancel_scope.cancel()
    for (tasks, copies), rates in found.items():
        text = f"create, {tasks} at a time, {copies} copies"
        spread = f"({min(rates):,.0f} to {max(rates):,.0f})"
        print(f"{text:44}{statistics.median(rates):12,.0f}/s  {spread}")


async def start_metad(directory: Path, copies: int, nursery: trio.Nursery) -> tuple[int, Client]:
    """A metad with its followers; returns when they are in step."""
    await trio.Path(directory).mkdir()
    url = f"sqlite://{directory}/db"
    db = open_database(url)
    service = create_service(db, MetadConfig(url=url, journal_copies=copies))
    await nursery.start(service.run)
    listeners = await listen("127.0.0.1:0")
    await nursery.start(serve, Dispatcher("metad", service.handlers), listeners)
    for number in range(copies):
        command = [sys.executable, __file__, "--follow", bound_address(listeners[0])]
        command += ["--cluster", service.state.cluster_id, "--directory", f"{directory}/{number}"]
        nursery.start_soon(trio.run_process, command)
    stored = sessions.StoredSession(SESSION, "host", "/mnt", 1, "0", 0)
    await db.write(lambda: sessions.open_session(db, stored))
    with trio.fail_after(30):
        # Nothing is measured yet.
        while db.followers is not None and db.followers.in_step < copies:  # noqa: ASYNC110 - they tell nobody
            await trio.sleep(0.1)
    return copies, Client(db)


async def follow(metad: str, cluster_id: str, directory: Path) -> None:
    """Keep the journal as a chunkd does, until ended."""
    await trio.Path(directory).mkdir()
    await FollowerTask(
        Journal(directory, kept_s=60.0, max_bytes=1 << 30),
        RemoteClient(),
        metad,
        ServerIdentity(directory.name, 1, cluster_id),
        run_in_thread,
        random.Random(),
    ).run_forever()


async def mutations(
    db: Database, client: Client, names: Iterator[bytes], inode: int, seconds: float
) -> None:
    """What goes through the group commit."""

    def commit(number: int) -> Commit:
        extent = Extent(offset=number % 1000 * 100, length=100, data=b"x" * 100)
        return Commit(inode=inode, extents=[extent], size=100_000, mtime_ns=number)

    rate = await sequential(lambda _n: client.send(create(next(names))), seconds)
    print(f"{'create, one at a time':44}{rate:12,.0f}/s")
    before = db.commits
    for tasks in (8, 64):
        rate = await concurrent(lambda _n: client.send(create(next(names))), seconds, tasks)
        print(f"{f'create, {tasks} at a time':44}{rate:12,.0f}/s")
    print(f"{'  commits for those':44}{(db.commits - before) / seconds / 2:12,.0f}/s")
    rate = await sequential(
        lambda _n: client.send(*(create(next(names)) for _ in range(100))), seconds
    )
    print(f"{'create, batches of 100 (files)':44}{rate * 100:12,.0f}/s")
    rate = await concurrent(lambda n: client.send(commit(n)), seconds, 64)
    print(f"{'commit of one inline extent, 64 at a time':44}{rate:12,.0f}/s")


def reads(db: Database, seconds: float) -> None:
    """What needs no transaction."""
    rate = repeated(lambda n: namespace.lookup(db, 1, b"%d" % (n % FILES)), seconds)
    print(f"{'lookup':44}{rate:12,.0f}/s")
    rate = repeated(lambda _n: namespace.lookup(db, 1, b"no such name"), seconds)
    print(f"{'lookup of nothing':44}{rate:12,.0f}/s")
    rate = repeated(lambda n: namespace.getattr_(db, 1 + n % FILES), seconds)
    print(f"{'getattr':44}{rate:12,.0f}/s")
    start, count, cookie, end = time.perf_counter(), 0, 0, False
    while time.perf_counter() - start < seconds:
        entries, end, _parent = namespace.readdir(db, 1, cookie, 1000)
        cookie = 0 if end else entries[-1].cookie
        count += len(entries)
    print(f"{'readdir (entries)':44}{count / (time.perf_counter() - start):12,.0f}/s")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure")
    parser.add_argument("--directory", type=Path, help="on the disk to measure")
    parser.add_argument("--profile", action="store_true", help="and where the time goes")
    parser.add_argument("--copies", action="store_true", help="what copies of the journal cost")
    parser.add_argument("--follow", help=argparse.SUPPRESS)
    parser.add_argument("--cluster", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.follow:
        trio.run(follow, arguments.follow, arguments.cluster, arguments.directory)
        return
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        if arguments.copies:
            trio.run(measure_copies, Path(directory), arguments.seconds)
            return
        if not arguments.profile:
            trio.run(measure, Path(directory), arguments.seconds)
            return
        profile = cProfile.Profile()
        profile.runcall(trio.run, measure, Path(directory), arguments.seconds)
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main()
