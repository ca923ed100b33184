//! Asks an HTTP proxy to connect to a server (CONNECT, RFC 9110 section 9.3.6).
//!
//! hyper-util's tunnel is not used: it drops what arrives together with the proxy's answer, and a gRPC
//! server without TLS sends at once. It also does not report the proxy's status.

use std::io;
use std::sync::Arc;

use http::StatusCode;
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::address::Socket;
use crate::error::ConnectError;
use crate::proxy::Proxy;

/// The longest answer of a proxy, without a body: as long as most proxies allow a request to be.
const MAX_ANSWER_BYTES: usize = 8 << 10;

/// Makes a connection to a proxy one to a server. Nothing of what the server sends is read.
pub(crate) async fn open<S>(
    stream: &mut S,
    proxy: &Proxy,
    server: &Socket,
) -> Result<(), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
    if let Some(value) = proxy.authorization() {
        request.push_str(&format!(
            "Proxy-Authorization: {}\r\n",
            value.expose_secret()
        ));
    }
    request.push_str("\r\n");
    let broken = |error: io::Error| ConnectError::ProxyBroken(Arc::new(error));
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let answer = head(stream).await?;
    match status(&answer).ok_or(ConnectError::NotHttpProxy)? {
        status if status.is_success() => Ok(()),
        status => Err(ConnectError::RefusedByProxy(status)),
    }
}

/// Reads an answer up to its empty line. Byte by byte: what comes after it is the server's.
async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, ConnectError> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        if head.len() == MAX_ANSWER_BYTES {
            return Err(ConnectError::NotHttpProxy);
        }
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            // What speaks another protocol sends a little, and hangs up.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !head.is_empty() => {
                return match status(&head) {
                    Some(_) => Err(ConnectError::ProxyBroken(Arc::new(error))),
                    None => Err(ConnectError::NotHttpProxy),
                };
            }
            Err(error) => return Err(ConnectError::ProxyBroken(Arc::new(error))),
        }
    }
    Ok(head)
}

/// The status in `HTTP/1.1 200 Connected`.
fn status(head: &[u8]) -> Option<StatusCode> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (version, rest) = rest.split_first()?;
    let (code, after) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    let ends = matches!(after, [] | [b' ' | b'\r', ..]);
    (version.is_ascii_digit() && ends)
        .then(|| StatusCode::from_bytes(code).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::Client;
    use crate::config::{Config, Security, TlsConfig};
    use crate::error::{Cause, Error, Kind};

    const SERVER: &str = "spicedb.test:50051";

    /// Reads a request and gives it back.
    async fn request(stream: &mut TcpStream) -> String {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(request).unwrap()
    }

    /// How a first contact through a proxy fails that sends this to each CONNECT, and the first request.
    async fn contact(answer: &'static [u8], security: Security) -> (Error, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = Config::new(SERVER);
        config.security = security;
        config.proxy = Some(Proxy::parse(&format!("http://me:hunter2@{address}")).unwrap());
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let proxy = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                sender.send(request(&mut stream).await).unwrap();
                stream.write_all(answer).await.ok();
                stream.shutdown().await.ok();
                // What the client has still sent must not turn the end into a reset.
                tokio::spawn(
                    async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await },
                );
            }
        });
        let error = Client::connect(&config).await.unwrap_err();
        proxy.abort();
        (error, receiver.recv().await.unwrap())
    }

    fn tls() -> Security {
        Security::Tls(TlsConfig::default())
    }

    #[tokio::test]
    async fn request_names_the_server_and_has_the_credentials() {
        let (error, request) = contact(b"HTTP/1.1 403 No\r\n\r\n", Security::Plaintext).await;
        assert_eq!(
            request,
            "CONNECT spicedb.test:50051 HTTP/1.1\r\nHost: spicedb.test:50051\r\n\
             Proxy-Authorization: Basic bWU6aHVudGVyMg==\r\n\r\n"
        );
        let shown = format!("{error} {error:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("bWU6"),
            "{shown}"
        );
    }

    #[tokio::test]
    async fn refusal_of_a_proxy_is_named_with_its_status() {
        for (answer, status, kind, cause) in [
            (
                &b"HTTP/1.1 407 Who\r\n\r\n"[..],
                407,
                Kind::Denied,
                Cause::ProxyCredentials,
            ),
            (
                b"HTTP/1.0 403 \r\n\r\n",
                403,
                Kind::Denied,
                Cause::RefusedByProxy,
            ),
            (
                b"HTTP/1.1 502\r\n\r\n",
                502,
                Kind::Unreachable,
                Cause::ProxyWithoutServer,
            ),
            (
                b"HTTP/1.1 503 No\n\n",
                503,
                Kind::Unreachable,
                Cause::ProxyWithoutServer,
            ),
            (
                b"HTTP/1.1 405 No\r\nAllow: GET\r\n\r\n",
                405,
                Kind::Other,
                Cause::NoTunnel,
            ),
        ] {
            for security in [tls(), Security::Plaintext] {
                let (error, _) = contact(answer, security).await;
                let text = error.to_string();
                assert_eq!((error.kind(), error.cause()), (kind, Some(cause)), "{text}");
                assert_eq!(error.http_status(), Some(status), "{text}");
                let start = "spicedb.test:50051: connect: the proxy 127.0.0.1:";
                assert!(text.starts_with(start), "{text}");
                assert!(text.contains(&format!("HTTP {status}")), "{text}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_proxy_is_named() {
        const LONG: &[u8] = &[b'x'; MAX_ANSWER_BYTES + 1];
        for answer in [
            &b"\x15\x03\x03\0\x02\x02\x28"[..],
            b"HTTP/2 200\r\n\r\n",
            b"HTTP/1.1 2000\r\n\r\n",
            b"220 mail.example\r\n\r\n",
            LONG,
        ] {
            let (error, _) = contact(answer, tls()).await;
            assert_eq!(error.kind(), Kind::Other, "{error}");
            assert_eq!(error.cause(), Some(Cause::NoTunnel), "{error}");
        }
    }

    #[tokio::test]
    async fn proxy_that_hangs_up_or_is_not_there_is_unreachable() {
        for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nVia"] {
            let (error, _) = contact(answer, tls()).await;
            assert_eq!(error.kind(), Kind::Unreachable, "{error}");
            assert!(error.message().contains("the proxy 127.0.0.1:"), "{error}");
            assert_eq!(error.cause(), Some(Cause::NoTunnel), "{error}");
        }
        let mut config = Config::new(SERVER);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        config.proxy = Some(Proxy::parse(&address).unwrap());
        let error = Client::connect(&config).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
        let expected = format!("the proxy {address}: cannot connect to {address}");
        assert_eq!(error.message(), expected);
        assert_eq!(error.cause(), Some(Cause::NoTunnel));
        config.proxy = Some(Proxy::parse("nosuch.invalid:1").unwrap());
        let error = Client::connect(&config).await.unwrap_err();
        assert!(
            error.message().contains("the proxy nosuch.invalid:1: "),
            "{error}"
        );
        assert_eq!(error.cause(), Some(Cause::NoTunnel));
    }

    #[tokio::test]
    async fn silent_proxy_is_named_whichever_limit_ends_first() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = Config::new(SERVER);
        config.security = Security::Plaintext;
        config.proxy = Some(Proxy::parse(&address.to_string()).unwrap());
        config.request_timeout = std::time::Duration::from_millis(50);
        let unary = Client::connect(&config).await.unwrap_err();
        let client = Client::new(&config).unwrap();
        let request = crate::v1::ExportBulkRelationshipsRequest::default();
        let stream = client.export(request).message().await.unwrap_err();
        for error in [unary, stream] {
            assert_eq!(error.kind(), Kind::Deadline, "{error}");
            assert_eq!(error.cause(), Some(Cause::NoTunnel), "{error}");
            let expected = format!("the proxy {address}: no answer in time");
            assert_eq!(error.message(), expected);
        }
    }

    #[tokio::test]
    async fn proxy_with_nothing_behind_it_is_named() {
        for security in [tls(), Security::Plaintext] {
            let (error, _) = contact(b"HTTP/1.1 200 OK\r\n\r\n", security).await;
            assert_eq!(error.cause(), Some(Cause::BehindProxy), "{error}");
            let text = error.message();
            assert!(text.contains("through the proxy 127.0.0.1:"), "{error}");
        }
    }

    #[tokio::test]
    async fn first_bytes_of_the_server_are_kept() {
        let (mut near, mut far) = tokio::io::duplex(1 << 10);
        let answer = b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\nSETTINGS";
        far.write_all(answer).await.unwrap();
        let server = Socket::Tcp {
            host: "::1".to_owned(),
            port: 443,
        };
        let proxy = Proxy::parse("p:1").unwrap();
        open(&mut near, &proxy, &server).await.unwrap();
        let mut rest = [0; 8];
        near.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"SETTINGS");
        let mut request = [0; 64];
        let length = far.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..length]);
        assert_eq!(
            request,
            "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn server_behind_a_proxy_is_diagnosed() {
        // The answer to CONNECT, and the SETTINGS of a server without TLS.
        let answer = b"HTTP/1.1 200 OK\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let (error, _) = contact(answer, tls()).await;
        assert_eq!(error.cause(), Some(Cause::ServerWithoutTls), "{error}");
    }
}
