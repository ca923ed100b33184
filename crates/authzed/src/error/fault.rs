//! What is wrong with an answer that cannot be used.

use tonic::Status;

use super::{Cause, Kind};

/// Why a message of the server cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    pub(crate) cause: Option<Cause>,
}

impl Fault {
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Malformed,
            message: message.into(),
            cause: None,
        }
    }

    /// `found` and `limit` in bytes.
    pub(crate) fn too_large(found: usize, limit: usize) -> Self {
        Self {
            kind: Kind::AnswerTooLarge,
            message: format!(
                "the answer would take at least {} MiB of memory, more than the {} MiB that one may take",
                found >> 20,
                limit >> 20
            ),
            cause: None,
        }
    }

    pub(crate) fn unknown_field(message: String) -> Self {
        Self {
            kind: Kind::UnknownField,
            message,
            cause: Some(Cause::NewerServer),
        }
    }

    pub(crate) fn into_status(self) -> Status {
        Status::from_error(Box::new(self))
    }
}
