//! The schema of the stream and that of the target.

use authzed::Client;
use authzed::v1::Consistency;
use spice_pipe::{Exit, Failure, schema::differences};

use crate::SchemaMode;

/// Brings the target's schema to the stream's, or proves them equal, as `mode` asks for (`None`: write
/// where there is none, else they must be equal).
pub(crate) async fn settle(
    client: &Client,
    endpoint: &str,
    schema: Option<&str>,
    mode: Option<SchemaMode>,
    dry_run: bool,
) -> Result<(), Failure> {
    if mode == Some(SchemaMode::Skip) {
        return Ok(());
    }
    let Some(schema) = schema else {
        return match mode {
            None => Ok(()),
            Some(_) => Err(Failure::usage("--schema: the stream carries no schema")
                .hint("leave --schema out to load only the relationships")),
        };
    };
    let there = client.read_schema().await?;
    let write = match (&there, mode) {
        (None, Some(SchemaMode::Check)) => {
            return Err(
                Failure::new(Exit::Failed, format!("{endpoint} has no schema"))
                    .hint("--schema write writes the stream's"),
            );
        }
        (None, _) => true,
        (Some(there), _) if there.text == schema => {
            tracing::debug!("the schema of {endpoint} is the stream's");
            return Ok(());
        }
        (Some(_), mode) => {
            let here = Consistency::fully_consistent();
            let Some(difference) = differences(client, here, schema).await? else {
                tracing::debug!("the schema of {endpoint} is the stream's, spelled differently");
                return Ok(());
            };
            if mode != Some(SchemaMode::Write) {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("the schema of {endpoint} is not the stream's: {difference}"),
                )
                .hint(
                    "--schema write changes the target's schema, --schema skip leaves it as it is",
                ));
            }
            true
        }
    };
    if !write || dry_run {
        return Ok(());
    }
    client.write_schema(schema).await?;
    // The text is normalised by the server; another version may spell it differently.
    let same = client
        .read_schema()
        .await?
        .is_some_and(|there| there.text == schema);
    let here = Consistency::fully_consistent();
    if !same && let Some(difference) = differences(client, here, schema).await? {
        return Err(Failure::new(
            Exit::Failed,
            format!("{endpoint} took the schema, but reads it back differently: {difference}"),
        ));
    }
    tracing::info!("wrote the schema to {endpoint}");
    Ok(())
}
