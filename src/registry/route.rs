//! Who is asked about a repository: the hosts that `hosts.toml` gives, in its order, or else the registry itself.
//!
//! Each host with the wanted capability is asked until one has an answer; what counts as one is up to the
//! question. Content by digest is hashed, and a tag's digest is a claim to be verified, whoever gives it.
//! Of evidence, "not there" by one host and nothing by the others is "not there" (rule D4).
//!
//! Everything that is remembered of a host (challenge, token, scheme, missing API) is remembered of one
//! host, way of asking and registry: what a mirror says of one registry says nothing of another. Challenges and
//! tokens are also of one repository: behind one name there may be several registries, by path.
//!
//! A pull's credentials go to the registry that the image's name carries, and to its mirrors where
//! containerd sends them too ([`Credentials::for_mirror`]). Those of this machine's docker config files go
//! to the host that they are kept for.

use std::borrow::Cow;
use std::sync::Arc;

use reqwest::Url;

use super::auth::Asker;
use super::connections::{HostAccess, Via};
use super::credentials::{Stored, helper_server};
use super::folders::{ConfiguredHost, RegistryFolder};
use super::hosts::{Address, Capabilities};
use super::http::{Answer, Call, Host, Scheme, Step, Transport};
use super::{Ask, Client, Credentials};
use crate::oci::Repository;
use crate::outcome::{Contact, Fault, FaultReason};

/// The hosts to be asked, in order.
pub(super) struct Route(Vec<Endpoint>);

/// One host, and how it is asked about one registry's repositories.
#[derive(Clone)]
pub(super) struct Endpoint {
    authority: String,
    /// What stands before the repository in a path.
    base: String,
    schemes: Schemes,
    /// The registry, for a host that is another (`ns` in its URLs).
    namespace: Option<String>,
    capabilities: Capabilities,
    access: Option<Arc<HostAccess>>,
    /// Of what is remembered.
    key: String,
    /// What is remembered.
    host: Arc<Host>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Schemes {
    /// As of any registry: HTTPS, plain HTTP where configured, both on this machine.
    Registry,
    Only(Scheme),
    /// An http address with something said about TLS: plain HTTP only where the peer itself speaks it,
    /// each time anew. Who can break connections must not choose how a secret travels.
    TlsFirst,
}

/// Why each host that was asked had no answer.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// A host said that it is not there.
    pub(super) not_there: bool,
    /// Of the host that was asked first.
    first: Option<Fault>,
    /// Of the last that answered anything.
    answered: Option<Fault>,
    silent: Option<Fault>,
}

impl Client {
    /// The hosts for `repository`.
    ///
    /// # Errors
    /// `registry-error` where what is configured for the registry cannot be read: it is not known then who
    /// is to be asked.
    pub(super) async fn route(&self, step: &Step, repository: &Repository) -> Result<Route, Fault> {
        let (folders, host) = (Arc::clone(&self.folders), repository.host().to_owned());
        // Files: not on the threads that serve everyone.
        let found = tokio::task::spawn_blocking(move || folders.of(&host)).await;
        let found = found.map_err(|_| step.fault(FaultReason::Internal, "hosts.toml could not be read"))?;
        match found {
            Ok(None) => Ok(Route(vec![Endpoint::registry(&self.transport, repository)])),
            Ok(Some(folder)) => Ok(Route::configured(&self.transport, repository, &folder)),
            Err(error) => Err(step.fault(FaultReason::RegistryError, &error.to_string())),
        }
    }

    /// Asks one host; an http address or a host of this machine in both schemes.
    pub(super) async fn ask_at(
        &self,
        step: &Step,
        endpoint: &Endpoint,
        repository: &Repository,
        credentials: &Credentials,
        ask: &Ask,
    ) -> Result<Answer, Fault> {
        // Few requests run a helper: its process is no part of every request's future.
        let credentials = Box::pin(self.credentials(step, repository, credentials, endpoint)).await?;
        let asker = Asker { repository, credentials: &credentials, key: &endpoint.key };
        let schemes = endpoint.schemes(&self.transport);
        let mut refused = None;
        for scheme in schemes {
            let call = endpoint.call(step, *scheme, repository, ask)?;
            let here = step.in_scheme();
            // Boxed: it is part of every future that asks.
            let result = Box::pin(self.tokens.send(&self.transport, &here, &call, asker)).await;
            if schemes.len() == 1 {
                return result;
            }
            // A TLS server answers plain HTTP with 400, an alert or a closed connection: no answer of the
            // registry, unless it does not speak TLS after all.
            if here.spoken() || result.is_ok() && *scheme == Scheme::Https {
                // A certificate that is not taken is a reason to stop and none to remember.
                if here.is_answered() {
                    endpoint.remember_scheme(*scheme);
                }
                return result;
            }
            if endpoint.schemes == Schemes::TlsFirst && *scheme == Scheme::Https && !here.is_plain() {
                return result;
            }
            match result {
                Err(fault) if fault.reason == FaultReason::Timeout => {
                    if !matches!(refused, Some(Ok(_))) {
                        return Err(fault);
                    }
                    // It did answer, in the other scheme.
                    step.note_answer();
                    return Err(Fault { contact: Contact::Answered, ..fault });
                }
                Err(fault) => refused = refused.filter(Result::is_ok).or(Some(Err(fault))),
                Ok(answer) => {
                    refused = Some(Ok(answer));
                    here.take_answers_back();
                }
            }
        }
        if let Some(Ok(_)) = refused {
            step.note_answer();
        }
        refused.unwrap_or_else(|| Err(step.fault(FaultReason::Internal, "no scheme to try")))
    }

    /// The request's own credentials where they may be sent; where it has none, those of the policies' secrets
    /// and then this machine's, for the host.
    async fn credentials<'a>(
        &'a self,
        step: &Step,
        repository: &Repository,
        own: &'a Credentials,
        endpoint: &Endpoint,
    ) -> Result<Cow<'a, Credentials>, Fault> {
        let own = if endpoint.is_mirror() { own.for_mirror() } else { own };
        if *own != Credentials::Anonymous {
            return Ok(Cow::Borrowed(own));
        }
        let host = if endpoint.is_mirror() { endpoint.authority.as_str() } else { repository.host() };
        if !endpoint.may_see_secrets(&self.transport) {
            return Ok(Cow::Borrowed(own));
        }
        if let Some(Stored::Here(credentials)) = self.policy_logins().stored(host, repository.path()) {
            return Ok(Cow::Owned(credentials.clone()));
        }
        for config in &self.docker_configs {
            match config.stored(host, repository.path()) {
                Some(Stored::Here(credentials)) => return Ok(Cow::Borrowed(credentials)),
                Some(Stored::Helper(name)) => {
                    let found = self.helpers.credentials(name, helper_server(host)).await;
                    // Whoever names a helper for a host has no use for what strangers get to see there. It is no
                    // word of the registry's, and no failure of the network either (rule D4).
                    let found = found.map_err(|error| {
                        let message =
                            format!("{}: credential helper {} {error}", step.subject(), name.program());
                        Fault::new(FaultReason::RegistryDenied, message)
                    })?;
                    return Ok(found.map_or(Cow::Borrowed(own), Cow::Owned));
                }
                Some(Stored::Store(name)) => {
                    match self.helpers.credentials(name, helper_server(host)).await {
                        Ok(Some(credentials)) => return Ok(Cow::Owned(credentials)),
                        Ok(None) => {}
                        // As docker: most images are public.
                        Err(error) => {
                            tracing::warn!(
                                host,
                                "credential helper {} {error}; asked without credentials",
                                name.program()
                            );
                        }
                    }
                }
                None => {}
            }
        }
        Ok(Cow::Borrowed(own))
    }
}

impl Route {
    fn configured(transport: &Transport, repository: &Repository, folder: &RegistryFolder) -> Self {
        let hosts = folder.hosts.iter().enumerate();
        // Files name a host and then the same again as the server.
        let asked = hosts.filter(|(n, host)| {
            let mut before = folder.hosts.iter().take(*n);
            !before.any(|other| other.is_asked_as(host) && other.capabilities == host.capabilities)
        });
        Self(asked.map(|(_, host)| Endpoint::configured(transport, repository, host)).collect())
    }

    /// Those that may be asked for content by digest, and for evidence.
    pub(super) fn pulling(&self) -> impl Iterator<Item = &Endpoint> {
        self.0.iter().filter(|endpoint| endpoint.capabilities.pull)
    }

    /// Those that may be asked which digest a tag has.
    pub(super) fn resolving(&self) -> impl Iterator<Item = &Endpoint> {
        self.pulling().filter(|endpoint| endpoint.capabilities.resolve)
    }

    /// The step of asking one of these hosts; its messages name the host where there are several.
    pub(super) fn step(&self, step: &Step, endpoint: &Endpoint) -> Step {
        step.at(endpoint.key.clone(), if self.is_single() { None } else { Some(&endpoint.authority) })
    }

    /// Tells `step` that the hosts for content and evidence are asked.
    pub(super) fn expect_pulling(&self, step: &Step) {
        step.expect(self.pulling().map(|endpoint| endpoint.key.clone()));
    }

    /// Tells `step` that the hosts for tags are asked.
    pub(super) fn expect_resolving(&self, step: &Step) {
        step.expect(self.resolving().map(|endpoint| endpoint.key.clone()));
    }

    /// Whether `endpoint` is the last to be asked for content and evidence: the registry itself, as a rule.
    pub(super) fn is_last(&self, endpoint: &Endpoint) -> bool {
        self.pulling().last().is_none_or(|last| last.is(endpoint))
    }

    /// Whether nobody else could be asked.
    pub(super) fn is_single(&self) -> bool {
        self.0.len() == 1
    }
}

impl Endpoint {
    /// The registry itself, of which nothing is said.
    fn registry(transport: &Transport, repository: &Repository) -> Self {
        let authority = network_host(repository.host()).to_owned();
        Self {
            host: transport.host(&authority),
            key: authority.clone(),
            base: "/v2".to_owned(),
            schemes: Schemes::Registry,
            namespace: None,
            capabilities: Capabilities::ALL,
            access: None,
            authority,
        }
    }

    fn configured(transport: &Transport, repository: &Repository, host: &ConfiguredHost) -> Self {
        let access = host.access.clone();
        let Some(address) = &host.address else {
            let capabilities = host.capabilities;
            return Self { access, capabilities, ..Self::registry(transport, repository) };
        };
        let registry = repository.host();
        let is_registry = [registry, network_host(registry)].contains(&address.authority.as_str());
        let schemes = match (address.scheme, host.names_tls) {
            // As containerd: nobody speaks TLS at port 80.
            (Scheme::Http, true) if !address.names_port_80 => Schemes::TlsFirst,
            (scheme, _) => Schemes::Only(scheme),
        };
        // No registry's name has a slash in it, so none is taken for another's.
        // What was learnt while other certificates were taken is forgotten with them.
        let access_id = access.as_ref().map_or(0, |access| access.id());
        let Address { scheme, authority, base, .. } = address;
        let key = format!("{}://{authority}{base} for {registry} as {access_id}", scheme.name());
        Self {
            host: transport.host(&key),
            key,
            authority: address.authority.clone(),
            base: address.base.clone(),
            schemes,
            namespace: (!is_registry).then(|| registry.to_owned()),
            capabilities: host.capabilities,
            access,
        }
    }

    /// Whether it is another host than the registry.
    const fn is_mirror(&self) -> bool {
        self.namespace.is_some()
    }

    /// The host, and of which registry it is asked.
    pub(super) const fn key(&self) -> &str {
        self.key.as_str()
    }

    /// What is remembered of it.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// Whether both are the same host, asked in the same way.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.key == other.key
    }

    fn schemes(&self, transport: &Transport) -> &'static [Scheme] {
        match self.schemes {
            Schemes::Registry => transport.schemes(&self.authority, &self.host),
            Schemes::Only(Scheme::Https) => &[Scheme::Https],
            Schemes::Only(Scheme::Http) => &[Scheme::Http],
            Schemes::TlsFirst => match self.host.scheme() {
                Some(Scheme::Https) => &[Scheme::Https],
                Some(Scheme::Http) | None => &[Scheme::Https, Scheme::Http],
            },
        }
    }

    fn remember_scheme(&self, scheme: Scheme) {
        // An https peer whose certificate nobody looks at may be anyone, for once.
        let proven = || self.access.as_ref().is_none_or(|access| access.is_verified());
        if self.schemes != Schemes::TlsFirst || scheme == Scheme::Https && proven() {
            self.host.remember_scheme(scheme);
        }
    }

    /// Whether a secret of this machine may go there: nobody reads it on the way, or the node says so.
    pub(super) fn may_see_secrets(&self, transport: &Transport) -> bool {
        self.schemes(transport) == [Scheme::Https] || transport.takes_plain(&self.authority)
    }

    fn call(&self, step: &Step, scheme: Scheme, repository: &Repository, ask: &Ask) -> Result<Call, Fault> {
        let Self { authority, base, .. } = self;
        let text = format!("{}://{authority}{base}/{}/{}", scheme.name(), repository.path(), ask.tail);
        let mut url = Url::parse(&text)
            .map_err(|_| step.fault(FaultReason::ReferenceInvalid, "registry's name is not one of a host"))?;
        if let Some(link) = &ask.link {
            let next = url.join(link).ok().and_then(|mut next| {
                // Which of its schemes is asked is not the host's to say.
                next.set_scheme(scheme.name()).ok()?;
                (next.origin() == url.origin()).then_some(next)
            });
            let elsewhere = || step.fault(FaultReason::RegistryError, "registry's next page is elsewhere");
            url = next.ok_or_else(elsewhere)?;
        }
        self.name_registry(&mut url);
        let via = self.access.as_ref().map(|access| Via::new(Arc::clone(access), &url));
        Ok(Call {
            class: ask.class,
            method: ask.method.clone(),
            url,
            accept: ask.accept,
            authorization: None,
            via,
            post: None,
            limit: ask.limit,
        })
    }

    /// Tells a mirror which registry is meant.
    fn name_registry(&self, url: &mut Url) {
        if let Some(registry) = &self.namespace
            && !url.query_pairs().any(|(name, _)| name == NAMESPACE)
        {
            url.query_pairs_mut().append_pair(NAMESPACE, registry);
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.key)
    }
}

impl Failures {
    pub(super) const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn add(&mut self, fault: Fault) {
        self.not_there |= fault.reason == FaultReason::ImageNotFound;
        self.first.get_or_insert_with(|| fault.clone());
        match fault.reason {
            FaultReason::RegistryUnreachable | FaultReason::Timeout => self.silent = Some(fault),
            FaultReason::ReferenceInvalid
            | FaultReason::RegistryDenied
            | FaultReason::RegistryError
            | FaultReason::ImageNotFound
            | FaultReason::KeyUnavailable
            | FaultReason::TrustRootUnavailable
            | FaultReason::PolicyUnresolved
            | FaultReason::LogUnavailable
            | FaultReason::Internal => self.answered = Some(fault),
        }
    }

    /// The last word: of the last host that answered, else of the last. Its contact is that of all of them.
    pub(super) fn fault(self, step: &Step) -> Fault {
        Self::or_nobody(self.answered.or(self.silent), step)
    }

    /// Of what a list names: none if the host of the list, which is asked first, said itself that it is not
    /// there. That another host does not have it says nothing.
    pub(super) fn unless_gone(self, step: &Step) -> Option<Fault> {
        let gone = self.first.as_ref().is_some_and(|fault| fault.reason == FaultReason::ImageNotFound);
        (!gone).then(|| Self::or_nobody(self.first, step))
    }

    fn or_nobody(fault: Option<Fault>, step: &Step) -> Fault {
        let nobody = || step.fault(FaultReason::RegistryError, "hosts.toml has no host that may be asked");
        Fault { contact: step.contact(), ..fault.unwrap_or_else(nobody) }
    }
}

/// Docker Hub's API is not at the name that its references carry.
pub(super) fn network_host(host: &str) -> &str {
    if host == "docker.io" { "registry-1.docker.io" } else { host }
}

/// containerd's parameter for mirrors.
const NAMESPACE: &str = "ns";
