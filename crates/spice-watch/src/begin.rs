//! Where a stream begins, and what has to be true before.

use std::path::Path;
use std::time::Duration;

use authzed::v1::Consistency;
use authzed::zedtoken;
use authzed::{Client, DatastoreKind, Kind};
use spice_cli::Connection;
use spice_cli::connection::unblocked;
use spice_cli::quote::quoted;
use spice_cli::{CommandError, Exit, VERSION, stdio};
use spice_client::retry::Retry;
use spice_client::same_datastore::datastore_id;
use spice_client::schema;
use spice_client::settle::INTEGER_SETTLE;
use spice_record::Header;
use spice_record::record::{Filter, StreamKind};
use spice_spool::find_revision;
use spice_spool::{Spool, SpoolTail, SpoolWriter};
use tokio::time::Instant;

use crate::contended::Contended;
use crate::{Watch, history};

/// Everything that is known before the Watch is opened.
pub(crate) struct Start {
    pub(crate) client: Client,
    pub(crate) max_retries: usize,
    pub(crate) since: String,
    /// To be written, unless a spool is continued.
    pub(crate) header: Option<Header>,
    pub(crate) schema: Option<String>,
    pub(crate) spool_writer: Option<SpoolWriter>,
    pub(crate) settle: Duration,
    /// The spool, if it is continued.
    pub(crate) continued: Option<Spool>,
    pub(crate) contended: Option<Contended>,
    pub(crate) kind: DatastoreKind,
}

impl Watch {
    pub(crate) async fn begin(&self) -> Result<Start, CommandError> {
        let connection = self.common.connection.resolve().await?;
        if self.spool.is_none() && self.since.is_none() && self.since_file.is_none() {
            return Err(
                CommandError::usage("no revision to begin after: --since ZEDTOKEN").hint(
                    "spice-revision prints that of a stream, or a server's newest with --head",
                ),
            );
        }
        let client = self
            .unknown
            .apply(spice_client::connect(&connection).await?);
        let max_memory = usize::try_from(self.max_memory).unwrap_or(usize::MAX);
        let mut client = client.max_transaction(max_memory);
        let endpoint = connection.endpoint();
        if !client.offers().checkpoints {
            return Err(no_checkpoints(endpoint));
        }
        let head = client.head().await?;
        let kind = spice_client::datastore::kind_of_server(&connection, &client, &head).await?;
        refuse_unless_followable(kind, endpoint)?;
        let spool = self.spool.as_deref().map(Spool::new);
        let (spool_writer, tail) = match &spool {
            Some(spool) => {
                let (spool_writer, tail) = SpoolWriter::open(spool, self.spool_segment)?;
                (Some(spool_writer), tail)
            }
            None => (None, None),
        };
        let since = self.start(&head, endpoint, tail.as_ref()).await?;
        self.check_types(&client).await?;
        self.check_until(&head)?;
        if let Some(tail) = &tail {
            tracing::info!(
                "resuming after revision {}, where the spool ends",
                tail.revision
            );
        }
        let read = self.check_start(&mut client, &connection, &since).await?;
        if let Some(spool) = &spool {
            spool.clear_lost();
        }
        tracing::info!("watching {endpoint} after revision {since}");
        let (header, schema) = match tail {
            Some(tail) => (None, tail.schema),
            None => (Some(self.header(&since, read.clone())), read),
        };
        let settle = self.settle.duration(kind);
        Ok(Start {
            max_retries: connection.max_retries,
            settle,
            continued: spool.filter(|_| header.is_none()),
            contended: self.contended(kind, settle),
            kind,
            client,
            since,
            header,
            schema,
            spool_writer,
        })
    }

    /// What has to be read, where the order of revisions is not that of effects.
    fn contended(&self, kind: DatastoreKind, settle: Duration) -> Option<Contended> {
        if !kind.needs_contended_reads() {
            return None;
        }
        let settle = match (settle.is_zero(), &self.until) {
            (false, _) => settle,
            (true, Some(_)) => INTEGER_SETTLE,
            (true, None) => {
                tracing::warn!(
                    "--settle 0s: this source numbers transactions when they begin, so one that is delivered \
                     later may have come first: relationships that were revoked may come back on a \
                     target, and late transactions are missing"
                );
                return None;
            }
        };
        let must_reread = kind.reads_are_doubtful();
        Some(Contended::new(settle, must_reread, Instant::now()))
    }

    /// Where to begin: where the spool ends, else at the file's revision, else at the flag's.
    async fn start(
        &self,
        head: &str,
        endpoint: &str,
        tail: Option<&SpoolTail>,
    ) -> Result<String, CommandError> {
        let here = datastore_id(head);
        let is_here = |token: &String| datastore_id(token) == here;
        if let Some(tail) = tail {
            check_filter(tail.header.filter.as_ref(), self.filter.filter().as_ref())?;
            if !is_here(&tail.revision) {
                return Err(other_datastore("the spool", &tail.revision, endpoint));
            }
            return Ok(tail.revision.clone());
        }
        let file = self.since_file.as_deref();
        // Of a spool the first segment may have been pruned.
        let is_there = |file: &Path| file.exists() || Spool::new(file).newest_segment().is_some();
        let Some(file) = file.filter(|file| self.since.is_none() || is_there(file)) else {
            if self.skip_applied.is_some() {
                return Err(start_not_after_load());
            }
            return self.since.clone().ok_or_else(|| {
                CommandError::usage(
                    "the spool is new: give the revision after which it begins, --since ZEDTOKEN",
                )
            });
        };
        let path = file.to_owned();
        let found = unblocked(move || find_revision::find(&path)).await?;
        check_same_part(file, found.filter.as_ref(), self.filter.filter().as_ref())?;
        // Of a summary or a position, the other end's revision may be the one that belongs here: that
        // is how changes travel back.
        if here.is_none()
            && let (Some(source), Some(target)) = (&found.source, &found.target)
            && source != target
            && datastore_id(source).is_none()
            && datastore_id(target).is_none()
        {
            let name = stdio::name(file);
            return Err(CommandError::usage(format!(
                "which of the two revisions in {name} belongs to {endpoint} cannot be known: its zedtokens name \
                 no datastore (SpiceDB v1.45 and older)"
            ))
            .hint(format!(
                "--since \"$(spice-revision {})\" for what was read, or with spice-revision --target for \
                 what was written",
                quoted(file)
            )));
        }
        if let Some(target) = found.target.filter(is_here) {
            return Ok(target);
        }
        if self.skip_applied.is_some() {
            return Err(start_not_after_load());
        }
        let Some(source) = found.source else {
            let name = stdio::name(file);
            return Err(CommandError::usage(format!("{name}: no revision in it")));
        };
        if !is_here(&source) {
            let name = format!("--since-file {}", file.display());
            return Err(other_datastore(&name, &source, endpoint));
        }
        Ok(source)
    }

    async fn check_types(&self, client: &Client) -> Result<(), CommandError> {
        if self.filter.types.is_empty() {
            return Ok(());
        }
        let mut known = schema::definitions(client, Consistency::fully_consistent()).await?;
        known.sort();
        self.filter.check_types(&known)
    }

    fn check_until(&self, head: &str) -> Result<(), CommandError> {
        let Some(until) = &self.until else {
            return Ok(());
        };
        if datastore_id(until) != datastore_id(head) {
            return Err(CommandError::usage(
                "--until: this revision belongs to another datastore than the server's",
            ));
        }
        let decoded = zedtoken::decode(until).map(|decoded| decoded.revision);
        if decoded
            .as_ref()
            .is_ok_and(|revision| !revision.can_be_awaited())
        {
            return Err(CommandError::usage(
                "--until: this revision names no transaction that could be waited for",
            )
            .hint("on PostgreSQL only a written revision does: use spice-revision --mark"));
        }
        if !matches!(decoded, Ok(ref revision) if revision.form() != "unknown") {
            tracing::warn!(
                "--until: a revision of unknown form can only be waited for by equality"
            );
        }
        Ok(())
    }

    /// The history after the start must be there, before anything is written. Gives the schema.
    async fn check_start(
        &self,
        client: &mut Client,
        connection: &Connection,
        since: &str,
    ) -> Result<Option<String>, CommandError> {
        let mut retry = Retry::new(connection.max_retries);
        loop {
            let read = async {
                client.check_revision_exists(since).await?;
                client.read_schema().await
            };
            match read.await {
                Ok(schema) => return Ok(schema.map(|schema| schema.text)),
                Err(error) if error.kind() == Kind::HistoryLost => {
                    let failure = history::lost(error, since);
                    self.record_history_lost(&failure);
                    return Err(failure);
                }
                Err(error) => retry.pause(error, "looking for the revision again").await?,
            }
            *client = client.reconnect();
        }
    }

    fn header(&self, since: &str, schema: Option<String>) -> Header {
        Header {
            revision: Some(since.to_owned()),
            schema,
            filter: self.filter.filter(),
            ..Header::new(
                StreamKind::Changes,
                format!("spice-watch {VERSION}"),
                jiff::Timestamp::now().to_string(),
            )
        }
    }
}

/// A spool is continued with the filter that it has: a part of a stream that lacks what another one let through
/// would look complete.
fn check_filter(spool: Option<&Filter>, asked: Option<&Filter>) -> Result<(), CommandError> {
    if spool == asked {
        return Ok(());
    }
    Err(CommandError::usage(format!(
        "the spool holds the changes of {}, and not of {}",
        Filter::described(spool),
        Filter::described(asked)
    ))
    .hint("--type and --resource-prefix must stay what they were; for others give another --spool"))
}

/// What continues a part of a source is the changes of that part: others would write to the target what it was
/// never meant to hold, or leave out what it holds. A file without a filter can be a summary, which names none.
fn check_same_part(
    file: &Path,
    found: Option<&Filter>,
    asked: Option<&Filter>,
) -> Result<(), CommandError> {
    if found.is_none() || found == asked {
        return Ok(());
    }
    let name = stdio::name(file);
    Err(CommandError::usage(format!(
        "{name} is of {}, and these would be the changes of {}",
        Filter::described(found),
        Filter::described(asked)
    ))
    .hint("give the same --type and --resource-prefix")
    .also(format!(
        "for another part on purpose: --since \"$(spice-revision {})\"",
        quoted(file)
    )))
}

/// Its Watch delivers changes only. While it is silent its progress is unknown, and with it the end of a
/// migration and the revision to resume from.
fn no_checkpoints(endpoint: &str) -> CommandError {
    CommandError::new(
        Exit::Failed,
        format!(
            "{endpoint} cannot be followed: its Watch has no checkpoints (SpiceDB v1.44 has them), so \
             where its changes end cannot be known"
        ),
    )
    .hint(
        "upgrade it first; or stop its writers, copy it with spice-export | spice-import, prove it with \
         spice-digest on both ends, and switch",
    )
}

/// A follower of Spanner would make expiring relationships permanent, and wait for ever at its end.
fn refuse_unless_followable(kind: DatastoreKind, endpoint: &str) -> Result<(), CommandError> {
    match kind.can_be_followed() {
        Some(true) => Ok(()),
        Some(false) => Err(CommandError::new(
            Exit::Failed,
            format!(
                "{endpoint} is on {kind}, which cannot be followed: its Watch leaves the expiry of \
                 relationships out, and a change of the expiry alone is no event"
            ),
        )
        .hint(
            "stop all writes to it and copy: spice-export | spice-import; compare with spice-diff, then \
             switch; spice-migrate does that with plan --fenced",
        )),
        None => Err(CommandError::usage(format!(
            "{endpoint} is in memory or on Spanner, and its answers do not show which; Spanner cannot be \
             followed"
        ))
        .hint(
            "name it: --datastore memory|spanner, SPICE_DATASTORE, or datastore = \"...\" in the \
             context",
        )),
    }
}

fn start_not_after_load() -> CommandError {
    CommandError::usage(
        "--skip-applied needs a start that is known to be after the load: --since-file",
    )
    .hint(
        "give what spice-import or spice-apply printed when it wrote to this server, or its \
             position file: changes from before would bring back what was revoked since",
    )
}

fn other_datastore(what: &str, token: &str, endpoint: &str) -> CommandError {
    let theirs = datastore_id(token).unwrap_or_default();
    CommandError::new(
        Exit::Failed,
        format!(
            "{what} names a revision of another datastore ({theirs}) than that behind {endpoint}"
        ),
    )
    .hint("check --context or --endpoint: a revision is good only where it was made")
}

#[cfg(test)]
mod tests;
