//! Fuzz targets of this layer.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use super::manifest::{IMAGE_TYPES, INDEX_TYPES};
use super::{Digest, Manifest, Reference, Repository, RequestedImage, json, wildcard};

/// An image reference, as the kubelet and policies write it.
pub(crate) fn reference(data: &[u8]) -> Option<()> {
    let text = str::from_utf8(data).ok()?;
    let reference = match RequestedImage::parse(text) {
        Ok(RequestedImage::Id(id)) => {
            assert_eq!(id, text);
            return Some(());
        }
        Ok(RequestedImage::Reference(reference)) => reference,
        Err(_) => {
            assert!(Repository::parse(text).is_err(), "a repository that is no reference");
            return None;
        }
    };
    let repository = reference.repository();
    assert_eq!(reference.text(), text);
    assert!(reference.tag().is_some() || reference.digest().is_some(), "neither tag nor digest");
    assert!(!repository.host().contains(|c: char| c.is_ascii_uppercase()), "a host in upper case");
    assert!(!repository.host().ends_with(":443") && !repository.path().is_empty());

    // Every name under which the image is looked up, pulled or recorded means this image.
    let digest = Digest::of(data);
    let pinned = Reference::parse(&reference.pinned(digest)).expect("what is pulled can be read");
    assert_eq!((pinned.repository(), pinned.tag(), pinned.digest()), (repository, None, Some(digest)));
    assert_eq!(Repository::from_key(&repository.to_string()).as_ref(), Ok(repository));
    let tag = reference.tag().filter(|_| reference.digest().is_none());
    let same = |name: &str| {
        let read = Reference::parse(name).expect("a name can be read");
        (read.repository(), read.tag(), read.digest()) == (repository, tag, reference.digest())
    };
    assert!(same(&reference.kyverno_form()), "Kyverno's form is another image");
    assert!(reference.short_form().is_none_or(|form| same(&form)), "the short form is another image");
    assert!(reference.containerd_tag_name().is_none_or(|name| same(&name)), "the record is another image");
    // In lower case `Registry/app` is a path at docker.io.
    if repository.host().contains(['.', ':']) || repository.host() == "localhost" {
        assert!(same(&reference.normalised_form()), "the normalised form is another image");
        assert_eq!(Repository::parse(&repository.to_string()).as_ref(), Ok(repository));
    }
    let json = serde_json::to_string(repository).expect("two texts");
    assert_eq!(serde_json::from_str::<Repository>(&json).ok().as_ref(), Some(repository));
    Some(())
}

/// A pattern, a byte 0xff, and a text.
pub(crate) fn wildcard(data: &[u8]) -> Option<()> {
    let (pattern, text) = data.split_at(data.iter().position(|byte| *byte == 0xff)?);
    let (pattern, text) = (str::from_utf8(pattern).ok()?, str::from_utf8(text.get(1..)?).ok()?);
    if pattern.len().max(text.len()) > 256 {
        return None;
    }
    assert_eq!(wildcard::matches(pattern, text), matches_slowly(pattern, text));
    Some(())
}

/// Which beginnings of the text each beginning of the pattern matches.
fn matches_slowly(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut ends = vec![false; text.len() + 1];
    if let Some(nothing) = ends.first_mut() {
        *nothing = true;
    }
    for wanted in pattern.chars() {
        let mut next = Vec::with_capacity(ends.len());
        for at in 0..ends.len() {
            let before = at.checked_sub(1);
            let fits = |at: usize| wanted == '?' || text.get(at) == Some(&wanted);
            next.push(match (wanted, before) {
                ('*', Some(before)) => next.get(before) == Some(&true) || ends.get(at) == Some(&true),
                ('*', None) => ends.get(at) == Some(&true),
                (_, Some(before)) => ends.get(before) == Some(&true) && fits(before),
                (_, None) => false,
            });
        }
        ends = next;
    }
    ends.last() == Some(&true)
}

/// A manifest, as a registry serves it and as rules read it.
pub(crate) fn manifest(data: &[u8]) -> Option<()> {
    if let Ok(read) = json::parse_of_image(data) {
        assert_eq!(Some(&read), json::parse(data).ok().as_ref(), "another document");
        assert_eq!(Some(read), serde_json::from_slice(data).ok(), "another document");
    }
    let plain = Manifest::parse(None, data).ok();
    for declared in IMAGE_TYPES.iter().chain(INDEX_TYPES) {
        let read = Manifest::parse(Some(declared), data).ok();
        let (allowed, inner) = match &plain {
            Some(Manifest::Image(image)) => (IMAGE_TYPES, &image.media_type),
            Some(Manifest::Index(index)) => (INDEX_TYPES, &index.media_type),
            None => {
                assert_eq!(read, None, "readable only if it is declared");
                continue;
            }
        };
        let agrees = allowed.contains(declared) && inner.as_ref().is_none_or(|inner| inner == declared);
        assert_eq!(read, plain.clone().filter(|_| agrees), "declared as {declared}");
    }
    // Other readers must not see the other kind of document.
    let manifest = plain?;
    let members: BTreeMap<String, IgnoredAny> = serde_json::from_slice(data).expect("an object");
    let has = |name| members.contains_key(name);
    match manifest {
        Manifest::Image(_) => assert!(!has("manifests") && has("layers") && has("config")),
        Manifest::Index(_) => assert!(has("manifests") && !has("layers") && !has("config")),
    }
    Some(())
}
