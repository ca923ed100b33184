//! `spice-export`: schema and all relationships at one exact revision, as a snapshot stream.
//!
//! [`snapshot`] finds the revision and proves that the schema belongs to it, [`read`] reads the
//! relationships there, in shards and across broken connections, [`mod@write`] is the thread that turns
//! them into lines. The trailer is written last, and only after the revision was read once more: a
//! PostgreSQL whose garbage collection overtakes an export ends it "OK" and short (measured, SpiceDB
//! v1.56).

#![forbid(unsafe_code)]

mod journal;
mod plan;
mod read;
mod resume;
mod snapshot;
mod write;

use std::path::{Path, PathBuf};

use spice_cli::compression::CompressionArgs;
use spice_cli::connection::{CommonArgs, unblocked};
use spice_cli::filter::FilterArgs;
use spice_cli::log::LogArgs;
use spice_cli::progress::Progress;
use spice_cli::stdio::Output;
use spice_cli::values::parse_zedtoken;
use spice_cli::{CommandError, Exit, Program, Shutdown, Stdout};
use spice_client::settle::SettleArgs;
use spice_client::unknown_fields;
use spice_client::unknown_fields::UnknownFieldsArgs;
use spice_record::ExpiryPrecision;

use crate::journal::Journal;
use crate::plan::{Plan, Shards};
use crate::resume::{Begin, Resumable};
use crate::write::{Destination, Step, Writer};

/// Write schema and relationships of a SpiceDB, at one exact revision, to stdout.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "spice-export",
    version = spice_cli::VERSION,
    before_help = EXAMPLES,
    after_long_help = spice_cli::EXIT_CODES
)]
pub struct Export {
    /// Export at this revision (a zedtoken) instead of the newest one that has settled. It is taken to
    /// have settled (spice-revision --head prints such a one), unless --settle is also given.
    #[arg(long, value_name = "ZEDTOKEN", value_parser = parse_zedtoken)]
    at: Option<String>,
    #[command(flatten)]
    settle: SettleArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Leave the schema out of the stream.
    #[arg(long)]
    no_schema: bool,
    /// How many streams to read at the same time, split by definition and resource id.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Relationships in one message from the server; shrinks where they are large [default: fits 1 MiB].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    page_size: Option<u32>,
    /// How much of an expiry the digest covers: us, or s to compare with a MySQL datastore.
    #[arg(long, value_name = "us|s", default_value_t)]
    expiry_precision: ExpiryPrecision,
    #[command(flatten)]
    unknown: UnknownFieldsArgs,
    /// Write to a file, which gets its name only when it is complete.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Keep what was read in FILE.partial when the export is interrupted, and continue there at the same
    /// revision with the next such command. Without such a file it starts at a new revision.
    #[arg(long, requires = "output")]
    resume: bool,
    #[command(flatten)]
    compression: CompressionArgs,
    #[command(flatten)]
    common: CommonArgs,
}

const EXAMPLES: &str = "\
Examples:
  spice-export --context old | spice-import --context new
  spice-export --context old --output backup.ndjson.zst --zstd --resume
  spice-export --context old --type document |
    jq -r .relationship.resource.objectId
";

impl Program for Export {
    const NAME: &'static str = "spice-export";

    fn log_args(&self) -> &LogArgs {
        &self.common.log
    }

    fn stdout(&self) -> Stdout {
        match self.output_file() {
            Some(_) => Stdout::Unused,
            None => Stdout::Data,
        }
    }

    async fn run(self, shutdown: Shutdown) -> Result<Exit, CommandError> {
        let args = self.clone();
        let destination = tokio::select! {
            opened = unblocked(move || args.destination()) => opened?,
            number = shutdown.requested() => return Ok(Exit::Signal(number)),
        };
        let (begun, partial) = match &destination {
            Destination::Once(_) => (None, None),
            Destination::Resumable(files) => (files.begun.clone(), Some(files.partial())),
        };
        let progress = Progress::start("relationships exported", self.common.log.quiet);
        let (writer, written) = Writer::start(
            destination,
            self.output.clone(),
            self.expiry_precision,
            progress.clone(),
        );
        let outcome = tokio::select! {
            outcome = self.export(&writer, begun.as_ref(), &shutdown) => outcome,
            number = shutdown.requested() => Err(CommandError::interrupted(number)),
        };
        // Without its finish message the writer gives up, and takes an unfinished file away, or keeps it for
        // the next run.
        drop(writer);
        let to_file = self.output_file().is_some();
        let written = tokio::select! {
            written = written => {
                written.map_err(|error| CommandError::new(Exit::Failed, error.to_string()))?
            }
            // Of stdout nothing has to be removed, and its reader may be blocked.
            number = shutdown.requested(), if !to_file => return Ok(Exit::Signal(number)),
        };
        progress.clear();
        let trailer = match (outcome, written) {
            // A reader that left explains everything that failed after it.
            (_, Err(failure)) => return Err(failure),
            (Err(failure), Ok(written)) => {
                return Err(match (&partial, written.kept) {
                    (Some(partial), Some(count)) => resume::kept(failure, partial, count),
                    _ => failure,
                });
            }
            (Ok(()), Ok(written)) => written.trailer,
        };
        if let Some(trailer) = trailer {
            let before = begun.map_or_else(String::new, |journal| {
                let count = journal.sum.relationships;
                format!(" ({count} of them before it was resumed)")
            });
            tracing::info!(
                "exported {} relationships{before} in {:.1} s, digest {} ({})",
                trailer.relationships.unwrap_or_default(),
                progress.elapsed().as_secs_f64(),
                trailer.digest.unwrap_or_default(),
                self.expiry_precision,
            );
        }
        Ok(Exit::Done)
    }
}

impl Export {
    fn output_file(&self) -> Option<&Path> {
        let output = self.output.as_deref();
        output.filter(|path| *path != Path::new("-"))
    }

    /// Opens the output. May wait for the reader of a named pipe, and reads what an earlier run has written.
    fn destination(&self) -> Result<Destination, CommandError> {
        if self.resume {
            let files = Resumable::open(self)?;
            return Ok(Destination::Resumable(Box::new(files)));
        }
        let output = Output::create(self.output.as_deref(), self.compression.chosen())?;
        Ok(Destination::Once(output))
    }

    async fn export(
        &self,
        writer: &Writer,
        begun: Option<&Journal>,
        shutdown: &Shutdown,
    ) -> Result<(), CommandError> {
        let connection = self.common.connection.resolve().await?;
        let client = self
            .unknown
            .apply(spice_client::connect(&connection).await?);
        let endpoint = connection.endpoint();
        let (revision, plan, shards) = match begun {
            Some(journal) => {
                resume::check_source(journal, &connection, &client).await?;
                let (revision, count) = (&journal.revision, journal.sum.relationships);
                tracing::info!(
                    "resuming the export of {endpoint} at revision {revision}, after {count} relationships"
                );
                let (plan, shards) = (journal.plan.clone(), journal.shards.clone());
                (revision.clone(), plan, shards)
            }
            None => {
                let snapshot =
                    snapshot::choose_revision(self, &connection, &client, shutdown).await?;
                let definitions = snapshot::definitions(self, &client, &snapshot.revision).await?;
                tracing::info!("exporting {endpoint} at revision {}", snapshot.revision);
                let plan = Plan::new(definitions, self.filter.resource_prefix.as_deref());
                let begin = Begin {
                    header: snapshot::header(self, &snapshot),
                    plan: plan.clone(),
                    endpoint: endpoint.to_owned(),
                };
                writer.send(Step::Begin(Box::new(begin))).await?;
                (snapshot.revision, plan, Shards::default())
            }
        };
        let reader = read::Reader {
            client: &client,
            revision: &revision,
            page_size: self.page_size,
            max_retries: connection.max_retries,
            writer,
            filter: self.filter.filter(),
        };
        reader.read(plan, &shards, self.jobs).await?;
        snapshot::confirm(&client, &revision, connection.max_retries).await?;
        unknown_fields::warn(&client);
        writer.send(Step::Finish).await
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn flags_are_consistent() {
        super::Export::command().debug_assert();
    }
}
