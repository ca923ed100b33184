//! The source's schema, followed.

use spice_cli::{CommandError, Exit};
use spice_client::retry::Retry;
use spice_client::server::Server;
use tokio::time::{Duration, Instant, sleep};

use crate::write::Target;

/// A schema that the target refuses is written again after a transaction, but not more often.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// And when nothing is written: somebody may remove what is in the way.
const RETRY_WHEN_IDLE: Duration = Duration::from_secs(2);
/// How long somebody else may take to write it, with `--schema check`. Longer than a deployment that
/// writes both ends takes, shorter than it would hide behind a lag.
const OTHERS_WRITE_IT: Duration = Duration::from_secs(10);
/// What a server does not do to its schema while relationships exist that need it, as it names it in
/// the error's metadata (measured, SpiceDB v1.56).
const BLOCKED_BY_RELATIONSHIPS: [&str; 3] = [
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

/// A schema that the target does not take yet, because it holds relationships that the schema forbids.
#[derive(Debug)]
pub(crate) struct PendingSchema {
    revision: String,
    reason: authzed::Error,
    tried: Instant,
}

impl PendingSchema {
    /// Whether to write it again after a transaction.
    pub(crate) fn is_due(&self) -> bool {
        self.tried.elapsed() >= RETRY_AFTER
    }

    /// When to write it again while there is nothing else to write.
    pub(crate) fn due_when_idle(&self) -> Instant {
        self.tried + RETRY_WHEN_IDLE
    }

    /// What it waits for, for messages.
    pub(crate) fn describe(&self) -> String {
        format!(
            "the target does not take the schema of revision {} yet: {}",
            self.revision,
            self.reason.message()
        )
    }

    /// The error for one that was never taken.
    pub(crate) fn never_taken(&self) -> CommandError {
        CommandError::new(
            Exit::Failed,
            format!(
                "the target refuses the schema of revision {}: {}",
                self.revision,
                self.reason.message()
            ),
        )
        .hint(
            "remove the relationships that it forbids from the target, or write a schema there that allows \
             both, and run the same command again",
        )
    }
}

/// Brings the target to a schema; returns it where relationships block that.
pub(crate) async fn bring<S: Server>(
    target: &Target<S>,
    mode: SchemaPolicy,
    text: &str,
    revision: String,
    before: Option<PendingSchema>,
) -> Result<Option<PendingSchema>, CommandError> {
    let asked = Instant::now();
    let mut is_reported = false;
    let difference = loop {
        let Some(difference) = difference(target, text).await? else {
            return Ok(None);
        };
        if mode != SchemaPolicy::Check || asked.elapsed() >= OTHERS_WRITE_IT {
            break difference;
        }
        if !is_reported {
            tracing::warn!(
                "waiting until the target has the schema of revision {revision}: {difference}"
            );
            is_reported = true;
        }
        sleep(RETRY_AFTER).await;
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
        .hint("write the schema to the target, or give --schema apply, and run the same command again"));
    }
    let mut retry = Retry::new(target.max_retries());
    loop {
        let Err(error) = target.write_schema(text).await else {
            tracing::info!("wrote the schema of revision {revision}: {difference}");
            return Ok(None);
        };
        if error.is_ambiguous_for_writes() {
            target.schema_is_ambiguous()?;
        }
        if is_blocked_by_relationships(&error) {
            let pending = PendingSchema {
                revision,
                reason: error,
                tried: Instant::now(),
            };
            let text = pending.describe();
            if before.is_none_or(|before| before.describe() != text) {
                tracing::warn!("{text}");
            }
            return Ok(Some(pending));
        }
        if !error.is_transient() {
            let failure = CommandError::from(error).context(format!(
                "the target does not take the schema of revision {revision}"
            ));
            return Err(failure.hint(
                "write a schema to the target that both servers accept, and run the same command again with \
                 --schema check",
            ));
        }
        retry.pause(error, "writing the schema again").await?;
    }
}

/// Whether the schema could be written if some relationships did not exist.
fn is_blocked_by_relationships(error: &authzed::Error) -> bool {
    let operation = error.metadata().get("operation");
    operation.is_some_and(|operation| BLOCKED_BY_RELATIONSHIPS.contains(&operation.as_str()))
}

async fn difference<S: Server>(
    target: &Target<S>,
    text: &str,
) -> Result<Option<String>, CommandError> {
    let retry = Retry::new(target.max_retries());
    let read = async || target.server().read_schema().await;
    let there = retry.run("reading the target's schema again", read).await?;
    if there.as_deref() == Some(text) {
        return Ok(None);
    }
    let server = target.server();
    server.schema_difference(there.as_deref(), text).await
}

#[cfg(test)]
mod tests;
