//! The Watch itself: opened, guarded, read, and opened again.

use std::time::Duration;

use authzed::v1::{WatchKind, WatchRequest, WatchResponse, ZedToken};
use authzed::zedtoken::{Revision, revision_of};
use authzed::{Client, DatastoreKind, Kind};
use spice_cli::{CommandError, Exit};
use spice_client::retry::Retry;
use spice_record::record::{Checkpoint, Filter, SchemaChange, is_applied_from};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::contended::Contended;
use crate::dedup::{self, Delivered};
use crate::drain::{DrainOnDrop, DrainTracker};
use crate::heartbeat::Heartbeat;
use crate::settled::ContendedStats;
use crate::until::Until;
use crate::writer::{self, Emitter, Event};

/// After this much silence of a Watch its revision is read again, on the same connection. A Watch from a
/// revision in the future is silent for ever, and so is a connection that a proxy or a firewall has
/// dropped. A ping cannot detect that (SpiceDB accepts one in five minutes), and TCP keepalive reaches only
/// the proxy.
pub(crate) const SILENCE: Duration = Duration::from_secs(10);
/// Without an answer within this time the connection counts as dead. Doubled each time, because it may only
/// be slow: a revision of many megabytes is ahead of the answer.
const PATIENCE: Duration = Duration::from_secs(15);
const MOST_PATIENCE: Duration = Duration::from_secs(600);
/// A stream that was open for so long, and answers, is no failure in a row.
const HEALTHY: Duration = Duration::from_secs(60);
/// How often it is read while the Watch is not silent.
const PROBE: Duration = Duration::from_secs(3600);

/// How following came to an intended end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Until,
    Quiet,
    Signal(i32),
    /// A signal that interrupted a round.
    Incomplete(i32),
}

pub(crate) struct Watcher {
    pub(crate) client: Client,
    pub(crate) max_retries: usize,
    /// What is watched, if that is not everything.
    pub(crate) filter: Option<Filter>,
    pub(crate) skip_applied: Option<String>,
    pub(crate) quiet: Option<Duration>,
    pub(crate) emitter: Emitter,
    pub(crate) drains: DrainTracker,
    /// The last revision that was emitted completely: the next Watch begins after it.
    pub(crate) since: String,
    /// The newest schema that was emitted.
    pub(crate) schema: Option<String>,
    pub(crate) heartbeat: Option<Heartbeat>,
    pub(crate) progress: Progress,
    /// For sources where the order of revisions is not that of effects.
    pub(crate) contended: Option<Contended>,
    pub(crate) contended_stats: ContendedStats,
    /// A head that was seen soon after the end of this round.
    pub(crate) next_head: Option<String>,
    pub(crate) kind: DatastoreKind,
}

/// The state of following.
pub(crate) struct Progress {
    pub(crate) delivered: Delivered,
    /// The server reports changes of the schema.
    pub(crate) has_schema_events: bool,
    pub(crate) last_change: Instant,
    patience: Duration,
}

impl Progress {
    /// Of following that begins after a revision.
    pub(crate) fn after(start: &str) -> Self {
        Self {
            delivered: Delivered::before(start),
            has_schema_events: true,
            last_change: Instant::now(),
            patience: PATIENCE,
        }
    }
}

/// Why one stream ended before its bound.
pub(crate) enum StreamError {
    Server(authzed::Error),
    /// It does not answer.
    Silent,
    Failed(CommandError),
}

impl From<CommandError> for StreamError {
    fn from(failure: CommandError) -> Self {
        Self::Failed(failure)
    }
}

/// What is to be done after a response.
#[derive(PartialEq, Eq)]
enum Next {
    Continue,
    Reached,
}

impl Watcher {
    /// Follows to a bound, over as many connections as it takes. May be dropped at any time.
    pub(crate) async fn follow(&mut self, bound: Until<'_>) -> Result<Ended, CommandError> {
        let mut retry = Retry::new(self.max_retries);
        loop {
            match self.run_stream(bound, &mut retry).await {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) => {}
                Err(StreamError::Failed(failure)) => return Err(failure),
                Err(StreamError::Server(error))
                    if self.progress.has_schema_events
                        && error.message().contains("schema watch unsupported") =>
                {
                    tracing::info!(
                        "this datastore reports no schema changes: the schema is read and \
                         compared instead"
                    );
                    self.progress.has_schema_events = false;
                }
                Err(StreamError::Server(error)) if error.kind() == Kind::Unimplemented => {
                    return Err(CommandError::from(error).hint(
                        "the source does not offer Watch: start its SpiceDB without \
                         --datastore-disable-watch-support; PostgreSQL also needs \
                         track_commit_timestamp=on",
                    ));
                }
                Err(StreamError::Server(error)) => {
                    retry.pause(error, "watching again").await?;
                    self.client = self.client.reconnect();
                }
                Err(StreamError::Silent) => {
                    let Progress { patience, .. } = &mut self.progress;
                    tracing::warn!(
                        "{}: no answer for {} s, while the Watch is silent: reconnecting",
                        self.client.endpoint(),
                        patience.as_secs()
                    );
                    *patience = (*patience * 2).min(MOST_PATIENCE);
                    self.client = self.client.reconnect();
                }
            }
        }
    }

    /// Reads one stream; `None`: it ended, and another one has to continue.
    async fn run_stream(
        &mut self,
        bound: Until<'_>,
        retry: &mut Retry,
    ) -> Result<Option<Ended>, StreamError> {
        self.check_history().await?;
        if !self.progress.has_schema_events {
            self.compare_schema().await?;
        }
        let mut responses = self.open();
        let opened = Instant::now();
        let mut answered = false;
        let (mut silent_at, mut check_at) = (opened + SILENCE, opened + PROBE);
        loop {
            let quiet_at = self
                .quiet
                .map(|quiet| self.progress.last_change.max(opened) + quiet);
            let response = tokio::select! {
                biased;
                response = responses.message() => response,
                () = sleep_until(silent_at.min(check_at)) => {
                    let patience = self.progress.patience;
                    let checked = timeout(patience, self.check_history()).await;
                    checked.map_err(|_| StreamError::Silent)??;
                    // A proxy that ends silent streams does not end the following of an idle source.
                    if opened.elapsed() >= HEALTHY {
                        retry.succeeded();
                    }
                    silent_at = Instant::now() + SILENCE;
                    check_at = Instant::now() + PROBE;
                    continue;
                }
                () = at(quiet_at) => return Ok(Some(Ended::Quiet)),
            };
            let Some(mut response) = response.map_err(StreamError::Server)? else {
                sleep(Duration::from_millis(100)).await;
                return Ok(None);
            };
            // A server that does not know the filter, or takes it for less than it is, sends what is of others.
            if let Some(filter) = &self.filter {
                filter.retain(&mut response.updates);
            }
            if !answered {
                // A poll reads everything at once. If history was there after that, all of it came.
                self.check_history().await?;
                answered = true;
            }
            self.progress.patience = PATIENCE;
            silent_at = Instant::now() + SILENCE;
            // A server ends a Watch whose reader is slow, and ours waits for another program. So the
            // stream is ended, and the next one begins where that program is.
            let slow = self.emitter.is_full(writer::weight(&response));
            if slow {
                responses.drain();
            }
            let before = self.since.clone();
            let next = self.handle_response(response, bound).await?;
            // A repetition is no progress: the retries of a source that only repeats must end.
            if self.since != before {
                retry.succeeded();
            }
            match next {
                Next::Reached => return Ok(Some(Ended::Until)),
                Next::Continue if slow => {
                    self.emitter.drained().await;
                    return Ok(None);
                }
                Next::Continue => {}
            }
        }
    }

    fn open(&self) -> DrainOnDrop {
        let drains = self.kind.dies_of_cancelled_watch();
        let drains = drains.then(|| self.drains.clone());
        DrainOnDrop::new(self.client.watch(self.request()), drains)
    }

    fn request(&self) -> WatchRequest {
        let mut kinds = vec![
            WatchKind::IncludeRelationshipUpdates.into(),
            WatchKind::IncludeCheckpoints.into(),
        ];
        if self.progress.has_schema_events {
            kinds.push(WatchKind::IncludeSchemaUpdates.into());
        }
        // A server takes one or the other. Of types alone every version knows the first.
        let (types, filters) = match &self.filter {
            None => (Vec::new(), Vec::new()),
            Some(filter) if filter.resource_prefix.is_none() => (filter.types.clone(), Vec::new()),
            Some(filter) => (Vec::new(), filter.requests()),
        };
        WatchRequest {
            optional_object_types: types,
            optional_start_cursor: Some(ZedToken {
                token: self.since.clone(),
            }),
            optional_relationship_filters: filters,
            optional_update_kinds: kinds,
        }
    }

    /// Emits the content of a response, unless it was emitted before.
    async fn handle_response(
        &mut self,
        response: WatchResponse,
        bound: Until<'_>,
    ) -> Result<Next, StreamError> {
        let weight = writer::weight(&response);
        let Some(ZedToken { token }) = response.changes_through else {
            return Err(
                CommandError::new(Exit::Failed, "Watch: a response without a revision").into(),
            );
        };
        let revision = revision_of(&token);
        if let Until::Number(last, last_token) = bound
            && last.sees(&revision) == Some(false)
        {
            self.emit_settled(last, last_token.to_owned(), true).await?;
            return Ok(Next::Reached);
        }
        if response.schema_updated
            && !self
                .progress
                .delivered
                .contains(&revision, dedup::Kind::Schema)
        {
            let text = self.read_schema().await.map_err(StreamError::Server)?;
            self.progress
                .delivered
                .insert(&revision, dedup::Kind::Schema);
            // Where changes come with it, the revision is complete only with them.
            if response.updates.is_empty() {
                self.emit_schema_if_changed(text, &token).await?;
                self.since.clone_from(&token);
            } else {
                let since = self.since.clone();
                self.emit_schema_if_changed(text, &since).await?;
            }
        }
        if !self.progress.has_schema_events
            && matches!(bound, Until::None)
            && !response.updates.is_empty()
        {
            self.compare_schema().await?;
        }
        if !response.updates.is_empty()
            && self
                .progress
                .delivered
                .insert(&revision, dedup::Kind::Transaction)
        {
            self.progress.last_change = Instant::now();
            let mut metadata = response.full_revision_metadata;
            if metadata.is_empty() {
                metadata.extend(response.optional_transaction_metadata);
            }
            // A revision of several writers is skipped only if all of them are ours.
            let skipped = self.skip_applied.as_ref();
            let ours = skipped.is_some_and(|source| is_applied_from(source, &metadata));
            let mut read = Vec::new();
            match &mut self.contended {
                Some(contended) if ours => contended.track_skipped(&response.updates),
                None if ours => self.checkpoint(&revision, token.clone()).await?,
                _ => {
                    read = self.track_updates(&response.updates, &token).await?;
                    let revision = token.clone();
                    let event = Event::Transaction {
                        revision,
                        updates: response.updates,
                        metadata,
                        contended: false,
                    };
                    self.emitter.send(event, weight).await?;
                }
            }
            self.since.clone_from(&token);
            let is_long = self.contended.as_ref().is_some_and(Contended::is_long);
            if is_long || !read.is_empty() {
                for states in read {
                    self.emit_states(states, &token).await?;
                }
                // In a round a Watch delivers in order: everything through here was emitted.
                self.emit_settled(&revision, token.clone(), false).await?;
            }
        }
        if response.is_checkpoint {
            let reached = bound.is_reached_by(&revision);
            // From here a Watch must not resume. The next transaction brings another checkpoint.
            let (revision, token) = match bound {
                _ if self.progress.delivered.is_resume_point(&revision) => (revision, token),
                Until::Sees(last, last_token) if reached => (last.clone(), last_token.to_owned()),
                _ => return Ok(Next::Continue),
            };
            // A Watch may resume at a checkpoint: what has to be read there comes before it.
            if reached || self.contended.is_none() {
                self.emit_settled(&revision, token, reached).await?;
            } else {
                self.since = token;
            }
            if reached {
                return Ok(Next::Reached);
            }
        }
        Ok(Next::Continue)
    }

    /// Emits a checkpoint: everything through a revision was emitted.
    pub(crate) async fn checkpoint(
        &mut self,
        revision: &Revision,
        token: String,
    ) -> Result<(), CommandError> {
        if !self
            .progress
            .delivered
            .insert(revision, dedup::Kind::Checkpoint)
        {
            return Ok(());
        }
        self.since.clone_from(&token);
        let bytes = token.len();
        let event = Event::Checkpoint(Checkpoint {
            revision: token,
            at: Some(jiff::Timestamp::now().to_string()),
            lag: self
                .heartbeat
                .as_ref()
                .and_then(|heart| heart.lag(revision)),
            ..Checkpoint::default()
        });
        self.emitter.send(event, bytes).await
    }

    /// Emits the schema where it is another one than the last.
    async fn emit_schema_if_changed(
        &mut self,
        text: String,
        revision: &str,
    ) -> Result<(), CommandError> {
        if self.schema.as_ref() == Some(&text) {
            return Ok(());
        }
        tracing::info!("the schema has changed at revision {revision}");
        self.schema = Some(text.clone());
        self.progress.last_change = Instant::now();
        let bytes = text.len();
        let event = Event::Schema(SchemaChange {
            revision: revision.to_owned(),
            text,
            ..SchemaChange::default()
        });
        self.emitter.send(event, bytes).await
    }

    /// For servers that do not report its changes.
    async fn compare_schema(&mut self) -> Result<(), StreamError> {
        let text = self.read_schema().await.map_err(StreamError::Server)?;
        let since = self.since.clone();
        Ok(self.emit_schema_if_changed(text, &since).await?)
    }

    async fn read_schema(&self) -> Result<String, authzed::Error> {
        let schema = self.client.read_schema().await?;
        Ok(schema.map(|schema| schema.text).unwrap_or_default())
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
pub(crate) mod tests;
