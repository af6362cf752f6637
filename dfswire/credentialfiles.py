"""The files of a cluster's authority, and those that a party has from it.

    DIR/authority.crt  authority.key            who signs; the key never leaves this directory
    OUT/authority.crt  node.crt  node.key       what one daemon, mount or operator needs

Used by the commands `dfs ca`, by metad, which signs for others, and by whoever renews its own.
Every file is written beside its place, made durable and renamed, so that nobody reads half of
one; keys are readable by their owner only.  A renewal keeps the key and replaces node.crt alone:
whenever it is interrupted, certificate and key belong together.  Two that write into one directory
take turns.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dfswire.certificates import (
    Authority,
    Described,
    authorities_in,
    describe,
    describe_authority,
    is_signed_by,
    new_key,
    public_key_in,
    public_key_of,
    request,
)
from dfswire.errors import UsageError
from dfswire.identity import Identity

AUTHORITY_CERTIFICATE = "authority.crt"
AUTHORITY_KEY = "authority.key"
NODE_CERTIFICATE = "node.crt"
NODE_KEY = "node.key"

PUBLIC_MODE = 0o644
SECRET_MODE = 0o600
DIRECTORY_MODE = 0o700


def make_authority(directory: Path, cluster: str, valid_s: float) -> Authority:
    """A new authority in `directory`, valid for `valid_s`.  Raises UsageError, OSError.

    One that is there already is left as it is: with its key, all that it signed would be lost.
    """
    authority = Authority.new(cluster, valid_s)
    with _own_directory(directory):
        names = (AUTHORITY_KEY, AUTHORITY_CERTIFICATE)
        there = [name for name in names if os.path.lexists(directory / name)]
        if len(there) == 2:
            raise UsageError(f"{directory} has an authority already; nothing was changed")
        if there:
            raise UsageError(
                f"{directory} has {there[0]}, but not the other half of an authority; remove it "
                "if no certificate was ever signed with it"
            )
        _write(directory / AUTHORITY_KEY, authority.key_pem, SECRET_MODE)
        _write(directory / AUTHORITY_CERTIFICATE, authority.certificate_pem, PUBLIC_MODE)
    return authority


def load_authority(directory: Path) -> Authority:
    """The authority in `directory`.  Raises UsageError, OSError."""
    certificate, key = directory / AUTHORITY_CERTIFICATE, directory / AUTHORITY_KEY
    certificate_pem, key_pem = _read(certificate), _read(key)
    if certificate_pem is None or key_pem is None:
        raise UsageError(f"no authority in {directory}: 'dfs ca init {directory}' makes one")
    with about(certificate):
        describe_authority(certificate_pem)
    with about(key):
        public_key_of(key_pem)
    return Authority(certificate_pem, key_pem)


def issue_credentials(
    authority_directory: Path, identity: Identity, out: Path, valid_s: float
) -> Described:
    """Make `out` what `identity` shows to others, or renew it; valid for `valid_s`.

    What is there of another identity or authority is refused.  Raises UsageError, OSError.
    """
    authority = load_authority(authority_directory)
    with _own_directory(out):
        key_pem = _key_to_keep(out, identity, authority.certificate_pem)
        fresh = key_pem is None
        key_pem = key_pem or new_key()
        with about(out / NODE_KEY):
            public_key_pem = public_key_of(key_pem)
        certificate_pem = authority.issue(identity, public_key_pem, valid_s)
        _write_missing(out / AUTHORITY_CERTIFICATE, authority.certificate_pem)
        if fresh:
            _write(out / NODE_KEY, key_pem, SECRET_MODE)
        _write(out / NODE_CERTIFICATE, certificate_pem, PUBLIC_MODE)
    return describe(certificate_pem)


@contextlib.contextmanager
def joining(out: Path, identity: Identity, authority_pem: bytes) -> Iterator[Joining]:
    """Make `out` what `identity` shows to others, with a key that is made there, or is there.

    The key is durable before anybody signs for it, so that a join that was interrupted can be
    repeated with it.  Raises UsageError, OSError, also when `out` is of somebody else.
    """
    with _own_directory(out):
        key_pem = _key_to_keep(out, identity, authority_pem)
        if key_pem is None:
            key_pem = new_key()
            _write(out / NODE_KEY, key_pem, SECRET_MODE)
        with about(out / NODE_KEY):
            joining = Joining(out, identity, request(key_pem), authority_pem)
        yield joining


@dataclass(frozen=True)
class Joining:
    """A party whose certificate is still to be signed: `request` is for whoever does it."""

    out: Path
    identity: Identity
    request: bytes
    authority_pem: bytes

    def finish(self, certificate_pem: bytes) -> Described:
        """Write what was signed.  Raises UsageError when it is not what was asked for, OSError."""
        found = describe(certificate_pem)
        if found.identity != self.identity or not is_signed_by(certificate_pem, self.authority_pem):
            raise UsageError(
                f"{found.identity} of cluster {found.identity.cluster} was signed, which is not "
                f"{self.identity} of this authority: nothing was written"
            )
        _write_missing(self.out / AUTHORITY_CERTIFICATE, self.authority_pem)
        _write(self.out / NODE_CERTIFICATE, certificate_pem, PUBLIC_MODE)
        return found


@dataclass(frozen=True)
class Guest:
    """What an invitation has of its guest, all PEM."""

    authority_pem: bytes
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)


def write_guest(directory: Path, guest: Guest) -> None:
    """Make a directory of credentials of it, for as long as joining takes.  Raises OSError."""
    _write(directory / NODE_KEY, guest.key_pem, SECRET_MODE)
    _write(directory / AUTHORITY_CERTIFICATE, guest.authority_pem, PUBLIC_MODE)
    _write(directory / NODE_CERTIFICATE, guest.certificate_pem, PUBLIC_MODE)


def replace_certificate(out: Path, certificate_pem: bytes) -> Described:
    """Renew what is in `out`: for the same party, and the key that is there.

    Raises UsageError when it is anything else, OSError.
    """
    with _own_directory(out):
        key_pem, old_pem = _read(out / NODE_KEY), _read(out / NODE_CERTIFICATE)
        if key_pem is None or old_pem is None:
            raise UsageError(f"{out} has no credentials any more")
        found = describe(certificate_pem)
        fits = public_key_in(certificate_pem) == public_key_of(key_pem)
        if found.identity != describe(old_pem).identity or not fits:
            raise UsageError(f"a certificate of {found.identity} is not for {out}")
        _write(out / NODE_CERTIFICATE, certificate_pem, PUBLIC_MODE)
    return found


def signing_request(out: Path) -> bytes:
    """What is to be signed so that the certificate in `out` is renewed.  Raises UsageError,
    OSError."""
    key_pem = _read(out / NODE_KEY)
    if key_pem is None:
        raise UsageError(f"{out} has no {NODE_KEY} any more")
    with about(out / NODE_KEY):
        return request(key_pem)


def _key_to_keep(out: Path, identity: Identity, authority_pem: bytes) -> bytes | None:
    """The key in `out`, which may have been made by a run that was interrupted before it signed."""
    trusted = _read(out / AUTHORITY_CERTIFICATE)
    ours = authorities_in(authority_pem)[0]
    if trusted is not None and ours not in authorities_in(trusted):
        raise UsageError(f"{out} has the {AUTHORITY_CERTIFICATE} of another authority")
    certificate_pem, key_pem = _read(out / NODE_CERTIFICATE), _read(out / NODE_KEY)
    if certificate_pem is None:
        return key_pem
    with about(out / NODE_CERTIFICATE):
        holder = describe(certificate_pem).identity
    if holder != identity:
        raise UsageError(f"{out} belongs to {holder.uri}, not to {identity.uri}")
    if key_pem is None:
        # A new key here, and an interruption after it, would leave a pair that does not match.
        raise UsageError(f"{out} has {NODE_CERTIFICATE} without its {NODE_KEY}: remove it first")
    return key_pem


@contextlib.contextmanager
def about(path: Path) -> Iterator[None]:
    """A UsageError within is about this file, and says so."""
    try:
        yield
    except UsageError as problem:
        raise UsageError(f"{path}: {problem}") from problem


# --- files ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _own_directory(directory: Path) -> Iterator[None]:
    """Make `directory` when it is missing, and keep others of these functions out of it."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    for each in missing:
        _sync_directory(each.parent)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # ends with the descriptor
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write_missing(path: Path, content: bytes) -> None:
    if not path.exists():
        _write(path, content, PUBLIC_MODE)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Put a file at `path` that is durable and complete, or leave what is there."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)  # of a run that was interrupted
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask is
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    part.rename(path)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
