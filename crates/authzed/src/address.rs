//! What an endpoint names: a host and port, or a Unix socket, and with some schemes whether there is TLS.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// A parsed endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// Where to connect to.
    pub socket: Socket,
    /// `https://` requires TLS, `http://` and a Unix socket exclude it, the other forms leave it open.
    pub tls: Option<bool>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// TCP.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// A Unix socket, by its absolute path.
    Unix(PathBuf),
}

/// The longest path of a Unix socket: Linux has 108 bytes, the last of which is 0.
const MAX_PATH_BYTES: usize = 107;

impl ServerAddress {
    /// Takes `host:port`, `https://host[:port]`, `http://host[:port]`, gRPC's `dns:host:port` and
    /// `dns:///host:port`, and `unix:/path`.
    ///
    /// # Errors
    ///
    /// A sentence for people. It quotes nothing of an endpoint that may hold a password.
    pub fn parse(endpoint: &str) -> Result<Self, String> {
        if let Some(path) = after(endpoint, "unix:") {
            return unix(path);
        }
        if endpoint.contains('@') {
            return Err(
                "the endpoint has a user name or password in it: SpiceDB takes a preshared key"
                    .to_owned(),
            );
        }
        if let Some(name) = after(endpoint, "dns:") {
            return dns(name);
        }
        let Some((scheme, rest)) = endpoint.split_once("://") else {
            return tcp(endpoint, None);
        };
        match scheme.to_ascii_lowercase().as_str() {
            "https" => url(scheme, rest, 443, true),
            "http" => url(scheme, rest, 80, false),
            _ => {
                let rest = rest.trim_end_matches('/');
                let port = if tcp(rest, None).is_ok() { "" } else { ":PORT" };
                Err(format!(
                    "the endpoint is given without {scheme}://, as {rest}{port}"
                ))
            }
        }
    }
}

/// What follows a prefix. `dns:50051` is a port of a host with that name.
fn after<'a>(endpoint: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = endpoint.strip_prefix(prefix)?;
    let is_port = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    (!is_port).then_some(rest)
}

fn unix(path: &str) -> Result<ServerAddress, String> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') {
        return Err(
            "a Unix socket is given with its absolute path, as unix:/run/spicedb.sock".to_owned(),
        );
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(format!(
            "the path of a Unix socket has at most {MAX_PATH_BYTES} bytes: {path:?} has {}",
            path.len()
        ));
    }
    Ok(ServerAddress {
        socket: Socket::Unix(path.into()),
        tls: Some(false),
    })
}

/// The names of gRPC's own resolver.
fn dns(name: &str) -> Result<ServerAddress, String> {
    match name.strip_prefix("//") {
        None => tcp(name, None),
        Some(rest) => match rest.split_once('/') {
            Some(("", name)) => tcp(name, None),
            _ => Err(format!(
                "dns://{rest} names a DNS server, which cannot be chosen here: dns:///host:port"
            )),
        },
    }
}

fn url(scheme: &str, rest: &str, port: u16, tls: bool) -> Result<ServerAddress, String> {
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err(format!(
            "{scheme}://{rest} is more than {scheme}://host:port: gRPC has no path below a server"
        ));
    }
    let has_port = !authority.ends_with(']') && authority.contains(':');
    match has_port || authority.is_empty() {
        true => tcp(authority, Some(tls)),
        false => tcp(&format!("{authority}:{port}"), Some(tls)),
    }
}

fn tcp(endpoint: &str, tls: Option<bool>) -> Result<ServerAddress, String> {
    let (host, port) = host_and_port(endpoint)?;
    Ok(ServerAddress {
        socket: Socket::Tcp { host, port },
        tls,
    })
}

/// Takes `host:port`, with brackets around an IPv6 address.
pub(crate) fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty() && (!host.contains(':') || bracketed(host)))
        .ok_or_else(|| {
            format!("{text:?} is not host:port, such as localhost:50051 or [::1]:50051")
        })?;
    let port = port
        .parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("{port:?} in {text:?} is no port number"))?;
    let host = unbracketed(host);
    // It becomes a part of requests.
    let is_foreign = |c: char| c.is_control() || c.is_whitespace() || "/?#@\\\"<>".contains(c);
    match host.contains(is_foreign) {
        true => Err(format!("{host:?} is no host name")),
        false => Ok((host.to_owned(), port)),
    }
}

impl Socket {
    /// Whether it is a Unix socket.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Whether it is certain to be on this machine: a name that would have to be looked up is not.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host.eq_ignore_ascii_case("localhost")
                    || host
                        .parse::<IpAddr>()
                        .is_ok_and(|address| address.to_canonical().is_loopback())
            }
        }
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(crate) fn bracketed(host: &str) -> bool {
    host.starts_with('[') && host.ends_with(']')
}

pub(crate) fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The socket as text, and whether there is TLS.
    fn parsed(endpoint: &str) -> (String, Option<bool>) {
        let address = ServerAddress::parse(endpoint).unwrap();
        (address.socket.to_string(), address.tls)
    }

    #[test]
    fn endpoints_are_host_and_port() {
        for (endpoint, host, port) in [
            ("localhost:50051", "localhost", 50051),
            ("10.0.0.1:443", "10.0.0.1", 443),
            ("[::1]:50051", "::1", 50051),
            ("dns:50051", "dns", 50051),
            ("unix:50051", "unix", 50051),
        ] {
            let host = host.to_owned();
            let socket = Socket::Tcp { host, port };
            let expected = ServerAddress { socket, tls: None };
            assert_eq!(ServerAddress::parse(endpoint), Ok(expected));
            assert_eq!(parsed(endpoint).0, endpoint);
        }
        for wrong in [
            "localhost",
            ":50051",
            "::1:50051",
            "localhost:",
            "localhost:x",
            "a:0",
            "a:99999",
            "a b:1",
            "a\r\nb:1",
            "a/b:1",
            "",
        ] {
            assert!(ServerAddress::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn url_decides_about_tls_and_has_a_default_port() {
        for (endpoint, socket, tls) in [
            ("https://db.example", "db.example:443", true),
            ("https://db.example/", "db.example:443", true),
            ("https://db.example:50051", "db.example:50051", true),
            ("HTTPS://[::1]", "[::1]:443", true),
            ("http://db.example", "db.example:80", false),
            ("http://[::1]:50051/", "[::1]:50051", false),
        ] {
            assert_eq!(parsed(endpoint), (socket.to_owned(), Some(tls)));
        }
        for wrong in [
            "https://",
            "https:///",
            "https://db.example:",
            "https://db.example/v1",
            "https://db.example:443?x=1",
            "https://::1",
        ] {
            assert!(ServerAddress::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_of_grpc_are_host_and_port() {
        for endpoint in ["dns:db.example:50051", "dns:///db.example:50051"] {
            assert_eq!(parsed(endpoint), ("db.example:50051".to_owned(), None));
        }
        assert_eq!(parsed("dns:[::1]:50051").0, "[::1]:50051");
        for wrong in ["dns:db.example", "dns:", "dns:///"] {
            assert!(ServerAddress::parse(wrong).is_err(), "{wrong}");
        }
        let error = ServerAddress::parse("dns://8.8.8.8/db.example:50051").unwrap_err();
        assert!(error.contains("names a DNS server"), "{error}");
    }

    #[test]
    fn unix_socket_is_an_absolute_path() {
        for endpoint in ["unix:/run/a@b.sock", "unix:///run/a@b.sock"] {
            let socket = "unix:/run/a@b.sock".to_owned();
            assert_eq!(parsed(endpoint), (socket, Some(false)));
        }
        for wrong in ["unix:", "unix:a.sock", "unix:./a.sock", "unix://run/a.sock"] {
            let error = ServerAddress::parse(wrong).unwrap_err();
            assert!(error.contains("absolute path"), "{error}");
        }
        let long = format!("unix:/{}", "x".repeat(MAX_PATH_BYTES));
        let error = ServerAddress::parse(&long).unwrap_err();
        assert!(error.contains("107 bytes"), "{error}");
    }

    #[test]
    fn unknown_scheme_is_named_in_the_error() {
        let error = ServerAddress::parse("grpc://localhost:50051/").unwrap_err();
        assert!(
            error.contains("without grpc://, as localhost:50051"),
            "{error}"
        );
    }

    #[test]
    fn password_in_an_endpoint_is_refused_without_printing_it() {
        for endpoint in ["https://me:hunter2@db.example", "me:hunter2@db.example:1"] {
            let error = ServerAddress::parse(endpoint).unwrap_err();
            assert!(error.contains("password"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn only_this_machine_is_local() {
        let is_local = |endpoint| ServerAddress::parse(endpoint).unwrap().socket.is_local();
        for endpoint in [
            "localhost:50051",
            "127.0.0.1:1",
            "127.8.9.1:1",
            "[::1]:50051",
            "[::ffff:127.0.0.1]:50051",
            "LocalHost:1",
            "https://localhost",
            "unix:/run/spicedb.sock",
        ] {
            assert!(is_local(endpoint), "{endpoint}");
        }
        for endpoint in [
            "spicedb:50051",
            "10.0.0.1:1",
            "[::2]:1",
            "localhost.example.com:1",
            "128.0.0.1:1",
        ] {
            assert!(!is_local(endpoint), "{endpoint}");
        }
    }
}
