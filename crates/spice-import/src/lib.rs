//! `spice-import`: loads a snapshot stream into a SpiceDB.
//!
//! | module | holds |
//! |---|---|
//! | [`input`] | the thread that reads and checks the stream, and cuts it into chunks |
//! | [`chunk`] | relationships that are read ahead, encoded |
//! | [`load`] | loads one chunk: bulk import, then what it refuses row by row |
//! | [`load::reconcile`] | conflict policies: what becomes of rows that are there already |
//! | [`dry_run`] | only looks up what is there |
//! | [`target`] | the server: whether it is fit to be loaded into |
//! | [`schema`] | the schema of the stream and that of the target |
//! | [`stats`] | what became of the relationships |
//! | [`rejects`] | the file of refused relationships |

#![forbid(unsafe_code)]

mod chunk;
mod conflict;
mod dry_run;
mod input;
mod load;
mod rejects;
mod schema;
mod stats;
mod target;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::CommandFactory as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use spice_cli::connection::{CommonArgs, unblocked};
use spice_cli::display::few;
use spice_cli::log::LogArgs;
use spice_cli::progress::Progress;
use spice_cli::{CommandError, Exit, Program, Shutdown, Stdout, lock, stdio};
use spice_client::server::Server;
use spice_record::{Header, Integrity, Record};
use tokio::sync::mpsc;

use crate::chunk::Chunk;
pub use crate::conflict::OnConflict;
use crate::dry_run::DryRun;
use crate::input::{Step, Totals};
use crate::load::Loader;
use crate::rejects::Rejects;
use crate::stats::Stats;
use crate::target::Target;

/// Load a snapshot stream, from stdin or a file, into a SpiceDB.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "spice-import",
    version = spice_cli::VERSION,
    before_help = EXAMPLES,
    after_long_help = spice_cli::EXIT_CODES
)]
pub struct Import {
    /// The stream, plain, zstd or gzip.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// What to do about the schema [default: write it where the target has none, else it must be
    /// equal].
    #[arg(long, value_name = "MODE")]
    schema: Option<SchemaMode>,
    /// Load into a target that holds relationships; what to do where one differs there. An identical
    /// one is never a conflict.
    #[arg(long, value_name = "POLICY")]
    on_conflict: Option<OnConflict>,
    /// Append relationships that the target refuses to this file, and continue. Feed it again with
    /// --no-trailer.
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// How many transactions to load at the same time at most [default: as many as are found to pay, up to
    /// 4; 1 on memory, with --partial and with --no-trailer].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    /// Take a stream from which relationships were filtered out: its header and trailer are needed,
    /// but not their number and digest.
    #[arg(long, conflicts_with = "no_trailer")]
    partial: bool,
    /// Accept input without header and trailer. Completeness is not checked.
    #[arg(long)]
    no_trailer: bool,
    /// Read and check everything, and write nothing; with --on-conflict also count what the target holds
    /// of it. Without a server only the stream is checked.
    #[arg(long)]
    dry_run: bool,
    /// Take a stream that comes from this very datastore, or may: a backup that is put back, or a clone of
    /// the database that is brought up to date. Otherwise both ends are taken for mixed up.
    #[arg(long)]
    same_datastore: bool,
    #[command(flatten)]
    common: CommonArgs,
}

/// `--schema`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SchemaMode {
    /// Write the stream's schema, whatever the target has.
    Write,
    /// The target must have the stream's schema already.
    Check,
    /// Leave the target's schema alone.
    Skip,
}

const EXAMPLES: &str = "\
Examples:
  spice-export --context old | spice-import --context new
  # The same input again, after a failure.
  spice-import --context new --on-conflict skip backup.ndjson.zst
  spice-import --dry-run backup.ndjson.zst       # is the file complete?
";

impl Program for Import {
    const NAME: &'static str = "spice-import";

    fn log_args(&self) -> &LogArgs {
        &self.common.log
    }

    fn stdout(&self) -> Stdout {
        Stdout::Summary
    }

    async fn run(self, shutdown: Shutdown) -> Result<Exit, CommandError> {
        if self.file == Path::new("-") && stdio::stdin_is_terminal() {
            let help = Self::command().render_long_help();
            return Err(CommandError::terminal(help));
        }
        let progress = Progress::start("relationships read", self.common.log.quiet);
        // Nothing is loaded yet, so a signal ends this anywhere.
        let Begun {
            target,
            header,
            first,
            steps,
        } = tokio::select! {
            begun = self.begin() => begun?,
            number = shutdown.requested() => return Ok(Exit::Signal(number)),
        };
        let on_conflict = self.on_conflict.unwrap_or(OnConflict::Fail);
        let Some(target) = target.as_ref().filter(|_| !self.dry_run) else {
            // One that must be empty was found to be.
            let occupied = target.filter(|_| self.on_conflict.is_some());
            let occupied = occupied.map(|target| target.occupied());
            let dry_run = DryRun::new(occupied, on_conflict, &progress);
            return tokio::select! {
                checked = dry_run.run(first, steps) => checked,
                number = shutdown.requested() => Ok(Exit::Signal(number)),
            };
        };
        let policy = on_conflict.resume_policy();
        let (path, input) = (self.rejects.clone(), self.file.clone());
        let rejects = tokio::select! {
            rejects = unblocked(move || Rejects::open(path.as_deref(), &input, policy)) => rejects?,
            number = shutdown.requested() => return Ok(Exit::Signal(number)),
        };
        shutdown.grace(GRACE + REPORTING);
        let loader = target.loader(
            on_conflict,
            rejects,
            self.jobs,
            self.no_trailer || self.partial,
        );
        let (stats, outcome) = load_all(&loader, first, steps, &progress, &shutdown).await;
        progress.clear();
        let rejects_synced = lock(&loader.rejects).finish();
        // Also with --quiet: what is committed must never be taken for not written.
        let report_loaded = |again: &str| {
            let stats = match self.on_conflict {
                None => stats.to_string(),
                Some(_) => format!("{stats:#}"),
            };
            // Another revision may lack what was loaded of this one, and nothing would remove it.
            let at = match header
                .as_deref()
                .and_then(|header| header.revision.as_deref())
            {
                Some(revision) => format!("; a pipe needs spice-export --at {revision} for that"),
                None => String::new(),
            };
            tracing::warn!("{stats}; {again} with --on-conflict {policy} resumes there{at}");
        };
        let totals = match (outcome, rejects_synced) {
            (Ok(Ended::Complete(totals)), Ok(())) => totals,
            (outcome, rejects_synced) => {
                report_loaded(match &outcome {
                    Err(failure) if failure.exit == Exit::BadData => {
                        "if the stream was altered and not just cut, some of them may be in no source: \
                         then empty the target; else a sound stream"
                    }
                    _ => "the same command",
                });
                return match outcome {
                    Err(failure) => Err(failure),
                    Ok(Ended::Signal(number)) => Ok(Exit::Signal(number)),
                    Ok(Ended::Complete(_)) => Err(rejects_synced.err().unwrap_or_else(lost)),
                };
            }
        };
        if stats.total() != totals.relationships {
            return Err(lost());
        }
        let imported = target
            .summary(
                header.as_deref(),
                &stats,
                &totals,
                loader.found(),
                &progress,
            )
            .await
            .inspect_err(|_| report_loaded("the same command"))?;
        stdio::print_line(
            &serde_json::to_string(&Record::Imported(Box::new(imported))).map_err(|error| {
                CommandError::new(Exit::Failed, format!("cannot write the summary: {error}"))
            })?,
        )?;
        if stats.skipped + stats.rejected > 0 {
            tracing::warn!("imported, but not all: {stats}");
            return Ok(Exit::Partial);
        }
        tracing::info!("imported: {stats}");
        Ok(Exit::Done)
    }
}

impl Import {
    /// Checks target and header against each other, and writes the schema to the target: only once the
    /// relationships of a transaction were read or the trailer of a smaller stream was verified, so that
    /// a damaged one writes nothing.
    async fn begin(&self) -> Result<Begun, CommandError> {
        stdio::check_can_open(&self.file)?;
        let target = match (self.dry_run, self.common.connection.is_given()) {
            (true, false) => None,
            _ => Some(Target::open(self).await?),
        };
        let mut steps = input::start(
            self.file.clone(),
            Integrity::of_flags(self.partial, self.no_trailer),
        );
        let header = match steps.recv().await {
            Some(Step::Header(header)) => header,
            Some(Step::Failed(failure)) => return Err(failure),
            _ => return Err(CommandError::new(Exit::Failed, "the reading thread ended")),
        };
        if let Some(filter) = header.as_ref().and_then(|header| header.filter.as_ref()) {
            tracing::info!("the stream holds only a part of its source: {filter}");
        }
        let mapping = header.as_ref().map_or(&[][..], |header| &header.mapping);
        if !mapping.is_empty() {
            let mapping = few(mapping.iter().cloned());
            tracing::info!("the stream was changed by spice-map: {mapping}");
        }
        let schema = header
            .as_deref()
            .and_then(|header| header.schema.as_deref());
        let is_due = match &target {
            Some(target) => {
                let filter = header.as_ref().and_then(|header| header.filter.as_ref());
                target.check_is_free(self, filter).await?;
                target.check_against(self, header.as_deref()).await?
            }
            None => false,
        };
        let first = match steps.recv().await {
            Some(Step::Failed(failure)) => {
                return Err(failure.hint("nothing was written, the schema included"));
            }
            Some(first) => first,
            None => return Err(CommandError::new(Exit::Failed, "the reading thread ended")),
        };
        if let (Some(target), Some(schema), true) = (&target, schema, is_due && !self.dry_run) {
            schema::write(&target.client, target.connection.endpoint(), schema).await?;
        }
        Ok(Begun {
            target,
            header,
            first,
            steps,
        })
    }
}

/// What is known before anything is loaded.
struct Begun {
    /// `None` for a dry run without a server.
    target: Option<Target>,
    header: Option<Box<Header>>,
    /// The first step after the header.
    first: Step,
    steps: mpsc::Receiver<Step>,
}

/// How loading ended without an error.
enum Ended {
    Complete(Totals),
    Signal(i32),
}

/// How long transactions in flight may take after a signal. What takes longer is dropped: the server rolls
/// it back, unless it has all of it, so its end is unknown. After SIGUSR1 it is awaited.
const GRACE: Duration = Duration::from_millis(700);
/// How long it may take then to report what is on the target.
const REPORTING: Duration = Duration::from_millis(250);

/// Loads chunk after chunk. After a failure or a signal no new one is started, and those in flight are
/// brought to their end, if a signal leaves the time, so that the stats are true.
async fn load_all<S: Server>(
    loader: &Loader<S>,
    first: Step,
    mut steps: mpsc::Receiver<Step>,
    progress: &Progress,
    shutdown: &Shutdown,
) -> (Stats, Result<Ended, CommandError>) {
    let mut stats = Stats::default();
    let mut loading = FuturesUnordered::new();
    let mut outcome = None;
    let mut first = Some(first);
    let mut waiting = Chunk::default();
    let mut in_flight = 0;
    let too_late = async {
        let number = shutdown.in_a_hurry().await;
        tokio::time::sleep(GRACE).await;
        number
    };
    tokio::pin!(too_late);
    while outcome.is_none() || !loading.is_empty() {
        let setting = loader.setting();
        let may_begin = outcome.is_none() && shutdown.signal().is_none();
        if may_begin && loading.len() < setting.in_flight && waiting.len() > 0 {
            let (chunk, is_full) = waiting.take(setting);
            let rows = chunk.len() as u64;
            progress.add(rows);
            in_flight += rows;
            loading.push(async move { (rows, loader.load_measured(chunk, is_full).await) });
        }
        let has_room = outcome.is_none() && loading.len() < loader.setting().in_flight;
        if has_room && waiting.len() > 0 && shutdown.signal().is_none() {
            continue;
        }
        tokio::select! {
            step = next(&mut first, &mut steps), if has_room && waiting.len() == 0 => {
                match step {
                    Some(Step::Chunk(chunk)) => waiting = chunk,
                    Some(Step::End(totals)) => outcome = Some(Ok(Ended::Complete(totals))),
                    Some(Step::Failed(failure)) => outcome = Some(Err(failure)),
                    Some(Step::Header(_)) | None => outcome = Some(Err(lost())),
                }
            }
            Some((rows, (loaded, result))) = loading.next() => {
                in_flight -= rows;
                stats.add(&loaded);
                if let Err(failure) = result
                    && !matches!(outcome, Some(Err(_)))
                {
                    outcome = Some(Err(failure));
                }
            }
            number = shutdown.requested(), if outcome.is_none() => {
                outcome = Some(Ok(Ended::Signal(number)));
            }
            number = &mut too_late => {
                stats.unknown += in_flight;
                return (stats, outcome.unwrap_or(Ok(Ended::Signal(number))));
            }
        }
    }
    (stats, outcome.unwrap_or_else(|| Err(lost())))
}

/// The step that was received already, then the others. May be dropped: nothing is lost.
async fn next(first: &mut Option<Step>, steps: &mut mpsc::Receiver<Step>) -> Option<Step> {
    match first.take() {
        Some(first) => Some(first),
        None => steps.recv().await,
    }
}

/// Cannot happen; if it does, it must not look like success.
fn lost() -> CommandError {
    CommandError::new(
        Exit::Failed,
        "lost count of the relationships: this is a bug, and nothing is verified",
    )
}

#[cfg(test)]
mod tests {
    mod load_all;

    use clap::CommandFactory as _;

    use super::Import;

    #[test]
    fn flags_are_consistent() {
        Import::command().debug_assert();
    }
}
