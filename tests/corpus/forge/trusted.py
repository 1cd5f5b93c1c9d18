"""`trusted_root.json`, and the whole of one Sigstore that signs for the corpus."""

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
        self.ct = CertificateLog()
        self.rekor1 = Log("rekor1.example - 1234567890123456789")
        self.rekor2 = Log("rekor2.example", "ed25519", version=2)
        self.tsa = TimestampAuthority(window=(start, end))

    def trusted_root(self, private=False):
        """With the Fulcio authorities, or with the private ones in their place."""
        chain = [self.private, self.private_root] if private else [self.fulcio, self.root]
        old = [self.old_private, self.private_root] if private else [self.old_fulcio, self.root]
        window = {"start": "2020-01-01T00:00:00Z"}

        def key(log, details, url):
            raw = log.key.spki
            return {"baseUrl": url, "hashAlgorithm": "SHA2_256",
                    "publicKey": {"rawBytes": b64(raw), "keyDetails": details, "validFor": window},
                    "logId": {"keyId": b64(getattr(log, "id", log.key.id))}}

        def authority(uri, certificates):
            return {"subject": {"organization": "pullgate test", "commonName": uri}, "uri": uri,
                    "certChain": {"certificates": [{"rawBytes": b64(der(c))} for c in certificates]},
                    "validFor": window}

        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [key(self.rekor1, "PKIX_ECDSA_P256_SHA_256", "https://rekor1.example"),
                      key(self.rekor2, "PKIX_ED25519", "https://rekor2.example")],
            "certificateAuthorities": [
                authority("https://fulcio.example", [a.certificate for a in chain]),
                authority("https://old.example", [a.certificate for a in old])],
            "ctlogs": [key(self.ct, "PKIX_ECDSA_P256_SHA_256", "https://ct.example")],
            "timestampAuthorities": [authority("https://tsa.example", self.tsa.chain)],
        }
