"""The X.509 of a cluster: its authority, and the keys, requests and certificates of its parties.

A cluster has one self-signed authority, which signs one certificate for each party; who that is
stands in it as a URI (identity.py).  Formats are those of RFC 5280 (certificates), RFC 2986
(signing requests) and RFC 5958 (keys), all as PEM; every key is ECDSA on P-256.  Nothing here
touches a file or a connection, and this is the only module that uses the library `cryptography`.
What cannot be read, or is not ours, is a UsageError of one sentence.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dfswire.errors import UsageError
from dfswire.identity import SCHEME, Identity

CLOCK_SKEW_S = 300.0
"""Certificates begin so long ago: a host whose clock is behind accepts a new one at once."""
VALID_MAX_S = 100 * 365.25 * 86_400
COMMON_NAME_MAX = 64  # ub-common-name of RFC 5280
OTHER_KIND = "the key is not one of ECDSA on P-256"

_UNREADABLE = (
    *(ValueError, TypeError, UnsupportedAlgorithm),  # TypeError: the key has a password
    *(x509.InvalidVersion, x509.ExtensionNotFound, x509.DuplicateExtension),
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True)
class Described:
    """What the certificate of a party says.  Times are Unix seconds, both inclusive."""

    identity: Identity
    begins_s: float
    ends_s: float
    serial: int


@dataclass(frozen=True)
class DescribedAuthority:
    """What the certificate of an authority says, likewise."""

    cluster: str
    begins_s: float
    ends_s: float
    serial: int


@dataclass(frozen=True)
class Authority:
    """Who signs for one cluster.  Whoever has its key can be anybody in that cluster."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)

    @classmethod
    def new(cls, cluster: str, valid_s: float, *, now: float | None = None) -> Authority:
        """An authority that is valid for `valid_s` from `now` (Unix seconds).  Raises UsageError.

        It signs itself, and no other authority.
        """
        check_cluster(cluster)
        key_pem = new_key()
        key = _private_key(key_pem)
        # The common name is for people and may be cut off; the URI is what counts.
        name = _common_name(f"dfs {cluster}"[:COMMON_NAME_MAX])
        start_s, ends_s = _period(valid_s, now)
        uri = f"{SCHEME}://{cluster}"
        builder = _unsigned(name, name, key.public_key(), uri, start_s, ends_s)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        builder = builder.add_extension(_usage(authority=True), critical=True)
        return cls(_pem(builder.sign(key, hashes.SHA256())), key_pem)

    @property
    def cluster(self) -> str:
        """The cluster that it signs for.  Raises UsageError."""
        return describe_authority(self.certificate_pem).cluster

    def issue(
        self, identity: Identity, public_key_pem: bytes, valid_s: float, *, now: float | None = None
    ) -> bytes:
        """A certificate for whoever has the key, for `valid_s` from `now` (Unix seconds).

        It ends no later than the authority.  Raises UsageError.
        """
        own = describe_authority(self.certificate_pem)
        if identity.cluster != own.cluster:
            raise UsageError(f"{identity.uri}: this authority signs for {own.cluster!r} only")
        signer, key = _certificate(self.certificate_pem), _private_key(self.key_pem)
        with _reading("the certificate of an authority"):
            matches = signer.public_key() == key.public_key()
        if not matches:
            raise UsageError("the authority's key is not the one of its certificate")
        start_s, ends_s = _period(valid_s, now)
        if own.ends_s <= start_s:
            raise UsageError(f"the authority of {own.cluster!r} is no longer valid: make another")
        builder = _unsigned(
            _common_name(identity.name),
            signer.subject,
            _public_key(public_key_pem),
            identity.uri,
            start_s,
            min(ends_s, own.ends_s),
        )
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        signed_with = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(authority=False), True),
            (x509.ExtendedKeyUsage(purposes), False),
            (signed_with, False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        return _pem(builder.sign(key, hashes.SHA256()))


# --- keys and signing requests -------------------------------------------------------------------


def new_key() -> bytes:
    """A fresh private key: PKCS #8 without a password, as PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_key_of(key_pem: bytes) -> bytes:
    """The public half of a private key, as PEM.  Raises UsageError."""
    return _public_pem(_private_key(key_pem).public_key())


def request(key_pem: bytes) -> bytes:
    """A signing request: proves that its sender has the key.  Raises UsageError.

    It names nobody; who gets which identity is decided by whoever has it signed.
    """
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    return builder.sign(_private_key(key_pem), hashes.SHA256()).public_bytes(
        serialization.Encoding.PEM
    )


def public_key_of_request(csr_pem: bytes) -> bytes:
    """The public key in a signing request whose signature is good, as PEM.  Raises UsageError."""
    with _reading("a signing request"):
        csr = x509.load_pem_x509_csr(csr_pem)
        key = _on_p256(csr.public_key())
        proved = csr.is_signature_valid
    if not proved:
        raise UsageError("the signature of the signing request is wrong")
    return _public_pem(key)


# --- reading certificates ------------------------------------------------------------------------


def describe(certificate_pem: bytes) -> Described:
    """What a party's certificate says.  Raises UsageError.

    Nothing is verified: that is for the TLS handshake, which knows the authority.
    """
    certificate, uri = _certificate_and_uri(certificate_pem)
    return Described(Identity.parse(uri), *_period_and_serial(certificate))


def describe_authority(certificate_pem: bytes) -> DescribedAuthority:
    """What an authority's certificate says.  Raises UsageError."""
    certificate, uri = _certificate_and_uri(certificate_pem)
    scheme, _, cluster = uri.partition("://")
    if scheme != SCHEME or "/" in cluster:
        raise UsageError(f"{uri!r} is not the name of an authority: dfs://CLUSTER")
    check_cluster(cluster)
    return DescribedAuthority(cluster, *_period_and_serial(certificate))


def public_key_in(certificate_pem: bytes) -> bytes:
    """The public key that a certificate is for, as PEM.  Raises UsageError."""
    return _public_pem(_on_p256(_certificate(certificate_pem).public_key()))


def shown_key(certificate_der: bytes) -> bytes:
    """The public key in what a peer has shown in a handshake, as PEM.  Raises UsageError."""
    with _reading("a certificate (DER)"):
        return _public_pem(_on_p256(x509.load_der_x509_certificate(certificate_der).public_key()))


def shown_signed_s(certificate_der: bytes) -> float:
    """When it was signed, in Unix seconds: to the second, rounded down.  Raises UsageError."""
    with _reading("a certificate (DER)"):
        begins = x509.load_der_x509_certificate(certificate_der).not_valid_before_utc
    return begins.timestamp() + CLOCK_SKEW_S


def is_authority(certificate_pem: bytes) -> bool:
    """Whether it is for describe_authority() rather than describe().  Raises UsageError."""
    certificate = _certificate(certificate_pem)
    with _reading("a certificate of a dfs cluster"):
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def authorities_in(pem: bytes) -> list[bytes]:
    """The certificates in the text of an authority.crt, one PEM each.  Raises UsageError."""
    return [_pem(each) for each in _certificates(pem)]


def is_signed_by(certificate_pem: bytes, authorities_pem: bytes) -> bool:
    """Whether one of the authorities has signed this certificate.  Raises UsageError."""
    certificate = _certificate(certificate_pem)
    return any(_has_signed(each, certificate) for each in _certificates(authorities_pem))


def _has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False  # another name, another kind of key, another key
    return True


def check_cluster(cluster: str) -> None:
    """Raises UsageError for a word that cannot name a cluster."""
    Identity(cluster, "operator", "authority")


def _certificate_and_uri(certificate_pem: bytes) -> tuple[x509.Certificate, str]:
    certificate = _certificate(certificate_pem)
    with _reading("a certificate of a dfs cluster"):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        everything = list(names)
    if len(uris) != 1 or len(everything) != 1:
        raise UsageError("the certificate has other names than the one of a dfs cluster")
    return certificate, uris[0]


def _period_and_serial(certificate: x509.Certificate) -> tuple[float, float, int]:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begins.timestamp(), ends.timestamp(), certificate.serial_number


# --- parts ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as problem:
        raise UsageError(f"this is not {what}") from problem


def _private_key(key_pem: bytes) -> ec.EllipticCurvePrivateKey:
    with _reading("a private key (PEM, without a password)"):
        key = serialization.load_pem_private_key(key_pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(OTHER_KIND)
    return key


def _public_key(public_key_pem: bytes) -> ec.EllipticCurvePublicKey:
    with _reading("a public key (PEM)"):
        key = serialization.load_pem_public_key(public_key_pem)
    return _on_p256(key)


def _on_p256(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(OTHER_KIND)
    return key


def _certificate(certificate_pem: bytes) -> x509.Certificate:
    with _reading("a certificate (PEM)"):
        return x509.load_pem_x509_certificate(certificate_pem)


def _certificates(pem: bytes) -> list[x509.Certificate]:
    with _reading("a file of certificates (PEM)"):
        return x509.load_pem_x509_certificates(pem)


def _public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _period(valid_s: float, now: float | None) -> tuple[float, float]:
    """Now, and when it ends, in Unix seconds."""
    if not 0 < valid_s <= VALID_MAX_S:
        raise UsageError(f"valid for {valid_s} s: give more than 0, and at most 100 years")
    start_s = time.time() if now is None else now
    return start_s, start_s + valid_s


def _unsigned(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    uri: str,
    start_s: float,
    ends_s: float,
) -> x509.CertificateBuilder:
    """What all certificates have."""
    begins_s = start_s - CLOCK_SKEW_S
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(begins_s, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(ends_s, datetime.UTC))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    """An authority signs certificates and lists of revoked ones, a party its handshakes."""
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
