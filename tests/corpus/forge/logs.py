"""Transparency logs: Rekor v1 (signed entry timestamps, checkpoints) and Rekor v2 (tiles).

Bodies are made from what is given, true or not: a forgery is an entry over something else.
"""

import base64
import hashlib
import json

from .keys import Key


def b64(data):
    return base64.b64encode(data).decode()


def canonical(value):
    """RFC 8785, for the ASCII strings and small integers that occur here."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def sha256(data):
    return hashlib.sha256(data)


class Log:
    """A Merkle tree (RFC 6962) with a signed head. `kind` p256 or ed25519 is that of its key."""

    def __init__(self, origin, kind="p256", version=1):
        self.origin, self.version = origin, version
        self.key = Key(kind)
        self.leaves = [hashlib.sha256(b"\0" + str(n).encode()).digest() for n in range(5)]
        if version == 1:
            self.id = self.hint = self.key.id
        else:
            # The key id of a signed note (C2SP signed-note): Ed25519 is type 1.
            raw = self.key.public.public_bytes_raw()
            self.id = self.hint = hashlib.sha256(origin.encode() + b"\n\x01" + raw).digest()

    def head(self, size, root):
        text = f"{self.origin}\n{size}\n{b64(root)}\n".encode()
        signature = self.key.sign(text)
        name = self.origin.split(" - ")[0]
        return f"{text.decode()}\n— {name} {b64(self.hint[:4] + signature)}\n"

    def add(self, kind, version, body, time):
        """An entry as a bundle has it; `set` and `proof` of it are complete."""
        raw = canonical(body)
        index = len(self.leaves)
        self.leaves.append(hashlib.sha256(b"\0" + raw).digest())
        root, hashes = root_of(self.leaves), path_to(index, self.leaves)
        entry = {
            "logIndex": str(index), "logId": {"keyId": b64(self.id)},
            "kindVersion": {"kind": kind, "version": version},
            "inclusionProof": {
                "logIndex": str(index), "rootHash": b64(root), "treeSize": str(len(self.leaves)),
                "hashes": [b64(h) for h in hashes],
                "checkpoint": {"envelope": self.head(len(self.leaves), root)},
            },
            "canonicalizedBody": b64(raw),
        }
        if self.version == 1:
            entry["integratedTime"] = str(int(time))
            entry["inclusionPromise"] = {"signedEntryTimestamp": b64(self.promise(raw, time, index))}
        return entry

    def promise(self, raw, time, index):
        """The signed entry timestamp of Rekor v1."""
        return self.key.sign(canonical({
            "body": b64(raw), "integratedTime": int(time), "logID": self.id.hex(), "logIndex": index}))


def legacy(entry):
    """The entry as cosign's annotation `dev.sigstore.cosign/bundle` has it."""
    return {"SignedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
            "Payload": {"body": entry["canonicalizedBody"], "integratedTime": int(entry["integratedTime"]),
                        "logIndex": int(entry["logIndex"]),
                        "logID": base64.b64decode(entry["logId"]["keyId"]).hex()}}


def root_of(leaves):
    """The root of leaf hashes (RFC 6962, section 2.1)."""
    if len(leaves) == 1:
        return leaves[0]
    split = split_at(leaves)
    return hashlib.sha256(b"\x01" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


def path_to(index, leaves):
    """The audit path of one leaf (section 2.1.1)."""
    if len(leaves) == 1:
        return []
    split = split_at(leaves)
    if index < split:
        return path_to(index, leaves[:split]) + [root_of(leaves[split:])]
    return path_to(index - split, leaves[split:]) + [root_of(leaves[:split])]


def split_at(leaves):
    """The largest power of two below their number."""
    return 1 << ((len(leaves) - 1).bit_length() - 1)


def hashedrekord(digest, signature, verifier, algorithm="sha256"):
    """`verifier` is the PEM of the key or certificate."""
    return "hashedrekord", "0.0.1", {
        "apiVersion": "0.0.1", "kind": "hashedrekord",
        "spec": {"data": {"hash": {"algorithm": algorithm, "value": digest.hex()}},
                 "signature": {"content": b64(signature), "publicKey": {"content": b64(verifier)}}}}


def dsse(envelope, verifier):
    """`envelope` is the exact bytes that were logged."""
    parsed = json.loads(envelope)
    return "dsse", "0.0.1", {
        "apiVersion": "0.0.1", "kind": "dsse",
        "spec": {"envelopeHash": {"algorithm": "sha256", "value": sha256(envelope).hexdigest()},
                 "payloadHash": {"algorithm": "sha256",
                                 "value": sha256(base64.b64decode(parsed["payload"])).hexdigest()},
                 "signatures": [{"signature": s["sig"], "verifier": b64(verifier)}
                                for s in parsed["signatures"]]}}


def intoto(envelope, verifier, version="0.0.2"):
    """Rekor's in-toto kind: 0.0.2 of cosign 2 and sigstore-js, 0.0.1 of cosign 1."""
    parsed = json.loads(envelope)
    payload_hash = {"algorithm": "sha256", "value": sha256(base64.b64decode(parsed["payload"])).hexdigest()}
    envelope_hash = {"algorithm": "sha256", "value": sha256(envelope).hexdigest()}
    if version == "0.0.1":
        spec = {"content": {"hash": envelope_hash, "payloadHash": payload_hash}, "publicKey": b64(verifier)}
    else:
        spec = {"content": {
            "envelope": {"payloadType": parsed["payloadType"],
                         "signatures": [{"publicKey": b64(verifier), "sig": b64(s["sig"].encode())}
                                        for s in parsed["signatures"]]},
            "hash": envelope_hash, "payloadHash": payload_hash}}
    return "intoto", version, {"apiVersion": version, "kind": "intoto", "spec": spec}


def rekord(payload, signature, verifier):
    """What cosign up to 1.2 logged."""
    return "rekord", "0.0.1", {
        "apiVersion": "0.0.1", "kind": "rekord",
        "spec": {"data": {"hash": {"algorithm": "sha256", "value": sha256(payload).hexdigest()}},
                 "signature": {"content": b64(signature), "format": "x509",
                               "publicKey": {"content": b64(verifier)}}}}


DETAILS = {
    "p256-sha256": "PKIX_ECDSA_P256_SHA_256", "p384-sha384": "PKIX_ECDSA_P384_SHA_384",
    "p384-sha256": "PKIX_ECDSA_P384_SHA_256", "p521-sha512": "PKIX_ECDSA_P521_SHA_512",
    "p521-sha256": "PKIX_ECDSA_P521_SHA_256", "ed25519": "PKIX_ED25519", "ed25519ph": "PKIX_ED25519_PH",
    "rsa2048": "PKIX_RSA_PKCS1V15_2048_SHA256", "rsa3072": "PKIX_RSA_PKCS1V15_3072_SHA256",
    "rsa4096": "PKIX_RSA_PKCS1V15_4096_SHA256", "rsa2048-pss": "PKIX_RSA_PSS_2048_SHA256",
    "rsa3072-pss": "PKIX_RSA_PSS_3072_SHA256", "rsa4096-pss": "PKIX_RSA_PSS_4096_SHA256",
}
NAMES = {"sha256": "SHA2_256", "sha384": "SHA2_384", "sha512": "SHA2_512"}


def hashedrekord2(message, signature, verifier, details, hash_="sha256"):
    """Rekor v2. `verifier` is ("publicKey" | "x509Certificate", DER)."""
    field, raw = verifier
    return "hashedrekord", "0.0.2", {
        "apiVersion": "0.0.2", "kind": "hashedrekord",
        "spec": {"hashedRekordV002": {
            "data": {"algorithm": NAMES[hash_], "digest": b64(hashlib.new(hash_, message).digest())},
            "signature": {"content": b64(signature),
                          "verifier": {"keyDetails": DETAILS[details], field: {"rawBytes": b64(raw)}}}}}}
