//! `x509_decode`: a certificate or a request for one as an object.
//!
//! The fields are those of Go's `x509.Certificate` and `x509.CertificateRequest`, as its encoder writes
//! them: bytes in base64, algorithms and usages as Go's numbers, absent lists as null. Only RSA keys, as
//! upstream. Nothing is verified: an expression may look at what an image carries, not trust it.
//!
//! What is not decoded here is left out, so that asking for it is an error and never a wrong null: the
//! fields of name constraints and policies where a certificate has those extensions, URIs in names, the
//! number of an RSA-PSS signature, and the attributes of a request that has any.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use const_oid::ObjectIdentifier;
use const_oid::db::{rfc4519, rfc5280, rfc5912};
use der::asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, UintRef, Utf8StringRef};
use der::{Any, Decode, Encode, Reader, SliceReader, Tag, Tagged};
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::{Map, Value, json};
use spki::SubjectPublicKeyInfoOwned;
use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints, CrlDistributionPoints,
    ExtendedKeyUsage, KeyUsage, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use x509_cert::request::{CertReq, ExtensionReq};
use x509_cert::time::Time;

use super::Kind::Text;
use super::{Arguments, Function, row};
use crate::policy::jmespath::datum::Datum;
use crate::policy::jmespath::interpret::{Evaluated, Interpreter};

pub(super) const FUNCTIONS: &[Function] = &[row("x509_decode", &[&[Text]], x509_decode)];

fn x509_decode<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let text = arguments.text(0)?;
    run.budget.output(text.len().saturating_mul(GROWTH))?;
    run.budget.step(text.len())?;
    if text.len() > TEXT_LIMIT {
        return Err(arguments.refused("takes certificates of 64 KiB at most"));
    }
    let decoded = match <(SectionKind, Vec<u8>)>::from_pem_slice(text.as_bytes()) {
        Ok((SectionKind::Certificate, der)) => certificate(&der),
        Ok((SectionKind::Csr, der)) => request(&der),
        Ok(_) => {
            return Err(arguments.failed("PEM block neither contains a CERTIFICATE or CERTIFICATE REQUEST"));
        }
        Err(_) => return Err(arguments.failed("failed to decode PEM block")),
    };
    decoded.map(Datum::from).map_err(|error| {
        arguments.failed(match error {
            Unusable::Malformed(error) => format!("malformed certificate: {error}"),
            Unusable::NotRsa => "certificate should use rsa algorithm".to_owned(),
            Unusable::Name => "a name has a value that is no text".to_owned(),
        })
    })
}

/// Why a certificate has no object.
enum Unusable {
    Malformed(der::Error),
    NotRsa,
    Name,
}

impl From<der::Error> for Unusable {
    fn from(error: der::Error) -> Self {
        Self::Malformed(error)
    }
}

fn certificate(der: &[u8]) -> Result<Value, Unusable> {
    let certificate = Certificate::from_der(der)?;
    let tbs = &certificate.tbs_certificate;
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    set("Raw", bytes(der));
    set("RawTBSCertificate", bytes(&tbs.to_der()?));
    set("RawSubject", bytes(&tbs.subject.to_der()?));
    set("RawIssuer", bytes(&tbs.issuer.to_der()?));
    set("Version", json!(tbs.version as u8 + 1));
    set("SerialNumber", json!(decimal(tbs.serial_number.as_bytes()).parse::<f64>().unwrap_or(f64::MAX)));
    set("Subject", name(&tbs.subject)?);
    set("Issuer", name(&tbs.issuer)?);
    set("NotBefore", time(tbs.validity.not_before));
    set("NotAfter", time(tbs.validity.not_after));
    key(&mut fields, &tbs.subject_public_key_info)?;
    signature(&mut fields, certificate.signature_algorithm.oid, certificate.signature.raw_bytes());
    let list = tbs.extensions.as_deref().unwrap_or_default();
    extensions(&mut fields, list)?;
    Ok(Value::Object(fields))
}

fn request(der: &[u8]) -> Result<Value, Unusable> {
    let request = CertReq::from_der(der)?;
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    set("Raw", bytes(der));
    set("RawTBSCertificateRequest", bytes(&request.info.to_der()?));
    set("RawSubject", bytes(&request.info.subject.to_der()?));
    set("Version", json!(request.info.version as u8));
    set("Subject", name(&request.info.subject)?);
    set("ExtraExtensions", Value::Null);
    if request.info.attributes.is_empty() {
        set("Attributes", Value::Null);
    }
    key(&mut fields, &request.info.public_key)?;
    signature(&mut fields, request.algorithm.oid, request.signature.raw_bytes());
    let wanted = request.info.attributes.iter().find(|attribute| attribute.oid == rfc5912::ID_EXTENSION_REQ);
    let wanted = wanted.and_then(|attribute| attribute.values.get(0));
    let wanted = wanted.map(|value| ExtensionReq::from_der(&value.to_der()?)).transpose()?;
    let wanted = wanted.map(|wanted| wanted.0).unwrap_or_default();
    fields.insert("Extensions".to_owned(), listed(&wanted));
    alternative_names(&mut fields, &wanted)?;
    Ok(Value::Object(fields))
}

fn key(fields: &mut Map<String, Value>, key: &SubjectPublicKeyInfoOwned) -> Result<(), Unusable> {
    if key.algorithm.oid != rfc5912::RSA_ENCRYPTION {
        return Err(Unusable::NotRsa);
    }
    let mut reader = SliceReader::new(key.subject_public_key.raw_bytes())?;
    let (modulus, exponent) = reader.sequence(|reader| {
        Ok((UintRef::decode(reader)?.as_bytes().to_vec(), UintRef::decode(reader)?.as_bytes().to_vec()))
    })?;
    fields.insert("RawSubjectPublicKeyInfo".to_owned(), bytes(&key.to_der()?));
    fields.insert("PublicKeyAlgorithm".to_owned(), json!(1));
    let exponent: f64 = decimal(&exponent).parse().unwrap_or(f64::MAX);
    fields.insert("PublicKey".to_owned(), json!({"N": decimal(&modulus), "E": exponent}));
    Ok(())
}

fn signature(fields: &mut Map<String, Value>, algorithm: ObjectIdentifier, signature: &[u8]) {
    fields.insert("Signature".to_owned(), bytes(signature));
    if algorithm != rfc5912::ID_RSASSA_PSS {
        let known = SIGNATURES.iter().find(|(oid, _)| *oid == algorithm);
        fields.insert("SignatureAlgorithm".to_owned(), json!(known.map_or(0, |(_, number)| *number)));
    }
}

fn extensions(fields: &mut Map<String, Value>, list: &[Extension]) -> Result<(), Unusable> {
    let mut set = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    set("Extensions", listed(list));
    set("ExtraExtensions", Value::Null);
    let unknown = list.iter().filter(|extension| extension.critical && !HANDLED.contains(&extension.extn_id));
    set("UnhandledCriticalExtensions", or_null(unknown.map(|extension| oid(extension.extn_id)).collect()));

    let usage = find::<KeyUsage>(list, rfc5280::ID_CE_KEY_USAGE)?;
    set("KeyUsage", json!(usage.map_or(0, |usage| usage.0.bits())));
    let purposes =
        find::<ExtendedKeyUsage>(list, rfc5280::ID_CE_EXT_KEY_USAGE)?.map_or_else(Vec::new, |usage| usage.0);
    let number = |purpose: &ObjectIdentifier| PURPOSES.iter().position(|known| known == purpose);
    set(
        "ExtKeyUsage",
        or_null(purposes.iter().filter_map(|purpose| Some(json!(number(purpose)?))).collect()),
    );
    let unknown = purposes.iter().filter(|purpose| number(purpose).is_none());
    set("UnknownExtKeyUsage", or_null(unknown.map(|purpose| oid(*purpose)).collect()));

    let basic = find::<BasicConstraints>(list, rfc5280::ID_CE_BASIC_CONSTRAINTS)?;
    let longest = basic.as_ref().map(|basic| basic.path_len_constraint.map_or(-1, i16::from));
    set("BasicConstraintsValid", json!(basic.is_some()));
    set("IsCA", json!(basic.is_some_and(|basic| basic.ca)));
    set("MaxPathLen", json!(longest.unwrap_or(0)));
    set("MaxPathLenZero", json!(longest == Some(0)));

    let subject = find::<SubjectKeyIdentifier>(list, rfc5280::ID_CE_SUBJECT_KEY_IDENTIFIER)?;
    set("SubjectKeyId", subject.map_or(Value::Null, |id| bytes(id.0.as_bytes())));
    let authority = find::<AuthorityKeyIdentifier>(list, rfc5280::ID_CE_AUTHORITY_KEY_IDENTIFIER)?;
    let authority = authority.and_then(|id| id.key_identifier);
    set("AuthorityKeyId", authority.map_or(Value::Null, |id| bytes(id.as_bytes())));

    let access = find::<AuthorityInfoAccessSyntax>(list, rfc5280::ID_PE_AUTHORITY_INFO_ACCESS)?;
    let access = access.map_or_else(Vec::new, |access| access.0);
    let places = |method| {
        let of_method = access.iter().filter(|place| place.access_method == method);
        or_null(of_method.filter_map(|place| uri(&place.access_location)).collect())
    };
    set("OCSPServer", places(rfc5280::ID_AD_OCSP));
    set("IssuingCertificateURL", places(rfc5280::ID_AD_CA_ISSUERS));
    let lists = find::<CrlDistributionPoints>(list, rfc5280::ID_CE_CRL_DISTRIBUTION_POINTS)?;
    let mut places = Vec::new();
    for point in lists.map_or_else(Vec::new, |lists| lists.0) {
        if let Some(DistributionPointName::FullName(names)) = point.distribution_point {
            places.extend(names.iter().filter_map(uri));
        }
    }
    set("CRLDistributionPoints", or_null(places));

    let has = |id| list.iter().any(|extension| extension.extn_id == id);
    if !has(rfc5280::ID_CE_NAME_CONSTRAINTS) {
        for kind in ["DNSDomains", "EmailAddresses", "IPRanges", "URIDomains"] {
            set(&format!("Permitted{kind}"), Value::Null);
            set(&format!("Excluded{kind}"), Value::Null);
        }
        set("PermittedDNSDomainsCritical", json!(false));
    }
    if !POLICIES.iter().any(|id| has(*id)) {
        for absent in ["Policies", "PolicyIdentifiers", "PolicyMappings"] {
            set(absent, Value::Null);
        }
        for absent in ["InhibitAnyPolicy", "InhibitPolicyMapping", "RequireExplicitPolicy"] {
            set(absent, json!(0));
            set(&format!("{absent}Zero"), json!(false));
        }
    }
    alternative_names(fields, list)
}

fn alternative_names(fields: &mut Map<String, Value>, list: &[Extension]) -> Result<(), Unusable> {
    let names = find::<SubjectAltName>(list, rfc5280::ID_CE_SUBJECT_ALT_NAME)?;
    let names = names.map_or_else(Vec::new, |names| names.0);
    let (mut hosts, mut mails, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
    for name in &names {
        if let GeneralName::DnsName(host) = name {
            hosts.push(json!(host.as_str()));
        }
        if let GeneralName::Rfc822Name(mail) = name {
            mails.push(json!(mail.as_str()));
        }
        if let GeneralName::IpAddress(address) = name {
            let octets = address.as_bytes();
            let four = <[u8; 4]>::try_from(octets).map(|octets| std::net::Ipv4Addr::from(octets).to_string());
            let sixteen = <[u8; 16]>::try_from(octets)
                .map(|octets| std::net::IpAddr::from(octets).to_canonical().to_string());
            addresses.extend(four.or(sixteen).ok().map(Value::String));
        }
    }
    fields.insert("DNSNames".to_owned(), or_null(hosts));
    fields.insert("EmailAddresses".to_owned(), or_null(mails));
    fields.insert("IPAddresses".to_owned(), or_null(addresses));
    if !names.iter().any(|name| matches!(name, GeneralName::UniformResourceIdentifier(_))) {
        fields.insert("URIs".to_owned(), Value::Null);
    }
    Ok(())
}

/// The extension of this type.
fn find<'d, T: Decode<'d>>(list: &'d [Extension], id: ObjectIdentifier) -> Result<Option<T>, der::Error> {
    let found = list.iter().find(|extension| extension.extn_id == id);
    found.map(|extension| T::from_der(extension.extn_value.as_bytes())).transpose()
}

fn listed(list: &[Extension]) -> Value {
    let entry = |extension: &Extension| {
        json!({
            "Id": oid(extension.extn_id),
            "Critical": extension.critical,
            "Value": bytes(extension.extn_value.as_bytes()),
        })
    };
    or_null(list.iter().map(entry).collect())
}

fn name(name: &Name) -> Result<Value, Unusable> {
    let mut names = Vec::new();
    let mut lists: Map<String, Value> =
        LISTS.iter().map(|(_, list)| ((*list).to_owned(), Value::Null)).collect();
    let (mut common, mut serial) = (String::new(), String::new());
    for attribute in name.0.iter().flat_map(|part| part.0.iter()) {
        let AttributeTypeAndValue { oid: id, value } = attribute;
        let text = text(value)?;
        if *id == rfc4519::CN {
            common.clone_from(&text);
        }
        if *id == rfc4519::SERIAL_NUMBER {
            serial.clone_from(&text);
        }
        if let Some((_, list)) = LISTS.iter().find(|(known, _)| known == id) {
            let list = lists.entry(*list).or_insert(Value::Null);
            if let Value::Array(texts) = list {
                texts.push(json!(text));
            } else {
                *list = json!([text]);
            }
        }
        names.push(json!({"Type": oid(*id), "Value": text}));
    }
    let mut fields = lists;
    fields.insert("CommonName".to_owned(), json!(common));
    fields.insert("SerialNumber".to_owned(), json!(serial));
    fields.insert("Names".to_owned(), or_null(names));
    fields.insert("ExtraNames".to_owned(), Value::Null);
    Ok(Value::Object(fields))
}

fn text(value: &Any) -> Result<String, Unusable> {
    let tag = value.tag();
    let text = if tag == Tag::Utf8String {
        value.decode_as::<Utf8StringRef<'_>>()?.as_str().to_owned()
    } else if tag == Tag::PrintableString {
        value.decode_as::<PrintableStringRef<'_>>()?.as_str().to_owned()
    } else if tag == Tag::Ia5String {
        value.decode_as::<Ia5StringRef<'_>>()?.as_str().to_owned()
    } else if tag == Tag::TeletexString {
        value.decode_as::<TeletexStringRef<'_>>()?.as_str().to_owned()
    } else {
        return Err(Unusable::Name);
    };
    Ok(text)
}

fn uri(name: &GeneralName) -> Option<Value> {
    if let GeneralName::UniformResourceIdentifier(uri) = name { Some(json!(uri.as_str())) } else { None }
}

fn time(time: Time) -> Value {
    let date = time.to_date_time();
    let (year, month, day) = (date.year(), date.month(), date.day());
    json!(format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        date.hour(),
        date.minutes(),
        date.seconds()
    ))
}

fn bytes(bytes: &[u8]) -> Value {
    Value::String(STANDARD.encode(bytes))
}

fn oid(id: ObjectIdentifier) -> Value {
    Value::Array(id.arcs().map(|arc| json!(arc)).collect())
}

/// Go's empty lists are null.
fn or_null(list: Vec<Value>) -> Value {
    if list.is_empty() { Value::Null } else { Value::Array(list) }
}

/// A big-endian number in decimal digits.
fn decimal(number: &[u8]) -> String {
    // Little-endian groups of nine digits.
    let mut groups: Vec<u32> = vec![0];
    for byte in number {
        let mut carry = u64::from(*byte);
        for group in &mut groups {
            let value = u64::from(*group) * 256 + carry;
            *group = u32::try_from(value % GROUP).unwrap_or(0);
            carry = value / GROUP;
        }
        if carry > 0 {
            groups.push(u32::try_from(carry).unwrap_or(0));
        }
    }
    let mut digits = groups.pop().unwrap_or(0).to_string();
    for group in groups.iter().rev() {
        digits.push_str(&format!("{group:09}"));
    }
    digits
}

/// 10^9.
const GROUP: u64 = 1_000_000_000;
/// Longer than any certificate in use; the work is quadratic in the length of its numbers.
const TEXT_LIMIT: usize = 64 << 10;
/// How much larger than its text the object of a certificate can be.
const GROWTH: usize = 16;

/// Fields of a name that are lists.
const LISTS: [(ObjectIdentifier, &str); 7] = [
    (rfc4519::C, "Country"),
    (rfc4519::L, "Locality"),
    (rfc4519::O, "Organization"),
    (rfc4519::OU, "OrganizationalUnit"),
    (rfc4519::POSTAL_CODE, "PostalCode"),
    (rfc4519::ST, "Province"),
    (rfc4519::STREET, "StreetAddress"),
];

/// Go's numbers of signature algorithms.
const SIGNATURES: [(ObjectIdentifier, u8); 10] = [
    (rfc5912::MD_5_WITH_RSA_ENCRYPTION, 2),
    (rfc5912::SHA_1_WITH_RSA_ENCRYPTION, 3),
    (rfc5912::SHA_256_WITH_RSA_ENCRYPTION, 4),
    (rfc5912::SHA_384_WITH_RSA_ENCRYPTION, 5),
    (rfc5912::SHA_512_WITH_RSA_ENCRYPTION, 6),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"), 9),
    (rfc5912::ECDSA_WITH_SHA_256, 10),
    (rfc5912::ECDSA_WITH_SHA_384, 11),
    (rfc5912::ECDSA_WITH_SHA_512, 12),
    (const_oid::db::rfc8410::ID_ED_25519, 16),
];

/// Extended key usages by Go's numbers.
const PURPOSES: [ObjectIdentifier; 14] = [
    rfc5280::ANY_EXTENDED_KEY_USAGE,
    rfc5280::ID_KP_SERVER_AUTH,
    rfc5280::ID_KP_CLIENT_AUTH,
    rfc5280::ID_KP_CODE_SIGNING,
    rfc5280::ID_KP_EMAIL_PROTECTION,
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.5"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.6"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.7"),
    rfc5280::ID_KP_TIME_STAMPING,
    rfc5280::ID_KP_OCSP_SIGNING,
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.10.3.3"),
    ObjectIdentifier::new_unwrap("2.16.840.1.113730.4.1"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.22"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.61.1.1"),
];

/// Extensions of policies, whose fields are not decoded.
const POLICIES: [ObjectIdentifier; 4] = [
    rfc5280::ID_CE_CERTIFICATE_POLICIES,
    rfc5280::ID_CE_POLICY_MAPPINGS,
    rfc5280::ID_CE_POLICY_CONSTRAINTS,
    rfc5280::ID_CE_INHIBIT_ANY_POLICY,
];

/// Extensions that Go knows, so that they are handled where they are critical.
const HANDLED: [ObjectIdentifier; 13] = [
    rfc5280::ID_CE_KEY_USAGE,
    rfc5280::ID_CE_BASIC_CONSTRAINTS,
    rfc5280::ID_CE_SUBJECT_ALT_NAME,
    rfc5280::ID_CE_NAME_CONSTRAINTS,
    rfc5280::ID_CE_CRL_DISTRIBUTION_POINTS,
    rfc5280::ID_CE_AUTHORITY_KEY_IDENTIFIER,
    rfc5280::ID_CE_EXT_KEY_USAGE,
    rfc5280::ID_CE_SUBJECT_KEY_IDENTIFIER,
    rfc5280::ID_PE_AUTHORITY_INFO_ACCESS,
    rfc5280::ID_CE_CERTIFICATE_POLICIES,
    rfc5280::ID_CE_POLICY_MAPPINGS,
    rfc5280::ID_CE_POLICY_CONSTRAINTS,
    rfc5280::ID_CE_INHIBIT_ANY_POLICY,
];
