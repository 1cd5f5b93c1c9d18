//! Base64 and hashes of texts, and addresses in URLs.

use std::net::IpAddr;

use aws_lc_rs::digest;
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use md5::{Digest as _, Md5};

use super::Kind::Text;
use super::{Arguments, Function, row};
use crate::oci::Digest;
use crate::policy::jmespath::datum::Datum;
use crate::policy::jmespath::interpret::{Evaluated, Interpreter};

pub(super) const FUNCTIONS: &[Function] = &[
    row("base64_decode", &[&[Text]], base64_decode),
    row("base64_encode", &[&[Text]], base64_encode),
    row("is_external_url", &[&[Text]], is_external_url),
    row("md5", &[&[Text]], md5),
    row("sha1", &[&[Text]], sha1),
    row("sha256", &[&[Text]], sha256),
];

/// Padded base64 with line breaks anywhere. Bytes that are no text are refused: as text they would not
/// have the hash that upstream computes of them.
fn base64_decode<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let encoded = arguments.text(0)?;
    run.budget.output(encoded.len())?;
    let unbroken: String = encoded.chars().filter(|found| !matches!(found, '\r' | '\n')).collect();
    let bytes = LENIENT.decode(unbroken).map_err(|error| arguments.failed(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| arguments.refused("gives bytes that are no text"))?;
    Ok(Datum::Text(text.into()))
}

fn base64_encode<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let text = arguments.text(0)?;
    run.budget.output(text.len() / 3 * 4)?;
    Datum::text(&STANDARD.encode(text), run.budget)
}

fn sha256<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    Datum::text(&Digest::of(arguments.text(0)?.as_bytes()).hex(), run.budget)
}

/// Names things; nothing is proven by it.
fn sha1<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, arguments.text(0)?.as_bytes());
    Datum::text(&hex::encode(hash), run.budget)
}

/// Names things; nothing is proven by it.
fn md5<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    Datum::text(&hex::encode(Md5::digest(arguments.text(0)?)), run.budget)
}

/// Whether the host of a URL is an address that is neither loopback nor private. Upstream asks DNS for
/// names; whoever answers for the name would decide, so a name has no answer here.
fn is_external_url<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let refused = || arguments.refused("answers for IP addresses only: names are not looked up on a node");
    let address =
        host(arguments.text(0)?).and_then(|host| host.parse::<IpAddr>().ok()).ok_or_else(refused)?;
    let internal = match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_private(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
    };
    Ok(Datum::Bool(!internal))
}

/// The host of a URL, without brackets.
fn host(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("//")?;
    if !scheme.is_empty() && !scheme.ends_with(':') {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    match place.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').map(|(host, _)| host),
        None => place.split(':').next(),
    }
}

/// Go ignores the bits that the last character has too many.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);
