"""Messages about who is let in: invitations, certificates that metad signs, and their end.

Used by the calls `admission.*`.  Keys never travel: what is sent is a signing request (RFC 2986),
which proves that its sender has the key.  Certificates and requests are PEM, as text.
"""

from __future__ import annotations

from dfswire.messages import Message

INVITATION_MAX_S = 15 * 60.0
"""For how long an invitation is good, at most: somebody is about to use it."""


class Invite(Message, frozen=True, kw_only=True):
    """A guest's certificate, with which `role` `name` can join once, for `valid_s`."""

    role: str
    name: str
    request: str
    valid_s: float = INVITATION_MAX_S

    def __post_init__(self) -> None:
        if not 0 < self.valid_s <= INVITATION_MAX_S:
            raise ValueError(f"valid_s: more than 0, at most {INVITATION_MAX_S:g}")


class Sign(Message, frozen=True, kw_only=True):
    """Whoever makes the call wants a certificate for the key of this request: a guest the one that
    it was invited for, a member its own anew."""

    request: str


class Signed(Message, frozen=True, kw_only=True):
    """The certificate, and the authority that signed it."""

    certificate: str
    authority: str


class Revoke(Message, frozen=True, kw_only=True):
    """What `role` `name` was given until now is not accepted any more."""

    role: str
    name: str
