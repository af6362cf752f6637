"""How much room the cluster has for data of files, as clients and operators are told.

What disks say of themselves, replicas divided out.  Nothing is reserved: it is what could be
written if nobody else wrote.
"""

from __future__ import annotations

from collections import Counter

import trio

from dfswire.messages import FILE_MAX_BYTES
from metad.copies.placement import capacity_bytes, spare_bytes
from metad.state import State


def room(state: State, *, known_only: bool = False) -> tuple[int, int]:
    """(all, free) bytes of user data on servers that are not down, replicas divided out.

    Just after a start of metad nobody has said what is free, which counts as 0 (see
    FirstFigures); `known_only` leaves such servers out of both.
    Data directories on one file system (a whole cluster on one machine) share its room.
    """
    live = state.servers.live_disks(state.clock())
    disks = [
        (server.server_id, figures)
        for server in state.servers
        for disk, figures in server.disks.items()
        if disk in live and (not known_only or server.heard)
    ]
    sharing = Counter(figures.filesystem or figures.disk for _, figures in disks)
    total: Counter[str] = Counter()
    free: Counter[str] = Counter()
    for server_id, figures in disks:
        share = sharing[figures.filesystem or figures.disk]
        total[server_id] += figures.total_bytes // share
        free[server_id] += spare_bytes(figures.total_bytes, figures.free_bytes) // share
    replicas = state.policy.replicas
    return capacity_bytes(total, replicas), capacity_bytes(free, replicas)


def promisable_bytes(state: State) -> int:
    """How much may be preallocated: what is free, or anything while nobody can know that.

    After metad was started again the servers have not told yet how much room they have.
    """
    if state.servers.awaited(state.clock()):
        return FILE_MAX_BYTES
    return room(state)[1]


class FirstFigures:
    """What servers say of their disks just after a start of metad.

    What nobody has spoken of counts as full, and who looks at free space would believe it.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._came = trio.Event()

    def came(self) -> None:
        """A server has registered."""
        self._came.set()
        self._came = trio.Event()

    async def wait(self) -> None:
        """Until all servers have spoken, or, after `suspect_s`, some of them; while there are none,
        nothing is known until all are down."""
        servers, clock, config = self._state.servers, self._state.clock, self._state.config
        while awaited := servers.awaited(clock()):
            is_any_heard = any(each.heard for each in servers)
            patience_s = config.suspect_s if is_any_heard else config.down_s
            left_s = awaited[0].last_heartbeat_s + patience_s - clock()
            if left_s <= 0:
                return
            with trio.move_on_after(left_s):
                await self._came.wait()
