//! Who is served a present image while its registry is away (rule O4).

use serde_json::json;

use super::super::{Servable, ServePresent};
use super::kit::{DAY, Node, Setup, WEEK, advance, basic, status};
use super::{ID, keyed};
use crate::policy::evaluate::Source;
use crate::registry::{AuthConfig, Credentials};

const TEAM: Option<&str> = Some("team");

/// A node of that mode with an image that `ada` pulled in the namespace `team`.
async fn pulled_by_ada(mode: ServePresent) -> Node {
    let node = Node::start(Setup { serve_present: Some(mode), ..Setup::default() }).await;
    node.enforce(&node.keyed());
    node.sign(&[(&node.key, json!({}))]);
    let admitted = node.pull_in(TEAM, node.pinned(), basic("ada", "one")).await.unwrap();
    node.gate.pulled(&admitted, ID, None);
    node
}

/// Whether containerd's pull of it, which fails, may be answered with the image that is there.
async fn is_served(node: &Node, namespace: Option<&str>, credentials: Credentials) -> bool {
    let admitted = node.pull_in(namespace, node.pinned(), credentials).await.unwrap();
    let servable = node.gate.may_serve_present(&admitted).await;
    let expected = Servable { digest: node.image, image_id: Some(ID.to_owned()) };
    assert!(servable.as_ref().is_none_or(|servable| *servable == expected), "{servable:?}");
    servable.is_some()
}

/// Ada's credentials as a kubelet sends them that knows under which address they are kept.
fn ada_at(address: &str, host: &str) -> Credentials {
    let auth = AuthConfig {
        username: "ada".to_owned(),
        password: "one".to_owned(),
        server_address: address.to_owned(),
        ..AuthConfig::default()
    };
    Credentials::from_auth_config(&auth, host).unwrap()
}

#[tokio::test]
async fn o4_each_mode_serves_whom_it_names_and_nobody_else() {
    const NEVER: ServePresent = ServePresent::Never;
    const ANONYMOUS: ServePresent = ServePresent::Anonymous;
    const CREDENTIALS: ServePresent = ServePresent::Credentials;
    const NAMESPACE: ServePresent = ServePresent::Namespace;
    let ada = || basic("ada", "one");
    let askers: [(&str, Option<&str>, Credentials, &[ServePresent]); 9] = [
        ("no credentials", TEAM, Credentials::Anonymous, &[ANONYMOUS, CREDENTIALS, NAMESPACE]),
        ("the same credentials", TEAM, ada(), &[CREDENTIALS, NAMESPACE]),
        ("the same in another namespace", Some("other"), ada(), &[CREDENTIALS, NAMESPACE]),
        ("the same without a namespace", None, ada(), &[CREDENTIALS, NAMESPACE]),
        ("another password", TEAM, basic("ada", "two"), &[NAMESPACE]),
        ("another password in another namespace", Some("other"), basic("ada", "two"), &[]),
        ("another password without a namespace", None, basic("ada", "two"), &[]),
        ("another user", TEAM, basic("eve", "one"), &[]),
        ("a token", TEAM, Credentials::RegistryToken("one".to_owned()), &[]),
    ];
    for mode in [NEVER, ANONYMOUS, CREDENTIALS, NAMESPACE] {
        let mut node = pulled_by_ada(mode).await;
        let policy = node.keyed();
        // While the registry answers, nobody is.
        for (asker, namespace, credentials, _) in &askers {
            assert!(!is_served(&node, *namespace, credentials.clone()).await, "{mode:?} up: {asker}");
        }
        node.stop();
        for restarted in [false, true] {
            // Twice: whoever was refused is not known for it.
            for (asker, namespace, credentials, served) in askers.iter().chain(&askers) {
                let expected = served.contains(&mode);
                let found = is_served(&node, *namespace, credentials.clone()).await;
                assert_eq!(found, expected, "{mode:?}, {restarted}: {asker}");
            }
            let at_host = ada_at(&format!("http://{}", node.host()), &node.host());
            assert_eq!(is_served(&node, None, at_host).await, matches!(mode, CREDENTIALS | NAMESPACE));
            if !restarted {
                assert!(node.gate.store().flush().await);
                node = node.restart().await;
                node.enforce(&policy);
            }
        }
    }
}

/// What is served from here came from nobody's pull.
#[tokio::test]
async fn o4_neither_a_permit_nor_an_answer_from_here_proves_credentials() {
    let node = pulled_by_ada(ServePresent::Credentials).await;
    // The gate lets it go on, and containerd hears 401.
    node.answers(|seen| seen.authorization.is_some().then(|| status(401)));
    node.pull_as(node.pinned(), basic("eve", "guessed")).await.unwrap();
    let before = node.admission().unwrap().pulled_by;
    node.stop();
    let admitted = node.pull(node.pinned()).await.unwrap();
    node.gate.served(&admitted, ID);
    assert_eq!(node.admission().unwrap().pulled_by, before);
    assert!(!is_served(&node, None, basic("eve", "guessed")).await);
    assert!(is_served(&node, None, basic("ada", "one")).await);
}

/// An image that nobody pulled has no id here, and no credentials that could be the same.
#[tokio::test]
async fn o4_what_was_verified_ahead_is_served_to_pulls_without_credentials_once_its_id_is_known() {
    let node = Node::start(Setup { serve_present: Some(ServePresent::Namespace), ..Setup::default() }).await;
    node.enforce(&node.keyed());
    node.sign(&[(&node.key, json!({}))]);
    let _ = node.gate.prewarm(node.tagged()).await;
    node.stop();
    for (credentials, served) in [(Credentials::Anonymous, true), (basic("ada", "one"), false)] {
        let admitted = node.pull_in(TEAM, node.tagged(), credentials).await.unwrap();
        assert_eq!(admitted.permit.source(), Source::Fresh);
        let unknown = served.then_some(Servable { digest: node.image, image_id: None });
        assert_eq!(node.gate.may_serve_present(&admitted).await, unknown);
    }
    // Told once, it is known, and still to nobody else.
    let admitted = node.pull(node.tagged()).await.unwrap();
    node.gate.served(&admitted, ID);
    assert!(is_served(&node, TEAM, Credentials::Anonymous).await);
    assert!(!is_served(&node, TEAM, basic("ada", "one")).await);
    advance(DAY + WEEK);
    node.pull(node.pinned()).await.unwrap_err();
}

#[tokio::test]
async fn o4_an_approved_image_is_served_as_a_verified_one() {
    let node = keyed().await;
    node.approve(&node.keyed());
    let admitted = node.pull(node.pinned()).await.unwrap();
    assert_eq!(admitted.permit.source(), Source::Approved);
    node.gate.pulled(&admitted, ID, None);
    node.stop();
    assert!(is_served(&node, None, Credentials::Anonymous).await);
    assert!(!is_served(&node, None, basic("ada", "one")).await);
}
