//! What is due beside the stream: writes in doubt, pairs, the position.

use spice_cli::{CommandError, Exit};
use spice_record::record::Applied;
use spice_record::relationship::DisplayRelationship;
use spice_spool::Spool;
use tokio::time::{Duration, Instant, sleep_until};

use super::Worker;
use crate::ambiguous::{self, AMBIGUITY_WINDOW};
use crate::position::{from_now, prune};
use crate::report;
use crate::schema;

/// The position is saved at most this late.
const SAVE_EVERY: Duration = Duration::from_millis(100);
/// Checkpoints alone are told this often; at least every ten seconds there must be a pair.
const IDLE_PAIR_EVERY: Duration = Duration::from_secs(8);

impl Worker {
    /// Looks at what late writes may have spoilt; `all` waits until none can come any more.
    pub(super) async fn settle_ambiguous(&mut self, all: bool) -> Result<(), CommandError> {
        let settled_at = self.target.ambiguous().settled_at();
        if let Some(settled_at) = settled_at.filter(|_| all)
            && settled_at > Instant::now()
        {
            let seconds = (settled_at - Instant::now()).as_secs_f64();
            tracing::warn!(
                "a write was given up less than 30 s ago and may still be applied late: waiting {seconds:.0} s \
                 before looking at it"
            );
            sleep_until(settled_at).await;
        }
        let looked = Instant::now();
        self.settle_relationships(looked).await?;
        // After the relationships that could stand against it.
        if self.target.ambiguous().schema_is_due() {
            self.bring_newest_schema().await?;
            match self.held {
                Some(_) => self.target.ambiguous().note_schema(),
                None => self.target.ambiguous().settle_schema_until(looked),
            }
            self.unsaved.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    async fn settle_relationships(&mut self, looked: Instant) -> Result<(), CommandError> {
        let due = self.target.ambiguous().due();
        if due.is_empty() {
            return Ok(());
        }
        let client = self.target.client();
        let again = ambiguous::wrong(&client, &due, self.max_retries, self.precision).await?;
        if !again.is_empty() {
            let mark = self.mark(None, None);
            self.target
                .write(again, false, mark.as_ref(), "late write")
                .await?;
        }
        // Only now: a repair that was dropped or failed must not be forgotten; and not what is in doubt
        // again by that.
        self.target.ambiguous().settle_until(&due, looked);
        self.unsaved.get_or_insert_with(Instant::now);
        Ok(())
    }

    pub(super) fn next_timer(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let save = self.unsaved.map(|since| since + SAVE_EVERY);
        let pair = self.moved.then(|| self.paired + IDLE_PAIR_EVERY);
        let doubts = self.target.ambiguous().settled_at();
        let save = save.filter(|_| doubts.is_none());
        let held = self.held.as_ref().map(schema::PendingSchema::due_when_idle);
        [save, pair, doubts, held]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(far)
    }

    /// What is due while there is nothing to read.
    pub(super) async fn run_timers(&mut self) -> Result<(), CommandError> {
        self.save_if_due()?;
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
        let doubts = self.target.ambiguous().settled_at();
        if due(doubts) {
            self.settle_ambiguous(false).await?;
        }
        if due(self.held.as_ref().map(schema::PendingSchema::due_when_idle)) {
            self.offer_again().await?;
        }
        if self.moved && due(Some(self.paired + IDLE_PAIR_EVERY)) {
            self.pair().await?;
        }
        Ok(())
    }

    /// Prints a record without updates, so that both ends can be compared.
    pub(super) async fn pair(&mut self) -> Result<(), CommandError> {
        self.paired = Instant::now();
        // All that there is was read, so this is no replay any more.
        if !self.is_settled() || self.since_checkpoint.is_some() {
            return Ok(());
        }
        self.moved = false;
        let head = self.target.head().await?;
        let Some(position) = &mut self.position else {
            return Ok(());
        };
        position.target_revision = Some(head.clone());
        position.sync_point = true;
        self.unsaved.get_or_insert_with(Instant::now);
        report::print(Applied {
            source_revision: Some(position.source_revision.clone()),
            target_revision: Some(head),
            sync_point: true,
            at: Some(jiff::Timestamp::now().to_string()),
            ..Applied::default()
        })
    }

    /// Before an end is announced: does the target hold what the stream says of relationships that
    /// collided on the source?
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
        let client = self.target.client();
        let mut wrong =
            ambiguous::differing(&client, &states, self.max_retries, self.precision).await?;
        if !wrong.is_empty() {
            tracing::warn!(
                "the target holds {} of {count} contended relationships otherwise than they were applied: \
                 writing them again",
                wrong.len()
            );
            let mark = self.mark(None, None);
            self.target
                .write(
                    wrong.clone(),
                    false,
                    mark.as_ref(),
                    "contended relationships",
                )
                .await?;
            wrong = ambiguous::differing(&client, &wrong, self.max_retries, self.precision).await?;
        }
        // What was refused is told elsewhere.
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
                    "{} relationships that collided on the source are otherwise on the target, though they \
                     were written again: {}",
                    wrong.len(),
                    first.join(", ")
                ),
            )
            .hint("somebody else writes to the target: find out who, then run the same command again"));
        }
        tracing::info!("compared {count} contended relationships with the target: equal");
        Ok(())
    }

    pub(super) fn save_if_due(&mut self) -> Result<(), CommandError> {
        match self.unsaved {
            Some(since) if since.elapsed() >= SAVE_EVERY => self.save(),
            _ => Ok(()),
        }
    }

    /// Saves the position, unless a write before it is in doubt: that has to be replayed.
    pub(super) fn save(&mut self) -> Result<(), CommandError> {
        let (Some(store), Some(position)) = (&self.store, &self.position) else {
            return Ok(());
        };
        if !self.target.ambiguous().is_empty() {
            // A call that was under way was dropped just now, later than the first of them.
            return match self.target.has_dropped() {
                true => store.note_ambiguous(AMBIGUITY_WINDOW),
                false => Ok(()),
            };
        }
        let dropped = self.target.has_dropped();
        if self.unsaved.is_none() && !dropped {
            return Ok(());
        }
        // What was refused must not be lost with the power either.
        self.target.finish()?;
        let mut position = position.clone();
        // A signal has dropped a call: its end is not known.
        position.ambiguous_until = dropped.then(|| from_now(AMBIGUITY_WINDOW));
        let place = position.spool;
        store.save(position)?;
        self.unsaved = None;
        if let (Some(spool), Some(place)) = (&self.prune, place) {
            prune(&Spool::new(spool), place);
        }
        Ok(())
    }
}
