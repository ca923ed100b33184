//! Writes that follow each other closely: the first calls of one are made beside the last calls of the one
//! before it, so that there are as many in flight as pay at any time.
//!
//! What the write before has as well is held back until that has ended: no update overtakes another one of
//! the same relationship.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use spice_cli::{CommandError, Exit};
use tokio::sync::{Notify, watch};

/// How far a write is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    /// Some of its calls have not begun.
    #[default]
    Begun,
    /// All of its calls are in flight.
    InFlight,
    /// Everything was acknowledged.
    Ended,
}

/// The calls in flight of all writes that follow each other.
#[derive(Debug, Default)]
struct Calls {
    in_flight: AtomicUsize,
    /// One of the writes has failed.
    has_failed: AtomicBool,
    one_ended: Arc<Notify>,
}

/// The turn of one write. One that is dropped before its [`end`](Self::end) has failed: the next one begins with
/// nothing more then.
#[derive(Debug, Default)]
pub struct Turn {
    before: Option<watch::Receiver<Reached>>,
    own: watch::Sender<Reached>,
    calls: Arc<Calls>,
}

impl Turn {
    /// The turn of the write after this one.
    #[must_use]
    pub fn next(&self) -> Self {
        Self {
            before: Some(self.own.subscribe()),
            own: watch::Sender::default(),
            calls: Arc::clone(&self.calls),
        }
    }

    /// Waits until all calls of the write before this one are in flight.
    ///
    /// # Errors
    ///
    /// It has failed.
    pub async fn has_come(&mut self) -> Result<(), CommandError> {
        self.before_has(Reached::InFlight).await
    }

    /// Waits until everything of the write before this one was acknowledged.
    ///
    /// # Errors
    ///
    /// It has failed.
    pub async fn is_alone(&mut self) -> Result<(), CommandError> {
        self.before_has(Reached::Ended).await
    }

    async fn before_has(&mut self, reached: Reached) -> Result<(), CommandError> {
        let Some(before) = &mut self.before else {
            return Ok(());
        };
        match before.wait_for(|now| *now >= reached).await {
            Ok(_) => Ok(()),
            Err(_) => Err(failed()),
        }
    }

    /// All calls are in flight.
    pub(super) fn all_in_flight(&self) {
        self.own.send_if_modified(|reached| {
            std::mem::replace(reached, Reached::InFlight) == Reached::Begun
        });
    }

    /// Everything was acknowledged.
    pub fn end(self) {
        self.own.send_replace(Reached::Ended);
    }

    /// After a failure none of these writes begins with more of what waits for its calls.
    pub fn fail(&self) {
        self.calls.has_failed.store(true, Ordering::Relaxed);
    }

    /// # Errors
    ///
    /// One of these writes has failed.
    pub(super) fn may_begin_call(&self) -> Result<(), CommandError> {
        match self.calls.has_failed.load(Ordering::Relaxed) {
            true => Err(failed()),
            false => Ok(()),
        }
    }

    /// How many calls of all these writes are in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.calls.in_flight.load(Ordering::Relaxed)
    }

    /// A call begins; it ends as what this returns is dropped.
    pub(super) fn begin_call(&self) -> CallInFlight {
        self.calls.in_flight.fetch_add(1, Ordering::Relaxed);
        CallInFlight(Arc::clone(&self.calls))
    }

    /// Waits until a call has ended, from the moment in which this is made.
    pub(super) fn call_ended(&self) -> impl Future<Output = ()> + use<> {
        Arc::clone(&self.calls.one_ended).notified_owned()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if *self.own.borrow() != Reached::Ended {
            self.fail();
        }
    }
}

fn failed() -> CommandError {
    CommandError::new(Exit::Failed, "an earlier write failed")
}

/// A call in flight.
#[derive(Debug)]
pub(super) struct CallInFlight(Arc<Calls>);

impl Drop for CallInFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.one_ended.notify_waiters();
    }
}
