//! Chooses the revision, and proves that the schema's text belongs to it.

use authzed::Client;
use authzed::v1::Consistency;
use spice_cli::Connection;
use spice_cli::{CommandError, Exit, Shutdown, VERSION};
use spice_client::retry::Retry;
use spice_client::schema;
use spice_record::record::{Header, StreamKind};

use crate::Export;

/// How often a schema may change during the attempts before that is an error.
const SCHEMA_TRIES: usize = 3;

pub(crate) struct Snapshot {
    pub(crate) revision: String,
    pub(crate) schema: String,
}

/// Takes the revision given with `--at`, or the head once it has settled, with the schema there.
///
/// ReadSchema gives only the newest text. DiffSchema at exactly the revision shows whether that text
/// is also the revision's. A server without it is asked for the text once more, when the revision has been
/// taken and has settled: a text that is still the same was the revision's.
pub(crate) async fn choose_revision(
    args: &Export,
    connection: &Connection,
    client: &Client,
    shutdown: &Shutdown,
) -> Result<Snapshot, CommandError> {
    let endpoint = connection.endpoint();
    if args.at.is_some() && !args.no_schema && !client.offers().schema_at_revision() {
        return Err(CommandError::usage(format!(
            "--at: {endpoint} does not report what schema an older revision had (SpiceDB v1.40 can)"
        ))
        .hint("leave out --at to take the newest revision, or the schema with --no-schema"));
    }
    for _ in 0..SCHEMA_TRIES {
        let Some(read) = client.read_schema().await? else {
            return Err(
                CommandError::new(Exit::Failed, format!("{endpoint} has no schema"))
                    .hint("there is nothing to export: is this the right server?"),
            );
        };
        let revision = match &args.at {
            Some(revision) => {
                let kind = spice_client::datastore::kind_by_form(connection, revision)?;
                if args.settle.settle.is_some() {
                    args.settle.wait(connection, kind, shutdown).await;
                }
                revision.clone()
            }
            None => {
                let kind =
                    spice_client::datastore::kind_of_server(connection, client, &read.read_at)
                        .await?;
                args.settle.wait(connection, kind, shutdown).await;
                read.read_at
            }
        };
        let different = async {
            if args.no_schema {
                client.check_revision_exists(&revision).await?;
                return Ok(None);
            }
            let at = Consistency::at_exact(&revision);
            schema::differences(client, at, &read.text).await
        };
        let different = different.await.map_err(|failure: CommandError| {
            // An older token of this server, or none of its own at all: it does not say which.
            match &args.at {
                Some(_) => failure.hint("--at takes a zedtoken that this server has given out"),
                None => failure,
            }
        })?;
        let Some(difference) = different else {
            return Ok(Snapshot {
                revision,
                schema: read.text,
            });
        };
        if args.at.is_some() {
            return Err(CommandError::new(
                Exit::Failed,
                format!("the schema of {endpoint} changed after revision {revision}: {difference}"),
            )
            .hint("take a new revision: the API gives the text of the newest schema only"));
        }
        tracing::warn!("the schema of {endpoint} changes ({difference}); taking a newer revision");
    }
    Err(CommandError::new(
        Exit::Failed,
        format!("the schema of {endpoint} changed {SCHEMA_TRIES} times while it was read"),
    )
    .hint("export again when nobody writes the schema"))
}

/// Checks that the server still has the revision after all of it was read. PostgreSQL ends an export
/// early and without an error when its revision expires meanwhile (SpiceDB v1.56).
pub(crate) async fn confirm(
    client: &Client,
    revision: &str,
    max_retries: usize,
) -> Result<(), CommandError> {
    let exists = async || client.check_revision_exists(revision).await;
    let checked = Retry::new(max_retries)
        .run("checking that the revision still exists", exists)
        .await;
    checked.map_err(|failure| match failure.exit {
        Exit::HistoryLost => {
            failure.context("the revision expired during its export, which may be incomplete")
        }
        _ => failure,
    })
}

/// The definitions to read: those of the schema, or those asked for, all of which it must have. `None` where
/// everything is read in one stream.
pub(crate) async fn definitions(
    args: &Export,
    client: &Client,
    revision: &str,
) -> Result<Option<Vec<String>>, CommandError> {
    let asked_for = &args.filter.types;
    if asked_for.is_empty() && args.jobs == 1 {
        return Ok(None);
    }
    let known = schema::definitions(client, Consistency::at_exact(revision)).await?;
    args.filter.check_types(&known)?;
    let is_asked_for = |name: &String| asked_for.is_empty() || asked_for.contains(name);
    Ok(Some(known.into_iter().filter(is_asked_for).collect()))
}

pub(crate) fn header(args: &Export, snapshot: &Snapshot) -> Header {
    Header {
        revision: Some(snapshot.revision.clone()),
        schema: (!args.no_schema).then(|| snapshot.schema.clone()),
        filter: args.filter.filter(),
        ..Header::new(
            StreamKind::Snapshot,
            format!("spice-export {VERSION}"),
            jiff::Timestamp::now().to_string(),
        )
    }
}

#[cfg(test)]
mod tests;
