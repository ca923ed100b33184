//! Errors without a server, for the tests of callers.

use std::sync::Arc;

use tonic::Code;

use super::{Error, Kind, classify};

impl Error {
    /// The error of a call that a server answered with this code, reason (without `ERROR_REASON_`),
    /// metadata and message. It is classified as if it had been received. For tests.
    #[must_use]
    pub fn simulated(
        code: Code,
        reason: Option<&str>,
        metadata: &[(&str, &str)],
        message: &str,
    ) -> Self {
        let kind = classify::kind(code, reason, message);
        let mut error = Self::simulated_kind(kind, message);
        error.0.code = Some(code);
        error.0.reason = reason.map(str::to_owned);
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        error.0.metadata = metadata.iter().map(owned).collect();
        error
    }

    /// An error of a kind that no server sends: [`Kind::Unreachable`], [`Kind::Deadline`]. For tests.
    #[must_use]
    pub fn simulated_kind(kind: Kind, message: &str) -> Self {
        Self::new(
            kind,
            "SimulatedCall",
            &Arc::from("simulated:50051"),
            message.to_owned(),
        )
    }
}
