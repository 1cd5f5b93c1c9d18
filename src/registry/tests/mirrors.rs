//! Mirrors: who is asked, in what order, as whom, and what their answers come to.

use super::evidence::{
    BUNDLE, Content, QUERY, bundle, cosign, entry, layer, manifest, pieces, signature_layer, subject,
    unreachable, wanted,
};
use super::*;
use crate::outcome::Lookup;
use crate::sigstore::SignatureEvidence;

/// Nothing listens there.
const AWAY: &str = "127.0.0.1:1";

/// A folder of `hosts.toml` files, and a client that reads it.
pub(super) struct Configured {
    folder: tempfile::TempDir,
    pub(super) client: Client,
}

impl Configured {
    pub(super) fn new() -> Self {
        Self::with(options())
    }

    pub(super) fn with(options: RegistryOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config_path = Some(folder.path().to_owned());
        Self { client: Client::new(&RegistryOptions { config_path, ..options }).unwrap(), folder }
    }

    /// Writes a file for a registry, and gives its path.
    pub(super) fn write(&self, registry: &str, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let folder = self.folder.path().join(registry);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A mirror before a registry.
    pub(super) fn mirrored(registry: &Server, mirror: &str) -> Self {
        let this = Self::new();
        this.mirror(registry, mirror, "");
        this
    }

    pub(super) fn mirror(&self, registry: &Server, mirror: &str, keys: &str) {
        let text = format!("[host.'http://{mirror}']\n{keys}\n");
        self.write(&registry.address.to_string(), "hosts.toml", text);
    }

    pub(super) async fn resolve(&self, registry: &Server) -> Result<Digest, Fault> {
        resolve(registry, &self.client).await
    }

    async fn signatures(&self, registry: &Server, access: ManifestAccess) -> Looked {
        let (repository, budget) = (registry.repository("app"), Budget::verdict());
        self.client.signatures(request(&repository, access, &budget)).await
    }
}

fn request<'a>(
    repository: &'a Repository,
    manifest: ManifestAccess,
    budget: &'a Budget,
) -> EvidenceRequest<'a> {
    static SUBJECT: std::sync::LazyLock<Digest> = std::sync::LazyLock::new(subject);
    EvidenceRequest { repository, digest: &SUBJECT, credentials: &Credentials::Anonymous, manifest, budget }
}

/// A registry that says of every tag that it is this digest.
pub(super) async fn claims(text: &str) -> Server {
    let digest = Digest::of(text.as_bytes());
    Server::start(move |_| Reply::new(200, "").header("docker-content-digest", digest.to_string())).await
}

pub(super) fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// How the registry is named to a mirror.
fn ns(registry: &Server) -> String {
    format!("ns=127.0.0.1%3A{}", registry.address.port())
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_told_which_registry_is_meant() {
    let (registry, mirror) = (claims("registry").await, claims("mirror").await);
    let node = Configured::mirrored(&registry, &mirror.address.to_string());
    assert_eq!(node.resolve(&registry).await, Ok(digest("mirror")));
    assert_eq!(mirror.lines(), [format!("HEAD /v2/app/manifests/v1?{}", ns(&registry))]);
    assert_eq!(registry.lines(), [""; 0]);
    assert_eq!(node.client.requests().total(), 1);
}

#[tokio::test]
async fn what_is_not_configured_costs_no_request_and_names_no_registry() {
    let registry = claims("registry").await;
    let node = Configured::new();
    node.write("other.example", "hosts.toml", "not TOML");
    assert_eq!(node.resolve(&registry).await, Ok(digest("registry")));
    assert_eq!(registry.lines(), ["HEAD /v2/app/manifests/v1"]);
}

#[tokio::test]
async fn the_next_host_is_asked_whatever_is_wrong_with_the_first() {
    type Make = fn() -> Reply;
    let mirrors: [Make; 6] = [
        gone,
        || Reply::error(401, "UNAUTHORIZED", "no"),
        || Reply::new(403, ""),
        || Reply::new(500, "").header("retry-after", "60"),
        || Reply::new(200, "").header("docker-content-digest", "sha256:00"),
        || Reply::new(302, "").header("location", "file:///etc/passwd"),
    ];
    for make in mirrors {
        let (registry, mirror) = (claims("registry").await, Server::start(move |_| make()).await);
        let node = Configured::mirrored(&registry, &mirror.address.to_string());
        assert_eq!(node.resolve(&registry).await, Ok(digest("registry")));
        assert_eq!(mirror.lines().len(), 1);
    }
    let registry = claims("registry").await;
    assert_eq!(Configured::mirrored(&registry, AWAY).resolve(&registry).await, Ok(digest("registry")));
}

#[tokio::test]
async fn a_host_is_asked_only_for_what_it_is_capable_of() {
    let body = image_manifest();
    let both = Digest::of(&body);
    let serve = move || Server::start(move |_| Reply::manifest(media_type::OCI_MANIFEST, image_manifest()));
    for (capabilities, resolves, pulls) in [
        ("['pull']", false, true),
        ("['resolve']", false, false),
        ("['push']", false, false),
        ("[]", true, true),
    ] {
        let (registry, mirror) = (serve().await, serve().await);
        let node = Configured::new();
        node.mirror(&registry, &mirror.address.to_string(), &format!("capabilities = {capabilities}"));
        node.resolve(&registry).await.unwrap();
        let resolved = !mirror.lines().is_empty();
        let repository = registry.repository("app");
        node.client.manifest(&repository, &both, &Credentials::Anonymous).await.unwrap();
        let pulled = mirror.lines().iter().any(|line| line.contains("sha256:"));
        assert_eq!((resolved, pulled), (resolves, pulls), "{capabilities}");
    }
    // Nobody is left: no reason to ask someone else, and no outage.
    let registry = serve().await;
    let node = Configured::new();
    let text = format!("server = 'http://{}'\ncapabilities = ['push']\n", registry.address);
    node.write(&registry.address.to_string(), "hosts.toml", text);
    let message = format!("{}/app:v1: hosts.toml has no host that may be asked", registry.address);
    assert_eq!(node.resolve(&registry).await, Err(Fault::new(FaultReason::RegistryError, message)));
    assert_eq!(registry.lines(), [""; 0]);
}

#[tokio::test]
async fn a_server_takes_the_place_of_the_registry() {
    let (registry, mirror) = (claims("registry").await, Server::start(|_| gone()).await);
    let node = Configured::new();
    let text = format!("server = 'http://{}/some/path'\n", mirror.address);
    node.write(&registry.address.to_string(), "hosts.toml", text);
    let fault = node.resolve(&registry).await.unwrap_err();
    assert_eq!(fault.reason, FaultReason::ImageNotFound);
    assert_eq!(mirror.lines(), [format!("HEAD /some/path/v2/app/manifests/v1?{}", ns(&registry))]);
    assert_eq!(registry.lines(), [""; 0]);
    // It is not put before the repository where the address is said to be whole.
    let text = format!("[host.'http://{}/some/path']\noverride_path = true\n", mirror.address);
    node.write(&registry.address.to_string(), "hosts.toml", text);
    assert_eq!(node.resolve(&registry).await, Ok(digest("registry")));
    assert_eq!(mirror.lines()[1], format!("HEAD /some/path/app/manifests/v1?{}", ns(&registry)));
}

#[tokio::test]
async fn one_host_named_twice_is_asked_once() {
    let registry = Server::start(|_| gone()).await;
    let node = Configured::new();
    let address = registry.address.to_string();
    let text = format!(
        "server = 'http://{address}'\n[host.'http://{address}']\ncapabilities = ['pull', 'resolve']\n"
    );
    node.write(&address, "hosts.toml", text);
    let fault = node.resolve(&registry).await.unwrap_err();
    let message = format!("{address}/app:v1: registry answered 404");
    assert_eq!(fault, Fault::new(FaultReason::ImageNotFound, message));
    assert_eq!(registry.lines(), ["HEAD /v2/app/manifests/v1"]);
}

#[tokio::test]
async fn d4_contact_is_that_of_all_hosts_and_the_last_that_answered_has_the_word() {
    let node = Configured::new();
    let registry = |port: &str| format!("127.0.0.1:{port}");
    let missing = Server::start(|_| gone()).await;
    // The registry is away; no host answers.
    let text = "[host.'http://127.0.0.1:1']\n";
    node.write(&registry("2"), "hosts.toml", text);
    let away = Reference::parse("127.0.0.1:2/app:v1").unwrap();
    let fault = node.client.resolve(&away, &Credentials::Anonymous).await.unwrap_err();
    let message = "127.0.0.1:2/app:v1 at 127.0.0.1:2: connection refused";
    assert_eq!(fault, Fault::unanswered(FaultReason::RegistryUnreachable, message));
    // The mirror says that it is not there.
    node.write(&registry("2"), "hosts.toml", format!("[host.'http://{}']\n", missing.address));
    let fault = node.client.resolve(&away, &Credentials::Anonymous).await.unwrap_err();
    let message = format!("127.0.0.1:2/app:v1 at {}: registry answered 404", missing.address);
    assert_eq!(fault, Fault::new(FaultReason::ImageNotFound, message));
    // Both answer: the registry's word is the last.
    let denies = Server::start(|_| Reply::new(403, "")).await;
    let node = Configured::mirrored(&missing, &denies.address.to_string());
    let fault = node.resolve(&missing).await.unwrap_err();
    assert_eq!(fault.reason, FaultReason::ImageNotFound);
    let node = Configured::mirrored(&denies, &missing.address.to_string());
    assert_eq!(node.resolve(&denies).await.unwrap_err().reason, FaultReason::RegistryDenied);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    Signature,
    Nothing,
    Broken,
}

impl Has {
    async fn server(self, signature: usize) -> Server {
        match self {
            Self::Signature => {
                Content::default().blob(*b"p").sig(&[signature_layer(b"p", signature)]).serve().await
            }
            Self::Nothing => Content::default().serve().await,
            Self::Broken => Server::start(|_| Reply::new(418, "")).await,
        }
    }
}

#[tokio::test]
async fn d4_evidence_of_any_host_counts_and_one_not_there_is_enough_without() {
    use Has::{Broken, Nothing, Signature};
    let found = |signature| Some(vec![cosign(b"p", signature)]);
    let table: [(Has, Has, Option<Vec<SignatureEvidence>>, bool); 9] = [
        (Signature, Signature, found(1), false),
        (Signature, Nothing, found(1), false),
        (Signature, Broken, found(1), false),
        (Nothing, Signature, found(2), true),
        (Broken, Signature, found(2), true),
        (Nothing, Nothing, None, true),
        (Nothing, Broken, None, true),
        (Broken, Nothing, None, true),
        (Broken, Broken, None, true),
    ];
    for (mirror_has, registry_has, expected, registry_asked) in table {
        let (mirror, registry) = (mirror_has.server(1).await, registry_has.server(2).await);
        let node = Configured::mirrored(&registry, &mirror.address.to_string());
        let looked = node.signatures(&registry, ManifestAccess::Unknown).await;
        let doubt = matches!((mirror_has, registry_has), (Nothing, Broken) | (Broken, Nothing));
        assert_eq!(looked.doubt.as_ref().map(|fault| fault.contact), doubt.then_some(Contact::Answered));
        let lookup = pieces(looked);
        let case = format!("{mirror_has:?} {registry_has:?}");
        match (expected, (mirror_has, registry_has)) {
            (Some(expected), _) => assert_eq!(lookup, Lookup::Found(expected), "{case}"),
            (None, (Broken, Broken)) => {
                assert_eq!(unreachable(lookup).reason, FaultReason::RegistryError, "{case}");
            }
            (None, _) => assert_eq!(lookup, Lookup::Absent, "{case}"),
        }
        assert_eq!(!registry.lines().is_empty(), registry_asked, "{case}");
    }
}

#[tokio::test]
async fn a_silent_host_is_waited_for_once_in_a_verdict() {
    let mirror = Server::start(|_| Reply::new(200, "").body(Body::Silence)).await;
    let registry = Has::Nothing.server(1).await;
    let timeouts = Timeouts { idle: Duration::from_millis(200), ..options().timeouts };
    let node = Configured::with(RegistryOptions { timeouts, ..options() });
    node.mirror(&registry, &mirror.address.to_string(), "");
    let (repository, budget) = (registry.repository("app"), Budget::verdict());
    let request = request(&repository, ManifestAccess::Unknown, &budget);
    for _ in 0..3 {
        assert_eq!(pieces(node.client.signatures(request).await), Lookup::Absent);
    }
    let silent = node.client.requests().manifest - u64::try_from(registry.lines().len()).unwrap();
    assert_eq!((silent, registry.lines().len()), (1, 3));
    // Another verdict waits anew, and one without other hosts always.
    let budget = Budget::verdict();
    node.client.signatures(EvidenceRequest { budget: &budget, ..request }).await;
    assert_eq!(node.client.requests().manifest - u64::try_from(registry.lines().len()).unwrap(), 2);
}

#[tokio::test]
async fn evidence_that_does_not_satisfy_is_looked_for_at_the_hosts_after_it() {
    let found = |pieces, fault| Later { pieces, fault };
    let (mirror, registry) = (Has::Signature.server(1).await, Has::Signature.server(2).await);
    let node = Configured::mirrored(&registry, &mirror.address.to_string());
    let Lookup::Found(Fetched { pieces, rest }) =
        node.signatures(&registry, ManifestAccess::Unknown).await.lookup
    else {
        panic!("a signature");
    };
    assert_eq!(pieces, [cosign(b"p", 1)]);
    assert_eq!(registry.lines(), [""; 0]);
    let (repository, budget) = (registry.repository("app"), Budget::verdict());
    let request = request(&repository, ManifestAccess::Unknown, &budget);
    assert_eq!(node.client.rest(request, rest).await, found(vec![cosign(b"p", 2)], None));
    // That one of them cannot say what it has is told.
    for (has, answered) in [(Has::Nothing, None), (Has::Broken, Some(418))] {
        let registry = has.server(2).await;
        let node = Configured::mirrored(&registry, &mirror.address.to_string());
        let Lookup::Found(Fetched { rest, .. }) =
            node.signatures(&registry, ManifestAccess::Unknown).await.lookup
        else {
            panic!("a signature");
        };
        let repository = registry.repository("app");
        let fault = answered.map(|status| {
            let of = format!("evidence for {repository}@{} at {}", subject(), registry.address);
            Fault::new(FaultReason::RegistryError, format!("{of}: registry answered {status}"))
        });
        let request = EvidenceRequest { repository: &repository, ..request };
        assert_eq!(node.client.rest(request, rest).await, found(vec![], fault));
    }
}

#[tokio::test]
async fn what_a_host_lists_it_is_asked_for_first_and_the_others_if_it_does_not_have_it() {
    let list = || Content::default().sig(&[signature_layer(b"p", 1)]);
    // Listed and held by the registry: the mirror is not bothered.
    let (mirror, registry) = (Content::default().serve().await, list().blob(*b"p").serve().await);
    let node = Configured::mirrored(&registry, &mirror.address.to_string());
    let lookup = pieces(node.signatures(&registry, ManifestAccess::Unknown).await);
    assert_eq!(lookup, Lookup::Found(vec![cosign(b"p", 1)]));
    assert_eq!(mirror.lines().len(), 1);
    // Listed by the mirror, held by the registry.
    let (mirror, registry) = (list().serve().await, Content::default().blob(*b"p").serve().await);
    let node = Configured::mirrored(&registry, &mirror.address.to_string());
    let lookup = pieces(node.signatures(&registry, ManifestAccess::Unknown).await);
    assert_eq!(lookup, Lookup::Found(vec![cosign(b"p", 1)]));
    // Listed, and held by nobody.
    let (mirror, registry) = (list().serve().await, list().serve().await);
    let node = Configured::mirrored(&registry, &mirror.address.to_string());
    let fault = unreachable(pieces(node.signatures(&registry, ManifestAccess::Unknown).await));
    assert!(fault.message.ends_with("registry lists what it does not have"), "{fault}");
    // Other bytes than those listed are no answer either.
    let swapped = list().with(format!("blobs/{}", digest("p")), || Reply::new(200, "q"));
    let (mirror, registry) = (swapped.serve().await, Content::default().blob(*b"p").serve().await);
    let node = Configured::mirrored(&registry, &mirror.address.to_string());
    let lookup = pieces(node.signatures(&registry, ManifestAccess::Unknown).await);
    assert_eq!(lookup, Lookup::Found(vec![cosign(b"p", 1)]));
}

/// A registry with the referrers API and one bundle.
fn bundled(json: &'static str) -> Content {
    let image = manifest(&[layer(BUNDLE, json.as_bytes(), 0)]);
    let list = [entry(&image, BUNDLE)];
    Content::default().api(QUERY, &list, true).api("", &list, false).by_digest(image).blob(json)
}

#[tokio::test]
async fn bundles_are_looked_for_host_by_host_and_a_missing_api_is_remembered_of_one_host() {
    let (mirror, registry) = (Content::default().serve().await, bundled("{}").serve().await);
    let node = Configured::mirrored(&registry, &mirror.address.to_string());
    let (repository, budget) = (registry.repository("app"), Budget::verdict());
    let request = request(&repository, ManifestAccess::Served, &budget);
    let wanted = wanted(ReferrerForms::Bundles, &[]);
    for _ in 0..2 {
        let lookup = pieces(node.client.referrers(request, &wanted).await);
        assert_eq!(lookup, Lookup::Found(vec![bundle("{}")]));
    }
    // The mirror's 404 is about a manifest that it may not have: nothing to be remembered.
    assert_eq!(mirror.lines().len(), 4);
    // An API with nothing in it is nothing found.
    let empty = || Content::default().api(QUERY, &[], true).api("", &[], false);
    let (mirror, registry) = (empty().serve().await, bundled("{}").serve().await);
    let node = Configured::mirrored(&registry, &mirror.address.to_string());
    let repository = registry.repository("app");
    let request = EvidenceRequest { repository: &repository, ..request };
    assert_eq!(pieces(node.client.referrers(request, &wanted).await), Lookup::Found(vec![bundle("{}")]));
    // A mirror without an API for one registry may have it for another.
    let bare = Server::start(|_| Reply::new(404, "")).await;
    let node = Configured::mirrored(&registry, &bare.address.to_string());
    let other = bundled("{}").serve().await;
    node.mirror(&other, &bare.address.to_string(), "");
    // Where the tag has nothing either, it is asked after all.
    for (registry, asked) in [(&registry, 2), (&registry, 4), (&other, 6)] {
        let repository = registry.repository("app");
        let request = EvidenceRequest { repository: &repository, ..request };
        assert_eq!(pieces(node.client.referrers(request, &wanted).await), Lookup::Found(vec![bundle("{}")]));
        assert_eq!(bare.lines().len(), asked);
    }
}

/// Has no list, and none of the manifests that others list.
async fn lists_nothing() -> Server {
    let of_listed = |seen: &server::Seen| seen.line.contains("/manifests/sha256:");
    Server::start(move |seen| if of_listed(seen) { gone() } else { Reply::new(418, "") }).await
}

#[tokio::test]
async fn what_a_mirror_lists_leaves_the_registry_half_of_the_budget() {
    // Together more than is left after the list; nobody has them.
    let missing: Vec<_> = (0..20_u8).map(|n| signature_layer(&[n; 500], 1)).collect();
    let mirror = Content::default().sig(&missing).serve().await;
    let registry = Has::Signature.server(2).await;
    let node = Configured::mirrored(&registry, &mirror.address.to_string());
    let (repository, budget) = (registry.repository("app"), Budget::of(2 * manifest(&missing).len() + 1200));
    let request = request(&repository, ManifestAccess::Unknown, &budget);
    let lookup = pieces(node.client.signatures(request).await);
    assert_eq!(lookup, Lookup::Found(vec![cosign(b"p", 2)]));
}

/// A registry that lists two bundles, and answers so when it is asked for the second.
async fn lists_two(second: impl Fn() -> Reply + Send + Sync + 'static) -> Server {
    let images = ["{}", "[]"].map(|json| manifest(&[layer(BUNDLE, json.as_bytes(), 0)]));
    let list = images.each_ref().map(|image| entry(image, BUNDLE));
    let [first, other] = images;
    let content = Content::default().api(QUERY, &list, true).api("", &list, false).by_digest(first);
    content.blob("{}").blob("[]").with(format!("manifests/{}", Digest::of(&other)), second).serve().await
}

#[tokio::test]
async fn a_listed_manifest_is_gone_by_the_word_of_the_host_that_lists_it_alone() {
    let mirror = lists_nothing().await;
    let (budget, wanted) = (Budget::verdict(), wanted(ReferrerForms::Bundles, &[]));
    let look = async |registry: &Server| {
        let node = Configured::mirrored(registry, &mirror.address.to_string());
        let repository = registry.repository("app");
        let request = request(&repository, ManifestAccess::Unknown, &budget);
        pieces(node.client.referrers(request, &wanted).await)
    };
    assert_eq!(look(&lists_two(gone).await).await, Lookup::Found(vec![bundle("{}")]));
    // The mirror's "not there" does not take the place of what the registry could not say now.
    for status in [401, 418, 503] {
        let registry = lists_two(move || Reply::new(status, "").header("retry-after", "60")).await;
        let fault = unreachable(look(&registry).await);
        let answered = format!("at {}: registry answered {status}", registry.address);
        assert!(fault.message.ends_with(&answered), "{fault}");
        assert_eq!(fault.contact, Contact::Answered);
    }
}

#[tokio::test]
async fn d4_a_referrer_that_no_host_gives_is_no_answer_though_a_mirror_says_that_it_is_not_there() {
    let mirror = lists_nothing().await;
    let registry = lists_two(|| Reply::new(200, "").body(Body::Silence)).await;
    let timeouts = Timeouts { idle: Duration::from_secs(1), ..options().timeouts };
    let node = Configured::with(RegistryOptions { timeouts, ..options() });
    node.mirror(&registry, &mirror.address.to_string(), "");
    let (repository, budget) = (registry.repository("app"), Budget::verdict());
    let request = request(&repository, ManifestAccess::Unknown, &budget);
    let lookup = node.client.referrers(request, &wanted(ReferrerForms::Bundles, &[])).await;
    assert_eq!(unreachable(pieces(lookup)).contact, Contact::Answered);
}

#[tokio::test]
async fn d4_a_refusal_counts_as_not_there_only_by_a_host_that_serves_the_manifest() {
    let refuses = |serves: bool| {
        Server::start(move |seen| match seen.line.contains(&subject().to_string()) {
            true if serves => Reply::new(200, ""),
            true => gone(),
            false => Reply::new(403, ""),
        })
    };
    for (mirror_serves, registry_serves, absent) in
        [(true, false, true), (false, true, true), (false, false, false)]
    {
        let (mirror, registry) = (refuses(mirror_serves).await, refuses(registry_serves).await);
        let node = Configured::mirrored(&registry, &mirror.address.to_string());
        let lookup = pieces(node.signatures(&registry, ManifestAccess::Served).await);
        if absent {
            assert_eq!(lookup, Lookup::Absent);
        } else {
            assert_eq!(unreachable(lookup).reason, FaultReason::RegistryDenied);
        }
        let before = mirror.lines().len() + registry.lines().len();
        let lookup = pieces(node.signatures(&registry, ManifestAccess::Unknown).await);
        assert_eq!(unreachable(lookup).reason, FaultReason::RegistryDenied);
        assert_eq!(mirror.lines().len() + registry.lines().len(), before + 2, "no other request without it");
    }
}

#[tokio::test]
async fn a_page_of_a_mirror_names_the_registry_and_lies_on_the_mirror() {
    for (link, followed) in [("/v2/app/referrers/page2?n=1", true), ("http://127.0.0.1:1/x", false)] {
        let first = evidence::index(&[]);
        let mirror = Server::start(move |seen| {
            let page = Reply::manifest(media_type::OCI_INDEX, first.clone());
            let link = format!("<{link}>; rel=\"next\"");
            if seen.line.contains("page2") { page } else { page.header("link", link) }
        })
        .await;
        let registry = Content::default().serve().await;
        let node = Configured::mirrored(&registry, &mirror.address.to_string());
        let (repository, budget) = (registry.repository("app"), Budget::verdict());
        let request = request(&repository, ManifestAccess::Unknown, &budget);
        let lookup = node.client.referrers(request, &wanted(ReferrerForms::Artifacts, &[])).await;
        assert_eq!(pieces(lookup), Lookup::Absent);
        let second = format!("GET /v2/app/referrers/page2?n=1&{}", ns(&registry));
        assert_eq!(mirror.lines().contains(&second), followed, "{:?}", mirror.lines());
    }
}
