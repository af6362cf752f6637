"""The calls admission.*: operators invite, guests join, members renew; and who is refused.

An invitation is a certificate too, of the role `guest`: with it one can join once, as the party
that the operator has named, and make no other call.  Who is revoked is refused from that moment on
(`admit`, before each call), and has to be invited again.  The dispatcher has checked roles before
any of this.
"""

from __future__ import annotations

import hashlib
import logging
import math
from typing import TYPE_CHECKING

from dfswire.admission import Invite, Revoke, Sign, Signed
from dfswire.daemon import CALLER, SHOWN
from dfswire.errors import Forbidden, UsageError
from dfswire.identity import GUEST, Identity
from dfswire.messages import Empty
from metad.admission import rows
from metad.admission.rows import Invitation
from metad.state import State

if TYPE_CHECKING:  # the library behind it is not for those without TLS; so below
    from metad.admission.signer import Signer

log = logging.getLogger(__name__)

GUEST_BITS = 128
INVITED = ("chunkd", "client", "operator")
"""Not metad: who has its certificate is believed by all."""


class Admission:
    """See the module's text.  Without a `signer` nothing is signed, but revoked parties are refused
    all the same."""

    def __init__(self, state: State, signer: Signer | None) -> None:
        self._state = state
        self._signer = signer
        self._revoked = rows.revocations(state.db)

    def admit(self, caller: Identity, shown: bytes) -> None:
        """Raises Forbidden for a certificate (DER) that was signed before its party was revoked."""
        from dfswire.certificates import shown_signed_s

        since_s = self._revoked.get((caller.role, caller.name))
        if since_s is not None and shown_signed_s(shown) < since_s:
            raise Forbidden(f"{caller} was revoked: it has to be invited again ('dfs ca invite')")

    async def invite(self, request: Invite) -> Signed:
        """Raises UsageError for a party that cannot be invited."""
        inviter, _ = _caller()
        if request.role not in INVITED:
            raise UsageError(f"no {request.role} is invited: give one of {', '.join(INVITED)}")
        invited = Identity(inviter.cluster, request.role, request.name)
        guest = Identity(inviter.cluster, GUEST, f"{self._state.rng.getrandbits(GUEST_BITS):032x}")
        key_pem = _key_of(request.request)
        signed = self._signs().sign(guest, key_pem, now=self._now_s(), valid_s=request.valid_s)
        now_ns = self._state.wall_ns()
        ends_ns = now_ns + int(request.valid_s * 1e9)
        invitation = Invitation(guest.name, invited.role, invited.name, inviter.name, ends_ns)
        await self._state.db.write(lambda: rows.add_invitation(self._state.db, invitation, now_ns))
        self._tell("party.invited", invited, f"by {inviter}, for {request.valid_s:g} s")
        return signed

    async def join(self, request: Sign) -> Signed:
        """Raises Forbidden when the invitation is used up or over, UsageError."""
        guest, _ = _caller()
        signer = self._signs()
        key_pem = _key_of(request.request)
        key, now_ns = hashlib.sha256(key_pem).digest(), self._state.wall_ns()
        role, name = await self._state.db.write(
            lambda: rows.use_invitation(self._state.db, guest.name, key, now_ns)
        )
        joined = Identity(guest.cluster, role, name)
        signed = signer.sign(joined, key_pem, now=self._from_s(joined))
        self._tell("party.joined", joined, "with an invitation")
        return signed

    async def renew(self, request: Sign) -> Signed:
        """Raises Forbidden when it is for another key than the one that was shown, UsageError."""
        from dfswire.certificates import shown_key

        caller, shown = _caller()
        key_pem = _key_of(request.request)
        if key_pem != shown_key(shown):
            raise Forbidden(f"{caller} asks for a certificate for another key than its own")
        return self._signs().sign(caller, key_pem, now=self._from_s(caller))

    async def revoke(self, request: Revoke) -> Empty:
        """Raises UsageError for a party that cannot be revoked."""
        operator, _ = _caller()
        if request.role not in INVITED:
            raise UsageError(f"no {request.role} is revoked: give one of {', '.join(INVITED)}")
        revoked = Identity(operator.cluster, request.role, request.name)
        # Certificates count in whole seconds, rounded down: one of this second is an old one.
        since_s = math.floor(max(self._now_s(), self._from_s(revoked))) + 1
        # In memory first: refused too much for a moment is better than too little.
        self._revoked[revoked.role, revoked.name] = since_s
        await self._state.db.write(lambda: self._write_revoked(revoked, since_s))
        self._tell("party.revoked", revoked, f"by {operator}")
        return Empty()

    def _write_revoked(self, revoked: Identity, since_s: int) -> None:
        rows.revoke(self._state.db, revoked.role, revoked.name, since_s)
        if revoked.role == "chunkd":
            self._state.owners.free(revoked.name)

    def _signs(self) -> Signer:
        if self._signer is None:
            raise UsageError(
                "this metad signs no certificates: set `authority` in its settings to the "
                "directory of the cluster's authority, or use 'dfs ca issue' where that is"
            )
        return self._signer

    def _now_s(self) -> float:
        return self._state.wall_ns() / 1e9

    def _from_s(self, party: Identity) -> float:
        """Now, or when the party's certificates count again, if that is later."""
        return max(self._now_s(), self._revoked.get((party.role, party.name), 0))

    def _tell(self, kind: str, party: Identity, text: str) -> None:
        log.info("%s: %s %s", kind, party, text)
        self._state.event_log.add(kind, f"{party.role} {party.name}", text)


def _key_of(request_pem: str) -> bytes:
    from dfswire.certificates import public_key_of_request

    return public_key_of_request(request_pem.encode())


def _caller() -> tuple[Identity, bytes]:
    caller, shown = CALLER.get(), SHOWN.get()
    if caller is None:
        raise UsageError("this metad runs without TLS: there are no certificates to ask for")
    return caller, shown
