//! What went wrong below HTTP, read off the types of a library's error: its text carries URLs, ports and
//! addresses. What is not known is a failed connection.

use std::error::Error as _;

/// What went wrong below HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Timeout,
    Refused,
    Name,
    Tls,
    /// What answers a handshake speaks no TLS.
    NotTls,
    /// TLS is spoken, and the certificate is not one that we take.
    Certificate,
    NotHttp,
    Connection,
}

impl Cause {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        if error.is_dns() {
            return Self::Name;
        }
        let mut source = error.source();
        while let Some(inner) = source {
            if let Some(error) = inner.downcast_ref::<rustls::Error>() {
                return Self::of_tls(error);
            }
            if inner.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
                return Self::NotHttp;
            }
            if let Some(io) = inner.downcast_ref::<std::io::Error>() {
                if io.kind() == std::io::ErrorKind::ConnectionRefused {
                    return Self::Refused;
                }
                if let Some(error) = wrapped_tls(io) {
                    return Self::of_tls(error);
                }
            }
            source = inner.source();
        }
        Self::Connection
    }

    const fn of_tls(error: &rustls::Error) -> Self {
        if matches!(error, rustls::Error::InvalidCertificate(_)) {
            Self::Certificate
        } else if matches!(error, rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) {
            Self::NotTls
        } else {
            Self::Tls
        }
    }
}

/// An `io::Error` hides what it wraps from `source`, and the TLS connector wraps twice.
fn wrapped_tls(error: &std::io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    inner.downcast_ref().or_else(|| wrapped_tls(inner.downcast_ref()?))
}
