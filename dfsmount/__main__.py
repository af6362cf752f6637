"""The mount process: `python -m dfsmount METAD DIRECTORY [-o options]`.

It runs in the foreground, says READY=1 to whoever started it when the directory is mounted, and
ends when the directory is unmounted or on SIGTERM/SIGINT, after storing what is dirty.  `dfs
mount`, mount(8) (through its helper) and systemd start it.  Wrong arguments are one line on
standard error and exit status 2; nothing is mounted then.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

from dfsmount.lowlevel.library import LIBRARY, MISSING  # isort: split

import pyfuse3
import trio
import typer

from dfsmount.adapter.fuse import Handlers
from dfsmount.adapter.kernelcaches import KernelCaches
from dfsmount.adapter.mountoptions import fuse_options, raise_read_ahead
from dfsmount.client import FileSystem, open_file_system
from dfsmount.config import MountConfig, metad_address, parse_options
from dfsmount.lowlevel.operations import KINDS, Operations
from dfsmount.lowlevel.requests import NoLibrary, Requests
from dfsmount.metrics import MountMetrics, check_loopback
from dfsmount.operationwatch import OperationWatch
from dfsmount.runtime import SessionFile, dead_sessions, default_directory
from dfswire import watchdog
from dfswire.client import Client
from dfswire.credentials import credentials_at
from dfswire.daemon import notify, software_version
from dfswire.dispatch import Dispatcher
from dfswire.errors import (
    ClusterError,
    DFSError,
    FileError,
    Forbidden,
    ProtocolError,
    Unavailable,
    UsageError,
)
from dfswire.hosts import Hello
from dfswire.logs import setup_logging
from dfswire.messages import PROTOCOL_VERSION, Empty
from dfswire.metadata import OpenSession, SessionGrant
from dfswire.renewal import Renewal, signed_by_metad
from dfswire.server import listen, serve

log = logging.getLogger(__name__)

EXIT_USAGE = 2
FUSE_TASKS_MAX = 1000  # requests under way at once; one that waits for metad must not block others
WITHOUT_LIBRARY = (
    "locks hold within this mount only, fallocate, SEEK_HOLE, O_TMPFILE and chattr are missing, "
    "and who waits for metad cannot be killed"
)
CALLS_PATIENCE_S = 5.0  # for calls under way at the end
STOP_PATIENCE_S = 60.0  # for storing dirty data at the end
TIMES_PATIENCE_S = 2.0  # for telling metad what was read: not worth waiting for it


def main() -> None:
    """Console entry: parse, mount, exit with a status."""
    typer.run(_command)


def _command(
    metad: Annotated[str, typer.Argument(help="host:port or http://host:port of metad")],
    directory: Annotated[str, typer.Argument(help="an empty directory")],
    options: Annotated[str, typer.Option("-o", help="comma-separated mount options")] = "",
) -> None:
    """Mount a dfs cluster on DIRECTORY, in the foreground."""
    try:
        where = str(Path(directory).absolute())
        config = parse_options(MountConfig(metad_address(metad), where), options)
        setup_logging("DEBUG" if config.debug else "INFO", config.log_format, "mount")
        for noisy in ("httpx", "httpcore", "pyfuse3"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        logging.getLogger("pyfuse3").addFilter(worth_logging)
        check_directory(config)
        trio.run(mount, config)
    except* UsageError as problems:
        for problem in _leaves(problems):
            sys.stderr.write(f"dfs mount: {problem}\n")
        raise SystemExit(EXIT_USAGE) from None


def worth_logging(record: logging.LogRecord) -> bool:
    """All but the one answer that nobody may be there to take.

    The kernel does not wait for RELEASE, so a directory can be unmounted while one is under way.
    """
    text = record.getMessage()
    return not (text.startswith("fuse_release()") and text.endswith("No such file or directory"))


def _leaves(group: BaseExceptionGroup[UsageError]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for problem in group.exceptions:
        leaves += _leaves(problem) if isinstance(problem, BaseExceptionGroup) else [problem]
    return leaves


def check_directory(config: MountConfig) -> None:
    """Refuse, in one sentence, a directory that can't be mounted on.  Raises UsageError."""
    directory = Path(config.directory)
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    if str(directory).replace(" ", "\\040") in (line.split()[1] for line in mounts):
        raise UsageError(
            f"{directory} is mounted already; unmount it first: dfs umount {directory}"
        )
    if not directory.exists():
        raise UsageError(f"{directory} does not exist; make it first: mkdir -p {directory}")
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory")
    if not config.nonempty and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty; choose an empty one, or give -o nonempty")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise UsageError("cannot use /dev/fuse; load the module fuse, or run as root")


async def mount(config: MountConfig) -> None:
    """Connect, mount, serve until unmounted.  Raises UsageError when it can't begin."""
    metrics = MountMetrics()
    listeners = await _metrics_listeners(config)
    credentials = credentials_at(config.tls, "client")
    client = Client(credentials=credentials)
    await check_metad(client, config.metad)
    directory = default_directory()
    introduction = OpenSession(
        host=socket.gethostname(),
        mount_point=config.directory,
        pid=os.getpid(),
        software=software_version(),
        replaces=dead_sessions(directory, config.metad),
    )
    record = SessionFile(directory)

    def opened(grant: SessionGrant) -> None:
        record.write(config.metad, grant.session)

    try:
        async with open_file_system(
            client, config, introduction, opened=opened, closed=record.clear
        ) as file_system:
            metrics.attach(file_system)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(metrics.metrics.loop.run_forever)
                nursery.start_soon(watchdog.run_forever)
                if credentials is not None:
                    sign = signed_by_metad(client, config.metad)
                    nursery.start_soon(Renewal(credentials, sign).run_forever)
                if listeners:
                    dispatcher = Dispatcher("mount", {}, metrics.metrics)
                    await nursery.start(serve, dispatcher, listeners)
                await _serve(config, file_system, OperationWatch(metrics.operations.add))
                nursery.cancel_scope.cancel()
    except (Unavailable, FileError, ClusterError) as problem:
        raise UsageError(f"no session with metad at {config.metad}: {problem}") from problem
    finally:
        record.close()
        await client.aclose()


async def _metrics_listeners(config: MountConfig) -> list[trio.SocketListener]:
    """Where metrics are to be had; nothing when nobody asked for them.  Raises UsageError."""
    if not config.metrics_listen:
        return []
    check_loopback(config.metrics_listen)
    return await listen(config.metrics_listen)


async def check_metad(client: Client, address: str) -> None:
    """Is there a metad that speaks our version?  Raises UsageError."""
    try:
        hello: Hello = await client.call("metad.hello", address, Empty())
    except Unavailable as problem:
        raise UsageError(f"no metad answers at {address}: {problem}") from problem
    except Forbidden as problem:
        raise UsageError(f"{address}: {problem}") from problem
    except ProtocolError as problem:
        raise UsageError(
            f"{address} is no metad that this version can talk to: {problem}"
        ) from None
    if hello.service != "metad":
        raise UsageError(f"at {address} is a {hello.service}, not a metad")
    if hello.protocol != PROTOCOL_VERSION:
        raise UsageError(
            f"the metad at {address} (dfs {hello.software}) speaks version {hello.protocol} of the "
            f"protocol, this mount speaks {PROTOCOL_VERSION}; install the same release on both"
        )


async def _serve(config: MountConfig, file_system: FileSystem, watch: OperationWatch) -> None:
    kernel = KernelCaches()
    options = fuse_options(config)
    requests = Requests(LIBRARY or NoLibrary(), file_system.coherence.drop_all)
    if LIBRARY is None:
        log.warning("dfsmount.lowlevel is missing (%s): %s", MISSING, WITHOUT_LIBRARY)
    else:
        operations = Operations(file_system.vfs, LIBRARY, requests, watch)
        LIBRARY.attach(KINDS, operations.start, requests.interrupted)
    try:
        handlers = Handlers(file_system.vfs, kernel, requests, acl=config.acl, watch=watch)
        pyfuse3.init(handlers, config.directory, options)
    except RuntimeError as problem:
        raise UsageError(f"cannot mount on {config.directory}: {problem}") from problem
    kernel.attach()
    file_system.notices.kernel = kernel
    try:
        async with trio.open_nursery() as nursery:
            requests.nursery = nursery
            nursery.start_soon(_announce, config, kernel)
            nursery.start_soon(_stop_on_signal, file_system, requests, nursery.cancel_scope)
            await pyfuse3.main(max_tasks=FUSE_TASKS_MAX)
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(deadline=trio.current_time() + STOP_PATIENCE_S, shield=True):
            await _store_all(file_system)
        pyfuse3.close(unmount=True)
        notify("STOPPING=1")


async def _announce(config: MountConfig, kernel: KernelCaches) -> None:
    """Once the kernel has its answer to INIT (the stat makes sure), the mount is ready."""
    kernel.device = (await trio.Path(config.directory).stat()).st_dev
    await trio.to_thread.run_sync(raise_read_ahead, config.directory, config.read_ahead_bytes)
    log.info("%s is mounted on %s", config.metad, config.directory)
    notify(f"STATUS={config.metad} is mounted on {config.directory}\nREADY=1")


async def _stop_on_signal(
    file_system: FileSystem, requests: Requests, serving: trio.CancelScope
) -> None:
    """End the mount.  Calls that wait for metad end a little later, with an error."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("%s: storing dirty data, then unmounting", signal.Signals(number).name)
            with trio.move_on_after(STOP_PATIENCE_S):
                await _store_all(file_system)
            await _end_notices(file_system, requests)
            pyfuse3.terminate()
            await trio.sleep(CALLS_PATIENCE_S)
            serving.cancel()


async def _end_notices(file_system: FileSystem, requests: Requests) -> None:
    """Let the kernel take what it is being told, which may need the answers of calls under way."""
    with trio.move_on_after(CALLS_PATIENCE_S):
        await file_system.notices.end()
        return
    requests.give_up()
    with trio.move_on_after(CALLS_PATIENCE_S) as patience:
        await file_system.notices.end()
    if patience.cancelled_caught:
        log.warning("the kernel has not taken all that it was told; umount -f ends what waits")


async def _store_all(file_system: FileSystem) -> None:
    try:
        await file_system.files.flush_all()
        with trio.move_on_after(TIMES_PATIENCE_S):
            await file_system.times.send()
    except DFSError as problem:
        log.error("written data is lost: %s", problem)


if __name__ == "__main__":
    main()
