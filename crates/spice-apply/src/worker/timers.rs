//! What is due beside the stream: ambiguous writes, sync points, the position.

use spice_cli::{CommandError, Exit};
use spice_client::server::Server;
use spice_record::record::Applied;
use spice_record::relationship::DisplayRelationship;
use spice_spool::Spool;
use tokio::time::{Duration, Instant, sleep_until};

use super::Worker;
use crate::ambiguous::{self, AMBIGUITY_WINDOW};
use crate::resume::{from_now, prune};
use crate::schema::PendingSchema;

impl<S: Server> Worker<S> {
    /// Reads what late writes may have changed; `all` waits until none can be applied any more.
    pub(super) async fn settle_ambiguous(&mut self, all: bool) -> Result<(), CommandError> {
        let settled_at = self.target.ambiguous().settled_at();
        if let Some(settled_at) = settled_at.filter(|_| all)
            && settled_at > Instant::now()
        {
            let seconds = (settled_at - Instant::now()).as_secs_f64();
            tracing::warn!(
                "a write was given up less than 30 s ago and may still be applied late: waiting {seconds:.0} s \
                 before reading its relationships"
            );
            sleep_until(settled_at).await;
        }
        let looked = Instant::now();
        self.settle_relationships(looked).await?;
        // After the relationships that could keep the target from taking it.
        if self.target.ambiguous().schema_is_due() {
            self.bring_newest_schema().await?;
            match self.pending_schema {
                Some(_) => self.target.ambiguous().note_schema(),
                None => self.target.ambiguous().settle_schema_until(looked),
            }
            self.tracker.note_unsaved();
        }
        Ok(())
    }

    async fn settle_relationships(&mut self, looked: Instant) -> Result<(), CommandError> {
        let due = self.target.ambiguous().due();
        if due.is_empty() {
            return Ok(());
        }
        let (server, retries) = (self.target.server(), self.target.max_retries());
        let again = ambiguous::applied_late(&server, &due, retries, self.precision).await?;
        if !again.is_empty() {
            let metadata = self.metadata(None, None);
            self.target
                .write(again, false, metadata.as_ref(), "late write")
                .await?;
        }
        // Only now: a repair that was dropped or failed must not be forgotten, nor what became ambiguous
        // by it.
        self.target.ambiguous().settle_until(&due, looked);
        self.tracker.note_unsaved();
        Ok(())
    }

    pub(super) fn next_timer(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let ambiguous = self.target.ambiguous().settled_at();
        let save = self.tracker.save_at().filter(|_| ambiguous.is_none());
        let sync_point = self.tracker.idle_sync_point_at();
        let schema = self
            .pending_schema
            .as_ref()
            .map(PendingSchema::due_when_idle);
        [save, sync_point, ambiguous, schema]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(far)
    }

    /// What is due while there is nothing to read.
    pub(super) async fn run_timers(&mut self) -> Result<(), CommandError> {
        self.save_if_due()?;
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
        let ambiguous = self.target.ambiguous().settled_at();
        if due(ambiguous) {
            self.settle_ambiguous(false).await?;
        }
        if due(self
            .pending_schema
            .as_ref()
            .map(PendingSchema::due_when_idle))
        {
            self.retry_pending_schema().await?;
        }
        if due(self.tracker.idle_sync_point_at()) {
            self.make_sync_point().await?;
        }
        Ok(())
    }

    /// Reports a record without updates, at whose revisions both ends can be compared.
    pub(super) async fn make_sync_point(&mut self) -> Result<(), CommandError> {
        let is_settled = self.is_settled();
        if !self.tracker.begin_sync_point(is_settled) {
            return Ok(());
        }
        let head = self.target.head().await?;
        let Some(revision) = self.tracker.sync_point_at(&head) else {
            return Ok(());
        };
        (self.report)(Applied {
            source_revision: Some(revision),
            target_revision: Some(head),
            sync_point: true,
            at: Some(jiff::Timestamp::now().to_string()),
            ..Applied::default()
        })
    }

    /// Before an end is announced: does the target hold the relationships that collided on the source as
    /// the stream has them?
    pub(super) async fn compare_contended(&mut self) -> Result<(), CommandError> {
        let states = self.contended.states();
        if states.is_empty() {
            return Ok(());
        }
        let (count, left_out) = (states.len(), self.contended.left_out);
        if left_out > 0 {
            tracing::warn!(
                "{left_out} contended relationships more are not compared with the target"
            );
        }
        let (server, retries) = (self.target.server(), self.target.max_retries());
        let mut wrong = ambiguous::differing(&server, &states, retries, self.precision).await?;
        if !wrong.is_empty() {
            tracing::warn!(
                "{} of {count} contended relationships differ on the target from what was applied: writing \
                 them again",
                wrong.len()
            );
            let metadata = self.metadata(None, None);
            self.target
                .write(
                    wrong.clone(),
                    false,
                    metadata.as_ref(),
                    "contended relationships",
                )
                .await?;
            wrong = ambiguous::differing(&server, &wrong, retries, self.precision).await?;
        }
        // What was refused is reported elsewhere.
        if self.target.rejected() > 0 {
            return Ok(());
        }
        if !wrong.is_empty() {
            let first = wrong
                .iter()
                .filter_map(|update| update.relationship.as_ref());
            let first: Vec<String> = first
                .take(5)
                .map(|one| DisplayRelationship(one).to_string())
                .collect();
            return Err(CommandError::new(
                Exit::Failed,
                format!(
                    "{} relationships that collided on the source differ on the target, although they were \
                     written again: {}",
                    wrong.len(),
                    first.join(", ")
                ),
            )
            .hint("another program writes to the target: find it, then run the same command again"));
        }
        tracing::info!("compared {count} contended relationships with the target: equal");
        Ok(())
    }

    pub(super) fn save_if_due(&mut self) -> Result<(), CommandError> {
        match self.tracker.save_at() {
            Some(at) if at <= Instant::now() => self.save(),
            _ => Ok(()),
        }
    }

    /// Saves the position, unless a write before it is ambiguous: that has to be replayed.
    pub(super) fn save(&mut self) -> Result<(), CommandError> {
        // Else it would be taken for one that was never confirmed.
        self.is_early_confirmed();
        let (Some(store), Some(position)) = (&self.store, self.tracker.position()) else {
            // Else it would be due at once, for ever.
            self.tracker.note_saved();
            return Ok(());
        };
        if !self.target.ambiguous().is_empty() {
            // A call that was in flight was dropped just now, later than the first of them.
            return match self.target.has_dropped() {
                true => store.note_ambiguous(AMBIGUITY_WINDOW),
                false => Ok(()),
            };
        }
        let dropped = self.target.has_dropped();
        if !self.tracker.is_unsaved() && !dropped {
            return Ok(());
        }
        // What was refused must survive a loss of power as well.
        self.target.sync_rejects()?;
        let mut position = position.clone();
        // A signal has dropped a call: its end is unknown.
        position.ambiguous_until = dropped.then(|| from_now(AMBIGUITY_WINDOW));
        let place = position.spool;
        store.save(position)?;
        self.tracker.note_saved();
        if let (Some(spool), Some(place)) = (&self.prune, place) {
            prune(&Spool::new(spool), place);
        }
        Ok(())
    }
}
