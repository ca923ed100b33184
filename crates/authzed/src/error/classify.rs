//! From a gRPC status to a [`Kind`].
//!
//! The texts and codes are those of SpiceDB v1.56.0 on the memory, PostgreSQL and MySQL datastores;
//! the transport's are those of tonic 0.14.

use std::error::Error as _;
use std::sync::Arc;

use tonic::{Code, Status};

use super::details::error_info;
use super::{ConnectError, Error, Fault, Kind, NotGrpc};

pub(super) fn from_status(rpc: &'static str, endpoint: &Arc<str>, status: Status) -> Error {
    // A status that has a source was not sent by the server: our transport made it.
    if status.source().is_some() {
        return from_transport(rpc, endpoint, status);
    }
    let (reason, metadata) = error_info(status.details());
    let kind = kind(status.code(), reason.as_deref(), status.message());
    let mut error = Error::new(kind, rpc, endpoint, clean(status.message()));
    error.0.code = Some(status.code());
    error.0.reason = reason;
    error.0.metadata = metadata;
    error
}

/// The error of a call that our side of the connection ended.
fn from_transport(rpc: &'static str, endpoint: &Arc<str>, status: Status) -> Error {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(connect) = error.downcast_ref::<ConnectError>() {
            return connect.to_error(endpoint);
        }
        if let Some(answer) = error.downcast_ref::<NotGrpc>() {
            let mut error = Error::new(answer.kind(), rpc, endpoint, answer.to_string());
            error.0.http_status = Some(answer.status());
            return error.with_cause(Some(answer.cause()));
        }
        if let Some(fault) = error.downcast_ref::<Fault>() {
            return Error::from_fault(rpc, endpoint, fault);
        }
        if error.is::<tonic::TimeoutExpired>() {
            let message = "no answer in time".to_owned();
            return Error::new(Kind::Deadline, rpc, endpoint, message);
        }
        cause = error.source();
    }
    let (kind, message) = if was_not_sent(&status) {
        (
            Kind::Unreachable,
            "the connection was closed before the call",
        )
    } else {
        (Kind::Unavailable, "the connection broke")
    };
    Error::new(kind, rpc, endpoint, message.to_owned()).with_source(Transport(status))
}

/// Whether a call never reached the server's logic. That happens when a connection is closed, as it
/// is when it comes of age, just while the call is made: measured with 6 callers at work, to every
/// third of them each time.
pub(crate) fn was_not_sent(status: &Status) -> bool {
    // hyper's word for a request that it still held when the connection was closed, and HTTP/2's for
    // one that the server gives back.
    status.source().is_some()
        && (status.message().starts_with("operation was canceled")
            || status
                .message()
                .contains("refused stream before processing"))
}

/// A transport failure as the source of an error: the texts of its chain on one line.
#[derive(Debug)]
struct Transport(Status);

impl std::error::Error for Transport {}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut texts = vec![self.0.message().to_owned()];
        let mut cause = self.0.source();
        while let Some(error) = cause {
            texts.push(error.to_string());
            cause = error.source();
        }
        // Wrappers say nothing of their own, or repeat what they wrap.
        texts.retain(|text| text != "transport error");
        texts.dedup_by(|inner, outer| outer.contains(inner.as_str()));
        f.write_str(&texts.join(": "))
    }
}

/// The kind of an error that the server sent.
pub(super) fn kind(code: Code, reason: Option<&str>, message: &str) -> Kind {
    reason
        .and_then(kind_of_reason)
        .unwrap_or_else(|| kind_of_code(code, message))
}

fn kind_of_reason(reason: &str) -> Option<Kind> {
    Some(match reason {
        "SERVICE_READ_ONLY" => Kind::ReadOnly,
        "ATTEMPT_TO_RECREATE_RELATIONSHIP" => Kind::AlreadyExists,
        "EXCEEDS_MAXIMUM_ALLOWABLE_LIMIT"
        | "TOO_MANY_UPDATES_IN_REQUEST"
        | "MAX_RELATIONSHIP_CONTEXT_SIZE"
        | "TRANSACTION_METADATA_TOO_LARGE" => Kind::LimitExceeded,
        "SERIALIZATION_FAILURE" | "INMEMORY_TOO_MANY_CONCURRENT_UPDATES" => Kind::Conflict,
        "CANNOT_UPDATE_PERMISSION"
        | "CAVEAT_PARAMETER_TYPE_ERROR"
        | "EMPTY_PRECONDITION"
        | "INVALID_CURSOR"
        | "INVALID_FILTER"
        | "INVALID_SUBJECT_TYPE"
        | "SCHEMA_PARSE_ERROR"
        | "SCHEMA_TYPE_ERROR"
        | "TOO_MANY_PRECONDITIONS_IN_REQUEST"
        | "UNKNOWN_CAVEAT"
        | "UNKNOWN_DEFINITION"
        | "UNKNOWN_RELATION_OR_PERMISSION"
        | "UPDATES_ON_SAME_RELATIONSHIP"
        | "WILDCARD_NOT_ALLOWED"
        | "WRITE_OR_DELETE_PRECONDITION_FAILURE" => Kind::Refused,
        _ => return None,
    })
}

fn kind_of_code(code: Code, message: &str) -> Kind {
    let contains = |text: &str| message.contains(text);
    match code {
        // tonic's words, which come with no source, like an error that the server has sent.
        Code::OutOfRange if contains("decoded message length too large") => Kind::AnswerTooLarge,
        Code::Internal if TONIC_MALFORMED.iter().any(|text| contains(text)) => Kind::Malformed,
        Code::Unauthenticated => Kind::Unauthenticated,
        Code::PermissionDenied => Kind::Denied,
        Code::OutOfRange => Kind::HistoryLost,
        Code::NotFound if contains("schema") => Kind::NoSchema,
        Code::AlreadyExists => Kind::AlreadyExists,
        Code::InvalidArgument if contains("different datastore instance") => Kind::ForeignDatastore,
        Code::InvalidArgument
            if contains("start revision") && OTHER_FORM.iter().any(|text| contains(text)) =>
        {
            Kind::ForeignDatastore
        }
        Code::FailedPrecondition if contains("watch is currently disabled") => Kind::Unimplemented,
        Code::InvalidArgument | Code::FailedPrecondition => Kind::Refused,
        Code::ResourceExhausted if contains("message larger than max") => Kind::MessageTooLarge,
        Code::ResourceExhausted if contains("watch disconnected") => Kind::TooSlow,
        Code::ResourceExhausted => Kind::Overloaded,
        Code::Unavailable | Code::Cancelled => Kind::Unavailable,
        Code::Aborted => Kind::Conflict,
        Code::DeadlineExceeded if contains("operation took longer than allowed") => {
            Kind::StreamTimeout
        }
        Code::DeadlineExceeded if contains("serialization max retries") => Kind::Conflict,
        Code::DeadlineExceeded => Kind::Deadline,
        Code::Unimplemented => Kind::Unimplemented,
        // A cursor from another kind of datastore; one from the same kind is not even noticed.
        Code::Internal if contains("error decoding cursor") => Kind::ForeignDatastore,
        Code::Internal => Kind::Internal,
        Code::Unknown => kind_of_unknown(message),
        _ => Kind::Other,
    }
}

/// The messages of tonic for an answer that breaks the rules of gRPC.
const TONIC_MALFORMED: [&str; 2] = [
    "protocol error: received message with",
    "Unexpected EOF decoding stream",
];

/// The messages of servers for a revision whose form is that of another kind of datastore.
const OTHER_FORM: [&str; 3] = [
    "invalid integer revision",
    "invalid revision string",
    "invalid revision format",
];

/// `UNKNOWN`: what a server did not foresee, passed on as it came. Some of it is for ever, and known
/// by its text; the rest is what database drivers say when their database goes away (measured by
/// restarting it: `failed to connect to ...`, `invalid connection`, `unexpected EOF`).
fn kind_of_unknown(message: &str) -> Kind {
    let contains = |text: &str| message.contains(text);
    if contains("references a different datastore instance") {
        Kind::ForeignDatastore
    } else if contains("maximum changes byte size") {
        Kind::ChangeBufferExceeded
    } else if contains("transaction has already been committed or rolled back") {
        // MySQL's word for the end of its time.
        Kind::StreamTimeout
    } else if contains("could not convert context parameter")
        || contains("unknown parameter `")
        // v1.40 to v1.45 have expiries only with a flag (read off the source of v1.45.4).
        || contains("support for expiring relationships is not enabled")
        // An id that is not checked before it is put together, with a bulk import.
        || contains("invalid resource id")
        || contains("invalid subject id")
        || is_data_exception(message)
        || contains("at least one filter field must be set")
        || contains("cannot specify both")
    {
        Kind::Refused
    } else if contains("schema watch unsupported") {
        Kind::Unimplemented
    } else {
        Kind::Unavailable
    }
}

/// Whether a database reports that it cannot hold a value, which older servers pass on (v1.56 answers INTERNAL
/// and no more): SQLSTATE class 22, as
/// PostgreSQL's driver puts it (`(SQLSTATE 22P05)`: U+0000) and MySQL's (`Error 1366 (22007)`: a character
/// that the column has not; MySQL itself gives that HY000). 4025 is MariaDB's check that a context is JSON: it
/// fails for one nested in 31 levels. Measured on v1.45.4.
fn is_data_exception(message: &str) -> bool {
    let is_mysql = |text: &str| {
        let Some((number, state)) = text.split_once(" (") else {
            return false;
        };
        matches!(number, "1366" | "4025")
            || (number.bytes().all(|c| c.is_ascii_digit()) && state.starts_with("22"))
    };
    message.contains("(SQLSTATE 22") || message.split("Error ").skip(1).any(is_mysql)
}

/// The most characters of a server's words that are passed on. An import that SpiceDB refuses has 500
/// bytes of them for each invalid relationship.
const LONGEST: usize = 1_000;

/// One line of bounded length, without what Go servers put before the text of an error that they pass on.
pub(super) fn clean(message: &str) -> String {
    let text = match message.rsplit_once(" desc = ") {
        Some((_, text)) if message.contains("rpc error: code = ") => text,
        _ => message,
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() {
        "the server gave no reason".to_owned()
    } else {
        let text = words.join(" ");
        match text.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}
