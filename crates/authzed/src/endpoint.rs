//! The endpoint of a server: its address, the HTTP/2 settings, the token of each call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use crate::config::{Config, Security};
use crate::connector::Connector;
use crate::error::{Error, Kind};
use crate::tls;

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
        let name: Arc<str> = config.endpoint.as_str().into();
        let invalid = |message: String| Error::new(Kind::Config, "connect", &name, message);

        let address = Address::parse(&config.endpoint).map_err(invalid)?;
        let authority = config
            .hostname_override
            .as_deref()
            .unwrap_or(&config.endpoint);
        let server_name = match &config.hostname_override {
            Some(host) => host_of(host),
            None => &address.host,
        };
        let tls = match &config.security {
            Security::Plaintext => None,
            Security::Tls(tls) => Some(tls::Connector::new(tls, server_name).map_err(invalid)?),
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
            connector: Connector::new(address, tls),
            endpoint,
            name,
        })
    }

    /// A new connection, opened by the first call and again when it was lost.
    pub(crate) fn open(&self) -> Channel {
        self.endpoint
            .connect_with_connector_lazy(self.connector.clone())
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

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// A name or an IP address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    pub(crate) fn parse(endpoint: &str) -> Result<Self, String> {
        if let Some((scheme, rest)) = endpoint.split_once("://") {
            return Err(format!(
                "the endpoint is given without {scheme}://, as {}",
                rest.trim_end_matches('/')
            ));
        }
        let (host, port) = endpoint
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty() && (!host.contains(':') || bracketed(host)))
            .ok_or_else(|| {
                format!("{endpoint:?} is not host:port, such as localhost:50051 or [::1]:50051")
            })?;
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| format!("{port:?} in {endpoint:?} is no port number"))?;
        Ok(Self {
            host: unbracketed(host).to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
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

fn bracketed(host: &str) -> bool {
    host.starts_with('[') && host.ends_with(']')
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_host_and_port() {
        let address = |host: &str, port| {
            Ok(Address {
                host: host.to_owned(),
                port,
            })
        };
        assert_eq!(
            Address::parse("localhost:50051"),
            address("localhost", 50051)
        );
        assert_eq!(Address::parse("10.0.0.1:443"), address("10.0.0.1", 443));
        assert_eq!(Address::parse("[::1]:50051"), address("::1", 50051));
        let text = |endpoint| Address::parse(endpoint).map(|address| address.to_string());
        assert_eq!(text("[::1]:50051").unwrap(), "[::1]:50051");
        for wrong in [
            "localhost",
            ":50051",
            "::1:50051",
            "localhost:",
            "localhost:x",
            "a:0",
            "a:99999",
        ] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_scheme_is_named_in_the_error() {
        let error = Address::parse("grpc://localhost:50051/").unwrap_err();
        assert!(
            error.contains("without grpc://, as localhost:50051"),
            "{error}"
        );
    }

    #[test]
    fn the_server_name_has_no_port() {
        for authority in ["db.example", "db.example:443"] {
            assert_eq!(host_of(authority), "db.example");
        }
        for authority in ["::1", "[::1]", "[::1]:443"] {
            assert_eq!(host_of(authority), "::1");
        }
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
