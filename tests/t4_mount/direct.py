"""Speak to metad without a mount: for what would take too long through one."""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio

from dfswire.batches import BATCH_MAX_OPERATIONS, Batch, BatchReply
from dfswire.client import Client
from dfswire.fsck import FsckReport, FsckRequest
from dfswire.metadata import OpenSession, SessionGrant, SessionRequest
from dfswire.operations import Create

T = TypeVar("T")


def check_metadata(metad: str) -> FsckReport:
    """`dfs fsck` without the half second that the command takes to start."""

    async def check(client: Client) -> FsckReport:
        report: FsckReport = await client.call("cluster.fsck", metad, FsckRequest())
        return report

    return _with_client(check)


def create_names(metad: str, directory: Path, names: list[str]) -> None:
    """Make empty files, a thousand at a time, as one more client of the cluster."""
    parent = directory.stat().st_ino

    async def create(client: Client) -> None:
        introduction = OpenSession(host="test", mount_point="", pid=0, software="test")
        grant: SessionGrant = await client.call("session.open", metad, introduction)
        for sequence, first in enumerate(range(0, len(names), BATCH_MAX_OPERATIONS), start=1):
            operations = [
                Create(parent=parent, name=name.encode(), mode=stat.S_IFREG | 0o644, uid=0, gid=0)
                for name in names[first : first + BATCH_MAX_OPERATIONS]
            ]
            batch = Batch(session=grant.session, sequence=sequence, operations=list(operations))
            reply: BatchReply = await client.call("meta.batch", metad, batch, deadline_s=30.0)
            assert not any(result.fault for result in reply.results)
        await client.call("session.close", metad, SessionRequest(session=grant.session))

    _with_client(create)


def _with_client(action: Callable[[Client], Awaitable[T]]) -> T:
    async def run() -> T:
        client = Client()
        try:
            return await action(client)
        finally:
            await client.aclose()

    return trio.run(run)
