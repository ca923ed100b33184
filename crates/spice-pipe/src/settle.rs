//! When a revision may be trusted.
//!
//! On MySQL and in memory a revision's number is taken when its transaction starts, so one with a
//! lower number can become visible later: a snapshot at the head, read again, has changed (measured
//! on SpiceDB v1.56: 11 of 92 on MySQL, 3 of 154 in memory, 0 of 107 on PostgreSQL). There a head is
//! used only once it has been known for longer than the longest write transaction takes.

use std::time::Duration;

use authzed::Client;
use authzed::zedtoken;

use crate::connection::Connection;
use crate::exit::Failure;
use crate::parse_duration;
use crate::shutdown::Shutdown;

/// A server ends a bulk import after 30 s, so nothing that it commits has been in flight for longer.
pub const INTEGER_SETTLE: Duration = Duration::from_secs(35);

/// `--settle`.
#[derive(Clone, Debug, clap::Args)]
pub struct SettleArgs {
    /// How long a revision must have been known before it is used; longer than the longest write
    /// transaction of the source [default: 35s on MySQL, Spanner and memory, 0s elsewhere].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    pub settle: Option<Duration>,
}

impl SettleArgs {
    /// How long to wait for a revision to settle.
    #[must_use]
    pub fn duration(&self, token: &str) -> Duration {
        let needed = zedtoken::decode(token).is_ok_and(|decoded| decoded.revision.needs_settling());
        self.settle.unwrap_or(if needed {
            INTEGER_SETTLE
        } else {
            Duration::ZERO
        })
    }

    /// Waits until `token`, just seen as head, has settled; `false` if a signal came first.
    pub async fn wait(&self, connection: &Connection, token: &str, shutdown: &Shutdown) -> bool {
        let duration = self.duration(token);
        if duration.is_zero() {
            return true;
        }
        tracing::info!(
            "waiting {} s for the head of {} to settle: late transactions may still appear below it \
             (--settle)",
            duration.as_secs_f64(),
            connection.endpoint(),
        );
        tokio::select! {
            () = tokio::time::sleep(duration) => true,
            _ = shutdown.requested() => false,
        }
    }

    /// The head of a server once it has settled; `None` if a signal came first.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn head(
        &self,
        connection: &Connection,
        client: &Client,
        shutdown: &Shutdown,
    ) -> Result<Option<String>, Failure> {
        let head = client.head().await?;
        Ok(self.wait(connection, &head, shutdown).await.then_some(head))
    }
}
