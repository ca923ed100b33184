//! The write engine: sends updates to a server, and finds out what becomes of each of them.
//!
//! A call is repeated while its failure is a passing one, with backoff. Updates that the server refuses
//! are bisected down to the single one, limits on the size of a call are learned from the errors, and a
//! TOUCH that an old server may skip is written as a CREATE or read back. What becomes of a refused
//! update, and of one whose end is unknown, is the [`Policy`] of the caller.

mod call;
pub mod controller;
mod outcome;
mod row_error;
mod splitting;
#[cfg(test)]
mod tests;
pub mod throughput;
mod touches;
mod turn;

use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use authzed::v1::{Relationship, RelationshipUpdate, relationship_update::Operation};
use authzed::{Error, JsonObject};
use futures::stream::{FuturesUnordered, StreamExt as _};
use spice_cli::{CommandError, lock};
use tokio::time::{Interval, MissedTickBehavior};

use self::controller::Setting;
pub use self::outcome::Outcome;
use self::row_error::InternalErrors;
pub use self::row_error::RowErrorTest;
use self::splitting::{CallQueue, CallSizing};
pub use self::turn::Turn;
use crate::server::Server;
use crate::touch::Skips;

/// Something that is written: a relationship, with what its caller knows of it.
pub trait Item: Clone {
    /// The relationship; one without is left out of its call.
    fn relationship(&self) -> Option<&Relationship>;
}

impl Item for Relationship {
    fn relationship(&self) -> Option<&Relationship> {
        Some(self)
    }
}

impl Item for RelationshipUpdate {
    fn relationship(&self) -> Option<&Relationship> {
        self.relationship.as_ref()
    }
}

/// Why a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The caller asked for it.
    Write,
    /// It deletes relationships whose TOUCH was skipped, to write them again.
    DeleteSkipped,
    /// It writes them again.
    WriteSkipped,
}

/// What to do before the next attempt at a call whose end is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AfterAmbiguous {
    /// Take another connection: what was sent on this one may arrive late.
    pub reconnect: bool,
    /// Wait so long, beside the backoff, until nothing can arrive late any more.
    pub wait: Duration,
}

/// What the caller of the engine decides, and gets to know.
pub trait Policy {
    /// What it writes.
    type Item: Item;

    /// What is done to the relationship of an item.
    fn operation(&self, item: &Self::Item) -> Operation;

    /// The metadata of each transaction.
    fn metadata(&self) -> Option<&JsonObject> {
        None
    }

    /// Whether a TOUCH that the server may skip is tried as a CREATE first. That saves the reading back
    /// where most of them are new to the server.
    fn tries_create(&self) -> bool {
        false
    }

    /// The server has acknowledged these.
    fn acknowledged(&self, items: &[Self::Item], stage: Stage);

    /// The end of a call with these is unknown: it may have been applied, or be applied later. It is
    /// repeated after this, if the error is a passing one.
    ///
    /// # Errors
    ///
    /// What ends the write.
    fn ambiguous(&self, items: &[Self::Item], stage: Stage)
    -> Result<AfterAmbiguous, CommandError>;

    /// The end of the last attempt at these is unknown, and there is no other one.
    fn abandoned(&self, _items: &[Self::Item], _stage: Stage) {}

    /// The server refuses this one, by itself. `Ok` continues without it.
    ///
    /// # Errors
    ///
    /// What ends the write.
    fn refused(&self, item: &Self::Item, stage: Stage, error: &Error) -> Result<(), CommandError>;
}

/// A call that fails after this was too large for the target, whatever its error is: half of the time that
/// SpiceDB gives a transaction (30 s on PostgreSQL and MySQL). On Spanner the error is UNKNOWN or INTERNAL
/// ("failed to lookup namespaces: ... Canceled", measured on its emulator, v1.56.0).
const LATE: Duration = Duration::from_secs(15);

/// Whether a call that failed with this error after so long may have been too large for the target.
#[must_use]
pub fn is_late(error: &Error, after: Duration) -> bool {
    error.is_transient() && after > LATE
}

/// Writes to one server. What it learns of that lasts for as long as it lives.
pub struct WriteEngine<S> {
    server: Mutex<S>,
    max_retries: usize,
    sizing: CallSizing,
    max_rps: Option<u32>,
    pace: Option<tokio::sync::Mutex<Interval>>,
    /// A call was dropped while it was in flight.
    has_dropped: AtomicBool,
    /// Which TOUCHes the server may skip, by its last answer.
    skips: Mutex<Option<Skips>>,
    /// How many it has skipped.
    skipped: AtomicU64,
    internal_errors: InternalErrors,
}

/// A call in flight. If it is dropped before its end, which a signal does, that is noted.
struct InFlightGuard<'a>(&'a AtomicBool);

impl InFlightGuard<'_> {
    fn ended(self) {
        std::mem::forget(self);
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<S: Server> WriteEngine<S> {
    /// `in_flight`: how many calls are in flight after the first one, and at most. `max_rps`: how
    /// many are made in a second at most.
    pub fn new(
        server: S,
        max_retries: usize,
        in_flight: RangeInclusive<usize>,
        max_rps: Option<u32>,
    ) -> Self {
        let pace = max_rps.map(|rps| {
            let mut pace = tokio::time::interval(Duration::from_secs(1) / rps.max(1));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tokio::sync::Mutex::new(pace)
        });
        Self {
            server: Mutex::new(server),
            max_retries,
            sizing: CallSizing::new(&in_flight),
            max_rps,
            pace,
            has_dropped: AtomicBool::new(false),
            skips: Mutex::default(),
            skipped: AtomicU64::new(0),
            internal_errors: InternalErrors::default(),
        }
    }

    /// The server, on the newest connection.
    pub fn server(&self) -> S {
        lock(&self.server).clone()
    }

    /// Takes another connection: what was sent on this one may arrive late.
    pub fn reconnect(&self) {
        let mut server = lock(&self.server);
        *server = server.reconnect();
    }

    /// How often a call is repeated.
    pub fn max_retries(&self) -> usize {
        self.max_retries
    }

    /// For a sequence of attempts at so many rows. `is_searching`: a refused one is being searched. While there is more
    /// than one, each repetition would only cost a delay.
    pub fn row_error_test(&self, rows: usize, is_searching: bool) -> RowErrorTest<'_> {
        RowErrorTest::new(&self.internal_errors, is_searching && rows > 1)
    }

    /// How many updates are best written together.
    pub fn batch(&self) -> usize {
        // Of paced calls those of a second.
        let calls = self.max_rps.map_or(usize::MAX, |rps| rps.max(2) as usize);
        let paced = calls.saturating_mul(self.setting().size);
        self.sizing.batch().min(paced)
    }

    /// The size of calls, and how many are in flight, as it is now.
    pub fn setting(&self) -> Setting {
        self.sizing.setting()
    }

    /// Whether a call was dropped while it was in flight: its end is unknown.
    pub fn has_dropped(&self) -> bool {
        self.has_dropped.load(Ordering::Relaxed)
    }

    /// Makes any call, and notes it if that is dropped before its end.
    pub async fn in_flight<F: Future>(&self, call: F) -> F::Output {
        let guard = InFlightGuard(&self.has_dropped);
        let output = call.await;
        guard.ended();
        output
    }

    /// Writes updates of different relationships. `is_transaction`: they are one transaction of the
    /// source, and are written in one call if the server takes so many.
    ///
    /// After a failure no further call is started. All have ended when this returns: a call that is
    /// dropped has an unknown end.
    ///
    /// # Errors
    ///
    /// The policy's; the server's, after the retries.
    pub async fn write<P: Policy>(
        &self,
        policy: &P,
        items: Vec<P::Item>,
        is_transaction: bool,
    ) -> Result<Outcome<P::Item>, CommandError> {
        let queue = CallQueue::new(items, is_transaction, &self.sizing);
        let is_backlog = !queue.is_transaction() && self.is_backlog(&queue);
        let mut turn = Turn::default();
        self.write_queue(policy, queue, is_backlog, &mut turn).await
    }

    /// As [`write`](Self::write), without a transaction, and in turn: the first of these updates are written
    /// beside the last calls of the write before this one, the others, whose relationships that may have as well,
    /// once it has ended.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write); the write before this one has failed.
    pub async fn write_in_turn<P: Policy>(
        &self,
        policy: &P,
        items: Vec<P::Item>,
        first: usize,
        turn: &mut Turn,
    ) -> Result<Outcome<P::Item>, CommandError> {
        turn.has_come().await?;
        let queue = CallQueue::behind(items, first);
        let is_backlog = self.is_backlog(&queue);
        self.write_queue(policy, queue, is_backlog, turn).await
    }

    /// Whether these are enough to learn from how long their calls take: one is full.
    fn is_backlog<T: Item>(&self, queue: &CallQueue<T>) -> bool {
        queue.len() >= self.setting().size
    }

    async fn write_queue<P: Policy>(
        &self,
        policy: &P,
        mut queue: CallQueue<P::Item>,
        is_backlog: bool,
        turn: &mut Turn,
    ) -> Result<Outcome<P::Item>, CommandError> {
        let mut running = FuturesUnordered::new();
        let mut outcome = Outcome::default();
        let mut failure = None;
        loop {
            let call_ended = turn.call_ended();
            // A failure of the next write is none of this one, once all of its calls are in flight.
            if !queue.is_empty() || queue.holds_back() {
                failure = failure.or(turn.may_begin_call().err());
            }
            while failure.is_none()
                && turn.in_flight() < self.sizing.calls_in_flight()
                && let Some((items, is_heavy)) = queue.next_call(&self.sizing)
            {
                let in_flight = turn.begin_call();
                running.push(async move {
                    // Waiting for its turn is no part of the call.
                    self.pace().await;
                    let call = self.sizing.begin(items.len(), is_heavy, is_backlog);
                    let ended = self.call(policy, &items, Stage::Write, true).await;
                    if let Some(call) = call {
                        self.sizing
                            .end(call, if ended.is_ok() { items.len() } else { 0 });
                    }
                    drop(in_flight);
                    ended
                });
            }
            let waits_for_a_call = failure.is_none() && !queue.is_empty();
            let is_held_back = failure.is_none() && queue.is_empty() && queue.holds_back();
            if !waits_for_a_call && !is_held_back && failure.is_none() {
                turn.all_in_flight();
            }
            tokio::select! {
                biased;
                Some(ended) = running.next() => match ended {
                    Ok(ended) => outcome.add(ended),
                    Err(error) => {
                        turn.fail();
                        failure = failure.or(Some(error));
                    }
                },
                // One of the write before this one.
                () = call_ended, if waits_for_a_call => {}
                alone = turn.is_alone(), if is_held_back => match alone {
                    Ok(()) => queue.release(),
                    Err(error) => failure = Some(error),
                },
                else => break,
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => Ok(outcome),
        }
    }

    /// Waits for the turn of a call.
    async fn pace(&self) {
        if let Some(pace) = &self.pace {
            pace.lock().await.tick().await;
        }
    }
}
