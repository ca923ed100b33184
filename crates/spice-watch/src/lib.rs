//! `spice-watch`: every change after a revision, without a gap, or a hard stop.
//!
//! [`mod@begin`] finds the revision to begin after, [`watcher`] reads the server's Watch and resumes it, to an
//! end ([`until`]), [`settled`] does so in rounds behind the head, [`contended`] decides what is read there
//! ([`recent`], [`tail`]), [`drain`] ends a Watch without harm, [`dedup`] drops repeated deliveries and decides
//! where a Watch may resume, [`heartbeat`] writes markers, [`writer`] is the thread that writes.

#![forbid(unsafe_code)]

mod begin;
mod contended;
mod dedup;
mod drain;
mod heartbeat;
mod history;
mod recent;
mod settled;
mod tail;
mod until;
mod watcher;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use authzed::zedtoken::{self, revision_of};
use spice_cli::connection::CommonArgs;
use spice_cli::filter::FilterArgs;
use spice_cli::log::LogArgs;
use spice_cli::progress::Progress;
use spice_cli::shutdown::SIGTERM;
use spice_cli::stdio::Output;
use spice_cli::values::{parse_duration, parse_size, parse_timeout, parse_zedtoken};
use spice_cli::{CommandError, Exit, Program, Shutdown, Stdout};
use spice_client::settle::SettleArgs;
use spice_client::unknown_fields;
use spice_client::unknown_fields::UnknownFieldsArgs;
use spice_record::record::StreamEnd;
use tokio::time::Instant;

use crate::begin::Start;
use crate::drain::DrainTracker;
use crate::heartbeat::Heartbeat;
use crate::settled::ContendedStats;
use crate::until::Until;
use crate::watcher::{Ended, Watcher};
use crate::writer::{Emitter, Event, Sink};

/// Write every change of a SpiceDB after a revision to stdout, or append it to a spool.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "spice-watch",
    version = spice_cli::VERSION,
    before_help = EXAMPLES,
    after_long_help = spice_cli::EXIT_CODES
)]
pub struct Watch {
    /// The revision after which the changes begin: the one of a copy, for example.
    #[arg(long, value_name = "ZEDTOKEN", value_parser = parse_zedtoken)]
    since: Option<String>,
    /// Take it from a file: a stream, a spool, a summary or a position, of which this server's
    /// revision counts. Together with --since the file wins once it exists.
    #[arg(long, value_name = "FILE")]
    since_file: Option<PathBuf>,
    /// End when everything through this revision has been written. After the last write to a server,
    /// `spice-revision --mark` gives it.
    #[arg(long, value_name = "ZEDTOKEN", value_parser = parse_zedtoken, conflicts_with = "until_quiet")]
    until: Option<String>,
    /// End when nothing has changed for this long. That proves nothing: a write may come later.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    until_quiet: Option<Duration>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Leave out what spice-apply has written, so that changes can travel both ways; with a datastore's
    /// id, only what came from there.
    #[arg(long, value_name = "SOURCE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    skip_applied: Option<String>,
    /// Write an empty transaction to the server this often: it keeps the start of an idle Watch inside
    /// the history window.
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    heartbeat: Option<Duration>,
    /// Append to a file, durably, and resume where it ends.
    #[arg(long, value_name = "FILE")]
    spool: Option<PathBuf>,
    /// Begin another file (FILE.000001, ...) when one has reached this size.
    #[arg(long, value_name = "SIZE", requires = "spool", value_parser = parse_size)]
    spool_segment: Option<u64>,
    /// How much memory one transaction of the source may take. A larger one ends with an error.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    max_memory: u64,
    #[command(flatten)]
    unknown: UnknownFieldsArgs,
    #[command(flatten)]
    settle: SettleArgs,
    #[command(flatten)]
    common: CommonArgs,
}

/// How long the end waits for Watches that must be idle first.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a stop may take to end a round.
const CLOSE_ROUND_TIMEOUT: Duration = Duration::from_millis(350);
/// How long a stop waits for the reader of stdout.
const PATIENCE: Duration = Duration::from_millis(450);

const EXAMPLES: &str = "\
Examples:
  spice-watch --context old --since \"$rev\" | spice-apply --context new
  # Capture. Run it again to resume.
  spice-watch --context old --since \"$rev\" --spool changes.ndjson
  # Drain, after the last write.
  spice-watch --context old --spool changes.ndjson --until \"$end\"
  spice-watch --context old --since \"$rev\" | jq -c 'select(.transaction)'
";

impl Program for Watch {
    const NAME: &'static str = "spice-watch";
    const IS_SINGLE_THREADED: bool = true;

    fn log_args(&self) -> &LogArgs {
        &self.common.log
    }

    fn stdout(&self) -> Stdout {
        match self.spool {
            Some(_) => Stdout::Unused,
            None => Stdout::Data,
        }
    }

    fn ends_of_sigterm(&self) -> Exit {
        // A spool remains complete. A stream that ends without a trailer is not.
        match self.spool {
            Some(_) => Exit::Done,
            None => Exit::Signal(SIGTERM),
        }
    }

    async fn run(self, shutdown: Shutdown) -> Result<Exit, CommandError> {
        let begun = tokio::select! {
            begun = self.begin() => begun?,
            number = shutdown.requested() => return Ok(self.ends_of(number)),
        };
        let progress = Progress::start("updates", self.common.log.quiet);
        let Start {
            client,
            max_retries,
            since,
            header,
            schema,
            spool_writer,
            settle,
            continued,
            contended,
            kind,
        } = begun;
        let sink = match spool_writer {
            Some(spool_writer) => Sink::Spool(Box::new(spool_writer)),
            None => Sink::Stdout(Output::create(None, None)?),
        };
        shutdown.grace(CLOSE_ROUND_TIMEOUT + PATIENCE + Duration::from_millis(100));
        let (emitter, mut written) = Emitter::start(sink, schema.clone(), progress.clone());
        if let Some(header) = header {
            emitter.send(Event::Header(Box::new(header)), 1).await?;
        }
        // On a connection of its own: that of the Watch is the one that is asked whether it still answers.
        let heartbeat = self
            .heartbeat
            .map(|every| Heartbeat::start(client.reconnect(), every));
        let counted = client.clone();
        let mut watcher = Watcher {
            client,
            max_retries,
            filter: self.filter.filter(),
            skip_applied: self.skip_applied.clone(),
            quiet: self.until_quiet,
            emitter,
            drains: DrainTracker::default(),
            progress: watcher::Progress::after(&since),
            since,
            schema,
            heartbeat,
            contended,
            contended_stats: ContendedStats::default(),
            next_head: None,
            kind,
        };
        let (outcome, written_early) = tokio::select! {
            biased;
            number = shutdown.requested() => (Ok(Ended::Signal(number)), None),
            // It ends early only where it cannot write.
            written = &mut written => {
                (Err(CommandError::new(Exit::Failed, "the output is closed")), Some(written))
            }
            outcome = async {
                watcher.load_spool_tail(continued.as_ref()).await?;
                self.follow(&mut watcher, settle).await
            } => (outcome, None),
            never = unknown_fields::watch(&counted) => match never {},
        };
        unknown_fields::warn(&counted);
        watcher.contended_stats.log();
        let outcome = self.end_round(&mut watcher, outcome).await;
        if let Err(failure) = &outcome
            && failure.exit == Exit::HistoryLost
        {
            self.record_history_lost(failure);
        }
        let Watcher {
            emitter,
            since,
            drains,
            ..
        } = watcher;
        let end_reason = outcome.as_ref().ok().and_then(|ended| match ended {
            Ended::Until => Some(StreamEnd::Until),
            Ended::Quiet => Some(StreamEnd::Quiet),
            Ended::Signal(_) => Some(StreamEnd::Signal),
            Ended::Incomplete(_) => None,
        });
        let finish = async {
            if let Some(end_reason) = end_reason {
                let _ = emitter.send(Event::End(end_reason), 1).await;
            }
            drop(emitter);
            drains.wait(DRAIN_TIMEOUT).await;
            match written_early {
                Some(written) => written,
                None => written.await,
            }
        };
        // The reader of stdout may be blocked; a stop must not wait for it.
        let patience = async {
            let number = shutdown.requested().await;
            tokio::time::sleep(PATIENCE).await;
            number
        };
        tokio::select! {
            // What ended the output explains everything that failed after it.
            written = finish => {
                written.map_err(|error| CommandError::new(Exit::Failed, error.to_string()))??;
            }
            number = patience => {
                outcome?;
                return Ok(self.stopped_early(number));
            }
        }
        progress.clear();
        let ended = outcome?;
        let through = match ended {
            Ended::Until => "everything through",
            Ended::Quiet => "quiet, which proves nothing, after",
            Ended::Signal(_) => "stopped after",
            Ended::Incomplete(_) => "stopped in the middle of a round, without a trailer, after",
        };
        tracing::info!("{progress}: {through} revision {since}");
        match ended {
            Ended::Signal(number) if number != SIGTERM => Ok(Exit::Signal(number)),
            Ended::Incomplete(number) => Ok(Exit::Signal(number)),
            _ => Ok(Exit::Done),
        }
    }
}

impl Watch {
    /// How it ends after a signal if it cannot write all of its output in time.
    fn stopped_early(&self, number: i32) -> Exit {
        match &self.spool {
            Some(spool) => tracing::warn!(
                "stopped before everything was in {}, which ends in the middle: the same command resumes",
                spool.display()
            ),
            None => tracing::warn!(
                "stopped while nobody reads the output: it ends in the middle, without a trailer"
            ),
        }
        self.ends_of(number)
    }

    /// How it ends if a signal does not let it come to its end.
    fn ends_of(&self, number: i32) -> Exit {
        match number {
            SIGTERM => self.ends_of_sigterm(),
            _ => Exit::Signal(number),
        }
    }

    /// Closes a round that a signal interrupted, so that the stream ends where a Watch can resume. If that takes
    /// too long it ends without a trailer.
    async fn end_round(
        &self,
        watcher: &mut Watcher,
        outcome: Result<Ended, CommandError>,
    ) -> Result<Ended, CommandError> {
        let Ok(Ended::Signal(number)) = outcome else {
            return outcome;
        };
        if self.spool.is_some() || !watcher.needs_checkpoint() {
            return outcome;
        }
        match tokio::time::timeout(CLOSE_ROUND_TIMEOUT, watcher.close_round()).await {
            Ok(Ok(())) => outcome,
            Ok(Err(failure)) => Err(failure),
            Err(_) => Ok(Ended::Incomplete(number)),
        }
    }

    async fn follow(&self, watcher: &mut Watcher, settle: Duration) -> Result<Ended, CommandError> {
        let Some(until) = &self.until else {
            if settle.is_zero() {
                return watcher.follow(Until::None).await;
            }
            tracing::info!(
                "reading {} s behind the head: late transactions may still appear below it (--settle)",
                settle.as_secs_f64()
            );
            return watcher.follow_settled(settle).await;
        };
        let revision = revision_of(until);
        if let Some(contended) = &mut watcher.contended {
            contended.begin_last(Instant::now());
        }
        let reached = zedtoken::decode(&watcher.since);
        if let Ok(reached) = reached
            && reached.revision.sees(&revision) == Some(true)
        {
            // Emitted again for a reader that waits for it. The program that wrote the spool may have
            // ended before it had read what collided.
            let since = watcher.since.clone();
            watcher.emit_settled(&reached.revision, since, true).await?;
            return Ok(Ended::Until);
        }
        watcher.follow(Until::at(&revision, until)).await
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};
    use spice_cli::Exit;
    use spice_cli::shutdown::SIGTERM;

    use super::Watch;

    #[test]
    fn flags_are_consistent() {
        Watch::command().debug_assert();
    }

    #[test]
    fn spool_that_ends_in_the_middle_can_be_resumed_and_a_stream_cannot() {
        let ends = |flags: &[&str], signal| {
            let all = ["spice-watch", "--context", "a"]
                .into_iter()
                .chain(flags.iter().copied());
            Watch::parse_from(all).stopped_early(signal)
        };
        let (spool, stream) = (
            ["--spool", "changes"],
            ["--since", "GhEKBENPMHYSCWFhYWFhYWFhYQ=="],
        );
        assert_eq!(ends(&spool, SIGTERM), Exit::Done);
        assert_eq!(ends(&spool, 2), Exit::Signal(2));
        assert_eq!(ends(&stream, SIGTERM), Exit::Signal(SIGTERM));
    }
}
