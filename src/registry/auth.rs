//! Proving to a registry who asks.
//!
//! Requests go out without a ping. A 401 brings the challenge, which is remembered for the host, so
//! that later requests carry what it wants from the start. `Basic` sends user and password to the
//! registry itself; `Bearer` asks the realm for a token of the one scope `repository:<path>:pull`.
//!
//! Where secrets may go (CVE-2019-10214, CVE-2025-27403): to the realm named by a challenge of the
//! registry itself, never of a host it redirected to, and only if the realm is https, is the
//! registry's own origin, or lies on this machine as the registry does. Any other realm is refused
//! when there is a secret to send, and asked without one otherwise.
//!
//! Tokens are kept in memory by (host, scope, hash of the credentials) until four fifths of their
//! life; whoever needs one that is being fetched waits for it, so it is asked for once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Url;
use serde::Deserialize;

use super::credentials::{Credentials, basic_value};
use super::http::{Answer, Call, Host, Post, Step, Transport, authority, is_loopback};
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
}

/// Who asks for what: the arguments that an authorized request needs besides itself.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) repository: &'a Repository,
    pub(super) credentials: &'a Credentials,
    pub(super) host: &'a Host,
    /// The host, and of which registry it is asked.
    pub(super) key: &'a str,
}

type Slot = tokio::sync::Mutex<Option<Token>>;

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
    /// All there is: a 401 is the last word.
    Final(HeaderValue),
    /// A token from memory: it may have been withdrawn.
    Remembered(HeaderValue),
}

impl Tokens {
    pub(super) fn new() -> Result<Self, RegistryError> {
        let mut key = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| RegistryError::Randomness)?;
        Ok(Self { key, entries: Mutex::default() })
    }

    /// Sends `call` with what its host asks for; a 401 that remains is returned as it is. A refusal that
    /// repeats what the registry was shown loses its words: others than who pulls read them (rule E4).
    pub(super) async fn send(
        &self,
        transport: &Transport,
        step: &Step,
        call: &Call,
        asker: Asker<'_>,
    ) -> Result<Answer, Fault> {
        let mut answer = self.send_proven(transport, step, call, asker).await?;
        if !answer.status.is_success()
            && let Some(words) = answer.registry_error()
            && let text = format!("{} {}", words.code, words.message)
            && (asker.credentials.occur_in(&text) || self.token_occurs_in(&text, asker))
        {
            answer.body.clear();
        }
        Ok(answer)
    }

    async fn send_proven(
        &self,
        transport: &Transport,
        step: &Step,
        call: &Call,
        asker: Asker<'_>,
    ) -> Result<Answer, Fault> {
        let known = asker.host.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let proof = match self.proof(transport, step, call, asker, known.as_ref()).await {
            Ok(proof) => proof,
            // That a token service is away says nothing of the registry, which is asked itself then:
            // whether it answers decides what the fault is (rule D4).
            Err(fault) if fault.contact == Contact::None => Proof::Nothing,
            Err(fault) => return Err(fault),
        };
        let answer = transport.send(step, &with(call, &proof)).await?;
        if answer.status != StatusCode::UNAUTHORIZED || matches!(proof, Proof::Final(_)) {
            return Ok(answer);
        }
        let Some(challenge) = Challenge::parse(&answer.headers) else {
            return Ok(answer);
        };
        if let Proof::Remembered(header) = &proof {
            self.withdraw(&self.token_key(asker), header).await;
        }
        *asker.host.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some(challenge.clone());
        // The registry itself has answered by now, whatever becomes of the token.
        let proof = self.proof(transport, step, call, asker, Some(&challenge)).await;
        match proof.map_err(|fault| Fault { contact: Contact::Answered, ..fault })? {
            Proof::Nothing => Ok(answer),
            proof @ (Proof::Final(_) | Proof::Remembered(_)) => {
                transport.send(step, &with(call, &proof)).await
            }
        }
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
            (Credentials::RegistryToken(token), _) => {
                Ok(Proof::Final(header(step, &format!("Bearer {token}"))?))
            }
            (Credentials::Basic { user, password, .. }, Some(Challenge::Basic)) => {
                Ok(Proof::Final(header(step, &format!("Basic {}", basic_value(user, password)))?))
            }
            (Credentials::Anonymous | Credentials::IdentityToken { .. }, Some(Challenge::Basic))
            | (_, None) => Ok(Proof::Nothing),
            (_, Some(Challenge::Bearer { realm, service })) => {
                let key = self.token_key(asker);
                let slot = self.slot(&key);
                let mut held = slot.lock().await;
                if let Some(token) = held.as_ref().filter(|token| Instant::now() < token.until) {
                    return Ok(Proof::Remembered(token.header.clone()));
                }
                let aside = step.aside();
                let request = token_request(&aside, call, asker, realm, service.as_deref())?;
                let token = fetch_token(transport, &request).await?;
                let header = token.header.clone();
                *held = Some(token);
                Ok(Proof::Final(header))
            }
        }
    }

    fn token_key(&self, asker: Asker<'_>) -> TokenKey {
        TokenKey {
            host: asker.key.to_owned(),
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
                slot.try_lock().map_or(true, |held| held.as_ref().is_some_and(|token| now < token.until))
            });
            if entries.len() >= TOKENS_LIMIT {
                entries.retain(|_, slot| Arc::strong_count(slot) > 1);
            }
        }
        Arc::clone(entries.entry(key.clone()).or_default())
    }

    /// Whether the token at hand is in `text`; while it is being fetched nobody was shown it.
    fn token_occurs_in(&self, text: &str, asker: Asker<'_>) -> bool {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = entries.get(&self.token_key(asker)).map(Arc::clone);
        drop(entries);
        let Some(Ok(held)) = slot.as_ref().map(|slot| slot.try_lock()) else { return false };
        let shown = held.as_ref().and_then(|token| token.header.to_str().ok()?.strip_prefix("Bearer "));
        shown.is_some_and(|token| text.contains(token))
    }

    /// Drops the token that was refused, unless another took its place meanwhile.
    async fn withdraw(&self, key: &TokenKey, refused: &HeaderValue) {
        let slot = self.slot(key);
        let mut held = slot.lock().await;
        if held.as_ref().is_some_and(|token| token.header == *refused) {
            *held = None;
        }
    }
}

impl Challenge {
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
                    if let Some(realm) = of("realm") {
                        return Some(Self::Bearer { realm, service: of("service") });
                    }
                } else if scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        basic
    }
}

fn with(call: &Call, proof: &Proof) -> Call {
    let authorization = match proof {
        Proof::Nothing => None,
        Proof::Final(header) | Proof::Remembered(header) => Some(header.clone()),
    };
    Call { authorization, ..call.clone() }
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
    if *asker.credentials != Credentials::Anonymous && !may_see_secrets(&url, &call.url) {
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

/// See the module header.
fn may_see_secrets(realm: &Url, registry: &Url) -> bool {
    realm.scheme() == "https"
        || realm.origin() == registry.origin()
        || (is_loopback(&authority(realm)) && is_loopback(&authority(registry)))
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
    let header = header(step, &format!("Bearer {}", token.ok_or_else(unreadable)?))?;
    let life = Duration::from_secs(body.expires_in.unwrap_or(TOKEN_LIFE).min(TOKEN_LIFE_LIMIT));
    Ok(Token { header, until: asked + life * 4 / 5 })
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
/// Azure's tokens are the largest known, at some KiB.
const TOKEN_BODY_LIMIT: usize = 256 * 1024;
/// More (host, repository, credentials) than one node uses at a time.
const TOKENS_LIMIT: usize = 2048;

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
    }

    #[test]
    fn secrets_go_to_https_the_registry_itself_or_between_loopback_hosts() {
        let table = [
            ("https://auth.a.io/token", "https://a.io/v2/", true),
            ("http://auth.a.io/token", "https://a.io/v2/", false),
            ("http://a.io/token", "https://a.io/v2/", false),
            ("http://127.0.0.1:9/token", "https://a.io/v2/", false),
            ("http://127.0.0.1:9/token", "http://localhost:5000/v2/", true),
            ("http://10.0.0.5:5000/token", "http://10.0.0.5:5000/v2/", true),
            ("http://10.0.0.5:5001/token", "http://10.0.0.5:5000/v2/", false),
        ];
        for (realm, registry, allowed) in table {
            let of = |text| Url::parse(text).unwrap();
            assert_eq!(may_see_secrets(&of(realm), &of(registry)), allowed, "{realm} {registry}");
        }
    }
}
