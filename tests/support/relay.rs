//! Ways to a server that lead over something in between: a Unix socket, and an HTTP proxy (CONNECT).

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::folder;

/// One end of a connection that is passed on.
trait Stream: Read + Write + Send + Sized + 'static {
    fn again(&self) -> io::Result<Self>;
    fn end(&self);
}

impl Stream for TcpStream {
    fn again(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn end(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Stream for UnixStream {
    fn again(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn end(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

fn pass_on(mut near: impl Stream, upstream: &str) -> io::Result<()> {
    let mut far = TcpStream::connect(upstream)?;
    let (mut back_from, mut back_to) = (far.again()?, near.again()?);
    let back = std::thread::spawn(move || {
        let _ = io::copy(&mut back_from, &mut back_to);
        back_to.end();
    });
    let _ = io::copy(&mut near, &mut far);
    far.end();
    let _ = back.join();
    Ok(())
}

/// A Unix socket in front of a server.
pub struct UnixSocket {
    folder: tempfile::TempDir,
}

impl UnixSocket {
    /// Passes everything on to an endpoint.
    pub fn to(upstream: &str) -> Self {
        let socket = Self { folder: folder() };
        let listener = UnixListener::bind(socket.path()).expect("a new socket");
        let upstream = upstream.to_owned();
        // It ends with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let upstream = upstream.clone();
                std::thread::spawn(move || pass_on(stream, &upstream));
            }
        });
        socket
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("spicedb.sock")
    }
}

/// An HTTP proxy, through which every host name leads to one server.
pub struct HttpProxy {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

/// What a proxy does with a CONNECT.
#[derive(Clone)]
pub enum Answer {
    /// Connects to this endpoint.
    Connect(String),
    /// Connects to this endpoint whoever has these credentials, as base64.
    ConnectWith(String, &'static str),
    /// Sends this and ends the connection.
    Text(&'static str),
    /// Sends nothing.
    Silence,
}

impl HttpProxy {
    pub fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, seen) = (answer.clone(), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream, answer, &seen));
            }
        });
        Self { port, requests }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The requests so far, each with its headers.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, answer: Answer, seen: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        request.extend(byte);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    seen.lock().unwrap().push(request.clone());
    let upstream = match answer {
        Answer::Text(text) => return stream.write_all(text.as_bytes()),
        Answer::Silence => return io::copy(&mut stream, &mut io::sink()).map(drop),
        Answer::ConnectWith(_, credentials)
            if !request.contains(&format!("Proxy-Authorization: Basic {credentials}\r\n")) =>
        {
            return stream.write_all(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n");
        }
        Answer::Connect(upstream) | Answer::ConnectWith(upstream, _) => upstream,
    };
    stream.write_all(b"HTTP/1.1 200 Connected\r\nVia: test\r\n\r\n")?;
    pass_on(stream, &upstream)
}
