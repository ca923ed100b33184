//! Diagnoses a failed first call: do the two sides disagree about TLS, or is this no gRPC server?

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use crate::config::{Security, TlsConfig};
use crate::connector::Io;
use crate::endpoint::Target;
use crate::error::{Cause, Error, Kind, cause_of, tls_error};
use crate::tls;

/// The first bytes of an HTTP/2 client, with empty settings.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Looks whether the two sides disagree about TLS; if not, the error stays what it is.
pub(crate) async fn explain(error: Error, target: &Target, deadline: Instant) -> Error {
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref());
    let look = async {
        match (&target.security, error.kind(), cause) {
            (Security::Tls(_), Kind::Tls, Some(rustls::Error::InvalidMessage(_))) => {
                plaintext_answer(target, deadline).await
            }
            (Security::Tls(_), Kind::Unreachable | Kind::Unavailable, _) => {
                // A server with TLS may answer plaintext with a complaint: only HTTP/2 counts.
                match plaintext_answer(target, deadline).await {
                    Some(Found::Http2) => Some(Found::Http2),
                    _ => refusal(target, deadline).await,
                }
            }
            (Security::Plaintext, Kind::Unreachable | Kind::Unavailable, _) => {
                any_answer(target, deadline).await
            }
            _ => None,
        }
    };
    let Some(found) = timeout_at(deadline, look).await.ok().flatten() else {
        return error;
    };
    let new = |kind, message: &str| Error::new(kind, "connect", &target.name, message.to_owned());
    match (&target.security, found) {
        (Security::Tls(_), Found::Http2) => new(Kind::Tls, "the server does not speak TLS")
            .with_cause(Some(Cause::ServerWithoutTls)),
        (Security::Plaintext, Found::Tls) => {
            new(Kind::Tls, "the server speaks TLS").with_cause(Some(Cause::ServerWithTls))
        }
        (_, Found::Refusal(alert)) => new(Kind::Tls, "the server refused the connection")
            .with_cause(cause_of(&alert))
            .with_source(alert),
        (_, Found::Unknown) => {
            new(Kind::Other, "this is no gRPC server").with_cause(Some(Cause::NotGrpc))
        }
        (Security::Tls(_), Found::Tls) | (Security::Plaintext, Found::Http2) => error,
    }
}

/// What a look at the server has found.
enum Found {
    /// HTTP/2 without TLS.
    Http2,
    /// TLS.
    Tls,
    /// TLS, but not with us.
    Refusal(rustls::Error),
    /// Another protocol.
    Unknown,
}

/// How the server answers the beginning of an HTTP/2 connection without TLS.
async fn plaintext_answer(target: &Target, deadline: Instant) -> Option<Found> {
    let mut stream = target.connector.dial(deadline).await.ok()?;
    stream.write_all(HTTP2_PREFACE).await.ok()?;
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).await.ok()?;
    // An HTTP/2 server begins with a SETTINGS frame: type 4, on stream 0.
    let settings = answer[3] == 4 && answer[5..] == [0; 4];
    Some(if settings {
        Found::Http2
    } else {
        Found::Unknown
    })
}

/// Whether the server answers the beginning of a TLS connection, be it with a refusal.
async fn any_answer(target: &Target, deadline: Instant) -> Option<Found> {
    let stream = target.connector.dial(deadline).await.ok()?;
    // Nothing is sent on this connection, so nothing needs to be verified.
    let any = TlsConfig {
        verify: false,
        ..TlsConfig::default()
    };
    match tls::Connector::new(&any, "localhost")
        .ok()?
        .handshake(stream)
        .await
    {
        Ok(_) => Some(Found::Tls),
        Err(error) => match tls_error(&error) {
            None | Some(rustls::Error::InvalidMessage(_)) => {
                plaintext_answer(target, deadline).await
            }
            Some(_) => Some(Found::Tls),
        },
    }
}

/// Whether the server ends the connection after the handshake, as with TLS 1.3 it does where it
/// misses a client certificate. HTTP/2 drops the reason.
async fn refusal(target: &Target, deadline: Instant) -> Option<Found> {
    let Ok(Io::Tls(mut stream)) = target.connector.connect_by(deadline).await else {
        return None;
    };
    let mut answer = [0];
    let error = stream.read_exact(&mut answer).await.err()?;
    tls_error(&error).cloned().map(Found::Refusal)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncRead, AsyncWrite};
    use tokio::net::{TcpListener, UnixListener};

    use super::*;
    use crate::{Client, config::Config};

    /// Sends `answer` to whatever it is sent, and hangs up.
    async fn hang_up(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) {
        let _ = stream.read(&mut [0; 1024]).await;
        stream.write_all(answer).await.ok();
    }

    async fn error_of(config: &Config, server: impl Future<Output = ()> + Send + 'static) -> Error {
        let server = tokio::spawn(server);
        let error = Client::connect(config).await.unwrap_err();
        server.abort();
        error
    }

    /// A server on TCP that sends `answer`.
    async fn contact(answer: &'static [u8], security: Security) -> Error {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::new(listener.local_addr().unwrap().to_string());
        config.security = security;
        let server = async move {
            loop {
                hang_up(listener.accept().await.unwrap().0, answer).await;
            }
        };
        error_of(&config, server).await
    }

    /// The same server on a Unix socket.
    async fn contact_socket(answer: &'static [u8]) -> Error {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut config = Config::new(format!("unix:{}", path.display()));
        config.security = Security::Plaintext;
        let server = async move {
            loop {
                hang_up(listener.accept().await.unwrap().0, answer).await;
            }
        };
        error_of(&config, server).await
    }

    fn tls() -> Security {
        Security::Tls(TlsConfig {
            verify: false,
            ..TlsConfig::default()
        })
    }

    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    /// A fatal alert, `handshake_failure`, as a TLS server sends it.
    const ALERT: &[u8] = b"\x15\x03\x03\0\x02\x02\x28";

    #[tokio::test]
    async fn tls_to_a_server_without_it_is_named() {
        let error = contact(SETTINGS, tls()).await;
        assert_eq!(
            (error.kind(), error.message()),
            (Kind::Tls, "the server does not speak TLS")
        );
        assert_eq!(error.cause(), Some(Cause::ServerWithoutTls));
    }

    #[tokio::test]
    async fn plaintext_to_a_server_with_tls_is_named() {
        let error = contact(ALERT, Security::Plaintext).await;
        assert_eq!(
            (error.kind(), error.message()),
            (Kind::Tls, "the server speaks TLS")
        );
        assert_eq!(error.cause(), Some(Cause::ServerWithTls));
    }

    #[tokio::test]
    async fn a_web_server_is_no_grpc_server() {
        for security in [tls(), Security::Plaintext] {
            let error = contact(BAD_REQUEST, security).await;
            assert_eq!(
                (error.kind(), error.message()),
                (Kind::Other, "this is no gRPC server")
            );
        }
    }

    #[tokio::test]
    async fn where_nothing_listens_the_address_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = Client::connect(&Config::new(&address)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
        assert_eq!(error.message(), format!("cannot connect to {address}"));
    }

    #[tokio::test]
    async fn unix_sockets_are_diagnosed() {
        let tls = contact_socket(ALERT).await;
        assert_eq!(tls.cause(), Some(Cause::ServerWithTls), "{tls}");
        let other = contact_socket(BAD_REQUEST).await;
        assert_eq!(other.cause(), Some(Cause::NotGrpc), "{other}");
    }

    #[tokio::test]
    async fn where_no_socket_is_the_path_is_named() {
        let mut config = Config::new("unix:/nosuch/spicedb.sock");
        config.security = Security::Plaintext;
        let error = Client::connect(&config).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
        let text = error.to_string();
        assert!(
            text.contains("cannot connect to the socket /nosuch/spicedb.sock: No such file"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn file_that_is_no_socket_is_told_from_one_that_nobody_serves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it");
        let mut config = Config::new(format!("unix:{}", path.display()));
        config.security = Security::Plaintext;
        std::fs::write(&path, "").unwrap();
        let file = Client::connect(&config).await.unwrap_err();
        assert_eq!(
            (file.kind(), file.cause()),
            (Kind::Config, Some(Cause::NotSocket)),
            "{file}"
        );
        std::fs::remove_file(&path).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        let unserved = Client::connect(&config).await.unwrap_err();
        assert_eq!(
            (unserved.kind(), unserved.cause()),
            (Kind::Unreachable, None),
            "{unserved}"
        );
    }
}
