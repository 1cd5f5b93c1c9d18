//! Who gets to see what: credentials, headers and client certificates belong to the host that they are for.

use super::mirrors::{Configured, claims, digest};
use super::*;

/// Asks for a user, and says what it is after whoever it was.
async fn asks(text: &str) -> Server {
    let digest = Digest::of(text.as_bytes());
    Server::start(move |seen| match &seen.authorization {
        Some(_) => Reply::new(200, "").header("docker-content-digest", digest.to_string()),
        None => Reply::new(401, "").header("www-authenticate", "Basic realm=\"r\""),
    })
    .await
}

fn basic(audience: Audience) -> Credentials {
    Credentials::Basic { user: "user".into(), password: "hunter2".into(), audience }
}

/// What a server was shown, each once.
fn shown(server: &Server) -> Vec<String> {
    let mut shown: Vec<_> = server.seen().into_iter().filter_map(|seen| seen.authorization).collect();
    shown.dedup();
    shown
}

const OWN: &str = "Basic dXNlcjpodW50ZXIy";

#[tokio::test]
async fn a_mirror_sees_the_pulls_credentials_only_where_they_name_nobody() {
    let nothing: &[&str] = &[];
    let table = [
        (basic(Audience::Mirrors), [OWN].as_slice(), nothing, "mirror"),
        (basic(Audience::Registry), nothing, &[OWN], "registry"),
        (Credentials::RegistryToken("t".into()), nothing, &["Bearer t"], "registry"),
    ];
    for (credentials, at_mirror, at_registry, resolved) in table {
        let (registry, mirror) = (asks("registry").await, asks("mirror").await);
        let node = Configured::mirrored(&registry, &mirror.address.to_string());
        let answer = node.client.resolve(&registry.reference("app:v1"), &credentials).await.unwrap();
        assert_eq!(answer.digest, digest(resolved));
        assert_eq!((shown(&mirror), shown(&registry)), (own(at_mirror), own(at_registry)));
    }
    // By the kubelet's fields: a server address is a name.
    let config = AuthConfig { username: "user".into(), password: "hunter2".into(), ..AuthConfig::default() };
    let named = AuthConfig { server_address: "https://a.io".into(), ..config.clone() };
    assert_eq!(Credentials::from_auth_config(&config, "a.io").unwrap(), basic(Audience::Mirrors));
    assert_eq!(Credentials::from_auth_config(&named, "a.io").unwrap(), basic(Audience::Registry));
    assert_eq!(Credentials::from_auth_config(&named, "mirror.io").unwrap(), Credentials::Anonymous);
}

fn own(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn credentials_of_this_machine_go_to_the_host_that_they_are_kept_for() {
    let user = |name| format!("Basic {}", credentials::basic_value(name, "p"));
    for (kept_for, at_mirror, at_registry) in
        [("r", vec![], vec![user("r")]), ("m", vec![user("m")], vec![]), ("rm", vec![user("m")], vec![])]
    {
        let (registry, mirror) = (asks("registry").await, asks("mirror").await);
        let all = [("r", registry.address), ("m", mirror.address)];
        let entries: Vec<_> = all
            .iter()
            .filter(|(name, _)| kept_for.contains(name))
            .map(|(name, address)| format!(r#""{address}":{{"username":"{name}","password":"p"}}"#))
            .collect();
        let file = format!(r#"{{"auths":{{{}}}}}"#, entries.join(","));
        let docker_configs = vec![DockerConfig::parse(&file).unwrap()];
        let node = Configured::with(RegistryOptions { docker_configs, ..options() });
        node.mirror(&registry, &mirror.address.to_string(), "");
        node.resolve(&registry).await.unwrap();
        assert_eq!((shown(&mirror), shown(&registry)), (at_mirror, at_registry), "{kept_for}");
    }
}

#[tokio::test]
async fn tokens_are_not_shared_between_a_mirror_and_the_registry() {
    async fn token_registry(name: &'static str) -> Server {
        let realm = Arc::new(std::sync::OnceLock::<String>::new());
        let own = Arc::clone(&realm);
        let server = Server::start(move |seen| {
            if seen.line.contains("/token") {
                return Reply::new(200, format!(r#"{{"token":"{name}"}}"#));
            }
            if seen.authorization.is_some() && name == "registry" {
                return Reply::new(200, "").header("docker-content-digest", digest(name).to_string());
            }
            if seen.authorization.is_some() {
                return Reply::new(404, "");
            }
            let challenge = format!("Bearer realm=\"{}\",service=\"s\"", own.get().unwrap());
            Reply::new(401, "").header("www-authenticate", challenge)
        })
        .await;
        realm.set(format!("http://{}/token", server.address)).unwrap();
        server
    }
    let (registry, mirror) = (token_registry("registry").await, token_registry("mirror").await);
    let node = Configured::mirrored(&registry, &mirror.address.to_string());
    for _ in 0..2 {
        assert_eq!(node.resolve(&registry).await, Ok(digest("registry")));
    }
    assert_eq!(shown(&mirror), ["Bearer mirror"]);
    assert_eq!(shown(&registry), ["Bearer registry"]);
    assert_eq!(node.client.requests().token, 2);
}

#[tokio::test]
async fn headers_go_to_their_host_and_nobody_that_it_sends_us_to() {
    let elsewhere = claims("elsewhere").await;
    let location = format!("http://{}/there", elsewhere.address);
    let mirror = Server::start(move |_| Reply::new(307, "").header("location", location.clone())).await;
    let registry = claims("registry").await;
    let node = Configured::new();
    let keys = "header = {x-secret = 's', Authorization = 'Basic eDp5', Host = 'evil.example'}";
    node.mirror(&registry, &mirror.address.to_string(), keys);
    assert_eq!(node.resolve(&registry).await, Ok(digest("elsewhere")));
    let seen = |server: &Server| {
        server.seen().into_iter().map(|seen| (seen.secret, seen.authorization)).collect::<Vec<_>>()
    };
    assert_eq!(seen(&mirror), [(Some("s".to_owned()), Some("Basic eDp5".to_owned()))]);
    assert_eq!(seen(&elsewhere), [(None, None)]);
    // On the same host they stay.
    let mirror = Server::start(|seen| match seen.line.contains("/there") {
        true => Reply::new(200, "").header("docker-content-digest", digest("mirror").to_string()),
        false => Reply::new(307, "").header("location", "/there"),
    })
    .await;
    node.mirror(&registry, &mirror.address.to_string(), keys);
    assert_eq!(node.resolve(&registry).await, Ok(digest("mirror")));
    assert_eq!(seen(&mirror)[1], (Some("s".to_owned()), Some("Basic eDp5".to_owned())));
    assert_eq!(registry.lines(), [""; 0]);
}

#[tokio::test]
async fn headers_do_not_go_to_a_token_service_elsewhere_and_give_way_to_a_token() {
    let realm = Server::start(|_| Reply::new(200, r#"{"token":"t"}"#)).await;
    let challenge = format!("Bearer realm=\"http://{}/token\"", realm.address);
    let mirror = Server::start(move |seen| match seen.authorization.as_deref() {
        Some("Bearer t") => Reply::new(200, "").header("docker-content-digest", digest("m").to_string()),
        _ => Reply::new(401, "").header("www-authenticate", challenge.clone()),
    })
    .await;
    let registry = claims("registry").await;
    let node = Configured::new();
    node.mirror(
        &registry,
        &mirror.address.to_string(),
        "header = {x-secret = 's', authorization = 'Basic eDp5'}",
    );
    assert_eq!(node.resolve(&registry).await, Ok(digest("m")));
    assert_eq!(
        realm.seen().iter().map(|seen| (&seen.secret, &seen.authorization)).collect::<Vec<_>>(),
        [(&None, &None)]
    );
    assert_eq!(shown(&mirror), ["Basic eDp5", "Bearer t"]);
}
