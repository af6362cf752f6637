"""`dfs info`: where the bytes of one file are, and who has locked it.

On a mount the file is found by its inode number, so every name of it gives the same answer; with
`--url` or `--dir` the path counts from the root of the file system, or is an inode number, and no
mount is needed.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from dfsmount.cli.cluster import AsJson, Directory, Url, ask, mount_or_cluster
from dfsmount.cli.lost import range_text
from dfsmount.cli.output import console, path_text, plain, plain_table, show_json
from dfswire.info import ChunkInfo, ExtentInfo, InfoReply, InfoRequest, LockInfo, ReplicaInfo


def info(
    path: Annotated[Path, typer.Argument(metavar="PATH")],
    url: Url = "",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Show a file's inode, extents, chunks, the servers that have them, and locks."""
    reply = find(path, url, directory)
    if as_json:
        show_json(as_plain(reply))
    else:
        show(reply)
    if any(not good_replicas(chunk) for chunk in reply.chunks):
        raise typer.Exit(1)


def find(path: Path, url: str, directory: Path | None) -> InfoReply:
    """Ask the right metad about `path`.  Raises UsageError, OSError, and what metad answers."""
    metad, place = mount_or_cluster(path, url, directory)
    reply: InfoReply = ask(metad, "cluster.info", InfoRequest(**place))
    return reply


def good_replicas(chunk: ChunkInfo) -> int:
    """How many good copies of it are on servers that are not down."""
    return sum(
        replica.state == "good" and replica.server_state != "down" for replica in chunk.replicas
    )


def as_plain(reply: InfoReply) -> dict[str, Any]:
    """The reply in terms of JSON; paths are text."""
    answer: dict[str, Any] = plain(reply)
    return answer | {"paths": [path_text(path) for path in reply.paths]}


def show(reply: InfoReply) -> None:
    """The answer for people."""
    screen = console()
    attr = reply.attr
    for path in reply.paths:
        screen.print(f"path     {path_text(path)}", markup=False)
    screen.print(f"inode    {attr.inode}, {stat.filemode(attr.mode)}, names: {attr.nlink}")
    screen.print(f"size     {attr.size} bytes, {attr.allocated_bytes} of them allocated")
    numbers = {chunk.chunk: number for number, chunk in enumerate(reply.chunks, start=1)}
    if reply.extents:
        screen.print()
        screen.print(_extents(reply.extents, numbers))
    if reply.chunks:
        screen.print()
        screen.print(_chunks(reply.chunks, numbers))
    for lost in reply.lost:
        screen.print(f"[red]{range_text(lost)}[/red]")
    if reply.locks:
        screen.print()
        screen.print(_locks(reply.locks))


def _extents(extents: list[ExtentInfo], numbers: dict[bytes, int]) -> Table:
    table = plain_table("offset", "length", "where")
    for extent in extents:
        where = (
            f"chunk {numbers.get(extent.chunk, extent.chunk.hex())}, from {extent.chunk_offset}"
            if extent.chunk
            else "in metadata"
        )
        table.add_row(str(extent.offset), str(extent.length), where)
    return table


def _chunks(chunks: list[ChunkInfo], numbers: dict[bytes, int]) -> Table:
    table = plain_table("", "chunk", "length", "replicas")
    for chunk in chunks:
        replicas = "\n".join(_replica(replica) for replica in chunk.replicas)
        number = str(numbers[chunk.chunk])
        table.add_row(number, chunk.chunk.hex(), str(chunk.length), escape(replicas))
    return table


def _locks(locks: list[LockInfo]) -> Table:
    table = plain_table("lock", "bytes", "who")
    for lock in locks:
        what = f"{lock.kind} {lock.type}" + (", waits" if lock.waits else "")
        span = f"{lock.start}-{'' if lock.end is None else lock.end}"
        who = f"process {lock.pid} at {lock.host}:{lock.mount_point}"
        table.add_row(what, "all" if lock.kind == "flock" else span, escape(who))
    return table


def _replica(replica: ReplicaInfo) -> str:
    away = "" if replica.server_state == "up" else f", server {replica.server_state}"
    return f"{replica.state}{away}: {replica.address} {replica.path}"
