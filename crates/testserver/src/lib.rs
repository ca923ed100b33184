//! A scripted SpiceDB for unit tests: an HTTP/2 server on an in-memory connection.
//!
//! A test gives each call of the API an answer: messages, pauses, errors with details, silence, a
//! stream that breaks. Nothing touches the network, so tokio's paused clock works
//! (`#[tokio::test(start_paused = true)]`): pauses of minutes pass at once.
//!
//! ```ignore
//! let server = Server::new();
//! server.on(WATCH, |request: WatchRequest| {
//!     Reply::message(&checkpoint(7)).pause(Duration::from_secs(3)).reset()
//! });
//! let client = server.client();
//! ```
//!
//! A call without an answer fails with UNIMPLEMENTED. Do not keep a `spawn_blocking` task running in
//! such a test: tokio does not advance a paused clock meanwhile.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod body;
mod data;
mod reply;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use authzed::{Client, Config, Security};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Code;

use crate::body::ReplyBody;
pub use crate::data::{
    checkpoint, page, postgres_token, relationship, schema_response, token, token_of,
    token_with_schema, touch, transaction, written,
};
pub use crate::reply::Reply;

/// ExportBulkRelationships.
pub const EXPORT: &str = "/authzed.api.v1.PermissionsService/ExportBulkRelationships";
/// ImportBulkRelationships; the handler gets all messages of the stream as one.
pub const IMPORT: &str = "/authzed.api.v1.PermissionsService/ImportBulkRelationships";
/// ReadRelationships.
pub const READ: &str = "/authzed.api.v1.PermissionsService/ReadRelationships";
/// WriteRelationships.
pub const WRITE: &str = "/authzed.api.v1.PermissionsService/WriteRelationships";
/// CheckBulkPermissions.
pub const CHECK_BULK: &str = "/authzed.api.v1.PermissionsService/CheckBulkPermissions";
/// ReadSchema.
pub const READ_SCHEMA: &str = "/authzed.api.v1.SchemaService/ReadSchema";
/// WriteSchema.
pub const WRITE_SCHEMA: &str = "/authzed.api.v1.SchemaService/WriteSchema";
/// ReflectSchema.
pub const REFLECT_SCHEMA: &str = "/authzed.api.v1.SchemaService/ReflectSchema";
/// DiffSchema.
pub const DIFF_SCHEMA: &str = "/authzed.api.v1.SchemaService/DiffSchema";
/// Watch.
pub const WATCH: &str = "/authzed.api.v1.WatchService/Watch";

/// Bytes that one side of a connection may send ahead.
const PIPE_BYTES: usize = 1 << 20;

/// A server. Clones share the answers and the records of calls.
#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<State>>);

type Handler = Box<dyn FnMut(Bytes) -> Reply + Send>;

#[derive(Default)]
struct State {
    handlers: HashMap<&'static str, Handler>,
    calls: Vec<Call>,
    connections: usize,
    refuses: bool,
}

struct Call {
    path: String,
    connection: usize,
    cancelled: Option<Instant>,
}

impl Server {
    /// A server without answers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers each call of `path` with what `answer` returns.
    pub fn on<Q: Message + Default>(
        &self,
        path: &'static str,
        mut answer: impl FnMut(Q) -> Reply + Send + 'static,
    ) {
        let handler = move |bytes: Bytes| answer(Q::decode(bytes).unwrap());
        self.state().handlers.insert(path, Box::new(handler));
    }

    /// Answers the calls of `path` with these replies in turn, and each later call with the last one.
    pub fn script(&self, path: &'static str, replies: impl IntoIterator<Item = Reply>) {
        let mut replies: Vec<Reply> = replies.into_iter().collect();
        replies.reverse();
        let handler = move |_| match replies.len() {
            0 | 1 => replies.last().cloned().unwrap_or_default(),
            _ => replies.pop().unwrap_or_default(),
        };
        self.state().handlers.insert(path, Box::new(handler));
    }

    /// Refuses new connections from now on, or accepts them again.
    pub fn refuse_connections(&self, refuses: bool) {
        self.state().refuses = refuses;
    }

    /// A client without a connection; the first call opens one. Its requests time out after 60 s.
    #[must_use]
    pub fn client(&self) -> Client {
        let mut config = Config::new("test.invalid:50051");
        config.security = Security::Plaintext;
        let server = self.clone();
        Client::in_memory(&config, move || server.open()).unwrap()
    }

    /// How often `path` was called.
    #[must_use]
    pub fn calls(&self, path: &str) -> usize {
        let state = self.state();
        state.calls.iter().filter(|call| call.path == path).count()
    }

    /// On which connection each call of `path` came: 1 is the first one.
    #[must_use]
    pub fn connections_of(&self, path: &str) -> Vec<usize> {
        let state = self.state();
        let calls = state.calls.iter().filter(|call| call.path == path);
        calls.map(|call| call.connection).collect()
    }

    /// How many connections were opened.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state().connections
    }

    /// When each call of `path` that was cancelled was cancelled.
    #[must_use]
    pub fn cancelled(&self, path: &str) -> Vec<Instant> {
        let state = self.state();
        let calls = state.calls.iter().filter(|call| call.path == path);
        calls.filter_map(|call| call.cancelled).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Accepts a connection; gives the client's end.
    fn open(&self) -> std::io::Result<DuplexStream> {
        let connection = {
            let mut state = self.state();
            if state.refuses {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            state.connections += 1;
            state.connections
        };
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (server, broken) = (self.clone(), Arc::new(Notify::new()));
        let breaks = Arc::clone(&broken);
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let (server, broken) = (server.clone(), Arc::clone(&broken));
                async move { server.answer(connection, request, broken).await }
            });
            let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(ours), answer);
            tokio::select! {
                _ = served => {}
                () = breaks.notified() => {}
            }
        });
        Ok(theirs)
    }

    async fn answer(
        &self,
        connection: usize,
        request: Request<Incoming>,
        broken: Arc<Notify>,
    ) -> Result<Response<ReplyBody>, hyper::Error> {
        let path = request.uri().path().to_owned();
        let number = {
            let mut state = self.state();
            state.calls.push(Call {
                path: path.clone(),
                connection,
                cancelled: None,
            });
            state.calls.len() - 1
        };
        let sent = request.into_body().collect().await?.to_bytes();
        let message = messages(sent);
        let reply = match self.state().handlers.get_mut(path.as_str()) {
            Some(handler) => handler(message),
            None => Reply::error(Code::Unimplemented, "no answer in the test's script"),
        };
        let server = self.clone();
        let cancelled = move || server.state().calls[number].cancelled = Some(Instant::now());
        Ok(reply.into_response(broken, Box::new(cancelled)))
    }
}

/// The messages of a request without their frames. Joined, they decode as one merged message.
fn messages(mut framed: Bytes) -> Bytes {
    let mut joined = Vec::new();
    while framed.len() >= 5 {
        let head = framed.split_to(5);
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        joined.extend_from_slice(&framed.split_to(length as usize));
    }
    joined.into()
}

#[cfg(test)]
mod tests;
