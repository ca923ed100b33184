//! `spice-map`: a stream with other names, without some of its parts, or with redacted ids.
//!
//! [`flags`] are what the command line asks for, [`plan`] is what that means for names, header and schema,
//! [`names`] whether the input has what they name,
//! [`schema`] changes a schema, [`mapper`] a relationship, [`redact`] an id, and [`stream`] reads and writes.
//! What comes out is sealed again, after the input has proved to be complete.

#![forbid(unsafe_code)]

mod flags;
mod mapper;
mod names;
mod plan;
mod redact;
mod schema;
mod stream;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use spice_cli::compression::CompressionArgs;
use spice_cli::log::LogArgs;
use spice_cli::progress::Progress;
use spice_cli::{CommandError, Exit, Program, Shutdown, Stdout, stdio};

use crate::flags::{Part, PrefixOf, Rename, parse_type};
use crate::plan::Plan;

/// Change names, drop parts and redact ids of a stream, in its schema and its relationships.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "spice-map",
    version = spice_cli::VERSION,
    before_help = EXAMPLES,
    after_long_help = spice_cli::EXIT_CODES
)]
pub struct Map {
    /// The stream: a snapshot, changes or updates, plain, zstd or gzip. It must be complete.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Give another prefix (crm/=sales/), another name to a definition or caveat (crm/doc=sales/file), or
    /// to a relation or permission (crm/doc#viewer=reader). May be given several times. All flags name
    /// things as the input does.
    #[arg(long, value_name = "OLD=NEW")]
    rename: Vec<Rename>,
    /// Leave out a definition, a caveat, or a relation or permission (doc#viewer), and every relationship
    /// that needs it. May be given several times.
    #[arg(long, value_name = "NAME")]
    drop: Vec<Part>,
    /// Remove what --drop leaves out from the types of relations as well. Without it, a definition that
    /// is still referred to is not dropped.
    #[arg(long, requires = "drop")]
    drop_references: bool,
    /// Keep only relationships of resources of these types. The schema keeps what they refer to.
    #[arg(long, value_name = "TYPE,...", value_delimiter = ',', value_parser = parse_type)]
    only_type: Vec<String>,
    /// Keep only relationships of resources of this type whose id begins like this. May be given several
    /// times, and beside --only-type for other types.
    #[arg(long, value_name = "TYPE:PREFIX")]
    only_resource_prefix: Vec<PrefixOf>,
    /// Replace the ids of this type, of resources and of subjects, by a keyed hash: equal ids remain
    /// equal. May be given several times.
    #[arg(long, value_name = "TYPE", requires = "key_file", value_parser = parse_type)]
    redact: Vec<String>,
    /// The key of --redact: a file of at least 16 bytes that only you can read.
    #[arg(long, value_name = "FILE", requires = "redact")]
    key_file: Option<PathBuf>,
    /// Keep caveat contexts as they are, with any ids in them. Without it, --redact also replaces the
    /// strings in them, and leaves out a parameter whose type takes no other string.
    #[arg(long, requires = "redact")]
    keep_contexts: bool,
    /// Write to a file, which gets its name only when it is complete.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    compression: CompressionArgs,
    #[command(flatten)]
    log: LogArgs,
}

const EXAMPLES: &str = "\
Examples:
  spice-export --context old | spice-map --rename crm/=sales/ |
    spice-import --context new
  spice-map --only-type document --output part.ndjson backup.ndjson.zst
  spice-map --redact user --key-file redact.key backup.ndjson.zst |
    spice-import --context staging
";

impl Program for Map {
    const NAME: &'static str = "spice-map";

    fn log_args(&self) -> &LogArgs {
        &self.log
    }

    fn stdout(&self) -> Stdout {
        match self.output_file() {
            Some(_) => Stdout::Unused,
            None => Stdout::Data,
        }
    }

    async fn run(self, shutdown: Shutdown) -> Result<Exit, CommandError> {
        if self.file == Path::new("-") && stdio::stdin_is_terminal() {
            let help = Self::command().render_long_help();
            return Err(CommandError::terminal(help));
        }
        let progress = Progress::start("relationships read", self.log.quiet);
        let shown = progress.clone();
        // A key file can be a pipe by another name, and a named pipe has no writer yet.
        let mapping = tokio::task::spawn_blocking(move || {
            let plan = Plan::of(&self)?;
            stream::map(&self, plan, &shown)
        });
        let counts = tokio::select! {
            counts = mapping => counts.map_err(|e| CommandError::new(Exit::Failed, e.to_string()))??,
            number = shutdown.requested() => return Ok(Exit::Signal(number)),
        };
        progress.clear();
        counts.report();
        Ok(Exit::Done)
    }
}

impl Map {
    fn output_file(&self) -> Option<&Path> {
        let output = self.output.as_deref();
        output.filter(|path| *path != Path::new("-"))
    }
}
