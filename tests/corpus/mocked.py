"""Cases that @sigstore/sign signs against @sigstore/mock (`sign.js`): certificates, certificate log, entries
of Rekor v1 and timestamps by code that is neither ours nor `forge/`.

All are signed by one run of that program. A forgery is what it signed with one thing wrong (another name,
another authority, another image), or changed afterwards. Entries for envelopes are of kind `intoto`:
those of kind `dsse` hold what was proposed to the log, not what Rekor makes of it.
"""

import base64
import copy
import json
import os
import subprocess

from cases import BARE, FIRST, IN_TOTO, ISSUER, MOCKED, PREDICATE, SIGN, SUBJECT, Case
from forge.logs import b64, legacy
from forge.registry import SIMPLE

FORMS = ("sig", "bundle", "bundle-att", BARE)
TWISTS = ("payload-changed", "subject-mismatch", "identity", "issuer", "other-authority", "sct-other-log",
          "set-other-log", "set-changed", "proof-changed", "entry-other-artifact", "no-entry",
          "timestamp-over-other", "timestamp-other-authority")


class Mocked:
    """The cases, and whom they are signed by."""

    def __init__(self, tools):
        self.node = tools / "verifiers/node/node_modules"
        self.wanted, self.pending, self.trust, self.pem = [], [], None, {}

    @staticmethod
    def cases():
        found = []
        for form in FORMS:
            for trust in MOCKED:
                twists = [t for t in TWISTS if applies(t, form, trust)]
                found += [Case(form, trust, FIRST, twist) for twist in ("good", *twists)]
        return found

    def prepare(self, case, registry, repository):
        """Pushes the image, and notes what is to be signed."""
        if case.form == BARE:
            case.artifact = f"artifact of {case.name}".encode()
        else:
            case.image = registry.image(repository, case.name)
        twist = case.twist
        instance = {"other-authority": "otherAuthority", "sct-other-log": "otherCertificateLog",
                    "set-other-log": "otherLog", "timestamp-other-authority": "otherStamps"}.get(twist, "own")
        request = {
            "instance": instance, "logged": twist != "no-entry",
            "stamped": case.trust == "mock-tsa",
            "subject": SUBJECT.replace("org", "fork") if twist == "identity" else SUBJECT,
            "issuer": "https://other.example" if twist == "issuer" else ISSUER,
            "data": b64(signed(case)), "type": None if case.form in ("sig", BARE) else IN_TOTO}
        self.wanted += [request, {**request, "data": b64(signed(case) + b" ")}]
        self.pending.append(case)

    def make(self):
        """Has everything signed, and stores it."""
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sign.js")
        result = subprocess.run(["node", script], env={**os.environ, "NODE_PATH": str(self.node)},
                                input=json.dumps(self.wanted).encode(), capture_output=True, timeout=300)
        assert result.returncode == 0, result.stderr.decode()
        answer = json.loads(result.stdout)
        trust, bundles = answer["trust"], iter(answer["bundles"])
        self.trust = {name: base64.b64decode(trust[name]) for name in ("authority", "certificateLog", "log")}
        self.trust["stamps"] = [base64.b64decode(raw) for raw in trust["stamps"]]
        self.pem = {
            "mock-fulcio-all": pem("CERTIFICATE", self.trust["authority"]),
            "mock-rekor": pem("PUBLIC KEY", self.trust["log"]),
            "mock-ct": pem("PUBLIC KEY", self.trust["certificateLog"]),
            "mock-tsa-chain": b"".join(pem("CERTIFICATE", raw) for raw in self.trust["stamps"])}
        for case in self.pending:
            self.store(case, *changed(case, next(bundles), next(bundles)))

    def store(self, case, data, bundle):
        if case.form == BARE:
            case.artifact, case.bundle = data, json.dumps(bundle).encode()
        elif case.form == "sig":
            case.image.layers("sig", [(SIMPLE, data, annotations(bundle))])
        else:
            case.bundle = json.dumps(bundle).encode()
            case.image.bundles([(case.bundle, SIGN if case.form == "bundle" else PREDICATE)])


def applies(twist, form, trust):
    return {
        "subject-mismatch": form != BARE, "proof-changed": form != "sig",
    }.get(twist, trust == "mock-tsa" or not twist.startswith("timestamp"))


def signed(case):
    """The bytes that are signed, or the statement."""
    if case.form == BARE:
        return case.artifact
    digest = "sha256:" + "0" * 64 if case.twist == "subject-mismatch" else case.image.digest
    if case.form == "sig":
        return json.dumps({"critical": {
            "identity": {"docker-reference": "registry.example/app"},
            "image": {"docker-manifest-digest": digest}, "type": "cosign container image signature"},
            "optional": None}, separators=(",", ":")).encode()
    sign = case.form == "bundle"
    return json.dumps({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "registry.example/app", "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": SIGN if sign else PREDICATE, "predicate": {} if sign else {"buildType": "test"},
    }, separators=(",", ":")).encode()


def changed(case, bundle, other):
    """What is stored: the signed bytes and the bundle, changed as the twist says. `other` is about other bytes."""
    data, bundle, twist = signed(case), copy.deepcopy(bundle), case.twist
    material = bundle["verificationMaterial"]
    if twist == "payload-changed":
        if "dsseEnvelope" in bundle:
            bundle["dsseEnvelope"]["payload"] = other["dsseEnvelope"]["payload"]
        else:
            data += b" "
    elif twist == "entry-other-artifact":
        material["tlogEntries"] = other["verificationMaterial"]["tlogEntries"]
    elif twist == "timestamp-over-other":
        material["timestampVerificationData"] = other["verificationMaterial"]["timestampVerificationData"]
    elif twist == "set-changed":
        entry = material["tlogEntries"][0]
        entry["integratedTime"] = str(int(entry["integratedTime"]) + 1)
    elif twist == "proof-changed":
        material["tlogEntries"][0]["inclusionProof"]["rootHash"] = b64(b"\0" * 32)
    return data, bundle


def annotations(bundle):
    """A bundle around a message as a `.sig` layer has it."""
    material = bundle["verificationMaterial"]
    # Around messages it writes version 0.2, with a chain of one.
    leaf = material["x509CertificateChain"]["certificates"][0]["rawBytes"]
    found = {
        "dev.cosignproject.cosign/signature": bundle["messageSignature"]["signature"],
        "dev.sigstore.cosign/certificate": pem("CERTIFICATE", base64.b64decode(leaf)).decode()}
    for entry in material.get("tlogEntries", []):
        found["dev.sigstore.cosign/bundle"] = json.dumps(legacy(entry))
    for stamp in material.get("timestampVerificationData", {}).get("rfc3161Timestamps", []):
        found["dev.sigstore.cosign/rfc3161timestamp"] = json.dumps(
            {"SignedRFC3161Timestamp": stamp["signedTimestamp"]})
    return found


def pem(label, raw):
    text = base64.encodebytes(raw).replace(b"\n", b"")
    lines = [text[n:n + 64] for n in range(0, len(text), 64)]
    return b"\n".join([f"-----BEGIN {label}-----".encode(), *lines, f"-----END {label}-----".encode(), b""])
