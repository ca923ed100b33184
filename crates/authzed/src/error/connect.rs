//! Errors of connecting: name lookup, TCP, Unix sockets, TLS.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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
    #[error("{0} took longer than {time} seconds", time = CONNECT_TIMEOUT.as_secs())]
    TimedOut(&'static str),
    #[error("TLS handshake failed")]
    Tls(#[source] rustls::Error),
    #[error("the connection ended in the TLS handshake")]
    TlsCut(#[source] Arc<io::Error>),
    #[error("the server speaks TLS, but not HTTP/2")]
    NotHttp2,
}

impl ConnectError {
    pub(crate) fn from_handshake(error: io::Error) -> Self {
        match tls_error(&error) {
            Some(tls) => Self::Tls(tls.clone()),
            None => Self::TlsCut(Arc::new(error)),
        }
    }

    pub(crate) fn to_error(&self, endpoint: &Arc<str>) -> Error {
        let kind = match self {
            Self::Tls(_) | Self::NotHttp2 => Kind::Tls,
            // Also seen of a server or a proxy that is being restarted.
            Self::TlsCut(_)
            | Self::Resolve(_)
            | Self::NoAddress
            | Self::Dial(..)
            | Self::DialUnix(..)
            | Self::TimedOut(_) => Kind::Unreachable,
        };
        let error = Error::new(kind, "connect", endpoint, self.to_string());
        match self {
            Self::Resolve(source)
            | Self::Dial(_, source)
            | Self::DialUnix(_, source)
            | Self::TlsCut(source) => error.with_source(Arc::clone(source)),
            Self::Tls(source) => error
                .with_cause(cause_of(source))
                .with_source(source.clone()),
            Self::NotHttp2 => error.with_cause(Some(Cause::NotGrpc)),
            Self::NoAddress | Self::TimedOut(_) => error,
        }
    }
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
