//! How a Watch is left.
//!
//! On MySQL, SpiceDB itself dies of a Watch that is cancelled in the very moment in which it reads new
//! transactions (v1.56.0: it calls a function that is nil; seen 2 times in some hundreds of rounds under
//! 4 writers). It reads as long as transactions come, and sleeps for 100 ms when none has. So a Watch is
//! left only after a moment of silence, and what comes until then is thrown away. A server that is slow
//! is silent, too, while it reads: so it must also have answered lately at once. It is not asked for
//! that: every round looks at its head, and more calls would make a slow server slower.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use authzed::ResponseStream;
use authzed::v1::WatchResponse;
use tokio::time::{Instant, sleep, timeout};

/// Longer than a look for new transactions takes, shorter than the sleep after it.
const SILENCE: Duration = Duration::from_millis(40);
/// The server is not slow if it shows its head within this.
const AT_ONCE: Duration = Duration::from_millis(15);
/// When it is left all the same: a source that is never silent, or always slow.
const PATIENCE: Duration = Duration::from_secs(5);

/// The Watches that are being left.
#[derive(Clone, Default)]
pub(crate) struct DrainTracker {
    count: Arc<AtomicUsize>,
    /// How long the server took to show its head, in microseconds.
    took: Arc<AtomicU64>,
}

impl DrainTracker {
    /// The server took so long to show its head.
    pub(crate) fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.took.store(micros, Ordering::Relaxed);
    }

    fn is_fast(&self) -> bool {
        Duration::from_micros(self.took.load(Ordering::Relaxed)) <= AT_ONCE
    }

    /// Waits until all are left, so that the program can end; not for long.
    pub(crate) async fn done(&self, patience: Duration) {
        let until = Instant::now() + patience;
        while self.count.load(Ordering::Relaxed) > 0 && Instant::now() < until {
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn leave(&self, mut responses: ResponseStream<WatchResponse>) {
        let leaving = self.clone();
        leaving.count.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let until = Instant::now() + PATIENCE;
            while Instant::now() < until {
                match timeout(SILENCE, responses.message()).await {
                    Err(_) if leaving.is_fast() => break,
                    // Silent, but slow; or not silent.
                    Err(_) | Ok(Ok(Some(_))) => {}
                    // At its end.
                    Ok(_) => break,
                }
            }
            drop(responses);
            leaving.count.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// A Watch that is left politely when it is dropped.
pub(crate) struct DrainOnDrop {
    responses: Option<ResponseStream<WatchResponse>>,
    leaving: Option<DrainTracker>,
}

impl DrainOnDrop {
    /// With `None` it may be dropped at any moment.
    pub(crate) fn new(
        responses: ResponseStream<WatchResponse>,
        leaving: Option<DrainTracker>,
    ) -> Self {
        Self {
            responses: Some(responses),
            leaving,
        }
    }

    pub(crate) async fn message(&mut self) -> Result<Option<WatchResponse>, authzed::Error> {
        match &mut self.responses {
            Some(responses) => responses.message().await,
            None => Ok(None),
        }
    }

    /// It is over: to be dropped, as it is.
    pub(crate) fn leave(&mut self) {
        if let (Some(responses), Some(leaving)) = (self.responses.take(), &self.leaving) {
            leaving.leave(responses);
        }
    }
}

impl Drop for DrainOnDrop {
    fn drop(&mut self) {
        self.leave();
    }
}
