"""The users: clients that carry out the steps of a schedule and write down what they are told.

Each client owns a few files, which only it changes and everybody reads.  All append to one log,
increment one counter under a lock, and fight for a few names.  A client that dies is started again
as another mount and goes on with its next step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from dfsmount.client import FileSystem
from dfsmount.files.durability import WAIT_MAX_S
from dfsmount.vfs import Vfs
from dfswire.errors import DFSError, InputOutput
from tests.simulation.boardwork import BoardWork
from tests.simulation.cluster import Cluster
from tests.simulation.filework import FileWork
from tests.simulation.history import Violation
from tests.simulation.markwork import MarkWork
from tests.simulation.namework import NameWork
from tests.simulation.oracle import Oracle
from tests.simulation.records import Records
from tests.simulation.schedule import CHANGING, Schedule, Step
from tests.simulation.sharedwork import SharedWork

RESTART_PAUSE_S = 1.0

Act = Callable[[Vfs, Step], Awaitable[str]]


class User:
    """One client's work.  `kill` ends its process without a word."""

    def __init__(
        self, cluster: Cluster, schedule: Schedule, number: int, records: Records, oracle: Oracle
    ) -> None:
        self.number = number
        self.done = False
        self.party = f"client{number}"
        self._cluster = cluster
        steps = schedule.steps[number]
        # Two threads of one program: a slow write does not keep it from looking at other things.
        self._threads = [
            deque(step for step in steps if step.kind in CHANGING),
            deque(step for step in steps if step.kind not in CHANGING),
        ]
        self._calm = schedule.calm
        self._soft_s = 12.0 if schedule.soft[number] else 0.0
        self._records = records
        self.files = FileWork(number, records, oracle)
        shared = SharedWork(records, lambda: self.party)
        names = NameWork(number, records)
        board = BoardWork(number, records)
        marks = MarkWork(number, records, lambda: self.party)
        self._work_of = (self.files, shared, names, board, marks)
        self._lives = 0
        self._scope = trio.CancelScope()
        self._alive = False
        self.given_up = 0  # fsyncs of what power cuts had taken before it was synced

    def kill(self) -> None:
        if self._alive:
            self._cluster.network.bury(self.party)
            self._scope.cancel()

    async def run(self) -> None:
        while any(self._threads):
            self._lives += 1
            if self._lives > 1:
                self.party = f"client{self.number}.{self._lives}"
                await trio.sleep(RESTART_PAUSE_S)
            # Where metad is away there is no session, and the mount is tried again.
            with trio.CancelScope() as self._scope, suppress(DFSError):
                async with self._cluster.client(self.party, self._soft_s) as file_system:
                    self._alive = True
                    try:
                        await self._work(file_system)
                    finally:
                        self._alive = False
        self.done = True

    def trace(self, text: str) -> None:
        self._cluster.trace(f"{self.party} {text}")

    async def _work(self, file_system: FileSystem) -> None:
        async with trio.open_nursery() as nursery:
            for thread in self._threads:
                nursery.start_soon(self._run_thread, file_system, thread)

    async def _run_thread(self, file_system: FileSystem, steps: deque[Step]) -> None:
        while steps:
            await trio.sleep(steps[0].pause_s)
            step = steps.popleft()  # also when it dies in the middle of it
            self.trace(f"{step} ...")
            act = self._act(step.kind)
            began = trio.current_time()
            try:
                result = await act(file_system.vfs, step)
            except DFSError as problem:
                self._records.errors += 1
                waited_s = trio.current_time() - began
                self.given_up += isinstance(problem, InputOutput) and waited_s >= WAIT_MAX_S
                result = f"{type(problem).__name__}: {problem}"
                if self._calm:
                    raise Violation("I9", f"{self.party} {step} sees {result}") from problem
            self.trace(f"{step} -> {result}")

    def _act(self, kind: str) -> Act:
        """What a step of this kind does."""
        (act,) = (getattr(work, kind) for work in self._work_of if hasattr(work, kind))
        found: Act = act
        return found
