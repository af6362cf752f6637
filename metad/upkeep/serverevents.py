"""Tells the event log when a server's state changes.

States follow from the time of the last heartbeat, so nothing happens at the moment of a change:
somebody has to look.  A server that is only known from the database is taken for up until it has
been silent for too long, so that a restart of metad by itself makes no events.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from metad.hosts.server import Server
from metad.hosts.servers import Servers
from metad.observe.eventlog import EventLog


class ServerEvents:
    """Compares the states of all servers with those that were told last."""

    def __init__(
        self,
        servers: Servers,
        event_log: EventLog,
        *,
        interval_s: float,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._servers = servers
        self._event_log = event_log
        self._interval_s = interval_s
        self._clock = clock
        self._told: dict[str, str] = {}

    async def run_forever(self) -> None:
        while True:
            self.run_once()
            await trio.sleep(self._interval_s)

    def run_once(self) -> None:
        """Add an event for each server whose state is not what was told last."""
        now = self._clock()
        self._servers.watch(now)
        for server in self._servers:
            if self._servers.server_admin(server.server_id) == "removed":
                continue  # nobody waits for it
            state = self._servers.state(server, now)
            unheard = state == "suspect" and not server.heard
            if unheard or state == self._told.setdefault(server.server_id, "up"):
                continue
            self._told[server.server_id] = state
            self._event_log.add(f"server.{state}", server.server_id, self._sentence(server, now))

    def _sentence(self, server: Server, now: float) -> str:
        if self._servers.state(server, now) == "up":
            return f"{server.address} is up again"
        if reason := self._servers.reason(server, now):
            return f"{server.address} is slow: {reason}"
        since = "last heard" if server.heard else "not heard since metad started"
        return f"{server.address} was {since} {now - server.last_heartbeat_s:.0f} s ago"
