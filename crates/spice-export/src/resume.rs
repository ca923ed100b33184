//! `--resume`: an export that continues at the checkpoint of one that was interrupted.
//!
//! Everything is in two files beside the output: `FILE.partial`, which is the beginning of the stream itself,
//! and `FILE.partial.journal` ([`crate::journal`]). Nothing has to be put together in the end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use authzed::Client;
use spice_cli::resumable::ResumableFile;
use spice_cli::{CommandError, Connection, Exit};
use spice_client::retry::Retry;
use spice_client::same_datastore::{Sameness, datastore_id};
use spice_record::digest::digest_text;
use spice_record::{Header, SnapshotWriter};

use crate::Export;
use crate::journal::{Content, Journal, JournalFile, remove_command};
use crate::plan::Plan;

/// No checkpoint sooner than this after the one before.
const SOONEST: Duration = Duration::from_millis(200);
/// Where little was written since, not before this.
const LATEST: Duration = Duration::from_secs(5);
/// What is not little, before compression.
const BYTES: u64 = 1 << 20;
/// A checkpoint takes a share of the time that is below 1 / (1 + this), whatever the disk is.
const COST: u32 = 10;

/// The files of an export, and the journal of an earlier one that it continues.
pub(crate) struct Resumable {
    file: ResumableFile,
    journal_file: JournalFile,
    content: Content,
    pub(crate) begun: Option<Journal>,
}

impl Resumable {
    /// Opens and locks the files of `--output`, and checks what an earlier run has written. No server is
    /// asked.
    pub(crate) fn open(args: &Export) -> Result<Self, CommandError> {
        let path = args.output_file().ok_or_else(|| {
            CommandError::usage("--resume: stdout cannot be resumed: --output FILE is missing")
        })?;
        let file = ResumableFile::open(path, args.compression.chosen())?;
        let journal_file = JournalFile::of(file.partial());
        let mut resumable = Self {
            file,
            journal_file,
            content: Content::of(args),
            begun: None,
        };
        resumable.continue_begun(args.at.as_deref())?;
        Ok(resumable)
    }

    fn continue_begun(&mut self, at: Option<&str>) -> Result<(), CommandError> {
        let partial = self.file.partial().to_owned();
        let shown = partial.display();
        let failed = |error: std::io::Error| CommandError::writing(Some(&partial), &error);
        let length = self.file.length().map_err(failed)?;
        let damaged = |failure: CommandError| {
            let remove = remove_command(&partial);
            failure.hint(format!(
                "none of it can be relied on; to start over at a new revision: {remove}"
            ))
        };
        // An empty file was just made, or is one of which nothing was promised.
        let journal = match length {
            0 => None,
            _ => {
                let loaded = self.journal_file.load();
                loaded.map_err(|failure| match failure.exit {
                    Exit::BadData => damaged(failure),
                    _ => failure,
                })?
            }
        };
        let Some(journal) = journal else {
            if length > 0 {
                tracing::warn!("{shown} has no journal: nothing of it is used");
            }
            self.file.restart().map_err(failed)?;
            let journal = self.journal_file.path();
            let removed = self.journal_file.remove();
            return removed.map_err(|error| CommandError::writing(Some(journal), &error));
        };
        journal.check_flags(&self.content, at, &partial)?;
        let promised = journal.bytes;
        if !self
            .file
            .continue_at(journal.checkpoint())
            .map_err(failed)?
        {
            let message = if length < promised {
                format!("{shown} is damaged: it has {length} bytes, its journal names {promised}")
            } else {
                format!(
                    "{shown} is damaged: its first {promised} bytes are not those that were written"
                )
            };
            return Err(damaged(CommandError::new(Exit::BadData, message)));
        }
        if length > promised {
            let torn = length - promised;
            tracing::info!("{shown}: dropping {torn} bytes after the last checkpoint");
        }
        self.begun = Some(journal);
        Ok(())
    }

    pub(crate) fn partial(&self) -> PathBuf {
        self.file.partial().to_owned()
    }

    /// Begins the stream, unless it continues one.
    pub(crate) fn record(self, begin: Option<Begin>) -> std::io::Result<Recording> {
        let Self {
            file,
            journal_file,
            content,
            begun,
        } = self;
        let precision = content.expiry_precision;
        let (journal, stream) = match (begun, begin) {
            (
                None,
                Some(Begin {
                    header,
                    plan,
                    endpoint,
                }),
            ) => {
                let schema = digest_text(header.schema.as_deref().unwrap_or_default());
                let revision = header.revision.clone().unwrap_or_default();
                let begun_at = header.created_at.clone();
                let stream = SnapshotWriter::create(file, header, precision)?;
                let journal = Journal {
                    begun_at,
                    endpoint,
                    header: stream.header(),
                    plan,
                    ..Journal::new(revision, schema, content)
                };
                (journal, stream)
            }
            (Some(journal), _) => {
                let (header, sum) = (journal.header, journal.sum.into());
                let stream = SnapshotWriter::resume(file, header, sum, precision);
                (journal, stream)
            }
            (None, None) => return Err(std::io::Error::other("no header")),
        };
        let mut recording = Recording {
            stream,
            journal,
            journal_file,
            pace: Pace::default(),
        };
        recording.checkpoint()?;
        Ok(recording)
    }
}

/// How a new stream begins.
#[derive(Debug)]
pub(crate) struct Begin {
    pub(crate) header: Header,
    pub(crate) plan: Plan,
    pub(crate) endpoint: String,
}

/// A stream that is written, with its journal.
pub(crate) struct Recording {
    pub(crate) stream: SnapshotWriter<ResumableFile>,
    pub(crate) journal: Journal,
    journal_file: JournalFile,
    pace: Pace,
}

impl Recording {
    /// Puts everything on the disk if it is time to. To be called between two pages.
    pub(crate) fn keep_up(&mut self) -> std::io::Result<()> {
        let written = self.stream.output().written();
        match self.pace.is_due(self.pace.last.elapsed(), written) {
            true => self.checkpoint(),
            false => Ok(()),
        }
    }

    /// Puts everything on the disk, then the journal that names it.
    pub(crate) fn checkpoint(&mut self) -> std::io::Result<()> {
        let began = Instant::now();
        let checkpoint = self.stream.output().checkpoint()?;
        self.journal.sum = self.stream.sum().stored();
        self.journal.bytes = checkpoint.bytes;
        self.journal.bytes_digest = checkpoint.digest;
        self.journal_file.save(&self.journal)?;
        self.pace = Pace {
            last: Instant::now(),
            cost: began.elapsed(),
        };
        Ok(())
    }

    /// Writes the trailer, gives the file its name, and removes the journal.
    pub(crate) fn finish(self) -> std::io::Result<spice_record::Trailer> {
        let (trailer, file) = self.stream.finish()?;
        file.finish()?;
        self.journal_file.remove()?;
        Ok(trailer)
    }
}

/// When the next checkpoint is made.
struct Pace {
    last: Instant,
    /// How long the last one took.
    cost: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            last: Instant::now(),
            cost: Duration::ZERO,
        }
    }
}

impl Pace {
    fn is_due(&self, elapsed: Duration, written: u64) -> bool {
        let least = if written < BYTES { LATEST } else { SOONEST };
        elapsed >= least.max(self.cost * COST)
    }
}

/// Makes sure that the server still has the revision of a journal, and that it is the same server.
pub(crate) async fn check_source(
    journal: &Journal,
    connection: &Connection,
    client: &Client,
) -> Result<(), CommandError> {
    let endpoint = connection.endpoint();
    let (revision, begun_at) = (&journal.revision, &journal.begun_at);
    let read = client.read_schema().await?;
    if let Some(read) = &read {
        match Sameness::of(revision, &read.read_at) {
            Sameness::Same(_) => {}
            Sameness::Different => return Err(other_datastore(journal, &read.read_at, endpoint)),
            // Nothing names the datastore, and another one may have this number of a revision.
            Sameness::Unknown | Sameness::HalfKnown if journal.endpoint != endpoint => {
                let began = &journal.endpoint;
                return Err(CommandError::usage(format!(
                    "the export was begun at {began}, and whether {endpoint} is the same datastore cannot be \
                     known: its zedtokens do not name one (SpiceDB v1.45 and older)"
                ))
                .hint("give the endpoint with which it was begun"));
            }
            Sameness::Unknown | Sameness::HalfKnown => {}
        }
        if !journal.content.omits_schema() && digest_text(&read.text) != journal.schema {
            tracing::info!(
                "the schema of {endpoint} has changed since: the export has that of its revision"
            );
        }
    }
    let exists = async || client.check_revision_exists(revision).await;
    let checked = Retry::new(connection.max_retries)
        .run("checking that the revision still exists", exists)
        .await;
    checked.map_err(|failure| match failure.exit {
        Exit::HistoryLost => failure.context(format!(
            "the export that was begun at {begun_at} cannot be resumed: {endpoint} has revision {revision} no more"
        )),
        _ => failure,
    })
}

fn other_datastore(journal: &Journal, head: &str, endpoint: &str) -> CommandError {
    let id = |token: &str| datastore_id(token).unwrap_or_else(|| "unnamed".to_owned());
    let (began, now) = (id(&journal.revision), id(head));
    let before = &journal.endpoint;
    CommandError::usage(format!(
        "the export was begun from datastore {began} behind {before}, and {endpoint} is datastore {now}"
    ))
    .hint(
        "is it the right --context or --endpoint? A memory datastore is another one after each start of its \
         server",
    )
}

/// Adds to a failure what to do about what was kept. After a signal, which is no failure, that is reported.
pub(crate) fn kept(failure: CommandError, partial: &Path, count: u64) -> CommandError {
    let kept = format!("{count} relationships are in {}", partial.display());
    match failure.exit {
        Exit::Usage | Exit::BadData => failure,
        Exit::HistoryLost => failure.also(format!(
            "{kept}, of no use any more; to start over at a new revision: {}",
            remove_command(partial)
        )),
        _ if failure.interruption().is_some() => {
            tracing::info!("interrupted: {kept}; the same command resumes");
            failure
        }
        _ => failure.also(format!(
            "{kept}: the same command resumes, as long as the server has the revision \
             (--datastore-gc-window)"
        )),
    }
}

#[cfg(test)]
mod tests;
