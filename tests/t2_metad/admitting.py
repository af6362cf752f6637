"""A metad that signs, and parties that call it with what they have, without a connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from dfswire.admission import Invite, Sign, Signed
from dfswire.certificates import Authority, describe, new_key, request
from dfswire.credentialfiles import AUTHORITY_CERTIFICATE, issue_credentials, make_authority
from dfswire.credentials import Credentials
from dfswire.daemon import CALLER, SHOWN
from dfswire.identity import Identity
from metad.admission.calls import Admission
from metad.admission.signer import Signer
from metad.config import MetadConfig
from metad.service import Service, create_service
from metad.storage.database import Database

CLUSTER = "lab"
DAY_S = 86_400.0
BEGIN_S = 1_700_000_000.0

T = TypeVar("T")


@dataclass(frozen=True)
class Party:
    """Who shows a certificate for a key."""

    identity: Identity
    key: bytes
    certificate: bytes  # PEM

    @property
    def shown(self) -> bytes:
        """The certificate as a connection has it."""
        return x509.load_pem_x509_certificate(self.certificate).public_bytes(Encoding.DER)

    @property
    def request(self) -> Sign:
        return Sign(request=request(self.key).decode())


class Admitting:
    """See the module's text.  `now_s` is the time of day."""

    def __init__(self, db: Database, directory: Path) -> None:
        self.now_s = BEGIN_S
        self.authority = make_authority(directory / "authority", CLUSTER, 10 * 365 * DAY_S)
        self.directory = directory
        self._db = db
        self.service: Service
        self.start()

    def start(self) -> None:
        """Start metad, again too."""
        self.service = create_service(
            self._db,
            MetadConfig(url="sqlite://", journal_copies=0),
            now_ns=lambda: int(self.now_s * 1e9),
            signer=self.signer(self.directory / "authority"),
        )

    def signer(self, authority: Path) -> Signer:
        own = self.directory / "metad"
        identity = Identity(CLUSTER, "metad", "metad")
        issue_credentials(self.directory / "authority", identity, own, DAY_S)
        assert (own / AUTHORITY_CERTIFICATE).exists()
        return Signer(authority, DAY_S, Credentials(own))

    @property
    def admission(self) -> Admission:
        return self.service.admission

    def party(self, role: str, name: str, authority: Authority | None = None) -> Party:
        """One that has its certificate from the authority, signed now."""
        key = new_key()
        identity = Identity(CLUSTER, role, name)
        public = _public(key)
        signed = (authority or self.authority).issue(identity, public, DAY_S, now=self.now_s)
        return Party(identity, key, signed)

    async def by(self, party: Party, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call as this party, which is admitted first."""
        tokens = CALLER.set(party.identity), SHOWN.set(party.shown)
        try:
            self.admission.admit(party.identity, party.shown)
            return await call()
        finally:
            CALLER.reset(tokens[0])
            SHOWN.reset(tokens[1])

    async def invite(self, operator: Party, role: str, name: str, valid_s: float = 900.0) -> Party:
        """The guest that is invited."""
        key = new_key()
        message = Invite(role=role, name=name, request=request(key).decode(), valid_s=valid_s)
        signed = await self.by(operator, lambda: self.admission.invite(message))
        certificate = signed.certificate.encode()
        return Party(describe(certificate).identity, key, certificate)

    async def join(self, guest: Party, key: bytes | None = None) -> Party:
        """Who the guest is from then on."""
        key = key or new_key()
        message = Sign(request=request(key).decode())
        signed: Signed = await self.by(guest, lambda: self.admission.join(message))
        certificate = signed.certificate.encode()
        return Party(describe(certificate).identity, key, certificate)


def _public(key: bytes) -> bytes:
    from dfswire.certificates import public_key_of

    return public_key_of(key)
