"""Policies of directories: set, shown and cleared while everything runs.

Handlers of the policy.* calls, and the job that makes existing chunks follow.  A directory's new
policy holds from the commit on: what is written then follows it, and repair and trimming do the
rest as the walk (convergence.py) reaches what is there.  What the cluster cannot do now is refused
unless it is forced, and shown as unsatisfied for as long as that is so.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from dfswire.errors import DFSError, NotDirectory
from dfswire.messages import Invalidated, Invalidation
from dfswire.policies import PolicyReply, PolicyRequest, PolicyTerms, SetPolicy, where_of
from metad.copies import policies, redundancy
from metad.copies.placement import Candidate, domain_of
from metad.copies.policies import Policy
from metad.jobs import convergence
from metad.jobs.rows import Job, Progress
from metad.jobs.runner import Jobs, Kind
from metad.names import namespace, rows
from metad.operators.moving import Moving
from metad.operators.status import paths_of, walk
from metad.state import State

CONVERGE = "policy"  # the kind of job
WALKED = "every chunk has its policy; copies that are missing or elsewhere come next"
INODES_PER_STEP = 500
STEP_PAUSE_S = 0.02  # others want to write too
LOOK_S = 1.0
TELL_S = 2.0  # for clients to drop their grants; one that is dead must not hold up an operator


class PolicyCalls:
    """See the module's text."""

    def __init__(self, state: State, jobs: Jobs, moving: Moving) -> None:
        self._state = state
        self._jobs = jobs
        self._moving = moving
        self._is_changed = False  # by an operator, since the last walk
        jobs.register(Kind(CONVERGE, "inodes", self._step))

    # -- calls ----------------------------------------------------------------------------------

    async def show(self, request: PolicyRequest) -> PolicyReply:
        """What applies to a file or directory.  Raises NoEntry, UsageError."""
        with self._state.db.snapshot():
            return self._reply(self._find(request.inode, request.path))

    async def set(self, request: SetPolicy) -> PolicyReply:
        """Give a directory a policy.  Raises NoEntry, NotDirectory, UsageError."""
        state, terms = self._state, request.terms
        inode = self._find_directory(request.inode, request.path)
        unsatisfied = shortcomings(self._there(), policy_from(terms))
        if unsatisfied and not request.force:
            return self._reply(inode, applied=False, unsatisfied=unsatisfied)

        def assign() -> None:
            rows.need_directory(state.db, inode)
            policies.assign(state.db, inode, policies.key_of(state.db, policy_from(terms)))
            policies.converge_later(state.db, inode)

        await state.db.write(assign)
        await self._changed(inode, f"{terms.replicas} copies {where_of(terms.domain)}")
        return self._reply(inode)

    async def clear(self, request: PolicyRequest) -> PolicyReply:
        """A directory follows the one above again.  Raises NoEntry, NotDirectory, UsageError."""
        state = self._state
        inode = self._find_directory(request.inode, request.path)

        def unassign() -> None:
            if policies.unassign(state.db, inode):
                policies.converge_later(state.db, inode)

        await state.db.write(unassign)
        await self._changed(inode, "that of the directory above, or the default")
        return self._reply(inode)

    def unsatisfied(self) -> list[str]:
        """What the cluster cannot do now of all policies that directories have."""
        state = self._state
        candidates = self._there()
        used = state.db.read("SELECT DISTINCT policy FROM directory_policy ORDER BY policy")
        return [
            f"policy {_text(state.policies.of(key))}: {reason}"
            for (key,) in used
            for reason in shortcomings(candidates, state.policies.of(key))
        ]

    def _there(self) -> list[Candidate]:
        """Disks that copies could go to; also of servers that are about to call a new metad."""
        servers, now = self._state.servers, self._state.clock()
        awaited = [disk for each in servers.awaited(now) for disk in each.disks]
        return [
            *servers.candidates(now),
            *servers.domains([disk for disk in awaited if servers.is_wanted(disk)]),
        ]

    def _find(self, inode: int, path: bytes) -> int:
        found = inode or walk(self._state.db, path)
        return namespace.getattr_(self._state.db, found).inode

    def _find_directory(self, inode: int, path: bytes) -> int:
        found = self._find(inode, path)
        if not rows.is_directory(namespace.getattr_(self._state.db, found)):
            raise NotDirectory("a policy belongs to a directory")
        return found

    def _reply(
        self, inode: int, *, applied: bool = True, unsatisfied: list[str] | None = None
    ) -> PolicyReply:
        state, db = self._state, self._state.db
        if rows.is_directory(namespace.getattr_(db, inode)):
            key, source = policies.of_directory(db, inode)
        else:
            key, source = policies.of_file(db, inode), 0
        policy = state.policies.of(key)
        if unsatisfied is None:
            unsatisfied = shortcomings(self._there(), policy) if key else []
        return PolicyReply(
            inode=inode,
            terms=PolicyTerms(
                replicas=policy.replicas,
                domain=policy.domain,
                label=policy.label,
                chunk_size_bytes=policy.chunk_size_bytes if key else 0,
            ),
            source=source,
            source_path=next(iter(paths_of(db, source)), b"") if source else b"",
            applied=applied,
            unsatisfied=unsatisfied,
            converging=policies.any_converging(db)
            or self._moving.may_move(key)
            or redundancy.any_short(db, {key: policy.replicas}),
        )

    async def _changed(self, inode: int, text: str) -> None:
        """After the commit."""
        self._state.policies.refresh()
        self._is_changed = True
        self._moving.policy_changed()
        path = next(iter(paths_of(self._state.db, inode)), b"").decode("utf-8", "backslashreplace")
        self._state.event_log.add("policy.changed", path or str(inode), f"its policy is {text}")
        # Who does not hear it in time writes to the old places for a while, and that is put right.
        news = Invalidation(inode=inode, what=Invalidated.POLICY)
        delivery = self._state.streams.push_to_all([news])
        with trio.move_on_after(TELL_S):
            await delivery.wait()
        await self._begin()

    # -- the work -------------------------------------------------------------------------------

    async def run_forever(self) -> None:
        """Start the job whenever something was renamed, linked or shared that has to follow."""
        while True:
            await trio.sleep(LOOK_S)
            job = self._jobs.find(CONVERGE)
            if job is None and policies.any_converging(self._state.db):
                try:
                    await self._begin()
                except DFSError:
                    continue  # the database can't be written now; it is tried again

    async def _begin(self) -> None:
        """Also one that was stopped or had failed."""
        job = self._jobs.find(CONVERGE)
        await self._jobs.begin(CONVERGE, {}, job.name if job is not None else "")

    async def _step(self, job: Job) -> Progress:
        db = self._state.db
        walked = await db.write(lambda: convergence.walk(db, INODES_PER_STEP))
        done = job.done + walked.inodes
        if walked.finished:
            if self._is_changed:
                self._is_changed = False
                self._moving.policy_changed()
            return Progress(None, done, done, WALKED, finished=True)
        left = convergence.waiting(db)
        text = f"{left} directories or files, and what is below them, are left"
        return Progress(None, done, 0, text, pause_s=STEP_PAUSE_S)


def policy_from(terms: PolicyTerms) -> Policy:
    """The policy that an operator describes."""
    return Policy(terms.replicas, terms.chunk_size_bytes, terms.domain, terms.label)


def shortcomings(candidates: Iterable[Candidate], policy: Policy) -> list[str]:
    """Why the servers that are up cannot keep chunks by a policy; empty when they can."""
    candidates = list(candidates)
    if policy.label:
        candidates = [each for each in candidates if policy.label in each.labels]
    servers = len({each.server_id for each in candidates})
    with_label = f" with label {policy.label}" if policy.label else ""
    if policy.domain == "apart":
        if servers >= policy.replicas:
            return []
        return [f"{policy.replicas} copies need as many servers{with_label}, there are {servers}"]
    places = {domain_of(each, policy.domain) for each in candidates}
    if len(places) >= policy.replicas:
        return []
    found = [
        f"{policy.replicas} copies need as many {policy.domain}s{with_label}, "
        f"there are {len(places)}"
    ]
    if servers < policy.replicas:
        found.append(f"and {servers} servers{with_label} that are up")
    return found


def _text(policy: Policy) -> str:
    label = f", label {policy.label}" if policy.label else ""
    return f"({policy.replicas} copies {where_of(policy.domain)}{label})"
