//! The schema of the stream and that of the target.

use authzed::Client;
use authzed::v1::Consistency;
use spice_cli::{CommandError, Exit};
use spice_client::schema::{differences, uses_expiration};

use crate::SchemaMode;

/// Whether the stream's schema is to be written to the target, as `mode` asks for (`None`: write where
/// there is none, else they must be equal). Writes nothing.
pub(crate) async fn is_to_be_written(
    client: &Client,
    endpoint: &str,
    schema: Option<&str>,
    mode: Option<SchemaMode>,
) -> Result<bool, CommandError> {
    if mode == Some(SchemaMode::Skip) {
        return Ok(false);
    }
    let Some(schema) = schema else {
        return match mode {
            None => Ok(false),
            Some(_) => Err(
                CommandError::usage("--schema: the stream carries no schema")
                    .hint("leave --schema out to load only the relationships"),
            ),
        };
    };
    let there = client.read_schema().await?;
    match (&there, mode) {
        (None, Some(SchemaMode::Check)) => Err(CommandError::new(
            Exit::Failed,
            format!("{endpoint} has no schema"),
        )
        .hint("--schema write writes the stream's")),
        (None, _) => is_known(client, endpoint, schema).map(|()| true),
        (Some(there), _) if there.text == schema => {
            tracing::debug!("the schema of {endpoint} is the stream's");
            Ok(false)
        }
        (Some(_), mode) => {
            is_known(client, endpoint, schema)?;
            let here = Consistency::fully_consistent();
            let Some(difference) = differences(client, here, schema).await? else {
                tracing::debug!("the schema of {endpoint} is the stream's, spelled differently");
                return Ok(false);
            };
            if mode != Some(SchemaMode::Write) {
                return Err(CommandError::new(
                    Exit::Failed,
                    format!("the schema of {endpoint} is not the stream's: {difference}"),
                )
                .hint(
                    "--schema write changes the target's schema, --schema skip leaves it as it is",
                ));
            }
            Ok(true)
        }
    }
}

/// Whether the target's version has what the schema uses. Otherwise its error would be that it does not parse, and only
/// when it is written.
fn is_known(client: &Client, endpoint: &str, schema: &str) -> Result<(), CommandError> {
    if client.offers().expiry || !uses_expiration(schema) {
        return Ok(());
    }
    Err(CommandError::new(
        Exit::Failed,
        format!("{endpoint} does not know `use expiration`, which the stream's schema has"),
    )
    .hint("SpiceDB v1.40 and newer have it: upgrade the target first"))
}

/// Writes the stream's schema to the target, and reads it back.
pub(crate) async fn write(
    client: &Client,
    endpoint: &str,
    schema: &str,
) -> Result<(), CommandError> {
    client.write_schema(schema).await?;
    // The text is normalised by the server; another version may spell it differently.
    let same = client
        .read_schema()
        .await?
        .is_some_and(|there| there.text == schema);
    let here = Consistency::fully_consistent();
    if !same && let Some(difference) = differences(client, here, schema).await? {
        return Err(CommandError::new(
            Exit::Failed,
            format!("{endpoint} took the schema, but reads it back differently: {difference}"),
        ));
    }
    tracing::info!("wrote the schema to {endpoint}");
    Ok(())
}
