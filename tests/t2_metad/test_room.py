"""Room: what df shows, for servers on machines of their own and for several on one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dfswire.hosts import DiskFigures
from metad.clients.room import room
from metad.state import State

TOTAL = 1000 << 20


def state(filesystems: list[str], replicas: int = 2) -> State:
    """As many servers with one disk each."""
    servers: list[Any] = []
    for number, filesystem in enumerate(filesystems):
        disk = f"disk{number}"
        figures = DiskFigures(
            disk=disk,
            path="/",
            total_bytes=TOTAL,
            free_bytes=TOTAL,
            chunks=0,
            used_bytes=0,
            filesystem=filesystem,
        )
        servers.append(SimpleNamespace(server_id=f"server{number}", disks={disk: figures}))

    class Servers(list[Any]):
        def live_disks(self, now: float) -> set[str]:
            return {disk for server in self for disk in server.disks}

    policy = SimpleNamespace(replicas=replicas)
    return cast(State, SimpleNamespace(servers=Servers(servers), policy=policy, clock=lambda: 0.0))


@pytest.mark.parametrize("filesystems", [["a", "b", "c"], ["", "", ""]])
def test_every_server_adds_its_room(filesystems: list[str]) -> None:
    assert room(state(filesystems))[0] == 3 * TOTAL // 2


def test_servers_on_one_file_system_share_its_room() -> None:
    total, free = room(state(["a", "a", "a"]))
    assert total == pytest.approx(TOTAL // 2, abs=3)
    assert free < total
    assert room(state(["a", "a", "b"]))[0] == TOTAL
