//! A real token service, distribution's own, behind a proxy that counts what it is asked.
//!
//! Its users are [`ADA`] and [`BOB`]; each may do everything below a repository of the own name, and
//! nothing elsewhere.

use std::{fs, process::Command};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{Method, header};
use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use serde_json::{Value, json};

use super::{
    block_on, folder, free_port,
    process::Daemon,
    proxy::{Action, Proxy, Seen},
    registry::{Auth, Tokens},
    tools, until,
};

/// A user and the password.
pub(crate) type User = (&'static str, &'static str);

pub(crate) const ADA: User = ("ada", "one");
pub(crate) const BOB: User = ("bob", "two");

/// A file of both users, in bcrypt, as distribution and its token service read it.
pub(crate) const HTPASSWD: &str = "\
ada:$2y$04$abcdefghijklmnopqrstuuuiMd1XkP3MYkehzxpPHB6m5Tr0FZSYG
bob:$2y$04$abcdefghijklmnopqrstuuIHDRnKw4Zdb/3/EAZQMg/2vwJPJBL7u
";

/// What a registry and its token service call the registry.
const SERVICE: &str = "registry.test";
const ISSUER: &str = "tokens.test";

/// A running token service; it ends when it is dropped.
pub(crate) struct TokenService {
    proxy: Proxy,
    /// What a registry needs to believe its tokens.
    tokens: Tokens,
    _daemon: Daemon,
}

impl TokenService {
    pub(crate) fn start() -> Self {
        let (folder, host) = (folder(), format!("127.0.0.1:{}", free_port()));
        let htpasswd = folder.join("htpasswd");
        fs::write(&htpasswd, HTPASSWD).expect("a file");
        let mut command = Command::new(tools().join("bin/token-server"));
        command.args(["-addr", &host, "-realm", "test", "-issuer", ISSUER, "-passwd"]).arg(htpasswd);
        let mut daemon = Daemon::spawn(&mut command, &folder.join("tokens.log"));
        let token = until("the token service", || {
            daemon.assert_running();
            ask(&host, ADA).ok()
        });
        // It made a key for itself, which its tokens show.
        let head = token["access_token"].as_str().and_then(|token| token.split('.').next()).expect("a JWT");
        let head: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).expect("base64")).expect("JSON");
        let (keys, certificate) = (folder.join("keys.json"), folder.join("certificate.pem"));
        fs::write(&keys, json!({"keys": [head["jwk"]]}).to_string()).expect("a file");
        fs::write(&certificate, certificate_of(&head["jwk"])).expect("a file");
        let proxy = Proxy::before_host(&host, |_| Action::Pass);
        let realm = format!("http://{}/token/", proxy.host());
        let tokens = Tokens { realm, service: SERVICE, issuer: ISSUER, certificate, keys };
        Self { proxy, tokens, _daemon: daemon }
    }

    /// How a registry asks for its tokens.
    pub(crate) fn auth(&self) -> Auth {
        Auth::Tokens(self.tokens.clone())
    }

    /// A token that a user keeps, to be exchanged for others.
    pub(crate) fn offline_token(&self, user: User) -> String {
        let answer = ask(self.proxy.host(), user).expect("an answer");
        answer["refresh_token"].as_str().expect("a token").to_owned()
    }

    /// How pullgate asked so far for somebody. What it asks for nobody (for an image that is on the node
    /// and not in the cache) is left out.
    pub(crate) fn asked_by_pullgate(&self) -> Vec<Method> {
        self.asked("pullgate/", |seen| {
            seen.method == Method::POST || seen.headers.contains_key(header::AUTHORIZATION)
        })
    }

    /// How containerd asked so far.
    pub(crate) fn asked_by_containerd(&self) -> Vec<Method> {
        self.asked("containerd/", |_| true)
    }

    fn asked(&self, agent: &str, counts: impl Fn(&Seen) -> bool) -> Vec<Method> {
        let of = |seen: &Seen| seen.headers.get(header::USER_AGENT)?.to_str().ok().map(str::to_owned);
        let ours = |seen: &Seen| of(seen).is_some_and(|found| found.starts_with(agent)) && counts(seen);
        self.proxy.seen().into_iter().filter(ours).map(|seen| seen.method).collect()
    }
}

fn ask(host: &str, (user, password): User) -> reqwest::Result<Value> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{host}/token/?service={SERVICE}&offline_token=true");
    let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    block_on(async {
        let answer = client.get(url).header(header::AUTHORIZATION, basic).send().await?;
        Ok(serde_json::from_slice(&answer.error_for_status()?.bytes().await?).expect("JSON"))
    })
}

/// A certificate of a P-256 key, by somebody: who signed it is not looked at.
fn certificate_of(jwk: &Value) -> String {
    struct Point(Vec<u8>);
    impl PublicKeyData for Point {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }
        fn algorithm(&self) -> &'static SignatureAlgorithm {
            &PKCS_ECDSA_P256_SHA256
        }
    }
    let coordinate =
        |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().expect("a string")).expect("base64");
    let point = Point([vec![4], coordinate("x"), coordinate("y")].concat());
    let somebody = Issuer::new(CertificateParams::default(), KeyPair::generate().expect("a key"));
    let certificate = CertificateParams::default().signed_by(&point, &somebody).expect("a certificate");
    certificate.pem()
}
