//! A Watch that is opened and left again; with `--mark` it is followed until a marker comes.

use std::time::Duration;

use authzed::v1::{WatchKind, WatchRequest, WatchResponse, ZedToken};
use authzed::{ResponseStream, zedtoken};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Probe, failure_of};
use crate::facts::{Failure, Marker, Watched};

/// An idle source in memory or on MySQL sends nothing at all, so silence is an answer. PostgreSQL's first
/// response comes within a second (SpiceDB v1.56).
const SILENCE: Duration = Duration::from_millis(1_500);
/// How long a marker is waited for: the slowest delivery that was measured took 1.03 s.
const DELIVERY: Duration = Duration::from_secs(10);
/// SpiceDB v1.56.0 on MySQL dies of a Watch that is cancelled while it reads new transactions. It is left
/// after so much silence, or after the other time in any case.
const IDLE: Duration = Duration::from_millis(40);
const MAX_DRAIN: Duration = Duration::from_secs(5);

impl Probe {
    /// Without a revision it begins a few seconds ago.
    fn open(&self, since: Option<&str>) -> ResponseStream<WatchResponse> {
        self.client.watch(WatchRequest {
            optional_start_cursor: since.map(|token| ZedToken {
                token: token.to_owned(),
            }),
            optional_update_kinds: vec![
                WatchKind::IncludeRelationshipUpdates.into(),
                WatchKind::IncludeCheckpoints.into(),
            ],
            ..WatchRequest::default()
        })
    }

    /// Opens a Watch, and leaves it after its first response or a short silence. A server that has stopped
    /// answering is silent as well, so it is asked something else then.
    pub(crate) async fn watch(
        &self,
        since: Option<&str>,
        must_drain: bool,
    ) -> Result<Watched, Failure> {
        let mut responses = self.open(since);
        let began = Instant::now();
        let until = self.deadline.min(began + SILENCE);
        let first = match timeout_at(until, responses.message()).await {
            Err(_) => None,
            Ok(Ok(_)) => Some(began.elapsed()),
            Ok(Err(error)) => return Err(failure_of(&error)),
        };
        let open = began.elapsed();
        leave(responses, must_drain).await;
        if first.is_none()
            && let Err(failure) = self.call(self.client.head()).await
            && failure.passes
        {
            return Err(failure);
        }
        Ok(Watched { first, open })
    }

    /// Writes a marker, and follows the Watch until it has come.
    pub(crate) async fn mark(
        &self,
        since: Option<&str>,
        must_drain: bool,
    ) -> Result<Marker, Failure> {
        let token = self.call(self.client.write_marker()).await?;
        let began = Instant::now();
        let mut responses = self.open(since);
        let until = self.deadline.min(began + DELIVERY);
        let mut delivered = None;
        while delivered.is_none() {
            match timeout_at(until, responses.message()).await {
                // The marker is written. What a Watch answers was seen before.
                Err(_) | Ok(Ok(None) | Err(_)) => break,
                Ok(Ok(Some(response))) => {
                    let through = response.changes_through.unwrap_or_default();
                    if zedtoken::includes(&through.token, &token) {
                        delivered = Some(began.elapsed());
                    }
                }
            }
        }
        leave(responses, must_drain).await;
        Ok(Marker { token, delivered })
    }
}

async fn leave(mut responses: ResponseStream<WatchResponse>, must_drain: bool) {
    let until = Instant::now() + MAX_DRAIN;
    while must_drain && Instant::now() < until {
        match timeout(IDLE, responses.message()).await {
            Ok(Ok(Some(_))) => {}
            Err(_) | Ok(_) => break,
        }
    }
}
