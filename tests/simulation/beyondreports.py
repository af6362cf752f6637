"""What an operator is told of what is lost, compared with the disks; for beyond.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from dfswire.fsck import FsckRequest
from dfswire.info import InfoRequest
from dfswire.messages import Empty
from dfswire.verify import FindLost, LostRange
from tests.simulation.groundtruth import GroundTruth, Ranges
from tests.simulation.history import Violation

WITHIN_S = 150.0


class Reports:
    """`ask(call, request)`: of metad; `lost`: of each inode, as long as it is; `inodes`: of all
    files, by name."""

    def __init__(
        self,
        ask: Callable[[str, Any], Awaitable[Any]],
        truth: GroundTruth,
        lost: Mapping[int, Ranges],
        inodes: Mapping[bytes, int],
    ) -> None:
        self._ask = ask
        self._truth = truth
        self._lost = lost
        self._inodes = inodes

    async def become_exact(self) -> None:
        """Raise Violation unless all that can be asked for is exactly what is lost."""
        truth = self._truth.ranges(self._truth.lost_blocks())
        if truth != self._lost:
            raise Violation("F30", f"lost at first: {self._lost}, and now: {truth}")
        began = trio.current_time()
        while found := await self._differences():
            if trio.current_time() > began + WITHIN_S:
                raise Violation("F30", found)
            await trio.sleep(1.0)

    async def nothing_is_lost(self) -> None:
        """Raise Violation unless that is what is said."""
        if (reply := await self._ask("cluster.lost", FindLost())).files:
            raise Violation("F30", f"still reported as lost: {reply.files}")

    async def _differences(self) -> str:
        """How they differ from the truth."""
        return (
            await self._wrong_files()
            or await self._wrong_info()
            or await self._wrong_chunks(self._truth.lost_blocks())
        )

    async def _wrong_files(self) -> str:
        reply = await self._ask("cluster.lost", FindLost())
        by_file = {file.inode: _known(file.ranges) for file in reply.files}
        if by_file != self._lost or reply.count != len(self._lost):
            return f"reported as lost: {by_file}, really: {self._lost}"
        for file in reply.files:
            names = {b"/" + name for name, inode in self._inodes.items() if inode == file.inode}
            if not names <= set(file.paths):
                return f"inode {file.inode} is called {file.paths}"
        return ""

    async def _wrong_info(self) -> str:
        for inode in self._inodes.values():
            info = await self._ask("cluster.info", InfoRequest(inode=inode))
            if _known(info.lost) != self._lost.get(inode, ()):
                return f"info of inode {inode}: {info.lost}, really: {self._lost.get(inode)}"
        return ""

    async def _wrong_chunks(self, lost: Mapping[bytes, object]) -> str:
        status = await self._ask("cluster.status", Empty())
        if status.chunks.lost != len(lost):
            return f"status counts {status.chunks.lost} lost chunks, really: {len(lost)}"
        report = await self._ask("cluster.fsck", FsckRequest())
        subjects = {f"{finding.check} {finding.subject}" for finding in report.findings}
        if subjects != {f"lost chunk {chunk.hex()}" for chunk in lost}:
            return f"fsck finds {subjects}, really lost: {sorted(lost)}"
        return ""


def _known(ranges: list[LostRange]) -> Any:
    """As the truth has them; with `None` for what metad is not sure of."""
    return tuple(
        (each.offset, each.offset + each.length) if each.sure else (each.offset, None)
        for each in ranges
    )
