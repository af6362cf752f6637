"""Requests of the kernel that are under way, and what becomes of those whose caller is killed.

A process that waits for a mount cannot die before it has its answer, and while metad is away there
is none.  The kernel tells (once) that a signal has come for the one who waits.  Most signals must
change nothing, or programs with a timer would see EINTR from calls that never give it; so the
caller is looked at until it has its answer or turns out to be dying.  Then a question is cancelled,
while a change goes on: it is answered early, and its result is taken back when it is there.
`fuse.py` and `operations.py` run their handlers through this.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial, wraps
from pathlib import Path
from signal import (
    SIGCHLD,
    SIGCONT,
    SIGKILL,
    SIGSTOP,
    SIGTSTP,
    SIGTTIN,
    SIGTTOU,
    SIGURG,
    SIGWINCH,
)
from typing import Any, Protocol, TypeVar, cast

import trio

from dfsmount.lowlevel.library import ANSWERED, Request
from dfswire.errors import DFSError, FileError, Interrupted

log = logging.getLogger(__name__)

T = TypeVar("T")
Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, Any]])

LOOK_S = 0.5  # between looks at a caller; two looks must fit into the 2 s that a kill may take
SURVIVED = (SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH)  # by default
SIGKILL_BIT = 1 << (SIGKILL - 1)
SURVIVED_BITS = sum(1 << (number - 1) for number in SURVIVED)


class Answered(FileError):
    """The kernel has its answer already; the library makes of this error that none is sent."""

    errno = ANSWERED


class Head(Protocol):
    """What names a request, and the thread that waits for it (0: not known)."""

    unique: int
    pid: int


class Dispatcher(Protocol):
    """What is needed of the library."""

    current: Request

    def answer_early(self, unique: int, error: int) -> None: ...


class NoLibrary:
    """Nothing is known of the request, and nobody is told of signals."""

    current = Request()

    def answer_early(self, unique: int, error: int) -> None: ...


class UnderWay:
    """One request.  `answered`: its caller has got EINTR and is gone."""

    __slots__ = ("answered", "any_signal", "pid", "scope", "unique")

    def __init__(
        self, unique: int, pid: int, scope: trio.CancelScope | None, any_signal: bool
    ) -> None:
        self.unique = unique
        self.pid = pid
        self.scope = scope
        self.any_signal = any_signal
        self.answered = False


class Requests:
    """The table of them.

    `forget` is called after a change whose result the kernel did not get: what the kernel has
    cached may be wrong then.  `nursery` must be set before the first interrupt.
    """

    def __init__(
        self,
        library: Dispatcher,
        forget: Callable[[], Awaitable[None]],
        is_dying: Callable[[int], bool] | None = None,
    ) -> None:
        self.nursery: trio.Nursery | None = None
        self.current = library.current
        self._library = library
        self._forget = forget
        self._is_dying = is_dying or caller_is_dying
        self._under_way: dict[int, UnderWay] = {}

    # For handlers

    def lock_owner(self) -> int | None:
        """In the first step of flush and release: whose locks end.  None when nothing is known."""
        return self.current.owner or None

    async def ask(self, question: Coroutine[Any, Any, T], request: UnderWay | None = None) -> T:
        """Await what may be given up half-way.  Raises Interrupted when it was.

        Without `request` it is the one that is being dispatched: nothing may have been awaited yet.
        """
        request = request or self.admit(self.current, trio.CancelScope())
        assert request.scope is not None
        with request.scope:
            try:
                return await question
            finally:
                self._end(request)
        raise Interrupted("a signal came for the caller")

    async def change(
        self,
        change: Coroutine[Any, Any, T],
        undo: Callable[[T], Awaitable[None]] | None = None,
        request: UnderWay | None = None,
    ) -> T:
        """Await what must not be stopped half-way.  Raises Answered when nobody waits any more.

        Before that, `undo` takes the result back as far as it belongs to the caller (an open file).
        """
        request = request or self.admit(self.current)
        try:
            result = await change
        except DFSError:
            if not request.answered:
                raise
        else:
            if not request.answered:
                return result
            if undo is not None:
                await undo(result)
        finally:
            self._end(request)
        await self._forget()
        raise Answered("the caller was killed")

    def admit(
        self, head: Head, scope: trio.CancelScope | None = None, *, any_signal: bool = False
    ) -> UnderWay:
        """From now on signals for the caller of this request are noticed.

        `scope` is for questions.  With `any_signal` they are given up at the first one, as system
        calls that wait for other processes are.
        """
        request = UnderWay(head.unique, head.pid, scope, any_signal)
        self._under_way[request.unique] = request
        return request

    # For the library

    def interrupted(self, unique: int) -> None:
        """The kernel says that a signal has come for the caller of a request."""
        request = self._under_way.get(unique)
        if request is None:
            return  # answered while this was on its way
        if request.any_signal and request.scope is not None:
            request.scope.cancel()
        else:
            assert self.nursery is not None
            self.nursery.start_soon(self._watch, request)

    # At the end

    def give_up(self) -> None:
        """The mount ends: whoever still waits gets EINTR."""
        for request in list(self._under_way.values()):
            self._give_up(request)

    # Inside

    def _end(self, request: UnderWay) -> None:
        self._under_way.pop(request.unique, None)

    async def _watch(self, request: UnderWay) -> None:
        """Until it is over or given up.  What is over soon may end by itself."""
        dying = False
        while request.unique in self._under_way:
            if dying:
                self._give_up(request)
                return
            dying = self._is_dying(request.pid)
            await trio.sleep(LOOK_S)

    def _give_up(self, request: UnderWay) -> None:
        if request.scope is not None:
            request.scope.cancel()
        elif not request.answered:
            request.answered = True
            self._library.answer_early(request.unique, errno.EINTR)


class Handling(Protocol):
    """Whose methods are handlers."""

    requests: Requests


def question(handler: Handler) -> Handler:
    """For handlers that change nothing: they are given up when the caller is killed."""

    @wraps(handler)
    async def wrapped(self: Handling, *args: Any) -> Any:
        return await self.requests.ask(handler(self, *args))

    return cast(Handler, wrapped)


def change(
    undo: Callable[[Any, Any], Coroutine[Any, Any, None]] | None = None,
) -> Callable[[Handler], Handler]:
    """For handlers that change something: they go on even when the caller is killed.

    `undo(self, result)` takes back what the kernel did not get to know then.
    """

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        async def wrapped(self: Handling, *args: Any) -> Any:
            taking_back = partial(undo, self) if undo is not None else None
            return await self.requests.change(handler(self, *args), taking_back)

        return cast(Handler, wrapped)

    return decorate


def errno_of(handler: str, problem: DFSError) -> int:
    """The kernel's name for an error of ours.  What is not the caller's mistake is logged."""
    if not isinstance(problem, FileError):
        log.warning("%s: %s", handler, problem)
    return problem.errno


def caller_is_dying(pid: int) -> bool:
    """Whether a thread waits for nothing but to die."""
    if not pid:  # it is in another namespace; who it is cannot be known
        return False
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it is gone: nobody waits, so nothing is to be done
        return False
    return is_dying(status)


def is_dying(status: str) -> bool:
    """The same of a thread with this /proc/PID/status.

    The kernel gives every thread of a process SIGKILL when a signal ends the process.  Not so when
    that one would dump core, or comes after another that was caught: then it is pending as itself,
    and kills as soon as the system call returns.  A debugger may still keep it from the process.
    """
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    pending, blocked, ignored, caught = (
        int(fields["SigPnd"], 16) | int(fields["ShdPnd"], 16),
        *(int(fields[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")),
    )
    if int(fields["TracerPid"]):
        return bool(pending & SIGKILL_BIT)
    return bool(pending & ~(blocked | ignored | caught | SURVIVED_BITS))
