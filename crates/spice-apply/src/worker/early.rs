//! Writes what a live Watch delivers before it has settled, and leaves out of the settled stream what the target
//! has of it already.

use std::collections::VecDeque;

use authzed::v1::RelationshipUpdate;
use spice_cli::CommandError;
use spice_cli::byte_channel::{Held, Receiver};
use spice_client::server::Server;
use spice_record::digest::Digest;
use spice_record::record::Applied;
use spice_record::relationship::Update;

use super::Worker;
use crate::coalesce::Coalescer;
use crate::early::{self, EarlyChanges, EarlyStep, KeptFile};
use crate::input::Step;

/// So many updates are written together.
const TOGETHER: usize = 2_000;
/// With so many waiting no more are received.
const MOST_WAITING: usize = 4 * TOGETHER;

/// The early changes of a worker, and where they come from.
pub(super) struct Early {
    pub(super) changes: EarlyChanges,
    steps: Option<Receiver<EarlyStep>>,
    /// The schema of the source, as the live Watch has it.
    schema: Option<Digest>,
    /// Beside the position, if there is one.
    kept: Option<KeptFile>,
}

impl Early {
    /// Nothing was written early, and no live Watch is followed.
    pub(super) fn new(kept: Option<KeptFile>) -> Self {
        Self {
            changes: EarlyChanges::default(),
            steps: None,
            schema: None,
            kept,
        }
    }

    /// Continues where the process before this one has stopped, at a position.
    pub(super) fn resume_from(&mut self, position: &str) {
        if let Some(kept) = &self.kept {
            self.changes = kept.take(position);
        }
        self.changes.settled(position);
    }

    /// The next step of the live Watch; never, where none is followed.
    pub(super) async fn recv(&mut self) -> Option<Held<EarlyStep>> {
        match &mut self.steps {
            Some(steps) => steps.recv().await,
            None => std::future::pending().await,
        }
    }

    fn is_used(&self) -> bool {
        self.steps.is_some() || !self.changes.is_empty()
    }
}

impl<S: Server> Worker<S> {
    /// Follows a live Watch as well.
    pub(crate) fn follow_early(&mut self, steps: Receiver<EarlyStep>) {
        self.early.steps = Some(steps);
    }

    /// Takes a step of the settled stream, without the updates that were written early.
    pub(super) fn queue(&mut self, mut step: Held<Step>) {
        if self.early.is_used() {
            match &mut step.message {
                Step::Transaction(change, _) => {
                    let updates = std::mem::take(&mut change.updates);
                    let changes = &mut self.early.changes;
                    changes.settled(&change.revision);
                    let divided = changes.divide(&change.revision, change.contended, updates);
                    change.updates = divided.to_write;
                    // Beside a live Watch there is no end before which they would be compared.
                    if self.early.steps.is_none() && self.is_compared() {
                        let mut coalescer = Coalescer::default();
                        for update in divided.already_there {
                            coalescer.add(update.0, change.contended);
                        }
                        self.contended
                            .note(&coalescer.updates, &coalescer.contended);
                    }
                }
                Step::Checkpoint(revision, _) => self.early.changes.settled(revision),
                _ => {}
            }
        }
        self.waiting.push_back(step);
    }

    /// Takes what the live Watch has delivered, unless much of it waits.
    pub(super) fn receive_early(&mut self) {
        let mut waiting = updates_in(&self.waiting).count();
        while waiting < MOST_WAITING
            && let Some(steps) = &mut self.early.steps
            && let Ok(step) = steps.try_recv()
        {
            if let EarlyStep::Updates(_, updates) = &step.message {
                waiting += updates.len();
            }
            self.queue_early(step);
        }
    }

    /// Takes a step of the live Watch. Updates that follow each other are written together.
    pub(super) fn queue_early(&mut self, step: Held<EarlyStep>) {
        let mut updates = Vec::new();
        let step = step.map(|step| match step {
            EarlyStep::Schema(schema) => {
                self.early.schema = schema;
                if !self.has_early_schema() {
                    tracing::info!(
                        "early: the source has another schema than the target: until that has settled, nothing is \
                         written early"
                    );
                }
                None
            }
            // What it has may need a schema that comes in its place in the settled stream.
            EarlyStep::Updates(..) if !self.has_early_schema() => None,
            EarlyStep::Updates(revision, all) => {
                updates = self.early.changes.take(&revision, all);
                None
            }
            EarlyStep::Through(revision) => Some(revision),
        });
        if step.message.is_none() && updates.is_empty() {
            return;
        }
        let count = self.waiting.len();
        let back = self.waiting.back().map(|step| &step.message);
        let has_through = matches!(back, Some(Step::EarlyThrough(_)));
        if step.message.is_some() {
            // It reaches further.
            if has_through {
                self.waiting.pop_back();
            }
        } else {
            let last = count.checked_sub(1 + usize::from(has_through));
            let before = last.and_then(|last| self.waiting.get_mut(last));
            if let Some(Step::Updates(before)) = before.map(|step| &mut step.message)
                && before.len() + updates.len() <= TOGETHER
            {
                before.append(&mut updates);
                self.waiting.truncate(count - usize::from(has_through));
                return;
            }
        }
        self.waiting.push_back(step.map(|through| match through {
            Some(revision) => Step::EarlyThrough(revision),
            None => Step::Updates(updates),
        }));
    }

    /// Whether the target has the schema that the source has.
    fn has_early_schema(&self) -> bool {
        let position = self.tracker.position();
        self.pending_schema.is_none()
            && position.is_some_and(|position| position.schema == self.early.schema)
    }

    /// An early batch was written, but for what was refused: the settled stream has that.
    ///
    /// What was left out for a refused one is written after all. Its transaction still waits behind this batch, unless
    /// another early update of the same relationship was written before it.
    pub(super) fn acknowledge_early(&mut self, updates: &[RelationshipUpdate]) {
        let refused = self.target.take_refused_early();
        for left_out in self.early.changes.forget(&refused) {
            let revision = left_out.revision.as_str();
            let changes = self.waiting.iter_mut().rev();
            let mut changes = changes.filter_map(|step| match &mut step.message {
                Step::Transaction(change, _) => Some(change),
                _ => None,
            });
            if let Some(change) = changes.find(|change| change.revision == revision) {
                change.updates.push(Update(left_out.update));
            }
        }
        let waiting = updates_in(&self.waiting);
        self.early.changes.acknowledged(updates, waiting);
    }

    /// Before anything is written early: a process that resumes must know that the target is ahead.
    pub(super) fn note_early(&mut self) -> Result<(), CommandError> {
        let front = self.waiting.front().map(|step| &step.message);
        let Some(newest) = self.early.changes.newest() else {
            return Ok(());
        };
        if !matches!(front, Some(Step::Updates(_))) || !self.tracker.note_early(newest) {
            return Ok(());
        }
        match &self.store {
            Some(store) => store.note_early(newest),
            None => Ok(()),
        }
    }

    /// Everything that the live Watch has delivered through a revision is on the target, but for what was refused,
    /// and what the settled stream has to bring: too many at a time, or of another schema.
    pub(super) fn report_early(&mut self, revision: String) -> Result<(), CommandError> {
        (self.report)(Applied {
            early_revision: Some(revision),
            at: Some(jiff::Timestamp::now().to_string()),
            ..Applied::default()
        })
    }

    /// Once the position has passed what was written early, all of it has to have come in the settled stream.
    pub(super) fn confirm_early(&mut self) -> Result<(), CommandError> {
        match self.is_early_confirmed() {
            Some(false) => Err(early::never_settled()),
            Some(true) | None => Ok(()),
        }
    }

    /// Notes that the target is no longer ahead, where the position has passed what was written early; `false` where
    /// something of that never came.
    pub(super) fn is_early_confirmed(&mut self) -> Option<bool> {
        let position = self.tracker.passed_early()?;
        let is_confirmed = self.early.changes.is_confirmed_through(position);
        if is_confirmed {
            self.tracker.clear_early();
        }
        Some(is_confirmed)
    }

    /// Keeps what is unconfirmed for the process that resumes. Nothing is in flight.
    pub(super) fn keep_early(&mut self) {
        let (Some(kept), Some(position)) = (&self.early.kept, self.tracker.position()) else {
            return;
        };
        if !self.target.ambiguous().is_empty() || self.target.has_dropped() {
            return;
        }
        kept.save(&position.source_revision, &self.early.changes);
    }
}

/// The updates without a place in the settled stream: the early ones.
fn updates_in(waiting: &VecDeque<Held<Step>>) -> impl Iterator<Item = &RelationshipUpdate> {
    waiting.iter().flat_map(|step| match &step.message {
        Step::Updates(updates) => updates.as_slice(),
        _ => &[],
    })
}
