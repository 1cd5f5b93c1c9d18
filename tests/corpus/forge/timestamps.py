"""A timestamp authority (RFC 3161)."""

import hashlib

from asn1crypto import algos, cms, core, tsp
from asn1crypto import x509 as asn1_x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from .authorities import Authority, at, der
from .keys import Key


class TimestampAuthority:
    """Root, leaf and key; `window` is the validity of the leaf."""

    def __init__(self, common="TSA", window=(0, 2**32), eku=ExtendedKeyUsageOID.TIME_STAMPING):
        self.root = Authority(f"{common} root")
        self.key = Key("p256")
        self.leaf = self.root.issue(
            self.key.public, start=window[0], end=window[1], eku=[eku], critical_eku=True)

    @property
    def chain(self):
        return [self.leaf, self.root.certificate]

    def token(self, data, time, certificates=None):
        """A TimeStampResp over data at a time, in whole seconds."""
        info = tsp.TSTInfo({
            "version": 1, "policy": "1.3.6.1.4.1.57264.2",
            "message_imprint": {"hash_algorithm": {"algorithm": "sha256"},
                                "hashed_message": hashlib.sha256(data).digest()},
            "serial_number": int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 1,
            "gen_time": at(time),
        }).dump()
        leaf = asn1_x509.Certificate.load(der(self.leaf))
        signing = tsp.SigningCertificateV2({"certs": [tsp.ESSCertIDv2({
            "cert_hash": hashlib.sha256(der(self.leaf)).digest()})]})
        attributes = cms.CMSAttributes([
            {"type": "content_type", "values": ["tst_info"]},
            {"type": "signing_time", "values": [cms.Time({"utc_time": at(time)})]},
            {"type": "message_digest", "values": [hashlib.sha256(info).digest()]},
            {"type": "signing_certificate_v2", "values": [signing]},
        ])
        signed = cms.SignedData({
            "version": "v3",
            "digest_algorithms": [{"algorithm": "sha256"}],
            "encap_content_info": {"content_type": "tst_info", "content": core.ParsableOctetString(info)},
            "certificates": [leaf] if certificates is None else
                            [asn1_x509.Certificate.load(der(c)) for c in certificates],
            "signer_infos": [{
                "version": "v1",
                "sid": cms.SignerIdentifier({"issuer_and_serial_number": {
                    "issuer": leaf.issuer, "serial_number": leaf.serial_number}}),
                "digest_algorithm": {"algorithm": "sha256"},
                "signed_attrs": attributes,
                "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": "sha256_ecdsa"}),
                "signature": self.key.sign(attributes.dump()),
            }],
        })
        return tsp.TimeStampResp({
            "status": {"status": "granted"},
            "time_stamp_token": {"content_type": "signed_data", "content": signed},
        }).dump()
