//! Sync points: a revision of the source and one of the target at which both ends are equal.

use tokio::time::{Duration, Instant};

use super::{Acknowledged, PositionTracker};

/// After a batch of several calls only reading the head gives a revision that holds all of them.
pub(in crate::worker) const SYNC_POINT_EVERY: Duration = Duration::from_secs(2);
/// There is to be one every ten seconds. Where it costs most it is made as late as this allows: a backlog is
/// interrupted until nothing is in flight, for checkpoints alone the head is read.
const SYNC_POINT_WITHIN: Duration = Duration::from_secs(8);
/// Of a source whose transactions are complete only at a checkpoint, batches end at one from then on.
const END_AT_CHECKPOINT_AFTER: Duration = Duration::from_secs(5);

/// How a batch becomes a sync point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum SyncPoint {
    /// Not at all.
    No,
    /// Its only call returned a revision that holds everything.
    OfCall,
    /// The head has to be read.
    OfHead,
}

impl PositionTracker {
    /// Whether a batch becomes a sync point. `is_settled`: nothing else can be applied before it.
    pub(in crate::worker) fn sync_point_of(
        &self,
        batch: &Acknowledged,
        is_settled: bool,
    ) -> SyncPoint {
        let is_safe = batch.ends_at_checkpoint || !self.only_checkpoints;
        let is_new = batch
            .revision
            .as_ref()
            .is_some_and(|(_, place)| !self.is_replay(*place));
        if !(batch.completes && is_safe && is_settled && is_new) || self.is_ahead() {
            SyncPoint::No
        } else if batch.is_only_call && !batch.is_part {
            // One call alone: its revision holds it, and everything that ended before it began.
            SyncPoint::OfCall
        } else if self.is_sync_point_due() {
            SyncPoint::OfHead
        } else {
            SyncPoint::No
        }
    }

    /// Whether a sync point by reading the head is due again.
    pub(in crate::worker) fn is_sync_point_due(&self) -> bool {
        self.synced_at.elapsed() >= SYNC_POINT_EVERY
    }

    /// Whether it would come too late behind one batch more. `running`: how long the current one has taken; `last`:
    /// how long the one before it took in all.
    pub(in crate::worker) fn is_sync_point_overdue(
        &self,
        running: Duration,
        last: Duration,
    ) -> bool {
        let rest = last.saturating_sub(running);
        self.synced_at.elapsed() + rest + last.max(running) >= SYNC_POINT_WITHIN
    }

    /// Whether the next batch has to end at a checkpoint, to be a sync point.
    pub(in crate::worker) fn must_end_at_checkpoint(&self) -> bool {
        self.only_checkpoints && self.synced_at.elapsed() >= END_AT_CHECKPOINT_AFTER
    }

    /// When a sync point is due while there is nothing to read.
    pub(in crate::worker) fn idle_sync_point_at(&self) -> Option<Instant> {
        self.has_advanced
            .then(|| self.synced_at + SYNC_POINT_WITHIN)
    }

    /// A batch is a sync point.
    pub(in crate::worker) fn note_sync_point(&mut self) {
        self.synced_at = Instant::now();
        self.has_advanced = false;
    }

    /// Whether the position may become a sync point now; the next attempt is due after the usual time
    /// in any case.
    pub(in crate::worker) fn begin_sync_point(&mut self, is_settled: bool) -> bool {
        self.synced_at = Instant::now();
        // All that there is was read, so this is no replay any more.
        let may = is_settled && self.since_checkpoint.is_none() && !self.is_ahead();
        self.has_advanced &= !may;
        may
    }

    /// The target's head, read now, holds everything through the position; returns the latter.
    pub(in crate::worker) fn sync_point_at(&mut self, head: &str) -> Option<String> {
        let position = self.position.as_mut()?;
        position.target_revision = Some(head.to_owned());
        position.sync_point = true;
        let revision = position.source_revision.clone();
        self.note_unsaved();
        Some(revision)
    }
}
