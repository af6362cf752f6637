"""What metad knows of its chunkds: whether they live, which disks they have, and their orders.

Pure: `now` (monotonic seconds) and everything else comes in as arguments.  The service feeds it
with registrations and heartbeats; placement, repair, reclaim and status read it.  Who may act as
which server is decided in identities.py.  A server that was only read from the database counts as
suspect, then down.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from dfswire.errors import Removed, WrongCluster
from dfswire.heartbeats import Heartbeat
from dfswire.hosts import Admin, DiskFigures, Register
from dfswire.messages import Replica
from metad.copies.placement import Candidate
from metad.hosts.grayness import Grayness
from metad.hosts.identities import Identities
from metad.hosts.orders import OrderQueue
from metad.hosts.server import Server, State

_ORDER: dict[State, int] = {"up": 0, "suspect": 1, "down": 2}
FOREIGN_S = 30.0  # a chunkd of another cluster asks every few seconds
_ADMIN: tuple[Admin, ...] = ("enabled", "draining", "drained", "removed")


class Servers:
    """All chunkds, and the one queue of orders."""

    def __init__(
        self, cluster_id: str, orders: OrderQueue, *, suspect_s: float = 3.0, down_s: float = 10.0
    ) -> None:
        self._cluster_id = cluster_id
        self._suspect_s = suspect_s
        self._down_s = down_s
        self._servers: dict[str, Server] = {}
        self._server_of: dict[str, str] = {}  # disk -> server
        self._server_admin: dict[str, Admin] = {}  # only what is not enabled
        self._disk_admin: dict[str, Admin] = {}
        self._foreign: dict[str, float] = {}  # address -> when a server of another cluster asked
        self.orders = orders
        self.grayness = Grayness()
        self.identities = Identities(self._servers, self.server_of, self.heartbeat_state)

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers.values())

    # what servers tell

    def load(self, message: Register, now: float) -> None:
        """A server that metad knows from its database; it has not been heard yet."""
        self._adopt(Server.registered(message, now, heard=False))

    def check(self, message: Register, now: float) -> None:
        """May this chunkd act under its identity?

        Raises WrongCluster, Removed, AlreadyRunning and IdentityTaken: see Identities.check.
        """
        if message.cluster_id not in ("", self._cluster_id):
            self.foreign(now)  # forgets those that ask no longer
            self._foreign[message.address] = now
            raise WrongCluster(
                f"server {message.server_id} belongs to another cluster: {message.cluster_id}, not "
                f"{self._cluster_id}"
            )
        if self.server_admin(message.server_id) == "removed":
            raise Removed(
                f"server {message.server_id} was removed from this cluster; "
                f"'dfs node enable {message.server_id}' takes it back"
            )
        self.identities.check(message, now)

    def foreign(self, now: float) -> list[str]:
        """Addresses of chunkds of other clusters that want to register."""
        self._foreign = {each: at for each, at in self._foreign.items() if now - at < FOREIGN_S}
        return sorted(self._foreign)

    def register(self, message: Register, now: float) -> None:
        """A chunkd starts, or metad had forgotten it.  Raises as `check` does."""
        self.check(message, now)
        known = self._servers.get(message.server_id)
        if known is None or _start_of(known) != _start_of(message):
            self.grayness.forget(message.address)
            self.orders.restart(known.disks if known is not None else ())
            self.identities.registered(message.server_id)
        self._adopt(Server.registered(message, now, heard=True))

    def heartbeat(self, message: Heartbeat, now: float) -> bool:
        """Take the figures in.  False when the server must register (again)."""
        server = self._servers.get(message.server_id)
        if (
            server is None
            or not server.heard
            or server.incarnation != message.incarnation
            or server.process != message.process
        ):
            return False
        if self.server_admin(server.server_id) == "removed":
            return False  # it registers, and is told so
        if any(self.server_of(each.disk) is not server for each in message.disks):
            return False  # a disk that it did not register with
        server.host = message.host
        server.disks = {each.disk: each for each in message.disks}
        if now - server.last_heartbeat_s >= self._suspect_s:
            server.up_since_s = now
        server.last_heartbeat_s = now
        self.identities.heard(server.server_id)
        return True

    def _adopt(self, server: Server) -> None:
        self._servers[server.server_id] = server
        for disk in server.disks:
            previous = self.server_of(disk)
            if previous is not None and previous is not server:
                previous.disks.pop(disk, None)
            self._server_of[disk] = server.server_id

    # what operators want

    def administer(self, servers: Mapping[str, Admin], disks: Mapping[str, Admin]) -> None:
        """What the database has about all of them: those that are missing are enabled."""
        self._server_admin = {name: admin for name, admin in servers.items() if admin != "enabled"}
        self._disk_admin = {name: admin for name, admin in disks.items() if admin != "enabled"}

    def server_admin(self, server_id: str) -> Admin:
        """What an operator wants of a server."""
        return self._server_admin.get(server_id, "enabled")

    def disk_admin(self, disk: str) -> Admin:
        """What an operator wants of a disk, or of its server if that is more."""
        of_disk = self._disk_admin.get(disk, "enabled")
        return max(of_disk, self.server_admin(self._server_of.get(disk, "")), key=_ADMIN.index)

    def is_wanted(self, disk: str) -> bool:
        """Do copies on this disk count?  Others may be read, and are sources for copies."""
        return self.disk_admin(disk) == "enabled"

    # what others ask

    def heartbeat_state(self, server: Server, now: float) -> State:
        """From the time of the last heartbeat; a server not heard since metad's start is not up."""
        silent_s = now - server.last_heartbeat_s
        if silent_s >= self._down_s:
            return "down"
        return "up" if server.heard and silent_s < self._suspect_s else "suspect"

    def state(self, server: Server, now: float) -> State:
        """The same, but one whose callers find it slow is suspect, however quick its heartbeat."""
        state = self.heartbeat_state(server, now)
        if state == "up" and self.grayness.reason(server.address, now):
            return "suspect"
        return state

    def reason(self, server: Server, now: float) -> str:
        """Why it is not up, where that is not only silence."""
        if self.heartbeat_state(server, now) != "up":
            return ""
        return self.grayness.reason(server.address, now)

    def watch(self, now: float) -> None:
        """Weigh what was reported of servers; to be called about every second."""
        up = [each.address for each in self if self.heartbeat_state(each, now) == "up"]
        self.grayness.update(up, now)

    def down_for_s(self, server: Server, now: float) -> float:
        """For how long it has been down; negative while it is not."""
        return now - server.last_heartbeat_s - self._down_s

    def get(self, server_id: str) -> Server | None:
        """The server with this identity."""
        return self._servers.get(server_id)

    def awaited(self, now: float) -> list[Server]:
        """Those that were not heard since metad's start, and may call at any moment.

        How much room they have is not known yet.
        """
        return [
            each
            for each in self
            if not each.heard
            and self.heartbeat_state(each, now) != "down"
            and self.server_admin(each.server_id) != "removed"
        ]

    def server_of(self, disk: str) -> Server | None:
        """The server that has (or last had) this disk."""
        return self._servers.get(self._server_of.get(disk, ""))

    def disk_state(self, disk: str, now: float) -> State:
        """The state of its server; "down" when it failed, was removed, or its server lost it."""
        server = self.server_of(disk)
        if server is None or disk not in server.disks or not self._usable(server.disks[disk]):
            return "down"
        return self.state(server, now)

    def up_since_s(self, disk: str) -> float:
        """Since when its server has been up without a pause; 0 for a disk that is nowhere."""
        server = self.server_of(disk)
        return server.up_since_s if server is not None else 0.0

    def is_settled(self, disk: str, now: float, settle_s: float) -> bool:
        """Has the disk been there, in good health, for so long that its copies can be relied on?"""
        return self.disk_state(disk, now) == "up" and now - self.up_since_s(disk) >= settle_s

    def live_disks(self, now: float) -> set[str]:
        """Healthy disks of servers that are not down."""
        return {
            disk
            for server in self
            if self.state(server, now) != "down"
            for disk, figures in server.disks.items()
            if self._usable(figures)
        }

    def disks_worth_waiting_for(self, now: float, repair_after_s: float) -> set[str]:
        """Healthy disks whose server is not down, or not down for so long yet."""
        return {
            disk
            for server in self
            if self.down_for_s(server, now) < repair_after_s
            for disk, figures in server.disks.items()
            if self._usable(figures)
        }

    def known_disks(self) -> dict[str, str]:
        """Every disk that was ever registered, and its server."""
        return dict(self._server_of)

    def replicas(self, disks: Iterable[str], now: float) -> list[Replica]:
        """Where to ask for a copy on one of these disks: healthy ones first, unknown ones not."""
        known = [(self.disk_state(disk, now), disk, self.server_of(disk)) for disk in disks]
        known.sort(key=lambda each: (_ORDER[each[0]], each[1]))
        return [
            Replica(disk=disk, address=server.address, doubtful=state != "up")
            for state, disk, server in known
            if server is not None
        ]

    def candidates(self, now: float) -> list[Candidate]:
        """Every healthy disk of every server that is up and not to be drained, for placement; slow
        servers are marked."""
        return [
            self._candidate(server, figures, slow=bool(self.reason(server, now)))
            for server in self
            if self.heartbeat_state(server, now) == "up"
            for figures in server.disks.values()
            if not figures.failed and self.is_wanted(figures.disk)
        ]

    def volume_of(self, disk: str) -> str:
        """The same text for disks that share their capacity."""
        server = self.server_of(disk)
        figures = server.disks.get(disk) if server is not None else None
        return (figures.filesystem if figures is not None else "") or disk

    def domains(self, disks: Collection[str]) -> list[Candidate]:
        """The known ones of these disks, whatever their state: what placement keeps away from."""
        return [
            self._candidate(server, server.disks[disk])
            for disk in disks
            if (server := self.server_of(disk)) is not None and disk in server.disks
        ]

    def _usable(self, figures: DiskFigures) -> bool:
        return not figures.failed and self.disk_admin(figures.disk) != "removed"

    @staticmethod
    def _candidate(server: Server, figures: DiskFigures, *, slow: bool = False) -> Candidate:
        return Candidate(
            disk=figures.disk,
            server_id=server.server_id,
            address=server.address,
            zone=server.zone,
            rack=server.rack,
            host=server.host.hostname,
            total_bytes=figures.total_bytes,
            free_bytes=figures.free_bytes,
            labels=frozenset(server.labels),
            load=server.host.load_1m / max(server.host.cpu_count, 1),
            slow=slow,
        )


def _start_of(server: Server | Register) -> tuple[int, str]:
    return server.incarnation, server.process
