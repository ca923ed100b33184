//! Writes batch after batch: under backlog the next one begins beside the last calls of the one before it.
//!
//! What needs the target for itself (a sync point, an ambiguous write that is read again, a schema) waits
//! until nothing is in flight, and while it waits no other batch begins.

use std::collections::HashSet;
use std::sync::Arc;

use authzed::v1::RelationshipUpdate;
use futures::stream::{FuturesOrdered, StreamExt as _};
use spice_cli::{CommandError, Shutdown};
use spice_client::server::Server;
use spice_client::write_engine::{Outcome, Turn};
use spice_record::record::Applied;
use tokio::time::Instant;

use super::Worker;
use super::position_tracker::{Acknowledged, SyncPoint};
use crate::batch::{Batch, has_backlog};
use crate::coalesce::Indices;
use crate::report;
use crate::write::Origin;

/// What is known of a batch while it is written.
struct InFlight {
    updates: u64,
    transactions: u64,
    /// What is compared with the target at the end, and which of it collided on the source.
    compared: Option<(Vec<RelationshipUpdate>, HashSet<u128>)>,
    /// What of it was written early.
    early: Option<Vec<RelationshipUpdate>>,
    began: Instant,
    /// Nothing else was in flight as its first call began.
    began_alone: bool,
    acknowledged: Acknowledged,
}

/// A batch, and what became of it.
type Written = (InFlight, Result<Outcome<RelationshipUpdate>, CommandError>);

impl<S: Server> Worker<S> {
    /// Writes a batch, and in a backlog those behind it. All that was begun has ended when this returns.
    pub(super) async fn write_batches(
        &mut self,
        first: Batch,
        shutdown: &Shutdown,
    ) -> Result<(), CommandError> {
        let mut writes = FuturesOrdered::new();
        let mut turn = Turn::default();
        let mut result = Ok(());
        // What the last batch holds, where it ends, and when it began.
        let (mut indices, mut end) = (Indices::new(), Acknowledged::default());
        let mut began = Instant::now();
        let mut batch = Some(first);
        loop {
            if let Some(mut batch) = batch.take() {
                let first = batch.hold_back(&indices);
                (indices, end) = (std::mem::take(&mut batch.indices), end_of(&batch));
                began = Instant::now();
                let next = turn.next();
                let turn = std::mem::replace(&mut turn, next);
                let is_first = writes.is_empty();
                writes.push_back(self.begin(batch, end.clone(), first, turn, is_first));
            }
            let may_overlap = result.is_ok() && writes.len() < 2 && !indices.is_empty();
            tokio::select! {
                biased;
                Some(written) = writes.next() => if result.is_ok() {
                    result = self.acknowledge(written, writes.is_empty()).await;
                    if result.is_err() {
                        turn.fail();
                    }
                },
                has_come = turn.has_come(), if may_overlap => {
                    if has_come.is_ok() && shutdown.signal().is_none() && self.may_overlap(&end, began) {
                        match self.next_batch() {
                            Ok(next) => batch = next,
                            Err(failure) => result = Err(failure),
                        }
                    }
                    if batch.is_none() {
                        indices.clear();
                    }
                }
                else => return result,
            }
        }
    }

    /// Whether a batch may begin beside the one that began then and ends there, and is worth it: a call is full.
    fn may_overlap(&mut self, end: &Acknowledged, began: Instant) -> bool {
        self.receive_waiting();
        let size = self.target.setting().size;
        let is_sync_point_due = self
            .tracker
            .is_sync_point_overdue(began.elapsed(), self.batch_time)
            && self.tracker.sync_point_of(end, true) == SyncPoint::OfHead;
        self.is_settled()
            && !is_sync_point_due
            && !self.target.may_skip_touches()
            && has_backlog(&self.waiting, size)
    }

    /// The calls of a batch, after which so much is acknowledged; `first`: how many of its updates need not wait for
    /// the batch before it.
    fn begin(
        &mut self,
        batch: Batch,
        acknowledged: Acknowledged,
        first: usize,
        turn: Turn,
        is_first: bool,
    ) -> impl Future<Output = Written> + use<S> {
        let Batch {
            updates,
            transactions,
            metadata,
            contended,
            ..
        } = batch;
        let token = acknowledged
            .revision
            .as_ref()
            .map(|(token, _)| token.as_str());
        let what = token.map_or_else(|| "update".to_owned(), |token| format!("revision {token}"));
        let metadata = self.metadata(token, metadata);
        // Of a revision that was written early nothing may be left.
        let one_revision = transactions == 1 && !acknowledged.is_part && !updates.is_empty();
        let is_compared = self.is_compared();
        let is_early = token.is_none() && self.tracker.position().is_some();
        let in_flight = InFlight {
            updates: updates.len() as u64,
            transactions,
            early: is_early.then(|| updates.clone()),
            compared: is_compared.then(|| (updates.clone(), contended)),
            began: Instant::now(),
            // One revision waits until it is alone.
            began_alone: is_first || one_revision,
            acknowledged,
        };
        let target = Arc::clone(&self.target);
        async move {
            let origin = Origin {
                metadata: metadata.as_ref(),
                what: &what,
                is_early,
            };
            let written = target.write_in_turn(updates, first, one_revision, origin, turn);
            let written = written.await;
            (in_flight, written)
        }
    }

    /// A batch has ended; `is_alone`: nothing else is in flight.
    async fn acknowledge(
        &mut self,
        (in_flight, written): Written,
        is_alone: bool,
    ) -> Result<(), CommandError> {
        let written = written.map_err(|failure| match &self.pending_schema {
            Some(pending) => failure.context(pending.describe()),
            None => failure,
        })?;
        let InFlight {
            updates,
            transactions,
            compared,
            early,
            began,
            began_alone,
            mut acknowledged,
        } = in_flight;
        self.batch_time = began.elapsed();
        if let Some(updates) = early {
            self.acknowledge_early(&updates);
        }
        let calls = written.calls;
        // The revision of a call holds what ended before it began, and only that.
        let is_only_call = calls == 1 && began_alone && is_alone;
        acknowledged.is_only_call = is_only_call;
        self.progress.add(updates);
        if let Some((updates, contended)) = compared {
            self.contended.note(&updates, &contended);
        }
        let setting = (calls > 1).then(|| self.target.setting());
        let token = acknowledged
            .revision
            .as_ref()
            .map(|(token, _)| token.as_str());
        let mut applied = Applied {
            transactions,
            updates,
            calls,
            call_size: setting.map(|setting| setting.size as u64),
            calls_in_flight: setting.map(|setting| setting.in_flight as u64),
            split: acknowledged.is_part || (transactions == 1 && calls > 1),
            coalesced: transactions > calls.max(1),
            lag: token.and_then(report::lag),
            at: Some(jiff::Timestamp::now().to_string()),
            target_revision: written.token.filter(|_| is_only_call),
            ..Applied::default()
        };
        let is_settled = self.is_settled() && is_alone;
        match self.tracker.sync_point_of(&acknowledged, is_settled) {
            SyncPoint::No => {}
            SyncPoint::OfCall => applied.sync_point = true,
            SyncPoint::OfHead => {
                applied.target_revision = Some(self.target.head().await?);
                applied.sync_point = true;
            }
        }
        let target_revision = applied.target_revision.as_ref();
        let is_pending = self.pending_schema.is_some();
        applied.source_revision =
            self.tracker
                .acknowledged(acknowledged, target_revision, is_pending);
        if applied.sync_point {
            self.tracker.note_sync_point();
        }
        self.confirm_early()?;
        (self.report)(applied)?;
        self.save_if_due()
    }
}

/// How far everything is once a batch was acknowledged.
fn end_of(batch: &Batch) -> Acknowledged {
    Acknowledged {
        revision: batch.revision.clone(),
        completes: batch.completes,
        is_part: batch.is_part,
        checkpoint: batch.checkpoint.clone(),
        ends_at_checkpoint: batch.ends_at_checkpoint,
        is_only_call: false,
    }
}
