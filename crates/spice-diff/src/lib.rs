//! `spice-diff`: the updates that turn one snapshot into another.
//!
//! [`mod@reader`] reads both streams, [`join`] compares them in bounded memory, [`spill`] writes to disk what
//! does not fit, [`deferred`] finds what cannot be compared at these revisions, [`report`] writes the
//! differences.

#![forbid(unsafe_code)]

mod deferred;
mod join;
mod reader;
mod report;
mod row;
mod spill;

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use spice_cli::compare::CompareArgs;
use spice_cli::log::LogArgs;
use spice_cli::values::parse_size;
use spice_cli::{CommandError, Exit, Program, Shutdown, stdio};

use crate::join::Table;
use crate::report::{Counts, Report};
use crate::spill::Folder;

/// Write the updates that turn the relationships of one snapshot stream into those of another.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "spice-diff",
    version = spice_cli::VERSION,
    before_help = EXAMPLES,
    after_long_help = spice_cli::EXIT_CODES
)]
pub struct Diff {
    /// The snapshot stream to be changed, plain, zstd or gzip: what a target holds; - is stdin.
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The one to be reached: what the source holds.
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Print counts by kind and relation instead of updates.
    #[arg(long)]
    summary: bool,
    /// Leave out what A holds and B does not.
    #[arg(long)]
    no_deletes: bool,
    /// End with 0 also where they differ: for pipes under pipefail.
    #[arg(long)]
    exit_zero: bool,
    /// B's source is followed into this spool, and A has everything of it through B's revision: set
    /// aside what that revision does not see (PostgreSQL only).
    #[arg(long, value_name = "FILE", requires = "deferred")]
    spool: Option<PathBuf>,
    /// Append what differs among these to a file, as updates: to be compared again at a later revision.
    /// What the spool names is kept in memory, beside --max-memory.
    #[arg(long, value_name = "FILE", requires = "spool")]
    deferred: Option<PathBuf>,
    /// Compare only the relationships that a file of updates names, which are kept in memory, beside
    /// --max-memory. May be given several times.
    #[arg(long, value_name = "FILE")]
    keys_from: Vec<PathBuf>,
    /// How much memory this may take; less than 21 MiB are taken for 21. What does not fit goes to
    /// temporary files. The keys that --keys-from and --deferred look up come on top.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    max_memory: u64,
    /// Where these files are made [default: $TMPDIR, else /tmp]. They have no names: nothing of them is
    /// left, however this ends.
    #[arg(long, value_name = "FOLDER")]
    temp_dir: Option<PathBuf>,
    #[command(flatten)]
    compare: CompareArgs,
    #[command(flatten)]
    log: LogArgs,
}

const EXAMPLES: &str = "\
Examples:
  spice-diff --summary new.ndjson old.ndjson
  spice-diff <(spice-export --context new) <(spice-export --context old)
  # Repair new.
  spice-diff --exit-zero new.ndjson old.ndjson | spice-apply --context new
";

/// What the program takes beside the relationships that it keeps: two readers, temporary files (measured:
/// 10 MiB at 10,000 relationships that differ, a few more with all files open).
const BESIDE: u64 = 20 << 20;
/// However little is given, so much is kept in memory: each part must be worth a file.
const LEAST_MEMORY: u64 = 1 << 20;

impl Program for Diff {
    const NAME: &'static str = "spice-diff";

    fn log_args(&self) -> &LogArgs {
        &self.log
    }

    async fn run(self, shutdown: Shutdown) -> Result<Exit, CommandError> {
        let stdin = Path::new("-");
        if self.a == stdin && self.b == stdin {
            return Err(CommandError::usage("stdin can be only one of A and B"));
        }
        if (self.a == stdin || self.b == stdin) && stdio::stdin_is_terminal() {
            let help = Self::command().render_long_help();
            return Err(CommandError::terminal(help));
        }
        let comparing = tokio::task::spawn_blocking(move || self.compare());
        tokio::select! {
            exit = comparing => exit.map_err(|e| CommandError::new(Exit::Failed, e.to_string()))?,
            number = shutdown.requested() => Ok(Exit::Signal(number)),
        }
    }
}

impl Diff {
    fn compare(&self) -> Result<Exit, CommandError> {
        let only = match self.keys_from.as_slice() {
            [] => None,
            files => Some(deferred::named(files)?),
        };
        // What the reading threads have allocated stays with their arenas when it is freed, and what comes
        // back from the files is allocated again: twice the table, at worst (measured, glibc).
        let memory = (self.max_memory.saturating_sub(BESIDE) / 2).max(LEAST_MEMORY);
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        let temp = self.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
        let mut table = Table::new(memory, Folder::new(&temp));
        let paths = [self.a.as_path(), self.b.as_path()];
        let read = reader::read_both(paths, &self.compare, only, &mut table)?;
        let precision = self.compare.precision(read.precisions.iter().copied());
        // Nothing is written before both streams have proved to be complete.
        let mut report = Report::begin(self, &read)?;
        table.finish(precision, &mut |difference| report.write(difference))?;
        let Counts {
            missing,
            changed,
            extra,
            deferred,
        } = report.finish()?;
        let [a, b] = read.relationships;
        if deferred > 0 {
            tracing::info!("{deferred} cannot be compared at these revisions: set aside");
        }
        if missing + changed + extra == 0 {
            tracing::info!("equal ({precision}): {a} relationships in A, {b} in B");
            return Ok(Exit::Done);
        }
        tracing::info!(
            "different ({precision}): of {a} in A and {b} in B, {missing} are missing in A, {changed} \
             differ, {extra} are only in A"
        );
        Ok(if self.exit_zero {
            Exit::Done
        } else {
            Exit::Partial
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn flags_are_consistent() {
        super::Diff::command().debug_assert();
    }
}
