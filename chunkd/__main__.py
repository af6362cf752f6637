"""The chunkd daemon: `chunkd --config FILE`.

Reads the settings, takes the data directories, listens, registers with metad, tells systemd, and
serves until SIGTERM; then it finishes the writes under way and syncs.  Exit status 2 and one line
on standard error when it cannot start or must not go on.
"""

from __future__ import annotations

import logging
import resource
import signal
from functools import partial
from pathlib import Path
from typing import Annotated

import trio
import typer

from chunkd.assembly import Service, create_service
from chunkd.config import ChunkdConfig
from chunkd.identity import DataDirectories, claim
from chunkd.journal import DIRECTORY as JOURNAL_DIRECTORY
from chunkd.journal import Journal
from chunkd.metrics import DiskWatch
from chunkd.store import ChunkStore
from chunkd.timedfiles import TimedFileSystem
from dfswire import watchdog
from dfswire.client import Client
from dfswire.credentials import credentials_at
from dfswire.daemon import load_config, notify
from dfswire.dispatch import Dispatcher
from dfswire.errors import DFSError, UsageError
from dfswire.logs import setup_logging
from dfswire.renewal import Renewal, signed_by_metad
from dfswire.server import bound_address, listen, serve

log = logging.getLogger(__name__)

STOP_S = 10.0  # a client that stalls in the middle of a write does not hold up a restart


def run(
    config: Annotated[Path, typer.Option(help="TOML file with the settings.")],
) -> None:
    """Keep chunks on this host's disks for a dfs cluster."""
    try:
        settings = load_config(ChunkdConfig, config)
        setup_logging(settings.log_level, settings.log_format, "chunkd")
        _allow_many_descriptors()
        directories = claim([Path(path) for path in settings.data])
        try:
            trio.run(_serve, settings, directories)
        except BaseExceptionGroup as group:
            expected, unexpected = group.split(DFSError)
            if expected is None or unexpected is not None:
                raise
            raise _first(expected) from group
        finally:
            directories.release()
    except DFSError as problem:
        typer.echo(f"chunkd: {problem}", err=True)
        raise typer.Exit(2) from problem


async def _serve(settings: ChunkdConfig, directories: DataDirectories) -> None:
    credentials = credentials_at(settings.tls, "chunkd")
    watch = DiskWatch()
    stores = _open_stores(directories, watch)
    listeners = await listen(settings.listen)
    client = Client(credentials=credentials)
    service = create_service(
        stores,
        client,
        settings,
        directories,
        address=bound_address(listeners[0]),
        watch=watch,
        journal=_journal_of(settings, directories) if settings.journal else None,
        guarded=credentials is not None,
    )
    with trio.CancelScope() as serving:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_at_signal, service, serving)
            nursery.start_soon(service.metrics.loop.run_forever)
            nursery.start_soon(watchdog.run_forever)
            if credentials is not None:
                sign = signed_by_metad(client, settings.metad_address)
                nursery.start_soon(Renewal(credentials, sign).run_forever)
            dispatcher = Dispatcher("chunkd", service.handlers, service.metrics)
            await nursery.start(partial(serve, dispatcher, listeners, credentials=credentials))
            await nursery.start(service.run)
            what = f"serving {len(stores)} disks on {bound_address(listeners[0])}"
            log.info(what)
            notify(f"STATUS={what}\nREADY=1")
    with trio.CancelScope(shield=True):
        await client.aclose()
    for store in stores:
        store.close()


def _open_stores(directories: DataDirectories, watch: DiskWatch) -> list[ChunkStore]:
    """A store for each disk that works."""
    stores = []
    for root, disk in zip(directories.roots, directories.disks, strict=True):
        files = TimedFileSystem(str(root), watch.durations, watch.errors)
        store = ChunkStore(root, disk, files=files)
        try:
            store.recover()
        except DFSError as problem:
            log.warning("data directory %s is left out: %s", root, problem)
        else:
            stores.append(store)
    if not stores:
        raise UsageError("no data directory can be used")
    return stores


def _journal_of(settings: ChunkdConfig, directories: DataDirectories) -> Journal:
    """On the first disk, or where an earlier process has begun it."""
    begun = [root for root in directories.roots if (root / JOURNAL_DIRECTORY).is_dir()]
    return Journal(
        [*begun, *directories.roots][0],
        kept_s=settings.journal_kept_s,
        max_bytes=settings.journal_max_bytes,
    )


async def _stop_at_signal(service: Service, serving: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("stopping at %s", signal.Signals(number).name)
            notify("STOPPING=1")
            with trio.move_on_after(STOP_S):
                await service.stop()
            serving.cancel()


def _allow_many_descriptors() -> None:
    """Connections and unsynced chunks need more than the usual soft limit of 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _first(group: BaseExceptionGroup[DFSError]) -> DFSError:
    """The first exception in a group of groups."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def main() -> None:
    """Entry point of the console script."""
    typer.run(run)


if __name__ == "__main__":
    main()
