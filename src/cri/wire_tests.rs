use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn field(number: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(u64::from(number << 3 | 2), &mut bytes);
    prost::encoding::encode_varint(value.len() as u64, &mut bytes);
    bytes.extend_from_slice(value);
    bytes
}

fn varint_field(number: u32, value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(u64::from(number << 3), &mut bytes);
    prost::encoding::encode_varint(value, &mut bytes);
    bytes
}

fn spec(image: &str) -> Vec<u8> {
    field(1, image.as_bytes())
}

/// All orders of known and unknown fields at both levels: only the value of the image differs.
#[test]
fn m1_splices_only_the_image_and_keeps_unknown_fields() {
    let unknown = [
        Vec::new(),
        field(99, b"later"),
        varint_field(1000, u64::MAX),
        [&[0xfd, 0x3e][..], &[1, 2, 3, 4]].concat(),
        [&[0xf9, 0x3e][..], &[1, 2, 3, 4, 5, 6, 7, 8]].concat(),
        // A varint that is longer than it must be stays as it was sent.
        vec![0xf8, 0x3e, 0x81, 0x80, 0x00],
    ];
    let auth = field(2, &[field(1, b"user"), field(2, b"secret"), field(77, b"?")].concat());
    let sandbox =
        field(3, &[field(1, &[field(1, b"pod"), field(3, b"ns")].concat()), field(9, b"w")].concat());
    let names = ["x", "docker.io/library/x:1", &"long/".repeat(60), &format!("ghcr.io/org/app@{DIGEST}")];
    for before in &unknown {
        for after in &unknown {
            for old in ["busybox", "ghcr.io/org/app:v1"] {
                for new in names {
                    let around = |image: &str| {
                        let inner = [before.clone(), spec(image), after.clone(), field(19, b"kata")].concat();
                        [after.clone(), auth.clone(), field(1, &inner), sandbox.clone(), before.clone()]
                            .concat()
                    };
                    assert_eq!(splice_image(&around(old), new).unwrap(), around(new));
                }
            }
        }
    }
}

#[test]
fn m1_the_spliced_length_may_need_more_bytes() {
    let original = field(1, &spec("a"));
    let name = format!("ghcr.io/{}@{DIGEST}", "a".repeat(180));
    let spliced = splice_image(&original, &name).unwrap();
    assert_eq!(spliced, field(1, &spec(&name)));
    assert_eq!(pull_image_request(&spliced).unwrap().image.unwrap().image, name);
}

#[test]
fn m1_refuses_a_second_image_at_either_level() {
    let table = [
        [field(1, &spec("a")), field(1, &spec("b"))].concat(),
        [field(1, &spec("a")), field(1, b"")].concat(),
        [field(1, &spec("a")), field(2, b""), field(1, &spec("a"))].concat(),
        field(1, &[spec("a"), spec("b")].concat()),
        field(1, &[spec("a"), field(2, b""), spec("a")].concat()),
    ];
    for bytes in table {
        assert_eq!(pull_image_request(&bytes), Err(WireError::SecondImage), "{bytes:?}");
        assert_eq!(image_status_name(&bytes), Err(WireError::SecondImage), "{bytes:?}");
        assert_eq!(splice_image(&bytes, "c"), Err(WireError::SecondImage), "{bytes:?}");
    }
}

#[test]
fn m1_refuses_fields_that_name_another_image() {
    for (number, name) in [(18, "user_specified_image"), (20, "image_ref")] {
        let request = |image: &str, other: &str| {
            pull_image_request(&field(1, &[spec(image), field(number, other.as_bytes())].concat()))
        };
        assert_eq!(request("a:1", "a:2"), Err(WireError::OtherImage(name)));
        assert_eq!(request("a", DIGEST), Err(WireError::OtherImage(name)));
        assert_eq!(request("a", "not a name"), Err(WireError::OtherImage(name)));
        assert!(request("busybox:latest", "busybox").is_ok());
        assert!(request("docker.io/library/busybox:1", "busybox:1").is_ok());
        assert!(request("a:1", "").is_ok());
        let around = |image: &str| field(1, &[spec(image), field(number, b"a:1")].concat());
        assert_eq!(splice_image(&around("a:1"), "a@pinned").unwrap(), around("a@pinned"));
    }
}

#[test]
fn m1_refuses_a_request_without_image() {
    for bytes in [Vec::new(), field(2, b""), field(1, b""), field(1, &field(2, b"")), field(1, &spec(""))] {
        assert_eq!(pull_image_request(&bytes), Err(WireError::NoImage), "{bytes:?}");
    }
    assert_eq!(image_status_name(&[]).unwrap(), "");
    assert_eq!(image_status_name(&[field(1, &spec("a")), varint_field(2, 1)].concat()).unwrap(), "a");
}

#[test]
fn refuses_broken_wire_format() {
    let good = field(1, &spec("busybox"));
    for end in 1..good.len() {
        assert_eq!(pull_image_request(&good[..end]), Err(WireError::Malformed), "{end}");
    }
    let table: [&[u8]; 8] = [
        &[0x00],
        &[0x02, 0x00],
        &[0x0b],
        &[0x0c],
        &[0x0e],
        &[0x08, 0x01],
        &[0xff; 11],
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    ];
    for bytes in table {
        assert_eq!(pull_image_request(bytes), Err(WireError::Malformed), "{bytes:?}");
    }
    let not_text = field(1, &field(1, &[0xff, 0xfe]));
    assert!(matches!(pull_image_request(&not_text), Err(WireError::Decode(_))));
}

#[test]
fn reads_what_the_generated_client_writes() {
    use k8s_cri::v1;

    let request = v1::PullImageRequest {
        image: Some(v1::ImageSpec {
            image: "busybox:latest".into(),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
            user_specified_image: "busybox".into(),
            runtime_handler: "kata".into(),
        }),
        auth: Some(v1::AuthConfig {
            username: "u".into(),
            password: "p".into(),
            auth: "a".into(),
            server_address: "s".into(),
            identity_token: "i".into(),
            registry_token: "r".into(),
        }),
        sandbox_config: Some(v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: "pod".into(),
                uid: "uid".into(),
                namespace: "ns".into(),
                attempt: 3,
            }),
            hostname: "host".into(),
            labels: [("l".to_owned(), "m".to_owned())].into(),
            annotations: [("n".to_owned(), "o".to_owned())].into(),
            ..Default::default()
        }),
    };
    let ours = pull_image_request(&request.encode_to_vec()).unwrap();
    assert_eq!(
        ours,
        PullImageRequest {
            image: Some(ImageSpec {
                image: "busybox:latest".into(),
                annotations: [("a".to_owned(), "b".to_owned())].into(),
                user_specified_image: "busybox".into(),
                runtime_handler: "kata".into(),
                image_ref: String::new(),
            }),
            auth: Some(AuthConfig {
                username: "u".into(),
                password: "p".into(),
                auth: "a".into(),
                server_address: "s".into(),
                identity_token: "i".into(),
                registry_token: "r".into(),
            }),
            sandbox_config: Some(PodSandboxConfig {
                metadata: Some(PodSandboxMetadata {
                    name: "pod".into(),
                    uid: "uid".into(),
                    namespace: "ns".into(),
                    attempt: 3,
                }),
                labels: [("l".to_owned(), "m".to_owned())].into(),
                annotations: [("n".to_owned(), "o".to_owned())].into(),
            }),
        }
    );
    assert!(!format!("{ours:?}").contains("\"p\""), "credentials are not printed");
}
