"""Calls under TLS: bodies of all sizes, files, streams; whom client and server believe; renewal."""

from __future__ import annotations

import random
import re
import socket
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from dfswire import securesockets
from dfswire.certificates import (
    CLOCK_SKEW_S,
    describe,
    public_key_in,
    public_key_of,
    shown_key,
    shown_signed_s,
)
from dfswire.client import Client
from dfswire.credentials import AUTHORITY, CERTIFICATE, KEY, Credentials
from dfswire.dispatch import Dispatcher
from dfswire.errors import Forbidden, NotSupported, Unavailable
from dfswire.identity import Identity
from dfswire.messages import Empty, Event
from dfswire.metadata import FollowEvents, SessionRequest
from dfswire.securesockets import SecureWire
from dfswire.securesockets import connect as securesockets_connect
from dfswire.server import Limits
from tests.t1_wire.parties import DAY_S, Parties, Party
from tests.t1_wire.services import Chunkd, Metad, read_request, start, write_request

MIB = 1 << 20
SOON_S = 4.0  # long enough for a handshake on a busy machine
QUICK = Limits(head_s=0.3, idle_s=5.0, stall_s=0.5, linger_s=0.3)


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    return Parties(tmp_path)


@pytest.fixture
async def client(parties: Parties) -> AsyncIterator[Client]:
    client = Client(credentials=parties.credentials())
    yield client
    await client.aclose()


@pytest.mark.parametrize("length", [1, 16_383, 16_384, 16_385, 65_537, 4 * MIB])
@pytest.mark.parametrize("disk", ["memory", "file"])
async def test_bodies_of_all_sizes_go_both_ways(
    nursery: trio.Nursery,
    parties: Parties,
    client: Client,
    rng: random.Random,
    length: int,
    disk: str,
) -> None:
    service = Chunkd()
    address = await start(nursery, service, credentials=parties.credentials("chunkd"))
    content = rng.randbytes(length)
    for _ in range(3):  # the later ones on the connection of the first
        await client.call("chunk.write", address, write_request(length), body=content)
        assert service.content == content
        into = memoryview(bytearray(length))
        _, body = await client.call("chunk.read", address, read_request(length, disk), into=into)
        assert bytes(body) == content


async def test_a_refusal_reaches_a_client_that_is_still_sending(
    nursery: trio.Nursery, parties: Parties, client: Client
) -> None:
    address = await start(nursery, Chunkd(), credentials=parties.credentials("chunkd"))
    with pytest.raises(NotSupported, match="disk full"):
        await client.call(
            "chunk.write", address, write_request(4 * MIB, "full"), body=bytes(4 * MIB)
        )


async def test_connections_are_used_again(
    nursery: trio.Nursery, parties: Parties, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected = []

    async def connect(stream: trio.SocketStream, credentials: Credentials) -> SecureWire:
        connected.append(stream)
        return await securesockets_connect(stream, credentials)

    monkeypatch.setattr(securesockets, "connect", connect)
    address = await start(nursery, Chunkd(), credentials=parties.credentials("chunkd"))
    for _ in range(10):
        await client.call("chunkd.hello", address, Empty())
    assert len(connected) == 1


async def test_what_is_decrypted_already_counts_as_input(parties: Parties) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    near = await trio.testing.open_stream_to_socket_listener(listeners[0])
    far = await listeners[0].accept()
    accepted: list[SecureWire] = []

    async def accept() -> None:
        credentials = parties.credentials("chunkd")
        accepted.append(await securesockets.accept(far, credentials, stall_s=5, without_tls=b"no"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        wire = await securesockets.connect(near, parties.credentials())
    await accepted[0].send(b"ab")
    assert await wire.receive(1) == b"a"
    assert wire.has_input()
    with trio.fail_after(1):
        await wire.wait_input()
    assert await wire.receive(10) == b"b"
    assert not wire.has_input()
    for each in (wire, accepted[0]):
        each.close()
    await trio.aclose_forcefully(listeners[0])


async def test_many_at_once(
    nursery: trio.Nursery, parties: Parties, client: Client, rng: random.Random
) -> None:
    service = Chunkd(rng.randbytes(MIB))
    address = await start(nursery, service, credentials=parties.credentials("chunkd"))

    async def read() -> None:
        for _ in range(5):
            _, body = await client.call(
                "chunk.read", address, read_request(MIB, "file"), deadline_s=30
            )
            assert bytes(body) == service.content

    async with trio.open_nursery() as readers:
        for _ in range(20):
            readers.start_soon(read)


async def test_events_come_and_their_end_is_noticed(
    nursery: trio.Nursery, parties: Parties, client: Client
) -> None:
    metad = Metad()
    address = await start(nursery, metad, credentials=parties.credentials("metad"))
    async with client.stream("session.events", address, FollowEvents(session="s")) as events:
        for number in range(3):
            await metad.sender.send(Event(number=number))
            assert (await anext(events)).number == number
    with trio.fail_after(5):
        await metad.stream_ended.wait()


async def test_a_stream_ends_when_its_caller_is_revoked(
    nursery: trio.Nursery,
    parties: Parties,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the server knows with which certificate he had come."""
    monkeypatch.setattr("dfswire.server.LOOK_S", 0.05)
    metad = Metad()
    shown: list[bytes] = []
    revoked = False

    def admit(caller: Identity, certificate: bytes) -> None:
        shown.append(certificate)
        if revoked:
            raise Forbidden(f"{caller} was revoked")

    handlers = metad.dispatcher._handlers
    metad.dispatcher = Dispatcher("metad", handlers, admit=admit)
    address = await start(nursery, metad, credentials=parties.credentials("metad"))
    async with client.stream("session.events", address, FollowEvents(session="s")) as events:
        await metad.sender.send(Event(number=1))
        await anext(events)
        revoked = True
        with pytest.raises(Unavailable), trio.fail_after(5):
            await anext(events)
    own = (parties.files(Party()) / CERTIFICATE).read_bytes()
    assert {shown_key(each) for each in shown} == {public_key_in(own)}
    assert {shown_signed_s(each) for each in shown} == {describe(own).begins_s + CLOCK_SKEW_S}


@pytest.mark.parametrize(
    ("server", "text"),
    [
        (Party("metad"), "there is metad someone, not a chunkd"),
        (Party("chunkd", signed_by="strangers"), "self-signed|unable to get|signature"),
        (Party("chunkd", signed_by="others", cluster="elsewhere"), "unable to get"),
        (Party("chunkd", since_s=-3 * DAY_S), "expired"),
        (Party("chunkd", since_s=DAY_S), "not yet valid"),
    ],
)
async def test_a_server_that_is_not_whom_it_should_be_is_not_believed(
    nursery: trio.Nursery, parties: Parties, client: Client, server: Party, text: str
) -> None:
    """The stranger trusts our authority, to get at what the client would send."""
    address = await start(nursery, Chunkd(), credentials=parties.of(server))
    with pytest.raises(Unavailable, match=text):
        await client.call("chunkd.hello", address, Empty())


async def test_two_clusters_do_not_mix_though_each_believes_the_authority_of_the_other(
    nursery: trio.Nursery, parties: Parties
) -> None:
    """As when somebody put both authorities into one file."""
    both = [parties.authorities[name].certificate_pem for name in ("ours", "others")]
    here = parties.files(Party("chunkd"))
    there = parties.files(Party(signed_by="others", cluster="elsewhere"))
    for files in (here, there):
        (files / AUTHORITY).write_bytes(b"".join(both))
    address = await start(nursery, Chunkd(), credentials=Credentials(here))
    client = Client(credentials=Credentials(there))
    with pytest.raises(Unavailable, match="belongs to cluster 'lab', not to 'elsewhere'"):
        await client.call("chunkd.hello", address, Empty())
    await client.aclose()


async def test_a_client_without_tls_is_told_so(nursery: trio.Nursery, parties: Parties) -> None:
    address = await start(nursery, Chunkd(), credentials=parties.credentials("chunkd"))
    plain = Client()
    with pytest.raises(Forbidden, match="TLS only: name your credentials"):
        await plain.call("chunk.write", address, write_request(MIB), body=bytes(MIB))
    await plain.aclose()


async def test_a_server_without_tls_is_not_believed(nursery: trio.Nursery, client: Client) -> None:
    address = await start(nursery, Chunkd())
    with pytest.raises(Unavailable, match=r"(?i)wrong.version.number|record"):
        await client.call("chunkd.hello", address, Empty())


async def test_a_handshake_that_stalls_is_given_up(nursery: trio.Nursery, parties: Parties) -> None:
    address = await start(nursery, Chunkd(), QUICK, parties.credentials("chunkd"))
    host, port = address.split(":")
    for first in (b"", b"\x16\x03\x01\x02\x00\x01"):
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(first)
            with trio.fail_after(5):
                assert await stream.receive_some() == b""


async def test_who_is_gone_before_the_handshake_harms_nobody(
    nursery: trio.Nursery, parties: Parties, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Reset before the server accepts: nobody knows any more who it was."""
    caplog.set_level("DEBUG", "dfswire.server")
    address = await start(nursery, Chunkd(), QUICK, parties.credentials("chunkd"))
    host, port = address.split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await client.call("chunkd.hello", address, Empty())
    assert caplog.text.count("connection given up") >= 3


async def test_a_server_that_stalls_in_the_handshake_has_as_long_as_the_call(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without TLS the kernel connects, and a busy daemon has until the call's deadline."""
    monkeypatch.setattr("dfswire.transport.CONNECT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unavailable, match=r"no answer within 0\.5 s"):
            await client.call("chunkd.hello", address, Empty(), deadline_s=0.5)


async def test_a_host_that_vanishes_in_the_handshake_is_given_up_soon(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfswire.sockets.retransmits", lambda sock: 3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unavailable, match="nothing is heard"):
            await client.call("chunkd.hello", address, Empty())


async def test_silent_strangers_keep_no_member_out(
    nursery: trio.Nursery, parties: Parties, client: Client
) -> None:
    limits = Limits(connections=3, handshakes=5)
    address = await start(nursery, Chunkd(), limits, parties.credentials("chunkd"))
    host, port = address.split(":")
    strangers = [await trio.open_tcp_stream(host, int(port)) for _ in range(20)]
    await client.call("chunkd.hello", address, Empty())
    for stranger in strangers[:14]:
        with trio.fail_after(5):
            assert await stranger.receive_some() == b"", "the oldest are ended first"
    for stranger in strangers:
        await stranger.aclose()


async def test_strangers_do_not_fill_the_log(
    nursery: trio.Nursery,
    parties: Parties,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO", "dfswire.server")
    address = await start(nursery, Chunkd(), QUICK, parties.credentials("chunkd"))
    plain = Client()
    for silent_s in (1000.0, 0.0):
        monkeypatch.setattr("dfswire.server.REFUSALS_TOLD_S", silent_s)
        for _ in range(10 if silent_s else 1):
            with pytest.raises(Forbidden):
                await plain.call("chunkd.hello", address, Empty())
    await plain.aclose()
    assert caplog.text.count("refused: HTTP_REQUEST") == 2
    assert re.search(r"\(\d more since this was said last\)", caplog.text)


async def test_garbage_instead_of_a_handshake_harms_nobody(
    nursery: trio.Nursery, parties: Parties, client: Client, rng: random.Random
) -> None:
    address = await start(nursery, Chunkd(), QUICK, parties.credentials("chunkd"))
    host, port = address.split(":")
    for _ in range(50):
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            try:
                await stream.send_all(rng.randbytes(rng.randrange(1, 2000)))
                with trio.move_on_after(5) as waited:
                    async for _piece in stream:
                        pass
            except trio.BrokenResourceError:
                continue  # reset: it is closed
            assert not waited.cancelled_caught
    await client.call("chunkd.hello", address, Empty())


def reissue(parties: Parties, credentials: Credentials, valid_s: float) -> None:
    """A renewal as an authority makes it: another certificate for the same key, in its place."""
    key = (credentials.directory / KEY).read_bytes()
    fresh = credentials.directory / "fresh"
    fresh.write_bytes(
        parties.authorities["ours"].issue(credentials.identity, public_key_of(key), valid_s)
    )
    fresh.replace(credentials.directory / CERTIFICATE)


async def test_renewal_under_load_disturbs_nobody(
    nursery: trio.Nursery, parties: Parties, rng: random.Random
) -> None:
    """Certificates of seconds on both sides, renewed again and again; every call succeeds."""
    own = parties.of(Party("chunkd", "server", valid_s=SOON_S))
    callers = parties.of(Party("client", "caller", valid_s=SOON_S))
    service = Chunkd(rng.randbytes(100_000))
    address = await start(nursery, service, credentials=own)
    client = Client(credentials=callers)
    begun_s = time.time()
    calls = 0
    while time.time() < begun_s + 2 * SOON_S:
        for credentials in (own, callers):
            if credentials.ends_s - time.time() < 0.6 * SOON_S:
                reissue(parties, credentials, SOON_S)
                credentials.for_server()
        _, body = await client.call("chunk.read", address, read_request(100_000), attempts=1)
        assert bytes(body) == service.content
        calls += 1
        await trio.sleep(0.01)
    assert calls > 20
    await client.aclose()


async def test_nobody_stays_connected_beyond_the_end_of_his_certificate(
    nursery: trio.Nursery, parties: Parties
) -> None:
    metad = Metad()
    address = await start(nursery, metad, credentials=parties.credentials("metad"))
    own = parties.of(Party(valid_s=SOON_S))
    client = Client(credentials=own)
    async with client.stream("session.events", address, FollowEvents(session="s")) as events:
        with trio.fail_after(10), pytest.raises(Unavailable):
            await anext(events)
    await trio.sleep(own.ends_s - time.time() + 0.2)
    with pytest.raises(Unavailable, match="expired"):
        await client.call("metad.hello", address, Empty())
    await client.aclose()


async def test_a_stream_ends_with_the_certificate_of_its_server(
    nursery: trio.Nursery, parties: Parties, client: Client
) -> None:
    address = await start(nursery, Metad(), credentials=parties.of(Party("metad", valid_s=SOON_S)))
    async with client.stream("session.events", address, FollowEvents(session="s")) as events:
        with trio.fail_after(10), pytest.raises(Unavailable, match="a certificate has ended"):
            await anext(events)


async def test_a_head_that_comes_after_the_end_is_not_served(
    nursery: trio.Nursery, parties: Parties
) -> None:
    service, own = Chunkd(), parties.of(Party(valid_s=SOON_S))
    address = await start(nursery, service, credentials=parties.credentials("chunkd"))
    host, port = address.split(":")
    stream = await trio.open_tcp_stream(host, int(port))
    wire = await securesockets.connect(stream, own)
    await wire.send(b"GET /v1/hello HTTP/1.1\r\n")
    await trio.sleep(own.ends_s - time.time() + 0.2)
    await wire.send(b"Host: a\r\n\r\n")
    with trio.fail_after(5):
        assert await wire.receive(100) == b""
    assert not service.counts
    wire.close()


async def test_each_service_has_connections_of_its_own(
    nursery: trio.Nursery, parties: Parties, client: Client
) -> None:
    """Who has proved to be a chunkd is no metad, though he is at metad's address."""
    address = await start(nursery, Chunkd(), credentials=parties.credentials("chunkd"))
    await client.call("chunkd.hello", address, Empty())
    with pytest.raises(Unavailable, match="there is chunkd someone, not a metad"):
        await client.call("metad.hello", address, Empty())


@pytest.mark.parametrize("whose", ["servers", "clients"])
async def test_who_trusts_another_authority_now_ends_what_the_old_one_has_proved(
    nursery: trio.Nursery, parties: Parties, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    monkeypatch.setattr("dfswire.credentials.LOOK_S", 0.0)
    monkeypatch.setattr("dfswire.server.LOOK_S", 0.1)
    server = parties.of(Party("metad"))
    own = parties.of(Party())
    metad = Metad()
    address = await start(nursery, metad, credentials=server)
    client = Client(credentials=own)
    async with client.stream("session.events", address, FollowEvents(session="s")) as events:
        with pytest.raises(NotSupported):  # it is answered
            await client.call("session.close", address, SessionRequest(session="s"), attempts=1)
        changed, party = (server, "metad") if whose == "servers" else (own, "client")
        replacement = parties.files(Party(party, signed_by="strangers", trusts="strangers"))
        for name in (AUTHORITY, KEY, CERTIFICATE):
            (replacement / name).replace(changed.directory / name)
        if whose == "servers":
            with trio.fail_after(5), pytest.raises(Unavailable):
                await anext(events)
            await metad.stream_ended.wait()
    with pytest.raises(Unavailable, match=r"self-signed|signature|unknown"):
        await client.call("session.close", address, SessionRequest(session="s"), attempts=1)
    await client.aclose()


@pytest.mark.parametrize(("own_s", "servers_s"), [(SOON_S, DAY_S), (DAY_S, SOON_S)])
async def test_an_idle_connection_does_not_outlive_the_certificates(
    nursery: trio.Nursery, parties: Parties, own_s: float, servers_s: float
) -> None:
    server = parties.of(Party("chunkd", valid_s=servers_s))
    own = parties.of(Party(valid_s=own_s))
    service = Chunkd()
    address = await start(nursery, service, credentials=server)
    client = Client(credentials=own)
    await client.call("chunkd.hello", address, Empty())
    await trio.sleep(min(own.ends_s, server.ends_s) - time.time() + 0.2)
    with pytest.raises(Unavailable, match="expired"):
        await client.call("chunkd.hello", address, Empty())
    assert service.counts["hello"] == 1
    await client.aclose()
