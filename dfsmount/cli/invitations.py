"""What an invitation is as text, and what two hosts do with it: one asks for it, one joins.

An invitation is one line: base64 (RFC 4648, for URLs) of a JSON object with the address of metad,
who is invited, the authority to be trusted, and the certificate and key of a guest, with which the
invited party can ask metad once for its own.  It is a secret until it is used or over.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
from pathlib import Path

import msgspec
import trio

from dfswire.admission import INVITATION_MAX_S, Invite, Sign
from dfswire.certificates import Described, describe_authority, new_key, request
from dfswire.client import Client
from dfswire.credentialfiles import Guest, joining, write_guest
from dfswire.credentials import credentials_at
from dfswire.errors import UsageError
from dfswire.identity import Identity

VERSION = 1
TEXT_MAX_BYTES = 65_536
JOIN_DEADLINE_S = 30.0


class Invitation(msgspec.Struct, frozen=True, kw_only=True):
    """What the line says.  Certificates and the key are PEM."""

    version: int
    metad: str
    role: str
    name: str
    authority: str
    certificate: str
    key: str

    def to_text(self) -> str:
        """The line."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode()

    @classmethod
    def parse(cls, text: str) -> Invitation:
        """What a line says.  Raises UsageError."""
        try:
            raw = base64.b64decode(text.strip(), altchars=b"-_", validate=True)
            found = msgspec.json.decode(raw, type=cls)
        except (binascii.Error, ValueError, msgspec.DecodeError) as problem:
            raise UsageError(
                "this is no invitation: give the whole line that 'dfs ca invite' printed"
            ) from problem
        if found.version != VERSION:
            raise UsageError(
                f"the invitation is of version {found.version}, this dfs knows {VERSION}: install "
                "the release of the metad that made it"
            )
        return found


async def invite(client: Client, metad: str, party: Identity, seconds: float, told: str) -> str:
    """Ask the metad at `metad` for an invitation; `told` is the address that it shall name.

    Raises what metad answers.
    """
    key_pem = new_key()
    message = Invite(
        role=party.role,
        name=party.name,
        request=request(key_pem).decode(),
        valid_s=min(seconds, INVITATION_MAX_S),
    )
    signed = await client.call("admission.invite", metad, message)
    return Invitation(
        version=VERSION,
        metad=told,
        role=party.role,
        name=party.name,
        authority=signed.authority,
        certificate=signed.certificate,
        key=key_pem.decode(),
    ).to_text()


def join(invitation: Invitation, metad: str, out: Path) -> Described:
    """Make `out` the directory of credentials of who is invited; ask the metad at `metad`.

    The key is made here and stays here.  Raises UsageError, OSError, what metad answers.
    """
    authority_pem = invitation.authority.encode()
    cluster = describe_authority(authority_pem).cluster
    identity = Identity(cluster, invitation.role, invitation.name)
    with (
        joining(out, identity, authority_pem) as party,
        tempfile.TemporaryDirectory(prefix="dfs-join-") as guest,
    ):
        files = Guest(authority_pem, invitation.certificate.encode(), invitation.key.encode())
        write_guest(Path(guest), files)
        signed = trio.run(_ask, guest, metad, party.request)
        return party.finish(signed)


async def _ask(guest: str, metad: str, request_pem: bytes) -> bytes:
    client = Client(credentials=credentials_at(guest))
    message = Sign(request=request_pem.decode())
    try:
        signed = await client.call("admission.join", metad, message, deadline_s=JOIN_DEADLINE_S)
    finally:
        await client.aclose()
    certificate: str = signed.certificate
    return certificate.encode()
