//! Opens the byte stream below HTTP/2: TCP or a Unix socket and, where it is asked for, TLS.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::client::TlsStream;
use tonic::transport::Uri;

use crate::address::Socket;
use crate::error::{CONNECT_TIMEOUT, ConnectError};
use crate::proxy::Proxy;
use crate::{tls, tunnel};

/// A peer that does not acknowledge for this long is gone, whether we send or only wait.
const DEAD_AFTER: Duration = Duration::from_secs(30);

/// Connects to one address, always in the same way.
#[derive(Clone)]
pub(crate) struct Connector {
    socket: Socket,
    proxy: Option<Proxy>,
    /// Whether the proxy has connected when it was asked last.
    has_tunnel: Arc<AtomicBool>,
    tls: Option<tls::Connector>,
    #[cfg(feature = "testing")]
    pub(crate) in_memory: Option<crate::testing::OpenStream>,
}

impl Connector {
    pub(crate) fn new(socket: Socket, proxy: Option<Proxy>, tls: Option<tls::Connector>) -> Self {
        Self {
            socket,
            proxy,
            has_tunnel: Arc::default(),
            tls,
            #[cfg(feature = "testing")]
            in_memory: None,
        }
    }

    /// The proxy through which it connects.
    pub(crate) fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// Whether the proxy has connected when it was asked last: what is silent then is behind it.
    pub(crate) fn has_tunnel(&self) -> bool {
        self.has_tunnel.load(Ordering::Relaxed)
    }

    /// Connects as configured.
    pub(crate) async fn connect_by(&self, deadline: Instant) -> Result<Io, ConnectError> {
        #[cfg(feature = "testing")]
        if let Some(open) = &self.in_memory {
            return crate::testing::open_stream(open.as_ref());
        }
        let stream = self.dial(deadline).await?;
        let Some(tls) = &self.tls else {
            return Ok(stream);
        };
        let stream = timeout_at(deadline, tls.handshake(stream))
            .await
            .map_err(|_| ConnectError::TimedOut("TLS handshake"))?
            .map_err(ConnectError::from_handshake)?;
        if stream.get_ref().1.alpn_protocol() != Some(tls::HTTP2) {
            return Err(ConnectError::NotHttp2);
        }
        Ok(Io::Tls(Box::new(stream)))
    }

    /// Connects without TLS, through the proxy where there is one.
    pub(crate) async fn dial(&self, deadline: Instant) -> Result<Io, ConnectError> {
        match &self.proxy {
            None => dial(&self.socket, deadline).await,
            Some(proxy) => {
                self.has_tunnel.store(false, Ordering::Relaxed);
                let stream = dial_by(proxy, &self.socket, deadline)
                    .await
                    .map_err(|error| ConnectError::ByProxy(proxy.to_string(), Box::new(error)))?;
                self.has_tunnel.store(true, Ordering::Relaxed);
                Ok(stream)
            }
        }
    }
}

async fn dial(socket: &Socket, deadline: Instant) -> Result<Io, ConnectError> {
    match socket {
        Socket::Tcp { host, port } => dial_tcp(host, *port, deadline).await.map(Io::Tcp),
        Socket::Unix(path) => dial_unix(path, deadline).await.map(Io::Unix),
    }
}

async fn dial_by(proxy: &Proxy, server: &Socket, deadline: Instant) -> Result<Io, ConnectError> {
    let mut stream = dial(proxy.socket(), deadline).await?;
    timeout_at(deadline, tunnel::open(&mut stream, proxy, server))
        .await
        .map_err(|_| ConnectError::TimedOut("its answer"))??;
    Ok(stream)
}

/// Tries the addresses of the name in turn; one that does not answer gets its share of the time.
async fn dial_tcp(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, ConnectError> {
    let found: Vec<SocketAddr> = timeout_at(deadline, tokio::net::lookup_host((host, port)))
        .await
        .map_err(|_| ConnectError::TimedOut("name lookup"))?
        .map_err(|error| ConnectError::Resolve(Arc::new(error)))?
        .collect();

    let mut failure = ConnectError::NoAddress;
    for (address, left) in found.iter().zip((1..=found.len() as u32).rev()) {
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        failure = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => match configure(&stream) {
                Ok(()) => return Ok(stream),
                Err(error) => ConnectError::Dial(*address, Arc::new(error)),
            },
            Ok(Err(error)) => ConnectError::Dial(*address, Arc::new(error)),
            Err(_) => ConnectError::TimedOut("connecting"),
        };
    }
    Err(failure)
}

async fn dial_unix(path: &Path, deadline: Instant) -> Result<UnixStream, ConnectError> {
    timeout_at(deadline, UnixStream::connect(path))
        .await
        .map_err(|_| ConnectError::TimedOut("connecting"))?
        .map_err(|error| match is_other_file(path, &error) {
            true => ConnectError::NotSocket(path.to_owned()),
            false => ConnectError::DialUnix(path.to_owned(), Arc::new(error)),
        })
}

/// Whether a connection was refused because there is a file of another type. The kernel gives the reason
/// that it has for a socket on which nobody listens.
fn is_other_file(path: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
        && std::fs::metadata(path).is_ok_and(|found| !found.file_type().is_socket())
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Io>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let deadline = Instant::now() + CONNECT_TIMEOUT;
            connector.connect_by(deadline).await.map(TokioIo::new)
        })
    }
}

fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(DEAD_AFTER / 2)
        .with_interval(DEAD_AFTER / 6);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    socket.set_tcp_user_timeout(Some(DEAD_AFTER))?;
    Ok(())
}

/// A connection with or without TLS.
#[derive(Debug)]
pub(crate) enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<Io>>),
    #[cfg(feature = "testing")]
    InMemory(tokio::io::DuplexStream),
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            #[cfg(feature = "testing")]
            Self::InMemory(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            #[cfg(feature = "testing")]
            Self::InMemory(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            #[cfg(feature = "testing")]
            Self::InMemory(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            #[cfg(feature = "testing")]
            Self::InMemory(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            #[cfg(feature = "testing")]
            Self::InMemory(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            #[cfg(feature = "testing")]
            Self::InMemory(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
