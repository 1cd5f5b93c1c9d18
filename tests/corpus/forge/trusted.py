"""`trusted_root.json`, and the whole of one Sigstore that signs for the corpus."""

import hashlib

from cryptography.x509.oid import ExtendedKeyUsageOID

from .authorities import Authority, CertificateLog, der
from .logs import Log, b64
from .timestamps import TimestampAuthority


class Sigstore:
    """Authorities, logs and timestamps under fixed names, so that two of them differ in keys only.

    `moment` is when the corpus was signed, in seconds: what is issued for a short time holds around it.
    """

    def __init__(self, moment):
        start, end = moment - 30 * 86400, moment + 3650 * 86400
        self.root = Authority("Fulcio root", start=start, end=end)
        self.fulcio = Authority("Fulcio", self.root, start=start, end=end, path_length=0,
                                eku=[ExtendedKeyUsageOID.CODE_SIGNING])
        # One that ended before the moment.
        self.old_fulcio = Authority("Old Fulcio", self.root, start=start, end=moment - 86400, path_length=0)
        self.private_root = Authority("Private root", start=start, end=end)
        self.private = Authority("Private", self.private_root, start=start, end=end, path_length=0)
        self.old_private = Authority("Old private", self.private_root, start=start, end=moment - 86400,
                                     path_length=0)
        self.constrained = Authority("Constrained", self.private_root, start=start, end=end, path_length=0,
                                     permitted=["uri:git.example"])
        self.ct = CertificateLog()
        self.rekor1 = Log("rekor1.example - 1234567890123456789")
        self.rekor2 = Log("rekor2.example", "ed25519", version=2)
        self.tsa = TimestampAuthority(window=(start, end))

    def trusted_root(self, private=False, mocked=None):
        """With the Fulcio authorities, or with the private ones in their place; beside them those of
        `mocked`, which `sign.js` gives."""
        if private:
            chains = [[self.private, self.private_root], [self.old_private, self.private_root],
                      [self.constrained, self.private_root]]
        else:
            chains = [[self.fulcio, self.root], [self.old_fulcio, self.root]]
        window = {"start": "2020-01-01T00:00:00Z"}

        def key(log, details, url):
            return raw_key(log.key.spki, getattr(log, "id", log.key.id), details, url)

        def raw_key(raw, id_, details, url):
            return {"baseUrl": url, "hashAlgorithm": "SHA2_256",
                    "publicKey": {"rawBytes": b64(raw), "keyDetails": details, "validFor": window},
                    "logId": {"keyId": b64(id_)}}

        def authority(uri, certificates):
            return {"subject": {"organization": "pullgate test", "commonName": uri}, "uri": uri,
                    "certChain": {"certificates": [{"rawBytes": b64(c)} for c in certificates]},
                    "validFor": window}

        root = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [key(self.rekor1, "PKIX_ECDSA_P256_SHA_256", "https://rekor1.example"),
                      key(self.rekor2, "PKIX_ED25519", "https://rekor2.example")],
            "certificateAuthorities": [
                authority(f"https://fulcio{number}.example", [der(a.certificate) for a in chain])
                for number, chain in enumerate(chains)],
            "ctlogs": [key(self.ct, "PKIX_ECDSA_P256_SHA_256", "https://ct.example")],
            "timestampAuthorities": [authority("https://tsa.example", [der(c) for c in self.tsa.chain])],
        }
        if mocked:
            p256 = "PKIX_ECDSA_P256_SHA_256"
            log = lambda name, url: raw_key(mocked[name], hashlib.sha256(mocked[name]).digest(), p256, url)
            root["tlogs"].append(log("log", "https://rekor.mock"))
            root["ctlogs"].append(log("certificateLog", "https://ct.mock"))
            root["certificateAuthorities"].append(authority("https://fulcio.mock", [mocked["authority"]]))
            root["timestampAuthorities"].append(authority("https://tsa.mock", mocked["stamps"]))
        return root
