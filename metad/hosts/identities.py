"""Who may act as which server: a chunkd that registers is let in, told another number, or refused.

Pure; servers.py asks before it believes a registration.  Two processes never act as the same
server: an older start is refused, and so is a second process while the first is up, or one that
brings a disk which is in use elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dfswire.hosts import Register
from metad.hosts.doubles import Doubles
from metad.hosts.server import Server, State


class Identities:
    """Of the servers in `servers`; `server_of` finds the one that has a disk, `state` says whether
    one is up."""

    def __init__(
        self,
        servers: Mapping[str, Server],
        server_of: Callable[[str], Server | None],
        state: Callable[[Server, float], State],
    ) -> None:
        self._servers = servers
        self._server_of = server_of
        self._state = state
        self._doubles = Doubles()

    def check(self, message: Register, now: float) -> None:
        """May this chunkd act under its identity?

        Raises AlreadyRunning (IdentityTaken when the other one has been heard since this was
        refused first) when a newer start of it is known, when another process with its identity is
        up, or when one of its disks is in use elsewhere.
        """
        self._check_incarnation(message, now)
        self._check_disks(message, now)

    def incarnation_for(self, message: Register, now: float) -> int:
        """The incarnation that a chunkd shall have: its own, unless that was used before.

        That is so when its data directories were set back to an older state.  It gets a new one if
        nobody else acts as this server.
        """
        known = self._servers.get(message.server_id)
        if known is None or message.incarnation > known.incarnation:
            return message.incarnation
        another = message.process != known.process and known.process != ""
        if message.incarnation == known.incarnation and not another:
            return message.incarnation
        if message.first and self._state(known, now) == "down":
            return known.incarnation + 1
        return message.incarnation

    def _check_incarnation(self, message: Register, now: float) -> None:
        known = self._servers.get(message.server_id)
        if known is None:
            return
        claimant = message.server_id, message.process
        if message.incarnation < known.incarnation:
            raise self._doubles.refusal(
                known.server_id,
                claimant,
                f"server {message.server_id} has been started again since this start",
            )
        # On the same address the first process can't live any more: that is a quick restart.
        if message.address != known.address and self._state(known, now) != "down":
            raise self._doubles.refusal(
                known.server_id,
                claimant,
                f"server {message.server_id} is already {self._state(known, now)} at "
                f"{known.address}; a copy of its data directories?",
            )

    def _check_disks(self, message: Register, now: float) -> None:
        for figures in message.disks:
            other = self._server_of(figures.disk)
            if (
                other is not None
                and other.server_id != message.server_id
                and figures.disk in other.disks
                and self._state(other, now) != "down"
            ):
                raise self._doubles.refusal(
                    other.server_id,
                    (message.server_id, message.process),
                    f"disk {figures.disk} is in use by server {other.server_id}",
                )

    def registered(self, server_id: str) -> None:
        """Another process has the identity from now on."""
        self._doubles.registered(server_id)

    def heard(self, server_id: str) -> None:
        """A heartbeat of the process that has this identity."""
        self._doubles.heard(server_id)
