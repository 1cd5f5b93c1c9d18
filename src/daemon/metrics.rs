//! The metrics page: OpenMetrics text on `GET /metrics`, nothing else.
//!
//! Served over HTTP/1.1 on the address that the config names (loopback by default). It has no
//! influence on any verdict, and a failure to bind is a warning.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Serves the page until the future is dropped. Accept errors never end it.
pub async fn serve(listener: TcpListener, registry: Arc<Registry>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let registry = Arc::clone(&registry);
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request| {
                let answer = page(&request, &registry);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            drop(tokio::time::timeout(Duration::from_secs(600), connection).await);
        });
    }
}

/// Binds the page's address.
///
/// # Errors
/// Whatever binding says.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

fn page(request: &Request<Incoming>, registry: &Registry) -> Response<Full<Bytes>> {
    let mut text = String::new();
    let status = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            match prometheus_client::encoding::text::encode(&mut text, registry) {
                Ok(()) => StatusCode::OK,
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
            }
        }
        (_, "/metrics") => StatusCode::METHOD_NOT_ALLOWED,
        _ => StatusCode::NOT_FOUND,
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(CONTENT_TYPE));
    response
}

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CONNECTIONS: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::roots::Roots;
    use super::*;
    use crate::admission::audit::{Audit, Phase, Phases, VerdictLine};
    use crate::config::Config;

    #[tokio::test]
    async fn serves_the_page_and_nothing_else() {
        let mut registry = Registry::with_prefix("pullgate");
        registry.register("things", "Things", prometheus_client::metrics::gauge::Gauge::<i64>::default());
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::new(registry)));
        let page = reqwest::get(format!("http://{address}/metrics")).await.unwrap();
        assert_eq!(page.status(), 200);
        assert!(page.text().await.unwrap().contains("pullgate_things 0"));
        assert_eq!(reqwest::get(format!("http://{address}/")).await.unwrap().status(), 404);
    }

    #[test]
    fn the_readme_lists_every_metric_and_no_other() {
        let mut registry = Registry::with_prefix("pullgate");
        let audit = Audit::new(&mut registry);
        let config = Config::with_policies(Vec::new());
        Roots::new(&config, tempfile::tempdir().unwrap().path(), &mut registry).unwrap();
        // A family without a sample is not encoded.
        let line = VerdictLine {
            image: "a",
            digest: None,
            namespace: "",
            pod: "",
            policy: "",
            rule: "",
            verdict: "undecided",
            reason: "timeout",
            source: "",
            causes: "",
            would_deny: false,
        };
        audit.verdict(&line, &Phases::start());
        audit.phase(Phase::Forward, Duration::ZERO);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let served: BTreeSet<_> = types
            .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
            .collect();

        let readme = include_str!("../../README.md");
        let section = readme.split_once("\n## Metrics\n").unwrap().1.split("\n## ").next().unwrap();
        let names = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
        let listed: BTreeSet<_> = names
            .flat_map(|names| names.split(", "))
            .map(|name| name.trim_matches('`').split('{').next().unwrap_or("").to_owned())
            .collect();
        assert_eq!(listed, served);
    }
}
