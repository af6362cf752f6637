"""The daemon: `metad --config FILE`.

Reads from top to bottom as what metad consists of: settings, the database, the service on it, a
listening socket, and the background work.  systemd learns by READY=1 that it answers.  SIGTERM and
SIGINT end it cleanly; a SIGKILL loses nothing that was acknowledged.  When its disk fails, or it
cannot start for a reason that may pass (no room, somebody in the way), it ends with status 1.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import trio
import typer

from dfswire import watchdog
from dfswire.credentials import Credentials, credentials_at
from dfswire.daemon import load_config, notify
from dfswire.dispatch import Dispatcher
from dfswire.errors import (
    AlreadyRunning,
    DFSError,
    InputOutput,
    NoSpace,
    Unavailable,
    UsageError,
)
from dfswire.logs import setup_logging
from dfswire.renewal import Renewal
from dfswire.server import listen, serve
from metad.config import MetadConfig
from metad.service import Service, create_service
from metad.storage.database import Database
from metad.storage.opening import open_database

if TYPE_CHECKING:
    from metad.admission.signer import Signer

log = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_USAGE = 2
FINISH_S = 2.0


def run(
    config: Annotated[Path, typer.Option("--config", help="TOML file with the settings.")],
) -> None:
    """Keep the metadata of a dfs cluster: names, and where the bytes of each file are."""
    try:
        _run(load_config(MetadConfig, config))
    except (UsageError, AlreadyRunning) as problem:
        typer.echo(f"metad: {problem}", err=True)
        raise typer.Exit(EXIT_USAGE) from problem
    except (NoSpace, Unavailable, InputOutput) as problem:  # passes: systemd tries again
        typer.echo(f"metad: {problem}", err=True)
        raise typer.Exit(EXIT_FAILED) from problem


def _run(config: MetadConfig) -> None:
    setup_logging(config.log_level, config.log_format, "metad")
    database = open_database(config.url, cluster_id=config.cluster_id)
    try:
        trio.run(_serve, database, config)
    except BaseExceptionGroup as group:
        if database.failure.problem is not None:
            _fail(database.failure.problem)
        expected, unexpected = group.split((UsageError, NoSpace))
        if expected is None or unexpected is not None:
            raise
        raise _first(expected) from group
    finally:
        database.close()
    log.info("stopped")


def _fail(problem: InputOutput) -> NoReturn:
    """Nothing may be written any more, and SQLite would do so when it closes the database."""
    log.critical("%s; metad ends: start it when the disk is whole, or restore", problem)
    notify(f"STATUS={problem}")
    logging.shutdown()
    os._exit(EXIT_FAILED)


def _first(group: BaseExceptionGroup[DFSError]) -> DFSError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _serve(database: Database, config: MetadConfig) -> None:
    """Serve until a signal asks to stop.  Raises UsageError when the address can't be used."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        credentials = credentials_at(config.tls, "metad")
        listeners = await listen(config.listen)
        signer = _signer(config, credentials)
        service = create_service(database, config, signer=signer)
        async with trio.open_nursery() as nursery:
            if credentials is not None and signer is not None:
                renewal = Renewal(credentials, partial(_sign_own, credentials, signer))
                nursery.start_soon(renewal.run_forever)
            nursery.start_soon(service.metrics.loop.run_forever)
            nursery.start_soon(watchdog.run_forever)
            await nursery.start(service.run)
            dispatcher = Dispatcher(
                "metad", service.handlers, service.metrics, service.admission.admit
            )
            await nursery.start(partial(serve, dispatcher, listeners, credentials=credentials))
            log.info("metad of cluster %s at %s", service.state.cluster_id, config.listen)
            notify(f"STATUS=cluster {service.state.cluster_id} at {config.listen}\nREADY=1")
            number = await anext(signals)
            log.info("%s: stopping", signal.Signals(number).name)
            notify("STOPPING=1")
            await _finish(service)
            nursery.cancel_scope.cancel()


def _signer(config: MetadConfig, credentials: Credentials | None) -> Signer | None:
    """Who signs certificates, when the settings say where the authority is.  Raises UsageError."""
    if credentials is None or not config.authority:
        return None
    from metad.admission.signer import Signer  # its library: not for those without TLS

    try:
        return Signer(Path(config.authority), config.certificate_s, credentials)
    except OSError as problem:
        raise UsageError(f"authority: {problem.filename}: {problem.strerror}") from problem


async def _sign_own(credentials: Credentials, signer: Signer, request_pem: bytes) -> bytes:
    from dfswire.certificates import public_key_of_request

    key_pem = public_key_of_request(request_pem)
    return signer.sign(credentials.identity, key_pem, now=time.time()).certificate.encode()


async def _finish(service: Service) -> None:
    """The last events; a database that can't be written does not keep metad from ending."""
    with trio.move_on_after(FINISH_S):
        try:
            await service.stop()
        except DFSError as problem:
            log.error("the last events are lost: %s", problem)


def main() -> None:
    """The console script."""
    typer.run(run)


if __name__ == "__main__":
    main()
