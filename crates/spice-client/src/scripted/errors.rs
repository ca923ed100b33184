//! Errors as SpiceDB v1.56 sends them.

use authzed::{Code, Error, Kind};

/// A request that the server never takes, with a reason such as `INVALID_SUBJECT_TYPE`.
#[must_use]
pub fn refused(reason: &str) -> Error {
    let message = format!("refused for {reason}");
    Error::simulated(Code::InvalidArgument, Some(reason), &[], &message)
}

/// More updates than the server takes in a call.
#[must_use]
pub fn too_many_updates(limit: usize) -> Error {
    Error::simulated(
        Code::InvalidArgument,
        Some("TOO_MANY_UPDATES_IN_REQUEST"),
        &[("maximum_updates_allowed", &limit.to_string())],
        "too many updates for WriteRelationships call",
    )
}

/// A request above 4 MiB.
#[must_use]
pub fn message_too_large() -> Error {
    let message = "grpc: received message larger than max (4586674 vs. 4194304)";
    Error::simulated(Code::ResourceExhausted, None, &[], message)
}

/// A CREATE of what is there.
#[must_use]
pub fn already_exists() -> Error {
    let message = "could not CREATE relationship, as it already existed";
    let reason = Some("ATTEMPT_TO_RECREATE_RELATIONSHIP");
    Error::simulated(Code::AlreadyExists, reason, &[], message)
}

/// The server or its database went away: ambiguous for a write.
#[must_use]
pub fn unavailable() -> Error {
    Error::simulated(Code::Unavailable, None, &[], "shutting down")
}

/// The server's database refused something.
#[must_use]
pub fn internal() -> Error {
    let message = "an internal error occurred while accessing the datastore";
    Error::simulated(Code::Internal, None, &[], message)
}

/// No connection: nothing was sent.
#[must_use]
pub fn unreachable() -> Error {
    Error::simulated_kind(Kind::Unreachable, "connection refused")
}

/// No answer in time: ambiguous for a write.
#[must_use]
pub fn deadline() -> Error {
    Error::simulated_kind(Kind::Deadline, "no answer in time")
}

/// A schema that relationships keep the server from taking.
#[must_use]
pub fn schema_refused(operation: &str) -> Error {
    Error::simulated(
        Code::InvalidArgument,
        Some("SCHEMA_TYPE_ERROR"),
        &[("operation", operation)],
        "cannot delete relation, as at least one relationship exists under it",
    )
}
