"""Servers and disks leave: drained first, then removed; enabled again whenever somebody likes.

Handlers of the admin.* calls, and the two kinds of jobs behind them.  From the commit that makes a
disk `draining` on nothing new is placed there, and repair copies what it has as if it were lost,
while it is still read and copied from; it is `drained` when enough copies of everything are
elsewhere.  Removing never costs a last copy without leave, and says first what it would cost.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from dfswire.admin import FILES_TOLD_MAX, AdminReply, FileLoss, Losses, RemoveTarget, Target
from dfswire.errors import UsageError
from dfswire.hosts import Admin
from metad.hosts import machines
from metad.jobs import leaving
from metad.jobs.rows import Job, Progress
from metad.jobs.runner import Jobs, Kind
from metad.operators.leavers import Leaver, find_leaver
from metad.operators.status import paths_of
from metad.state import State
from metad.storage.database import Database

DRAIN, REMOVE = "drain", "remove"  # kinds of jobs
LOOK_S = 1.0  # how often a drain is looked at
LOOK_SHARE = 4.0  # and how many times the duration of a look is waited after it
FORGOTTEN_PER_STEP = 1000


class Drains:
    """See the module's text.  `wake` tells repair that there is something to do."""

    def __init__(self, state: State, jobs: Jobs, wake: Callable[[], None]) -> None:
        self._state = state
        self._jobs = jobs
        self._wake = wake
        self._missing: dict[int, str] = {}  # by job
        jobs.register(Kind(DRAIN, "chunks", self._drain_step, self._check_drain))
        jobs.register(Kind(REMOVE, "copies", self._remove_step, self._check_remove))

    # -- calls ----------------------------------------------------------------------------------

    async def drain(self, request: Target) -> AdminReply:
        """Begin to drain; again: the job that does.  Raises NoEntry, UsageError."""
        who = find_leaver(self._state.db, request.server, request.disk)
        admin = self._admin(who)
        if admin == "removed":
            raise UsageError(f"{who.text} was removed")
        if admin == "drained":
            return self._reply(who, None)
        job = self._jobs.find(DRAIN, **who.argument)
        if admin == "draining" and job is not None and job.state == "running":
            return self._reply(who, job)
        job = await self._jobs.begin(
            DRAIN,
            who.argument,
            job.name if job is not None else "",
            also=lambda: self._set(who, "draining"),
        )
        self._changed(who, "draining")
        return self._reply(who, job)

    def stuck(self) -> list[str]:
        """Drains that cannot go on now, and what they miss."""
        return [
            f"{self._who(job).text}: {self._missing[job.id]}"
            for job in self._jobs.running_jobs()
            if job.id in self._missing
        ]

    async def enable(self, request: Target) -> AdminReply:
        """What is drained, or was removed, takes part again.  Raises NoEntry, UsageError."""
        who = find_leaver(self._state.db, request.server, request.disk)
        await self._state.db.write(lambda: self._set(who, "enabled"))
        self._changed(who, "enabled")
        return self._reply(who, None)

    async def remove(self, request: RemoveTarget) -> AdminReply:
        """Forget a server or disk that is drained or dead.  Raises NoEntry, UsageError."""
        who = find_leaver(self._state.db, request.server, request.disk)
        self._check_leaves(who)
        losses = await self._losses(who, {"up"})
        if losses.chunks and not request.accept_loss:
            await self._check_others_are_heard(who, losses.chunks)
            return self._reply(who, None, losses)
        db, now_ns = self._state.db, self._state.now_ns()
        argument = {**who.argument, "accept_loss": request.accept_loss}
        unended = self._jobs.find(REMOVE, **argument)

        def leave() -> None:
            leaving.withdraw_grants(db, self._keys(db, who), now_ns)
            self._set(who, "removed")
            self._leave_journal(who)

        job = await self._jobs.begin(
            REMOVE, argument, unended.name if unended is not None else "", also=leave
        )
        self._changed(who, "removed")
        self._leave_journal(who)  # it may have come back before it was refused
        return self._reply(who, job, losses)

    def _check_leaves(self, who: Leaver) -> None:
        """Raises UsageError while it is in use."""
        servers, now = self._state.servers, self._state.clock()
        if self._admin(who) in ("drained", "removed"):
            return
        if who.disk:
            dead = servers.disk_state(who.disk, now) == "down"
        else:
            server = servers.get(who.server)
            dead = server is None or servers.state(server, now) == "down"
        if not dead:
            raise UsageError(f"{who.text} is in use: drain it first")

    async def _check_others_are_heard(self, who: Leaver, count: int) -> None:
        """Raises UsageError where it is only not known whether there are other copies: their
        servers are suspect, as all are just after a start of metad."""
        if (await self._losses(who, {"up", "suspect"})).chunks:
            return
        servers, now = self._state.servers, self._state.clock()
        silent = [each.server_id for each in servers if servers.state(each, now) == "suspect"]
        raise UsageError(
            f"other copies of {count} chunks are on servers that are suspect now "
            f"({', '.join(silent)}); ask again when 'dfs nodes' shows them up"
        )

    async def _losses(self, who: Leaver, states: Container[str]) -> Losses:
        """What is on nothing else but disks in other states."""
        servers, now = self._state.servers, self._state.clock()
        there = {
            disk for disk in servers.live_disks(now) if servers.disk_state(disk, now) in states
        }
        reachable = self._others(who, there)

        def find(db: Database) -> Losses:
            keys = self._keys(db, who)
            chunks, size, files = leaving.last_copies(db, keys, reachable)
            if not chunks:
                return Losses()
            rows = leaving.files_with_last_copies(db, keys, reachable, FILES_TOLD_MAX)
            described = [
                FileLoss(inode=inode, path=next(iter(paths_of(db, inode)), b""), chunks=count)
                for inode, count in rows
            ]
            return Losses(chunks=chunks, bytes=size, files=files, described=described)

        return await self._state.db.read_in_thread(find)

    # -- state ----------------------------------------------------------------------------------

    def _admin(self, who: Leaver) -> Admin:
        servers = self._state.servers
        return servers.disk_admin(who.disk) if who.disk else servers.server_admin(who.server)

    def _set(self, who: Leaver, admin: Admin) -> None:
        """In a mutation."""
        if who.disk:
            machines.set_disk_admin(self._state.db, who.disk, admin)
        else:
            machines.set_server_admin(self._state.db, who.server, admin)

    def _leave_journal(self, who: Leaver) -> None:
        """Before the entry about the removal is given out: others must have all up to there."""
        if not who.disk:
            self._state.followers.dismiss(who.server)

    def _changed(self, who: Leaver, admin: Admin) -> None:
        """After its commit."""
        self._state.servers.administer(*machines.load_admin(self._state.db))
        kind = "disk" if who.disk else "server"
        self._state.event_log.add(f"{kind}.{admin}", who.disk or who.server, f"it is {admin} now")
        self._wake()

    def _keys(self, db: Database, who: Leaver) -> list[int]:
        disks = [who.disk] if who.disk else leaving.disks_of_server(db, who.server)
        return leaving.disk_keys(db, disks)

    def _others(self, who: Leaver, disks: set[str]) -> set[str]:
        own = [who.disk] if who.disk else leaving.disks_of_server(self._state.db, who.server)
        return disks.difference(own)

    def _reply(self, who: Leaver, job: Job | None, losses: Losses | None = None) -> AdminReply:
        return AdminReply(
            server=who.server,
            disk=who.disk,
            admin=self._admin(who),
            job=self._jobs.status(job) if job is not None else None,
            losses=losses or Losses(),
        )

    # -- jobs -----------------------------------------------------------------------------------

    def _check_drain(self, argument: dict[str, Any]) -> None:
        """Raises UsageError, or NoEntry."""
        if unknown := ", ".join(argument.keys() - {"server", "disk"}):
            raise UsageError(f"the argument has a server or a disk, not {unknown}")
        server, disk = argument.get("server", ""), argument.get("disk", "")
        if not isinstance(server, str) or not isinstance(disk, str):
            raise UsageError("server and disk are texts")
        find_leaver(self._state.db, server, disk)

    def _check_remove(self, argument: dict[str, Any]) -> None:
        """Raises UsageError, or NoEntry."""
        if not isinstance(argument.get("accept_loss"), bool):
            raise UsageError("accept_loss is true or false")
        self._check_drain({name: argument[name] for name in argument if name != "accept_loss"})

    def _who(self, job: Job) -> Leaver:
        return find_leaver(
            self._state.db, job.argument.get("server", ""), job.argument.get("disk", "")
        )

    async def _drain_step(self, job: Job) -> Progress:
        """Look how much still depends on the disk; the copies are repair's work."""
        state, who = self._state, self._who(job)
        if self._admin(who) != "draining":
            return Progress(job.cursor, job.done, job.total, "called off", finished=True)
        began = state.clock()
        candidates = state.servers.candidates(began)
        relied_on = {each.disk for each in candidates}
        wanted = {key: policy.replicas for key, policy in state.policies.all().items()}
        left, size, copies = await state.db.read_in_thread(
            lambda db: leaving.needed(db, self._keys(db, who), relied_on, wanted)
        )
        total = max(job.total, left)
        if not left:
            done = await self._drained(job, who, total, relied_on, wanted)
            if done is not None:
                return done
        waits = f"{left} chunks ({size} bytes) are not on enough other servers yet"
        others = len({each.server_id for each in candidates})
        self._missing.pop(job.id, None)
        # Just after a start of metad it is not known who is there.
        if others < copies and not state.servers.awaited(began):
            there = "there is 1" if others == 1 else f"there are {others}"
            missing = f"needs {copies} other servers that are up, {there}"
            self._missing[job.id] = missing
            waits = f"{missing}: {waits}"
        pause_s = max(LOOK_S, LOOK_SHARE * (state.clock() - began))
        return Progress(job.cursor, total - left, total, waits, pause_s=pause_s)

    async def _drained(
        self, job: Job, who: Leaver, total: int, relied_on: set[str], wanted: dict[int, int]
    ) -> Progress | None:
        """None: something was written there under an old grant while this was found out.

        Such grants end with this; so of what is drained nothing is needed, nor ever will be.
        """
        db, now_ns = self._state.db, self._state.now_ns()

        def settle() -> bool | None:
            if machines.admin_of(db, who.server, who.disk) != "draining":
                return False  # enabled meanwhile
            keys = self._keys(db, who)
            leaving.withdraw_grants(db, keys, now_ns)
            if leaving.needed(db, keys, relied_on, wanted)[0]:
                return None
            self._set(who, "drained")
            return True

        settled = await db.write(settle)
        if settled is None:
            return None
        if not settled:
            return Progress(job.cursor, job.done, job.total, "called off", finished=True)
        self._changed(who, "drained")
        return Progress(job.cursor, total, total, "everything is elsewhere", finished=True)

    async def _remove_step(self, job: Job) -> Progress:
        """Forget some of its copies; `cursor` is [disks done with, last chunk, copies kept]."""
        state, who = self._state, self._who(job)
        at, after, kept = job.cursor or (0, "", 0)
        if self._admin(who) != "removed":
            return Progress(job.cursor, job.done, job.total, "called off", finished=True)
        keys = self._keys(state.db, who)
        if at >= len(keys):
            if kept:
                raise UsageError(f"{kept} chunks have their last copy there; accept their loss?")
            return Progress(job.cursor, job.done, job.done, "it is forgotten", finished=True)
        last_too = job.argument["accept_loss"]
        go_on, count, left = await state.db.write(
            lambda: leaving.forget_replicas(
                state.db, keys[at], bytes.fromhex(after), FORGOTTEN_PER_STEP, last_too=last_too
            )
        )
        kept += left
        done = job.done + count
        if go_on is None:
            return Progress([at + 1, "", kept], done)
        return Progress([at, go_on.hex(), kept], done)
