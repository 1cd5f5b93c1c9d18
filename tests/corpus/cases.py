"""The cases of the corpus: each a signed image or bundle, with the verdict it must have.

A case is named `form/trust/algorithm/twist`. `good` is the twist that is none; every other is one
forgery, in which only the thing it names is wrong, and must be refused; the few twists in `STILL_GOOD`
are unusual and right. Each run signs everything anew, with new keys.
"""

import base64
import copy
import dataclasses
import hashlib
import json

from cryptography.x509.oid import ExtendedKeyUsageOID

from forge import logs
from forge.authorities import der, issuer_extensions, pem
from forge.keys import Key
from forge.logs import b64
from forge.registry import DSSE, SIMPLE

# Forms.
LEGACY = ("sig", "att", "oci11")
BUNDLES = ("bundle", "bundle-att", "tag", "tag-att")
BARE = "blob"
ATTESTATIONS = ("att", "bundle-att", "tag-att")
# Forms that differ from another only in where they are stored: a few algorithms do.
STORAGE = ("oci11", "tag", "tag-att")

ALGORITHMS = {
    # name: (key, scheme, hash)
    "p256-sha256": ("p256", "sha256", "sha256"),
    "p384-sha256": ("p384", "sha256", "sha256"),
    "p384-sha384": ("p384", "sha384", "sha384"),
    "p521-sha256": ("p521", "sha256", "sha256"),
    "p521-sha512": ("p521", "sha512", "sha512"),
    "rsa2048": ("rsa2048", "sha256", "sha256"),
    "rsa3072": ("rsa3072", "sha256", "sha256"),
    "rsa4096": ("rsa4096", "sha256", "sha256"),
    "rsa2048-pss": ("rsa2048", "sha256-pss", "sha256"),
    "rsa3072-pss": ("rsa3072", "sha256-pss", "sha256"),
    "rsa4096-pss": ("rsa4096", "sha256-pss", "sha256"),
    "ed25519": ("ed25519", None, "sha256"),
    "ed25519ph": ("ed25519", "ph", "sha512"),
}
FIRST = "p256-sha256"
FEW = (FIRST, "rsa2048", "ed25519")

KEYS = ("key", "key-set", "key-v2")
CERTIFICATES = ("cert", "cert-tsa")
# Signed by others' code (`mocked.py`): logged, and logged and stamped.
MOCKED = ("mock-set", "mock-tsa")
KEYLESS = ("keyless-set", "keyless-v2", "keyless-tsa", *MOCKED)
LOGGED = ("key-set", "key-v2", "keyless-set", "keyless-v2", *MOCKED)
STAMPED = ("cert-tsa", "keyless-v2", "keyless-tsa")
TRUSTS = {
    "legacy": ("key", "key-set", "cert", "cert-tsa", "keyless-set", "keyless-tsa"),
    "bundle": ("key", "key-set", "key-v2", "cert", "cert-tsa", "keyless-set", "keyless-v2"),
    "blob": ("key-set", "key-v2", "keyless-set", "keyless-v2"),
}

SUBJECT, ISSUER = "https://git.example/org/app/build.yml@refs/heads/main", "https://issuer.example"
# Names of each kind that a certificate can have, and one like each that somebody else has.
NAMES = {
    "email": ("dev@app.example", "dev@app.example.org"),
    "dns": ("build.app.example", "build.app.example.org"),
    "ip": ("192.0.2.7", "192.0.2.70"),
    "user": ("dev!app.example", "dev!app.example.org"),
}
SIGN = "https://sigstore.dev/cosign/sign/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
IN_TOTO = "application/vnd.in-toto+json"
V03 = "application/vnd.dev.sigstore.bundle.v0.3+json"

# Twists, and the reason class of the verdict. `*` holds for every form and trust.
TWISTS = {
    "other-key": "signature", "payload-changed": "signature", "signature-empty": "signature",
    "subject-mismatch": "subject", "payload-other-form": "payload",
    # Attestations and bundles.
    "predicate-type": "type", "two-signatures": "envelope", "payload-type": "envelope",
    "statement-garbage": "payload",
    # Logs.
    "entry-other-artifact": "log", "entry-other-key": "log", "entry-other-signature": "log",
    "set-other-log": "log", "set-changed": "log", "no-entry": "log", "proof-changed": "log",
    "checkpoint-other-log": "log", "no-proof": "log", "no-promise": "time", "integrated-outside": "time",
    "integrated-future": "time",
    # Timestamps.
    "no-timestamp": "time", "timestamp-other-authority": "time", "timestamp-over-other": "time",
    "timestamp-after": "time", "timestamp-before": "time",
    # Certificates.
    "expired": "certificate", "other-authority": "certificate", "intermediate-expired": "certificate",
    "server-auth": "certificate",
    "identity": "identity", "issuer": "identity", "no-san": "identity",
    "sct-other-log": "sct", "sct-missing": "sct", "sct-other-certificate": "sct",
    "email-other": "identity", "dns-other": "identity", "ip-other": "identity", "user-other": "identity",
    "leaf-authority": "certificate", "name-constraint": "certificate",
    # Where the signature is: at a child of an index, or not where it is looked for.
    "child-of-signed-index": "absent", "index-of-signed-child": "absent",
    "elsewhere-nothing": "absent", "elsewhere-other-key": "signature",
}
STILL_GOOD = ("entry-intoto2", "entry-intoto1", "entry-rekord", "no-eku", "issuer-old", "issuer-new",
              "one-of-two", "email", "dns", "ip", "user", "strange-timestamp", "strange-log", "index",
              "elsewhere")


@dataclasses.dataclass
class Case:
    """What is asked about a case once it is stored."""
    form: str
    trust: str
    algorithm: str
    twist: str
    # Filled when it is made.
    image: object = None
    bundle: bytes = None
    artifact: bytes = None
    key: str = None
    # Where signatures are looked for, if that is not beside the image.
    repository: str = None

    @property
    def name(self):
        return f"{self.form}/{self.trust}/{self.algorithm}/{self.twist}"

    @property
    def good(self):
        return self.twist == "good" or self.twist in STILL_GOOD

    @property
    def subject(self):
        """Whom the certificate must name."""
        kind = self.twist.removesuffix("-other")
        return NAMES[kind][0] if kind in NAMES else SUBJECT

    @property
    def reason(self):
        return "" if self.good else TWISTS[self.twist]


def cases():
    """The list, the same on each run."""
    found = []
    for form in LEGACY + BUNDLES + (BARE,):
        kind = "legacy" if form in LEGACY else "bundle" if form in BUNDLES else "blob"
        for trust in TRUSTS[kind]:
            for number, algorithm in enumerate(ALGORITHMS):
                if form in STORAGE and algorithm not in FEW:
                    continue
                if not makes_sense(form, trust, algorithm):
                    continue
                found.append(Case(form, trust, algorithm, "good"))
                twists = [t for t in list(TWISTS) + list(STILL_GOOD) if applies(t, form, trust)]
                if form in STORAGE:
                    twists = twists[:3]
                if algorithm != FIRST:
                    # One forgery of each algorithm, each time another.
                    twists = [twists[(number + len(found)) % min(4, len(twists))]]
                found += [Case(form, trust, algorithm, twist) for twist in twists]
    return found


def makes_sense(form, trust, algorithm):
    message = form in ("sig", "oci11", BARE)
    if algorithm == "ed25519ph":
        # Prehashed is what a log gets of a message that it does not see; envelopes are signed purely.
        return message and trust in ("key", "key-set", "keyless-set", "key-v2", "keyless-v2")
    if trust.endswith("v2"):
        # Rekor v2 knows each key with the hash of its strength only, and no pure Ed25519.
        return algorithm not in ("ed25519", "p384-sha256", "p521-sha256")
    # For the same reason no log has a pure signature of a message.
    return not (algorithm == "ed25519" and message and trust in LOGGED)


def applies(twist, form, trust):
    dsse = form in ATTESTATIONS + BUNDLES
    bundle = form in BUNDLES + (BARE,)
    v1, certified = trust.endswith("set"), trust not in KEYS
    return {
        "subject-mismatch": form != BARE,
        "payload-other-form": form in ("sig", "oci11"),
        "predicate-type": form in ATTESTATIONS + ("bundle", "tag"),
        "two-signatures": dsse, "payload-type": dsse, "statement-garbage": dsse,
        "entry-other-artifact": trust in LOGGED, "entry-other-key": trust in LOGGED,
        "entry-other-signature": trust in LOGGED,
        "set-other-log": v1, "set-changed": v1, "no-entry": trust in LOGGED,
        "proof-changed": trust in LOGGED and bundle, "checkpoint-other-log": trust in LOGGED and bundle,
        "no-proof": trust in LOGGED and bundle, "no-promise": trust == "keyless-set" and bundle,
        "integrated-outside": trust == "keyless-set", "integrated-future": v1,
        "no-timestamp": trust in STAMPED, "timestamp-other-authority": trust in STAMPED,
        "timestamp-over-other": trust in STAMPED, "timestamp-after": trust in STAMPED,
        "timestamp-before": trust in STAMPED,
        "expired": trust == "cert", "other-authority": certified, "intermediate-expired": certified,
        "server-auth": certified,
        "identity": trust in KEYLESS, "issuer": trust in KEYLESS, "no-san": trust in KEYLESS,
        "sct-other-log": trust in KEYLESS, "sct-missing": trust in KEYLESS,
        "sct-other-certificate": trust in KEYLESS,
        "entry-intoto2": dsse and v1, "entry-intoto1": form == "att" and v1,
        "entry-rekord": form in ("sig", "oci11") and v1,
        **{twist: trust in KEYLESS for kind in NAMES for twist in (kind, kind + "-other")},
        "leaf-authority": certified, "name-constraint": trust in CERTIFICATES,
        "strange-timestamp": trust == "keyless-set", "strange-log": v1 and bundle,
        **{twist: form != BARE and trust in ("key", "keyless-set") for twist in TWISTS | dict.fromkeys(STILL_GOOD)
           if "index" in twist or twist.startswith("elsewhere")},
        "no-eku": trust in CERTIFICATES, "issuer-old": trust in KEYLESS and not bundle,
        "issuer-new": trust in KEYLESS, "one-of-two": form != BARE,
    }.get(twist, True)


class Maker:
    """Makes cases with the keys of this run."""

    def __init__(self, world, foreign, moment):
        self.world, self.foreign, self.moment = world, foreign, moment
        kinds = {kind for kind, _, _ in ALGORITHMS.values()}
        self.keys = {kind: Key(kind) for kind in sorted(kinds)}
        self.other_keys = {kind: Key(kind) for kind in sorted(kinds)}

    def make(self, case, registry, repository):
        """Signs the case and stores it."""
        stored = digest = None
        if case.form == BARE:
            case.artifact = f"artifact of {case.name}".encode()
        elif "index" in case.twist:
            index, child = registry.index(repository, case.name)
            case.image, stored = {"index": (index, index), "child-of-signed-index": (child, index),
                                  "index-of-signed-child": (index, child)}[case.twist]
        else:
            case.image = stored = registry.image(repository, case.name)
        if case.twist.startswith("elsewhere"):
            case.repository = f"{registry.host}/{repository}-signatures"
            if case.twist != "elsewhere-nothing":
                stored = stored.elsewhere(repository + "-signatures")
        if stored:
            digest = stored.digest
        case.key = self.keys[ALGORITHMS[case.algorithm][0]].pem.decode()
        made = [Making(self, case, digest).made()]
        if case.twist == "one-of-two":
            bad = dataclasses.replace(case, twist="other-key")
            made.insert(0, Making(self, bad, digest).made())
        if case.form in ("sig", "att"):
            stored.layers(case.form, made)
        elif case.form == "oci11":
            stored.artifact(made)
        else:
            case.bundle = made[-1][0]
            if case.form != BARE:
                stored.bundles(made)


class Making:
    """One signature in the making. Each method asks whether the twist is its own."""

    def __init__(self, maker, case, digest):
        self.maker, self.case, self.digest = maker, case, digest
        self.world, self.foreign, self.twist = maker.world, maker.foreign, case.twist
        kind, self.scheme, self.hash = ALGORITHMS[case.algorithm]
        self.key = maker.keys[kind]
        by_other = self.twist in ("other-key", "elsewhere-other-key")
        self.signing_key = maker.other_keys[kind] if by_other else self.key
        self.other_key = maker.other_keys[kind]
        self.more_entries = []
        # Keyless certificates and those with a timestamp have ended since.
        self.time = maker.moment
        self.certificate = self.issued() if case.trust not in KEYS else None

    def made(self):
        case = self.case
        if case.form in ("sig", "oci11"):
            return self.simple_signing()
        if case.form == "att":
            return self.attestation_layer()
        if case.form == BARE:
            return self.message_bundle(), ""
        return self.dsse_bundle(), self.predicate_type()

    # What is signed.

    def claimed(self):
        return "sha256:" + "0" * 64 if self.twist == "subject-mismatch" else self.digest

    def simple_signing(self):
        image, kind = {"docker-manifest-digest": self.claimed()}, "cosign container image signature"
        if self.twist == "payload-other-form":
            kind = "atomic container signature"
        payload = json.dumps({"critical": {
            "identity": {"docker-reference": "registry.example/app"}, "image": image, "type": kind},
            "optional": None}, separators=(",", ":")).encode()
        signature = self.sign(payload)
        stored = payload.replace(b"null", b'{"a":"b"}') if self.twist == "payload-changed" else payload
        annotations = {"dev.cosignproject.cosign/signature": b64(signature)}
        self.annotate(annotations, self.message_entry(payload, signature), signature)
        return SIMPLE, stored, annotations

    def statement(self):
        if self.twist == "statement-garbage":
            return b'{"_type":'
        sign = self.case.form not in ATTESTATIONS
        return json.dumps({
            "_type": "https://in-toto.io/Statement/" + ("v1" if sign else "v0.1"),
            "subject": [{"name": "registry.example/app",
                         "digest": {"sha256": self.claimed().removeprefix("sha256:")}}],
            "predicateType": self.predicate_type(),
            "predicate": {} if sign else {"buildType": "test"}}, separators=(",", ":")).encode()

    def predicate_type(self):
        if self.twist == "predicate-type":
            return "https://other.example/v1"
        return PREDICATE if self.case.form in ATTESTATIONS else SIGN

    def envelope(self):
        """The envelope as stored, and the one that was signed and logged."""
        payload = self.statement()
        kind = "text/plain" if self.twist == "payload-type" else IN_TOTO
        encoded = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
        signature = self.sign(encoded)
        envelope = {"payloadType": kind, "payload": b64(payload), "signatures": [{"sig": b64(signature)}]}
        if self.case.form == "att":
            envelope["signatures"][0]["keyid"] = ""
        if self.twist == "two-signatures":
            envelope["signatures"].append(
                {**envelope["signatures"][0], "sig": b64(self.sign(encoded, self.other_key))})
        stored = copy.deepcopy(envelope)
        if self.twist == "payload-changed":
            stored["payload"] = b64(payload.replace(b"registry.example", b"registry.invalid"))
        return encoded, signature, envelope, stored

    def attestation_layer(self):
        _, signature, envelope, stored = self.envelope()
        raw = lambda value: json.dumps(value, separators=(",", ":")).encode()
        annotations = {"dev.cosignproject.cosign/signature": "", "predicateType": self.predicate_type()}
        # cosign 2 stamps the envelope.
        self.annotate(annotations, self.dsse_entry(raw(envelope), None, signature), raw(envelope))
        return DSSE, raw(stored), annotations

    def dsse_bundle(self):
        encoded, signature, envelope, stored = self.envelope()
        raw = logs.canonical(envelope)
        return self.bundle({"dsseEnvelope": stored}, self.dsse_entry(raw, encoded, signature), signature)

    def message_bundle(self):
        artifact = self.case.artifact
        signature = self.sign(artifact)
        digest = hashlib.new(self.hash, artifact).digest()
        content = {"messageSignature": {
            "messageDigest": {"algorithm": logs.NAMES[self.hash], "digest": b64(digest)},
            "signature": b64(signature)}}
        if self.twist == "payload-changed":
            self.case.artifact += b" that was changed"
        return self.bundle(content, self.message_entry(artifact, signature), signature)

    def sign(self, message, key=None):
        if self.twist == "signature-empty":
            return b""
        return (key or self.signing_key).sign(message, self.scheme)

    # Who signed.

    def issued(self):
        keyless = self.case.trust in KEYLESS
        twist, moment = self.twist, self.maker.moment
        world = self.foreign if twist == "other-authority" else self.world
        if twist == "intermediate-expired":
            authority = world.old_fulcio if keyless else world.old_private
        elif twist == "name-constraint":
            authority = world.constrained
        else:
            authority = world.fulcio if keyless else world.private
        start, end = moment - 60, moment + 540
        if self.case.trust == "cert":
            start, end = moment - 60, moment + 10 * 365 * 86400
            if twist == "expired":
                end = moment + 60
        eku = [ExtendedKeyUsageOID.CODE_SIGNING]
        if twist == "server-auth":
            eku = [ExtendedKeyUsageOID.SERVER_AUTH]
        elif twist == "no-eku":
            eku = []
        if not keyless:
            names, extensions, log = ["uri:" + SUBJECT], [], None
        else:
            names = ["uri:" + (SUBJECT if twist != "identity" else SUBJECT.replace("org", "fork"))]
            if twist == "no-san":
                names = []
            kind, _, other = twist.partition("-")
            if kind in NAMES:
                names = [("other" if kind == "user" else kind) + ":" + NAMES[kind][bool(other)]]
            issuer = ISSUER if twist != "issuer" else "https://other.example"
            extensions = issuer_extensions(issuer)
            if twist == "issuer-old":
                extensions = extensions[:1]
            elif twist == "issuer-new":
                extensions = extensions[1:]
            log = {"sct-other-log": self.foreign.ct, "sct-missing": None,
                   "sct-other-certificate": Mistaken(self.world.ct)}.get(twist, self.world.ct)
        return authority.issue(self.key.public, names, start=start, end=end, eku=eku,
                               extensions=extensions, log=log, authority=twist == "leaf-authority")

    def intermediates(self):
        keyless = self.case.trust in KEYLESS
        world = self.foreign if self.twist == "other-authority" else self.world
        if self.twist == "intermediate-expired":
            return (world.old_fulcio if keyless else world.old_private).chain
        if self.twist == "name-constraint":
            return world.constrained.chain
        return (world.fulcio if keyless else world.private).chain

    def verifier(self):
        """How log entries name the signer: PEM."""
        if self.twist == "entry-other-key":
            return self.other_key.pem
        return pem(self.certificate) if self.certificate else self.key.pem

    # The logs.

    def message_entry(self, message, signature):
        if self.case.trust not in LOGGED or self.twist == "no-entry":
            return None
        if self.twist == "entry-other-artifact":
            message = b"another message"
            signature = self.sign(message)
        if self.twist == "entry-other-signature":
            signature = self.sign(message + b"?")
        hash_ = hashlib.new(self.hash, message).digest()
        if self.twist == "entry-rekord":
            body = logs.rekord(message, signature, self.verifier())
        elif self.case.trust.endswith("v2"):
            body = self.second(message, signature)
        else:
            body = logs.hashedrekord(hash_, signature, self.verifier(), self.hash)
        return self.logged(body)

    def dsse_entry(self, envelope, encoded, signature):
        if self.case.trust not in LOGGED or self.twist == "no-entry":
            return None
        if self.twist in ("entry-other-artifact", "entry-other-signature"):
            parsed = json.loads(envelope)
            if self.twist == "entry-other-artifact":
                parsed["payload"] = b64(b'{"another":"statement"}')
            encoded = b"DSSEv1 28 application/vnd.in-toto+json 23 {\"another\":\"statement\"}"
            signature = self.sign(encoded)
            parsed["signatures"][0]["sig"] = b64(signature)
            envelope = logs.canonical(parsed)
        if self.case.trust.endswith("v2"):
            return self.logged(self.second(encoded, signature))
        if self.twist.startswith("entry-intoto"):
            version = "0.0.2" if self.twist.endswith("2") else "0.0.1"
            return self.logged(logs.intoto(envelope, self.verifier(), version))
        return self.logged(logs.dsse(envelope, self.verifier()))

    def second(self, message, signature):
        if self.twist == "entry-other-key":
            verifier = "publicKey", self.other_key.spki
        elif self.certificate:
            verifier = "x509Certificate", der(self.certificate)
        else:
            verifier = "publicKey", self.key.spki
        return logs.hashedrekord2(message, signature, verifier, self.case.algorithm, self.hash)

    def logged(self, body):
        twist, second = self.twist, self.case.trust.endswith("v2")
        time = self.time
        if twist == "integrated-outside":
            time += 86400
        elif twist == "integrated-future":
            time += 365 * 86400
        log = self.world.rekor2 if second else self.world.rekor1
        entry = log.add(*body, time)
        if twist == "strange-log":
            self.more_entries = [self.foreign.rekor1.add(*body, time)]
        if twist == "set-other-log":
            other = self.foreign.rekor1
            entry["inclusionPromise"]["signedEntryTimestamp"] = b64(other.promise(
                base64.b64decode(entry["canonicalizedBody"]), time, int(entry["logIndex"])))
        elif twist == "set-changed":
            entry["integratedTime"] = str(int(time) + 1)
        elif twist == "proof-changed":
            hashes = entry["inclusionProof"]["hashes"]
            hashes[-1] = b64(b"\0" * 32)
        elif twist == "checkpoint-other-log":
            other = self.foreign.rekor2 if second else self.foreign.rekor1
            size = int(entry["inclusionProof"]["treeSize"])
            root = base64.b64decode(entry["inclusionProof"]["rootHash"])
            key, hint = other.key, log.hint
            text = f"{log.origin}\n{size}\n{b64(root)}\n"
            name = log.origin.split(" - ")[0]
            entry["inclusionProof"]["checkpoint"]["envelope"] = (
                f"{text}\n— {name} {b64(hint[:4] + key.sign(text.encode()))}\n")
        elif twist == "no-proof":
            del entry["inclusionProof"]
        elif twist == "no-promise":
            del entry["inclusionPromise"]
        return entry

    # The timestamps.

    def token(self, over):
        if self.twist == "strange-timestamp":
            return self.foreign.tsa.token(over, self.time)
        if self.case.trust not in STAMPED or self.twist == "no-timestamp":
            return None
        tsa = self.foreign.tsa if self.twist == "timestamp-other-authority" else self.world.tsa
        over = b"something else" if self.twist == "timestamp-over-other" else over
        shift = {"timestamp-after": 86400, "timestamp-before": -3600}.get(self.twist, 0)
        return tsa.token(over, self.time + shift)

    # How it is stored.

    def annotate(self, annotations, entry, stamped):
        if self.certificate:
            annotations["dev.sigstore.cosign/certificate"] = pem(self.certificate).decode()
            annotations["dev.sigstore.cosign/chain"] = pem(*self.intermediates()).decode()
        if entry:
            annotations["dev.sigstore.cosign/bundle"] = json.dumps(logs.legacy(entry))
        if token := self.token(stamped):
            annotations["dev.sigstore.cosign/rfc3161timestamp"] = json.dumps(
                {"SignedRFC3161Timestamp": b64(token)})

    def bundle(self, content, entry, stamped):
        material = {"tlogEntries": ([entry] if entry else []) + self.more_entries}
        if self.certificate:
            material["certificate"] = {"rawBytes": b64(der(self.certificate))}
        else:
            material["publicKey"] = {"hint": self.key.hint}
        if token := self.token(stamped):
            material["timestampVerificationData"] = {"rfc3161Timestamps": [{"signedTimestamp": b64(token)}]}
        return json.dumps({"mediaType": V03, "verificationMaterial": material, **content}).encode()


class Mistaken:
    """A certificate log whose timestamps are about another certificate."""

    def __init__(self, log):
        self.log = log

    def timestamp(self, tbs, issuer_key_hash, milliseconds):
        return self.log.timestamp(tbs + b"\0", issuer_key_hash, milliseconds)
