"""Random faults for a cluster under work, and the seeds that decide them.

DFS_SEEDS=first:count runs other seeds than the usual ones; a failing seed can be run alone with it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Sequence

import trio

from tests.fakes import Faults
from tests.t3_cluster.cluster import Cluster, fully_replicated

HEAL_WITHIN_S = 600.0
EXPECTED_LOGS = (
    "metad at metad:1 does not answer",
    "chunk",
    "the lease ended",
    "replica",
    "disk",
)

Act = Callable[[], Awaitable[None]]


def seeds(count: int) -> range:
    """So many, or those of DFS_SEEDS."""
    first, _, wanted = os.environ.get("DFS_SEEDS", f"0:{count}").partition(":")
    return range(int(first), int(first) + int(wanted or 1))


class Nemesis:
    """Draws faults.  At most one chunkd is down, and replicas are spoilt on one disk only: R = 2
    promises no more than that.

    `power_cuts`: a chunkd may lose what it has not synced, too.  `more`: acts of a test's own.
    """

    def __init__(
        self,
        cluster: Cluster,
        rng: random.Random,
        *,
        power_cuts: bool = True,
        more: Sequence[Act] = (),
    ) -> None:
        self._cluster = cluster
        self._rng = rng
        self._power_cuts = power_cuts
        self._more = more
        self._spoilt = rng.randrange(len(cluster.stores))
        self.history: list[str] = []

    async def run(self) -> None:
        acts: list[Act] = [self.chunkd, self.metad, self.network, self.spoil, *self._more]
        chosen = self._rng.sample(acts, self._rng.randrange(1, len(acts) + 1))
        while True:
            await trio.sleep(self._rng.uniform(0.0, 15.0))
            act = self._rng.choice(chosen)
            self.history.append(f"{trio.current_time():.1f} {act.__name__}")
            await act()

    async def chunkd(self) -> None:
        if self.spoil.__name__ in {entry.split()[1] for entry in self.history}:
            number = self._spoilt  # the copies elsewhere may be the only good ones
        else:
            number = self._rng.randrange(len(self._cluster.stores))
        with trio.CancelScope(shield=True):
            power_cut = self._power_cuts and self._rng.random() < 0.5
            await self._cluster.kill_chunkd(number, power_cut=power_cut)
            await trio.sleep(self._rng.choice([0.1, 2.0, 12.0, 60.0]))
            await self._cluster.start_chunkd(number)
            await self._cluster.until(fully_replicated, HEAL_WITHIN_S)

    async def metad(self) -> None:
        with trio.CancelScope(shield=True):
            await self._cluster.kill_metad()
            await trio.sleep(self._rng.choice([0.0, 1.0, 15.0]))
            await self._cluster.start_metad()

    async def network(self) -> None:
        self._cluster.set_faults(
            Faults(lost_request=0.05, lost_reply=0.05, duplicate=0.1, delay=0.05)
        )
        await trio.sleep(self._rng.uniform(1.0, 10.0))
        self._cluster.set_faults(Faults())

    async def spoil(self) -> None:
        await self._cluster.until(fully_replicated, HEAL_WITHIN_S)
        store = self._cluster.stores[self._spoilt]
        if chunks := sorted(chunk for chunk, file in store.files.items() if file.content):
            chunk = self._rng.choice(chunks)
            self._rng.choice([store.corrupt, store.truncate, store.drop])(chunk)
