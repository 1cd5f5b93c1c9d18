"""Certificate authorities as Fulcio and private PKIs have them, and a certificate log."""

import base64
import datetime
import hashlib
import ipaddress
import struct

from asn1crypto import core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .keys import Key

FULCIO = "1.3.6.1.4.1.57264.1."
POISON = "1.3.6.1.4.1.11129.2.4.3"
SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
OTHER_NAME = x509.ObjectIdentifier(FULCIO + "7")


def at(seconds):
    return datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)


def name(common):
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "pullgate test"),
                      x509.NameAttribute(NameOID.COMMON_NAME, common)])


def pem(*certificates):
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def der(certificate):
    return certificate.public_bytes(serialization.Encoding.DER)


def san(text):
    """A subject alternative name: `email:`, `uri:`, `dns:`, `ip:` or `other:` and the value."""
    kind, _, value = text.partition(":")
    if kind == "email":
        return x509.RFC822Name(value)
    if kind == "uri":
        return x509.UniformResourceIdentifier(value)
    if kind == "dns":
        return x509.DNSName(value)
    if kind == "ip":
        return x509.IPAddress(ipaddress.ip_address(value))
    return x509.OtherName(OTHER_NAME, core.UTF8String(value).dump())


class Authority:
    """A certificate with its key, and those above it."""

    def __init__(self, common, parent=None, kind="p256", start=0, end=2**32, eku=(), path_length=None,
                 permitted=()):
        self.key = Key(kind)
        self.parent = parent
        builder = (
            x509.CertificateBuilder().subject_name(name(common))
            .issuer_name(parent.certificate.subject if parent else name(common))
            .public_key(self.key.public).serial_number(x509.random_serial_number())
            .not_valid_before(at(start)).not_valid_after(at(end))
            .add_extension(x509.BasicConstraints(True, path_length), True)
            .add_extension(key_usage(key_cert_sign=True, crl_sign=True), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public), False))
        if parent:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(parent.key.public), False)
        if eku:
            builder = builder.add_extension(x509.ExtendedKeyUsage(eku), False)
        if permitted:
            builder = builder.add_extension(
                x509.NameConstraints([san(n) for n in permitted], None), True)
        self.certificate = builder.sign((parent or self).key.private, algorithm((parent or self).key))

    @property
    def chain(self):
        """From this certificate to the root."""
        return [self.certificate] + (self.parent.chain if self.parent else [])

    def issue(self, public, names=(), *, start, end, eku=(ExtendedKeyUsageOID.CODE_SIGNING,),
              extensions=(), log=None, critical_eku=False, usage=True, names_critical=True,
              authority=False):
        """A leaf for a public key. `extensions` are (OID, DER); with a `log` it carries that log's timestamp (SCT)."""
        builder = (
            x509.CertificateBuilder().subject_name(x509.Name([]) if names else name("leaf"))
            .issuer_name(self.certificate.subject).public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(at(start)).not_valid_after(at(end))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public), False))
        if usage:
            uses = key_usage(digital_signature=True, key_cert_sign=authority)
            builder = builder.add_extension(uses, True)
        if authority:
            builder = builder.add_extension(x509.BasicConstraints(True, None), True)
        if eku:
            builder = builder.add_extension(x509.ExtendedKeyUsage(eku), critical_eku)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([san(n) for n in names]), names_critical)
        for oid, value in extensions:
            builder = builder.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), False)
        make = lambda b: b.sign(self.key.private, algorithm(self.key))
        if log:
            tbs = make(builder).tbs_certificate_bytes
            sct = log.timestamp(tbs, self.key.id, start * 1000)
            builder = builder.add_extension(x509.UnrecognizedExtension(SCT_LIST, sct_list(sct)), False)
        return make(builder)


def issuer_extensions(issuer, both=True, **more):
    """The issuer as Fulcio writes it: OID 1.1 raw, OID 1.8 as a UTF8String; more by last number."""
    extensions = [(FULCIO + "8", core.UTF8String(issuer).dump())]
    if both:
        extensions.insert(0, (FULCIO + "1", issuer.encode()))
    for number, value in more.items():
        number = int(number.removeprefix("n"))
        raw = value.encode() if number < 7 else core.UTF8String(value).dump()
        extensions.append((FULCIO + str(number), raw))
    return extensions


class CertificateLog:
    """A certificate transparency log (RFC 6962) of which only the timestamps are seen."""

    def __init__(self, kind="p256"):
        self.key = Key(kind)

    def timestamp(self, tbs, issuer_key_hash, milliseconds):
        """The SCT over a precertificate: TBS without poison and without SCT list."""
        signed = (b"\0\0" + struct.pack(">Q", milliseconds) + b"\0\x01" + issuer_key_hash
                  + len(tbs).to_bytes(3, "big") + tbs + b"\0\0")
        signature = self.key.sign(signed)
        # Version 1, no extensions; SHA-256 with ECDSA (RFC 5246, section 7.4.1.4.1).
        return (b"\0" + self.key.id + struct.pack(">Q", milliseconds) + b"\0\0"
                + b"\x04\x03" + struct.pack(">H", len(signature)) + signature)

    def answer(self, chain, milliseconds):
        """What `add-pre-chain` answers to DER certificates: the precertificate and its issuers."""
        precertificate = asn1_x509.Certificate.load(chain[0])
        tbs = precertificate["tbs_certificate"]
        kept = [e for e in tbs["extensions"] if e["extn_id"].dotted != POISON]
        tbs["extensions"] = asn1_x509.Extensions(kept)
        issuer = asn1_x509.Certificate.load(chain[1]).public_key.dump()
        sct = self.timestamp(tbs.dump(force=True), hashlib.sha256(issuer).digest(), milliseconds)
        return {"sct_version": 0, "id": base64.b64encode(self.key.id).decode(),
                "timestamp": milliseconds, "extensions": "",
                "signature": base64.b64encode(sct[1 + 32 + 8 + 2:]).decode()}


def sct_list(*scts):
    items = b"".join(struct.pack(">H", len(s)) + s for s in scts)
    return core.OctetString(struct.pack(">H", len(items)) + items).dump()


def key_usage(**set_):
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{n: set_.get(n, False) for n in names})


def algorithm(key):
    return None if isinstance(key.private, ed25519.Ed25519PrivateKey) else hashes.SHA256()
