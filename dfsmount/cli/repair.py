"""`dfs repair PATH`: every copy of a file, or of all files in a tree, is read and verified now.

The servers set aside what is bad and tell metad, which makes new copies of good ones at once, ahead
of everything else; this waits for that.  Ends with 0 when every file is whole (again), with 1 when
something is lost, and says which bytes; the rest of such a file stays readable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import trio
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dfsmount.cli.cluster import AsJson, Directory, Url, mount_or_cluster, talk
from dfsmount.cli.lost import show_ranges
from dfsmount.cli.output import console, path_text, show_json
from dfswire.chunks import VerifyChunk, VerifyReply
from dfswire.client import Client
from dfswire.errors import DFSError, NoEntry
from dfswire.info import ChunkInfo, InfoReply, InfoRequest
from dfswire.verify import FilesBelow, FilesReply, LostRange, Urge

PAGE_FILES = 1000
VERIFIES_AT_ONCE = 8  # a chunk each; the disks have other work too
VERIFY_DEADLINE_S = 60.0  # 16 MiB from a disk under load
CALL_DEADLINE_S = 60.0
LOOK_EVERY_S = 0.5
HEARD_S = 1.5  # by then the servers have told metad what is bad
URGED_AT_ONCE = 10_000
HEALED_WITHIN_S = 120.0  # without any progress, of one file


class FileResult:
    """What became of one file."""

    def __init__(self, inode: int, name: str) -> None:
        self.inode = inode
        self.name = name
        self.bad = 0
        self.unreachable = 0
        self.lost: list[LostRange] = []
        self.under_way = False

    @property
    def state(self) -> str:
        """A word for it."""
        if self.lost:
            return "damaged"
        if self.under_way:
            return "repair goes on"
        if self.bad:
            return "repaired"
        return "not all checked" if self.unreachable else "whole"


def repair(
    path: Annotated[Path, typer.Argument(metavar="PATH")],
    url: Url = "",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Verify every copy of a file or tree, and repair it now.  Ends with 1 when bytes are lost."""
    metad, place = mount_or_cluster(path, url, directory)

    async def run(client: Client) -> list[FileResult]:
        repairing = Repairing(client, metad, quiet=as_json)
        return await repairing.run(place.get("inode", 0), place.get("path", b""))

    results = talk(metad, run)
    counts = Counter(result.state for result in results)
    if as_json:
        show_json({"files": [_plain(each) for each in results], "counts": dict(counts)})
    else:
        _show(results, counts)
    if counts["damaged"] or counts["repair goes on"] or counts["not all checked"]:
        raise typer.Exit(1)


class Repairing:
    """One run of the command."""

    def __init__(self, client: Client, metad: str, *, quiet: bool) -> None:
        self._client = client
        self._metad = metad
        self._limit = trio.CapacityLimiter(VERIFIES_AT_ONCE)
        self._progress = Progress(
            TextColumn("verifying"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console(),
            disable=quiet or not console().is_terminal,
        )

    async def run(self, inode: int, path: bytes) -> list[FileResult]:
        results: list[FileResult] = []
        after, more = 0, True
        with self._progress:
            task = self._progress.add_task("", total=None)
            while more:
                request = FilesBelow(inode=inode, path=path, after=after, limit=PAGE_FILES)
                page: FilesReply = await self._ask("cluster.files", request)
                self._progress.update(task, total=len(results) + page.count)
                for each in page.inodes:
                    result = await self._file(each)
                    if result is not None:
                        results.append(result)
                    self._progress.advance(task)
                more = page.count > len(page.inodes)
                after = page.inodes[-1] if page.inodes else 0
        return results

    async def _file(self, inode: int) -> FileResult | None:
        """Verify and wait; None when the file was deleted meanwhile."""
        try:
            found = await self._info(inode)
            name = path_text(found.paths[0]) if found.paths else f"inode {inode}"
            result = FileResult(inode, name)
            async with trio.open_nursery() as nursery:
                for chunk, disk, address in _copies(found.chunks):
                    nursery.start_soon(self._verify, chunk, disk, address, result)
            if result.bad or _poor(found):
                await self._until_healed(result)
        except NoEntry:
            return None
        return result

    async def _verify(self, chunk: bytes, disk: str, address: str, result: FileResult) -> None:
        async with self._limit:
            try:
                reply: VerifyReply = await self._client.call(
                    "chunk.verify",
                    address,
                    VerifyChunk(chunk=chunk, disk=disk),
                    deadline_s=VERIFY_DEADLINE_S,
                )
            except DFSError:
                result.unreachable += 1
                return
            if reply.state != "good":
                result.bad += 1

    async def _until_healed(self, result: FileResult) -> None:
        """Until nothing more is to be expected."""
        await trio.sleep(HEARD_S)
        found = await self._info(result.inode)
        poor_chunks = [chunk.chunk for chunk in found.chunks if chunk.missing]
        for at in range(0, len(poor_chunks), URGED_AT_ONCE):
            await self._ask("cluster.urge", Urge(chunks=poor_chunks[at : at + URGED_AT_ONCE]))
        waited_s, poor = 0.0, -1
        while waited_s < HEALED_WITHIN_S:
            found = await self._info(result.inode)
            now_poor = _poor(found)
            if not now_poor or (found.lost and all(each.sure for each in found.lost)):
                break
            waited_s = 0.0 if now_poor != poor else waited_s + LOOK_EVERY_S
            poor = now_poor
            await trio.sleep(LOOK_EVERY_S)
        found = await self._info(result.inode)
        result.lost = found.lost
        result.under_way = bool(_poor(found)) and not found.lost

    async def _info(self, inode: int) -> InfoReply:
        reply: InfoReply = await self._ask("cluster.info", InfoRequest(inode=inode))
        return reply

    async def _ask(self, call: str, request: msgspec.Struct) -> Any:
        return await self._client.call(call, self._metad, request, deadline_s=CALL_DEADLINE_S)


def _copies(chunks: list[ChunkInfo]) -> Iterator[tuple[bytes, str, str]]:
    """Every copy that should be good: chunk, disk, and the address of its server."""
    for chunk in chunks:
        for replica in chunk.replicas:
            if replica.state == "good" and replica.address:
                yield chunk.chunk, replica.disk, replica.address


def _poor(found: InfoReply) -> int:
    """How many good copies are missing, as far as they can be had."""
    return sum(chunk.missing for chunk in found.chunks)


def _plain(result: FileResult) -> dict[str, object]:
    return {
        "inode": result.inode,
        "path": result.name,
        "state": result.state,
        "bad_copies": result.bad,
        "unreachable_copies": result.unreachable,
        "lost": result.lost,
    }


def _show(results: list[FileResult], counts: Counter[str]) -> None:
    for result in results:
        if result.state != "whole":
            more = f", copies that were bad: {result.bad}" if result.bad else ""
            away = f", copies not reached: {result.unreachable}" if result.unreachable else ""
            typer.echo(f"{result.name}: {result.state}{more}{away}")
            show_ranges(result.name, result.lost)
    total = ", ".join(f"{word}: {count}" for word, count in sorted(counts.items()))
    typer.echo(f"files: {len(results)}" + (f" ({total})" if total else ""))
