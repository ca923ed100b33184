//! `spice-apply`: writes a change stream to a SpiceDB, in order, and saves how far it has come.
//!
//! | module | holds |
//! |---|---|
//! | [`input`] | the thread that reads a stream, or follows a spool, and checks it |
//! | [`batch`], [`coalesce`] | what is written together, and in which order |
//! | [`worker`] | the loop; `worker::position_tracker`: how much of it may be saved |
//! | [`mod@write`] | the target: refused and ambiguous updates |
//! | [`ambiguous`] | writes whose end is unknown, read again later |
//! | [`contended`] | relationships that collided on the source, compared at the end |
//! | [`early`] | changes of a live Watch, written before they have settled |
//! | [`schema`] | follows the source's schema |
//! | [`resume`] | the position file, and whether a stream continues from there |
//! | [`rejects`] | the file of refused updates |
//! | [`report`] | transaction metadata, and `applied` records |

#![forbid(unsafe_code)]

mod ambiguous;
mod batch;
mod coalesce;
mod contended;
mod early;
mod input;
mod rejects;
mod report;
mod resume;
mod schema;
mod worker;
mod write;

use std::fs::File;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use authzed::{DatastoreKind, zedtoken};
use clap::CommandFactory as _;
use spice_cli::byte_channel::Receiver;
use spice_cli::connection::{CommonArgs, unblocked};
use spice_cli::log::LogArgs;
use spice_cli::progress::Progress;
use spice_cli::shutdown::SIGTERM;
use spice_cli::values::parse_zedtoken;
use spice_cli::{CommandError, Exit, Program, Shutdown, stdio};
use spice_client::same_datastore::{datastore_id, refuse_same_datastore};
use spice_client::write_engine::WriteEngine;
use spice_record::record::{Applied, Position, StreamKind};
use spice_record::{Header, Integrity};
use spice_spool::Spool;
use spice_spool::position::PositionFile;

use crate::early::{EarlyStep, Expected};
use crate::input::{Input, Step};
use crate::rejects::Rejects;
use crate::resume::PositionStore;
use crate::schema::SchemaPolicy;
use crate::worker::{Ended, Worker};
use crate::write::Target;

/// Write a change stream, from stdin, a file or a growing spool, to a SpiceDB.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "spice-apply",
    version = spice_cli::VERSION,
    before_help = EXAMPLES,
    after_long_help = spice_cli::EXIT_CODES
)]
pub struct Apply {
    /// The stream, plain, zstd or gzip.
    #[arg(value_name = "FILE", default_value = "-", conflicts_with = "spool")]
    file: PathBuf,
    /// Follow a spool as spice-watch --spool writes it.
    #[arg(long, value_name = "FILE")]
    spool: Option<PathBuf>,
    /// Store here how far everything is on the target, and resume from there.
    #[arg(long, value_name = "FILE")]
    position: Option<PathBuf>,
    /// End when everything through this revision of the source is on the target.
    #[arg(long, value_name = "ZEDTOKEN", value_parser = parse_zedtoken)]
    until: Option<String>,
    /// One call for each revision, one after the other, whatever the backlog.
    #[arg(long)]
    no_coalesce: bool,
    /// How many calls to make at the same time at most, under backlog [default: as many as are found to
    /// pay, up to 32; 1 on memory].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    /// No more calls in a second than this.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_rps: Option<u32>,
    /// Append updates that the target refuses to this file, and continue [default: stop at the
    /// first].
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// What to do when the source's schema changes: write it to the target, make sure that the target
    /// has it, or stop.
    #[arg(long, value_name = "MODE", default_value = "apply")]
    schema: SchemaPolicy,
    /// Also write what comes through this named pipe, before it has settled: a live Watch (spice-watch --settle
    /// 0s) of a source whose revisions have to settle. What differs is corrected once it has. Needs --spool and
    /// --position; not with --until or --no-coalesce.
    #[arg(long, value_name = "FIFO", requires = "spool", requires = "position", conflicts_with_all = ["until", "no_coalesce"])]
    early: Option<PathBuf>,
    /// Delete segments of the spool once all of their changes are on the target.
    #[arg(long, requires = "spool", requires = "position")]
    prune: bool,
    /// Accept a stream from which lines or updates were filtered on purpose: header, trailer and the
    /// order of parts are checked, but not that every line is there. A filter that changes a line
    /// removes its `checksum`.
    #[arg(long, conflicts_with_all = ["spool", "no_trailer"])]
    partial: bool,
    /// Take a change stream from a log that delivers lines at least once, such as Kafka: skip what is
    /// delivered again, and what was torn when its producer died. A missing line is still an error.
    #[arg(long, conflicts_with_all = ["spool", "partial", "no_trailer"])]
    at_least_once: bool,
    /// Take relationships and updates without header and trailer, made by hand. Nothing proves that
    /// they are all.
    #[arg(long, conflicts_with_all = ["spool", "position"])]
    no_trailer: bool,
    /// Take a stream that comes from this very datastore, or may: a backup that is put back, or a clone of
    /// the database that is brought up to date. Otherwise both ends are taken for mixed up.
    #[arg(long)]
    same_datastore: bool,
    #[command(flatten)]
    common: CommonArgs,
}

const EXAMPLES: &str = "\
Examples:
  spice-watch --context old --since \"$rev\" | spice-apply --context new
  spice-watch --context old --since \"$rev\" --since-file apply.position |
    spice-apply --context new --position apply.position
  spice-apply --context new --spool changes.ndjson \\
    --position apply.position --until \"$end\"
";

impl Program for Apply {
    const NAME: &'static str = "spice-apply";

    fn log_args(&self) -> &LogArgs {
        &self.common.log
    }

    fn ends_of_sigterm(&self) -> Exit {
        stopped(SIGTERM, self.is_resumable())
    }

    async fn run(self, shutdown: Shutdown) -> Result<Exit, CommandError> {
        if input::waits_for_a_person(&self.file, self.spool.as_deref()) {
            let help = Self::command().render_long_help();
            return Err(CommandError::terminal(help));
        }
        // Held until the process ends.
        let _lock = tokio::select! {
            lock = self.lock_position() => lock?,
            number = shutdown.requested() => return Ok(stopped(number, self.is_resumable())),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let begun = tokio::select! {
            begun = self.begin(&stop) => begun,
            number = shutdown.requested() => return Ok(stopped(number, self.is_resumable())),
        };
        let (mut worker, has_revisions) = match begun? {
            Begun::Work {
                worker,
                has_revisions,
            } => (worker, has_revisions),
            Begun::Done => return Ok(Exit::Done),
        };
        shutdown.grace(GRACE + SAVING);
        shutdown.on_forced_end(worker.on_forced_end());
        let ended = worker.run(&shutdown).await;
        let ended = ended.or_else(|failure| match failure.interruption() {
            Some(number) => Ok(Ended::Signal(number)),
            None => Err(failure),
        });
        stop.store(true, Ordering::Relaxed);
        worker.progress.clear();
        let rejected = worker.target.rejected();
        let synced = worker.target.sync_rejects();
        match (ended?, synced) {
            (_, Err(failure)) => Err(failure),
            (Ended::Signal(number), Ok(())) if !has_revisions => {
                tracing::warn!(
                    "stopped before the end of the stream, and no position was saved: apply the stream again \
                     from its beginning; what was applied is applied again without harm"
                );
                Ok(Exit::Signal(number))
            }
            (Ended::Signal(number), Ok(())) if number != SIGTERM || rejected == 0 => {
                Ok(stopped(number, true))
            }
            (_, Ok(())) if rejected > 0 => {
                let file = self.rejects.as_deref().unwrap_or(Path::new("")).display();
                tracing::warn!(
                    "applied, but {} in {file}",
                    match rejected {
                        1 => "1 update was refused: it is".to_owned(),
                        _ => format!("{rejected} updates were refused: they are"),
                    }
                );
                Ok(Exit::Partial)
            }
            _ => Ok(Exit::Done),
        }
    }
}

enum Begun {
    Work {
        worker: Box<Worker>,
        /// Whether the stream has revisions to resume from.
        has_revisions: bool,
    },
    /// There is nothing left to do.
    Done,
}

impl Apply {
    /// Whether the same command resumes where this one stopped.
    fn is_resumable(&self) -> bool {
        self.spool.is_some() || self.position.is_some()
    }

    /// Locks the position, if there is one.
    async fn lock_position(&self) -> Result<Option<File>, CommandError> {
        let Some(file) = self.position.as_deref().map(PositionFile::new) else {
            return Ok(None);
        };
        unblocked(move || file.lock()).await.map(Some)
    }

    async fn begin(&self, stop: &Arc<AtomicBool>) -> Result<Begun, CommandError> {
        if self.spool.is_none() {
            stdio::check_can_open(&self.file)?;
        }
        let connection = self.common.connection.resolve().await?;
        let endpoint = connection.endpoint();
        let file = self.position.as_deref().map(PositionFile::new);
        let position = file.as_ref().map(PositionFile::load).transpose()?.flatten();
        let until = self.until.as_deref().map(until).transpose()?;
        let client = spice_client::connect(&connection).await?;
        // It is better to know now that a target takes no writes.
        let head = client.write_marker().await?;
        let kind = spice_client::datastore::kind_by_form(&connection, &head)?;
        if let (Some(file), Some(position)) = (&file, &position) {
            resume::check_target(file, position, &head)?;
            resume::check_early(position)?;
        }
        if let (Some(position), Some(until)) = (&position, &until)
            && let Ok(resume) = zedtoken::decode(&position.source_revision)
            && resume.datastore_id == until.datastore_id
            && resume.revision.sees(&until.revision) == Some(true)
            && resume::ambiguous_for(position, jiff::Timestamp::now()).is_zero()
        {
            tracing::info!(
                "everything through --until was applied before: the position is at {}",
                position.source_revision
            );
            // What begins there, the way back for example, needs a sync point.
            report::print(Applied {
                source_revision: Some(position.source_revision.clone()),
                target_revision: match &position.target_revision {
                    Some(revision) if position.sync_point => Some(revision.clone()),
                    _ => Some(head),
                },
                sync_point: position.early_until.is_none(),
                at: Some(jiff::Timestamp::now().to_string()),
                ..Applied::default()
            })?;
            return Ok(Begun::Done);
        }
        let mut steps = Input {
            file: self.file.clone(),
            spool: self.spool.clone(),
            position: position.clone(),
            seal: Integrity::of_flags(self.partial, self.no_trailer),
            at_least_once: self.at_least_once,
            until: until.is_some(),
            stop: Arc::clone(stop),
        }
        .start();
        let known = file.as_ref().zip(position.as_ref());
        let check =
            |header: &Header| self.check_header(header, &head, endpoint, until.as_ref(), known);
        let header = loop {
            match steps.recv().await.map(|step| step.message) {
                // What the position includes has not been read yet, and may be all that there is.
                Some(Step::Opened(header)) => check(&header)?,
                Some(Step::Header(header)) => {
                    header.as_deref().map_or(Ok(()), check)?;
                    break header;
                }
                Some(Step::Failed(failure)) => return Err(failure),
                _ => return Err(CommandError::new(Exit::Failed, "the reading thread ended")),
            }
        };
        if let Some(position) = &position {
            let left = resume::ambiguous_for(position, jiff::Timestamp::now());
            if !left.is_zero() {
                let seconds = left.as_secs_f64();
                tracing::warn!(
                    "a write of the process before this one may still be applied late: waiting {seconds:.0} s \
                     before anything is written again"
                );
                tokio::time::sleep(left).await;
            }
        }
        let in_flight = in_flight(self.jobs, self.no_coalesce, kind);
        let rejects = match self.rejects.clone() {
            Some(path) => {
                let inputs = [Some(self.file.clone()), self.spool.clone()];
                let inputs: Vec<PathBuf> = inputs.into_iter().flatten().collect();
                Some(unblocked(move || Rejects::open(&path, &inputs)).await?)
            }
            None => None,
        };
        let is_followed = header
            .as_ref()
            .is_some_and(|header| header.stream == StreamKind::Changes);
        let engine = WriteEngine::new(client, connection.max_retries, in_flight, self.max_rps);
        let target = Target::new(engine, rejects, is_followed);
        let progress = Progress::start("updates", self.common.log.quiet);
        let mut worker = Box::new(Worker::new(self, target, steps, head, kind, progress));
        worker.until = until.map(|until| until.revision);
        let replay_until = match (&self.spool, &position) {
            (Some(spool), Some(_)) => Spool::new(spool).end(),
            _ => None,
        };
        let store = file.map(|file| PositionStore::new(file, position.clone()));
        worker.resume_from(store, position, header.as_deref(), replay_until)?;
        if let Some(path) = &self.early {
            worker.follow_early(Self::open_early(path, header.as_deref())?);
        }
        Ok(Begun::Work {
            worker,
            has_revisions: header.is_some_and(|header| header.stream == StreamKind::Changes),
        })
    }

    /// Refuses a stream that does not belong to this target, `--until` or position.
    fn check_header(
        &self,
        header: &Header,
        head: &str,
        endpoint: &str,
        until: Option<&zedtoken::DecodedToken>,
        position: Option<(&PositionFile, &Position)>,
    ) -> Result<(), CommandError> {
        if let Some(revision) = &header.revision {
            if !self.same_datastore {
                refuse_same_datastore(revision, head, endpoint)?;
            }
            if let Some(until) = until
                && until.datastore_id != datastore_id(revision)
            {
                return Err(CommandError::usage(
                    "--until: this revision belongs to another datastore than the stream",
                ));
            }
        }
        if let Some((file, position)) = position {
            resume::check_source(file, position, header)?;
        }
        if header.stream != StreamKind::Changes && self.position.is_some() {
            return Err(CommandError::usage(format!(
                "--position: a stream of {} has no revisions to resume from",
                header.stream
            )));
        }
        Ok(())
    }

    /// The live Watch, of a source whose revisions have to settle.
    fn open_early(
        path: &Path,
        header: Option<&Header>,
    ) -> Result<Receiver<EarlyStep>, CommandError> {
        let revision = header.and_then(|header| header.revision.as_deref());
        let kind = revision.map(DatastoreKind::of_token);
        if !kind.is_some_and(DatastoreKind::needs_settling) {
            return Err(CommandError::usage(
                "--early: the revisions of this source do not have to settle: what comes is written at once",
            ));
        }
        let expected = Expected {
            source: revision.and_then(datastore_id),
            filter: header.and_then(|header| header.filter.clone()),
            mapping: header.map_or_else(Vec::new, |header| header.mapping.clone()),
        };
        early::open(path, expected)
    }
}

fn until(token: &str) -> Result<zedtoken::DecodedToken, CommandError> {
    let decoded = zedtoken::decode(token)
        .map_err(|error| CommandError::usage(format!("--until: {error}")))?;
    if !decoded.revision.can_be_awaited() {
        return Err(CommandError::usage(
            "--until: this revision names no transaction that could be waited for",
        )
        .hint("on PostgreSQL only a written revision does: use spice-revision --mark"));
    }
    Ok(decoded)
}

/// Where everything acknowledged was saved, SIGTERM ends the program with 0.
fn stopped(number: i32, is_resumable: bool) -> Exit {
    if number == SIGTERM && is_resumable {
        Exit::Done
    } else {
        Exit::Signal(number)
    }
}

/// How many calls are in flight in a backlog after the first call, and how many there are at most.
///
/// The start is what was best on the same machine: MariaDB takes longer for 4,500 updates in 4 calls at the
/// same time (6.4 to 9.5 s) than in one (3.5 to 4.5 s), PostgreSQL gains by it. Where that is far away,
/// more are found to pay.
fn in_flight(jobs: Option<u16>, no_coalesce: bool, kind: DatastoreKind) -> RangeInclusive<usize> {
    let start = match kind.gains_by_concurrency() {
        true => FIRST_IN_FLIGHT,
        false => 1,
    };
    let most = match jobs {
        _ if no_coalesce => 1,
        Some(jobs) => usize::from(jobs),
        None if kind.takes_calls_in_turn() => 1,
        None => MOST_IN_FLIGHT,
    };
    start.min(most)..=most
}

const FIRST_IN_FLIGHT: usize = 4;
const MOST_IN_FLIGHT: usize = 32;

/// How long a call in flight may take after SIGTERM. One that takes longer is dropped, and its end is
/// unknown; after SIGUSR1 it is awaited.
const GRACE: Duration = Duration::from_millis(700);
/// How long it may take then to save the position.
const SAVING: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn flags_are_consistent() {
        super::Apply::command().debug_assert();
    }
}
