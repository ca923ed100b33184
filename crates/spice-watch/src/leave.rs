//! How a Watch is left.
//!
//! On MySQL, SpiceDB itself dies of a Watch that is cancelled in the very moment in which it reads new
//! transactions (v1.56.0: it calls a function that is nil; seen 2 times in some hundreds of rounds under
//! 4 writers). It reads as long as transactions come, and sleeps for 100 ms when none has. So a Watch is
//! left only after a moment of silence, and what comes until then is thrown away. A server that is slow
//! is silent, too, while it reads (seen once more, on a machine at its limit): so it must also have
//! answered a small read at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use authzed::v1::WatchResponse;
use authzed::{Client, Responses};
use tokio::time::{Instant, sleep};

/// Longer than a look for new transactions takes. With [`AT_ONCE`], much shorter than the sleep after it.
const SILENCE: Duration = Duration::from_millis(30);
const AT_ONCE: Duration = Duration::from_millis(15);
/// When it is left all the same: a source that is never silent, or always slow.
const PATIENCE: Duration = Duration::from_secs(10);

/// The Watches that are being left.
#[derive(Clone)]
pub(crate) struct Leaving {
    client: Client,
    count: Arc<AtomicUsize>,
}

impl Leaving {
    pub(crate) fn new(client: Client) -> Self {
        let count = Arc::default();
        Self { client, count }
    }

    /// Waits until all are left, so that the program can end; not for long.
    pub(crate) async fn done(&self, patience: Duration) {
        let until = Instant::now() + patience;
        while self.count.load(Ordering::Relaxed) > 0 && Instant::now() < until {
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn leave(&self, mut responses: Responses<WatchResponse>) {
        let Self { client, count } = self.clone();
        count.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let until = Instant::now() + PATIENCE;
            while Instant::now() < until {
                match is_asleep(&client, &mut responses).await {
                    Ok(false) => {}
                    Ok(true) | Err(AtItsEnd) => break,
                }
            }
            drop(responses);
            count.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

struct AtItsEnd;

/// Waits for a moment of silence, or a message.
async fn is_asleep(
    client: &Client,
    responses: &mut Responses<WatchResponse>,
) -> Result<bool, AtItsEnd> {
    let silent = async {
        sleep(SILENCE).await;
        let asked = Instant::now();
        client.head().await.is_ok() && asked.elapsed() <= AT_ONCE
    };
    tokio::select! {
        biased;
        message = responses.message() => match message {
            Ok(Some(_)) => Ok(false),
            _ => Err(AtItsEnd),
        },
        silent = silent => Ok(silent),
    }
}

/// A Watch that is left politely when it is dropped.
pub(crate) struct Polite {
    responses: Option<Responses<WatchResponse>>,
    leaving: Option<Leaving>,
}

impl Polite {
    /// With `None` it may be dropped at any moment.
    pub(crate) fn new(responses: Responses<WatchResponse>, leaving: Option<Leaving>) -> Self {
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

impl Drop for Polite {
    fn drop(&mut self) {
        self.leave();
    }
}
