//! What the address of a host says: whether it is this machine, where a redirect may lead, and which token
//! service a registry may name.
//!
//! A registry is elsewhere and not trusted, and what listens on this machine or its link (the kubelet, most
//! clouds' metadata) is often open to this machine alone. So no registry sends us there that is not there
//! itself: not by a redirect, nor, in the clear, by a realm. Names that only a look-up shows to be this
//! machine's are not known here, nor its other addresses.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::LOCATION;
use reqwest::Url;

/// Where a redirect leads: http(s) only, never from https to the clear nor from elsewhere to this machine,
/// and without a user in the URL, which would become an `Authorization` of the registry's choosing.
pub(super) fn redirect_target(from: &Url, headers: &HeaderMap) -> Option<Url> {
    let mut next = from.join(headers.get(LOCATION)?.to_str().ok()?).ok()?;
    let allowed = next.scheme() == "https" || (next.scheme() == "http" && from.scheme() == "http");
    if !allowed || !leads_outwards(from, &next) || next.host_str().is_none() {
        return None;
    }
    next.set_username("").ok()?;
    next.set_password(None).ok()?;
    Some(next)
}

/// `host` or `host:port` of a URL.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether `name`, with or without a port, is this machine.
pub(super) fn is_loopback(name: &str) -> bool {
    let host = without_port(name);
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    address == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether `name` reaches this machine or its link, in whatever form; more than [`is_loopback`] grants anything to.
fn is_here(name: &str) -> bool {
    let host = without_port(name).trim_end_matches('.');
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let here = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local(),
    };
    address == "localhost" || address.ends_with(".localhost") || address.parse().is_ok_and(here)
}

pub(super) fn has_port(name: &str) -> bool {
    without_port(name).len() != name.len()
}

fn without_port(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => name,
    }
}

/// Whether a secret for a registry may go to this realm: over https, to itself, or within this machine.
pub(super) fn may_see_secrets(realm: &Url, registry: &Url) -> bool {
    realm.scheme() == "https"
        || realm.origin() == registry.origin()
        || (is_loopback(&authority(realm)) && is_loopback(&authority(registry)))
}

/// Whether a registry may send us to a realm without a secret: from the clear to the clear, and from elsewhere
/// not to this machine.
pub(super) fn may_name(registry: &Url, realm: &Url) -> bool {
    registry.scheme() == "http" && leads_outwards(registry, realm)
}

fn leads_outwards(from: &Url, to: &Url) -> bool {
    is_here(&authority(from)) || !is_here(&authority(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_nothing_to_send_is_not_sent_where_the_registry_cannot_go() {
        let table = [
            ("http://auth.a.io/token", "https://a.io/v2/", false),
            ("http://169.254.169.254/token", "https://a.io/v2/", false),
            ("http://127.0.0.1:9/token", "https://a.io/v2/", false),
            ("http://127.0.0.1:9/token", "http://a.io:5000/v2/", false),
            ("http://0.0.0.0:9/token", "http://a.io:5000/v2/", false),
            ("http://[::]:9/token", "http://a.io:5000/v2/", false),
            ("http://[::ffff:127.0.0.1]:9/token", "http://a.io:5000/v2/", false),
            ("http://localhost.:9/token", "http://a.io:5000/v2/", false),
            ("http://a.localhost/token", "http://a.io:5000/v2/", false),
            ("http://169.254.169.254/token", "http://a.io:5000/v2/", false),
            ("http://a.io/jwt/auth", "http://a.io:5050/v2/", true),
            ("http://169.254.1.5:5001/auth", "http://169.254.1.5:5000/v2/", true),
        ];
        for (realm, registry, allowed) in table {
            let of = |text| Url::parse(text).unwrap();
            assert_eq!(may_name(&of(registry), &of(realm)), allowed, "{realm} {registry}");
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

    #[test]
    fn a_redirect_leads_from_nowhere_else_to_this_machine() {
        let table = [
            ("http://a.io/v2/", "http://127.0.0.1:10255/pods", false),
            ("https://a.io/v2/", "https://127.0.0.1:10250/pods", false),
            ("https://a.io/v2/", "https://localhost./x", false),
            ("http://a.io/v2/", "http://169.254.169.254/latest/meta-data", false),
            ("https://a.io/v2/", "https://[fe80::1]/x", false),
            ("https://a.io/v2/", "https://[::ffff:169.254.169.254]/x", false),
            ("http://127.0.0.1:5000/v2/", "http://127.0.0.1:5001/x", true),
            ("https://localhost:5000/v2/", "https://a.io/x", true),
            ("https://a.io/v2/", "https://b.io/x", true),
            ("https://a.io/v2/", "https://10.0.0.1/x", true),
        ];
        for (from, to, allowed) in table {
            let headers = [(LOCATION, to.parse().unwrap())].into_iter().collect();
            let target = redirect_target(&Url::parse(from).unwrap(), &headers);
            assert_eq!(target.is_some(), allowed, "{from} {to}");
        }
    }
}
