//! The settings of a connection. Plain data: this module is there without the feature `client`.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::proxy::Proxy;

/// How to reach a server. [`Config::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// As [`ServerAddress::parse`](crate::ServerAddress::parse) takes it. A scheme must not contradict
    /// `security`.
    pub endpoint: String,
    /// The preshared key, sent with each call. `None` sends none.
    pub token: Option<SecretString>,
    /// TLS or not.
    pub security: Security,
    /// The proxy that makes the connections. A Unix socket has none.
    pub proxy: Option<Proxy>,
    /// The host name to ask for and to expect in the certificate, in place of the endpoint's.
    pub hostname_override: Option<String>,
    /// How long to wait for the answer of a call that is no stream. Writes wait for
    /// [`Client::MIN_WRITE_TIMEOUT`](crate::Client::MIN_WRITE_TIMEOUT) at least.
    pub request_timeout: Duration,
    /// The program and its version, for the server's log.
    pub user_agent: String,
}

impl Config {
    /// TLS with the system's authorities, no token, 60 seconds a request.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            token: None,
            security: Security::Tls(TlsConfig::default()),
            proxy: None,
            hostname_override: None,
            request_timeout: Duration::from_secs(60),
            user_agent: concat!("authzed-rs/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Whether a connection is encrypted.
#[derive(Clone, Debug)]
pub enum Security {
    /// No TLS: the token can be read on the way.
    Plaintext,
    /// TLS.
    Tls(TlsConfig),
}

/// How the two sides prove who they are. The default trusts the system's authorities.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// A PEM file, or a folder of such files, of the authorities to trust in place of the system's.
    pub ca_path: Option<PathBuf>,
    /// More of them, in no file.
    pub ca_pem: Option<Pem>,
    /// `false` accepts every certificate, so that anyone in between can read and change everything.
    pub verify: bool,
    /// The certificate to show when the server asks for one.
    pub identity: Option<Identity>,
}

/// Certificates as in a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pem {
    /// Where they are from, for errors.
    pub source: String,
    /// The text.
    pub text: Vec<u8>,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            ca_path: None,
            ca_pem: None,
            verify: true,
            identity: None,
        }
    }
}

/// A client certificate.
#[derive(Clone, Debug)]
pub struct Identity {
    /// A PEM file with the certificate and those that lead to its authority.
    pub certificate_path: PathBuf,
    /// A PEM file with its private key.
    pub key_path: PathBuf,
}
