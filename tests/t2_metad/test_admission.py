"""Who is let in: invitations are good once, certificates for one's own key, and until revoked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from dfswire.admission import Invite, Revoke, Sign
from dfswire.certificates import describe, is_signed_by, new_key, request
from dfswire.credentialfiles import make_authority
from dfswire.errors import Forbidden, UsageError
from dfswire.messages import Empty
from metad.config import MetadConfig
from metad.service import create_service
from metad.storage.database import Database
from tests.t2_metad.admitting import CLUSTER, DAY_S, Admitting, Party
from tests.t2_metad.conftest import registration


@pytest.fixture
async def metad(db: Database, tmp_path: Path) -> Admitting:
    return Admitting(db, tmp_path)


@pytest.fixture
async def operator(metad: Admitting) -> Party:
    return metad.party("operator", "anna")


async def revoke(metad: Admitting, operator: Party, role: str, name: str) -> None:
    message = Revoke(role=role, name=name)
    assert await metad.by(operator, lambda: metad.admission.revoke(message)) == Empty()


async def test_a_guest_becomes_who_was_invited(metad: Admitting, operator: Party) -> None:
    guest = await metad.invite(operator, "chunkd", "store1")
    assert guest.identity.role == "guest"
    joined = await metad.join(guest)
    assert joined.identity.uri == f"dfs://{CLUSTER}/chunkd/store1"
    assert is_signed_by(joined.certificate, metad.authority.certificate_pem)
    assert describe(joined.certificate).ends_s == metad.now_s + DAY_S


async def test_a_guest_is_one_for_minutes_only(metad: Admitting, operator: Party) -> None:
    guest = await metad.invite(operator, "client", "desk", valid_s=60)
    assert describe(guest.certificate).ends_s == metad.now_s + 60
    metad.now_s += 60
    with pytest.raises(Forbidden, match="client desk is over"):
        await metad.join(guest)


async def test_an_invitation_is_good_once(metad: Admitting, operator: Party) -> None:
    guest = await metad.invite(operator, "chunkd", "store1")
    joined = await metad.join(guest)
    with pytest.raises(Forbidden, match="used already"):
        await metad.join(guest)
    metad.start()
    with pytest.raises(Forbidden, match="used already"):
        await metad.join(guest)
    # Who did not hear the answer asks again, with the key that it has.
    assert (await metad.join(guest, joined.key)).identity == joined.identity


async def test_two_that_use_it_at_once(metad: Admitting, operator: Party) -> None:
    guest = await metad.invite(operator, "chunkd", "store1")
    outcomes: list[bool] = []

    async def one() -> None:
        try:
            await metad.join(guest)
        except Forbidden:
            outcomes.append(False)
        else:
            outcomes.append(True)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one)
    assert sorted(outcomes) == [False, False, False, True]


async def test_an_invitation_that_nobody_gave(metad: Admitting) -> None:
    """Signed by the authority, and not by metad's leave: as after a restore."""
    with pytest.raises(Forbidden, match="not known"):
        await metad.join(metad.party("guest", "f" * 32))


@pytest.mark.parametrize(
    ("role", "name", "text"),
    [
        ("metad", "meta2", "no metad is invited"),
        ("guest", "g", "no guest is invited"),
        ("chunkd", "Not A Name", "name 'Not A Name'"),
    ],
)
async def test_who_cannot_be_invited(
    metad: Admitting, operator: Party, role: str, name: str, text: str
) -> None:
    with pytest.raises(UsageError, match=text):
        await metad.invite(operator, role, name)


@pytest.mark.parametrize("valid_s", [0.0, -1.0, 901.0, float("nan")])
def test_an_invitation_is_never_good_for_long(valid_s: float) -> None:
    with pytest.raises(ValueError, match="valid_s"):
        Invite(role="chunkd", name="a", request="r", valid_s=valid_s)


async def test_a_renewal_is_for_the_key_that_was_shown(metad: Admitting) -> None:
    store = metad.party("chunkd", "store1")
    metad.now_s += 100
    signed = await metad.by(store, lambda: metad.admission.renew(store.request))
    found = describe(signed.certificate.encode())
    assert (found.identity, found.ends_s) == (store.identity, metad.now_s + DAY_S)
    other = Sign(request=request(new_key()).decode())
    with pytest.raises(Forbidden, match="another key"):
        await metad.by(store, lambda: metad.admission.renew(other))
    with pytest.raises(UsageError, match="signing request"):
        await metad.by(store, lambda: metad.admission.renew(Sign(request="nonsense")))


async def test_who_is_revoked_is_refused_until_invited_again(
    metad: Admitting, operator: Party
) -> None:
    store, other = metad.party("chunkd", "store1"), metad.party("chunkd", "store2")
    await revoke(metad, operator, "chunkd", "store1")
    for _ in range(2):
        with pytest.raises(Forbidden, match="store1 was revoked"):
            metad.admission.admit(store.identity, store.shown)
        metad.admission.admit(other.identity, other.shown)
        metad.start()
    # In the same second still: the new one counts, and is renewed; the old one never again.
    again = await metad.join(await metad.invite(operator, "chunkd", "store1"))
    metad.admission.admit(again.identity, again.shown)
    await metad.by(again, lambda: metad.admission.renew(again.request))
    with pytest.raises(Forbidden, match="revoked"):
        metad.admission.admit(store.identity, store.shown)


async def test_a_clock_that_is_set_back_brings_nobody_back(
    metad: Admitting, operator: Party
) -> None:
    await revoke(metad, operator, "chunkd", "store1")
    old = metad.party("chunkd", "store1")
    metad.now_s -= 2000
    await revoke(metad, operator, "chunkd", "store1")
    with pytest.raises(Forbidden, match="revoked"):
        metad.admission.admit(old.identity, old.shown)
    # Signed while metad's clock is behind, it begins when its party counts again.
    late = await metad.join(await metad.invite(operator, "chunkd", "store1"))
    metad.admission.admit(late.identity, late.shown)


async def test_what_a_revoked_operator_has_invited_is_void(
    metad: Admitting, operator: Party
) -> None:
    guest = await metad.invite(operator, "operator", "mallory")
    other = await metad.invite(metad.party("operator", "berta"), "chunkd", "store1")
    await revoke(metad, operator, "operator", "anna")
    with pytest.raises(Forbidden, match="not known"):
        await metad.join(guest)
    assert (await metad.join(other)).identity.name == "store1"


async def test_an_invitation_of_who_is_revoked_is_void(metad: Admitting, operator: Party) -> None:
    guest = await metad.invite(operator, "chunkd", "store1")
    await revoke(metad, operator, "chunkd", "store1")
    with pytest.raises(Forbidden, match="not known"):
        await metad.join(guest)


@pytest.mark.parametrize("role", ["metad", "guest", "nobody"])
async def test_who_cannot_be_revoked(metad: Admitting, operator: Party, role: str) -> None:
    with pytest.raises(UsageError, match=f"no {role} is revoked"):
        await revoke(metad, operator, role, "x")


async def test_invitations_of_long_ago_are_forgotten(
    metad: Admitting, operator: Party, db: Database
) -> None:
    await metad.invite(operator, "chunkd", "store1")
    metad.now_s += 3 * 3600
    await metad.invite(operator, "chunkd", "store2")
    assert db.read("SELECT name FROM invitation") == [("store2",)]


async def test_metad_without_an_authority_signs_nothing(
    metad: Admitting, operator: Party, db: Database
) -> None:
    metad.service = create_service(db, MetadConfig(url="sqlite://", journal_copies=0))
    with pytest.raises(UsageError, match="set `authority`"):
        await metad.invite(operator, "chunkd", "store1")
    store = metad.party("chunkd", "store1")
    with pytest.raises(UsageError, match="set `authority`"):
        await metad.by(store, lambda: metad.admission.renew(store.request))


async def test_without_tls_there_are_no_certificates(metad: Admitting) -> None:
    for call in (
        metad.admission.invite(Invite(role="chunkd", name="a", request="r")),
        metad.admission.join(Sign(request="r")),
        metad.admission.renew(Sign(request="r")),
        metad.admission.revoke(Revoke(role="chunkd", name="a")),
    ):
        with pytest.raises(UsageError, match="without TLS"):
            await call


async def test_an_authority_that_is_not_the_one_of_metad(metad: Admitting, tmp_path: Path) -> None:
    make_authority(tmp_path / "other", CLUSTER, DAY_S)
    with pytest.raises(UsageError, match="has not signed"):
        metad.signer(tmp_path / "other")
    with pytest.raises(UsageError, match="no authority in"):
        metad.signer(tmp_path / "none")


# --- servers belong to the party that registered them first ---------------------------------------


async def test_no_chunkd_speaks_for_another(
    metad: Admitting, operator: Party, db: Database, expect_log: Callable[[str], None]
) -> None:
    expect_log("is refused: server server1 belongs to chunkd store1")
    one, other = metad.party("chunkd", "store1"), metad.party("chunkd", "store2")
    message = registration(1)
    await metad.by(one, lambda: metad.service.reports.register(message))
    for _ in range(2):
        with pytest.raises(Forbidden, match="belongs to chunkd store1"):
            await metad.by(other, lambda: metad.service.reports.register(message))
        await metad.by(one, lambda: metad.service.reports.register(message))
        metad.start()
    owners = metad.service.state.owners
    asked: list[object] = []

    async def answer(request: object) -> None:
        asked.append(request)

    with pytest.raises(Forbidden, match="not to chunkd store2"):
        await metad.by(other, lambda: owners.only_itself(answer)(message))
    assert not asked
    await metad.by(one, lambda: owners.only_itself(answer)(message))
    await metad.by(operator, lambda: owners.only_itself(answer)(message))
    await owners.only_itself(answer)(message)  # without TLS
    assert len(asked) == 3
    assert db.read("SELECT party FROM server") == [("store1",)]


async def test_a_server_of_a_revoked_party_may_be_taken(
    metad: Admitting, operator: Party, expect_log: Callable[[str], None]
) -> None:
    expect_log("is refused: server server1 belongs to chunkd store2")
    one, other = metad.party("chunkd", "store1"), metad.party("chunkd", "store2")
    message = registration(1)
    await metad.by(one, lambda: metad.service.reports.register(message))
    await revoke(metad, operator, "chunkd", "store1")
    await metad.by(other, lambda: metad.service.reports.register(message))
    metad.start()
    metad.now_s += 10
    again = metad.party("chunkd", "store1")
    with pytest.raises(Forbidden, match="belongs to chunkd store2"):
        await metad.by(again, lambda: metad.service.reports.register(message))
