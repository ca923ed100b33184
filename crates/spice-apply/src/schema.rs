//! The source's schema, followed.

use authzed::Client;
use authzed::v1::Consistency;
use spice_cli::{CommandError, Exit};
use spice_client::retry::Retry;
use spice_client::schema;
use tokio::time::{Duration, Instant, sleep};

use crate::write::Target;

/// A schema that the target refuses is offered again after a transaction, but not more often.
const AGAIN: Duration = Duration::from_millis(200);
/// And when nothing is written: somebody may mend it by hand.
const AGAIN_WHEN_IDLE: Duration = Duration::from_secs(2);
/// How long somebody else may take to write it, with `--schema check`. Longer than a deployment that
/// writes both ends takes, shorter than it would hide behind a lag.
const OTHERS_WRITE_IT: Duration = Duration::from_secs(10);
/// What a server does not do to its schema while relationships stand against it, as it names it in
/// the error's metadata (measured, SpiceDB v1.56).
const RELATIONSHIPS_AGAINST_IT: [&str; 3] = [
    "delete_object_definition",
    "delete_relation",
    "remove_allowed_type",
];

/// `--schema`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SchemaPolicy {
    /// Write it to the target.
    Apply,
    /// Wait until somebody else has written it to the target; after 10 s end with 75.
    Check,
    /// Stop, unless the target has it already.
    Stop,
}

/// A schema that the target does not take yet, because relationships stand against it.
pub(crate) struct PendingSchema {
    revision: String,
    reason: authzed::Error,
    tried: Instant,
}

impl PendingSchema {
    /// Whether to offer it again after a transaction.
    pub(crate) fn is_due(&self) -> bool {
        self.tried.elapsed() >= AGAIN
    }

    /// When to offer it again while there is nothing to write.
    pub(crate) fn due_when_idle(&self) -> Instant {
        self.tried + AGAIN_WHEN_IDLE
    }

    /// What waits for it.
    pub(crate) fn text_of_wait(&self) -> String {
        format!(
            "the target does not take the schema of revision {} yet: {}",
            self.revision,
            self.reason.message()
        )
    }

    /// What it means that it was never taken.
    pub(crate) fn unmended(&self) -> CommandError {
        CommandError::new(
            Exit::Failed,
            format!(
                "the target refuses the schema of revision {}: {}",
                self.revision,
                self.reason.message()
            ),
        )
        .hint(
            "remove what stands against it on the target, or write a schema there that both can live \
             with, and run the same command again",
        )
    }
}

/// Brings the target to a schema; gives it back where relationships stand against it.
pub(crate) async fn bring(
    target: &Target,
    mode: SchemaPolicy,
    text: &str,
    revision: String,
    before: Option<PendingSchema>,
    max_retries: usize,
) -> Result<Option<PendingSchema>, CommandError> {
    let asked = Instant::now();
    let mut told = false;
    let difference = loop {
        let Some(difference) = difference(&target.client(), text, max_retries).await? else {
            return Ok(None);
        };
        if mode != SchemaPolicy::Check || asked.elapsed() >= OTHERS_WRITE_IT {
            break difference;
        }
        if !told {
            tracing::warn!(
                "waiting until the target has the schema of revision {revision}: {difference}"
            );
            told = true;
        }
        sleep(AGAIN).await;
    };
    if mode != SchemaPolicy::Apply {
        let (mode, exit) = match mode {
            SchemaPolicy::Check => ("check", Exit::TryAgain),
            _ => ("stop", Exit::Failed),
        };
        return Err(CommandError::new(
            exit,
            format!(
                "the source's schema changed at revision {revision}, and the target's differs from it: \
                 {difference} (--schema {mode})"
            ),
        )
        .hint("write the schema to the target, or say --schema apply, and run the same command again"));
    }
    let mut retry = Retry::new(max_retries);
    loop {
        let Err(error) = target.write_schema(text).await else {
            tracing::info!("wrote the schema of revision {revision}: {difference}");
            return Ok(None);
        };
        if error.is_ambiguous_for_writes() {
            target.schema_is_ambiguous()?;
        }
        if waits_for_relationships(&error) {
            let held = PendingSchema {
                revision,
                reason: error,
                tried: Instant::now(),
            };
            let word = held.text_of_wait();
            if before.is_none_or(|before| before.text_of_wait() != word) {
                tracing::warn!("{word}");
            }
            return Ok(Some(held));
        }
        if !error.is_transient() {
            let failure = CommandError::from(error).context(format!(
                "the target does not take the schema of revision {revision}"
            ));
            return Err(failure.hint(
                "write a schema to the target that both servers can live with, and run the same \
                 command again with --schema check",
            ));
        }
        retry.pause(error, "writing the schema again").await?;
    }
}

/// Whether the schema could be written if some relationships were not there.
fn waits_for_relationships(error: &authzed::Error) -> bool {
    let operation = error.metadata().get("operation");
    operation.is_some_and(|operation| RELATIONSHIPS_AGAINST_IT.contains(&operation.as_str()))
}

async fn difference(
    client: &Client,
    text: &str,
    max_retries: usize,
) -> Result<Option<String>, CommandError> {
    let mut retry = Retry::new(max_retries);
    loop {
        let there = match client.read_schema().await {
            Ok(there) => there.map(|schema| schema.text),
            Err(error) => {
                retry
                    .pause(error, "reading the target's schema again")
                    .await?;
                continue;
            }
        };
        if there.as_deref() == Some(text) {
            return Ok(None);
        }
        let at = Consistency::fully_consistent();
        return schema::difference(client, at, there.as_deref(), text).await;
    }
}
