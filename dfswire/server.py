"""The HTTP server of the daemons (skeleton, the body follows in the next commit)."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from dfswire.dispatch import Dispatcher


async def listen(address: str) -> list[trio.SocketListener]: ...


async def serve(
    dispatcher: Dispatcher,
    listeners: Sequence[trio.SocketListener],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None: ...
