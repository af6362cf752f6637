"""Parties of a cluster under TLS, for tests: good credentials, and every kind of bad ones."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from dfswire import certificates
from dfswire.certificates import Authority, new_key, public_key_of
from dfswire.credentials import AUTHORITY, CERTIFICATE, KEY, Credentials
from dfswire.identity import Identity

CLUSTER = "lab"
DAY_S = 86_400.0


@dataclass(frozen=True)
class Party:
    """What one certificate is to say, and who signs it."""

    role: str = "client"
    name: str = "someone"
    cluster: str = CLUSTER
    signed_by: str = "ours"
    trusts: str = "ours"
    since_s: float = 0.0  # from now
    valid_s: float = DAY_S


class Parties:
    """Makes the files of parties below `directory`; the same party has the same ones."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._made: dict[Party, Path] = {}

    @cached_property
    def authorities(self) -> dict[str, Authority]:
        """Ours, a stranger's of the same name, and that of another cluster."""
        return {
            "ours": Authority.new(CLUSTER, 10 * DAY_S, now=time.time() - 5 * DAY_S),
            "strangers": Authority.new(CLUSTER, DAY_S),
            "others": Authority.new("elsewhere", DAY_S),
        }

    def files(self, party: Party) -> Path:
        """The directory with the three files."""
        if party not in self._made:
            key = new_key()
            identity = Identity(party.cluster, party.role, party.name)
            certificate = self.authorities[party.signed_by].issue(
                identity, public_key_of(key), party.valid_s, now=time.time() + party.since_s
            )
            place = self.directory / f"party{len(self._made)}"
            place.mkdir()
            (place / AUTHORITY).write_bytes(self.authorities[party.trusts].certificate_pem)
            (place / CERTIFICATE).write_bytes(certificate)
            (place / KEY).write_bytes(key)
            self._made[party] = place
        return self._made[party]

    def credentials(self, role: str = "client", name: str = "someone") -> Credentials:
        """Good ones."""
        return self.of(Party(role, name))

    def of(self, party: Party) -> Credentials:
        """Those of any party, as it would make them itself."""
        files = self.files(party)
        return Credentials(files) if party.signed_by == party.trusts else unchecked(files)


def unchecked(files: Path) -> Credentials:
    """Whose owner does not mind that they do not fit together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificates, "is_signed_by", lambda *_: True)
        return Credentials(files)


class Unproved(Credentials):
    """Of a party that shows no certificate, and believes everybody."""

    def for_client(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.directory / AUTHORITY)
        return context


class Older(Credentials):
    """Of a party that speaks TLS 1.2 at most."""

    def for_client(self) -> ssl.SSLContext:
        context = super().for_client()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context
