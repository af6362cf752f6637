"""Which cluster a command is about, and one question to it.

A cluster is named, in this order, by `--url`, by `--dir` (a cluster of `dfs up`), by the variable
DFS_URL, by the dfs mount that the working directory is on, and by ./dfs-data or ./.demo.  `ask`
makes one call and is done; no connection outlives it.  Under TLS the credentials are those that
`dfs up` made for the operator of its cluster, else those that DFS_TLS names.
"""

from __future__ import annotations

import contextvars
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import trio
import typer

from dfsmount.cli.localcluster import DEFAULT_DIRECTORY, DEMO_DIRECTORY, LocalCluster
from dfsmount.cli.mounts import mount_of
from dfswire.client import Client
from dfswire.credentials import ENVIRONMENT, Credentials, credentials_at
from dfswire.daemon import REQUEST_ID, parse_address
from dfswire.errors import DFSError, Unavailable, UsageError
from dfswire.renewal import Renewal, signed_by_metad

ANSWER_DEADLINE_S = 10.0
RENEWAL_S = 5.0
REQUEST_ID_BYTES = 6
# What the directory of a cluster says; None while none has been asked.
_TLS: contextvars.ContextVar[str | None] = contextvars.ContextVar("dfs_operator_tls", default=None)

T = TypeVar("T")

Url = Annotated[
    str,
    typer.Option("--url", envvar="DFS_URL", metavar="HOST:PORT", help="The cluster's metad."),
]
Directory = Annotated[
    Path | None, typer.Option("--dir", help="The directory of a cluster started with 'dfs up'.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def address_of(url: str) -> str:
    """ "host:port" of what people write for a metad.  Raises UsageError."""
    host, port = parse_address(url)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def find_metad(url: str, directory: Path | None) -> str:
    """The address of the metad that the options and the surroundings name.  Raises UsageError."""
    if directory is not None:
        return _metad_of(LocalCluster.open(directory))
    if url:
        return address_of(url)
    mount = mount_of(Path())
    if mount is not None:
        return mount.metad
    for nearby in (DEFAULT_DIRECTORY, DEMO_DIRECTORY):
        if LocalCluster.is_at(nearby):
            return _metad_of(LocalCluster.open(nearby))
    raise UsageError(
        f"which cluster? give --url HOST:PORT or --dir, or set DFS_URL "
        f"(there is no ./{DEFAULT_DIRECTORY} and no ./{DEMO_DIRECTORY} here)"
    )


async def renew_if_due(credentials: Credentials, client: Client, metad: str) -> None:
    """An operator's certificate has no daemon that renews it: commands do, after two thirds.

    The command was carried out; that this did not succeed is said, and changes nothing else.
    """
    if not os.access(credentials.directory, os.W_OK):
        return
    renewal = Renewal(credentials, signed_by_metad(client, metad))
    if renewal.due_s <= time.time():
        with trio.move_on_after(RENEWAL_S):
            await renewal.run_once()


def _metad_of(cluster: LocalCluster) -> str:
    _TLS.set(cluster.operator_tls)
    return cluster.metad_address


def tls_directory() -> str:
    """Where the credentials of this command are; empty: without TLS."""
    of_directory = _TLS.get()
    return os.environ.get(ENVIRONMENT, "") if of_directory is None else of_directory


def place_on_mount(path: Path) -> tuple[str, dict[str, Any]]:
    """The metad of the mount that `path` is on, and which inode it is.  Raises UsageError."""
    if not path.exists():
        raise UsageError(f"{path}: no such file (without a mount, give --url or --dir)")
    mount = mount_of(path)
    if mount is None:
        raise UsageError(f"{path} is not on a dfs mount (without one, give --url or --dir)")
    return mount.metad, {"inode": path.stat().st_ino}


def place_in_cluster(path: Path) -> dict[str, Any]:
    """What people mean who named the cluster: a path from its root, or the number of an inode,
    as findings and unlinked files have.  Raises UsageError."""
    text = str(path)
    if text.isdecimal() and int(text):
        return {"inode": int(text)}
    if not path.is_absolute():
        raise UsageError(
            f"{path}: give a path that starts with / (the cluster's root), or an inode number"
        )
    return {"path": bytes(path)}


def mount_or_cluster(path: Path, url: str, directory: Path | None) -> tuple[str, dict[str, Any]]:
    """That of a mount if the path is on one, else that of the cluster that is named."""
    if (url or directory is not None) and not (path.exists() and mount_of(path)):
        return find_metad(url, directory), place_in_cluster(path)
    return on_mount(path, directory)


def on_mount(path: Path, directory: Path | None) -> tuple[str, dict[str, Any]]:
    """As place_on_mount; the credentials are those of the cluster in `directory`, if given."""
    if directory is not None:
        find_metad("", directory)
    return place_on_mount(path)


def ask(
    address: str, call: str, request: msgspec.Struct, *, deadline_s: float = ANSWER_DEADLINE_S
) -> Any:
    """The reply of the metad at `address`.  Raises what it answered, or Unavailable."""
    return talk(address, lambda client: client.call(call, address, request, deadline_s=deadline_s))


def talk(address: str, conversation: Callable[[Client], Awaitable[T]]) -> T:
    """Run a conversation with the metad at `address`, as `ask` does with one question.

    What it raises carries the id of the request as a note: the log lines of the daemons have it.
    """

    async def run() -> T:
        credentials = credentials_at(tls_directory())
        client = Client(credentials=credentials)
        try:
            answer = await conversation(client)
            if credentials is not None:
                await renew_if_due(credentials, client, address)
            return answer
        finally:
            await client.aclose()

    request_id = secrets.token_hex(REQUEST_ID_BYTES)
    token = REQUEST_ID.set(request_id)
    try:
        return trio.run(run)
    except Unavailable as problem:
        failure = Unavailable(f"no metad answers at {address}: {problem}")
        failure.add_note(f"request {request_id}")
        raise failure from problem
    except DFSError as problem:
        problem.add_note(f"request {request_id}")
        raise
    finally:
        REQUEST_ID.reset(token)
