"""Keys, requests and certificates: what stands in them, what OpenSSL thinks, what is refused."""

from __future__ import annotations

import datetime
import functools
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from dfswire import certificates
from dfswire.certificates import (
    CLOCK_SKEW_S,
    VALID_MAX_S,
    Authority,
    describe,
    describe_authority,
    is_authority,
    new_key,
    public_key_of,
    public_key_of_request,
    request,
)
from dfswire.errors import UsageError
from dfswire.identity import Identity

DAY_S = 86_400.0
NOW = 1_800_000_000.0
PARTY = Identity("c1", "chunkd", "n1")
PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
PLAIN = serialization.NoEncryption()

AUTHORITY = Authority.new("c1", 3650 * DAY_S)
KEY = new_key()
CERTIFICATE = AUTHORITY.issue(PARTY, public_key_of(KEY), 30 * DAY_S)
REQUEST = request(KEY)
RSA = rsa.generate_private_key(65_537, 2048)
P384 = ec.generate_private_key(ec.SECP384R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()


def parsed(certificate_pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(certificate_pem)


def extensions(certificate_pem: bytes) -> dict[str, tuple[x509.ExtensionType, bool]]:
    """Name -> (value, whether it is critical)."""
    return {
        type(each.value).__name__: (each.value, each.critical)
        for each in parsed(certificate_pem).extensions
    }


# --- what stands in them -------------------------------------------------------------------------


def test_an_authority_says_which_cluster_it_is_for() -> None:
    authority = Authority.new("c1", 100 * DAY_S, now=NOW)
    assert authority.cluster == "c1"
    found = describe_authority(authority.certificate_pem)
    assert (found.cluster, found.begins_s, found.ends_s) == (
        "c1",
        NOW - CLOCK_SKEW_S,
        NOW + 100 * DAY_S,
    )
    assert found.serial == parsed(authority.certificate_pem).serial_number
    assert is_authority(authority.certificate_pem)
    assert not is_authority(CERTIFICATE)


def test_what_an_authority_may_do() -> None:
    certificate, found = parsed(AUTHORITY.certificate_pem), extensions(AUTHORITY.certificate_pem)
    assert found["BasicConstraints"] == (x509.BasicConstraints(ca=True, path_length=0), True)
    usage, critical = found["KeyUsage"]
    assert isinstance(usage, x509.KeyUsage)
    assert critical
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert set(found) == {
        *("BasicConstraints", "KeyUsage", "SubjectKeyIdentifier", "SubjectAlternativeName"),
    }
    assert certificate.subject == certificate.issuer
    assert certificate.subject.rfc4514_string() == "CN=dfs c1"


def test_what_a_party_may_do() -> None:
    certificate, found = parsed(CERTIFICATE), extensions(CERTIFICATE)
    assert found["BasicConstraints"] == (x509.BasicConstraints(ca=False, path_length=None), True)
    usage, critical = found["KeyUsage"]
    assert isinstance(usage, x509.KeyUsage)
    assert critical
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (False, False, True)
    names, _ = found["SubjectAlternativeName"]
    assert isinstance(names, x509.SubjectAlternativeName)
    assert [*names] == [x509.UniformResourceIdentifier("dfs://c1/chunkd/n1")]
    purposes, _ = found["ExtendedKeyUsage"]
    assert isinstance(purposes, x509.ExtendedKeyUsage)
    assert {*purposes} == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    issuer, _ = found["AuthorityKeyIdentifier"]
    signer, _ = extensions(AUTHORITY.certificate_pem)["SubjectKeyIdentifier"]
    assert isinstance(issuer, x509.AuthorityKeyIdentifier)
    assert isinstance(signer, x509.SubjectKeyIdentifier)
    assert issuer.key_identifier == signer.digest
    assert "SubjectKeyIdentifier" in found
    assert certificate.subject.rfc4514_string() == "CN=n1"
    assert certificate.issuer == parsed(AUTHORITY.certificate_pem).subject


def test_who_holds_it_and_how_long() -> None:
    authority = Authority.new("c1", 100 * DAY_S, now=NOW)
    pem = authority.issue(PARTY, public_key_of(KEY), 30 * DAY_S, now=NOW + DAY_S)
    found = describe(pem)
    assert found.identity == PARTY
    assert (found.begins_s, found.ends_s) == (NOW + DAY_S - CLOCK_SKEW_S, NOW + 31 * DAY_S)
    assert found.serial == parsed(pem).serial_number
    again = authority.issue(PARTY, public_key_of(KEY), 30 * DAY_S, now=NOW + DAY_S)
    assert describe(again).serial != found.serial


def test_without_a_time_it_begins_now() -> None:
    before_s = datetime.datetime.now(datetime.UTC).timestamp()
    found = describe(AUTHORITY.issue(PARTY, public_key_of(KEY), DAY_S))
    assert abs(found.begins_s + CLOCK_SKEW_S - before_s) < 60
    assert found.ends_s - found.begins_s == pytest.approx(DAY_S + CLOCK_SKEW_S, abs=1)


def test_nothing_outlives_its_authority() -> None:
    authority = Authority.new("c1", 10 * DAY_S, now=NOW)
    end_s = NOW + 10 * DAY_S
    pem = authority.issue(PARTY, public_key_of(KEY), 30 * DAY_S, now=NOW)
    assert describe(pem).ends_s == end_s
    authority.issue(PARTY, public_key_of(KEY), DAY_S, now=end_s - 1)
    with pytest.raises(UsageError, match="no longer valid"):
        authority.issue(PARTY, public_key_of(KEY), DAY_S, now=end_s)


def test_the_longest_names() -> None:
    authority = Authority.new("c" * 63, VALID_MAX_S)
    assert authority.cluster == "c" * 63
    party = Identity("c" * 63, "operator", "n" * 63)
    assert describe(authority.issue(party, public_key_of(KEY), DAY_S)).identity == party


def test_a_key_is_not_shown_by_accident() -> None:
    assert "PRIVATE" not in repr(AUTHORITY)


def test_a_request_carries_the_key() -> None:
    csr = x509.load_pem_x509_csr(request(KEY))
    assert csr.subject == x509.Name([])
    assert public_key_of_request(request(KEY)) == public_key_of(KEY)
    assert new_key() != KEY


# --- what OpenSSL thinks of them -----------------------------------------------------------------


def handshake(tmp_path: Path, trusted: Authority, certificate_pem: bytes) -> ssl.SSLObject:
    """The client's side after both have shown the same certificate.  Raises ssl.SSLError."""
    (tmp_path / "node").write_bytes(KEY + certificate_pem)
    sides: list[ssl.SSLObject] = []
    pipes = ssl.MemoryBIO(), ssl.MemoryBIO()
    for protocol, (incoming, outgoing) in (
        (ssl.PROTOCOL_TLS_CLIENT, pipes),
        (ssl.PROTOCOL_TLS_SERVER, pipes[::-1]),
    ):
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=trusted.certificate_pem.decode())
        context.load_cert_chain(tmp_path / "node")
        server_side = protocol == ssl.PROTOCOL_TLS_SERVER
        sides.append(context.wrap_bio(incoming, outgoing, server_side=server_side))
    waiting = True
    while waiting:
        waiting = False
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting = True
    assert sides[0].getpeercert() == sides[1].getpeercert(), "both were asked for it"
    return sides[0]


def test_openssl_accepts_it_from_server_and_client(tmp_path: Path) -> None:
    peer = handshake(tmp_path, AUTHORITY, CERTIFICATE).getpeercert()
    assert peer is not None
    assert peer["subjectAltName"] == (("URI", PARTY.uri),)


@pytest.mark.parametrize(
    ("trusted", "certificate_pem", "words"),
    [
        (Authority.new("c1", DAY_S), CERTIFICATE, "unable to get local issuer"),
        (Authority.new("c2", DAY_S), CERTIFICATE, "unable to get local issuer"),
        (
            AUTHORITY,
            AUTHORITY.issue(PARTY, public_key_of(KEY), DAY_S, now=NOW - 9000 * DAY_S),
            "has expired",
        ),
        (
            AUTHORITY,
            AUTHORITY.issue(
                PARTY,
                public_key_of(KEY),
                DAY_S,
                now=describe_authority(AUTHORITY.certificate_pem).ends_s - DAY_S,
            ),
            "not yet valid",
        ),
    ],
)
def test_openssl_refuses_others(
    tmp_path: Path, trusted: Authority, certificate_pem: bytes, words: str
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=words):
        handshake(tmp_path, trusted, certificate_pem)


def test_a_party_signs_for_nobody(tmp_path: Path) -> None:
    """What it signs all the same is not believed, whatever it says about itself."""
    false = Authority(certificates._pem(forged(ca=True)), KEY)
    pem = false.issue(PARTY, public_key_of(KEY), DAY_S)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, AUTHORITY, pem + false.certificate_pem)


def forged(*names: x509.GeneralName, ca: bool = False, days: int = 9) -> x509.Certificate:
    """A certificate that the authority signed with other names than it should have."""
    today = datetime.datetime.now(datetime.UTC)
    signer = serialization.load_pem_private_key(AUTHORITY.key_pem, None)
    key = serialization.load_pem_public_key(public_key_of(KEY))
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "n1")]))
        .issuer_name(parsed(AUTHORITY.certificate_pem).subject)
        .public_key(key)
        .serial_number(7)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=days))
    )
    shown = [x509.UniformResourceIdentifier("dfs://c1")] if ca else list(names)
    if shown:
        builder = builder.add_extension(x509.SubjectAlternativeName(shown), critical=False)
    return builder.sign(signer, hashes.SHA256())


# --- what is refused -----------------------------------------------------------------------------


def test_another_clusters_identity_is_not_signed() -> None:
    with pytest.raises(UsageError, match="signs for 'c1' only"):
        AUTHORITY.issue(Identity("c2", "chunkd", "n1"), public_key_of(KEY), DAY_S)


def test_certificate_and_key_of_an_authority_belong_together() -> None:
    with pytest.raises(UsageError, match="not the one of its certificate"):
        Authority(AUTHORITY.certificate_pem, new_key()).issue(PARTY, public_key_of(KEY), DAY_S)


def test_a_partys_certificate_is_no_authority() -> None:
    with pytest.raises(UsageError, match="not the name of an authority"):
        Authority(CERTIFICATE, KEY).issue(PARTY, public_key_of(KEY), DAY_S)
    with pytest.raises(UsageError, match="not the name of a party"):
        describe(AUTHORITY.certificate_pem)


@pytest.mark.parametrize("cluster", ["", "C1", "a/b", "-", "c" * 64])
def test_words_that_are_no_cluster(cluster: str) -> None:
    with pytest.raises(UsageError, match="cluster"):
        Authority.new(cluster, DAY_S)


@pytest.mark.parametrize("valid_s", [0.0, -1.0, VALID_MAX_S + 1, float("inf"), float("nan")])
def test_times_that_are_none(valid_s: float) -> None:
    with pytest.raises(UsageError, match="more than 0"):
        Authority.new("c1", valid_s)
    with pytest.raises(UsageError, match="more than 0"):
        AUTHORITY.issue(PARTY, public_key_of(KEY), valid_s)


GARBAGE = (b"", b"\0\xff", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


@pytest.mark.parametrize(
    ("read", "words", "other"),
    [
        (public_key_of, "private key", CERTIFICATE),
        (request, "private key", public_key_of(KEY)),
        (public_key_of_request, "signing request", CERTIFICATE),
        (describe, "certificate", KEY),
        (describe_authority, "certificate", request(KEY)),
        (is_authority, "certificate", KEY),
        (lambda pem: AUTHORITY.issue(PARTY, pem, DAY_S), "public key", KEY),
        (lambda pem: Authority(AUTHORITY.certificate_pem, pem).issue(PARTY, b"", 1), "key", b"x"),
    ],
)
def test_what_is_not_even_pem_of_that_kind(
    read: Callable[[bytes], object], words: str, other: bytes
) -> None:
    for pem in (*GARBAGE, other):
        with pytest.raises(UsageError, match=f"this is not a.* {words}") as refused:
            read(pem)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", [RSA, P384, ED25519])
def test_other_kinds_of_keys(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
) -> None:
    private = key.private_bytes(PEM, PKCS8, PLAIN)
    public = key.public_key().public_bytes(PEM, SPKI)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    csr = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, digest)
    for attempt in (
        functools.partial(public_key_of, private),
        functools.partial(request, private),
        functools.partial(AUTHORITY.issue, PARTY, public, DAY_S),
        functools.partial(public_key_of_request, csr.public_bytes(PEM)),
    ):
        with pytest.raises(UsageError, match="ECDSA"):
            attempt()


def test_a_key_with_a_password() -> None:
    secret = serialization.BestAvailableEncryption(b"secret")
    key = serialization.load_pem_private_key(KEY, None)
    with pytest.raises(UsageError, match="without a password"):
        public_key_of(key.private_bytes(PEM, PKCS8, secret))


def test_a_request_with_a_wrong_signature() -> None:
    der = bytearray(x509.load_pem_x509_csr(request(KEY)).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    with pytest.raises(UsageError, match="the signature of the signing request is wrong"):
        public_key_of_request(pem_of(bytes(der), "CERTIFICATE REQUEST"))


def der_of(pem: bytes, what: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.decode().replace(what, "CERTIFICATE"))


def pem_of(der: bytes, what: str) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).replace("CERTIFICATE", what).encode()


URI = x509.UniformResourceIdentifier


@pytest.mark.parametrize(
    "names",
    [
        [],
        [x509.DNSName("n1")],
        [x509.DNSName(PARTY.uri)],
        [URI(PARTY.uri), x509.DNSName("n1")],
        [URI(PARTY.uri), URI("dfs://c1/operator/n1")],
        [URI("http://c1/chunkd/n1")],
    ],
)
def test_certificates_with_other_names(names: list[x509.GeneralName]) -> None:
    pem = certificates._pem(forged(*names))
    for read in (describe, describe_authority):
        with pytest.raises(UsageError):
            read(pem)


def test_an_authority_whose_name_is_no_word() -> None:
    for uri in ("dfs://", "dfs://C1", "http://c1"):
        with pytest.raises(UsageError):
            describe_authority(certificates._pem(forged(URI(uri))))


P256_OID = bytes.fromhex("2a8648ce3d030107")


@pytest.mark.parametrize(
    ("read", "what", "pem", "old", "new"),
    [
        # X.509 of version 6
        (describe, "CERTIFICATE", CERTIFICATE, "a003020102", "a003020105"),
        # subjectAltName in place of subjectKeyIdentifier: twice the same extension
        (describe, "CERTIFICATE", CERTIFICATE, "551d0e", "551d11"),
        # the URI as an x400Address, which the library does not read
        (describe, "CERTIFICATE", CERTIFICATE, "86126466733a", "a3126466733a"),
        # no subjectAltName, no basicConstraints
        (describe, "CERTIFICATE", CERTIFICATE, "551d11", "551d63"),
        (is_authority, "CERTIFICATE", CERTIFICATE, "551d13", "551d63"),
        # a curve that nobody knows
        (public_key_of_request, "CERTIFICATE REQUEST", REQUEST, P256_OID.hex(), "2a8648ce3d030177"),
    ],
)
def test_each_way_in_which_the_library_cannot_read(
    read: Callable[[bytes], object], what: str, pem: bytes, old: str, new: str
) -> None:
    der = der_of(pem, what)
    assert der.count(bytes.fromhex(old)) == 1
    with pytest.raises(UsageError, match="this is not a"):
        read(pem_of(der.replace(bytes.fromhex(old), bytes.fromhex(new)), what))


def test_an_authority_with_a_key_that_nobody_knows() -> None:
    der = der_of(AUTHORITY.certificate_pem, "CERTIFICATE")
    pem = pem_of(der.replace(P256_OID, P256_OID[:-1] + b"w"), "CERTIFICATE")
    with pytest.raises(UsageError, match="this is not the certificate of an authority"):
        Authority(pem, AUTHORITY.key_pem).issue(PARTY, public_key_of(KEY), DAY_S)


@given(
    st.sampled_from(
        [
            (describe, "CERTIFICATE", CERTIFICATE),
            (is_authority, "CERTIFICATE", CERTIFICATE),
            (describe_authority, "CERTIFICATE", AUTHORITY.certificate_pem),
            (public_key_of_request, "CERTIFICATE REQUEST", REQUEST),
        ]
    ),
    st.dictionaries(st.integers(0, 999), st.integers(0, 255), min_size=1, max_size=3),
)
def test_a_damaged_certificate_or_request_is_refused_or_read(
    case: tuple[Callable[[bytes], object], str, bytes], damage: dict[int, int]
) -> None:
    """Nothing but a UsageError comes out, whichever octets are wrong."""
    read, what, pem = case
    der = bytearray(der_of(pem, what))
    for place, octet in damage.items():
        der[place % len(der)] = octet
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's, about odd but readable ones
        try:
            read(pem_of(bytes(der), what))
        except UsageError as problem:
            assert str(problem)
