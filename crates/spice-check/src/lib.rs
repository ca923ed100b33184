//! `spice-check`: asks a server who has which permission, and another one the same.
//!
//! [`input`] reads, [`sample`] draws from a snapshot, [`requests`] makes questions of it, [`checker`] sends
//! them, [`mod@compare`] compares the answers with another server's, [`tally`] counts both, [`mod@write`]
//! is the thread that writes. Two servers with the same schema and relationships must give the same
//! answers.

#![forbid(unsafe_code)]

mod checker;
mod compare;
mod input;
mod requests;
mod sample;
mod tally;
mod write;

use std::path::{Path, PathBuf};

use authzed::Client;
use authzed::v1::Consistency;
use clap::CommandFactory as _;
use fastrand::Rng;
use spice_cli::Connection;
use spice_cli::connection::CommonArgs;
use spice_cli::log::LogArgs;
use spice_cli::progress::Progress;
use spice_cli::stdio;
use spice_cli::values::parse_zedtoken;
use spice_cli::{CommandError, Exit, Program, Shutdown, VERSION};
use spice_client::schema;
use spice_record::Header;
use spice_record::record::StreamKind;

use crate::checker::Checker;
use crate::input::{Batches, Input};
use crate::requests::Schema;
use crate::sample::Sample;
use crate::tally::Tally;
use crate::write::Writer;

/// Ask a SpiceDB about what a snapshot stream holds, and write the answers; or ask another one the same,
/// and write those that differ.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "spice-check",
    version = spice_cli::VERSION,
    before_help = EXAMPLES,
    after_long_help = spice_cli::EXIT_CODES
)]
pub struct Check {
    /// A snapshot stream to draw questions from, or a stream of checks to ask again; plain, zstd
    /// or gzip.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Ask at exactly this revision of the server (a zedtoken) [default: the snapshot's].
    #[arg(long, value_name = "ZEDTOKEN", value_parser = parse_zedtoken)]
    at: Option<String>,
    /// Of a snapshot: about how many relationships to ask. 0 reads no input: only the schema is compared
    /// [default: 1000].
    #[arg(long, value_name = "COUNT")]
    sample: Option<usize>,
    /// Draw the same again: the number that an earlier run has named.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Of a stream of checks: write this server's answers instead of comparing them.
    #[arg(long, conflicts_with_all = ["sample", "seed"])]
    record: bool,
    #[command(flatten)]
    common: CommonArgs,
}

const EXAMPLES: &str = "\
Examples:
  spice-export --context old | spice-check --context old |
    spice-check --context new --at \"$r2\"
  spice-check --context old --sample 5000 --seed 7 old.ndjson.zst >asked
  spice-check --context new --at \"$r2\" asked     # 0: equal, 3: different
";

impl Program for Check {
    const NAME: &'static str = "spice-check";

    fn log_args(&self) -> &LogArgs {
        &self.common.log
    }

    async fn run(self, shutdown: Shutdown) -> Result<Exit, CommandError> {
        let reads = self.sample != Some(0);
        if reads && self.file == Path::new("-") && stdio::stdin_is_terminal() {
            let help = Self::command().render_long_help();
            return Err(CommandError::terminal(help));
        }
        let progress = Progress::start("questions asked", self.common.log.quiet);
        tokio::select! {
            exit = self.check(&progress) => {
                progress.clear();
                exit
            }
            number = shutdown.requested() => Ok(Exit::Signal(number)),
        }
    }
}

impl Check {
    async fn check(&self, progress: &Progress) -> Result<Exit, CommandError> {
        if self.sample != Some(0) {
            stdio::check_can_open(&self.file)?;
        }
        let connection = self.common.connection.resolve().await?;
        let client = spice_client::connect(&connection).await?;
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
        let mut rng = Rng::with_seed(seed);
        let input = if self.sample == Some(0) {
            Input::Sample(Sample::default(), None)
        } else {
            input::read(self, rng.fork()).await?
        };
        let (revision, needed) = match &input {
            Input::Sample(_, revision) => (revision.clone(), "the snapshot has no revision"),
            Input::Checks(header, _) if self.record => {
                (header.revision.clone(), "the stream has no revision")
            }
            Input::Checks(..) => (None, "the stream's revision is the other server's"),
        };
        let Some(revision) = self.at.clone().or(revision) else {
            return Err(CommandError::usage(format!(
                "{needed}: say with --at at which one of {} to ask",
                connection.endpoint()
            )));
        };
        let checker = Checker {
            client: &client,
            revision: &revision,
            max_retries: connection.max_retries,
            progress,
        };
        match input {
            Input::Sample(sample, _) => {
                if self.seed.is_none() && self.sample != Some(0) {
                    tracing::info!("drawing questions with --seed {seed}");
                }
                self.answers(checker, &connection, &sample, &mut rng).await
            }
            Input::Checks(header, asked) if self.record => {
                self.again(checker, &header, asked).await
            }
            Input::Checks(header, asked) => compare::compare(checker, &header, asked).await,
        }
    }

    /// Asks about a sample, and writes the answers.
    async fn answers(
        &self,
        mut checker: Checker<'_>,
        connection: &Connection,
        sample: &Sample,
        rng: &mut Rng,
    ) -> Result<Exit, CommandError> {
        let text = schema_at(checker.client, checker.revision).await?;
        let checks = if text.is_empty() {
            Vec::new() // Without a schema there is nothing to ask about.
        } else {
            let at = Consistency::at_exact(checker.revision);
            let schema = Schema::from(schema::reflect(checker.client, at).await?);
            requests::ask(&mut checker, &schema, sample, rng).await?
        };
        let endpoint = connection.endpoint();
        let mut tally = Tally::default();
        tally.add(&checks);
        tracing::info!("{endpoint} answered {tally}");
        let mut writer = Writer::new(header(checker.revision, Some(text)));
        writer.write(checks).await?;
        writer.finish().await?;
        Ok(Exit::Done)
    }

    /// Asks the questions of a stream, and writes the answers.
    async fn again(
        &self,
        mut checker: Checker<'_>,
        header_before: &Header,
        mut asked: Batches,
    ) -> Result<Exit, CommandError> {
        let schema = match header_before.schema {
            Some(_) => Some(schema_at(checker.client, checker.revision).await?),
            None => None,
        };
        let mut writer = Writer::new(header(checker.revision, schema));
        let mut tally = Tally::default();
        while let Some(batch) = asked.next().await? {
            let requests = batch.into_iter().map(|check| check.request.0).collect();
            let checks = checker.ask(requests).await?;
            tally.add(&checks);
            writer.write(checks).await?;
        }
        let endpoint = checker.client.endpoint();
        tracing::info!("{endpoint} answered {tally}");
        writer.finish().await?;
        Ok(Exit::Done)
    }
}

/// The text of the schema, proven to be that of the revision; empty where there is no schema.
async fn schema_at(client: &Client, revision: &str) -> Result<String, CommandError> {
    let Some(schema) = client.read_schema().await? else {
        return Ok(String::new());
    };
    let at = Consistency::at_exact(revision);
    match schema::differences(client, at, &schema.text).await? {
        None => Ok(schema.text),
        Some(difference) => Err(CommandError::new(
            Exit::TryAgain,
            format!(
                "the schema of {} changed after revision {revision}: {difference}",
                client.endpoint()
            ),
        )
        .hint("take a newer revision: the API gives the text of the newest schema only")),
    }
}

fn header(revision: &str, schema: Option<String>) -> Header {
    Header {
        revision: Some(revision.to_owned()),
        schema,
        ..Header::new(
            StreamKind::Checks,
            format!("spice-check {VERSION}"),
            spice_cli::compare::now(),
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn flags_are_consistent() {
        super::Check::command().debug_assert();
    }
}
