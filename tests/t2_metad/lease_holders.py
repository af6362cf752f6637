"""Three clients of a metad, whose calls may have to wait for each other's leases."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from dfswire.errors import DFSError
from tests.t2_metad.metad_for_tests import FakeClient, Metad


class Clients:
    """A metad with three clients."""

    def __init__(self, metad: Metad, nursery: trio.Nursery) -> None:
        self.metad = metad
        self._nursery = nursery
        self.a, self.b, self.c = (FakeClient(metad, nursery, f"h{name}") for name in "abc")

    async def doing(self, action: Callable[..., Awaitable[Any]], *arguments: Any) -> Doing:
        """A call in the background, as far as it comes by itself."""
        doing = Doing()
        self._nursery.start_soon(doing.run, action, *arguments)
        await wait_all_tasks_blocked()
        return doing


class Doing:
    """A call that is under way, or its outcome."""

    def __init__(self) -> None:
        self.done = False
        self.result: Any = None
        self.problem: DFSError | None = None

    async def run(self, action: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        try:
            self.result = await action(*arguments)
        except DFSError as problem:
            self.problem = problem
        self.done = True
