//! When a revision may be trusted.
//!
//! On MySQL and in memory a revision's number is taken when its transaction starts, so one with a
//! lower number can become visible later: a snapshot at the head, read again, has changed (measured
//! on SpiceDB v1.56: 11 of 92 on MySQL, 3 of 154 in memory, 0 of 107 on PostgreSQL). There a head is
//! used only once it has been known for longer than the longest write transaction takes.

use std::time::Duration;

use authzed::{Client, DatastoreKind};

use spice_cli::CommandError;
use spice_cli::Connection;
use spice_cli::Shutdown;
use spice_cli::values::parse_duration;

/// A server ends a bulk import after 30 s, so nothing that it commits has been in flight for longer.
pub const INTEGER_SETTLE: Duration = Duration::from_secs(35);

/// `--settle`.
#[derive(Clone, Debug, clap::Args)]
pub struct SettleArgs {
    /// How long a revision must have been known before it is used; longer than the longest write
    /// transaction of the source [default: 35s on MySQL and memory, 0s elsewhere].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    pub settle: Option<Duration>,
}

impl SettleArgs {
    /// How long to wait for a revision to settle.
    #[must_use]
    pub fn duration(&self, kind: DatastoreKind) -> Duration {
        self.settle.unwrap_or(if kind.needs_settling() {
            INTEGER_SETTLE
        } else {
            Duration::ZERO
        })
    }

    /// Waits until a revision that was just seen as head has settled; `false` if a signal came first.
    pub async fn wait(
        &self,
        connection: &Connection,
        kind: DatastoreKind,
        shutdown: &Shutdown,
    ) -> bool {
        let duration = self.duration(kind);
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

    /// The head of a server once it has settled, and the kind of its datastore; `None` if a signal came
    /// first.
    ///
    /// # Errors
    ///
    /// Exit 2 where `--datastore` is not the server's; the server's.
    pub async fn head(
        &self,
        connection: &Connection,
        client: &Client,
        shutdown: &Shutdown,
    ) -> Result<Option<(String, DatastoreKind)>, CommandError> {
        let head = client.head().await?;
        let kind = crate::datastore::kind_of_server(connection, client, &head).await?;
        let has_settled = self.wait(connection, kind, shutdown).await;
        Ok(has_settled.then_some((head, kind)))
    }
}

#[cfg(test)]
mod tests {
    use authzed::Code;
    use spice_cli::Exit;
    use testserver::{READ_SCHEMA, Reply, Server, schema_response, token_of};
    use tokio::time::Instant;

    use super::*;
    use crate::tests::connection;

    const SECOND: Duration = Duration::from_secs(1);

    fn args(settle: Option<Duration>) -> SettleArgs {
        SettleArgs { settle }
    }

    #[test]
    fn default_is_35_s_where_revisions_must_settle_and_0_elsewhere() {
        for (kind, seconds) in [
            (DatastoreKind::MySql, 35),
            (DatastoreKind::Memory, 35),
            (DatastoreKind::MemoryOrSpanner, 35),
            (DatastoreKind::Postgres, 0),
            (DatastoreKind::CockroachDb, 0),
            (DatastoreKind::Spanner, 0),
        ] {
            assert_eq!(args(None).duration(kind), seconds * SECOND, "{kind}");
            let given = args(Some(7 * SECOND));
            assert_eq!(given.duration(kind), 7 * SECOND, "{kind}");
        }
    }

    /// How long a head takes, of a server whose revisions have this form.
    async fn head(revision: &str, settle: Option<Duration>) -> (String, DatastoreKind, u64) {
        let server = Server::new();
        let mut response = schema_response("one", 0);
        let token = token_of(revision, "aaaaaaaa");
        response.read_at = Some(authzed::v1::ZedToken { token });
        server.script(READ_SCHEMA, [Reply::message(&response)]);
        let shutdown = Shutdown::listen(Exit::Done, false).unwrap();
        let (client, connection) = (server.client(), connection(None).await);
        let began = Instant::now();
        let settle = args(settle);
        let head = settle.head(&connection, &client, &shutdown).await;
        let (token, kind) = head.unwrap().unwrap();
        (token, kind, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn head_of_mysql_is_given_once_it_has_settled() {
        let expected = (token_of("7", "aaaaaaaa"), DatastoreKind::MySql, 35);
        assert_eq!(head("7", None).await, expected);
        assert_eq!(head("7", Some(5 * SECOND)).await.2, 5);
        assert_eq!(head("7", Some(Duration::ZERO)).await.2, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn head_of_postgres_is_given_at_once() {
        let (_, kind, seconds) = head("CLsG", None).await;
        assert_eq!((kind, seconds), (DatastoreKind::Postgres, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn error_of_the_server_is_passed_on() {
        let server = Server::new();
        server.script(READ_SCHEMA, [Reply::error(Code::PermissionDenied, "no")]);
        let shutdown = Shutdown::listen(Exit::Done, false).unwrap();
        let (client, connection) = (server.client(), connection(None).await);
        let settle = args(None);
        let head = settle.head(&connection, &client, &shutdown).await;
        assert_eq!(head.unwrap_err().exit, Exit::Denied);
    }
}
