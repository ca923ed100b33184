//! A gateway in front of a server, of the kind that answers by itself when the server is away: an HTTP
//! status with a page of HTML.
//!
//! It writes the few frames of HTTP/2 (RFC 9113) that this takes by hand, so that the status and the
//! page come in one piece, as nginx and Envoy send them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

const PREFACE_BYTES: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Passes everything on, or answers every call with one HTTP status.
pub struct Gateway {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    /// 0: passes on.
    status: AtomicU16,
    connections: Mutex<Vec<TcpStream>>,
}

impl Gateway {
    /// Passes on to an endpoint.
    pub fn to(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            status: AtomicU16::new(0),
            connections: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        // It ends with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { port, shared }
    }

    /// What a program connects to instead of the server.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on every call is answered with this status; connections to the server are cut.
    pub fn answer(&self, status: u16) {
        self.shared.status.store(status, Ordering::SeqCst);
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// From now on everything is passed on.
    pub fn pass(&self) {
        self.answer(0);
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let status = self.status.load(Ordering::SeqCst);
        let own = stream.try_clone().expect("a socket can be cloned");
        self.connections.lock().unwrap().push(own);
        let _ = match status {
            0 => self.pass_on(stream),
            _ => answer(stream, status),
        };
    }

    fn pass_on(&self, mut near: TcpStream) -> io::Result<()> {
        let mut far = TcpStream::connect(&self.upstream)?;
        let (mut back_from, mut back_to) = (far.try_clone()?, near.try_clone()?);
        let back = std::thread::spawn(move || {
            let _ = io::copy(&mut back_from, &mut back_to);
            let _ = back_to.shutdown(Shutdown::Both);
        });
        let _ = io::copy(&mut near, &mut far);
        let _ = far.shutdown(Shutdown::Both);
        let _ = back.join();
        Ok(())
    }
}

fn frame(kind: u8, flags: u8, stream: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream);
    frame.extend(payload);
    frame
}

/// `:status` and `content-type`, as literals with names of the static table (RFC 7541, appendix A).
fn page_headers(status: u16) -> Vec<u8> {
    let mut headers = vec![0x08, 3];
    headers.extend(status.to_string().bytes());
    headers.extend([0x0f, 31 - 15, 9]);
    headers.extend(b"text/html");
    headers
}

fn answer(mut stream: TcpStream, status: u16) -> io::Result<()> {
    stream.read_exact(&mut [0; PREFACE_BYTES])?;
    stream.write_all(&frame(SETTINGS, 0, [0; 4], &[]))?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload)?;
        let (kind, flags) = (head[3], head[4]);
        let number = [head[5], head[6], head[7], head[8]];
        match kind {
            SETTINGS | PING if flags & ACK == 0 => {
                let payload = if kind == PING { &payload[..] } else { &[] };
                stream.write_all(&frame(kind, ACK, number, payload))?;
            }
            HEADERS => {
                let mut page = frame(HEADERS, END_HEADERS, number, &page_headers(status));
                page.extend(frame(DATA, END_STREAM, number, b"<html>no</html>"));
                stream.write_all(&page)?;
            }
            _ => {}
        }
    }
}
