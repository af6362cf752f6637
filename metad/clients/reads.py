"""Questions of clients: names, attributes, directories, extents; and the grants of new chunks.

Every handler reads and registers the session as a holder in one step, without an await between, so
a change that commits later is announced to it and one that committed earlier is in the answer.  In
the same step it makes sure that no other session holds exclusively what the answer tells of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

from dfswire.errors import Full, NoData, NoSpace
from dfswire.messages import (
    CHUNK_ID_BYTES,
    Answer,
    ChunkGrant,
    ChunkLocation,
    DirEntry,
    Replica,
)
from dfswire.metadata import (
    AttrReply,
    GrantReply,
    GrantRequest,
    InodeRequest,
    LayoutReply,
    LayoutRequest,
    LookupReply,
    LookupRequest,
    ReaddirReply,
    ReaddirRequest,
    ReadlinkReply,
    SeekReply,
    SeekRequest,
    StatfsReply,
    StatfsRequest,
    XattrsReply,
)
from metad.clients.recalls import Recalls
from metad.clients.room import FirstFigures, room
from metad.clients.sessioncalls import Clients, told_fleetingly
from metad.copies import policies, replicas
from metad.copies.placement import choose_for_grant
from metad.leases.changes import ALL_NAMES, Names
from metad.leases.table import ATTR, DATA, NAMES, Blocked
from metad.names import chunkmap, namespace, ranges, xattrs
from metad.state import State

Reply = TypeVar("Reply")
Told = dict[int, int]
"""Inode -> the parts of it that an answer tells of."""

INODES_FREE = 1 << 40  # there is no limit but the disk of the database; df -i wants a number
INODES_COUNTED_EVERY_S = 30.0  # counting reads the whole table


class Reads:
    """Handlers of the meta.* calls that change no file."""

    def __init__(self, state: State, clients: Clients, recalls: Recalls) -> None:
        self._state = state
        self._clients = clients
        self._recalls = recalls
        self._inodes = 0
        self._inodes_counted_s: float | None = None
        self.figures = FirstFigures(state)

    async def lookup(self, request: LookupRequest) -> LookupReply:
        def look() -> tuple[LookupReply, Told]:
            attr = namespace.lookup(self._state.db, request.parent, request.name)
            told = {request.parent: NAMES}
            if attr is not None:
                told[attr.inode] = told.get(attr.inode, 0) | ATTR
            return LookupReply(attr=attr), told

        names = {request.parent: (request.name,)}
        return await self._tell(request.session, look, names)

    async def getattr_(self, request: InodeRequest) -> AttrReply:
        def look() -> tuple[AttrReply, Told]:
            attr = namespace.getattr_(self._state.db, request.inode)
            return AttrReply(attr=attr), {request.inode: ATTR}

        return await self._tell(request.session, look)

    async def readlink(self, request: InodeRequest) -> ReadlinkReply:
        def look() -> tuple[ReadlinkReply, Told]:
            target = namespace.readlink(self._state.db, request.inode)
            return ReadlinkReply(target=target), {request.inode: ATTR}

        return await self._tell(request.session, look)

    async def xattrs(self, request: InodeRequest) -> XattrsReply:
        def look() -> tuple[XattrsReply, Told]:
            found = xattrs.xattrs(self._state.db, request.inode)
            return XattrsReply(xattrs=found), {request.inode: ATTR}

        return await self._tell(request.session, look)

    async def readdir(self, request: ReaddirRequest) -> ReaddirReply:
        def look() -> tuple[ReaddirReply, Told]:
            found, end, parent = namespace.readdir(
                self._state.db, request.inode, request.cookie, request.limit
            )
            entries = self._before_leased(request.session, found)
            told = dict.fromkeys((entry.attr.inode for entry in entries), ATTR)
            told[parent.inode] = ATTR
            told[request.inode] = told.get(request.inode, 0) | NAMES
            end = end and len(entries) == len(found)
            return ReaddirReply(entries=entries, end=end, parent=parent), told

        return await self._tell(request.session, look)

    def _before_leased(self, session: str, entries: list[DirEntry]) -> list[DirEntry]:
        """The entries before the first one (but the very first) that another session has leased.

        All leases are recalled at once, so the next page finds most of them given back.  Waiting
        for all of them together might never end where files are written all the time.
        """
        leases = self._state.leases
        told = dict.fromkeys((entry.attr.inode for entry in entries), ATTR)
        blocked = leases.obstacles(session, told)
        if blocked is None:
            return entries
        self._recalls.send(blocked)
        for count, entry in enumerate(entries):
            if count and leases.obstacles(session, {entry.attr.inode: ATTR}):
                return entries[:count]
        return entries

    async def layout(self, request: LayoutRequest) -> LayoutReply:
        state = self._state

        def look() -> tuple[LayoutReply, Told]:
            with state.db.snapshot():
                attr = namespace.getattr_(state.db, request.inode)
                extents, located = chunkmap.layout(
                    state.db, request.inode, request.offset, request.length
                )
            now = state.clock()
            chunks = [
                state.tokens.for_reading(
                    ChunkLocation(
                        chunk=chunk,
                        length=length,
                        replicas=state.servers.replicas(disks, now),
                        damaged=self._damaged(chunk, disks, now),
                        needed=state.policies.needed(policy),
                    ),
                    request.session,
                )
                for chunk, (length, disks, policy) in located.items()
            ]
            reply = LayoutReply(
                attr=attr, extents=extents, chunks=chunks, good_for_s=state.tokens.good_for_s
            )
            return reply, {request.inode: ATTR | DATA}

        return await self._tell(request.session, look)

    def _damaged(self, chunk: bytes, good: list[str], now: float) -> list[Replica]:
        """Where damaged copies are, when no server that is up has a good one."""
        servers = self._state.servers
        if any(servers.disk_state(disk, now) != "down" for disk in good):
            return []
        rows = replicas.replicas_of(self._state.db, chunk)
        bad = [disk for disk, state in rows if state == replicas.BAD]
        return servers.replicas(
            [disk for disk in bad if servers.disk_state(disk, now) != "down"], now
        )

    async def seek(self, request: SeekRequest) -> SeekReply:
        def look() -> tuple[SeekReply | NoData, Told]:
            told = {request.inode: ATTR | DATA}
            try:
                found = ranges.seek(self._state.db, request.inode, request.offset, request.whence)
            except NoData as problem:  # an answer too: who has written there must be asked
                return problem, told
            return SeekReply(offset=found), told

        answer = await self._tell(request.session, look)
        if isinstance(answer, NoData):
            raise answer
        return answer

    async def grant(self, request: GrantRequest) -> GrantReply:
        """New chunks for a file of this client, as its policy wants them.

        What the servers can't do now (too few with the label) is done as well as they can, and put
        right later.  Raises NoSpace; Full when no server is away.
        """
        state, config = self._state, self._state.config
        host = self._clients.check(request.session).host
        key = policies.of_file(state.db, request.inode) if request.inode else policies.DEFAULT_KEY
        policy = state.policies.of(key)
        candidates = state.servers.candidates(state.clock())
        granted: list[tuple[bytes, list[Replica]]] = []
        for _ in range(request.count):
            try:
                chosen = choose_for_grant(
                    candidates,
                    policy.replicas,
                    state.policies.chunk_size_bytes(key),
                    state.rng,
                    avoid=request.avoid,
                    preferred_host=host,
                    label=policy.label,
                )
            except Full as problem:
                if self._is_anybody_away():
                    raise NoSpace(str(problem)) from problem
                raise
            targets = [Replica(disk=each.disk, address=each.address) for each in chosen]
            granted.append((state.rng.randbytes(CHUNK_ID_BYTES), targets))
        expires_ns = state.now_ns() + int(config.grant_expiry_s * 1e9)
        rows = [(chunk, [each.disk for each in targets]) for chunk, targets in granted]
        await state.db.write(lambda: chunkmap.grant(state.db, request.session, rows, expires_ns))
        needed = state.policies.needed(key)

        def with_tokens(chunk: bytes, targets: list[Replica]) -> list[Replica]:
            return state.tokens.for_writing(chunk, targets, request.session, config.grant_expiry_s)

        return GrantReply(
            grants=[
                ChunkGrant(
                    chunk=chunk,
                    targets=with_tokens(chunk, targets),
                    expires_s=config.grant_expiry_s,
                    needed=needed,
                )
                for chunk, targets in granted
            ],
            policy=key,
            uniform=not policies.any_assigned(state.db),
            chunk_size_bytes=policy.chunk_size_bytes,
        )

    def _is_anybody_away(self) -> bool:
        """A server that may come back, and have room."""
        servers, now = self._state.servers, self._state.clock()
        return any(
            servers.heartbeat_state(each, now) != "up"
            and servers.server_admin(each.server_id) == "enabled"
            for each in servers
        )

    async def statfs(self, request: StatfsRequest) -> StatfsReply:
        self._clients.check(request.session)
        await self.figures.wait()
        total, free = room(self._state)
        inodes = await self._count_inodes()
        return StatfsReply(
            total_bytes=total,
            free_bytes=free,
            inodes=inodes + INODES_FREE,
            inodes_free=INODES_FREE,
        )

    async def _tell(
        self, session: str, look: Callable[[], tuple[Reply, Told]], names: Names = ALL_NAMES
    ) -> Reply:
        """What `look` finds, once no other session has what it tells of exclusively.

        `names`: of which directories it tells of these names only.
        Looking, deciding and registering the session as a holder are one step.
        """
        self._clients.check(session)
        reply, told = look()
        if blocked := self._state.leases.obstacles(session, told):
            return await self._tell_later(session, look, names, blocked, told)
        return self._registered(session, reply, told, names)

    async def _tell_later(
        self,
        session: str,
        look: Callable[[], tuple[Reply, Told]],
        names: Names,
        blocked: Blocked | None,
        told: Told,
    ) -> Reply:
        with self._recalls.waiting(session) as wait:
            while blocked is not None:
                await wait.until_changed(blocked, told)
                self._clients.check(session)
                reply, told = look()
                blocked = self._state.leases.obstacles(session, told, wait.turn)
            return self._registered(session, reply, told, names)

    def _registered(self, session: str, reply: Reply, told: Told, names: Names) -> Reply:
        fleeting = self._clients.hold(session, told, names)
        return told_fleetingly(reply, fleeting) if isinstance(reply, Answer) else reply

    async def _count_inodes(self) -> int:
        now = self._state.clock()
        counted_s = self._inodes_counted_s
        if counted_s is None or now - counted_s >= INODES_COUNTED_EVERY_S:
            self._inodes_counted_s = now
            rows = await self._state.db.read_in_thread(
                lambda db: db.read("SELECT count(*) FROM inode")
            )
            self._inodes = rows[0][0]
        else:
            await trio.lowlevel.checkpoint()
        return self._inodes
