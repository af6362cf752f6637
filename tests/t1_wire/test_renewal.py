"""Certificates that are renewed while their process runs, under a virtual clock."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from dfswire.certificates import public_key_of, public_key_of_request
from dfswire.credentials import CERTIFICATE, KEY, Credentials
from dfswire.errors import UsageError
from dfswire.renewal import Renewal
from tests.t1_wire.parties import DAY_S, Parties, Party

LIFE_S = 900.0


async def _inline(work: Callable[[], object]) -> object:
    return work()


class Renewing:
    """A party whose certificate lives 15 minutes, and who signs for it."""

    def __init__(self, directory: Path) -> None:
        self.parties = Parties(directory)
        self.party = Party(valid_s=LIFE_S)
        self.credentials = Credentials(self.parties.files(self.party))
        self.began_s, self.at_s = trio.current_time(), time.time()
        self.signed: list[float] = []  # after so many seconds
        self.fail: Exception | None = None
        self.tried = 0

    @property
    def passed_s(self) -> float:
        return trio.current_time() - self.began_s

    def wall(self) -> float:
        return self.at_s + self.passed_s

    async def sign(self, request: bytes) -> bytes:
        self.tried += 1
        if self.fail is not None:
            raise self.fail
        self.signed.append(self.passed_s)
        authority = self.parties.authorities["ours"]
        key = public_key_of_request(request)
        return authority.issue(self.credentials.identity, key, LIFE_S, now=self.wall())

    def renewal(self, sign: Callable[[bytes], Awaitable[bytes]] | None = None) -> Renewal:
        return Renewal(self.credentials, sign or self.sign, wall=self.wall, run=_inline)


@pytest.fixture
async def renewing(
    tmp_path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> Renewing:
    made = Renewing(tmp_path)
    # What is in the files is judged by the time of day.
    monkeypatch.setattr("dfswire.credentials.time.time", made.wall)
    return made


async def test_at_two_thirds_of_each_life(
    renewing: Renewing, mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    mock_clock.autojump_threshold = 0
    key = (renewing.credentials.directory / KEY).read_bytes()
    nursery.start_soon(renewing.renewal().run_forever)
    await trio.sleep(3 * LIFE_S)
    assert [round(each / 600) for each in renewing.signed] == [1, 2, 3, 4]
    assert renewing.credentials.ends_s > renewing.wall()
    assert (renewing.credentials.directory / KEY).read_bytes() == key


async def test_it_tries_until_somebody_signs_and_complains_when_it_is_urgent(
    renewing: Renewing,
    mock_clock: MockClock,
    nursery: trio.Nursery,
    expect_log: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    mock_clock.autojump_threshold = 0
    renewing.fail = UsageError("nobody signs")
    nursery.start_soon(renewing.renewal().run_forever)
    await trio.sleep(740)
    assert renewing.tried > 5
    said = [each for each in caplog.records if "nobody signs" in each.getMessage()]
    assert [each.levelname for each in said] == ["INFO"]
    expect_log("someone, which ends in 1.. s, is not renewed: nobody signs")
    await trio.sleep(100)
    renewing.fail = OSError("the disk is full")
    expect_log("is not renewed: the disk is full")
    await trio.sleep(30)
    assert not renewing.signed
    renewing.fail = None
    await trio.sleep(20)
    assert renewing.credentials.ends_s > renewing.wall() + LIFE_S / 2


async def test_what_somebody_else_renews_is_taken(
    renewing: Renewing, mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    mock_clock.autojump_threshold = 0
    nursery.start_soon(renewing.renewal().run_forever)
    await trio.sleep(500)
    authority = renewing.parties.authorities["ours"]
    files = renewing.credentials.directory
    key = _public(files)
    fresh = files / "fresh"
    fresh.write_bytes(authority.issue(renewing.credentials.identity, key, DAY_S))
    fresh.replace(files / CERTIFICATE)
    await trio.sleep(LIFE_S)
    assert not renewing.tried


async def test_a_certificate_of_somebody_else_is_not_taken(renewing: Renewing) -> None:
    """Whoever signs: neither for another key nor for another name."""
    other = renewing.parties.files(Party(name="other"))
    before = (renewing.credentials.directory / CERTIFICATE).read_bytes()

    async def wrong(request: bytes) -> bytes:
        return (other / CERTIFICATE).read_bytes()

    async def another_key(request: bytes) -> bytes:
        return renewing.parties.authorities["ours"].issue(
            renewing.credentials.identity, _public(other), DAY_S
        )

    for sign in (wrong, another_key):
        assert not await renewing.renewal(sign).run_once()
        assert (renewing.credentials.directory / CERTIFICATE).read_bytes() == before


@pytest.mark.parametrize("name", [KEY, CERTIFICATE])
async def test_files_that_are_gone_are_not_made_again(renewing: Renewing, name: str) -> None:
    """Somebody has taken the credentials away: that stays so."""
    (renewing.credentials.directory / name).unlink()
    assert not await renewing.renewal().run_once()
    assert not (renewing.credentials.directory / name).exists()


def _public(files: Path) -> bytes:
    return public_key_of((files / KEY).read_bytes())
