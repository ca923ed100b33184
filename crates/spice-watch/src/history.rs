//! Lost history: the source has garbage-collected changes that were not captured yet.

use authzed::Kind;
use spice_cli::CommandError;
use spice_spool::Spool;

use crate::Watch;
use crate::watcher::{StreamError, Watcher};

/// Exit 4: what came after a revision cannot be had any more.
pub(crate) fn lost(error: authzed::Error, since: &str) -> CommandError {
    CommandError::from(error).context(format!("history lost after revision {since}"))
}

impl Watcher {
    /// Checks that the source still has the changes after the last emitted revision.
    pub(crate) async fn check_history(&self) -> Result<(), StreamError> {
        match self.client.check_revision_exists(&self.since).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == Kind::HistoryLost => Err(lost(error, &self.since).into()),
            Err(error) => Err(StreamError::Server(error)),
        }
    }
}

impl Watch {
    /// Stores the message beside the spool, for its readers.
    pub(crate) fn record_history_lost(&self, failure: &CommandError) {
        let spool = self.spool.as_deref().map(Spool::new);
        if let Some(Err(error)) = spool.map(|spool| spool.set_lost(failure.message())) {
            tracing::warn!("cannot store the lost history beside the spool: {error}");
        }
    }
}
