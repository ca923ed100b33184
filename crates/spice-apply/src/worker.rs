//! The loop: step after step, batch after batch, and the position behind them.

mod timers;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use authzed::DatastoreKind;
use authzed::zedtoken::{self, Revision};
use spice_cli::byte_channel::{Held, Receiver};
use spice_cli::progress::Progress;
use spice_cli::{CommandError, Exit, Shutdown, lock};
use spice_client::datastore::expiry_precision;
use spice_client::same_datastore::datastore_id;
use spice_record::digest::digest_text;
use spice_record::record::{Applied, Position, SpoolOffset, StreamKind};
use spice_record::relationship::StructJson;
use spice_record::{ExpiryPrecision, Header};
use tokio::time::{Duration, Instant, sleep, sleep_until};

use crate::ambiguous::AMBIGUITY_WINDOW;
use crate::batch::{self, Batch};
use crate::contended::Contended;
use crate::input::Step;
use crate::position::PositionStore;
use crate::report;
use crate::schema::{self, SchemaPolicy};
use crate::write::{Target, Written};
use crate::{Apply, GRACE};

/// After a batch of several calls only a look at the head gives a revision that holds all of them.
const PAIR_EVERY: Duration = Duration::from_secs(2);

/// How the work came to an end without an error.
pub(crate) enum Ended {
    Done,
    Signal(i32),
}

pub(crate) struct Worker {
    pub(crate) target: Target,
    pub(crate) until: Option<Revision>,
    pub(crate) max_retries: usize,
    pub(crate) progress: Progress,
    steps: Receiver<Step>,
    waiting: VecDeque<Held<Step>>,
    no_coalesce: bool,
    schema_policy: SchemaPolicy,
    held: Option<schema::PendingSchema>,
    precision: ExpiryPrecision,
    prune: Option<PathBuf>,
    store: Option<Arc<PositionStore>>,
    /// Where everything is on the target; none for a stream without revisions.
    position: Option<Position>,
    /// What of it is not saved yet, since when.
    unsaved: Option<Instant>,
    paired: Instant,
    /// Whether the position has moved since the last pair.
    moved: bool,
    dropped_metadata: u64,
    /// What was written through while a schema is held.
    passed: Option<(String, SpoolOffset)>,
    /// What of the spool a process before this one may have applied already.
    pub(crate) replay_until: Option<SpoolOffset>,
    /// The newest schema of the source, and its revision.
    newest_schema: Option<(String, String)>,
    /// A schema that stands in the stream's header, to be brought before anything else.
    first_schema: Option<(String, String)>,
    /// Only a checkpoint is a place to go on from: the source's revisions are not in the order of their
    /// effects, and what corrects that stands between a revision and the checkpoint behind it.
    only_checkpoints: bool,
    /// What was written since the last of them.
    since_checkpoint: Option<(String, SpoolOffset)>,
    contended: Contended,
}

impl Worker {
    pub(crate) fn new(
        args: &Apply,
        target: Target,
        steps: Receiver<Step>,
        head: String,
        kind: DatastoreKind,
        progress: Progress,
    ) -> Self {
        Self {
            target,
            until: None,
            max_retries: 0,
            progress,
            steps,
            waiting: VecDeque::new(),
            no_coalesce: args.no_coalesce,
            schema_policy: args.schema,
            held: None,
            precision: expiry_precision(kind),
            prune: args.prune.then(|| args.spool.clone()).flatten(),
            store: None,
            position: Some(Position {
                target: datastore_id(&head),
                target_revision: Some(head),
                ..Position::default()
            }),
            unsaved: None,
            paired: Instant::now(),
            moved: false,
            dropped_metadata: 0,
            passed: None,
            replay_until: None,
            newest_schema: None,
            first_schema: None,
            only_checkpoints: false,
            since_checkpoint: None,
            contended: Contended::default(),
        }
    }

    /// Takes over a saved position, or stands where the stream begins.
    pub(crate) fn resume_from(
        &mut self,
        store: Option<PositionStore>,
        saved: Option<Position>,
        header: Option<&Header>,
    ) -> Result<(), CommandError> {
        self.store = store.map(Arc::new);
        if let Some(store) = &self.store {
            self.target.store_ambiguous_in(Arc::clone(store));
        }
        // Only changes have revisions to stand at: a snapshot that is touched over what is there says
        // nothing about the rest.
        let header = header.filter(|header| header.stream == StreamKind::Changes);
        let start = header.and_then(|header| header.revision.clone());
        let (Some(start), Some(header)) = (start, header) else {
            self.position = None;
            return Ok(());
        };
        self.only_checkpoints = DatastoreKind::of_token(&start).needs_contended_reads();
        let digest = header.schema.as_deref().map(digest_text);
        let fresh = self.position.take().unwrap_or_default();
        let Some(saved) = saved else {
            self.position = Some(Position {
                source: datastore_id(&start),
                filter: header.filter.clone(),
                start: Some(start.clone()),
                source_revision: start.clone(),
                ..fresh
            });
            self.unsaved = Some(Instant::now());
            // At once: a write in doubt has to be noted beside a position.
            self.save()?;
            // It may have changed between the copy and the beginning of the stream: the stream tells
            // only of later changes.
            self.first_schema = header.schema.clone().map(|text| (text, start));
            return Ok(());
        };
        // What changed between the end of the last stream and the beginning of this one stands only in
        // its header. In the middle of a spool the header is older than what was applied.
        let begins = saved.spool.is_none() || saved.source_revision == start;
        let changed = begins && saved.schema != digest;
        let revision = saved.source_revision.clone();
        tracing::info!("going on after revision {revision}");
        self.position = Some(saved);
        let schema = header.schema.clone().filter(|_| changed);
        self.first_schema = schema.map(|text| (text, revision));
        Ok(())
    }

    /// What is to be noted even if this cannot come to its end after a signal: a call under way may be
    /// applied late. Says how the program ends then.
    pub(crate) fn last_words(&self) -> impl FnOnce() -> Option<Exit> + Send + use<> {
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
            while let Ok(step) = self.steps.try_recv() {
                self.waiting.push_back(step);
            }
            if let Some(number) = shutdown.signal() {
                return Ok(Ended::Signal(number));
            }
            let mut is_timer = false;
            if self.waiting.is_empty() && self.first_schema.is_none() {
                let timer = self.next_timer();
                tokio::select! {
                    number = shutdown.requested() => return Ok(Ended::Signal(number)),
                    step = self.steps.recv() => match step {
                        Some(step) => self.waiting.push_back(step),
                        None => return Err(CommandError::new(Exit::Failed, "the reading thread ended")),
                    },
                    () = sleep_until(timer) => is_timer = true,
                }
            }
            let work = async {
                if is_timer {
                    return self.run_timers().await.map(|()| false);
                }
                self.step().await
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

    /// Does what stands at the front; `true` at the end.
    async fn step(&mut self) -> Result<bool, CommandError> {
        if let Some((text, revision)) = self.first_schema.take() {
            self.schema(text, revision).await?;
            return Ok(false);
        }
        let most = self.target.width();
        let until = self.until.as_ref();
        let is_end = |revision: &str| until.is_some_and(|until| reaches(revision, until));
        if let Some(batch) = batch::next(&mut self.waiting, most, self.no_coalesce, &is_end) {
            self.write(batch).await?;
            if self
                .held
                .as_ref()
                .is_some_and(schema::PendingSchema::is_due)
            {
                self.offer_again().await?;
            }
            self.save_if_due()?;
            self.settle_ambiguous(false).await?;
            return Ok(false);
        }
        match self.waiting.pop_front().map(|step| step.message) {
            Some(Step::Checkpoint(revision, place)) => {
                let reached = self.reaches(&revision);
                let has_written = self.since_checkpoint.take().is_some();
                self.moves(&revision, place);
                if reached {
                    self.finish().await?;
                    return Ok(true);
                }
                let goes_on = self.waiting.front().map(|step| &step.message);
                let goes_on = matches!(goes_on, Some(Step::Transaction(..)));
                let is_due = !goes_on || self.paired.elapsed() >= PAIR_EVERY;
                if has_written && is_due && !self.is_replay(place) {
                    self.pair().await?;
                }
                self.save_if_due()?;
                Ok(false)
            }
            Some(Step::Schema(change, place)) => {
                self.schema(change.text, change.revision.clone()).await?;
                if self.since_checkpoint.is_none() {
                    self.moves(&change.revision, place);
                }
                Ok(false)
            }
            Some(Step::End(revision)) => {
                // A stream ends where one can go on, as it does at a checkpoint.
                if let Some((revision, place)) = self.since_checkpoint.take() {
                    self.moves(&revision, place);
                }
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

    fn reaches(&self, revision: &str) -> bool {
        self.until
            .as_ref()
            .is_some_and(|until| reaches(revision, until))
    }

    async fn write(&mut self, batch: Batch) -> Result<(), CommandError> {
        let Batch {
            updates,
            revision,
            transactions,
            whole,
            part,
            metadata,
            checkpoint,
            ends_at_checkpoint,
            contended,
        } = batch;
        let count = updates.len() as u64;
        let token = revision.as_ref().map(|(token, _)| token.as_str());
        let of = token.map_or_else(|| "update".to_owned(), |token| format!("revision {token}"));
        let mark = self.mark(token, metadata);
        let one_revision = transactions == 1 && !part;
        let compared = (self.only_checkpoints && self.until.is_some()).then(|| updates.clone());
        let written = self
            .target
            .write(updates, one_revision, mark.as_ref(), &of)
            .await;
        let Written {
            calls, token: last, ..
        } = written.map_err(|failure| match &self.held {
            Some(held) => failure.context(held.text_of_wait()),
            None => failure,
        })?;
        self.progress.add(count);
        if let Some(updates) = compared {
            self.contended.note(&updates, &contended);
        }
        let mut applied = Applied {
            transactions,
            updates: count,
            calls,
            split: part || (transactions == 1 && calls > 1),
            coalesced: transactions > calls.max(1),
            lag: token.and_then(report::lag),
            at: Some(jiff::Timestamp::now().to_string()),
            // One of several calls at the same time does not hold the others.
            target_revision: last.filter(|_| calls == 1),
            ..Applied::default()
        };
        // One call alone: its revision holds it, and everything that ended before it began. A write in
        // doubt may come between.
        let is_safe = ends_at_checkpoint || !self.only_checkpoints;
        let comparable = whole
            && is_safe
            && self.is_settled()
            && revision
                .as_ref()
                .is_some_and(|(_, place)| !self.is_replay(*place));
        applied.sync_point = comparable && calls == 1 && !part;
        if comparable && !applied.sync_point && self.paired.elapsed() >= PAIR_EVERY {
            applied.target_revision = Some(self.target.head().await?);
            applied.sync_point = true;
        }
        if let Some((token, place)) = revision
            && whole
        {
            if let Some(position) = &mut self.position
                && applied.target_revision.is_some()
            {
                position
                    .target_revision
                    .clone_from(&applied.target_revision);
            }
            if self.only_checkpoints {
                self.since_checkpoint = (!ends_at_checkpoint).then_some((token, place));
                if let Some((revision, place)) = checkpoint {
                    self.moves(&revision, place);
                    applied.source_revision = Some(revision).filter(|_| ends_at_checkpoint);
                }
            } else {
                self.moves(&token, place);
                applied.source_revision = Some(token);
            }
        }
        if applied.sync_point {
            self.paired = Instant::now();
            self.moved = false;
        }
        report::print(applied)
    }

    /// Whether the target holds what was written, and nothing else can come.
    fn is_settled(&self) -> bool {
        self.held.is_none() && self.target.ambiguous().is_empty()
    }

    /// Whether the target may hold more than everything through a place already.
    fn is_replay(&self, place: SpoolOffset) -> bool {
        self.replay_until.is_some_and(|until| place < until)
    }

    /// Everything through a revision is on the target, unless a schema is still missing there.
    fn moves(&mut self, revision: &str, place: SpoolOffset) {
        if self.held.is_some() {
            self.passed = Some((revision.to_owned(), place));
            return;
        }
        if let Some(position) = &mut self.position {
            revision.clone_into(&mut position.source_revision);
            position.spool = (place.offset > 0).then_some(place);
            position.sync_point = false;
            self.moved = true;
            self.unsaved.get_or_insert_with(Instant::now);
        }
    }

    async fn schema(&mut self, text: String, revision: String) -> Result<(), CommandError> {
        let digest = digest_text(&text);
        let (text, revision) = self.newest_schema.insert((text, revision));
        self.held = schema::bring(
            &self.target,
            self.schema_policy,
            text,
            revision.clone(),
            self.held.take(),
            self.max_retries,
        )
        .await?;
        if let (Some(position), None) = (&mut self.position, &self.held) {
            position.schema = Some(digest);
            self.unsaved.get_or_insert_with(Instant::now);
        }
        // What was written while it was held is now all that there is to say.
        if self.held.is_none()
            && let Some((revision, place)) = self.passed.take()
        {
            self.moves(&revision, place);
        }
        Ok(())
    }

    async fn offer_again(&mut self) -> Result<(), CommandError> {
        if self.held.is_some() {
            self.bring_newest_schema().await?;
        }
        Ok(())
    }

    async fn bring_newest_schema(&mut self) -> Result<(), CommandError> {
        if let Some((text, revision)) = self.newest_schema.take() {
            self.schema(text, revision).await?;
        }
        Ok(())
    }

    /// At the end: nothing is held back, nothing in doubt, and both ends can be compared.
    async fn finish(&mut self) -> Result<(), CommandError> {
        loop {
            self.offer_again().await?;
            if let Some(held) = &self.held {
                return Err(held.unmended());
            }
            if self.target.ambiguous().is_empty() {
                break;
            }
            // That can show that a schema is not as it should be.
            self.settle_ambiguous(true).await?;
        }
        self.compare_contended().await?;
        if self.position.is_some() {
            self.pair().await?;
        }
        Ok(())
    }

    /// The metadata of a call.
    fn mark(
        &mut self,
        revision: Option<&str>,
        own: Option<StructJson>,
    ) -> Option<authzed::JsonObject> {
        let source = self.position.as_ref();
        let source = source.and_then(|position| position.source.as_deref());
        let (mark, dropped) = report::metadata(source, revision, own)?;
        self.dropped_metadata += u64::from(dropped);
        Some(mark)
    }
}

/// Whether everything through `until` has been said when `revision` has.
fn reaches(revision: &str, until: &Revision) -> bool {
    zedtoken::decode(revision).is_ok_and(|there| there.revision.sees(until) == Some(true))
}
