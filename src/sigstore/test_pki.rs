//! Certificates, certificate transparency timestamps and timestamp tokens for tests. They share no code
//! with what they test: DER and TLS encodings are written here once more, by hand.

#![expect(clippy::cast_possible_truncation, reason = "the lengths in tests are small")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};

use crate::sigstore::Certificate;
use crate::sigstore::test_signer::{Signer, TIME, sha256};

pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// One DER element.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        length @ 0..=0x7f => out.push(length as u8),
        length @ 0x80..=0xff => out.extend([0x81, length as u8]),
        length => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend(content);
    out
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub(crate) fn octets(content: &[u8]) -> Vec<u8> {
    tlv(0x04, content)
}

pub(crate) fn utf8(text: &str) -> Vec<u8> {
    tlv(0x0c, text.as_bytes())
}

pub(crate) fn oid(text: &str) -> Vec<u8> {
    let arcs: Vec<u64> = text.split('.').map(|arc| arc.parse().unwrap()).collect();
    let mut content = Vec::new();
    for arc in [&[arcs[0] * 40 + arcs[1]], &arcs[2..]].concat() {
        let mut groups = vec![(arc & 0x7f) as u8];
        let mut rest = arc >> 7;
        while rest > 0 {
            groups.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        groups.reverse();
        content.extend(groups);
    }
    tlv(0x06, &content)
}

/// `YYYYMMDDhhmmss` of seconds since 1970.
pub(crate) fn digits(seconds: u64) -> String {
    let (mut day, of_day) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}{month:02}{:02}{hour:02}{minute:02}{second:02}", day + 1)
}

pub(crate) fn generalized(seconds: u64) -> Vec<u8> {
    tlv(0x18, format!("{}Z", digits(seconds)).as_bytes())
}

fn name(common: &str) -> Vec<u8> {
    sequence(&[&tlv(0x31, &sequence(&[&oid("2.5.4.3"), &utf8(common)]))])
}

/// A certificate before it is signed: an end entity's, valid for an hour around [`TIME`].
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) subject: String,
    pub(crate) serial: u8,
    /// As it is encoded: 2 for version 3; none for version 1.
    pub(crate) version: Option<u8>,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) extensions: Vec<Vec<u8>>,
}

impl Draft {
    pub(crate) fn new(subject: &str) -> Self {
        Self {
            subject: subject.to_owned(),
            serial: 7,
            version: Some(2),
            from: TIME - 1800,
            to: TIME + 1800,
            extensions: vec![],
        }
    }

    /// A certificate that may issue others.
    pub(crate) fn authority(subject: &str) -> Self {
        Self::new(subject).with(basic_constraints(true)).with(key_usage(0b0000_0100))
    }

    pub(crate) fn with(mut self, extension: Vec<u8>) -> Self {
        self.extensions.push(extension);
        self
    }

    pub(crate) fn valid(mut self, from: u64, to: u64) -> Self {
        (self.from, self.to) = (from, to);
        self
    }

    /// The part that is signed.
    pub(crate) fn body(&self, key: &Signer, issuer: &str, algorithm: &[u8]) -> Vec<u8> {
        let extensions = sequence(&self.extensions.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let extensions = if self.extensions.is_empty() { vec![] } else { tlv(0xa3, &extensions) };
        sequence(&[
            &self.version.map(|version| tlv(0xa0, &tlv(0x02, &[version]))).unwrap_or_default(),
            &tlv(0x02, &[self.serial]),
            algorithm,
            &name(issuer),
            &sequence(&[&generalized(self.from), &generalized(self.to)]),
            &name(&self.subject),
            &key.spki,
            &extensions,
        ])
    }

    /// The certificate of `key`, by `issuer` with this name.
    pub(crate) fn der(&self, key: &Signer, issuer: &str, by: &Signer) -> Vec<u8> {
        let body = self.body(key, issuer, &algorithm(by));
        let signature = [vec![0], by.sign(&body)].concat();
        sequence(&[&body, &algorithm(by), &tlv(0x03, &signature)])
    }

    pub(crate) fn issued(&self, key: &Signer, issuer: &str, by: &Signer) -> Certificate {
        Certificate::from_der(&self.der(key, issuer, by)).unwrap()
    }

    pub(crate) fn self_signed(&self, key: &Signer) -> Certificate {
        self.issued(key, &self.subject, key)
    }
}

/// The signature algorithm of a signer, told from its key.
pub(crate) fn algorithm(by: &Signer) -> Vec<u8> {
    let null = tlv(0x05, &[]);
    match by.spki.len() {
        44 => sequence(&[&oid("1.3.101.112")]),
        91 => sequence(&[&oid("1.2.840.10045.4.3.2")]),
        120 => sequence(&[&oid("1.2.840.10045.4.3.3")]),
        158 => sequence(&[&oid("1.2.840.10045.4.3.4")]),
        _ => sequence(&[&oid("1.2.840.113549.1.1.11"), &null]),
    }
}

pub(crate) fn extension(id: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let flag = if critical { tlv(0x01, &[0xff]) } else { vec![] };
    sequence(&[&oid(id), &flag, &octets(value)])
}

pub(crate) fn basic_constraints(authority: bool) -> Vec<u8> {
    let flag = if authority { tlv(0x01, &[0xff]) } else { vec![] };
    extension("2.5.29.19", true, &sequence(&[&flag]))
}

/// Bits as in the DER: digitalSignature is `0b1000_0000`, keyCertSign `0b0000_0100`.
pub(crate) fn key_usage(bits: u8) -> Vec<u8> {
    extension("2.5.29.15", true, &tlv(0x03, &[bits.trailing_zeros() as u8, bits]))
}

pub(crate) const CODE_SIGNING: &str = "1.3.6.1.5.5.7.3.3";
pub(crate) const TIME_STAMPING: &str = "1.3.6.1.5.5.7.3.8";
pub(crate) const SERVER: &str = "1.3.6.1.5.5.7.3.1";

pub(crate) fn usages(critical: bool, list: &[&str]) -> Vec<u8> {
    extension(
        "2.5.29.37",
        critical,
        &tlv(0x30, &list.iter().flat_map(|usage| oid(usage)).collect::<Vec<_>>()),
    )
}

pub(crate) fn names(critical: bool, list: &[Vec<u8>]) -> Vec<u8> {
    extension("2.5.29.17", critical, &tlv(0x30, &list.concat()))
}

pub(crate) fn email(text: &str) -> Vec<u8> {
    tlv(0x81, text.as_bytes())
}

pub(crate) fn uri(text: &str) -> Vec<u8> {
    tlv(0x86, text.as_bytes())
}

/// Fulcio's otherName.
pub(crate) fn user(text: &str) -> Vec<u8> {
    tlv(0xa0, &[oid("1.3.6.1.4.1.57264.1.7"), tlv(0xa0, &utf8(text))].concat())
}

/// A Fulcio extension in the encoding of its number.
pub(crate) fn fulcio(arc: u32, text: &str) -> Vec<u8> {
    let value = if arc < 7 { text.as_bytes().to_vec() } else { utf8(text) };
    extension(&format!("1.3.6.1.4.1.57264.1.{arc}"), false, &value)
}

/// One certificate transparency timestamp by `log` over this body.
pub(crate) fn sct(log: &Signer, milliseconds: u64, issuer_spki: &[u8], body: &[u8]) -> Vec<u8> {
    let signed = [
        &[0, 0][..],
        &milliseconds.to_be_bytes(),
        &[0, 1],
        &sha256(issuer_spki),
        &(body.len() as u32).to_be_bytes()[1..],
        body,
        &[0, 0],
    ]
    .concat();
    let signature = log.sign(&signed);
    let scheme: &[u8] = match log.spki.len() {
        91 => &[4, 3],
        120 => &[5, 3],
        44 => &[8, 7],
        _ => &[4, 1],
    };
    let length = (signature.len() as u16).to_be_bytes();
    [&[0][..], &sha256(&log.spki), &milliseconds.to_be_bytes(), &[0, 0], scheme, &length, &signature].concat()
}

/// The extension with these timestamps.
pub(crate) fn sct_list(list: &[Vec<u8>]) -> Vec<u8> {
    let with_length = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let list: Vec<u8> = list.iter().flat_map(|one| with_length(one)).collect();
    extension("1.3.6.1.4.1.11129.2.4.2", false, &octets(&with_length(&list)))
}

/// A timestamp token before it is signed.
#[derive(Clone)]
pub(crate) struct TokenDraft {
    pub(crate) time: String,
    pub(crate) over: Vec<u8>,
    /// The name and serial number by which the signer is found.
    pub(crate) issuer: String,
    pub(crate) serial: u8,
    /// The key identifier by which the signer is found instead.
    pub(crate) key_identifier: Option<&'static [u8]>,
    pub(crate) embedded: Vec<Vec<u8>>,
    /// `message-digest` instead of the right one.
    pub(crate) digest: Option<Vec<u8>>,
    pub(crate) content_type: &'static str,
    pub(crate) signers: usize,
    pub(crate) status: Option<u8>,
    /// What is done to the content before it is signed.
    pub(crate) change: fn(Vec<u8>) -> Vec<u8>,
    /// The hash of the content, if not the one that belongs to the key.
    pub(crate) hash: Option<(&'static str, &'static Algorithm)>,
    /// A value beside the right one of `message-digest`, in the same attribute or in one of its own.
    pub(crate) second_digest: Option<SecondDigest>,
}

pub(crate) const HASH_256: (&str, &Algorithm) = ("2.16.840.1.101.3.4.2.1", &SHA256);
pub(crate) const HASH_384: (&str, &Algorithm) = ("2.16.840.1.101.3.4.2.2", &SHA384);
pub(crate) const HASH_512: (&str, &Algorithm) = ("2.16.840.1.101.3.4.2.3", &SHA512);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecondDigest {
    SameAttribute,
    OwnAttribute,
}

const TIMESTAMP_INFO: &str = "1.2.840.113549.1.9.16.1.4";

impl TokenDraft {
    pub(crate) fn new(over: &[u8], issuer: &str) -> Self {
        Self {
            time: format!("{}Z", digits(TIME)),
            over: over.to_vec(),
            issuer: issuer.to_owned(),
            serial: 7,
            key_identifier: None,
            embedded: vec![],
            digest: None,
            content_type: TIMESTAMP_INFO,
            signers: 1,
            status: Some(0),
            change: |content| content,
            hash: None,
            second_digest: None,
        }
    }

    /// Signs it.
    pub(crate) fn signed(&self, by: &Signer) -> Vec<u8> {
        let (hash_id, hash) = self.hash.unwrap_or(match by.spki.len() {
            120 => HASH_384,
            44 => HASH_512,
            _ => HASH_256,
        });
        let hash_algorithm = sequence(&[&oid(hash_id)]);
        let imprint = sequence(&[&hash_algorithm, &octets(digest(hash, &self.over).as_ref())]);
        let info = sequence(&[
            &tlv(0x02, &[1]),
            &oid("1.3.6.1.4.1.57264.2"),
            &imprint,
            &tlv(0x02, &[9]),
            &tlv(0x18, self.time.as_bytes()),
            &sequence(&[&tlv(0x02, &[1])]),
            &tlv(0x02, &[42]),
        ]);
        let info = (self.change)(info);
        let digest = self.digest.clone().unwrap_or_else(|| digest(hash, &info).as_ref().to_vec());
        let attribute = |id: &str, value: Vec<u8>| sequence(&[&oid(id), &tlv(0x31, &value)]);
        // DER sorts a set: the shorter one first.
        let second = octets(&[&digest[..], &[0]].concat());
        let mut value = octets(&digest);
        if self.second_digest == Some(SecondDigest::SameAttribute) {
            value.extend(&second);
        }
        let mut attributes = vec![
            attribute("1.2.840.113549.1.9.3", oid(self.content_type)),
            attribute("1.2.840.113549.1.9.4", value),
        ];
        if self.second_digest == Some(SecondDigest::OwnAttribute) {
            attributes.push(attribute("1.2.840.113549.1.9.4", second));
        }
        attributes.sort();
        let attributes = attributes.concat();
        let identifier = match self.key_identifier {
            None => sequence(&[&name(&self.issuer), &tlv(0x02, &[self.serial])]),
            Some(identifier) => tlv(0x80, identifier),
        };
        let signer = sequence(&[
            &tlv(0x02, &[1]),
            &identifier,
            &hash_algorithm,
            &tlv(0xa0, &attributes),
            &algorithm(by),
            &octets(&by.sign(&tlv(0x31, &attributes))),
        ]);
        let mut embedded = self.embedded.clone();
        embedded.sort();
        let embedded = if embedded.is_empty() { vec![] } else { tlv(0xa0, &embedded.concat()) };
        // Equal elements are one in a set: a second signer differs in its version.
        let second = sequence(&[
            &tlv(0x02, &[3]),
            &sequence(&[&name(&self.issuer), &tlv(0x02, &[self.serial])]),
            &hash_algorithm,
            &algorithm(by),
            &octets(b"x"),
        ]);
        let mut signers = [signer, second][..self.signers].to_vec();
        signers.sort();
        let content = sequence(&[
            &tlv(0x02, &[3]),
            &tlv(0x31, &hash_algorithm),
            &sequence(&[&oid(TIMESTAMP_INFO), &tlv(0xa0, &octets(&info))]),
            &embedded,
            &tlv(0x31, &signers.concat()),
        ]);
        let token = sequence(&[&oid("1.2.840.113549.1.7.2"), &tlv(0xa0, &content)]);
        match self.status {
            None => token,
            Some(status) => sequence(&[&sequence(&[&tlv(0x02, &[status])]), &token]),
        }
    }
}
