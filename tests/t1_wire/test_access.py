"""The access matrix: every call, with every kind of wrong credentials, is refused.

Generated from the call table, so a new call is in it at once.  Each case goes over a real socket to
a server under TLS whose handlers count: none is reached.  And the roles that the table names do
reach them, or all refusals would prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
import trio

from dfswire import codec
from dfswire.bodies import BodySource, BodyStream
from dfswire.calls import CALLS, Call, by_path
from dfswire.credentials import Credentials
from dfswire.dispatch import Dispatcher
from dfswire.errors import NotSupported
from dfswire.identity import ROLES
from dfswire.messages import Empty, Fault
from dfswire.transport import SERVICE, SocketTransport
from tests.t1_wire.parties import DAY_S, Older, Parties, Party, Unproved
from tests.t1_wire.services import start

REFUSED = "refused"  # before any call: no connection, or a reply that only says so

Maker = Callable[[Parties, str], Credentials | None]


def proved(**other: str | float) -> Maker:
    """Credentials of the role that may make the call, but for what is said otherwise."""

    def make(parties: Parties, role: str) -> Credentials:
        return parties.of(Party(role=role, **other))  # type: ignore[arg-type]  # names of fields

    return make


WRONG: dict[str, Maker] = {
    "without TLS": lambda parties, role: None,
    "no certificate": lambda parties, role: Unproved(parties.files(Party(role))),
    "TLS 1.2": lambda parties, role: Older(parties.files(Party(role))),
    "a stranger's authority": proved(signed_by="strangers"),
    "another cluster's authority": proved(signed_by="others", cluster="elsewhere"),
    "expired": proved(since_s=-3 * DAY_S),
    "not valid yet": proved(since_s=DAY_S),
}
CASES = [
    *((call, kind) for call in CALLS.values() for kind in WRONG),
    *(
        (call, f"as {role}")
        for call in CALLS.values()
        for role in ROLES
        if role not in call.callers
    ),
]


class Counting:
    """A service whose handlers count, and refuse in a way that no refusal of credentials has."""

    def __init__(self, service: str) -> None:
        self.reached = 0
        self.dispatcher = Dispatcher(
            service, {call.name: self._handle for call in by_path(service).values()}
        )

    async def _handle(self, request: object, body: BodySource) -> Empty:
        self.reached += 1
        raise NotSupported("reached")


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return Parties(tmp_path_factory.mktemp("parties"))


async def outcome(address: str, call: Call, credentials: Credentials | None) -> str:
    """The code of the error that answers an empty request; REFUSED for none."""
    transport = SocketTransport(credentials)
    request = httpx.Request(
        call.method,
        f"http://{address}{call.path}",
        headers={"Host": address, "Content-Length": "0"},
        stream=BodyStream(b""),
        extensions={SERVICE: call.service},
    )
    try:
        with trio.fail_after(5):
            response = await transport.handle_async_request(request)
            fault = codec.decode(Fault, memoryview(await response.aread()))
    except httpx.TransportError:
        return REFUSED
    finally:
        await transport.aclose()
    assert "HTTP head" not in fault.message, fault
    return fault.code


@pytest.mark.parametrize(("call", "kind"), CASES, ids=lambda each: getattr(each, "name", each))
async def test_wrong_credentials_are_refused(
    nursery: trio.Nursery,
    parties: Parties,
    expect_log: Callable[[str], None],
    call: Call,
    kind: str,
) -> None:
    service = Counting(call.service)
    address = await start(nursery, service, credentials=parties.credentials(call.service))
    if kind in WRONG:
        credentials = WRONG[kind](parties, call.callers[0])
        expected = "forbidden" if credentials is None else REFUSED
    else:
        credentials, expected = parties.credentials(kind.removeprefix("as ")), "forbidden"
        expect_log(f"{kind.removeprefix('as ')} someone asked for {call.name}")
    assert await outcome(address, call, credentials) == expected
    assert service.reached == 0


@pytest.mark.parametrize("call", CALLS.values(), ids=lambda call: call.name)
async def test_the_roles_of_the_table_may_call(
    nursery: trio.Nursery, parties: Parties, call: Call
) -> None:
    service = Counting(call.service)
    address = await start(nursery, service, credentials=parties.credentials(call.service))
    for role in call.callers:
        # An empty request is nonsense to most calls; it is looked at, and that is what counts.
        code = await outcome(address, call, parties.credentials(role))
        assert code in ("protocol", NotSupported.code), code


def test_the_matrix_has_every_call() -> None:
    assert len(CASES) > 500  # and one for each call and role that may
    for call in CALLS.values():
        assert call.callers and set(call.callers) < set(ROLES)
        assert sum(each is call for each, _ in CASES) == len(WRONG) + len(ROLES) - len(call.callers)
