"""What operators do in the middle of it all: none of it may cost a byte.

Servers are drained, removed and enabled again; copies are moved, the number of copies is changed,
files are compacted; metad's database is checked with repair, and made again from its journal.
"""

from __future__ import annotations

import random
from typing import Any

import trio

from dfswire.admin import RemoveTarget, Target
from dfswire.errors import DFSError
from dfswire.fsck import FsckRequest
from dfswire.jobs import StartJob
from dfswire.messages import ROOT_INODE, Empty
from dfswire.policies import PolicyRequest, PolicyTerms, SetPolicy
from tests.simulation.cluster import METAD, Cluster, Machine
from tests.simulation.oracle import Oracle
from tests.simulation.schedule import Fault

MORE_REPLICAS = 3  # of everything, while there is a policy that says so
LOOK_EVERY_S = 1.0
LEAVES_WITHIN_S = 12.0


class Operators:
    """See the module's text.  `end` undoes whatever was done to the cluster."""

    def __init__(self, cluster: Cluster, oracle: Oracle) -> None:
        self._cluster = cluster
        self._oracle = oracle
        self._policy: PolicyTerms | None = None
        self._restored = False

    async def end(self) -> None:
        """All servers take part, all copies that are wanted can be had, and nothing is held."""
        for number in sorted(self._cluster.leaving):
            await self._insist("admin.enable", Target(server=f"server{number}"))
        if self._restored:
            await self._insist("journal.release", Empty())
        if self._policy is not None:
            request = SetPolicy(inode=ROOT_INODE, terms=self._policy, force=True)
            await self._insist("policy.set", request)
            self._oracle.wanted = self._policy.replicas

    async def _ask(self, call: str, request: Any) -> Any:
        """None when it was refused, or nobody answers."""
        try:
            return await self._cluster.client_of("operator").call(call, METAD, request)
        except DFSError as problem:
            self._cluster.trace(f"        {call}: {problem}")
            return None

    async def _insist(self, call: str, request: Any) -> None:
        reply = await self._ask(call, request)
        while reply is None:
            await trio.sleep(LOOK_EVERY_S)
            reply = await self._ask(call, request)

    # -- the kinds

    async def fsck_repair(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        """Nothing may be repaired that is not broken."""
        report = await self._ask("cluster.fsck", FsckRequest(repair="do"))
        if report is not None:
            self._cluster.trace(f"        fsck: {report.count} findings")

    async def drain(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        """Drain a server, perhaps remove it when that is done, and perhaps enable it again."""
        server = f"server{machine.number}"
        if self._cluster.leaving - {machine.number}:
            return  # the others are needed
        self._cluster.leaving.add(machine.number)
        if await self._is_drained(server, fault.for_s + LEAVES_WITHIN_S) and rng.random() < 0.7:
            self._cluster.trace(f"        {server} is drained")
            await self._ask("admin.remove", RemoveTarget(server=server))
        await trio.sleep(rng.choice([0.0, 3.0, 6.0]))
        if rng.random() < 0.7 and await self._ask("admin.enable", Target(server=server)):
            await self._cluster.start_chunkd(machine)

    async def _is_drained(self, server: str, within_s: float) -> bool:
        with trio.move_on_after(within_s):
            while True:
                reply = await self._ask("admin.drain", Target(server=server))
                if reply is not None and reply.admin == "drained":
                    return True
                await trio.sleep(LOOK_EVERY_S)
        return False

    async def rebalance(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        await self._ask("job.start", StartJob(kind="rebalance"))

    async def compact(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        await self._ask("job.start", StartJob(kind="compact"))

    async def policy(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        """More copies of everything; then as many as before, or not."""
        self._oracle.wants_change = True
        self._policy = PolicyTerms(replicas=MORE_REPLICAS)
        await self._ask("policy.set", SetPolicy(inode=ROOT_INODE, terms=self._policy, force=True))
        await trio.sleep(fault.for_s)
        if rng.random() < 0.5:
            self._policy = PolicyTerms(replicas=self._cluster.shape.replicas)
            await self._ask("policy.clear", PolicyRequest(inode=ROOT_INODE))

    async def restore_metad(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        """metad's disk is lost; its database is made again from the journal, which is whole."""
        await self._cluster.kill_metad()
        if not self._cluster.metad_is_off:  # somebody was faster
            return
        self._restored = True
        self._cluster.metad_disk.restore()
        await trio.sleep(min(fault.for_s, 3.0))
        await self._cluster.start_metad()
        await trio.sleep(fault.for_s)
        if rng.random() < 0.5:
            await self._ask("journal.release", Empty())
