"""Carries out the faults of a schedule, each for its time, and ends them all.

A fault that cannot happen at its moment (its server is down already) does not.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from dataclasses import replace

import trio

from tests.simulation.cluster import Cluster, Machine
from tests.simulation.network import FAIR, LATE_MAX_S, Weather
from tests.simulation.operators import Operators
from tests.simulation.oracle import Oracle
from tests.simulation.schedule import FAULTS_S, Fault, Schedule
from tests.simulation.workload import User

FOR_EVER = 1 << 30
CLOCK_JUMP_MAX_S = 3600.0
CLOCK_RATE_MAX = 1.4  # a lease is fenced 1.5 times as long as its holder believes in it
CRASH_WITHIN = 5  # COMMITs
LAST_MAX_S = 20.0  # the longest fault
CALM_LATE_S = 1.0  # of a message: renewals of a session that are late still fit into its lease


class Nemesis:
    """See the module's text."""

    def __init__(
        self, cluster: Cluster, schedule: Schedule, users: Sequence[User], oracle: Oracle
    ) -> None:
        self._cluster = cluster
        self._network = cluster.network
        self._faults = schedule.faults
        self._calm = schedule.calm
        self._users = users
        self._oracle = oracle
        self._operators = Operators(cluster, oracle)

    async def run(self) -> None:
        """Until the last fault is over, or should be: some last for ever."""
        began = trio.current_time()
        with trio.move_on_at(began + FAULTS_S + LAST_MAX_S):
            async with trio.open_nursery() as nursery:
                for fault in self._faults:
                    await trio.sleep_until(began + fault.at_s)
                    self._cluster.trace(f"NEMESIS {fault.number}: {fault}")
                    nursery.start_soon(self._carry_out, fault)

    async def _carry_out(self, fault: Fault) -> None:
        machine = self._cluster.machines[fault.target]
        name = f"_{fault.kind}"
        act = getattr(self, name) if hasattr(self, name) else getattr(self._operators, fault.kind)
        await act(fault, machine, random.Random(fault.dice))

    async def end(self) -> None:
        """Everything works again, and all that was down is started."""
        cluster = self._cluster
        self._network.weather = FAIR
        self._network.heal()
        cluster.metad_disk.failing = 0
        clocks = cluster.clocks
        clocks.set_rate(1.0)
        for party in clocks.error_s:  # or else what was noted in the future takes very long
            clocks.error_s[party] = CLOCK_JUMP_MAX_S
        await cluster.start_metad()
        await self._operators.end()
        for machine in cluster.machines:
            disk = machine.disk
            disk.full, disk.slow_s, disk.crash_in = False, 0.0, -1
            if disk.failing:  # a disk that has failed is replaced, or at least its daemon
                disk.failing.clear()
                await cluster.kill_chunkd(machine)
            await cluster.start_chunkd(machine)

    # -- processes and machines

    async def _kill_chunkd(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        if machine.process is not None:
            await self._cluster.kill_chunkd(machine)
            await trio.sleep(fault.for_s)
            await self._cluster.start_chunkd(machine)

    async def _cut_power(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        if machine.process is not None:
            self._oracle.cut.add(machine.number)
            await self._cluster.cut_power(machine)
            await trio.sleep(fault.for_s)
            await self._cluster.start_chunkd(machine)

    async def _torn(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        """Its power goes in the middle of one of its next system calls."""
        self._oracle.cut.add(machine.number)
        machine.disk.crash_in = rng.randrange(12)
        await trio.sleep(fault.for_s)
        await self._cluster.start_chunkd(machine)

    async def _cut_power_of_all(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        await self._cluster.kill_metad()
        for each in self._cluster.machines:
            self._oracle.cut.add(each.number)
            await self._cluster.cut_power(each)
        await trio.sleep(min(fault.for_s, 5.0))
        await self._cluster.start_metad()
        for each in self._cluster.machines:
            await self._cluster.start_chunkd(each)

    async def _kill_metad(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        await self._cluster.kill_metad()
        await trio.sleep(fault.for_s)
        await self._cluster.start_metad()

    async def _crash_metad(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        """Its power goes at one of its next commits: before it, or before anybody is told."""
        disk = self._cluster.metad_disk
        disk.crash_after = rng.random() < 0.6
        disk.crash_in = rng.randrange(CRASH_WITHIN)
        with trio.move_on_after(fault.for_s):
            await self._cluster.metad_has_ended()
        disk.crash_in = -1
        await trio.sleep(rng.choice([0.1, 0.5, 2.0]))
        await self._cluster.start_metad()

    async def _client_death(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        self._users[fault.dice % len(self._users)].kill()

    async def _clock_jump(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        party = rng.choice(self._parties())
        self._cluster.clocks.error_s[party] = rng.choice(
            [-CLOCK_JUMP_MAX_S, -30.0, 30.0, CLOCK_JUMP_MAX_S]
        )

    async def _clock_rate(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        """metad measures time otherwise than its clients, within what its margins allow."""
        self._cluster.clocks.set_rate(rng.choice([0.5, 0.8, 1.1, CLOCK_RATE_MAX]))
        await trio.sleep(fault.for_s)
        self._cluster.clocks.set_rate(1.0)

    # -- the network

    def _parties(self) -> list[str]:
        machines = [machine.party for machine in self._cluster.machines]
        return ["metad", *machines, *(user.party for user in self._users)]

    async def _for_a_while(self, links: list[tuple[str, str]], for_s: float) -> None:
        for link in links:
            self._network.cut(*link)
        await trio.sleep(for_s)
        self._network.heal(*links)

    def _links_of(self, party: str) -> list[tuple[str, str]]:
        others = [other for other in self._parties() if other != party]
        return [(party, other) for other in others] + [(other, party) for other in others]

    async def _pause(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        """A process that is stopped: what is sent to it waits, and its disk does nothing."""
        machine.disk.slow_s = fault.for_s
        await self._for_a_while(self._links_of(machine.party), fault.for_s)
        machine.disk.slow_s = 0.0

    async def _cut_one_way(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        source, target = rng.sample(self._parties(), 2)
        self._cluster.trace(f"        {source} -> {target}")
        await self._for_a_while([(source, target)], fault.for_s)

    async def _isolate(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        party = rng.choice(self._parties())
        self._cluster.trace(f"        {party}")
        await self._for_a_while(self._links_of(party), fault.for_s)

    async def _lose_client(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        """A client and metad do not hear each other, perhaps until its lease ends."""
        party = rng.choice(self._users).party
        links = [(party, "metad"), ("metad", party)]
        self._cluster.trace(f"        {party}")
        await self._for_a_while(rng.choice([links, links, links[:1], links[1:]]), fault.for_s + 3.0)

    async def _restart_unheard(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        """metad restarts while a client is cut off, which believes what it was told before."""
        party = rng.choice(self._users).party
        self._cluster.trace(f"        {party}")
        links = [(party, "metad"), ("metad", party)]
        for link in links:
            self._network.cut(*link)
        await trio.sleep(rng.uniform(0.0, 2.0))
        await self._cluster.kill_metad()
        await trio.sleep(rng.uniform(0.1, 1.0))
        await self._cluster.start_metad()
        await trio.sleep(fault.for_s)
        self._network.heal(*links)

    async def _swizzle(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        """One after the other is cut off, and comes back in another order."""
        chosen = rng.sample(self._parties(), rng.randrange(2, 4))
        for party in chosen:
            for link in self._links_of(party):
                self._network.cut(*link)
            await trio.sleep(fault.for_s / 6)
        for party in rng.sample(chosen, len(chosen)):
            self._network.heal(*self._links_of(party))
            await trio.sleep(fault.for_s / 6)

    async def _weather(self, fault: Fault, weather: Weather) -> None:
        self._network.weather = weather
        await trio.sleep(fault.for_s)
        self._network.weather = FAIR

    async def _drop(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        now = self._network.weather
        await self._weather(fault, replace(now, lost_request=0.1, lost_reply=0.15))

    async def _duplicate(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        await self._weather(fault, replace(self._network.weather, duplicate=0.4))

    async def _delay(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        late_max_s = CALM_LATE_S if self._calm else LATE_MAX_S
        weather = replace(self._network.weather, delay=0.2, late_max_s=late_max_s)
        await self._weather(fault, weather)

    # -- disks that say so

    async def _slow_disk(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        machine.disk.slow_s = rng.choice([0.02, 0.3, 3.0])
        await trio.sleep(fault.for_s)
        machine.disk.slow_s = 0.0

    async def _full_disk(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        machine.disk.full = True
        await trio.sleep(fault.for_s)
        machine.disk.full = False

    async def _write_error(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        machine.disk.failing["write"] = rng.choice([1, 1, FOR_EVER])

    async def _read_error(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        self._oracle.damaged.add(machine.number)
        machine.disk.failing["read"] = rng.choice([1, 3, FOR_EVER])

    async def _sync_error(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        self._oracle.damaged.add(machine.number)
        machine.disk.failing["fsync"] = rng.choice([1, 1, FOR_EVER])

    async def _metad_disk_full(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        await self._metad_disk(fault, sqlite3.SQLITE_FULL)

    async def _metad_disk_error(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        await self._metad_disk(fault, sqlite3.SQLITE_IOERR)

    async def _metad_disk(self, fault: Fault, code: int) -> None:
        disk = self._cluster.metad_disk
        disk.code, disk.failing = code, FOR_EVER
        await trio.sleep(fault.for_s)
        disk.failing = 0
        await self._cluster.start_metad()  # which ends when its disk fails

    # -- disks that lie

    def _spoil(self, fault: Fault, machine: Machine, rng: random.Random) -> bytes | None:
        self._oracle.damaged.add(machine.number)
        chunks = machine.disk.chunks()
        return rng.choice(chunks) if chunks else None

    def _rewrite(self, machine: Machine, chunk: bytes, content: bytes) -> None:
        machine.disk.rewrite(chunk, content)
        self._oracle.spoilt.append((machine.number, chunk))

    async def _flip(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        if (chunk := self._spoil(fault, machine, rng)) is not None:
            content = bytearray(machine.disk.content(chunk))
            if content:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
                self._rewrite(machine, chunk, bytes(content))

    async def _rot_unseen(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        """A copy rots, and before anybody has read it, it is the only one that is left."""
        await self._flip(fault, machine, rng)
        number, chunk = self._oracle.spoilt[-1] if self._oracle.spoilt else (-1, b"")
        others = [
            each
            for each in self._cluster.machines
            if each.number != number and each.disk.holds(chunk, durable=False)
        ]
        if len(others) == 1 and others[0].process is not None:
            await self._cluster.kill_chunkd(others[0])
            await trio.sleep(fault.for_s + 9.0)  # until repair would begin
            await self._cluster.start_chunkd(others[0])

    async def _truncate(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        if (chunk := self._spoil(fault, machine, rng)) is not None:
            content = machine.disk.content(chunk)
            self._rewrite(machine, chunk, content[: rng.randrange(len(content) + 1) // 2])

    async def _misdirect(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        """What was meant for one file is in another."""
        if (chunk := self._spoil(fault, machine, rng)) is not None:
            other = rng.choice(machine.disk.chunks())
            if other != chunk:
                self._rewrite(machine, chunk, machine.disk.content(other))

    async def _vanish(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        if (chunk := self._spoil(fault, machine, rng)) is not None:
            self._oracle.vanishes(machine, chunk)
            machine.disk.vanish(chunk)

    async def _wipe(self, fault: Fault, machine: Machine, rng: random.Random) -> None:
        """The machine comes back with an empty disk."""
        self._oracle.damaged.add(machine.number)
        if machine.process is not None:
            await self._cluster.kill_chunkd(machine)
            machine.disk.wipe()
            await trio.sleep(fault.for_s)
            await self._cluster.start_chunkd(machine)
