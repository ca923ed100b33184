//! The one error of this crate, and what a caller can do about it.

mod cause;
#[cfg(feature = "client")]
mod classify;
#[cfg(feature = "client")]
mod connect;
mod details;
#[cfg(feature = "client")]
mod fault;
#[cfg(feature = "client")]
mod not_grpc;
#[cfg(feature = "client")]
mod simulated;
#[cfg(all(test, feature = "client"))]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

#[cfg(feature = "client")]
use tonic::Code;

#[cfg(feature = "client")]
use crate::proxy::Proxy;

pub use self::cause::Cause;
pub use self::details::reason_of;
#[cfg(feature = "client")]
pub(crate) use self::{
    classify::was_not_sent,
    connect::{CONNECT_TIMEOUT, ConnectError, cause_of, is_authority, tls_error},
    fault::Fault,
    not_grpc::NotGrpc,
};

/// A call, or an attempt to connect, that failed.
///
/// It displays as `endpoint: call: what the server or the network answered`, with the cause of a failed
/// connection at the end; the cause (an I/O or a TLS error) is also the
/// [source](std::error::Error::source). No token is ever part of it.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    rpc: &'static str,
    endpoint: Arc<str>,
    #[cfg(feature = "client")]
    code: Option<Code>,
    http_status: Option<u16>,
    message: String,
    reason: Option<String>,
    metadata: BTreeMap<String, String>,
    cause: Option<Cause>,
    source: Option<Source>,
}

type Source = Arc<dyn std::error::Error + Send + Sync>;

/// What went wrong, by what can be done about it.
///
/// Servers say one thing with several gRPC codes, and several things with one code. The kind is
/// found from the machine-readable reason where the server gives one, then from the code and, where
/// that is not enough (`UNKNOWN`, `RESOURCE_EXHAUSTED`), from the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The configuration cannot be used: a malformed endpoint, an unreadable certificate. Nothing
    /// was sent.
    Config,
    /// No connection: the name does not resolve, nothing listens, or nobody answers. Nothing was
    /// sent, so a write was not applied.
    Unreachable,
    /// There is a server, but TLS could not be agreed on: unknown authority, wrong host name,
    /// expired certificate, client certificate missing, or one side does not speak TLS.
    Tls,
    /// The server asks for a token and got none, or one it cannot read.
    Unauthenticated,
    /// The server does not accept this token for this call.
    Denied,
    /// The server does not take writes. It answers with codes that look transient.
    ReadOnly,
    /// The revision asked for has left the server's history window, or is none of its revisions.
    /// A Watch from it would leave changes out, mostly without an error.
    HistoryLost,
    /// The zedtoken or cursor comes from another datastore.
    ForeignDatastore,
    /// The server has no schema.
    NoSchema,
    /// A relationship that was to be created exists, perhaps expired and so invisible.
    AlreadyExists,
    /// The server will never take this request: the data does not fit the schema, the schema does
    /// not fit the data, or a field is invalid.
    Refused,
    /// More than the server allows in one request; [`Error::limit`] has the maximum.
    LimitExceeded,
    /// The request is larger than the server receives; [`Error::limit`] has the maximum in bytes.
    MessageTooLarge,
    /// The connection, the server or its database went away. A write may have been applied.
    Unavailable,
    /// The transaction lost against a concurrent one and was rolled back.
    Conflict,
    /// The server is short of memory or of database connections and did not start the call.
    Overloaded,
    /// The Watch was not read fast enough and was ended; it can be resumed from its last revision.
    TooSlow,
    /// What comes after this revision is more than the server's Watch can buffer. It fails at this
    /// revision each time, until `--datastore-watch-change-buffer-maximum-size` is raised.
    ChangeBufferExceeded,
    /// No answer in time. A write may be applied even later.
    Deadline,
    /// An import stream that was open for longer than the server's
    /// `--streaming-api-response-delay-timeout` (30 seconds) and was rolled back.
    StreamTimeout,
    /// The server does not have this call, or has it switched off.
    Unimplemented,
    /// The server's database refused something, and the server does not say what: a value that it
    /// cannot hold, such as U+0000 in a caveat's context, or, for seconds, anything at all while the
    /// database restarts. A write may have been applied.
    Internal,
    /// The server answered with something that is no answer: it cannot be decoded, lacks what it must
    /// have, or holds what no server stores. A write may have been applied.
    Malformed,
    /// The answer holds a field that this version does not know, and that would be lost.
    UnknownField,
    /// The answer is larger than this client takes.
    AnswerTooLarge,
    /// Anything else.
    Other,
}

impl Error {
    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The call: its name in the API, or `connect` where there was no connection to make it on.
    #[must_use]
    pub fn rpc(&self) -> &'static str {
        self.0.rpc
    }

    /// The endpoint as it was configured.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// The gRPC code, where a server or a proxy answered with one.
    #[cfg(feature = "client")]
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        self.0.code
    }

    /// The HTTP status, where a proxy or a web server answered in the server's place.
    #[must_use]
    pub fn http_status(&self) -> Option<u16> {
        self.0.http_status
    }

    /// The message of the server, or what happened to the connection, on one line.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The reason in the error's details without the prefix `ERROR_REASON_`, for example
    /// `SERVICE_READ_ONLY`.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// The values that the server gives beside the reason, by name.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.0.metadata
    }

    /// The maximum that was exceeded, where the server names it: a count of relationships or updates,
    /// or a size in bytes. With [`Kind::LimitExceeded`] and [`Kind::MessageTooLarge`].
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        details::limit(&self.0.message, &self.0.metadata)
    }

    /// The error without its source: `endpoint: call: what the server or the network answered`.
    #[must_use]
    pub fn summary(&self) -> String {
        let Inner {
            rpc,
            endpoint,
            message,
            ..
        } = &*self.0;
        format!("{endpoint}: {rpc}: {message}")
    }

    /// Its source, to be kept by an error that wraps the summary.
    #[must_use]
    pub fn into_source(self) -> Option<Box<dyn std::error::Error + Send + Sync>> {
        let source = self.0.source?;
        Some(Box::new(SharedSource(source)))
    }

    /// Whether the server knows another preshared key, and so refuses every call, not only this one.
    #[must_use]
    pub fn is_other_key(&self) -> bool {
        self.0.message.contains("preshared key")
    }

    /// Why it failed, where the kind alone does not name what can be changed.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.0.cause
    }

    /// Whether the same call may succeed later, with nothing changed.
    ///
    /// Retries have to be bounded all the same: servers report a value that their database refuses
    /// ([`Kind::Internal`]) just like a database that is restarting.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self.0.kind {
            Kind::Unreachable
            | Kind::Unavailable
            | Kind::Conflict
            | Kind::Overloaded
            | Kind::TooSlow
            | Kind::Deadline
            | Kind::StreamTimeout
            | Kind::Internal => true,
            Kind::Config
            | Kind::Tls
            | Kind::Unauthenticated
            | Kind::Denied
            | Kind::ReadOnly
            | Kind::HistoryLost
            | Kind::ForeignDatastore
            | Kind::NoSchema
            | Kind::AlreadyExists
            | Kind::Refused
            | Kind::LimitExceeded
            | Kind::MessageTooLarge
            | Kind::ChangeBufferExceeded
            | Kind::Unimplemented
            | Kind::Malformed
            | Kind::UnknownField
            | Kind::AnswerTooLarge
            | Kind::Other => false,
        }
    }

    /// Whether a write that ended with this error may have been applied, or be applied later.
    #[must_use]
    pub fn is_ambiguous_for_writes(&self) -> bool {
        matches!(
            self.0.kind,
            Kind::Unavailable
                | Kind::Deadline
                | Kind::Internal
                | Kind::Malformed
                | Kind::AnswerTooLarge
                | Kind::Other
        )
    }
}

#[cfg(feature = "client")]
impl Error {
    pub(crate) fn new(kind: Kind, rpc: &'static str, endpoint: &Arc<str>, message: String) -> Self {
        Self(Box::new(Inner {
            kind,
            rpc,
            endpoint: Arc::clone(endpoint),
            #[cfg(feature = "client")]
            code: None,
            http_status: None,
            message,
            reason: None,
            metadata: BTreeMap::new(),
            cause: None,
            source: None,
        }))
    }

    pub(crate) fn deadline(rpc: &'static str, endpoint: &Arc<str>) -> Self {
        let message = "no answer in time".to_owned();
        Self::new(Kind::Deadline, rpc, endpoint, message)
    }

    pub(crate) fn from_fault(rpc: &'static str, endpoint: &Arc<str>, fault: &Fault) -> Self {
        let error = Self::new(fault.kind, rpc, endpoint, fault.to_string());
        error.with_cause(fault.cause)
    }

    pub(crate) fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same error, which names the proxy through which the connection leads, unless it is known who
    /// failed. `has_tunnel`: whether that proxy has connected.
    pub(crate) fn through(mut self, proxy: &Proxy, has_tunnel: bool) -> Self {
        let is_lost = matches!(
            self.0.kind,
            Kind::Unreachable | Kind::Unavailable | Kind::Deadline
        );
        // With a code somebody has answered.
        if !is_lost || self.0.cause.is_some() || self.0.code.is_some() {
            return self;
        }
        let (place, cause) = match has_tunnel {
            true => ("through the proxy", Cause::BehindProxy),
            false => ("the proxy", Cause::NoTunnel),
        };
        self.0.message = format!("{place} {proxy}: {}", self.0.message);
        self.with_cause(Some(cause))
    }

    pub(crate) fn with_cause(mut self, cause: Option<Cause>) -> Self {
        self.0.cause = cause;
        self
    }

    pub(crate) fn with_source(
        mut self,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// The error of a call that ended with `status`, made by the server or by our own transport.
    pub(crate) fn from_status(
        rpc: &'static str,
        endpoint: &Arc<str>,
        status: tonic::Status,
    ) -> Self {
        classify::from_status(rpc, endpoint, status)
    }
}

/// A source that several clones of an error share.
struct SharedSource(Source);

impl fmt::Debug for SharedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SharedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SharedSource {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            rpc,
            endpoint,
            message,
            source,
            ..
        } = &*self.0;
        write!(f, "{endpoint}: {rpc}: {message}")?;
        match source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("endpoint", &self.0.endpoint)
            .field("rpc", &self.0.rpc)
            .field("message", &self.0.message)
            .field("reason", &self.0.reason)
            .field("metadata", &self.0.metadata)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
