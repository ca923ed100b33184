//! How far: a bar where a person watches, else a line every ten seconds.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{log, stdio};

/// Counts what a program has done, and shows it.
#[derive(Clone)]
pub struct Progress(Arc<Inner>);

struct Inner {
    count: AtomicU64,
    started: Instant,
    what: &'static str,
}

impl Progress {
    /// Starts to show `what` ("relationships exported"). Needs a tokio runtime; ends with it.
    ///
    /// Only the last program of a pipe draws: two bars on one terminal would fight.
    #[must_use]
    pub fn start(what: &'static str, quiet: bool) -> Self {
        let inner = Inner {
            count: AtomicU64::new(0),
            started: Instant::now(),
            what,
        };
        let progress = Self(Arc::new(inner));
        if quiet {
            return progress;
        }
        let shown = progress.clone();
        if std::io::stderr().is_terminal() && !stdio::stdout_is_pipe() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(
                ProgressStyle::with_template("{spinner} {msg} [{elapsed}]")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            let bar = log::BAR.get_or_init(|| bar).clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                    bar.set_message(shown.to_string());
                    bar.tick();
                }
            });
        } else {
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                    tracing::info!("{shown}");
                }
            });
        }
        progress
    }

    /// Adds to the count.
    pub fn add(&self, count: u64) {
        self.0.count.fetch_add(count, Ordering::Relaxed);
    }

    /// Since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Takes the bar away, before the last message.
    pub fn clear(&self) {
        if let Some(bar) = log::BAR.get() {
            bar.finish_and_clear();
        }
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.0.count.load(Ordering::Relaxed);
        let rate = count as f64 / self.elapsed().as_secs_f64().max(0.001);
        write!(f, "{count} {} ({rate:.0}/s)", self.0.what)
    }
}
