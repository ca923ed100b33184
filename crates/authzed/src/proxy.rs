//! The HTTP proxy through which a connection leads.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use crate::address::{Socket, host_and_port};

/// An HTTP proxy that connects to servers for its clients (CONNECT). It displays as host and port, never
/// with its password.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Its host and port.
    socket: Socket,
    /// The value of `Proxy-Authorization`.
    authorization: Option<SecretString>,
}

/// The port of a URL without one, as for any `http://`.
const DEFAULT_PORT: u16 = 80;

impl Proxy {
    /// Takes `http://[user:password@]host[:port]`, also without `http://`.
    ///
    /// # Errors
    ///
    /// A sentence for people, which quotes nothing that may be a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            // Anything else before it may belong to a password.
            Some((scheme, _)) if is_scheme(scheme) => {
                return Err(format!(
                    "a proxy that is reached by {scheme}:// is not supported: \
                     http://[user:password@]host:port is"
                ));
            }
            _ => url,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let has_port = !host.ends_with(']') && host.contains(':');
        let parsed = match has_port || host.is_empty() {
            true => host_and_port(host),
            false => host_and_port(&format!("{host}:{DEFAULT_PORT}")),
        };
        // Its error quotes the text, which may be a password in the wrong place.
        let (host, port) = parsed
            .map_err(|_| "a proxy is given as http://[user:password@]host:port".to_owned())?;
        Ok(Self {
            socket: Socket::Tcp { host, port },
            authorization: user.map(basic),
        })
    }

    /// Whether it is used with a user name and password.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.authorization.is_some()
    }

    #[cfg(feature = "client")]
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    #[cfg(feature = "client")]
    pub(crate) fn authorization(&self) -> Option<&SecretString> {
        self.authorization.as_ref()
    }
}

fn is_scheme(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// `Proxy-Authorization: Basic`, of the percent-encoded `user:password` of a URL.
fn basic(user: &str) -> SecretString {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let mut plain: Vec<u8> = percent_decode_str(user).collect();
    plain.push(b':');
    plain.extend(percent_decode_str(password));
    format!("Basic {}", BASE64_STANDARD.encode(plain)).into()
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn proxy_has_host_port_and_perhaps_credentials() {
        for (url, shown, credentials) in [
            ("http://proxy.example:3128", "proxy.example:3128", None),
            ("http://proxy.example", "proxy.example:80", None),
            ("proxy.example:3128/", "proxy.example:3128", None),
            ("HTTP://[::1]:3128", "[::1]:3128", None),
            ("http://me:secret@p:1", "p:1", Some("me:secret")),
            ("http://me@p:1", "p:1", Some("me:")),
            ("http://m%40x:a%3Ab%2f@p:1", "p:1", Some("m@x:a:b/")),
            ("http://me:se@cret:x@p:1", "p:1", Some("me:se@cret:x")),
        ] {
            let proxy = Proxy::parse(url).unwrap();
            assert_eq!(proxy.to_string(), shown);
            let expected =
                credentials.map(|plain| format!("Basic {}", BASE64_STANDARD.encode(plain)));
            let found = proxy.authorization.as_ref();
            assert_eq!(
                found.map(|value| value.expose_secret().to_owned()),
                expected
            );
            assert_eq!(proxy.has_credentials(), credentials.is_some());
        }
    }

    #[test]
    fn what_is_no_http_proxy_is_refused_without_its_password() {
        for (url, part) in [
            ("https://me:hunter2@p:1", "https://"),
            ("socks5h://me:hunter2@p:1", "socks5h://"),
            ("http://me:hunter2@p:x", "is given as"),
            ("http://me:hunter2@p/path:1", "is given as"),
            ("http://me:hunter2@", "is given as"),
            ("me:hunter2", "is given as"),
            ("", "is given as"),
        ] {
            let error = Proxy::parse(url).unwrap_err();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn password_is_never_shown() {
        let proxy = Proxy::parse("http://me:hunter2@p:1").unwrap();
        let encoded = BASE64_STANDARD.encode("me:hunter2");
        for shown in [format!("{proxy}"), format!("{proxy:?}")] {
            assert!(
                !shown.contains("hunter2") && !shown.contains(&encoded),
                "{shown}"
            );
        }
    }
}
