//! Which kind of datastore is behind a server: as its revisions show, as `--datastore` declares, or as
//! the server answers.

use authzed::zedtoken;
use authzed::{Client, DatastoreKind, HeadObserver};
use spice_record::ExpiryPrecision;

use spice_cli::CommandError;
use spice_cli::Connection;

/// The kind, as far as the form of one of the server's revisions and `--datastore` show it.
///
/// # Errors
///
/// Exit 2 where they contradict each other.
pub fn kind_by_form(connection: &Connection, token: &str) -> Result<DatastoreKind, CommandError> {
    agreed(connection, DatastoreKind::of_token(token))
}

/// The kind; where the form leaves memory or Spanner, the server is asked for some more heads. That
/// can end undecided, as [`DatastoreKind::MemoryOrSpanner`], unless it is declared.
///
/// # Errors
///
/// Exit 2 where `--datastore` contradicts the form or the answers; the server's.
pub async fn kind_of_server(
    connection: &Connection,
    client: &Client,
    head: &str,
) -> Result<DatastoreKind, CommandError> {
    let form = DatastoreKind::of_token(head);
    let kind = agreed(connection, form)?;
    match form {
        DatastoreKind::MemoryOrSpanner => agreed(connection, ask(client, head).await?),
        _ => Ok(kind),
    }
}

/// What was found, or what is declared, if that does not contradict it.
fn agreed(connection: &Connection, found: DatastoreKind) -> Result<DatastoreKind, CommandError> {
    match connection.datastore {
        None => Ok(found),
        Some(declared) if found.allows(declared) => Ok(declared),
        Some(declared) => Err(contradicted(connection.endpoint(), declared, found)),
    }
}

/// Asks for heads until they distinguish memory from Spanner, or it is plain that they do not.
async fn ask(client: &Client, head: &str) -> Result<DatastoreKind, CommandError> {
    let mut observer = HeadObserver::default();
    let mut token = head.to_owned();
    loop {
        let Ok(decoded) = zedtoken::decode(&token) else {
            return Ok(DatastoreKind::Unknown);
        };
        if let Some(kind) = observer.observe(&decoded.revision) {
            return Ok(kind);
        }
        token = client.head().await?;
    }
}

fn contradicted(endpoint: &str, declared: DatastoreKind, found: DatastoreKind) -> CommandError {
    CommandError::usage(format!(
        "{endpoint} is declared to keep its relationships in {declared} (--datastore {}), but its \
         revisions are those of {found}",
        declared.name()
    ))
    .hint("correct --datastore, SPICE_DATASTORE or the context's datastore, or leave it out")
}

/// At which precision relationships of a datastore can be compared.
#[must_use]
pub fn expiry_precision(kind: DatastoreKind) -> ExpiryPrecision {
    match kind.expiry_resolution() {
        Some(1_000_000_000..) => ExpiryPrecision::Seconds,
        _ => ExpiryPrecision::Micros,
    }
}

#[cfg(test)]
mod tests {
    use authzed::DatastoreKind;
    use authzed::v1::ZedToken;
    use spice_cli::Exit;
    use spice_record::ExpiryPrecision;
    use testserver::{READ_SCHEMA, Reply, Server, schema_response, token, token_of};

    use super::*;
    use crate::tests::connection;

    #[test]
    fn only_mysql_is_compared_to_the_second() {
        let kinds = DatastoreKind::DECLARABLE.into_iter();
        let seconds = kinds.filter(|kind| expiry_precision(*kind) == ExpiryPrecision::Seconds);
        assert_eq!(seconds.collect::<Vec<_>>(), [DatastoreKind::MySql]);
    }

    const NANOS: u64 = 1_795_415_107_142_502_000;

    /// The kind of a server with these heads in turn; the last one remains.
    async fn kind(
        declared: Option<DatastoreKind>,
        heads: &[u64],
    ) -> (Result<DatastoreKind, Exit>, usize) {
        let server = Server::new();
        server.script(
            READ_SCHEMA,
            heads.iter().skip(usize::from(heads.len() > 1)).map(|head| {
                let mut response = schema_response("one", 0);
                let token = token(*head);
                response.read_at = Some(ZedToken { token });
                Reply::message(&response)
            }),
        );
        let (client, connection) = (server.client(), connection(declared).await);
        let first = token(heads[0]);
        let kind = kind_of_server(&connection, &client, &first).await;
        (
            kind.map_err(|failure| failure.exit),
            server.calls(READ_SCHEMA),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn form_that_decides_needs_no_request() {
        assert_eq!(kind(None, &[7]).await, (Ok(DatastoreKind::MySql), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_known_by_two_equal_heads() {
        let (found, calls) = kind(None, &[NANOS + 1]).await;
        assert_eq!(found, Ok(DatastoreKind::Memory));
        assert_eq!(calls, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn spanner_is_known_by_heads_that_always_move() {
        let moving: Vec<u64> = (0..20).map(|n| NANOS + n * 1_000).collect();
        assert_eq!(kind(None, &moving).await.0, Ok(DatastoreKind::Spanner));
    }

    #[tokio::test(start_paused = true)]
    async fn declaration_that_contradicts_form_or_answers_is_refused() {
        let postgres = Some(DatastoreKind::Postgres);
        assert_eq!(kind(postgres, &[7]).await, (Err(Exit::Usage), 0));
        let spanner = Some(DatastoreKind::Spanner);
        assert_eq!(kind(spanner, &[NANOS + 1]).await.0, Err(Exit::Usage));
        let memory = Some(DatastoreKind::Memory);
        assert_eq!(
            kind(memory, &[NANOS + 1]).await.0,
            Ok(DatastoreKind::Memory)
        );
    }

    #[tokio::test]
    async fn refusal_names_both_and_the_ways_to_declare() {
        let connection = connection(Some(DatastoreKind::MySql)).await;
        let postgres = token_of("CLsG", "aaaaaaaa");
        let failure = kind_by_form(&connection, &postgres).unwrap_err();
        assert!(
            failure.message().contains("--datastore mysql"),
            "{failure:?}"
        );
        assert!(failure.hint_text().contains("SPICE_DATASTORE"));
        assert_eq!(
            kind_by_form(&connection, &token(7)).unwrap(),
            DatastoreKind::MySql
        );
    }
}
