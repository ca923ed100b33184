//! Which kind of datastore is behind a server: as its revisions tell, as `--datastore` declares, or as
//! the server answers.

use authzed::zedtoken;
use authzed::{Client, DatastoreKind, HeadObserver};
use spice_record::ExpiryPrecision;

use spice_cli::CommandError;
use spice_cli::Connection;

/// The kind, as far as the form of one of the server's revisions and `--datastore` tell it.
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

/// Asks for heads until they tell memory from Spanner, or it is plain that they do not.
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
    use spice_record::ExpiryPrecision;

    use super::expiry_precision;

    #[test]
    fn only_mysql_is_compared_to_the_second() {
        let kinds = DatastoreKind::DECLARABLE.into_iter();
        let seconds = kinds.filter(|kind| expiry_precision(*kind) == ExpiryPrecision::Seconds);
        assert_eq!(seconds.collect::<Vec<_>>(), [DatastoreKind::MySql]);
    }
}
