//! What counts as a manifest, and which child of an index is this machine's.

use super::*;

fn image(inner: &str) -> Vec<u8> {
    let digest = Digest::of(b"{}");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{inner}","config":{{"mediaType":"x","digest":"{digest}","size":2}},"layers":[]}}"#
    )
    .into_bytes()
}

#[test]
fn reads_an_image_and_an_index() {
    let bytes = image(media_type::OCI_MANIFEST);
    assert!(matches!(Manifest::parse(Some(media_type::OCI_MANIFEST), &bytes), Ok(Manifest::Image(_))));
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{}","size":1,"annotations":null}}]}}"#,
        Digest::of(b"x")
    );
    assert!(matches!(
        Manifest::parse(Some("application/vnd.oci.image.index.v1+json; charset=utf-8"), index.as_bytes()),
        Ok(Manifest::Index(_))
    ));
}

#[test]
fn pitfall_19_refuses_media_types_that_disagree() {
    let bytes = image(media_type::OCI_MANIFEST);
    for declared in [media_type::OCI_INDEX, media_type::DOCKER_MANIFEST, "text/html"] {
        assert!(
            matches!(Manifest::parse(Some(declared), &bytes), Err(ManifestError::MediaType { .. })),
            "{declared}"
        );
    }
    assert!(matches!(
        Manifest::parse(None, &image(media_type::OCI_INDEX)),
        Err(ManifestError::MediaType { .. })
    ));
}

#[test]
fn pitfall_19_refuses_a_document_that_is_both() {
    for both in [
        r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
        r#"{"schemaVersion":2,"manifests":null,"config":{}}"#,
    ] {
        assert!(matches!(Manifest::parse(None, both.as_bytes()), Err(ManifestError::Ambiguous)), "{both}");
    }
}

#[test]
fn reads_null_manifests_as_none() {
    let empty = br#"{"schemaVersion":2,"manifests":null}"#;
    assert!(matches!(Manifest::parse(None, empty), Ok(Manifest::Index(index)) if index.manifests.is_empty()));
}

#[test]
fn pitfall_06_refuses_more_values_than_are_read() {
    // The document, its version and its list count too.
    let document = |values: usize| {
        let list = vec!["0"; values - 3].join(",");
        format!(r#"{{"schemaVersion":2,"x":[{list}]}}"#).into_bytes()
    };
    assert!(matches!(Manifest::parse(None, &document(VALUES_LIMIT)), Err(ManifestError::Json(_))));
    let too_many = Manifest::parse(None, &document(VALUES_LIMIT + 1));
    assert!(matches!(too_many, Err(ManifestError::TooManyValues)));
    let annotations: Vec<_> = (0..VALUES_LIMIT).map(|number| format!(r#""{number}":"""#)).collect();
    let crowded = String::from_utf8(image(media_type::OCI_MANIFEST)).unwrap();
    let annotated = format!(r#""size":2,"annotations":{{{}}}"#, annotations.join(","));
    let crowded = crowded.replace(r#""size":2"#, &annotated).into_bytes();
    assert!(crowded.len() < MANIFEST_LIMIT);
    assert!(matches!(Manifest::parse(None, &crowded), Err(ManifestError::TooManyValues)));
}

#[test]
fn the_child_of_an_index_is_taken_only_where_there_is_no_other() {
    let platform = |text: &str| {
        let (os, architecture) = text.split_once('/').unwrap();
        let (os, architecture) = (os.to_owned(), architecture.to_owned());
        Platform { os, architecture, ..Platform::default() }
    };
    let child = |platforms: &[&str]| {
        let entry = |(number, text): (usize, &&str)| IndexEntry {
            media_type: String::new(),
            digest: Digest::of(number.to_string().as_bytes()),
            size: 1,
            platform: (!text.is_empty()).then(|| platform(text)),
            artifact_type: None,
            annotations: None,
        };
        let manifests: Vec<_> = platforms.iter().enumerate().map(entry).collect();
        let index = Index { schema_version: 2, media_type: None, manifests };
        let digest = index.child(&platform("linux/amd64"))?.digest;
        Ok(index.manifests.iter().position(|entry| entry.digest == digest).unwrap())
    };
    let none = Err(ChildError::None(platform("linux/amd64")));
    let several = |count| Err(ChildError::Several(platform("linux/amd64"), count));
    for (platforms, expected) in [
        (&["linux/arm64", "linux/amd64", "unknown/unknown"][..], Ok(1)),
        (&["windows/amd64", "Linux/x86_64"], Ok(1)),
        (&[""], Ok(0)),
        (&["/"], Ok(0)),
        (&[], none.clone()),
        (&["linux/arm64", "linux/386", "windows/amd64"], none),
        (&["linux/amd64", "linux/amd64"], several(2)),
        (&["linux/x86-64", "linux/amd64"], several(2)),
        (&["linux/amd64", "", "linux/"], several(3)),
    ] {
        assert_eq!(child(platforms), expected, "{platforms:?}");
    }
    assert_eq!(
        several(2).unwrap_err().to_string(),
        "the index has 2 manifests that may be the one for linux/amd64"
    );
}

/// What containerd's `platforms.Only` takes was looked up in its source and in Go's `strings.ToLower`.
#[test]
fn pitfall_19_a_child_that_containerd_may_pass_over_is_taken_only_where_it_would_take_no_other() {
    let child = |wanted: &str, platforms: &[&str]| {
        let listed: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(number, platform)| {
                let digest = Digest::of(number.to_string().as_bytes());
                format!(r#"{{"mediaType":"m","digest":"{digest}","size":1,"platform":{{{platform}}}}}"#)
            })
            .collect();
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, listed.join(","));
        let Manifest::Index(index) = Manifest::parse(None, text.as_bytes()).unwrap() else {
            panic!("{text}")
        };
        let wanted =
            Platform { os: "linux".to_owned(), architecture: wanted.to_owned(), ..Platform::default() };
        let digest = index.child(&wanted).map(|entry| entry.digest);
        digest.map(|digest| index.manifests.iter().position(|entry| entry.digest == digest).unwrap())
    };
    let several = |wanted: &str, count| {
        let wanted =
            Platform { os: "linux".to_owned(), architecture: wanted.to_owned(), ..Platform::default() };
        Err(ChildError::Several(wanted, count))
    };
    let (amd64, x86) = (r#""os":"linux","architecture":"amd64""#, r#""os":"linux","architecture":"386""#);
    let (arm64, arm) =
        (r#""os":"linux","architecture":"arm64""#, r#""os":"linux","architecture":"arm","variant":"v7""#);
    let with = |platform: &str, more: &str| format!("{platform},{more}");
    let variant = |platform: &str, name: &str| format!(r#"{platform},"variant":"{name}""#);
    let features = with(amd64, r#""os.features":["sse9"]"#);
    // Go's lower case of this letter is a plain `i`.
    let dotted = [
        amd64.replace("linux", "l\u{130}nux"),
        amd64.replace("amd64", "\u{ff41}md64"),
        x86.replace("386", "\u{130}386"),
    ];
    for odd in &dotted {
        assert_eq!(child("amd64", &[odd, amd64]), several("amd64", 2), "{odd}");
        assert_eq!(child("amd64", &[odd]), Ok(0), "{odd}");
    }
    for (odd, fallback) in [
        (variant(amd64, "v3"), x86.replace("386", "i386")),
        (variant(amd64, "v\u{130}"), x86.to_owned()),
        (with(r#""os":"linux""#, r#""architecture":"""#), x86.to_owned()),
        (features.clone(), x86.to_owned()),
        (features, x86.replace(r#""os":"linux","#, "")),
    ] {
        assert_eq!(child("amd64", &[&odd, &fallback]), several("amd64", 2), "{odd}");
        assert_eq!(child("amd64", &[&odd]), Ok(0), "{odd}");
    }
    for odd in [variant(arm64, "v9"), variant(arm64, "v8.2")] {
        for fallback in [arm, r#""architecture":"armhf""#, r#""architecture":"ArmEL""#] {
            assert_eq!(child("arm64", &[fallback, &odd]), several("arm64", 2), "{odd} {fallback}");
        }
        assert_eq!(child("arm64", &[&odd, x86]), Ok(0), "{odd}");
    }
    // What is there for this very machine goes before what it could run too.
    for plain in [amd64.to_owned(), variant(amd64, "V1"), with(amd64, r#""variant":null,"os.features":null"#)]
    {
        assert_eq!(child("amd64", &[x86, &plain, arm]), Ok(1), "{plain}");
    }
    for plain in [arm64.to_owned(), variant(arm64, "v8"), variant(arm64, "8")] {
        assert_eq!(child("arm64", &[arm, &plain, x86]), Ok(1), "{plain}");
    }
    assert_eq!(child("s390x", &[r#""os":"linux","architecture":"s390x","variant":"z""#, x86]), Ok(0));
}

#[test]
fn refuses_what_is_too_large_or_not_json() {
    assert!(matches!(Manifest::parse(None, &vec![b' '; MANIFEST_LIMIT + 1]), Err(ManifestError::TooLarge)));
    assert!(matches!(Manifest::parse(None, b"<html>"), Err(ManifestError::Json(_))));
    assert!(matches!(
        Manifest::parse(None, br#"{"schemaVersion":1,"manifests":[]}"#),
        Err(ManifestError::SchemaVersion(1))
    ));
}
