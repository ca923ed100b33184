//! The heartbeat: markers on the source, and the lag until a Watch delivers each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use authzed::Client;
use authzed::zedtoken::{self, Revision};
use spice_cli::lock;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Markers that have not come back. More than these are not waited for: a lag so long is seen anyway.
const WAITING: usize = 1_000;

/// Writes markers, which keep an idle Watch inside the history window, until it is dropped.
pub(crate) struct Heartbeat {
    markers: Arc<Mutex<Markers>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Markers {
    waiting: VecDeque<Marker>,
    /// What was seen last: it may hold a marker that is not acknowledged yet.
    seen: Option<Revision>,
}

struct Marker {
    revision: Revision,
    acknowledged: Instant,
}

impl Markers {
    fn wait_for(&mut self, revision: Revision) {
        let seen = self.seen.as_ref();
        if seen.is_some_and(|seen| seen.sees(&revision) == Some(true)) {
            return;
        }
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Marker {
            revision,
            acknowledged: Instant::now(),
        });
    }
}

impl Heartbeat {
    pub(crate) fn start(client: Client, every: Duration) -> Self {
        let markers = Arc::new(Mutex::default());
        let task = tokio::spawn(write_markers(client, every, Arc::clone(&markers)));
        Self { markers, task }
    }

    /// Seconds since the newest marker was acknowledged that this revision, and none before, holds.
    pub(crate) fn lag(&self, revision: &Revision) -> Option<f64> {
        let mut markers = lock(&self.markers);
        markers.seen = Some(revision.clone());
        let seen = |marker: &&Marker| revision.sees(&marker.revision) == Some(true);
        let count = markers.waiting.iter().take_while(seen).count();
        let newest = markers.waiting.drain(..count).next_back()?;
        let lag = newest.acknowledged.elapsed().as_secs_f64();
        Some((lag * 1e3).round() / 1e3)
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn write_markers(mut client: Client, every: Duration, markers: Arc<Mutex<Markers>>) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(100)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut refused: Option<String> = None;
    loop {
        ticks.tick().await;
        match client.write_marker().await {
            Ok(token) => {
                if refused.take().is_some() {
                    tracing::info!("--heartbeat: the source takes markers again");
                }
                let Ok(decoded) = zedtoken::decode(&token) else {
                    continue;
                };
                lock(&markers).wait_for(decoded.revision);
            }
            Err(error) => {
                // Also errors that look permanent: a read-only server or a fence may be lifted again.
                let message = error.to_string();
                if refused.as_ref() != Some(&message) {
                    tracing::warn!("--heartbeat: {message}");
                }
                if error.is_transient() {
                    client = client.reconnect();
                }
                refused = Some(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use authzed::Code;
    use testserver::{Reply, Server, WRITE, written};
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A heartbeat each 10 s of a server with these answers in turn.
    fn heartbeat(replies: impl IntoIterator<Item = Reply>) -> (Server, Heartbeat) {
        let server = Server::new();
        server.script(WRITE, replies);
        let heartbeat = Heartbeat::start(server.client(), 10 * SECOND);
        (server, heartbeat)
    }

    fn marker(revision: u64) -> Reply {
        Reply::message(&written(revision))
    }

    #[tokio::test(start_paused = true)]
    async fn markers_are_written_at_the_interval_until_it_is_dropped() {
        let (server, heartbeat) = heartbeat([marker(5)]);
        sleep(35 * SECOND).await;
        assert_eq!(server.calls(WRITE), 4);
        drop(heartbeat);
        sleep(100 * SECOND).await;
        assert_eq!(server.calls(WRITE), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn interval_is_never_below_100_ms() {
        let server = Server::new();
        server.script(WRITE, [marker(5)]);
        let _heartbeat = Heartbeat::start(server.client(), Duration::ZERO);
        sleep(SECOND).await;
        assert!(server.calls(WRITE) <= 11, "{}", server.calls(WRITE));
    }

    #[tokio::test(start_paused = true)]
    async fn lag_is_the_age_of_the_newest_visible_marker_once() {
        let (_server, heartbeat) = heartbeat([marker(5), marker(7), marker(9)]);
        sleep(25 * SECOND).await;
        assert_eq!(heartbeat.lag(&Revision::Integer(4)), None, "none is seen");
        assert_eq!(heartbeat.lag(&Revision::Integer(8)), Some(15.0));
        assert_eq!(heartbeat.lag(&Revision::Integer(8)), None, "it was counted");
        assert_eq!(heartbeat.lag(&Revision::Integer(9)), Some(5.0));
    }

    #[tokio::test(start_paused = true)]
    async fn marker_that_is_seen_before_its_answer_is_not_awaited() {
        let slow = Reply::empty().pause(3 * SECOND).then(&written(5));
        let (_server, heartbeat) = heartbeat([slow, Reply::silent()]);
        sleep(SECOND).await;
        assert_eq!(heartbeat.lag(&Revision::Integer(6)), None);
        sleep(5 * SECOND).await;
        assert_eq!(heartbeat.lag(&Revision::Integer(6)), None);
        assert!(lock(&heartbeat.markers).waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn refused_markers_do_not_end_it() {
        let read_only = Reply::refusal(Code::Unavailable, "SERVICE_READ_ONLY", "read-only", &[]);
        let away = Reply::error(Code::Unavailable, "down");
        let (server, heartbeat) = heartbeat([read_only, away, marker(5)]);
        sleep(25 * SECOND).await;
        assert_eq!(heartbeat.lag(&Revision::Integer(5)), Some(5.0));
        assert_eq!(
            server.connections(),
            2,
            "a new one after the transient error only"
        );
    }

    #[test]
    fn markers_that_never_come_back_are_bounded() {
        let mut markers = Markers::default();
        (0..2 * WAITING as u64).for_each(|n| markers.wait_for(Revision::Integer(n)));
        assert_eq!(markers.waiting.len(), WAITING);
        let oldest = &markers.waiting[0].revision;
        assert_eq!(*oldest, Revision::Integer(WAITING as u64));
    }
}
