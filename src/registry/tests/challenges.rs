//! What is remembered of a registry's challenge: it saves a request, and the registry has the last word.

use super::mirrors::Configured;
use super::*;
use server::Seen;

fn basic() -> Credentials {
    Credentials::Basic { user: "user".into(), password: "hunter2".into(), audience: Audience::Mirrors }
}

fn bearer(realm: &Server) -> String {
    format!(r#"Bearer realm="http://{}/token""#, realm.address)
}

fn challenge(value: &str) -> Reply {
    let reply = Reply::error(401, "UNAUTHORIZED", "authentication required");
    if value.is_empty() { reply } else { reply.header("www-authenticate", value) }
}

fn found() -> Reply {
    Reply::new(200, "").header("docker-content-digest", Digest::of(b"x").to_string())
}

/// A token service whose tokens are good for one request, and which says something else later.
async fn token_service(token: &'static str) -> (Server, Arc<Mutex<Option<Make>>>) {
    let later: Arc<Mutex<Option<Make>>> = Arc::default();
    let now = Arc::clone(&later);
    let server = Server::start(move |_| match *now.lock().unwrap() {
        Some(make) => make(),
        None => Reply::new(200, format!(r#"{{"token":"{token}","expires_in":0}}"#)),
    })
    .await;
    (server, later)
}

type Make = fn() -> Reply;

/// What a token service says that is of no use.
const USELESS: [Make; 6] = [
    || Reply::new(400, ""),
    || Reply::new(401, ""),
    || Reply::new(404, ""),
    || Reply::new(503, "").header("retry-after", "60"),
    || Reply::new(200, "{}"),
    || Reply::new(200, r#"{"token":"of another house"}"#),
];

/// A registry that takes `before` for the first challenge and `after` for the second, once it has moved.
async fn moving(before: [String; 2], after: [String; 2]) -> (Server, Arc<AtomicUsize>) {
    let moved = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&moved);
    let server = Server::start(move |seen| {
        let [challenged, accepted] = if now.load(Ordering::SeqCst) == 0 { &before } else { &after };
        if seen.authorization.as_deref().unwrap_or_default() == accepted {
            found()
        } else {
            challenge(challenged)
        }
    })
    .await;
    (server, moved)
}

async fn as_user(client: &Client, server: &Server) -> Result<(), Fault> {
    client.resolve(&server.reference("app:v1"), &basic()).await.map(drop)
}

const BASIC: &str = "Basic dXNlcjpodW50ZXIy";

#[tokio::test]
async fn a_registry_may_move_its_token_service_whatever_the_old_one_says() {
    for useless in USELESS {
        let (old, later) = token_service("old").await;
        let (new, _) = token_service("new").await;
        let before = [bearer(&old), "Bearer old".to_owned()];
        let (server, moved) = moving(before, [bearer(&new), "Bearer new".to_owned()]).await;
        let client = client();
        assert_eq!(as_user(&client, &server).await, Ok(()));
        *later.lock().unwrap() = Some(useless);
        moved.store(1, Ordering::SeqCst);
        assert_eq!(as_user(&client, &server).await, Ok(()));
        let asked = old.seen().len();
        assert_eq!(as_user(&client, &server).await, Ok(()));
        assert_eq!(old.seen().len(), asked, "the new one is remembered");
    }
}

#[tokio::test]
async fn a_registry_may_ask_for_something_else() {
    let (realm, _) = token_service("good").await;
    let token = [bearer(&realm), "Bearer good".to_owned()];
    let basic = ["Basic realm=\"r\"".to_owned(), BASIC.to_owned()];
    // One in front that says 401 to whatever is shown, and does not say what it wants.
    let nothing = [String::new(), String::new()];
    for (before, after) in [
        (&token, &basic),
        (&basic, &token),
        (&token, &nothing),
        (&basic, &nothing),
        (&nothing, &basic),
        (&nothing, &token),
    ] {
        let (server, moved) = moving(before.clone(), after.clone()).await;
        let client = client();
        assert_eq!(as_user(&client, &server).await, Ok(()));
        moved.store(1, Ordering::SeqCst);
        assert_eq!(as_user(&client, &server).await, Ok(()), "{before:?} {after:?}");
    }
}

#[tokio::test]
async fn behind_one_name_each_repository_has_a_token_service_of_its_own() {
    let (theirs, _) = token_service("theirs").await;
    let (own, _) = token_service("own").await;
    let challenges = [bearer(&theirs), bearer(&own)];
    let server = Server::start(move |seen: &Seen| match seen.authorization.as_deref() {
        None => challenge(&challenges[usize::from(!seen.line.contains("/theirs/"))]),
        Some("Bearer theirs") if seen.line.contains("/theirs/") => found(),
        Some("Bearer own") if !seen.line.contains("/theirs/") => found(),
        Some(_) => Reply::new(403, ""),
    })
    .await;
    let client = client();
    for image in ["theirs/app:v1", "own/app:v1"] {
        client.resolve(&server.reference(image), &basic()).await.unwrap();
    }
    let sent: Vec<_> = theirs.seen().into_iter().map(|seen| (seen.line, seen.authorization)).collect();
    let line = "GET /token?scope=repository%3Atheirs%2Fapp%3Apull".to_owned();
    assert_eq!(sent, [(line, Some(BASIC.to_owned()))]);
}

/// "Away" means that no host of the image's registry gave any answer in this call; a token service is none of them.
#[tokio::test]
async fn d4_whether_a_registry_is_away_is_not_its_token_services_to_say() {
    let services: [(&str, Option<Make>); 4] = [
        ("up", None),
        ("5xx", Some(|| Reply::new(503, "").header("retry-after", "60"))),
        ("401", Some(|| Reply::new(401, ""))),
        ("away", Some(|| Reply::new(200, "").body(Body::Silence))),
    ];
    for (name, service) in services {
        for stale in [false, true] {
            for up in [false, true] {
                let (realm, later) = token_service("good").await;
                let wants = bearer(&realm);
                let away = Arc::new(AtomicUsize::new(0));
                let now = Arc::clone(&away);
                let server = Server::start(move |seen| match seen.authorization.as_deref() {
                    _ if now.load(Ordering::SeqCst) == 1 => Reply::new(200, "").body(Body::Silence),
                    Some("Bearer good") => found(),
                    _ => challenge(&wants),
                })
                .await;
                let client = impatient();
                if stale {
                    assert_eq!(as_user(&client, &server).await, Ok(()));
                }
                *later.lock().unwrap() = service;
                away.store(usize::from(!up), Ordering::SeqCst);
                let (asked, requests) = (realm.seen().len(), server.seen().len());
                let told = as_user(&client, &server).await;
                let words = match (name, up) {
                    (_, false) => {
                        Some((FaultReason::Timeout, Contact::None, "registry does not answer in time"))
                    }
                    ("5xx", true) => {
                        Some((FaultReason::RegistryError, Contact::Answered, "token service answered 503"))
                    }
                    ("401", true) => {
                        Some((FaultReason::RegistryDenied, Contact::Answered, "token service answered 401"))
                    }
                    ("away", true) => {
                        Some((FaultReason::Timeout, Contact::Answered, "registry does not answer in time"))
                    }
                    (_, true) => None,
                };
                let expected = words.map_or(Ok(()), |(reason, contact, words)| {
                    let message = format!("{}/app:v1: {words}", server.address);
                    Err(Fault { reason, contact, message })
                });
                assert_eq!(told, expected, "token service {name}, stale: {stale}, registry up: {up}");
                // The token service once at most, and the registry always.
                assert!(realm.seen().len() <= asked + 1, "{name} {stale} {up}");
                assert!(server.seen().len() > requests, "{name} {stale} {up}");
            }
        }
    }
}

/// What a registry says to who shows nothing, and does not ask for anything, is no answer to who has credentials.
#[tokio::test]
async fn d4_what_a_stranger_is_told_is_not_told_to_who_could_not_show_himself() {
    let strangers: [Make; 4] = [
        || Reply::error(403, "DENIED", "denied"),
        || Reply::error(404, "MANIFEST_UNKNOWN", "unknown"),
        || Reply::error(404, "NAME_UNKNOWN", "unknown"),
        || Reply::error(401, "UNAUTHORIZED", "authentication required"),
    ];
    for (number, stranger) in strangers.into_iter().enumerate() {
        // A token service that is ill by now.
        let (realm, later) = token_service("good").await;
        let wants = bearer(&realm);
        let known = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&known);
        let server = Server::start(move |seen| match seen.authorization.as_deref() {
            Some("Bearer good") => found(),
            _ if asked.fetch_add(1, Ordering::SeqCst) == 0 => challenge(&wants),
            _ => stranger(),
        })
        .await;
        let client = client();
        assert_eq!(as_user(&client, &server).await, Ok(()));
        *later.lock().unwrap() = Some(|| Reply::new(503, "").header("retry-after", "60"));
        let message = format!("{}/app:v1: token service answered 503", server.address);
        let ill = Fault { contact: Contact::Answered, ..Fault::new(FaultReason::RegistryError, message) };
        assert_eq!(as_user(&client, &server).await, Err(ill), "{number}");

        // One in front that takes the password no more, and does not say what it wants.
        let password = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&password);
        let server = Server::start(move |seen| match seen.authorization.as_deref() {
            Some(BASIC) if asked.fetch_add(1, Ordering::SeqCst) == 0 => found(),
            Some(_) => challenge(""),
            None if asked.load(Ordering::SeqCst) == 0 => challenge("Basic realm=\"r\""),
            None => stranger(),
        })
        .await;
        assert_eq!(as_user(&client, &server).await, Ok(()));
        let refused = as_user(&client, &server).await.unwrap_err();
        assert_eq!(refused.reason, FaultReason::RegistryDenied, "{number}: {refused}");
        assert!(refused.message.contains("401"), "{number}: {refused}");
    }
}

#[tokio::test]
async fn who_waits_for_a_token_shares_its_failure() {
    let realm = Server::start(|_| Reply::new(200, "").body(Body::Silence)).await;
    let wants = bearer(&realm);
    let server = Server::start(move |_| challenge(&wants)).await;
    let client = impatient();
    let one = || as_user(&client, &server);
    let all = futures_util::future::join_all((0..8).map(|_| one())).await;
    let message = format!("{}/app:v1: registry does not answer in time", server.address);
    assert_eq!(all, vec![Err(Fault::new(FaultReason::Timeout, message)); 8]);
    assert_eq!(realm.seen().len(), 1);
}

#[tokio::test]
async fn a_token_that_no_header_should_carry_is_an_error() {
    for (length, taken) in [(16 * 1024, true), (16 * 1024 + 1, false)] {
        let token = "x".repeat(length);
        let realm = Server::start(move |_| Reply::new(200, format!(r#"{{"token":"{token}"}}"#))).await;
        let wants = bearer(&realm);
        let server =
            Server::start(move |seen| if seen.authorization.is_some() { found() } else { challenge(&wants) });
        let server = server.await;
        assert_eq!(resolve(&server, &client()).await.is_ok(), taken, "{length}");
    }
}

#[tokio::test]
async fn e4_words_that_repeat_a_header_of_hosts_toml_are_not_quoted() {
    for (value, words, hidden) in [
        ("subscription 1234", "invalid subscription key 1234", true),
        ("subscription 1234", "invalid subscription key", false),
    ] {
        let server = Server::start(move |_| Reply::error(403, "DENIED", words)).await;
        let node = Configured::new();
        let name = server.address.to_string();
        node.write(
            &name,
            "hosts.toml",
            format!("server = 'http://{name}'\n[header]\nx-secret = '{value}'\n"),
        );
        let (repository, digest) = (server.repository("app"), Digest::of(b"x"));
        let fault = node.client.manifest(&repository, &digest, &Credentials::Anonymous).await.unwrap_err();
        assert_eq!(server.seen()[0].secret.as_deref(), Some(value));
        assert_eq!(!fault.message.contains(words), hidden, "{fault}");
    }
}
