//! Proving to a registry who asks.
//!
//! Requests go out without a ping. A 401 brings the challenge, which is remembered for the host and repository, so
//! that later requests carry what it wants from the start. `Basic` sends user and password to the
//! registry itself; `Bearer` asks the realm for a token of the one scope `repository:<path>:pull`.
//!
//! What is remembered saves a request and decides nothing: the registry may want something else by now, and the
//! answers of its token service are not its own (rule D4). Whatever fails with it, the registry is asked, and what
//! it asks for then counts.
//!
//! Where secrets may go (CVE-2019-10214, CVE-2025-27403): to the realm named by a challenge of the
//! registry itself, never of a host it redirected to, and only if the realm is https, is the
//! registry's own origin, or lies on this machine as the registry does. Any other realm is refused
//! when there is a secret to send. Without one, a registry in the clear may name another in the clear, but none
//! on this machine: nobody sends the gate to where he could not go himself.
//!
//! Tokens are kept in memory by (host, scope, hash of the credentials) until four fifths of their
//! life; whoever needs one that is being fetched waits for it, so it is asked for once, and shares its failure.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Url;
use serde::Deserialize;

use super::address::{may_name, may_see_secrets};
use super::credentials::{Credentials, basic_value};
use super::http::{Answer, Call, Post, Step, Transport};
use super::{RegistryError, RequestClass};
use crate::oci::{Digest, Repository};
use crate::outcome::{Contact, Fault, FaultReason};

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password.
    Basic,
    /// A token from a realm.
    Bearer { realm: String, service: Option<String> },
}

/// The tokens at hand.
pub(super) struct Tokens {
    /// For hashes in memory; another one each start.
    key: [u8; 32],
    entries: Mutex<HashMap<TokenKey, Arc<Slot>>>,
    /// What was last asked for, by host and repository.
    challenges: Mutex<HashMap<(String, String), Challenge>>,
}

/// Who asks for what: the arguments that an authorized request needs besides itself.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) repository: &'a Repository,
    pub(super) credentials: &'a Credentials,
    /// The host, and of which registry it is asked.
    pub(super) key: &'a str,
}

impl Asker<'_> {
    /// What is remembered is remembered of the host as it was spoken to: who can answer in its place in the clear
    /// says nothing of what it wants over TLS.
    fn host(self, call: &Call) -> String {
        format!("{} {}", call.url.scheme(), self.key)
    }
}

type Slot = tokio::sync::Mutex<Held>;

/// What is at hand.
#[derive(Default)]
struct Held {
    token: Option<Token>,
    failure: Option<Failure>,
}

/// When a token could not be had, of which realm, and why, without the name of what was looked up.
struct Failure {
    at: Instant,
    realm: String,
    reason: FaultReason,
    words: String,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    host: String,
    path: String,
    credentials: Digest,
}

/// An `Authorization` and until when it may be used.
#[derive(Clone)]
struct Token {
    header: HeaderValue,
    until: Instant,
}

/// An `Authorization` and what a 401 to it would mean.
enum Proof {
    /// Nothing to offer yet.
    Nothing,
    /// Made for this request: a 401 is the last word, unless something else is asked for.
    Fresh(HeaderValue),
    /// A token from memory: it may have been withdrawn.
    Remembered(HeaderValue),
}

impl Tokens {
    pub(super) fn new() -> Result<Self, RegistryError> {
        let mut key = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| RegistryError::Randomness)?;
        Ok(Self { key, entries: Mutex::default(), challenges: Mutex::default() })
    }

    /// Sends `call` with what its host asks for; a 401 that remains is returned as it is.
    pub(super) async fn send(
        &self,
        transport: &Transport,
        step: &Step,
        call: &Call,
        asker: Asker<'_>,
    ) -> Result<Answer, Fault> {
        if let Credentials::RegistryToken(token) = asker.credentials {
            let proof = Proof::Fresh(header(step, &format!("Bearer {token}"))?);
            return show(transport, step, call, asker, &proof).await;
        }
        let known = self.challenge(call, asker);
        let (proof, failed) = match self.proof(transport, step, call, asker, known.as_ref()).await {
            Ok(proof) => (proof, None),
            Err(fault) => (Proof::Nothing, Some(fault)),
        };
        // The registry itself has answered by then, whatever becomes of the token.
        let answered = |fault| Fault { contact: Contact::Answered, ..fault };
        let answer = show(transport, step, call, asker, &proof).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let mut challenge = Challenge::of(&answer);
        if let (Some(fault), None) = (&failed, &challenge) {
            // What is refused to who shows nothing may be there for who has credentials (rule D4).
            return Err(answered(fault.clone()));
        }
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        if challenge.is_none() && proof.header().is_some() {
            // For the same reason only what is wanted counts of this, and what is given.
            let bare = show(transport, step, call, asker, &Proof::Nothing).await?;
            if bare.status.is_success() {
                return Ok(bare);
            }
            challenge = Challenge::of(&bare);
        }
        let Some(challenge) = challenge else {
            return Ok(answer);
        };
        if known.as_ref() == Some(&challenge) {
            // It would come to the same again.
            match (failed, &proof) {
                (Some(fault), _) => return Err(answered(fault)),
                (None, Proof::Fresh(_)) => return Ok(answer),
                (None, Proof::Nothing | Proof::Remembered(_)) => {}
            }
        }
        if let Some(header) = proof.header() {
            self.withdraw(&self.token_key(call, asker), header).await;
        }
        self.remember(call, asker, &challenge);
        let proof = self.proof(transport, step, call, asker, Some(&challenge)).await.map_err(answered)?;
        match proof {
            Proof::Nothing => Ok(answer),
            Proof::Fresh(_) | Proof::Remembered(_) => show(transport, step, call, asker, &proof).await,
        }
    }

    fn challenge(&self, call: &Call, asker: Asker<'_>) -> Option<Challenge> {
        let known = self.challenges.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(asker.host(call), asker.repository.path().to_owned())).cloned()
    }

    fn remember(&self, call: &Call, asker: Asker<'_>, challenge: &Challenge) {
        let mut known = self.challenges.lock().unwrap_or_else(PoisonError::into_inner);
        // Each is learnt again by one request.
        if known.len() >= CHALLENGES_LIMIT {
            known.clear();
        }
        known.insert((asker.host(call), asker.repository.path().to_owned()), challenge.clone());
    }

    async fn proof(
        &self,
        transport: &Transport,
        step: &Step,
        call: &Call,
        asker: Asker<'_>,
        challenge: Option<&Challenge>,
    ) -> Result<Proof, Fault> {
        match (asker.credentials, challenge) {
            (Credentials::Basic { user, password, .. }, Some(Challenge::Basic)) => {
                Ok(Proof::Fresh(header(step, &format!("Basic {}", basic_value(user, password)))?))
            }
            (_, Some(Challenge::Basic) | None) => Ok(Proof::Nothing),
            (_, Some(Challenge::Bearer { realm, service })) => {
                let key = self.token_key(call, asker);
                let slot = self.slot(&key);
                let began = Instant::now();
                let mut held = slot.lock().await;
                if let Some(token) = held.token.as_ref().filter(|token| Instant::now() < token.until) {
                    return Ok(Proof::Remembered(token.header.clone()));
                }
                let aside = step.aside();
                // Who waited does not wait for as long once more.
                let waited = |failure: &&Failure| began < failure.at && failure.realm == *realm;
                if let Some(failure) = held.failure.as_ref().filter(waited) {
                    return Err(aside.fault(failure.reason, &failure.words));
                }
                let request = token_request(&aside, call, asker, realm, service.as_deref())?;
                match fetch_token(transport, &request).await {
                    Ok(token) => {
                        let header = token.header.clone();
                        *held = Held { token: Some(token), failure: None };
                        Ok(Proof::Fresh(header))
                    }
                    Err(fault) => {
                        let words = fault.message.strip_prefix(aside.subject()).unwrap_or_default();
                        let words = words.trim_start_matches([':', ' ']).to_owned();
                        let (at, realm) = (Instant::now(), realm.clone());
                        held.failure = Some(Failure { at, realm, reason: fault.reason, words });
                        Err(fault)
                    }
                }
            }
        }
    }

    fn token_key(&self, call: &Call, asker: Asker<'_>) -> TokenKey {
        TokenKey {
            host: asker.host(call),
            path: asker.repository.path().to_owned(),
            credentials: asker.credentials.keyed_hash(&self.key, asker.repository.host()),
        }
    }

    fn slot(&self, key: &TokenKey) -> Arc<Slot> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= TOKENS_LIMIT && !entries.contains_key(key) {
            // First those that are of no use, then all that nobody waits for.
            let now = Instant::now();
            entries.retain(|_, slot| {
                slot.try_lock()
                    .map_or(true, |held| held.token.as_ref().is_some_and(|token| now < token.until))
            });
            if entries.len() >= TOKENS_LIMIT {
                entries.retain(|_, slot| Arc::strong_count(slot) > 1);
            }
        }
        Arc::clone(entries.entry(key.clone()).or_default())
    }

    /// Drops the token that was refused, unless another took its place meanwhile.
    async fn withdraw(&self, key: &TokenKey, refused: &HeaderValue) {
        let slot = self.slot(key);
        let mut held = slot.lock().await;
        if held.token.as_ref().is_some_and(|token| token.header == *refused) {
            held.token = None;
        }
    }
}

impl Challenge {
    /// What a 401 asks for.
    fn of(answer: &Answer) -> Option<Self> {
        if answer.status == StatusCode::UNAUTHORIZED { Self::parse(&answer.headers) } else { None }
    }

    /// The challenge to answer: `Bearer` if there is one, else `Basic`.
    pub(super) fn parse(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = value.to_str() else { continue };
            for (scheme, parameters) in challenges(text) {
                if scheme.eq_ignore_ascii_case("bearer") {
                    let of = |name: &str| {
                        parameters
                            .iter()
                            .find(|(key, _)| key.eq_ignore_ascii_case(name))
                            .map(|(_, v)| v.clone())
                    };
                    let service = of("service");
                    if let Some(realm) = of("realm")
                        && realm.len().max(service.as_ref().map_or(0, String::len)) <= CHALLENGE_LIMIT
                    {
                        return Some(Self::Bearer { realm, service });
                    }
                } else if scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        basic
    }
}

impl Proof {
    const fn header(&self) -> Option<&HeaderValue> {
        match self {
            Self::Nothing => None,
            Self::Fresh(header) | Self::Remembered(header) => Some(header),
        }
    }
}

/// Sends `call` with `proof`. A refusal that repeats what the registry was shown loses its words: others than who
/// pulls read them (rule E4).
async fn show(
    transport: &Transport,
    step: &Step,
    call: &Call,
    asker: Asker<'_>,
    proof: &Proof,
) -> Result<Answer, Fault> {
    let call = Call { authorization: proof.header().cloned(), ..call.clone() };
    let mut answer = transport.send(step, &call).await?;
    if !answer.status.is_success()
        && let Some(words) = answer.registry_error()
        && let text = format!("{} {}", words.code, words.message)
        && (asker.credentials.occur_in(&text) || shown_in(&text, &call))
    {
        answer.body.clear();
    }
    Ok(answer)
}

/// Whether a token or a header of `hosts.toml` is in `text`.
fn shown_in(text: &str, call: &Call) -> bool {
    let own = call.via.as_ref().map(|via| via.headers(&call.url)).unwrap_or_default();
    own.values().chain(call.authorization.as_ref()).any(|value| {
        // Without the scheme's name.
        let secret = value.to_str().ok().and_then(|value| value.split_whitespace().last());
        secret.is_some_and(|secret| text.contains(secret))
    })
}

fn header(step: &Step, text: &str) -> Result<HeaderValue, Fault> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| step.fault(FaultReason::RegistryDenied, "token is not one that a header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

struct TokenRequest<'a> {
    call: Call,
    step: &'a Step,
}

/// The request to the realm: a GET with user and password if there are any, or an OAuth2 POST that
/// exchanges an identity token.
fn token_request<'a>(
    step: &'a Step,
    call: &Call,
    asker: Asker<'_>,
    realm: &str,
    service: Option<&str>,
) -> Result<TokenRequest<'a>, Fault> {
    let odd = |words: &str| step.fault(FaultReason::RegistryDenied, words);
    let mut url = Url::parse(realm).map_err(|_| odd("registry names a token realm that is not a URL"))?;
    let strip = url.set_username("").and_then(|()| url.set_password(None));
    if strip.is_err() || !matches!(url.scheme(), "https" | "http") {
        return Err(odd("registry names a token realm that is not a web address"));
    }
    let may_be_asked = *asker.credentials == Credentials::Anonymous && may_name(&call.url, &url);
    if !may_be_asked && !may_see_secrets(&url, &call.url) {
        return Err(odd("registry names a token realm without https"));
    }
    let scope = format!("repository:{}:pull", asker.repository.path());
    let mut request = Call {
        class: RequestClass::Token,
        method: Method::GET,
        url: url.clone(),
        accept: "application/json",
        authorization: None,
        via: call.via.clone(),
        post: None,
        limit: TOKEN_BODY_LIMIT,
    };
    let mut fields = vec![("scope", scope.as_str())];
    fields.extend(service.map(|service| ("service", service)));
    match asker.credentials {
        Credentials::IdentityToken { token, .. } => {
            fields.extend([
                ("grant_type", "refresh_token"),
                ("refresh_token", token),
                ("client_id", "pullgate"),
            ]);
            request.method = Method::POST;
            // The query of a URL is encoded as a form is.
            let mut form = url;
            form.set_query(None);
            form.query_pairs_mut().extend_pairs(fields);
            let body = form.query().unwrap_or_default().to_owned();
            request.post = Some(Post { media_type: "application/x-www-form-urlencoded", body });
        }
        Credentials::Basic { user, password, .. } => {
            request.url.query_pairs_mut().extend_pairs(fields);
            request.authorization = Some(header(step, &format!("Basic {}", basic_value(user, password)))?);
        }
        Credentials::Anonymous | Credentials::RegistryToken(_) => {
            request.url.query_pairs_mut().extend_pairs(fields);
        }
    }
    Ok(TokenRequest { call: request, step })
}

async fn fetch_token(transport: &Transport, request: &TokenRequest<'_>) -> Result<Token, Fault> {
    let TokenRequest { call, step } = request;
    let asked = Instant::now();
    let answer = transport.send(step, call).await?;
    if !answer.status.is_success() {
        // A realm says 400 for a refresh token that it does not take (RFC 6749, 5.2).
        let reason = match answer.status.as_u16() {
            400 | 401 | 403 | 404 => FaultReason::RegistryDenied,
            _ => FaultReason::RegistryError,
        };
        let words = format!("token service answered {}", answer.status.as_u16());
        return Err(step.fault(reason, &words));
    }
    let unreadable = || step.fault(FaultReason::RegistryError, "token service's answer holds no token");
    let body: TokenBody = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
    let token = [body.token, body.access_token].into_iter().flatten().find(|token| !token.is_empty());
    let token = token.filter(|token| token.len() <= TOKEN_LIMIT).ok_or_else(unreadable)?;
    let header = header(step, &format!("Bearer {token}"))?;
    Ok(Token { header, until: asked + use_of(body.expires_in) })
}

/// How long a token is used that lives for so many seconds: another is fetched before it ends.
fn use_of(expires_in: Option<u64>) -> Duration {
    Duration::from_secs(expires_in.unwrap_or(TOKEN_LIFE).min(TOKEN_LIFE_LIMIT)) * 4 / 5
}

#[derive(Deserialize)]
struct TokenBody {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Splits `WWW-Authenticate` (RFC 9110, 11.6.1): challenges, each a scheme and `name=value`
/// parameters, both separated by commas.
fn challenges(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = text.trim_start_matches([',', ' ', '\t']);
    while !rest.is_empty() {
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start_matches([' ', '\t']);
        rest = match (after.strip_prefix('='), found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = parameter_value(value.trim_start_matches([' ', '\t']));
                parameters.push((word.to_owned(), value));
                after
            }
            // A parameter before any scheme: not a challenge.
            (Some(_), None) => return found,
            (None, _) => {
                found.push((word.to_owned(), Vec::new()));
                after
            }
        };
        rest = rest.trim_start_matches([',', ' ', '\t']);
    }
    found
}

/// A quoted string or a token, and what follows.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => value.extend(characters.next()),
            other => value.push(other),
        }
    }
    (value, characters.as_str())
}

/// The specification's life of a token that names none, in seconds.
const TOKEN_LIFE: u64 = 60;
/// Longer lives are not believed.
const TOKEN_LIFE_LIMIT: u64 = 3600;
/// Azure's tokens are the largest known, at some KiB; few servers take a longer header. With [`TOKENS_LIMIT`] it
/// bounds what hostile registries leave in memory.
const TOKEN_LIMIT: usize = 16 * 1024;
/// The token under both of its names, and what else is told of it.
const TOKEN_BODY_LIMIT: usize = 64 * 1024;
/// More (host, repository, credentials) than one node uses at a time.
const TOKENS_LIMIT: usize = 1024;
/// More (host, repository) than one node uses at a time.
const CHALLENGES_LIMIT: usize = 1024;
/// The longest realm or service.
const CHALLENGE_LIMIT: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        Challenge::parse(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) })
    }

    #[test]
    fn reads_challenges_of_every_shape() {
        let table: &[(&[&str], Option<Challenge>)] = &[
            (
                &[r#"Bearer realm="https://a.io/token",service="a.io",scope="repository:x:pull,push""#],
                bearer("https://a.io/token", Some("a.io")),
            ),
            (
                &[r#"bearer  Realm = "https://a.io/t\"q" , service=plain"#],
                bearer("https://a.io/t\"q", Some("plain")),
            ),
            (&[r#"Basic realm="x", Bearer realm="https://a.io/t""#], bearer("https://a.io/t", None)),
            (&[r#"Basic realm="x""#, r#"Bearer realm="https://a.io/t""#], bearer("https://a.io/t", None)),
            (&["Basic"], Some(Challenge::Basic)),
            (&[r#"Negotiate, Basic realm="x""#], Some(Challenge::Basic)),
            (&["Bearer service=x"], None),
            (&[r#"Bearer realm="unclosed"#], bearer("unclosed", None)),
            (&["=,=", ", ,", ""], None),
            (&[], None),
        ];
        for (values, expected) in table {
            assert_eq!(parse(values), *expected, "{values:?}");
        }
        let of = |length| format!("Bearer realm=\"{0}\",service=\"{0}\"", "x".repeat(length));
        assert!(parse(&[&of(CHALLENGE_LIMIT)]).is_some());
        assert_eq!(parse(&[&of(CHALLENGE_LIMIT + 1)]), None);
    }

    #[test]
    fn a_token_is_used_for_four_fifths_of_its_life() {
        let seconds = |expires_in| use_of(expires_in).as_secs_f64();
        let table = [
            (None, 48.0),
            (Some(0), 0.0),
            (Some(1), 0.8),
            (Some(300), 240.0),
            (Some(3600), 2880.0),
            (Some(3601), 2880.0),
            (Some(u64::MAX), 2880.0),
        ];
        for (expires_in, expected) in table {
            assert_eq!(seconds(expires_in), expected, "{expires_in:?}");
        }
    }
}
