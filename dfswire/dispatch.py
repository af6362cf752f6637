"""From one HTTP request to one handler and back, without a socket.

The socket server and the tests' direct transport both call `Dispatcher.dispatch`; a service gives
it one handler for each of its calls.  It decodes by the call table, refuses foreign protocol
versions, enforces the caller's deadline, and turns every error into a `Fault` with its code, so a
handler knows neither HTTP nor encodings.  It never raises except for cancellation.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from dfswire import codec
from dfswire.bodies import (
    END_FRAME,
    BodySource,
    FileRange,
    Octets,
    close_iterator,
    to_frame,
)
from dfswire.calls import (
    DEADLINE_HEADER,
    MESSAGE_HEADER,
    REQUEST_ID_HEADER,
    VERSION_HEADER,
    Call,
    by_path,
)
from dfswire.daemon import CALLER, REQUEST_ID, SHOWN
from dfswire.errors import (
    ClusterError,
    DFSError,
    FileError,
    Forbidden,
    NoEntry,
    ProtocolError,
    TokenRefused,
    Unavailable,
    UnknownChunk,
    UsageError,
)
from dfswire.identity import GUEST, Identity
from dfswire.messages import Fault
from dfswire.requests import check_version, deadline, read_request

__all__ = [
    "BodySource",
    "Dispatcher",
    "FileRange",
    "Handler",
    "Octets",
    "Reply",
    "Response",
    "fault_response",
]

if TYPE_CHECKING:  # the library costs 50 ms, which not everybody who dispatches need pay
    from dfswire.metrics import Metrics

log = logging.getLogger(__name__)

REQUEST_ID_MAX_CHARS = 64
OCTETS = b"application/octet-stream"
METRICS_PATH = "/metrics"
METRICS_HEADERS = [(b"Content-Type", b"text/plain; version=0.0.4; charset=utf-8")]

_STATUS: dict[type[DFSError], int] = {
    NoEntry: 404,
    UnknownChunk: 404,
    FileError: 409,
    Forbidden: 403,
    TokenRefused: 403,
    ClusterError: 409,
    ProtocolError: 400,
    UsageError: 400,
    Unavailable: 503,
    DFSError: 500,
}
"""For people and proxies; programs look at the code in the Fault."""


@dataclass(frozen=True)
class Reply:
    """What a handler of a `reply_body` call returns: the message, and the octets beside it."""

    message: msgspec.Struct
    body: Octets | FileRange | None = None


@dataclass(frozen=True)
class Response:
    """An HTTP reply, not yet on any wire.  A `body` that is a generator is a stream of frames."""

    status: int
    body: Octets | FileRange | AsyncGenerator[bytes, None]
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


Handler = Callable[[Any, BodySource], Awaitable[Any]]
"""(request message, body) -> a message; a `Reply` for reply_body calls; for stream calls an async
iterator of messages.  Raises DFSError; anything else is logged and travels as "internal"."""


Admit = Callable[[Identity, bytes], None]
"""(who has proved who he is, the certificate as DER): raises Forbidden to refuse him."""


class Dispatcher:
    """The calls of one service, bound to their handlers."""

    def __init__(
        self,
        service: str,
        handlers: Mapping[str, Handler],
        metrics: Metrics | None = None,
        admit: Admit = lambda caller, shown: None,
    ) -> None:
        """Raises ValueError unless `handlers` has exactly the service's calls, by name.

        With `metrics` all calls are counted there, and its page is served.  `admit` may refuse
        who has proved who he is.
        """
        self._calls = by_path(service)
        names = {call.name for call in self._calls.values()}
        if difference := names ^ handlers.keys():
            raise ValueError(f"handlers of {service} do not fit the call table: {difference}")
        self._handlers = dict(handlers)
        self._metrics = metrics
        self._admit = admit

    def admits(self, caller: Identity | None, shown: bytes) -> bool:
        """Is who began something still somebody who may?"""
        try:
            self._check_admitted(caller, shown)
        except Forbidden:
            return False
        return True

    async def dispatch(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: BodySource,
        caller: Identity | None = None,
        shown: bytes = b"",
    ) -> Response:
        """Answer one request.  `headers` have lower-case names.  `caller`: who has proved to be
        there; None where nobody has to, without TLS.  `shown`: the certificate (DER) of that proof.

        The caller owns what it gets: it closes a FileRange, and iterates or closes a stream.
        """
        token = REQUEST_ID.set(headers.get(REQUEST_ID_HEADER.lower(), "")[:REQUEST_ID_MAX_CHARS])
        who, with_what = CALLER.set(caller), SHOWN.set(shown)
        reply_type = codec.JSON if codec.JSON in headers.get("accept", "") else codec.MSGPACK
        began_s, name, outcome = time.perf_counter(), "unknown", "cancelled"
        try:
            call = self._calls.get((method, path))
            if call is None:
                if self._metrics is not None and (method, path) == ("GET", METRICS_PATH):
                    name = "metrics"
                    _check_member(caller)
                    self._check_admitted(caller, shown)
                    outcome = "ok"
                    return Response(200, await self._metrics.page(), METRICS_HEADERS)
                outcome = ProtocolError.code
                problem = ProtocolError(f"no such call: {method} {path}")
                return fault_response(problem, reply_type, status=404)
            name = call.name
            _check_caller(call, caller)
            self._check_admitted(caller, shown)
            response = await self._answer(call, headers, body, reply_type)
            outcome = "ok"
            return response
        except DFSError as problem:
            outcome = problem.code
            log.debug("%s %s: %s: %s", method, path, problem.code, problem)
            return fault_response(problem, reply_type)
        except MemoryError:
            outcome = Unavailable.code
            log.error("%s %s: out of memory", method, path)
            return fault_response(Unavailable("out of memory"), reply_type)
        except Exception as problem:
            # A defect in a handler must not take the daemon down with it.
            outcome = DFSError.code
            log.exception("%s %s failed unexpectedly", method, path)
            return fault_response(DFSError(f"{type(problem).__name__}: {problem}"), reply_type)
        finally:
            self._count(name, outcome, time.perf_counter() - began_s)
            REQUEST_ID.reset(token)
            CALLER.reset(who)
            SHOWN.reset(with_what)

    def _count(self, name: str, outcome: str, duration_s: float) -> None:
        if self._metrics is not None:
            self._metrics.calls.add((name, outcome), duration_s)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: %s in %.1f ms", name, outcome, duration_s * 1000)

    async def _answer(
        self, call: Call, headers: Mapping[str, str], body: BodySource, reply_type: str
    ) -> Response:
        check_version(headers.get(VERSION_HEADER.lower()))
        deadline_s = deadline(headers.get(DEADLINE_HEADER.lower()))
        try:
            with trio.fail_after(deadline_s):
                request = await read_request(call, headers, body)
                # Again: reading may have taken its time, and what is over may not begin anything.
                self._check_admitted(CALLER.get(), SHOWN.get())
                answer = await self._handlers[call.name](request, body)
        except trio.TooSlowError as problem:
            raise Unavailable(f"{call.name} took longer than {deadline_s:g} s") from problem
        if call.stream:
            return Response(200, _frames(call, answer), [(b"Content-Type", OCTETS)])
        if call.reply_body:
            return _octets_response(answer)
        return _message_response(200, answer, reply_type)

    def _check_admitted(self, caller: Identity | None, shown: bytes) -> None:
        if caller is not None:
            self._admit(caller, shown)


def fault_response(
    error: DFSError, content_type: str = codec.MSGPACK, *, status: int | None = None
) -> Response:
    """The reply that carries `error`; `status` where the error alone does not say it."""
    if status is None:
        status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    # file names in error texts may hold bytes that are not UTF-8, as surrogates
    text = str(error).encode("utf-8", "backslashreplace").decode()
    return _message_response(
        status, Fault(code=error.code, message=text, told=error.told), content_type
    )


def _message_response(status: int, message: msgspec.Struct, content_type: str) -> Response:
    body = codec.encode(message, content_type)
    return Response(status, body, [(b"Content-Type", content_type.encode())])


def _octets_response(reply: Reply) -> Response:
    headers = [
        (b"Content-Type", OCTETS),
        (MESSAGE_HEADER.encode(), codec.to_header(reply.message)),
    ]
    return Response(200, b"" if reply.body is None else reply.body, headers)


async def _frames(
    call: Call, messages: AsyncIterator[msgspec.Struct]
) -> AsyncGenerator[bytes, None]:
    """The frames of a stream, the end frame last.  Closing this closes the handler's iterator.

    A stream whose handler fails ends without the end frame: to the client it is broken.
    """
    try:
        async for message in messages:
            yield to_frame(message)
        yield END_FRAME
    except DFSError as problem:
        log.debug("%s ended: %s: %s", call.name, problem.code, problem)
    except Exception:
        log.exception("%s failed unexpectedly", call.name)
    finally:
        await close_iterator(messages)


def _check_member(caller: Identity | None) -> None:
    if caller is not None and caller.role == GUEST:
        raise Forbidden(f"{caller} may join, and nothing else")


def _check_caller(call: Call, caller: Identity | None) -> None:
    if caller is not None and caller.role not in call.callers:
        log.warning("%s asked for %s, which its role may not", caller, call.name)
        raise Forbidden(f"{caller}: {call.name} is for {' and '.join(call.callers)} only")
