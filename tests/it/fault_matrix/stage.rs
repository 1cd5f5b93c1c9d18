//! What all cells share: a real registry with two images of one repository, the same over TLS, and one
//! proxy for each fault of an answer. A cell only chooses what is behind its registry's address.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use http::{StatusCode, header};

use crate::kit::{
    authority::Authority,
    cosign::Key,
    front::{Behind, Front},
    image::{self, Image},
    proxy::{Action, Proxy, Seen},
    registry::{Registry, Tls},
};

/// The parts that stay the same.
pub(super) struct Stage {
    registry: Registry,
    /// Its store over TLS, with a certificate that holds, with one of a stranger, and with an expired one.
    tls: [Registry; 3],
    /// The authority of the first and the last.
    pub(super) authority: String,
    /// By the name of the fault.
    proxies: Vec<(&'static str, Proxy)>,
    /// The key that policies ask for at first.
    pub(super) key: Key,
    /// The key that they ask for later.
    pub(super) later_key: Key,
    /// The key of nobody's signature.
    pub(super) foreign_key: Key,
    /// Signed by the first two.
    pub(super) signed: Image,
    pub(super) unsigned: Image,
}

impl Stage {
    pub(super) fn shared() -> &'static Self {
        static STAGE: OnceLock<Stage> = OnceLock::new();
        STAGE.get_or_init(Self::build)
    }

    fn build() -> Self {
        let registry = Registry::docker();
        let [key, later_key, foreign_key] = [Key::generate(), Key::generate(), Key::generate()];
        let signed = registry.image("app").push("signed");
        let unsigned = registry.image("app").push("unsigned");
        key.sign(&signed);
        later_key.sign(&signed);
        let [ours, theirs] = [Authority::new(), Authority::new()];
        let day = Duration::from_secs(86_400);
        let now = SystemTime::now();
        let tls = [(&ours, now + day), (&theirs, now + day), (&ours, now - day)].map(|(authority, end)| {
            let (certificate, key) = authority.issue(end);
            registry.over_tls(Tls { certificate, key, clients: None })
        });
        let proxies = PROXIED.iter().map(|(name, fault)| (*name, proxy(&registry, *fault))).collect();
        Self { registry, tls, authority: ours.pem, proxies, key, later_key, foreign_key, signed, unsigned }
    }

    /// An image of the registry.
    pub(super) fn image(&self, repository: &str) -> image::Builder<'_> {
        self.registry.image(repository)
    }

    /// Signs images by the first two keys.
    pub(super) fn sign(&self, images: &[Image]) {
        self.key.sign_all(images);
        self.later_key.sign_all(images);
    }

    /// Puts an image into another repository as well.
    pub(super) fn copy(&self, image: &Image, repository: &str) {
        image.at(format!("{}/{repository}", self.registry.host())).copy_to(&self.registry);
    }

    /// What is behind the address of a registry that works, for cells of this fault.
    pub(super) fn working(&self, fault: &str) -> Behind {
        let registry = if fault.contains("certificate") { &self.tls[0] } else { &self.registry };
        Behind::Host(registry.host().to_owned())
    }

    /// What is behind it while it fails. A name that does not resolve is not a matter of the address.
    pub(super) fn failing(&self, fault: &str) -> Behind {
        match fault {
            "works" | NO_NAME => self.working(fault),
            "refuses connections" => Behind::Nobody,
            SILENT => Behind::Silence,
            "shows a certificate of an unknown authority" => Behind::Host(self.tls[1].host().to_owned()),
            "shows an expired certificate" => Behind::Host(self.tls[2].host().to_owned()),
            _ => {
                let found = self.proxies.iter().find(|(name, _)| *name == fault);
                Behind::Host(found.unwrap_or_else(|| panic!("no fault `{fault}`")).1.host().to_owned())
            }
        }
    }
}

pub(super) const NO_NAME: &str = "has a name that does not resolve";
pub(super) const SILENT: &str = "accepts connections and says nothing";

/// What a proxy makes of a request; given the address of a registry that has everything.
type Fault = fn(&Seen, elsewhere: &str) -> Action;

/// The faults of answers, by the names that `docs/outages.md` has for them.
const PROXIED: &[(&str, Fault)] = &[
    ("breaks off in the middle of its answers", |_, _| Action::Cut),
    ("sends a byte at a time", |_, _| Action::Drip(Duration::from_millis(200))),
    ("sends without end", |_, _| Action::Endless),
    ("announces more than it sends", |_, _| Action::Short),
    ("sends other bytes than it should", |_, _| Action::Alter),
    ("answers 401", |_, _| status(401, None)),
    ("answers 403", |_, _| status(403, None)),
    ("answers 404", |_, _| status(404, None)),
    ("answers 429", |_, _| status(429, None)),
    ("answers 429 and asks for a second", |_, _| status(429, Some("1"))),
    ("answers 429 and asks for a minute", |_, _| status(429, Some("60"))),
    ("answers 500", |_, _| status(500, None)),
    ("answers 503", |_, _| status(503, None)),
    ("redirects in a circle", |seen, _| redirect(seen.path.clone())),
    ("redirects to a host that has it", |seen, elsewhere| {
        redirect(format!("http://{elsewhere}{}", seen.path))
    }),
    ("redirects to a host that is away", |seen, _| redirect(format!("http://{}{}", nobody(), seen.path))),
];

fn proxy(registry: &Registry, fault: Fault) -> Proxy {
    let elsewhere = registry.host().to_owned();
    Proxy::before(registry, move |seen| fault(seen, &elsewhere))
}

fn status(code: u16, retry_after: Option<&str>) -> Action {
    let headers = retry_after.map(|value| (header::RETRY_AFTER, value.to_owned()));
    Action::Answer(
        StatusCode::from_u16(code).expect("a status"),
        headers.into_iter().collect(),
        String::new(),
    )
}

fn redirect(to: String) -> Action {
    Action::Answer(StatusCode::TEMPORARY_REDIRECT, vec![(header::LOCATION, to)], String::new())
}

/// An address that refuses connections.
fn nobody() -> String {
    static NOBODY: OnceLock<Front> = OnceLock::new();
    NOBODY.get_or_init(|| Front::before(Behind::Nobody)).host()
}
