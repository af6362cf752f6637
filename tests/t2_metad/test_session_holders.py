"""Under TLS a session is used with one certificate: nobody speaks for another mount."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from dfswire.errors import Forbidden
from dfswire.metadata import (
    AckEvents,
    GrantRequest,
    InodeRequest,
    OpenSession,
    RenewSession,
    SessionRequest,
)
from metad.storage.database import Database
from tests.t2_metad.admitting import Admitting, Party

INTRODUCTION = OpenSession(host="desk", mount_point="/mnt", pid=1, software="test")


@pytest.fixture
async def metad(db: Database, tmp_path: Path) -> Admitting:
    return Admitting(db, tmp_path)


async def opened(metad: Admitting, party: Party, **more: Any) -> str:
    message = msgspec.structs.replace(INTRODUCTION, **more)
    grant = await metad.by(party, lambda: metad.service.clients.open(message))
    return grant.session


async def test_another_mount_cannot_use_it(metad: Admitting) -> None:
    desk, thief = metad.party("client", "desk"), metad.party("client", "thief")
    session = await opened(metad, desk)
    clients, reads = metad.service.clients, metad.service.reads
    calls = [
        lambda: clients.renew_call(RenewSession(session=session)),
        lambda: clients.acknowledge(AckEvents(session=session, number=0)),
        lambda: clients.close(SessionRequest(session=session)),
        lambda: reads.getattr_(InodeRequest(session=session, inode=1)),
        lambda: reads.grant(GrantRequest(session=session, count=1)),
    ]
    for call in calls:
        with pytest.raises(Forbidden, match="not one of client thief"):
            await metad.by(thief, call)
    with pytest.raises(Forbidden, match="not one of client thief"):
        await opened(metad, thief, replaces=[session])
    await metad.by(desk, calls[0])
    # The same party with a renewed certificate.
    again = metad.party("client", "desk")
    await metad.by(again, calls[0])


async def test_after_a_restart_whoever_uses_it_first_has_it(metad: Admitting) -> None:
    desk, thief = metad.party("client", "desk"), metad.party("client", "thief")
    session = await opened(metad, desk)
    metad.start()
    renew = RenewSession(session=session)
    await metad.by(desk, lambda: metad.service.clients.renew_call(renew))
    with pytest.raises(Forbidden):
        await metad.by(thief, lambda: metad.service.clients.renew_call(renew))


async def test_the_next_mount_of_a_host_ends_the_one_that_died(metad: Admitting) -> None:
    desk = metad.party("client", "desk")
    session = await opened(metad, desk)
    await opened(metad, desk, replaces=[session])
    assert metad.service.clients.find(session) is None
