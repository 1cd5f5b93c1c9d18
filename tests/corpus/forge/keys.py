"""Key pairs of every kind that cosign takes, and how each of them signs."""

import base64
import hashlib

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

CURVES = {"p256": ec.SECP256R1, "p384": ec.SECP384R1, "p521": ec.SECP521R1}
HASHES = {"sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}


class Key:
    """A private key. `kind` is p256, p384, p521, rsa2048, rsa3072, rsa4096 or ed25519."""

    def __init__(self, kind):
        self.kind = kind
        if kind in CURVES:
            self.private = ec.generate_private_key(CURVES[kind]())
        elif kind.startswith("rsa"):
            self.private = rsa.generate_private_key(65537, int(kind[3:]))
        else:
            self.private = ed25519.Ed25519PrivateKey.generate()
        self.public = self.private.public_key()
        self.spki = self.public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.pem = self.public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def id(self):
        """SHA-256 of the DER SubjectPublicKeyInfo: how logs are named."""
        return hashlib.sha256(self.spki).digest()

    @property
    def hint(self):
        """How a bundle names a key."""
        return base64.b64encode(self.id).decode()

    def pkcs8(self, password=None):
        encryption = (serialization.BestAvailableEncryption(password) if password
                      else serialization.NoEncryption())
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    def sign(self, message, scheme=None):
        """Signs a message. `scheme` is a hash, with `-pss` behind it for RSA-PSS, or `ph`."""
        if self.kind == "ed25519":
            return sign_ph(self.private, message) if scheme == "ph" else self.private.sign(message)
        name, _, pss = (scheme or "sha256").partition("-")
        hash_ = HASHES[name]()
        if self.kind in CURVES:
            return self.private.sign(message, ec.ECDSA(hash_))
        if pss:
            pad = padding.PSS(padding.MGF1(hash_), hash_.digest_size)
        else:
            pad = padding.PKCS1v15()
        return self.private.sign(message, pad, hash_)


# Ed25519ph (RFC 8032, section 5.1), which `cryptography` does not have.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def _add(a, b):
    # Extended coordinates (RFC 8032, section 5.1.4).
    x1, y1, z1, t1 = a
    x2, y2, z2, t2 = b
    e = (y1 - x1) * (y2 - x2) % P
    f = (y1 + x1) * (y2 + x2) % P
    g = 2 * t1 * t2 * D % P
    h = 2 * z1 * z2 % P
    e, f, g, h = f - e, h - g, h + g, f + e
    return e * f % P, g * h % P, f * g % P, e * h % P


def _multiply(scalar, point):
    total = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point = _add(point, point)
        scalar >>= 1
    return total


def _base():
    y = 4 * pow(5, P - 2, P) % P
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P)
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x & 1:
        x = P - x
    return x, y, 1, x * y % P


def _encode(point):
    x, y, z, _ = point
    inverse = pow(z, P - 2, P)
    x, y = x * inverse % P, y * inverse % P
    return (y | ((x & 1) << 255)).to_bytes(32, "little")


def sign_ph(private, message):
    seed = private.private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
    public = private.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    domain = b"SigEd25519 no Ed25519 collisions" + b"\x01\x00"
    digest = hashlib.sha512(message).digest()
    head = hashlib.sha512(seed).digest()
    a = int.from_bytes(head[:32], "little") & ((1 << 254) - 8) | (1 << 254)
    number = lambda data: int.from_bytes(hashlib.sha512(domain + data).digest(), "little") % L
    r = number(head[32:] + digest)
    point = _encode(_multiply(r, _base()))
    s = (r + number(point + public + digest) * a) % L
    return point + s.to_bytes(32, "little")
