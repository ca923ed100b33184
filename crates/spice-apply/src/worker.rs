//! The loop: step after step, batch after batch, and the position behind them.

mod batches;
mod early;
mod position_tracker;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use authzed::zedtoken::{self, Revision};
use authzed::{Client, DatastoreKind};
use spice_cli::byte_channel::{Held, Receiver};
use spice_cli::progress::Progress;
use spice_cli::{CommandError, Exit, Shutdown, lock};
use spice_client::datastore::expiry_precision;
use spice_client::server::Server;
use spice_record::digest::digest_text;
use spice_record::record::{Applied, Position, SpoolOffset};
use spice_record::relationship::StructJson;
use spice_record::{ExpiryPrecision, Header};
use tokio::time::{Duration, sleep, sleep_until};

use self::early::Early;
use self::position_tracker::PositionTracker;
use crate::ambiguous::AMBIGUITY_WINDOW;
use crate::batch::{self, Batch};
use crate::contended::Contended;
use crate::early::KeptFile;
use crate::input::Step;
use crate::report;
use crate::resume::PositionStore;
use crate::schema::{self, PendingSchema, SchemaPolicy};
use crate::write::Target;
use crate::{Apply, GRACE};

/// How the loop came to an end without an error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    Signal(i32),
}

/// Where `applied` records go.
pub(crate) type Report = Box<dyn FnMut(Applied) -> Result<(), CommandError>>;

pub(crate) struct Worker<S = Client> {
    pub(crate) target: Arc<Target<S>>,
    pub(crate) until: Option<Revision>,
    pub(crate) progress: Progress,
    pub(crate) report: Report,
    steps: Receiver<Step>,
    waiting: VecDeque<Held<Step>>,
    no_coalesce: bool,
    schema_policy: SchemaPolicy,
    /// A schema that the target does not take yet.
    pending_schema: Option<PendingSchema>,
    precision: ExpiryPrecision,
    prune: Option<PathBuf>,
    store: Option<Arc<PositionStore>>,
    tracker: PositionTracker,
    dropped_metadata: u64,
    /// The newest schema of the source, and its revision.
    newest_schema: Option<(String, String)>,
    /// A schema of the stream's header, to be written before anything else.
    first_schema: Option<(String, String)>,
    contended: Contended,
    early: Early,
    /// How long the last batch took.
    batch_time: Duration,
}

impl<S: Server> Worker<S> {
    pub(crate) fn new(
        args: &Apply,
        target: Target<S>,
        steps: Receiver<Step>,
        head: String,
        kind: DatastoreKind,
        progress: Progress,
    ) -> Self {
        Self {
            target: Arc::new(target),
            until: None,
            progress,
            report: Box::new(report::print),
            steps,
            waiting: VecDeque::new(),
            no_coalesce: args.no_coalesce,
            schema_policy: args.schema,
            pending_schema: None,
            precision: expiry_precision(kind),
            prune: args.prune.then(|| args.spool.clone()).flatten(),
            store: None,
            tracker: PositionTracker::new(head),
            dropped_metadata: 0,
            newest_schema: None,
            first_schema: None,
            contended: Contended::default(),
            batch_time: Duration::ZERO,
            early: Early::new(args.position.as_deref().map(KeptFile::beside)),
        }
    }

    /// Resumes from a saved position, or begins where the stream does. `replay_until`: what of the spool a
    /// process before this one may have applied already.
    pub(crate) fn resume_from(
        &mut self,
        store: Option<PositionStore>,
        saved: Option<Position>,
        header: Option<&Header>,
        replay_until: Option<SpoolOffset>,
    ) -> Result<(), CommandError> {
        self.store = store.map(Arc::new);
        if let Some(store) = &self.store {
            self.target.store_ambiguous_in(Arc::clone(store));
        }
        if let Some(saved) = &saved {
            tracing::info!("resuming after revision {}", saved.source_revision);
        }
        self.first_schema = self.tracker.resume_from(saved, header, replay_until);
        if let Some(position) = self.tracker.position() {
            self.early.resume_from(&position.source_revision);
        }
        // At once: an ambiguous write has to be noted beside a position.
        self.save()
    }

    /// What is to be saved even if this cannot come to its end after a signal: a call in flight may be
    /// applied late. Returns how the program ends then.
    pub(crate) fn on_forced_end(&self) -> impl FnOnce() -> Option<Exit> + Send + use<S> {
        let (store, rejects) = (self.store.clone(), self.target.rejects());
        move || {
            if let Some(store) = store {
                let _ = store.note_ambiguous(AMBIGUITY_WINDOW);
            }
            let rejected = rejects.is_some_and(|rejects| lock(&rejects).count() > 0);
            rejected.then_some(Exit::Partial)
        }
    }

    /// Works until the stream, `--until` or a signal ends it. What was acknowledged is saved in any case.
    pub(crate) async fn run(&mut self, shutdown: &Shutdown) -> Result<Ended, CommandError> {
        let ended = self.work(shutdown).await;
        if self.dropped_metadata > 0 {
            tracing::warn!(
                "{} transactions had metadata that left no room for ours: theirs was dropped",
                self.dropped_metadata
            );
        }
        let saved = self.save();
        let ended = ended?;
        saved.map(|()| ended)
    }

    async fn work(&mut self, shutdown: &Shutdown) -> Result<Ended, CommandError> {
        loop {
            self.receive_waiting();
            if let Some(number) = shutdown.signal() {
                self.keep_early();
                return Ok(Ended::Signal(number));
            }
            let mut is_timer = false;
            if self.waiting.is_empty() && self.first_schema.is_none() {
                let timer = self.next_timer();
                tokio::select! {
                    number = shutdown.requested() => {
                        self.keep_early();
                        return Ok(Ended::Signal(number));
                    }
                    step = self.steps.recv() => match step {
                        Some(step) => self.queue(step),
                        None => return Err(CommandError::new(Exit::Failed, "the reading thread ended")),
                    },
                    Some(step) = self.early.recv() => self.queue_early(step),
                    () = sleep_until(timer) => is_timer = true,
                }
            }
            // Of the live Watch not everything is written.
            if !is_timer && self.waiting.is_empty() && self.first_schema.is_none() {
                continue;
            }
            let work = async {
                if is_timer {
                    return self.run_timers().await.map(|()| false);
                }
                self.step(shutdown).await
            };
            let done = tokio::select! {
                done = work => done?,
                number = async {
                    let number = shutdown.in_a_hurry().await;
                    sleep(GRACE).await;
                    number
                } => return Ok(Ended::Signal(number)),
            };
            if done {
                return Ok(Ended::Done);
            }
        }
    }

    /// Takes what was read.
    fn receive_waiting(&mut self) {
        while let Ok(step) = self.steps.try_recv() {
            self.queue(step);
        }
        self.receive_early();
    }

    fn next_batch(&mut self) -> Result<Option<Batch>, CommandError> {
        self.note_early()?;
        let most = self.target.batch();
        let until = self.until.as_ref();
        let is_end = |revision: &str| until.is_some_and(|until| reaches(revision, until));
        Ok(batch::next(
            &mut self.waiting,
            most,
            self.no_coalesce,
            self.tracker.must_end_at_checkpoint(),
            &is_end,
        ))
    }

    /// Does what is at the front; `true` at the end.
    async fn step(&mut self, shutdown: &Shutdown) -> Result<bool, CommandError> {
        if let Some((text, revision)) = self.first_schema.take() {
            self.follow_schema(text, revision).await?;
            return Ok(false);
        }
        if let Some(batch) = self.next_batch()? {
            self.write_batches(batch, shutdown).await?;
            if self
                .pending_schema
                .as_ref()
                .is_some_and(PendingSchema::is_due)
            {
                self.retry_pending_schema().await?;
            }
            self.settle_ambiguous(false).await?;
            return Ok(false);
        }
        match self.waiting.pop_front().map(|step| step.message) {
            Some(Step::Checkpoint(revision, place)) => self.checkpoint(&revision, place).await,
            Some(Step::Schema(change, place)) => {
                self.follow_schema(change.text, change.revision.clone())
                    .await?;
                let is_pending = self.pending_schema.is_some();
                self.tracker
                    .schema_change(&change.revision, place, is_pending);
                Ok(false)
            }
            Some(Step::EarlyThrough(revision)) => self.report_early(revision).map(|()| false),
            Some(Step::End(revision)) => {
                self.tracker.stream_ended(self.pending_schema.is_some());
                let reached = revision.as_deref().is_some_and(|end| self.reaches(end));
                self.finish().await?;
                if self.until.is_some() && !reached {
                    return Err(CommandError::new(
                        Exit::TryAgain,
                        "the stream ended before --until",
                    )
                    .hint(
                        "run spice-watch again with --since-file POSITION, and the same command",
                    ));
                }
                Ok(true)
            }
            Some(Step::Cut(failure) | Step::Failed(failure)) => Err(failure),
            _ => Err(CommandError::new(
                Exit::Failed,
                "a stream has one header, at its beginning",
            )),
        }
    }

    async fn checkpoint(
        &mut self,
        revision: &str,
        place: SpoolOffset,
    ) -> Result<bool, CommandError> {
        let is_pending = self.pending_schema.is_some();
        let has_written = self.tracker.checkpoint(revision, place, is_pending);
        self.confirm_early()?;
        if self.reaches(revision) {
            self.finish().await?;
            return Ok(true);
        }
        let next = self.waiting.front().map(|step| &step.message);
        let is_followed = matches!(next, Some(Step::Transaction(..)));
        let is_due = !is_followed || self.tracker.is_sync_point_due();
        if has_written && is_due && !self.tracker.is_replay(place) {
            self.make_sync_point().await?;
        }
        self.save_if_due()?;
        Ok(false)
    }

    fn reaches(&self, revision: &str) -> bool {
        self.until
            .as_ref()
            .is_some_and(|until| reaches(revision, until))
    }

    /// Whether what collided on the source is compared with the target at the end.
    fn is_compared(&self) -> bool {
        self.tracker.only_checkpoints() && self.until.is_some()
    }

    /// Whether the target holds what was written, and nothing else can be applied.
    fn is_settled(&self) -> bool {
        self.pending_schema.is_none() && self.target.ambiguous().is_empty()
    }

    /// Brings the target to a schema, or keeps it pending.
    async fn follow_schema(&mut self, text: String, revision: String) -> Result<(), CommandError> {
        let digest = digest_text(&text);
        let (text, revision) = self.newest_schema.insert((text, revision));
        self.pending_schema = schema::bring(
            &self.target,
            self.schema_policy,
            text,
            revision.clone(),
            self.pending_schema.take(),
        )
        .await?;
        if self.pending_schema.is_none() {
            self.tracker.has_schema(digest);
        }
        Ok(())
    }

    async fn retry_pending_schema(&mut self) -> Result<(), CommandError> {
        if self.pending_schema.is_some() {
            self.bring_newest_schema().await?;
        }
        Ok(())
    }

    async fn bring_newest_schema(&mut self) -> Result<(), CommandError> {
        if let Some((text, revision)) = self.newest_schema.take() {
            self.follow_schema(text, revision).await?;
        }
        Ok(())
    }

    /// At the end: no schema is pending, nothing is ambiguous, and both ends can be compared.
    async fn finish(&mut self) -> Result<(), CommandError> {
        loop {
            self.retry_pending_schema().await?;
            if let Some(pending) = &self.pending_schema {
                return Err(pending.never_taken());
            }
            if self.target.ambiguous().is_empty() {
                break;
            }
            // That can show that a schema is not as it should be.
            self.settle_ambiguous(true).await?;
        }
        self.confirm_early()?;
        self.compare_contended().await?;
        if self.tracker.position().is_some() {
            self.make_sync_point().await?;
        }
        Ok(())
    }

    /// The metadata of a call.
    fn metadata(
        &mut self,
        revision: Option<&str>,
        own: Option<StructJson>,
    ) -> Option<authzed::JsonObject> {
        let (metadata, dropped) = report::metadata(self.tracker.source(), revision, own)?;
        self.dropped_metadata += u64::from(dropped);
        Some(metadata)
    }
}

/// Whether everything through `until` is included in `revision`.
fn reaches(revision: &str, until: &Revision) -> bool {
    zedtoken::decode(revision).is_ok_and(|there| there.revision.sees(until) == Some(true))
}
