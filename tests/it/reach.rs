//! How `pullgate verify` gets to a registry: by the environment's proxies, by ports, by IPv6.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Output},
    sync::mpsc,
    thread,
};

use serde_json::json;

use crate::kit::{folder, gate::binary};

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
    let key = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8nXRh950IZbRj8Ra/N9sbqOPZrfM\n5/KAQN0/KjHcorm/J5yctVd7iEcnessRQjU917hmKO6JWVGHpDguIyakZA==\n-----END PUBLIC KEY-----\n";
    let policy = json!({
        "apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": {"name": "keyed"},
        "spec": {"validationFailureAction": "Enforce", "rules": [{
            "name": "signed", "match": {"any": [{"resources": {"kinds": ["Pod"]}}]},
            "verifyImages": [{"imageReferences": ["*"], "attestors": [{"entries": [{"keys": {
                "publicKeys": key, "rekor": {"ignoreTlog": true}, "ctlog": {"ignoreSCT": true},
            }}]}]}],
        }]},
    });
    let file = folder.join("policy.yaml");
    std::fs::write(&file, policy.to_string()).expect("a policy file");
    let mut command = Command::new(binary());
    command.arg("verify").arg("-p").arg(file).arg(image).args(arguments);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "DOCKER_CONFIG"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.envs(environment.iter().copied()).env("HOME", &folder).output().expect("pullgate")
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
