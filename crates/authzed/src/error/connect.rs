//! Errors of connecting: name lookup, TCP, Unix sockets, proxies, TLS.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustls::{AlertDescription, CertificateError, OtherError};

use super::{Cause, Error, Kind};

/// For the name, all its addresses and TLS together.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot resolve the host name")]
    Resolve(#[source] Arc<io::Error>),
    #[error("the host name has no address")]
    NoAddress,
    #[error("cannot connect to {0}")]
    Dial(SocketAddr, #[source] Arc<io::Error>),
    #[error("cannot connect to the socket {}", .0.display())]
    DialUnix(PathBuf, #[source] Arc<io::Error>),
    #[error("{} is no socket", .0.display())]
    NotSocket(PathBuf),
    #[error("{0} took longer than {time} seconds", time = CONNECT_TIMEOUT.as_secs())]
    TimedOut(&'static str),
    #[error("TLS handshake failed")]
    Tls(#[source] rustls::Error),
    #[error("the connection ended in the TLS handshake")]
    TlsCut(#[source] Arc<io::Error>),
    #[error("the server speaks TLS, but not HTTP/2")]
    NotHttp2,
    #[error("the proxy {0}: {1}")]
    ByProxy(String, Box<ConnectError>),
    #[error("it ended the connection without an answer")]
    ProxyBroken(#[source] Arc<io::Error>),
    #[error("it does not answer as an HTTP proxy")]
    NotHttpProxy,
    #[error("it refuses to connect: HTTP {}{}", .0.as_u16(), reason(.0))]
    RefusedByProxy(StatusCode),
}

impl ConnectError {
    pub(crate) fn from_handshake(error: io::Error) -> Self {
        match tls_error(&error) {
            Some(tls) => Self::Tls(tls.clone()),
            None => Self::TlsCut(Arc::new(error)),
        }
    }

    pub(crate) fn to_error(&self, endpoint: &Arc<str>) -> Error {
        let mut error = Error::new(self.kind(), "connect", endpoint, self.to_string());
        let innermost = self.innermost();
        if let Self::RefusedByProxy(status) = innermost {
            error.0.http_status = Some(status.as_u16());
        }
        let error = error.with_cause(self.cause());
        match innermost {
            Self::Resolve(source)
            | Self::Dial(_, source)
            | Self::DialUnix(_, source)
            | Self::TlsCut(source)
            | Self::ProxyBroken(source) => error.with_source(Arc::clone(source)),
            Self::Tls(source) => error.with_source(source.clone()),
            _ => error,
        }
    }

    /// The error without the name of a proxy.
    fn innermost(&self) -> &Self {
        match self {
            Self::ByProxy(_, error) => error.innermost(),
            _ => self,
        }
    }

    fn kind(&self) -> Kind {
        match self.innermost() {
            Self::Tls(_) | Self::NotHttp2 => Kind::Tls,
            Self::RefusedByProxy(status) => match status.as_u16() {
                401 | 403 | 407 => Kind::Denied,
                408 | 429 | 500 | 502..=504 => Kind::Unreachable,
                _ => Kind::Other,
            },
            Self::NotHttpProxy => Kind::Other,
            Self::NotSocket(_) => Kind::Config,
            Self::DialUnix(_, error) if is_denied(error) => Kind::Denied,
            // Also seen of a server or a proxy that is being restarted.
            Self::TlsCut(_)
            | Self::Resolve(_)
            | Self::NoAddress
            | Self::Dial(..)
            | Self::DialUnix(..)
            | Self::TimedOut(_)
            | Self::ProxyBroken(_)
            | Self::ByProxy(..) => Kind::Unreachable,
        }
    }

    fn cause(&self) -> Option<Cause> {
        match self {
            Self::Tls(error) => cause_of(error),
            Self::NotHttp2 => Some(Cause::NotGrpc),
            Self::NotSocket(_) => Some(Cause::NotSocket),
            Self::DialUnix(_, error) if is_denied(error) => Some(Cause::SocketDenied),
            // All else that fails before the proxy has connected is its fault.
            Self::ByProxy(_, error) => error.cause().or(Some(Cause::NoTunnel)),
            Self::NotHttpProxy => Some(Cause::NoTunnel),
            Self::RefusedByProxy(status) => Some(match (status.as_u16(), self.kind()) {
                (407, _) => Cause::ProxyCredentials,
                (_, Kind::Denied) => Cause::RefusedByProxy,
                (_, Kind::Unreachable) => Cause::ProxyWithoutServer,
                _ => Cause::NoTunnel,
            }),
            _ => None,
        }
    }
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// What a status means, with a space before it.
fn reason(status: &StatusCode) -> String {
    let reason = status.canonical_reason();
    reason.map_or_else(String::new, |reason| format!(" {reason}"))
}

/// The TLS error inside an I/O error.
pub(crate) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Why a handshake failed, where an operator can change that.
pub(crate) fn cause_of(error: &rustls::Error) -> Option<Cause> {
    use CertificateError as Certificate;
    Some(match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            Certificate::UnknownIssuer => Cause::UnknownAuthority,
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                Cause::OtherHostName
            }
            Certificate::Expired | Certificate::ExpiredContext { .. } => Cause::CertificateExpired,
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                Cause::CertificateNotYetValid
            }
            Certificate::Other(other) if is_authority(other) => Cause::AuthorityAsServer,
            _ => return None,
        },
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure,
        ) => Cause::ClientCertificateRequired,
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => Cause::NotGrpc,
        _ => return None,
    })
}

/// Whether a certificate was refused because it is that of an authority.
pub(crate) fn is_authority(error: &OtherError) -> bool {
    error.to_string() == "CaUsedAsEndEntity"
}
