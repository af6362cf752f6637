"""Credentials as files: what can't be used is refused, what is renewed is used."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from dfswire.credentials import (
    AUTHORITY,
    CERTIFICATE,
    ENVIRONMENT,
    FILES,
    KEY,
    Credentials,
    credentials_at,
    credentials_of_environment,
)
from dfswire.errors import UsageError
from tests.t1_wire.parties import DAY_S, Parties, Party


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    return Parties(tmp_path)


def replace(credentials: Credentials, other: Path, *names: str) -> None:
    """Put files of another party in the place of its own, each at once."""
    for name in names:
        fresh = credentials.directory / "fresh"
        shutil.copy(other / name, fresh)
        fresh.replace(credentials.directory / name)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(parties: Parties, name: str) -> None:
    files = parties.files(Party())
    (files / name).unlink()
    with pytest.raises(UsageError, match=f"{name}: No such file"):
        Credentials(files)


@pytest.mark.parametrize("name", FILES)
def test_garbage_is_refused(parties: Parties, name: str) -> None:
    files = parties.files(Party())
    (files / name).write_bytes(b"garbage")
    with pytest.raises(UsageError):
        Credentials(files)


def test_a_key_of_somebody_else_is_refused(parties: Parties) -> None:
    files = parties.files(Party())
    shutil.copy(parties.files(Party(name="other")) / KEY, files / KEY)
    with pytest.raises(UsageError, match="do not fit"):
        Credentials(files)


def test_a_certificate_of_another_authority_is_refused(parties: Parties) -> None:
    with pytest.raises(UsageError, match=r"authority\.crt has not signed node\.crt"):
        Credentials(parties.files(Party(signed_by="strangers")))


def test_a_key_with_a_password_is_refused_without_asking_for_it(parties: Parties) -> None:
    files = parties.files(Party())
    key = serialization.load_pem_private_key((files / KEY).read_bytes(), password=None)
    (files / KEY).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(UsageError, match="do not fit"):
        Credentials(files)


@pytest.mark.parametrize("since_s", [-3 * DAY_S, DAY_S])
def test_a_certificate_that_is_not_valid_now_replaces_no_good_one(
    parties: Parties, expect_log: Callable[[str], None], since_s: float
) -> None:
    expect_log("not used: .* is not valid now")
    credentials = parties.of(Party())
    server = credentials.for_server()
    replace(credentials, parties.files(Party(since_s=since_s)), KEY, CERTIFICATE)
    assert credentials.for_server() is server


def test_they_say_whose_they_are_and_for_how_long(parties: Parties) -> None:
    credentials = parties.of(Party("chunkd", "store1"))
    assert str(credentials.identity) == "chunkd store1"
    assert credentials.ends_s == pytest.approx(time.time() + DAY_S, abs=60)


def test_renewed_files_are_used(parties: Parties) -> None:
    credentials = parties.of(Party())
    server, client = credentials.for_server(), credentials.for_client()
    assert credentials.for_server() is server and credentials.for_client() is client
    replace(credentials, parties.files(Party(valid_s=2 * DAY_S)), KEY, CERTIFICATE)
    assert credentials.for_server() is not server and credentials.for_client() is not client
    assert credentials.ends_s == pytest.approx(time.time() + 2 * DAY_S, abs=60)


def test_half_a_renewal_is_not_used(
    parties: Parties, expect_log: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    expect_log("not used: .* do not fit")
    credentials = parties.of(Party())
    server = credentials.for_server()
    fresh = parties.files(Party(valid_s=2 * DAY_S))
    replace(credentials, fresh, KEY)
    assert credentials.for_server() is server
    assert credentials.for_server() is server
    assert caplog.text.count("not used") == 1
    replace(credentials, fresh, CERTIFICATE)
    assert credentials.for_server() is not server


def test_files_of_somebody_else_are_not_used(
    parties: Parties, expect_log: Callable[[str], None]
) -> None:
    expect_log("is now of operator root, not client someone")
    credentials = parties.of(Party())
    server = credentials.for_server()
    replace(credentials, parties.files(Party("operator", "root")), KEY, CERTIFICATE)
    assert credentials.for_server() is server
    assert str(credentials.identity) == "client someone"


def test_files_that_vanish_do_no_harm(parties: Parties, expect_log: Callable[[str], None]) -> None:
    expect_log(f"not used: no credentials: .*{AUTHORITY}")
    credentials = parties.of(Party())
    server = credentials.for_server()
    (credentials.directory / AUTHORITY).unlink()
    assert credentials.for_server() is server


def test_settings_and_environment(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert credentials_of_environment() is None and credentials_at("") is None
    files = parties.files(Party("operator", "root"))
    monkeypatch.setenv(ENVIRONMENT, str(files))
    found = credentials_of_environment()
    assert found is not None and found.identity.role == "operator"
    with pytest.raises(UsageError, match="not an absolute path"):
        credentials_at("tls")
    assert credentials_at(str(files), "operator") is not None
    with pytest.raises(UsageError, match="credentials of operator root, not of a metad"):
        credentials_at(str(files), "metad")
