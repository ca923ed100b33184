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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use spice_cli::Exit;
    use tokio::time::{Duration, Instant};

    use super::Retry;
    use crate::scripted::{refused, unavailable};

    #[tokio::test(start_paused = true)]
    async fn a_call_is_repeated_while_its_failures_pass() {
        let mut results = VecDeque::from([Err(unavailable()), Err(unavailable()), Ok(7)]);
        let call = async || results.pop_front().expect("no more calls");
        assert_eq!(Retry::new(5).run("asking again", call).await.expect("7"), 7);
        assert!(results.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_does_not_pass_ends_it_at_once() {
        let mut calls = 0;
        let call = async || {
            calls += 1;
            Err::<(), _>(refused("UNKNOWN_CAVEAT"))
        };
        let failure = Retry::new(5).run("asking again", call).await;
        assert_eq!(failure.expect_err("refused").exit, Exit::Failed);
        assert_eq!(calls, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_10_s_and_their_number_is_bounded() {
        let mut retry = Retry::new(10);
        let mut pauses = Vec::new();
        let failure = loop {
            let started = Instant::now();
            match retry.pause(unavailable(), "asking again").await {
                Ok(()) => pauses.push(started.elapsed()),
                Err(failure) => break failure,
            }
        };
        assert_eq!((failure.exit, pauses.len()), (Exit::TryAgain, 10));
        assert!(
            failure
                .message()
                .starts_with("gave up asking again after 10 retries")
        );
        // Each has up to as much jitter.
        for (index, pause) in pauses.iter().enumerate() {
            let least = Duration::from_millis(100 << index).min(Duration::from_secs(10));
            assert!((least..=2 * least).contains(pause), "{index}: {pause:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_progress_the_next_failure_counts_as_the_first() {
        let mut retry = Retry::new(1);
        for _ in 0..5 {
            retry
                .pause(unavailable(), "asking again")
                .await
                .expect("the first");
            retry.succeeded();
        }
        retry
            .pause(unavailable(), "asking again")
            .await
            .expect("the first");
        retry
            .pause(unavailable(), "asking again")
            .await
            .expect_err("the second");
    }
}
