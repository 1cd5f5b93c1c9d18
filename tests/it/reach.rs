//! How `pullgate verify` gets to a registry: by the environment's proxies, by ports, by IPv6, and by an
//! authority that only the config knows.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Command, Output},
    sync::mpsc,
    thread,
};

use serde_json::{Value, json};

use crate::kit::{
    Node, folder,
    gate::binary,
    image::Image,
    on_containerd,
    policy::Policy,
    registry::{Registry, Tls},
};

/// Answers every request on `address` with a status, and tells of the first line of each.
fn listener(address: &str, status: &'static str) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind(address).expect("a loopback port");
    let address = listener.local_addr().expect("an address").to_string();
    let (said, heard) = mpsc::channel();
    thread::spawn(move || {
        for socket in listener.incoming() {
            if said.send(answer(&mut socket.expect("a connection"), status)).is_err() {
                return;
            }
        }
    });
    (address, heard)
}

fn answer(socket: &mut TcpStream, status: &str) -> String {
    let mut lines = BufReader::new(socket.try_clone().expect("a socket")).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    lines.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
    // The client may have gone.
    let _ = write!(socket, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    first
}

/// `pullgate verify` of an image that a policy wants signed.
fn verify(image: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let folder = folder();
    let file = folder.join("policy.yaml");
    fs::write(&file, keyed().to_string()).expect("a policy file");
    let mut command = Command::new(binary());
    command.arg("verify").arg("-p").arg(file).arg(image).args(arguments);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "DOCKER_CONFIG"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.envs(environment.iter().copied()).env("HOME", &folder).output().expect("pullgate")
}

/// A policy that wants every image signed.
fn keyed() -> Value {
    let key = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8nXRh950IZbRj8Ra/N9sbqOPZrfM\n5/KAQN0/KjHcorm/J5yctVd7iEcnessRQjU917hmKO6JWVGHpDguIyakZA==\n-----END PUBLIC KEY-----\n";
    json!({
        "apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": {"name": "keyed"},
        "spec": {"validationFailureAction": "Enforce", "rules": [{
            "name": "signed", "match": {"any": [{"resources": {"kinds": ["Pod"]}}]},
            "verifyImages": [{"imageReferences": ["*"], "attestors": [{"entries": [{"keys": {
                "publicKeys": key, "rekor": {"ignoreTlog": true}, "ctlog": {"ignoreSCT": true},
            }}]}]}],
        }]},
    })
}

/// However many descriptors are left: what this machine lacks is no silence of a registry (rule D4), so
/// `failurePolicy: Ignore` lets nothing pass that a working machine would refuse.
#[test]
fn d4_a_want_of_descriptors_lets_nothing_pass() {
    let (registry, _heard) = listener("127.0.0.1:0", "404 Not Found");
    let folder = folder();
    let policy = folder.join("policy.yaml");
    let mut document = keyed();
    document["spec"]["failurePolicy"] = json!("Ignore");
    fs::write(&policy, document.to_string()).expect("a policy file");
    let image = format!("localhost:{}/app:1", registry.rsplit_once(':').expect("a port").1);
    let verify = |most: u32| {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={most}:{most}")).arg(binary()).arg("verify").arg("-p").arg(&policy);
        command.arg(&image).env("HOME", &folder).env_remove("DOCKER_CONFIG").output().expect("prlimit")
    };
    let answers: Vec<_> = (4..=20).map(|most| (most, verify(most))).collect();
    for (most, output) in &answers {
        assert!(!output.status.success(), "{most}: {output:?}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("allowed"), "{most}: {output:?}");
    }
    // The first cannot even start, and some could not connect; the last asked the registry.
    // The first cannot even start, the last has enough to ask the registry.
    let said = |at: Option<&(u32, Output)>| format!("{:?}", at.expect("answers").1);
    assert!(said(answers.first()).contains("cannot start: Too many open files"), "{answers:?}");
    assert!(said(answers.last()).contains("no such image"), "{answers:?}");
}

#[test]
fn https_goes_through_the_environments_proxy_by_name_and_port() {
    let (proxy, heard) = listener("127.0.0.1:0", "502 Bad Gateway");
    let proxy = format!("http://{proxy}");
    for (image, target) in [
        ("registry.invalid/app:1", "CONNECT registry.invalid:443 HTTP/1.1"),
        ("registry.invalid:5000/app:1", "CONNECT registry.invalid:5000 HTTP/1.1"),
        ("[2001:db8::1]:5000/app:1", "CONNECT [2001:db8::1]:5000 HTTP/1.1"),
        ("docker.io/library/app:1", "CONNECT registry-1.docker.io:443 HTTP/1.1"),
    ] {
        for name in ["HTTPS_PROXY", "https_proxy"] {
            let output = verify(image, &[], &[(name, &proxy)]);
            assert_eq!(output.status.code(), Some(3), "{output:?}");
            assert_eq!(heard.recv().expect("a request"), target);
        }
    }
    assert_eq!(heard.try_recv().ok(), None);
}

#[test]
fn plain_http_goes_through_its_own_proxy() {
    let (proxy, heard) = listener("127.0.0.1:0", "404 Not Found");
    let proxy = format!("http://{proxy}");
    let output = verify("registry.invalid:5000/app:1", &["--plain-http"], &[("HTTP_PROXY", &proxy)]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let line = "HEAD http://registry.invalid:5000/v2/app/manifests/1 HTTP/1.1";
    assert_eq!(heard.recv().expect("a request"), line);
}

#[test]
fn hosts_of_no_proxy_and_this_machine_are_reached_directly() {
    let (proxy, heard) = listener("127.0.0.1:0", "502 Bad Gateway");
    let proxy = format!("http://{proxy}");
    for excluded in ["registry.invalid", ".invalid", "*"] {
        let environment = [("HTTPS_PROXY", proxy.as_str()), ("NO_PROXY", excluded)];
        let output = verify("registry.invalid/app:1", &[], &environment);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert_eq!(heard.try_recv().ok(), None, "{excluded}");
    }
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (registry, asked) = listener(address, "404 Not Found");
        let environment = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"].map(|name| (name, proxy.as_str()));
        let image = format!("{registry}/app:1");
        let output = verify(&image, &[], &environment);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let words = format!("{image}: undecided: no such image in {registry} (registry answered 404)");
        assert_eq!(said.trim(), words, "{output:?}");
        assert_eq!(asked.recv().expect("a request"), "HEAD /v2/app/manifests/1 HTTP/1.1");
        assert_eq!(heard.try_recv().ok(), None, "{address}");
    }
}

/// `pullgate verify` of an image that our key has signed, with these keys in `registry`.
fn verify_signed(node: &Node, image: &str, registry: &Value) -> (Option<i32>, String) {
    let folder = folder();
    let policy = folder.join("policy.json");
    let document = Policy::new("keyed", "*").key(node.key).document();
    fs::write(&policy, document.to_string()).expect("a policy file");
    let config = folder.join("config.yaml");
    let text = json!({"policy": {"paths": [policy]}, "registry": registry});
    fs::write(&config, text.to_string()).expect("a config");
    let mut command = Command::new(binary());
    command.arg("verify").arg("--config").arg(config).arg(image);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "DOCKER_CONFIG"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    let output = command.env("HOME", &folder).output().expect("pullgate");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A registry with an image that our key has signed.
fn signed(node: &Node) -> (Registry, Image) {
    let registry = Registry::docker();
    let image = registry.image("app").push("1");
    node.key.sign(&image);
    (registry, image)
}

fn allowed(image: &str) -> (Option<i32>, String) {
    (Some(0), format!("{image}: allowed (verified)"))
}

/// The code and the beginning of what was said, as long as what is expected.
fn beginning((code, said): (Option<i32>, String), expected: &str) -> (Option<i32>, String) {
    (code, said.chars().take(expected.chars().count()).collect())
}

#[test]
fn a_registry_of_a_private_authority_is_reached_by_ca_files() {
    on_containerd("2", "a_registry_of_a_private_authority_is_reached_by_ca_files", |node| {
        let (registry, image) = signed(node);
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        let folder = folder();
        let file = |name: &str, pem: String| {
            let path = folder.join(name);
            fs::write(&path, pem).expect("a file");
            path
        };
        let certificate = file("ca.pem", made.cert.pem());
        let key = file("server.key", made.signing_key.serialize_pem());
        let other = file("other.pem", other.cert.pem());
        let tls = registry.over_tls(Tls { certificate: certificate.clone(), key, clients: None });
        let image = image.by_tag().replace(registry.host(), tls.host());
        let (code, words) = allowed(&image);
        for files in [json!([certificate]), json!([other, certificate])] {
            let verified = verify_signed(node, &image, &json!({"caFiles": files}));
            assert_eq!(beginning(verified, &words), (code, words.clone()));
        }
        for files in [json!([]), json!([other])] {
            let (code, said) = verify_signed(node, &image, &json!({"caFiles": files}));
            assert_eq!(code, Some(3), "{said}");
            assert!(said.contains("certificate"), "{said}");
        }
    });
}

/// `[::1]:port` before a registry.
fn over_ipv6(registry: &Registry) -> String {
    let listener = TcpListener::bind("[::1]:0").expect("a loopback port");
    let address = listener.local_addr().expect("an address").to_string();
    let target = registry.host().to_owned();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(&target) else { continue };
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) =
                    (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                thread::spawn(move || {
                    // Either side may be gone.
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    address
}

#[test]
fn an_image_of_an_ipv6_address_is_verified_and_has_its_folder() {
    on_containerd("2", "an_image_of_an_ipv6_address_is_verified_and_has_its_folder", |node| {
        let (registry, image) = signed(node);
        let (address, nobody) = (over_ipv6(&registry), "[::1]:1");
        let at = |host: &str| image.by_tag().replace(registry.host(), host);
        let certs = folder();
        let configured = json!({"configPath": certs});
        for name in [at(&address), image.by_digest().replace(registry.host(), &address)] {
            let (code, words) = allowed(&name);
            assert_eq!(beginning(verify_signed(node, &name, &configured), &words), (code, words));
        }
        // The same image by a name that only its folder leads to.
        let (code, said) = verify_signed(node, &at(nobody), &configured);
        assert_eq!(code, Some(3), "{said}");
        for server in [registry.host(), &address] {
            let folder = Path::new(&certs).join("[::1]_1_");
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join("hosts.toml"), format!("server = \"http://{server}\"\n")).expect("a file");
            let (code, words) = allowed(&at(nobody));
            assert_eq!(beginning(verify_signed(node, &at(nobody), &configured), &words), (code, words));
        }
    });
}
