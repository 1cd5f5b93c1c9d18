//! Fuzz targets of this layer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use http::header::{LINK, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::auth::Challenge;
use super::credentials::{Credentials, DockerConfig, Stored, basic_value};
use super::hosts::HostsFile;
use super::http::Answer;
use super::referrers::{DESCRIPTORS_LIMIT, List, ReferrerForms, SIGNATURE_PREDICATE, Wanted, next_link};
use super::rekor::{Entry, read};
use crate::oci::{Digest, MANIFEST_LIMIT, Manifest, Repository};

/// `WWW-Authenticate`.
pub(crate) fn challenge(data: &[u8]) -> Option<()> {
    let parse = |value: HeaderValue| {
        let headers: HeaderMap = [(WWW_AUTHENTICATE, value)].into_iter().collect();
        Challenge::parse(&headers)
    };
    let challenge = parse(HeaderValue::from_bytes(data).ok()?)?;
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let printed = match &challenge {
        Challenge::Basic => "Basic".to_owned(),
        Challenge::Bearer { realm, service } => {
            let service = service.as_ref().map(|service| format!(", service={}", quoted(service)));
            format!("Bearer realm={}{}", quoted(realm), service.unwrap_or_default())
        }
    };
    let again = parse(HeaderValue::from_str(&printed).expect("a header, as it came in one"));
    assert_eq!(again, Some(challenge), "{printed}");
    Some(())
}

/// `Link`.
pub(crate) fn next_page(data: &[u8]) -> Option<()> {
    let target = next_link(&answer(Some((LINK, HeaderValue::from_bytes(data).ok()?)), Vec::new()))?;
    let linked = format!("<{target}>");
    assert!(data.windows(linked.len()).any(|part| part == linked.as_bytes()), "a target that is not there");
    Some(())
}

/// A page of referrers.
pub(crate) fn referrers(data: &[u8]) -> Option<()> {
    let Manifest::Index(index) = Manifest::parse(None, data).ok()? else { return None };
    let listed = |forms, predicates: &[&str]| -> BTreeSet<Digest> {
        let predicates = predicates.iter().map(|predicate| (*predicate).to_owned()).collect();
        let mut list = List::default();
        list.extend(index.clone(), &Wanted { forms, predicates });
        assert!(list.read <= DESCRIPTORS_LIMIT && list.read <= index.manifests.len());
        assert!(list.candidates.iter().all(|candidate| candidate.size <= MANIFEST_LIMIT));
        list.candidates.iter().map(|candidate| candidate.entry.digest).collect()
    };
    let all = listed(ReferrerForms::All, &[SIGNATURE_PREDICATE, "https://spdx.dev/Document"]);
    assert!(all.iter().all(|digest| index.manifests.iter().any(|entry| entry.digest == *digest)));
    let mut parts = BTreeSet::new();
    for forms in [ReferrerForms::Bundles, ReferrerForms::Artifacts] {
        for predicate in [SIGNATURE_PREDICATE, "https://spdx.dev/Document"] {
            parts.extend(listed(forms, &[predicate]));
        }
    }
    assert_eq!(parts, all, "what is opened for all is not what is opened for each");
    Some(())
}

/// A log's answer to a question for entries.
pub(crate) fn log_answer(data: &[u8]) -> Option<()> {
    let found: Vec<BTreeMap<String, Entry>> = read(&answer(None, data.to_vec())).ok()?;
    for annotation in found.into_iter().flat_map(BTreeMap::into_values).filter_map(Entry::annotation) {
        let parsed: serde_json::Value = serde_json::from_str(&annotation).expect("written as JSON");
        assert!(parsed.get("SignedEntryTimestamp").is_some() && parsed.get("Payload").is_some());
    }
    Some(())
}

/// A registry's words for an error.
pub(crate) fn registry_error(data: &[u8]) -> Option<()> {
    let words = answer(None, data.to_vec()).registry_error()?;
    let shown = super::http::quote(&words);
    assert!(shown.chars().count() < 300 && !shown.contains(char::is_control), "{shown:?}");
    Some(())
}

/// A docker `config.json`.
pub(crate) fn docker_config(data: &[u8]) -> Option<()> {
    let config = DockerConfig::parse(str::from_utf8(data).ok()?).ok()?;
    for text in ["nginx", "ghcr.io/org/app", "localhost:5000/a"] {
        let repository = Repository::parse(text).expect("a repository");
        let stored = config.stored(repository.host(), repository.path());
        if let Some(Stored::Here(Credentials::Basic { user, password, .. })) = stored {
            assert!(
                HeaderValue::from_str(&basic_value(user, password)).is_ok(),
                "base64 is good for a header"
            );
        }
    }
    Some(())
}

/// `hosts.toml`.
pub(crate) fn hosts(data: &[u8]) -> Option<()> {
    let parse = || HostsFile::parse(data, Path::new("/etc/containerd/certs.d/a.io"));
    let lines = data.split(|byte| *byte == b'\n').count();
    let read = parse();
    assert_eq!(parse(), read, "the same text reads differently");
    match read {
        Ok(file) => {
            assert!(!file.hosts.is_empty(), "nobody to ask");
            for address in file.hosts.iter().filter_map(|host| host.address.as_ref()) {
                let url = format!(
                    "{}://{}{}/app/manifests/x",
                    address.scheme.name(),
                    address.authority,
                    address.base
                );
                let url = reqwest::Url::parse(&url).expect("an address is part of a URL");
                assert!(url.username().is_empty() && url.password().is_none(), "{url}");
                assert!(url.path().ends_with("/app/manifests/x"), "{url}");
            }
            assert!(
                file.remarks.iter().all(|remark| (1..=lines).contains(&remark.line)),
                "{:?}",
                file.remarks
            );
            Some(())
        }
        Err(error) => {
            assert!((1..=lines).contains(&error.line), "line {} of {lines}", error.line);
            assert!(!error.to_string().contains(char::is_control), "{error}");
            None
        }
    }
}

fn answer(header: Option<(HeaderName, HeaderValue)>, body: Vec<u8>) -> Answer {
    Answer { status: StatusCode::OK, headers: header.into_iter().collect(), body }
}
