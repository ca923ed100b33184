//! The endpoint of a server: its address, the HTTP/2 settings, the token of each call.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use crate::address::{ServerAddress, Socket, bracketed, unbracketed};
use crate::config::{Config, Security};
use crate::connector::Connector;
use crate::error::{Cause, Error, Kind};
use crate::tls::{self, Unusable};

/// A checked configuration: all that is needed to open connections, one like the other.
pub(crate) struct Target {
    pub(crate) name: Arc<str>,
    pub(crate) security: Security,
    pub(crate) auth: Auth,
    pub(crate) request_timeout: Duration,
    pub(crate) connector: Connector,
    endpoint: Endpoint,
}

impl Target {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let name: Arc<str> = shown(&config.endpoint).into();
        let invalid = |message: String| Error::new(Kind::Config, "connect", &name, message);

        let ServerAddress { socket, tls } =
            ServerAddress::parse(&config.endpoint).map_err(invalid)?;
        match (&config.security, tls) {
            (Security::Plaintext, Some(true)) => {
                let message = "the endpoint requires TLS, and TLS is switched off";
                return Err(invalid(message.to_owned()));
            }
            (Security::Tls(_), Some(false)) => {
                let message = "the endpoint excludes TLS, and TLS is asked for";
                return Err(invalid(message.to_owned()));
            }
            _ => {}
        }
        let authority = match (&config.hostname_override, &socket) {
            (Some(host), _) => host.clone(),
            (None, Socket::Tcp { .. }) => socket.to_string(),
            // As gRPC's other clients do.
            (None, Socket::Unix(_)) => "localhost".to_owned(),
        };
        let server_name = host_of(&authority);
        let proxy = config.proxy.clone().filter(|_| !socket.is_unix());
        let tls = match &config.security {
            Security::Plaintext => None,
            Security::Tls(tls) => {
                let connector = tls::Connector::new(tls, server_name);
                Some(connector.map_err(|unusable| {
                    let is_empty = matches!(unusable, Unusable::NoAuthority);
                    let cause = is_empty.then_some(Cause::NoAuthority);
                    invalid(unusable.to_string()).with_cause(cause)
                })?)
            }
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let origin: Uri = format!("{scheme}://{authority}")
            .parse()
            .map_err(|error| invalid(format!("{authority:?} is no host name: {error}")))?;
        let endpoint = endpoint(origin)
            .user_agent(config.user_agent.as_str())
            .map_err(|_| {
                invalid("the user agent has characters that a header cannot hold".into())
            })?;
        Ok(Self {
            auth: Auth::new(config.token.as_ref()).map_err(invalid)?,
            security: config.security.clone(),
            request_timeout: config.request_timeout,
            connector: Connector::new(socket, proxy, tls),
            endpoint,
            name,
        })
    }

    /// A new connection, opened by the first call and again when it was lost.
    pub(crate) fn open(&self) -> Channel {
        self.endpoint
            .connect_with_connector_lazy(self.connector.clone())
    }

    /// The error of a call that ended with `status`.
    pub(crate) fn error(&self, rpc: &'static str, status: Status) -> Error {
        self.with_proxy(Error::from_status(rpc, &self.name, status))
    }

    /// The error of a call that got no answer in time.
    pub(crate) fn deadline(&self, rpc: &'static str) -> Error {
        self.with_proxy(Error::deadline(rpc, &self.name))
    }

    /// The same error, which names the proxy where the connection failed there or behind it.
    pub(crate) fn with_proxy(&self, error: Error) -> Error {
        match self.connector.proxy() {
            Some(proxy) => error.through(proxy, self.connector.has_tunnel()),
            None => error,
        }
    }
}

/// The bytes that a server may send ahead on one stream. Measured with an export of 320,000
/// relationships at 20 ms round trip: 0.5 s with 2 MiB, 0.6 s with 1 MiB, 1.8 s with 256 KiB. On
/// the loopback, and in processor time, there is no difference.
const STREAM_WINDOW: u32 = 2 << 20;

/// The bytes that a server may send ahead on all streams together. It is no limit on purpose: with
/// 4 MiB, five exports that nobody read (1 MiB each) kept every other call from being answered.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// The longest headers that a server may send; the text of an error is one of them, twice: as text and
/// in the error's details. SpiceDB names every invalid relationship of a message there, in about 500
/// bytes each: 2,100 of them take 1 MiB (measured, v1.56.0), and one message of an import holds up to
/// 7,000. A server whose headers are longer has its stream reset, which looks like a broken connection.
const HEADER_BYTES: u32 = 8 << 20;

/// The HTTP/2 side of a connection.
///
/// There is no HTTP/2 keepalive: SpiceDB keeps to gRPC's default of at most one ping in five
/// minutes. Measured with an idle Watch and a ping each 10, 30 and 60 seconds: at the fourth ping,
/// after 41, 121 and 241 seconds, the server ended the connection. That a peer is gone is noticed by
/// TCP, in the connector.
fn endpoint(origin: Uri) -> Endpoint {
    // The URI only names the server in requests: the connector knows where to go.
    Endpoint::from(origin)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADER_BYTES)
}

/// An endpoint as errors may name it: without what may be a password.
fn shown(endpoint: &str) -> &str {
    match endpoint.rsplit_once('@') {
        Some((_, rest)) if !endpoint.starts_with("unix:") => rest,
        _ => endpoint,
    }
}

/// Adds the token to each call.
#[derive(Clone)]
pub(crate) struct Auth(Option<MetadataValue<Ascii>>);

impl Auth {
    fn new(token: Option<&SecretString>) -> Result<Self, String> {
        let Some(token) = token else {
            return Ok(Self(None));
        };
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {}", token.expose_secret())
                .parse()
                .map_err(|_| "the token has characters that a header cannot hold".to_owned())?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Auth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// The host of an authority with or without a port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.contains(':') =>
        {
            host
        }
        Some((host, _)) if bracketed(host) => unbracketed(host),
        _ => unbracketed(authority),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsConfig;

    #[test]
    fn the_server_name_has_no_port() {
        for authority in ["db.example", "db.example:443"] {
            assert_eq!(host_of(authority), "db.example");
        }
        for authority in ["::1", "[::1]", "[::1]:443"] {
            assert_eq!(host_of(authority), "::1");
        }
    }

    #[test]
    fn scheme_that_contradicts_the_security_is_refused() {
        for (endpoint, security) in [
            ("https://db.example", Security::Plaintext),
            ("http://db.example", Security::Tls(TlsConfig::default())),
            ("unix:/run/db.sock", Security::Tls(TlsConfig::default())),
        ] {
            let mut config = Config::new(endpoint);
            config.security = security;
            let error = crate::Client::new(&config).unwrap_err();
            assert_eq!(error.kind(), Kind::Config, "{endpoint}");
            assert!(error.message().contains("TLS"), "{error}");
        }
    }

    #[test]
    fn password_in_an_endpoint_is_never_shown() {
        let config = Config::new("https://me:hunter2@db.example");
        let error = crate::Client::new(&config).unwrap_err();
        assert_eq!(error.endpoint(), "db.example");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        assert_eq!(shown("unix:/run/a@b.sock"), "unix:/run/a@b.sock");
    }

    #[tokio::test]
    async fn the_token_is_never_shown() {
        let mut config = Config::new("localhost:50051");
        config.security = Security::Plaintext;
        config.token = Some("hunter2".into());
        let client = crate::Client::new(&config).unwrap();
        let request = Auth::new(config.token.as_ref())
            .unwrap()
            .call(Request::new(()))
            .unwrap();
        assert_eq!(
            request.metadata().get("authorization").unwrap(),
            "Bearer hunter2"
        );
        for shown in [
            format!("{config:?}"),
            format!("{client:?}"),
            format!("{:?}", request.metadata()),
        ] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn an_invalid_token_is_refused_without_printing_it() {
        let mut config = Config::new("localhost:50051");
        config.token = Some("hunter2\n".into());
        config.security = Security::Plaintext;
        let error = crate::Client::new(&config).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
