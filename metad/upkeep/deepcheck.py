"""`dfs fsck --deep`: every copy of every chunk that files need is read and verified by its server.

A job in steps over all live chunks.  The servers check each copy block by block and against the
digest that metad remembers; what is bad they set aside, and repair replaces it meanwhile.  At the
beginning every server is asked for a whole inventory too, so what disks hold is compared with what
metad believes in both directions.  The rate is bounded for each disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import trio

from dfswire.errors import UsageError
from dfswire.orders import Order, OrderResult
from metad.copies import replicas
from metad.jobs.rows import Job, Progress
from metad.jobs.runner import Jobs, Kind
from metad.state import State

KIND = "verify"
CHUNKS_PER_STEP = 64
STEP_WITHIN_S = 120.0
MEGABYTES_PER_S = 50  # of each disk, unless the job says otherwise


class DeepCheck:
    """See the module's text."""

    def __init__(
        self, state: State, jobs: Jobs, want_inventories: Callable[[Iterable[str]], None]
    ) -> None:
        self._state = state
        self._want_inventories = want_inventories
        self._waiting: dict[tuple[bytes, str], bool | None] = {}  # copy -> was it good?
        self._news = trio.Event()
        jobs.register(Kind(KIND, "chunks", self._step, _check, _figures))

    def book(self, order: Order, result: OrderResult) -> None:
        """What came of a `verify` order."""
        key = order.chunk, order.disk
        if order.kind == "verify" and key in self._waiting:
            self._waiting[key] = result.ok
            self._news.set()

    async def _step(self, job: Job) -> Progress:
        cursor = job.cursor or await self._begin()
        after = bytes.fromhex(cursor["after"])
        found = self._state.db.read(
            "SELECT id, length, digest FROM chunk WHERE id > ? AND state = 'live' "
            "ORDER BY id LIMIT ?",
            (after, CHUNKS_PER_STEP),
        )
        if not found:
            return Progress(cursor, job.done, job.done, _sentence(cursor), finished=True)
        began_s = self._state.clock()
        copies, load, away = self._order(found)
        bad, silent = await self._results(copies)
        cursor = cursor | {
            "after": bytes(found[-1][0]).hex(),
            "copies": cursor["copies"] + len(copies) - silent,
            "bad": cursor["bad"] + bad,
            "away": cursor["away"] + away + silent,
        }
        rate = job.argument.get("megabytes_per_s", MEGABYTES_PER_S) * 1e6
        pause_s = max(load.values(), default=0) / rate - (self._state.clock() - began_s)
        done = job.done + len(found)
        return Progress(
            cursor, done, max(cursor["total"], done), _sentence(cursor), pause_s=max(pause_s, 0.0)
        )

    async def _begin(self) -> dict[str, Any]:
        ((total,),) = await self._state.db.read_in_thread(
            lambda db: db.read("SELECT count(*) FROM chunk WHERE state = 'live'")
        )
        self._want_inventories(server.server_id for server in self._state.servers)
        return {"after": "", "total": total, "copies": 0, "bad": 0, "away": 0}

    def _order(
        self, found: list[tuple[Any, ...]]
    ) -> tuple[list[tuple[bytes, str]], Counter[str], int]:
        """Order what can be; the copies, the bytes of each disk, and how many are not reached."""
        state, now = self._state, self._state.clock()
        copies: list[tuple[bytes, str]] = []
        load: Counter[str] = Counter()
        away = 0
        for chunk, length, digest in found:
            for disk, replica in replicas.replicas_of(state.db, chunk):
                if replica != replicas.GOOD:
                    continue
                if state.servers.disk_state(disk, now) != "up":
                    away += 1
                    continue
                copies.append((chunk, disk))
                load[disk] += length
                self._waiting[chunk, disk] = None
                # Perhaps it is queued already, for another reason: that result counts as well.
                state.servers.orders.add("verify", chunk, disk, length=length, digest=digest)
        return copies, load, away

    async def _results(self, copies: list[tuple[bytes, str]]) -> tuple[int, int]:
        """How many copies were bad, and of how many nothing was heard in time."""
        with trio.move_on_after(STEP_WITHIN_S):
            while any(self._waiting[each] is None for each in copies):
                self._news = trio.Event()
                await self._news.wait()
        results = [self._waiting.pop(each) for each in copies]
        return results.count(False), results.count(None)


def _check(argument: dict[str, Any]) -> None:
    rate = argument.get("megabytes_per_s", MEGABYTES_PER_S)
    if not isinstance(rate, int | float) or rate <= 0 or argument.keys() - {"megabytes_per_s"}:
        raise UsageError('the argument is {"megabytes_per_s": NUMBER}, larger than 0')


def _figures(cursor: dict[str, Any] | None) -> dict[str, int]:
    """Copies that were read, those of them that were bad or missing, and those out of reach."""
    if cursor is None:
        return {}
    return {"copies": cursor["copies"], "bad": cursor["bad"], "not_reached": cursor["away"]}


def _sentence(cursor: dict[str, Any]) -> str:
    away = f", not reached: {cursor['away']}" if cursor["away"] else ""
    return f"copies verified: {cursor['copies']}, bad or missing: {cursor['bad']}{away}"
