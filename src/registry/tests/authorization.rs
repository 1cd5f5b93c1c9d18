//! Challenges, tokens, and where credentials go.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use server::Seen;

fn basic() -> Credentials {
    Credentials::Basic { user: "user".into(), password: "hunter2".into(), audience: Audience::Mirrors }
}

/// `user:hunter2`.
const BASIC: &str = "Basic dXNlcjpodW50ZXIy";

fn digest_reply() -> Reply {
    Reply::new(200, "").header("docker-content-digest", Digest::of(b"x").to_string())
}

fn challenge(value: String) -> Reply {
    Reply::error(401, "UNAUTHORIZED", "authentication required").header("www-authenticate", value)
}

/// A registry that is its own realm: `good-N` tokens count up, `accepted` decides.
async fn token_registry(accepted: impl Fn(&str) -> bool + Send + Sync + 'static) -> Server {
    let issued = AtomicUsize::new(0);
    let realm = std::sync::OnceLock::<String>::new();
    let realm = Arc::new(realm);
    let own = Arc::clone(&realm);
    let server = Server::start(move |seen| {
        if seen.line.contains("/token") {
            let n = issued.fetch_add(1, Ordering::SeqCst);
            return Reply::new(200, format!(r#"{{"token":"good-{n}","expires_in":300}}"#));
        }
        match seen.authorization.as_deref().and_then(|value| value.strip_prefix("Bearer ")) {
            Some(token) if accepted(token) => digest_reply(),
            _ => challenge(format!(r#"Bearer realm="{}",service="the registry""#, own.get().unwrap())),
        }
    })
    .await;
    realm.set(format!("http://{}/token", server.address)).unwrap();
    server
}

#[tokio::test]
async fn a_token_is_asked_for_once_by_twenty_at_once() {
    let server = token_registry(|token| token == "good-0").await;
    let client = client();
    let one =
        || async { client.resolve(&server.reference("app:v1"), &Credentials::Anonymous).await.map(drop) };
    let all = futures_util::future::join_all((0..20).map(|_| one())).await;
    assert_eq!(all, vec![Ok(()); 20]);
    assert_eq!(client.requests().token, 1);
    // From now on the token goes with the first request.
    let before = client.requests();
    one().await.unwrap();
    assert_eq!(client.requests(), RequestCounts { resolve: before.resolve + 1, ..before });
    let asked = server.seen().into_iter().find(|seen| seen.line.contains("/token")).unwrap();
    assert_eq!(
        asked,
        Seen {
            line: "GET /token?scope=repository%3Aapp%3Apull&service=the+registry".into(),
            authorization: None,
            secret: None,
            body: String::new()
        }
    );
}

#[tokio::test]
async fn tokens_are_kept_apart_by_repository_and_credentials() {
    let server = token_registry(|_| true).await;
    let client = client();
    for (image, credentials) in
        [("app:v1", Credentials::Anonymous), ("app:v1", basic()), ("other:v1", basic()), ("app:v2", basic())]
    {
        client.resolve(&server.reference(image), &credentials).await.unwrap();
    }
    assert_eq!(client.requests().token, 3);
    let tokens: Vec<_> = server.seen().into_iter().filter(|seen| seen.line.contains("/token")).collect();
    let sent: Vec<_> = tokens.iter().map(|seen| seen.authorization.as_deref()).collect();
    assert_eq!(sent, [None, Some(BASIC), Some(BASIC)]);
    // The password went to the realm and nowhere else.
    assert!(server.seen().iter().all(|seen| {
        seen.line.contains("/token")
            || seen.authorization.as_deref().is_none_or(|value| value.starts_with("Bearer"))
    }));
}

#[tokio::test]
async fn a_docker_config_serves_requests_without_credentials_at_its_own_host_alone() {
    let ask = |seen: &Seen| match &seen.authorization {
        Some(_) => digest_reply(),
        None => challenge("Basic realm=\"r\"".into()),
    };
    let (named, other) = (Server::start(ask).await, Server::start(ask).await);
    let file = format!(r#"{{"auths":{{"{}":{{"username":"user","password":"hunter2"}}}}}}"#, named.address);
    let docker_configs = vec![DockerConfig::parse("{}").unwrap(), DockerConfig::parse(&file).unwrap()];
    let client = Client::new(&RegistryOptions { docker_configs, ..options() }).unwrap();
    let own = Credentials::Basic { user: "ada".into(), password: "own".into(), audience: Audience::Mirrors };
    for (server, credentials, expected) in [
        (&named, &Credentials::Anonymous, Some(BASIC)),
        (&named, &own, Some("Basic YWRhOm93bg==")),
        (&other, &Credentials::Anonymous, None),
    ] {
        let resolved = client.resolve(&server.reference("app:v1"), credentials).await;
        assert_eq!(resolved.is_ok(), expected.is_some());
        assert_eq!(server.seen().last().unwrap().authorization.as_deref(), expected);
    }
}

/// The pull's own, then those of the policies' secrets, then the files of this machine.
#[tokio::test]
async fn credentials_are_taken_in_the_order_of_who_is_closest_to_the_pull() {
    let server = Server::start(|seen: &Seen| match &seen.authorization {
        Some(_) => digest_reply(),
        None => challenge("Basic realm=\"r\"".into()),
    })
    .await;
    let config = |place: &str, user: &str| {
        let auth = STANDARD.encode(format!("{user}:word"));
        let helpers = r#""credsStore":"never-run","credHelpers":{"HOST":"never-run"}"#;
        let auths = format!(r#"{{"auths":{{"{place}":{{"auth":"{auth}"}}}},{helpers}}}"#);
        DockerConfig::parse(&auths.replace("HOST", &server.address.to_string())).unwrap()
    };
    let logins = |files: Vec<DockerConfig>| {
        let mut logins = DockerConfig::default();
        files.into_iter().for_each(|file| logins.add_logins(file));
        logins
    };
    let docker_configs = vec![logins(vec![config("HOST", "machine")])];
    let client = Client::new(&RegistryOptions { docker_configs, ..options() }).unwrap();
    let own =
        Credentials::Basic { user: "pull".into(), password: "word".into(), audience: Audience::Mirrors };
    let first = || logins(vec![config("HOST", "policy"), config("HOST", "later")]);
    // The closest name, in whichever file.
    let closest = || logins(vec![config("HOST", "policy"), config("HOST/app", "closest")]);
    for (logins, credentials, user) in [
        (first(), &own, "pull"),
        (first(), &Credentials::Anonymous, "policy"),
        (closest(), &Credentials::Anonymous, "closest"),
        (logins(vec![config("HOST/other", "other")]), &Credentials::Anonymous, "machine"),
    ] {
        client.sign_in_with(logins);
        client.resolve(&server.reference("app:v1"), credentials).await.unwrap();
        let expected = format!("Basic {}", STANDARD.encode(format!("{user}:word")));
        assert_eq!(server.seen().last().unwrap().authorization, Some(expected));
    }
}

#[tokio::test]
async fn helpers_say_who_this_machine_is() {
    let server = Server::start(|seen: &Seen| match &seen.authorization {
        Some(_) => digest_reply(),
        None => challenge("Basic realm=\"r\"".into()),
    })
    .await;
    let host = server.address.to_string();
    let folder = tempfile::tempdir().unwrap();
    for (name, script) in [
        ("good", r#"read server; [ "$server" = HOST ] && echo '{"Username":"user","Secret":"hunter2"}'"#),
        ("none", "echo credentials not found in native keychain; exit 1"),
        ("broken", "echo hunter2; exit 1"),
    ] {
        let file = folder.path().join(format!("docker-credential-{name}"));
        write_program(&file, &format!("#!/bin/sh\n{}\n", script.replace("HOST", &host)));
    }
    let ask = |config: String| {
        let docker_configs = vec![DockerConfig::parse(&config).unwrap()];
        let mut client = Client::new(&RegistryOptions { docker_configs, ..options() }).unwrap();
        client.helpers = Helpers::of(folder.path().into(), Duration::from_secs(20));
        let (reference, server) = (server.reference("app:v1"), &server);
        async move {
            let before = server.seen().len();
            let resolved = client.resolve(&reference, &Credentials::Anonymous).await;
            let sent: Vec<_> =
                server.seen().split_off(before).into_iter().filter_map(|seen| seen.authorization).collect();
            (resolved.map(drop), sent)
        }
    };
    let for_host = |name: &str| format!(r#"{{"credHelpers":{{"{host}":"{name}"}}}}"#);
    let for_all = |name: &str| format!(r#"{{"credsStore":"{name}"}}"#);
    for config in [for_host("good"), for_all("good")] {
        assert_eq!(ask(config).await, (Ok(()), vec![BASIC.to_owned()]));
    }
    // Without credentials the registry itself says no.
    for config in [for_host("none"), for_all("none"), for_all("broken"), for_all("missing")] {
        let (resolved, sent) = ask(config).await;
        let fault = resolved.unwrap_err();
        assert_eq!((fault.reason, sent), (FaultReason::RegistryDenied, vec![]));
        assert!(fault.message.contains("401"), "{}", fault.message);
    }
    // A helper for this very host that fails is a fault, and none that `failurePolicy: Ignore` passes.
    for (name, words) in [("broken", "failed"), ("missing", "is not installed")] {
        let (resolved, sent) = ask(for_host(name)).await;
        let fault = resolved.unwrap_err();
        assert_eq!(
            (fault.reason, fault.contact, sent),
            (FaultReason::RegistryDenied, Contact::Answered, vec![])
        );
        assert!(
            fault.message.ends_with(&format!(": credential helper docker-credential-{name} {words}")),
            "{}",
            fault.message
        );
        assert!(!fault.message.contains("hunter2"), "{}", fault.message);
    }
}

#[tokio::test]
async fn a_withdrawn_token_is_asked_for_anew_once() {
    let withdrawn = Arc::new(AtomicUsize::new(0));
    let least = Arc::clone(&withdrawn);
    let server = token_registry(move |token| {
        token.trim_start_matches("good-").parse::<usize>().unwrap() >= least.load(Ordering::SeqCst)
    })
    .await;
    let client = client();
    resolve(&server, &client).await.unwrap();
    withdrawn.store(1, Ordering::SeqCst);
    resolve(&server, &client).await.unwrap();
    assert_eq!(client.requests().token, 2);
    withdrawn.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(resolve(&server, &client).await.unwrap_err().reason, FaultReason::RegistryDenied);
    assert_eq!(client.requests().token, 3);
}

#[tokio::test]
async fn an_identity_token_is_posted_and_only_to_the_realm() {
    let server = token_registry(|token| token == "good-0").await;
    let credentials = Credentials::IdentityToken { token: "refresh&me".into(), audience: Audience::Mirrors };
    client().resolve(&server.reference("app:v1"), &credentials).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[1].line, "POST /token");
    assert_eq!(
        seen[1].body,
        "scope=repository%3Aapp%3Apull&service=the+registry&grant_type=refresh_token&refresh_token=refresh%26me&client_id=pullgate"
    );
    assert_eq!(seen[2].authorization.as_deref(), Some("Bearer good-0"));
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let server = Server::start(|_| digest_reply()).await;
    let credentials = Credentials::RegistryToken("given".into());
    client().resolve(&server.reference("app:v1"), &credentials).await.unwrap();
    assert_eq!(server.seen()[0].authorization.as_deref(), Some("Bearer given"));
}

#[tokio::test]
async fn basic_is_sent_after_the_challenge_and_then_at_once() {
    let server = Server::start(|seen| match seen.authorization.as_deref() {
        Some(BASIC) => digest_reply(),
        _ => challenge(r#"Basic realm="r""#.into()),
    })
    .await;
    let client = client();
    for _ in 0..2 {
        client.resolve(&server.reference("app:v1"), &basic()).await.unwrap();
    }
    let sent: Vec<_> = server.seen().into_iter().map(|seen| seen.authorization).collect();
    assert_eq!(sent, [None, Some(BASIC.to_owned()), Some(BASIC.to_owned())]);
    // Others get nothing of it.
    assert_eq!(resolve(&server, &client).await.unwrap_err().reason, FaultReason::RegistryDenied);
    assert_eq!(server.seen()[3].authorization, None);
}

#[tokio::test]
async fn a_token_service_that_refuses_is_a_denial_without_secrets() {
    for (status, reason) in [
        (400, FaultReason::RegistryDenied),
        (401, FaultReason::RegistryDenied),
        (403, FaultReason::RegistryDenied),
        (500, FaultReason::RegistryError),
    ] {
        let realm = Server::start(move |_| Reply::new(status, "no hunter2").header("retry-after", "0")).await;
        let address = realm.address;
        let server =
            Server::start(move |_| challenge(format!(r#"Bearer realm="http://{address}/token""#))).await;
        let fault = client().resolve(&server.reference("app:v1"), &basic()).await.unwrap_err();
        let message = format!("{}/app:v1: token service answered {status}", server.address);
        assert_eq!(fault, Fault::new(reason, message));
        assert_eq!(realm.seen()[0].authorization.as_deref(), Some(BASIC));
    }
}

#[tokio::test]
async fn d4_an_answer_of_the_token_service_is_none_of_the_registry() {
    let realm = Server::start(|_| Reply::new(200, r#"{"token":"t","expires_in":0}"#)).await;
    let address = realm.address;
    let first = AtomicUsize::new(0);
    // It asks for a token, and is not heard of again.
    let server = Server::start(move |_| match first.fetch_add(1, Ordering::SeqCst) {
        0 => challenge(format!(r#"Bearer realm="http://{address}/token""#)),
        _ => Reply::new(200, "").body(Body::Silence),
    })
    .await;
    let client = impatient();
    let fault = resolve(&server, &client).await.unwrap_err();
    assert_eq!((fault.reason, fault.contact), (FaultReason::Timeout, Contact::Answered), "it asked for one");
    let fault = resolve(&server, &client).await.unwrap_err();
    assert_eq!((fault.reason, fault.contact), (FaultReason::Timeout, Contact::None));
    assert_eq!(realm.seen().len(), 2);
}

#[tokio::test]
async fn d4_a_registry_that_asks_for_a_token_is_not_away_though_the_token_service_is() {
    let server =
        Server::start(move |_| challenge(r#"Bearer realm="http://127.0.0.1:1/token""#.to_owned())).await;
    let client = client();
    for _ in 0..2 {
        let fault = resolve(&server, &client).await.unwrap_err();
        assert_eq!((fault.reason, fault.contact), (FaultReason::RegistryUnreachable, Contact::Answered));
    }
}

#[tokio::test]
async fn a_token_answer_without_a_token_is_an_error() {
    for body in ["", "{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#, "<html>"] {
        let realm = Server::start(move |_| Reply::new(200, body)).await;
        let address = realm.address;
        let server =
            Server::start(move |_| challenge(format!(r#"Bearer realm="http://{address}/token""#))).await;
        assert!(resolve(&server, &client()).await.is_err(), "{body}");
    }
}

#[tokio::test]
async fn pitfall_18_secrets_do_not_go_to_a_realm_in_the_clear() {
    for realm in ["http://registry.invalid/token", "ftp://a.io/token", "nowhere"] {
        let server = Server::start(move |_| challenge(format!(r#"Bearer realm="{realm}""#))).await;
        let client = client();
        let fault = client.resolve(&server.reference("app:v1"), &basic()).await.unwrap_err();
        assert_eq!(fault.reason, FaultReason::RegistryDenied, "{fault}");
        assert_eq!(client.requests().token, 0);
    }
}

#[tokio::test]
async fn pitfall_18_a_redirect_to_another_host_drops_credentials_and_its_challenge_is_not_heard() {
    for accepted in [true, false] {
        let storage = Server::start(move |_| match accepted {
            true => Reply::manifest(media_type::OCI_MANIFEST, image_manifest()),
            false => challenge(r#"Basic realm="give me""#.into()),
        })
        .await;
        let location = format!("http://user:pw@{}/blob?signed", storage.address);
        let server = Server::start(move |seen| match seen.authorization.as_deref() {
            Some(BASIC) => Reply::new(307, "").header("location", location.clone()),
            _ => challenge(r#"Basic realm="r""#.into()),
        })
        .await;
        let digest = Digest::of(&image_manifest());
        let result = client().manifest(&server.repository("app"), &digest, &basic()).await;
        assert_eq!(result.is_ok(), accepted);
        let seen = storage.seen();
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].line.as_str(), &seen[0].authorization), ("GET /blob?signed", &None));
    }
}

#[tokio::test]
async fn pitfall_18_a_posted_secret_follows_no_redirect() {
    let other = Server::start(|_| Reply::new(200, r#"{"token":"t"}"#)).await;
    let location = format!("http://{}/token", other.address);
    let realm = Server::start(move |_| Reply::new(307, "").header("location", location.clone())).await;
    let address = realm.address;
    let server = Server::start(move |_| challenge(format!(r#"Bearer realm="http://{address}/token""#))).await;
    let credentials = Credentials::IdentityToken { token: "refresh".into(), audience: Audience::Mirrors };
    let fault = client().resolve(&server.reference("app:v1"), &credentials).await.unwrap_err();
    assert_eq!(fault.reason, FaultReason::RegistryError);
    assert_eq!(other.seen(), []);
}

#[tokio::test]
async fn pitfall_18_a_challenge_behind_a_redirect_gets_no_secret() {
    let thief = Server::start(|_| Reply::new(200, r#"{"token":"t"}"#)).await;
    let realm = thief.address;
    for value in [format!(r#"Bearer realm="http://{realm}/token""#), r#"Basic realm="r""#.to_owned()] {
        let storage = Server::start(move |_| challenge(value.clone())).await;
        let location = format!("http://{}/blob", storage.address);
        let server = Server::start(move |_| Reply::new(307, "").header("location", location.clone())).await;
        let fault = client().resolve(&server.reference("app:v1"), &basic()).await.unwrap_err();
        assert_eq!(fault.reason, FaultReason::RegistryDenied);
        assert_eq!(storage.seen().len(), 1);
        // Nor was the storage's challenge kept for the registry.
        assert!(server.seen().iter().all(|seen| seen.authorization.is_none()));
    }
    assert_eq!(thief.seen(), []);
}

#[tokio::test]
async fn e4_words_that_repeat_a_secret_are_not_quoted() {
    let token = |text: &str| Credentials::RegistryToken(text.into());
    let table = [
        (basic(), "user:hunter2 may not", true),
        (basic(), "Basic dXNlcjpodW50ZXIy may not", true),
        (basic(), "user may not", false),
        (token("t0ken"), "Bearer t0ken may not", true),
        (token("t0ken"), "Bearer token may not", false),
        (Credentials::Anonymous, "hunter2", false),
    ];
    for (credentials, words, hidden) in table {
        let server = Server::start(move |seen| match &seen.authorization {
            Some(_) => Reply::error(403, "DENIED", words),
            None if words == "hunter2" => Reply::error(403, "DENIED", words),
            None => Reply::new(401, "").header("www-authenticate", "Basic realm=\"r\""),
        })
        .await;
        let digest = Digest::of(b"x");
        let fault = client().manifest(&server.repository("app"), &digest, &credentials).await.unwrap_err();
        let quoted = if hidden { String::new() } else { format!(" \"DENIED: {words}\"") };
        let message = format!("{}/app@{digest}: registry answered 403{quoted}", server.address);
        assert_eq!(fault, Fault::new(FaultReason::RegistryDenied, message));
    }
}
