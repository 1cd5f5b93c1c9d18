//! TLS: loopback hosts that speak it, and authorities that are not known.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::PrivatePkcs8KeyDer;

use super::*;

/// Answers each connection with one digest, over TLS, until the process ends. Returns its port
/// and its certificate in PEM.
fn tls_server(digest: Digest) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, socket.unwrap());
            let mut request = [0; 4096];
            // A plain request ends here, with an alert.
            if stream.read(&mut request).is_ok() {
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ndocker-content-digest: {digest}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    (port, made.cert.pem())
}

#[tokio::test]
async fn a_loopback_host_that_speaks_tls_is_found_and_remembered() {
    let digest = Digest::of(b"x");
    let (port, pem) = tls_server(digest);
    let authority = CertificateAuthority { name: "test.pem".into(), pem: pem.into_bytes() };
    let client =
        Client::new(&RegistryOptions { certificate_authorities: vec![authority], ..options() }).unwrap();
    let reference = Reference::parse(&format!("localhost:{port}/app:v1")).unwrap();
    for requests in [2, 3] {
        let resolved = client.resolve(&reference, &Credentials::Anonymous).await.unwrap();
        assert_eq!(resolved.digest, digest);
        assert_eq!(client.requests().resolve, requests);
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_not_trusted() {
    let (port, _) = tls_server(Digest::of(b"x"));
    let reference = Reference::parse(&format!("localhost:{port}/app:v1")).unwrap();
    let fault = client().resolve(&reference, &Credentials::Anonymous).await.unwrap_err();
    assert_eq!(fault.reason, FaultReason::RegistryUnreachable);
    assert_eq!(fault.message, format!("localhost:{port}/app:v1: registry's certificate is not trusted"));
}

#[test]
fn files_without_certificates_are_refused_by_name() {
    for pem in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let authority = CertificateAuthority { name: "ca.pem".into(), pem: pem.into() };
        let options = RegistryOptions { certificate_authorities: vec![authority], ..options() };
        assert!(Client::new(&options).is_err(), "{pem}");
    }
}

/// Go's servers answer plain HTTP by HTTP, before any TLS.
#[tokio::test]
async fn d4_what_a_tls_server_says_to_plain_http_is_no_answer_of_the_registry() {
    let digest = Digest::of(b"x");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = listener.local_addr().unwrap().port();
    let (behind, _) = tls_server(digest);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut client = socket.unwrap();
            let mut first = [0];
            if client.peek(&mut first).is_ok() && first != [22] {
                let _ = client.read(&mut [0; 4096]);
                let _ = client.write_all(
                    b"HTTP/1.0 400 Bad Request\r\nconnection: close\r\n\r\nClient sent an HTTP request",
                );
                continue;
            }
            let mut server = std::net::TcpStream::connect(("127.0.0.1", behind)).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || std::io::copy(&mut server, &mut client));
        }
    });
    let reference = Reference::parse(&format!("localhost:{front}/app:v1")).unwrap();
    let client = client();
    for _ in 0..2 {
        let fault = client.resolve(&reference, &Credentials::Anonymous).await.unwrap_err();
        let message = format!("localhost:{front}/app:v1: registry's certificate is not trusted");
        assert_eq!(fault, Fault::unanswered(FaultReason::RegistryUnreachable, message));
    }
    assert_eq!(client.requests().resolve, 3, "the scheme is remembered");
}

#[tokio::test]
async fn a_400_of_a_host_without_tls_is_an_answer() {
    let server = Server::start(|_| Reply::new(400, "")).await;
    let fault = resolve(&server, &client()).await.unwrap_err();
    let message = format!("{}/app:v1: registry answered 400", server.address);
    assert_eq!(fault, Fault::new(FaultReason::RegistryError, message));
}
