"""Calls to metad, repeated until they are answered, and how long this client waits for it.

While metad is away everything waits (a "hard" mount), or, with `soft_timeout_s`, fails with
Unavailable after that time.  The metaclient and its batches speak through this.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import msgspec
import trio

from dfsmount.remote.session import Session
from dfswire.client import Client
from dfswire.errors import DFSError, SessionLost, Unavailable
from dfswire.messages import Answer, EventPosition

log = logging.getLogger(__name__)

T = TypeVar("T")
Fleeting = Callable[[list[int], list[int]], None]
"""Told of inodes whose attributes, and directories whose names, must not be kept."""

CALL_DEADLINE_S = 5.0  # one attempt; a batch that waits for other clients is asked for again
RETRY_FIRST_S = 0.05
RETRY_MOST_S = 1.0  # a restarted metad is found again within this


class Retries:
    """The patience of one client."""

    def __init__(
        self,
        client: Client,
        session: Session,
        fleeting: Fleeting,
        *,
        soft_timeout_s: float | None = None,
    ) -> None:
        """`fleeting` is told with each answer of what it must not be believed of later on."""
        self._client = client
        self._session = session
        self._soft_timeout_s = soft_timeout_s
        self._fleeting = fleeting

    async def ask(self, call: str, kind: type[msgspec.Struct], **fields: Any) -> Any:
        """Ask until answered.  A lost session is no obstacle to a question: it is asked again."""
        while True:
            session = await self.current()
            try:
                return await self.persist(call, kind(session=session, **fields))
            except SessionLost:
                log.debug("asking %s again under a new session", call)

    async def persist(self, call: str, request: msgspec.Struct) -> Any:
        """Repeat a call until it is answered; back off, but never longer than RETRY_MOST_S."""
        give_up_at = trio.current_time() + (self._soft_timeout_s or float("inf"))
        pause_s = RETRY_FIRST_S
        while True:
            sent_at = self._session.clock.now_s()
            try:
                reply = await self._client.call(
                    call, self._session.address, request, deadline_s=CALL_DEADLINE_S, attempts=1
                )
            except Unavailable as problem:
                if trio.current_time() >= give_up_at:
                    raise
                log.info("metad does not answer %s (%s); waiting", call, problem)
                await trio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, RETRY_MOST_S)
            except SessionLost:
                session = getattr(request, "session", "")
                if await self.in_patience(partial(self._session.has_ended, session)):
                    raise
                await trio.sleep(pause_s * random.uniform(0.5, 1.0))
            except DFSError as problem:
                await self._heard_news(problem.told)
                raise
            else:
                if call == "meta.batch":
                    self._session.renewed(sent_at)
                if isinstance(reply, Answer):
                    await self._heard_news(reply.told)
                    self._fleeting(reply.fleeting, reply.fleeting_names)
                return reply

    async def current(self) -> str:
        """The session; waits while there is none.  Raises Unavailable on a soft mount."""
        return await self.in_patience(self._session.current)

    async def told(self) -> None:
        """Wait until metad tells this client of changes.  Raises Unavailable on a soft mount."""
        await self.in_patience(self._session.stream.opened)

    async def heard(self) -> None:
        """Wait until metad takes this client for alive.  Raises Unavailable on a soft mount."""
        await self.in_patience(self._session.heard)

    async def _heard_news(self, told: EventPosition | None) -> None:
        """Wait for the news that an answer may have overtaken."""
        if told is not None:
            await self.in_patience(partial(self._session.stream.reached, told))

    async def in_patience(self, wait: Callable[[], Awaitable[T]]) -> T:
        """What may need a word from metad.  Raises Unavailable on a soft mount."""
        patience_s = self._soft_timeout_s or float("inf")
        try:
            with trio.fail_after(patience_s):
                return await wait()
        except trio.TooSlowError as problem:
            raise Unavailable(f"no word from metad for {patience_s:g} s") from problem
