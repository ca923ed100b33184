//! The one policy of trying again: exponential backoff with jitter, bounded, and only for errors that
//! may go away by themselves.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use spice_cli::{CommandError, Exit};

/// Counts the failures in a row of one piece of work.
pub struct Retry {
    policy: ExponentialBuilder,
    delays: ExponentialBackoff,
    retries: usize,
}

impl Retry {
    /// Up to `max_retries` in a row, 100 ms to 10 s apart: with the default of 10 about 45 s, long
    /// enough for a server to restart.
    #[must_use]
    pub fn new(max_retries: usize) -> Self {
        let policy = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(10))
            .with_max_times(max_retries)
            .with_jitter();
        Self {
            policy,
            delays: policy.build(),
            retries: 0,
        }
    }

    /// Makes a call until it succeeds, while its failures are passing ones. `what` names the repetition
    /// ("reading the head again").
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub async fn run<T>(
        mut self,
        what: &str,
        mut call: impl AsyncFnMut() -> Result<T, authzed::Error>,
    ) -> Result<T, CommandError> {
        loop {
            match call().await {
                Ok(value) => return Ok(value),
                Err(error) => self.pause(error, what).await?,
            }
        }
    }

    /// There was progress: the next failure counts as the first.
    pub fn succeeded(&mut self) {
        if self.retries > 0 {
            self.retries = 0;
            self.delays = self.policy.build();
        }
    }

    /// Waits before the next attempt at `what` ("resuming the export").
    ///
    /// # Errors
    ///
    /// The error itself where trying again cannot help, and exit 75 when the retries are spent.
    pub async fn pause(&mut self, error: authzed::Error, what: &str) -> Result<(), CommandError> {
        if !error.is_transient() {
            return Err(error.into());
        }
        let Some(delay) = self.delays.next() else {
            let retries = self.retries;
            let failure = CommandError::from(error);
            return Err(failure
                .with_exit(Exit::TryAgain)
                .context(format!("gave up {what} after {retries} retries")));
        };
        self.retries += 1;
        tracing::warn!("{error}; {what} in {:.1} s", delay.as_secs_f64());
        tokio::time::sleep(delay).await;
        Ok(())
    }
}
