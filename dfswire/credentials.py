"""The certificate, the key and the authority that one party shows and trusts: a directory of files.

Daemons, mounts and the command line open one when they are told to (`tls`), and give it to their
server and client.  TLS 1.3 only, certificates on both sides, one authority for a cluster and no
other.  The files are looked at whenever a connection begins: a renewed certificate is used from
then on, without a restart; half-written or wrong ones are not, and what was good stays in use.
"""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from dfswire.errors import UsageError
from dfswire.identity import Identity

log = logging.getLogger(__name__)

AUTHORITY, CERTIFICATE, KEY = FILES = ("authority.crt", "node.crt", "node.key")
LOOK_S = 1.0
ENVIRONMENT = "DFS_TLS"  # where a person's command finds its credentials

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class _Loaded:
    """What the files said when they were read."""

    identity: Identity
    begins_s: float
    signed_s: float
    ends_s: float
    trust: bytes
    server: ssl.SSLContext
    client: ssl.SSLContext


class Credentials:
    """Those of one party.  `identity` is its own."""

    def __init__(self, directory: Path) -> None:
        """Raises UsageError when a file is missing, or they do not belong together."""
        self.directory = directory
        self._seen = self._stamp()
        self._loaded = _load(directory)
        self._looked_s = time.monotonic()
        self._refusal = ""

    @property
    def identity(self) -> Identity:
        """Whose they are; a renewed certificate does not change that."""
        return self._loaded.identity

    @property
    def ends_s(self) -> float:
        """When the certificate ends, in Unix seconds."""
        return self._loaded.ends_s

    @property
    def signed_s(self) -> float:
        """When it was signed, likewise."""
        return self._loaded.signed_s

    @property
    def trust(self) -> bytes:
        """Stands for the authorities that are trusted now."""
        return self._loaded.trust

    def still_trusts(self, trust: bytes) -> bool:
        """Are they those of that time?  The files are looked at once in a second at most."""
        if time.monotonic() - self._looked_s > LOOK_S:
            self._fresh()
        return trust == self._loaded.trust

    def for_server(self) -> ssl.SSLContext:
        """For a connection that begins now."""
        return self._fresh().server

    def for_client(self) -> ssl.SSLContext:
        """For a connection that begins now."""
        return self._fresh().client

    def look(self) -> None:
        """Take what is in the files now, if it is good."""
        self._fresh()

    def _fresh(self) -> _Loaded:
        self._looked_s = time.monotonic()
        try:
            stamp = self._stamp()
            if stamp != self._seen:
                self._renew(stamp)
        except UsageError as problem:
            # Until it ends the old certificate is good; with the next connection we look again.
            if str(problem) != self._refusal:
                self._refusal = str(problem)
                log.warning("the new credentials are not used: %s", problem)
        return self._loaded

    def _renew(self, stamp: _Stamp) -> None:
        loaded = _load(self.directory)
        if loaded.identity != self.identity:
            raise UsageError(f"{self.directory} is now of {loaded.identity}, not {self.identity}")
        if not loaded.begins_s <= time.time() < loaded.ends_s:
            raise UsageError(f"{self.directory / CERTIFICATE} is not valid now")
        self._loaded, self._seen, self._refusal = loaded, stamp, ""
        log.info("the certificate of %s was renewed", self.identity)

    def _stamp(self) -> _Stamp:
        try:
            found = [(self.directory / name).stat() for name in FILES]
        except OSError as problem:
            raise UsageError(f"no credentials: {problem.filename}: {problem.strerror}") from problem
        return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)


def credentials_at(directory: str, role: str = "") -> Credentials | None:
    """What a setting says; None for an empty one: without TLS.  Raises UsageError, also when they
    are not of this `role`."""
    if not directory:
        return None
    if not Path(directory).is_absolute():
        raise UsageError(f"tls: {directory!r} is not an absolute path")
    found = Credentials(Path(directory))
    if role and found.identity.role != role:
        raise UsageError(f"{directory} has the credentials of {found.identity}, not of a {role}")
    return found


def credentials_of_environment() -> Credentials | None:
    """What DFS_TLS says.  Raises UsageError."""
    return credentials_at(os.environ.get(ENVIRONMENT, ""))


def _load(directory: Path) -> _Loaded:
    from dfswire.certificates import (  # its library: not for those without TLS
        CLOCK_SKEW_S,
        describe,
        is_signed_by,
    )

    try:
        own_pem = (directory / CERTIFICATE).read_bytes()
        authorities_pem = (directory / AUTHORITY).read_bytes()
        own = describe(own_pem)
        if not is_signed_by(own_pem, authorities_pem):
            raise UsageError(f"{directory}: {AUTHORITY} has not signed {CERTIFICATE}")
        server = _context(ssl.PROTOCOL_TLS_SERVER, directory)
        server.num_tickets = 0  # sessions are not resumed: each connection proves who it is
        client = _context(ssl.PROTOCOL_TLS_CLIENT, directory)
    except ssl.SSLError as problem:
        why = problem.reason or str(problem)
        raise UsageError(f"{directory}: certificate and key do not fit: {why}") from problem
    except OSError as problem:
        raise UsageError(f"no credentials: {problem.filename}: {problem.strerror}") from problem
    trust = hashlib.sha256(authorities_pem).digest()
    signed_s = own.begins_s + CLOCK_SKEW_S
    return _Loaded(own.identity, own.begins_s, signed_s, own.ends_s, trust, server, client)


def _context(protocol: int, directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False  # the name is a URI: securesockets.py compares it
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(directory / AUTHORITY)
    # A password: or OpenSSL asks for one, on the terminal, when the key has one.
    context.load_cert_chain(directory / CERTIFICATE, directory / KEY, password="")
    return context
