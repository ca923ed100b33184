//! The heartbeat: markers on the source, and how long each takes to come back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use authzed::Client;
use authzed::zedtoken::{self, Revision};
use spice_cli::lock;
use tokio::task::JoinHandle;

/// Markers that have not come back. More than these are not waited for: a lag so long is seen anyway.
const WAITING: usize = 1_000;

/// Writes markers, which keep an idle Watch inside the history window, until it is dropped.
pub(crate) struct Heartbeat {
    marks: Arc<Mutex<Marks>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Marks {
    waiting: VecDeque<Mark>,
    /// What was seen last: it may hold a marker that is not acknowledged yet.
    seen: Option<Revision>,
}

struct Mark {
    revision: Revision,
    acknowledged: Instant,
}

impl Marks {
    fn wait_for(&mut self, revision: Revision) {
        let seen = self.seen.as_ref();
        if seen.is_some_and(|seen| seen.sees(&revision) == Some(true)) {
            return;
        }
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Mark {
            revision,
            acknowledged: Instant::now(),
        });
    }
}

impl Heartbeat {
    pub(crate) fn start(client: Client, every: Duration) -> Self {
        let marks = Arc::new(Mutex::default());
        let task = tokio::spawn(beat(client, every, Arc::clone(&marks)));
        Self { marks, task }
    }

    /// Seconds since the newest marker was acknowledged that this revision, and none before, holds.
    pub(crate) fn lag(&self, revision: &Revision) -> Option<f64> {
        let mut marks = lock(&self.marks);
        marks.seen = Some(revision.clone());
        let seen = |mark: &&Mark| revision.sees(&mark.revision) == Some(true);
        let count = marks.waiting.iter().take_while(seen).count();
        let newest = marks.waiting.drain(..count).next_back()?;
        let lag = newest.acknowledged.elapsed().as_secs_f64();
        Some((lag * 1e3).round() / 1e3)
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn beat(mut client: Client, every: Duration, marks: Arc<Mutex<Marks>>) {
    let mut beats = tokio::time::interval(every.max(Duration::from_millis(100)));
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut refused: Option<String> = None;
    loop {
        beats.tick().await;
        match client.write_marker().await {
            Ok(token) => {
                if refused.take().is_some() {
                    tracing::info!("--heartbeat: the source takes markers again");
                }
                let Ok(decoded) = zedtoken::decode(&token) else {
                    continue;
                };
                lock(&marks).wait_for(decoded.revision);
            }
            Err(error) => {
                // Also where it will not pass by itself: a server that takes no writes for a while, a
                // fence that is lifted again.
                let word = error.to_string();
                if refused.as_ref() != Some(&word) {
                    tracing::warn!("--heartbeat: {word}");
                }
                if error.is_transient() {
                    client = client.reconnect();
                }
                refused = Some(word);
            }
        }
    }
}
