"""Who signs certificates in metad's process: the cluster's authority, read from its directory.

Used by the calls `admission.*` and for metad's own certificate.  The two files are read for each
signature, a few in a day for each party: another authority counts at once, and the key is not kept
in memory.
"""

from __future__ import annotations

from pathlib import Path

from dfswire.admission import Signed
from dfswire.certificates import is_signed_by
from dfswire.credentialfiles import load_authority
from dfswire.credentials import CERTIFICATE, Credentials
from dfswire.errors import UsageError
from dfswire.identity import Identity


class Signer:
    """Signs for `certificate_s` seconds with the authority in `directory`."""

    def __init__(self, directory: Path, certificate_s: float, own: Credentials) -> None:
        """Raises UsageError, OSError when there is no authority, or not the one of metad's own
        certificate, which nobody would trust."""
        self._directory = directory
        self._certificate_s = certificate_s
        authority = load_authority(directory)
        own_pem = (own.directory / CERTIFICATE).read_bytes()
        if not is_signed_by(own_pem, authority.certificate_pem):
            raise UsageError(
                f"authority: the one in {directory} has not signed {own.directory / CERTIFICATE}"
            )

    def sign(
        self,
        identity: Identity,
        public_key_pem: bytes,
        *,
        now: float,
        valid_s: float | None = None,
    ) -> Signed:
        """A certificate for whoever has the key, from `now` (Unix seconds).

        Raises UsageError, OSError.
        """
        authority = load_authority(self._directory)
        lives_s = self._certificate_s if valid_s is None else valid_s
        certificate = authority.issue(identity, public_key_pem, lives_s, now=now)
        return Signed(
            certificate=certificate.decode(), authority=authority.certificate_pem.decode()
        )
