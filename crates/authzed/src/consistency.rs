//! Short ways to say at which revision a call is to be answered.

use crate::v1::consistency::Requirement;
use crate::v1::{Consistency, ZedToken};

impl Consistency {
    /// At exactly the zedtoken's revision, or not at all.
    pub fn at_exact(token: impl Into<String>) -> Self {
        Requirement::AtExactSnapshot(ZedToken {
            token: token.into(),
        })
        .into()
    }

    /// At the newest revision.
    #[must_use]
    pub fn fully_consistent() -> Self {
        Requirement::FullyConsistent(true).into()
    }
}

impl From<Requirement> for Consistency {
    fn from(requirement: Requirement) -> Self {
        Self {
            requirement: Some(requirement),
        }
    }
}
