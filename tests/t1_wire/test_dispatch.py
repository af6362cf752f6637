"""The dispatcher alone: what a request must be, and what every outcome becomes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from dfswire import codec
from dfswire.bodies import BodySource
from dfswire.calls import by_path
from dfswire.daemon import CALLER, REQUEST_ID, SHOWN
from dfswire.dispatch import Dispatcher, Response
from dfswire.errors import Forbidden, NoEntry, SessionLost
from dfswire.hosts import Hello
from dfswire.identity import GUEST, MEMBERS, Identity
from dfswire.messages import MESSAGE_MAX_BYTES, Empty, Fault
from dfswire.metadata import RenewSession
from dfswire.metrics import Metrics
from tests.t1_wire.services import Chunkd, dispatcher, write_request

HELLO = Hello(service="metad", protocol=1, software="test", cluster_id="c")


class Octets:
    """A body in memory."""

    def __init__(self, data: bytes = b"", length: int | None = None) -> None:
        self.data = data
        self.length = len(data) if length is None else length

    async def receive_into(self, buffer: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        taken, self.data = self.data[: len(buffer)], self.data[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


async def _hello(request: Empty, body: BodySource) -> Hello:
    return HELLO


async def _ask(
    handler: Any = _hello, headers: dict[str, str] | None = None, body: BodySource | None = None
) -> Response:
    metad = dispatcher("metad", {"metad.hello": handler})
    return await metad.dispatch("GET", "/v1/hello", headers or {}, body or Octets())


def _fault(response: Response) -> Fault:
    assert isinstance(response.body, bytes)
    return codec.decode(Fault, response.body)


def test_handlers_must_be_exactly_the_calls_of_the_service() -> None:
    with pytest.raises(ValueError, match=r"metad\.hello"):
        Dispatcher("metad", {})
    with pytest.raises(ValueError, match="extra"):
        dispatcher("metad", {"extra": _hello})


async def test_a_plain_get_is_an_empty_request() -> None:
    response = await _ask()
    assert response.status == 200
    assert isinstance(response.body, bytes)
    assert codec.decode(Hello, response.body) == HELLO


async def test_json_for_those_who_ask() -> None:
    response = await _ask(headers={"accept": "application/json"})
    assert isinstance(response.body, bytes)
    assert msgspec.json.decode(response.body)["service"] == "metad"
    assert (b"Content-Type", b"application/json") in response.headers


async def test_json_for_those_who_send_it() -> None:
    seen: list[RenewSession] = []

    async def renew(request: RenewSession, body: BodySource) -> Empty:
        seen.append(request)
        return Empty()

    metad = dispatcher("metad", {"session.renew": renew})
    headers = {"content-type": "application/json; charset=utf-8"}
    body = Octets(b'{"session": "abc"}')
    response = await metad.dispatch("POST", "/v1/session/renew", headers, body)
    assert response.status == 200
    assert seen == [RenewSession(session="abc")]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"content-type": "text/html"}, "protocol"),
        ({"dfs-version": "2"}, "wrong_version"),
        ({"dfs-version": "1.0"}, "wrong_version"),
        ({"dfs-deadline-s": "soon"}, "protocol"),
        ({"dfs-deadline-s": "-1"}, "protocol"),
        ({"dfs-deadline-s": "nan"}, "protocol"),
        ({"dfs-deadline-s": "inf"}, "protocol"),
    ],
)
async def test_bad_headers_are_refused(headers: dict[str, str], code: str) -> None:
    response = await _ask(headers=headers, body=Octets(b"\x80"))
    assert response.status == 400
    assert _fault(response).code == code


async def test_a_foreign_version_is_told_both_versions() -> None:
    text = _fault(await _ask(headers={"dfs-version": "7"})).message
    assert "7" in text and "1" in text


async def test_an_unknown_call_is_404() -> None:
    response = await dispatcher("metad", {}).dispatch("GET", "/v1/nothing", {}, Octets())
    assert (response.status, _fault(response).code) == (404, "protocol")


@pytest.mark.parametrize(
    "body",
    [Octets(b"junk"), Octets(b"", length=MESSAGE_MAX_BYTES + 1)],
    ids=["not a message", "too long"],
)
async def test_bad_bodies_are_refused(body: Octets) -> None:
    assert _fault(await _ask(body=body)).code == "protocol"


async def test_a_body_that_ends_early_is_unavailable() -> None:
    assert _fault(await _ask(body=Octets(b"\x80", length=2))).code == "unavailable"


async def test_a_raw_body_needs_its_message_in_a_header() -> None:
    chunkd = Chunkd().dispatcher
    response = await chunkd.dispatch("PUT", "/v1/chunk/write", {}, Octets(b"abc"))
    assert _fault(response).code == "protocol"
    headers = {"dfs-message": codec.to_header(write_request(3)).decode()}
    response = await chunkd.dispatch("PUT", "/v1/chunk/write", headers, Octets(b"abc"))
    assert response.status == 200


async def test_errors_travel_with_code_text_and_status() -> None:
    async def lost(request: Empty, body: BodySource) -> Hello:
        raise SessionLost("expired")

    async def absent(request: Empty, body: BodySource) -> Hello:
        raise NoEntry("no such file")

    response = await _ask(lost)
    assert (response.status, _fault(response)) == (
        409,
        Fault(code="session_lost", message="expired"),
    )
    assert (await _ask(absent)).status == 404


async def test_an_error_text_need_not_be_unicode() -> None:
    async def absent(request: Empty, body: BodySource) -> Hello:
        raise NoEntry("no such file: \udcff")

    assert _fault(await _ask(absent)).message == "no such file: \\udcff"


async def test_who_asks_a_daemon_without_memory_may_ask_again(
    expect_log: Callable[[str], None],
) -> None:
    expect_log("out of memory")

    async def greedy(request: Empty, body: BodySource) -> Hello:
        raise MemoryError

    response = await _ask(greedy)
    assert (response.status, _fault(response).code) == (503, "unavailable")


async def test_a_defect_is_logged_and_travels_as_internal(
    expect_log: Callable[[str], None],
) -> None:
    expect_log("GET /v1/hello failed unexpectedly.*ZeroDivisionError")

    async def defect(request: Empty, body: BodySource) -> Hello:
        raise ZeroDivisionError("oops")

    response = await _ask(defect)
    assert response.status == 500
    assert _fault(response) == Fault(code="internal", message="ZeroDivisionError: oops")


async def test_the_deadline_cancels_the_handler(autojump_clock: trio.testing.MockClock) -> None:
    async def slow(request: Empty, body: BodySource) -> Hello:
        await trio.sleep(3)
        return HELLO

    started = trio.current_time()
    assert _fault(await _ask(slow, {"dfs-deadline-s": "2.5"})).code == "unavailable"
    assert trio.current_time() == started + 2.5
    assert (await _ask(slow, {"dfs-deadline-s": "3.5"})).status == 200


async def test_a_handler_knows_the_request_id(caplog: pytest.LogCaptureFixture) -> None:
    seen, before = [], REQUEST_ID.get()

    async def note(request: Empty, body: BodySource) -> Hello:
        seen.append(REQUEST_ID.get())
        return HELLO

    with caplog.at_level(logging.DEBUG):
        await _ask(note, {"dfs-request-id": "abc-1"})
        await _ask(note, {"dfs-request-id": "x" * 100})
    assert seen == ["abc-1", "x" * 64]
    assert REQUEST_ID.get() == before


async def test_a_handler_knows_who_calls() -> None:
    seen: list[object] = []
    desk = Identity("lab", "client", "desk")

    async def note(request: Empty, body: BodySource) -> Hello:
        seen.append((CALLER.get(), SHOWN.get()))
        return HELLO

    metad = dispatcher("metad", {"metad.hello": note})
    await metad.dispatch("GET", "/v1/hello", {}, Octets(), desk, b"shown")
    await metad.dispatch("GET", "/v1/hello", {}, Octets())
    assert seen == [(desk, b"shown"), (None, b"")]
    assert (CALLER.get(), SHOWN.get()) == (None, b"")


class Gate:
    """Admits until it is closed."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        self.closed = False
        self.dispatcher = Dispatcher(
            "metad",
            dict.fromkeys((call.name for call in by_path("metad").values()), self._answer),
            metrics,
            admit=self._admit,
        )
        self.answered = 0

    def _admit(self, caller: Identity, shown: bytes) -> None:
        if self.closed:
            raise Forbidden(f"{caller} was revoked")

    async def _answer(self, request: object, body: BodySource) -> Hello:
        self.answered += 1
        return HELLO


class Closing(Octets):
    """A body whose caller is revoked while it is read."""

    def __init__(self, gate: Gate, data: bytes) -> None:
        super().__init__(data)
        self._gate = gate

    async def receive_into(self, buffer: memoryview) -> int:
        self._gate.closed = True
        return await super().receive_into(buffer)


async def test_who_is_not_admitted_reaches_no_handler() -> None:
    """Not even when that is decided after the head of the request has come."""
    gate, desk = Gate(), Identity("lab", "client", "desk")
    path = "/v1/session/renew"
    request = codec.encode(RenewSession(session="s"), codec.MSGPACK)
    during = await gate.dispatcher.dispatch("POST", path, {}, Closing(gate, request), desk, b"c")
    after = await gate.dispatcher.dispatch("POST", path, {}, Octets(request), desk, b"c")
    assert [_fault(each).code for each in (during, after)] == ["forbidden"] * 2
    assert not gate.answered and not gate.dispatcher.admits(desk, b"c")
    # Who need not prove anything is nobody who could be revoked.
    assert (await gate.dispatcher.dispatch("POST", path, {}, Octets(request))).status == 200
    assert gate.dispatcher.admits(None, b"")


async def test_metrics_are_for_members_that_are_not_revoked() -> None:
    gate = Gate(Metrics("metad"))

    async def asked(role: str) -> int:
        caller = Identity("lab", role, "someone")
        response = await gate.dispatcher.dispatch("GET", "/metrics", {}, Octets(), caller, b"c")
        return response.status

    assert [await asked(role) for role in MEMBERS] == [200] * len(MEMBERS)
    assert await asked(GUEST) == 403
    gate.closed = True
    assert [await asked(role) for role in MEMBERS] == [403] * len(MEMBERS)
    assert (await gate.dispatcher.dispatch("GET", "/metrics", {}, Octets())).status == 200
