//! Ends a Watch without harm to the server.
//!
//! On MySQL, SpiceDB v1.56.0 crashes if a Watch is cancelled at the moment in which it reads new
//! transactions: it calls a nil function (seen twice in some hundreds of rounds under 4 writers). It reads
//! as long as transactions come, and sleeps for 100 ms when none has. So on MySQL a Watch is cancelled only
//! while it is idle, and what arrives until then is discarded. A slow server is silent while it reads; so
//! its last answer must have been fast. No request is made to find that out: every round reads the head,
//! and more calls would make a slow server slower.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use authzed::ResponseStream;
use authzed::v1::WatchResponse;
use tokio::time::{Instant, sleep, timeout};

/// Longer than one poll of the server takes, shorter than its sleep of 100 ms after it.
const IDLE: Duration = Duration::from_millis(40);
/// A server that returns its head within this time is fast.
const FAST: Duration = Duration::from_millis(15);
/// Then it is cancelled in any case: the source is never idle, or always slow.
const MAX_DRAIN: Duration = Duration::from_secs(5);

/// Counts the Watches that are still to be cancelled.
#[derive(Clone, Default)]
pub(crate) struct DrainTracker {
    count: Arc<AtomicUsize>,
    /// How long the server took to show its head, in microseconds.
    latency_micros: Arc<AtomicU64>,
}

impl DrainTracker {
    /// Records how long the server took to return its head.
    pub(crate) fn record_latency(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.latency_micros.store(micros, Ordering::Relaxed);
    }

    fn is_fast(&self) -> bool {
        Duration::from_micros(self.latency_micros.load(Ordering::Relaxed)) <= FAST
    }

    /// Waits until all are cancelled, at most for `patience`.
    pub(crate) async fn wait(&self, patience: Duration) {
        let until = Instant::now() + patience;
        while self.count.load(Ordering::Relaxed) > 0 && Instant::now() < until {
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn drain(&self, mut responses: ResponseStream<WatchResponse>) {
        let drains = self.clone();
        drains.count.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let until = Instant::now() + MAX_DRAIN;
            while Instant::now() < until {
                match timeout(IDLE, responses.message()).await {
                    Err(_) if drains.is_fast() => break,
                    // Silent, but slow; or not silent.
                    Err(_) | Ok(Ok(Some(_))) => {}
                    // At its end.
                    Ok(_) => break,
                }
            }
            drop(responses);
            drains.count.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// A Watch that is cancelled only while it is idle, also where its owner is dropped.
pub(crate) struct DrainOnDrop {
    responses: Option<ResponseStream<WatchResponse>>,
    drains: Option<DrainTracker>,
}

impl DrainOnDrop {
    /// With `None` it may be dropped at any moment.
    pub(crate) fn new(
        responses: ResponseStream<WatchResponse>,
        drains: Option<DrainTracker>,
    ) -> Self {
        Self {
            responses: Some(responses),
            drains,
        }
    }

    pub(crate) async fn message(&mut self) -> Result<Option<WatchResponse>, authzed::Error> {
        match &mut self.responses {
            Some(responses) => responses.message().await,
            None => Ok(None),
        }
    }

    /// Ends this Watch, in the background where it must be idle first.
    pub(crate) fn drain(&mut self) {
        if let (Some(responses), Some(drains)) = (self.responses.take(), &self.drains) {
            drains.drain(responses);
        }
    }
}

impl Drop for DrainOnDrop {
    fn drop(&mut self) {
        self.drain();
    }
}

#[cfg(test)]
mod tests {
    use authzed::v1::WatchRequest;
    use testserver::{Reply, Server, WATCH, checkpoint};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A Watch of `reply`, opened and dropped at once; when the server saw its end, in ms after that.
    async fn cancelled_after(reply: Reply, tracker: Option<DrainTracker>) -> Option<u128> {
        let server = Server::new();
        server.script(WATCH, [reply]);
        let watch = server.client().watch(WatchRequest::default());
        let mut watch = DrainOnDrop::new(watch, tracker);
        assert!(watch.message().await.unwrap().is_some());
        let dropped = Instant::now();
        drop(watch);
        sleep(60_000 * MS).await;
        let cancelled = server.cancelled(WATCH);
        cancelled.first().map(|at| (*at - dropped).as_millis())
    }

    /// `count` messages, 20 ms apart, then silence.
    fn busy(count: u64) -> Reply {
        let first = Reply::message(&checkpoint(0));
        let all = (1..=count).fold(first, |reply, n| reply.pause(20 * MS).then(&checkpoint(n)));
        all.silence()
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_tracker_a_watch_is_cancelled_at_once() {
        let after = cancelled_after(busy(10), None).await;
        assert!(after.is_some_and(|ms| ms < 5), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn busy_watch_is_cancelled_only_once_it_is_idle() {
        let after = cancelled_after(busy(10), Some(DrainTracker::default())).await;
        assert!(
            after.is_some_and(|ms| (240..=260).contains(&ms)),
            "{after:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn idle_watch_of_a_slow_server_is_kept_until_the_limit() {
        let tracker = DrainTracker::default();
        tracker.record_latency(FAST + MS);
        let after = cancelled_after(busy(0), Some(tracker)).await;
        assert!(after.is_some_and(|ms| ms >= 5_000), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn watch_that_is_never_idle_is_cancelled_at_the_limit() {
        let after = cancelled_after(busy(1_000), Some(DrainTracker::default())).await;
        assert!(
            after.is_some_and(|ms| (5_000..5_100).contains(&ms)),
            "{after:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn program_waits_for_watches_to_end_but_not_for_long() {
        let tracker = DrainTracker::default();
        let server = Server::new();
        server.script(WATCH, [busy(3), busy(1_000)]);
        for (expected, patience) in [(100, 250 * MS), (250, 250 * MS)] {
            let watch = server.client().watch(WatchRequest::default());
            let mut watch = DrainOnDrop::new(watch, Some(tracker.clone()));
            assert!(watch.message().await.unwrap().is_some());
            drop(watch);
            let began = Instant::now();
            tracker.wait(patience).await;
            let took = began.elapsed().as_millis();
            assert!(took >= expected && took < expected + 20, "{took} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn watch_that_the_server_ends_needs_no_wait() {
        let tracker = DrainTracker::default();
        let server = Server::new();
        server.script(
            WATCH,
            [Reply::message(&checkpoint(1)).pause(10 * MS).reset()],
        );
        let watch = server.client().watch(WatchRequest::default());
        let mut watch = DrainOnDrop::new(watch, Some(tracker.clone()));
        assert!(watch.message().await.unwrap().is_some());
        watch.drain();
        assert!(watch.message().await.unwrap().is_none(), "it is over");
        let began = Instant::now();
        tracker.wait(1_000 * MS).await;
        assert!(began.elapsed() < 30 * MS);
        assert!(server.cancelled(WATCH).is_empty());
    }
}
