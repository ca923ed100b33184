//! `verify`: both ends compared while they are written.
//!
//! The folder holds `differences.ndjson`, the updates that would make the target equal, and
//! `checks.ndjson`, what both were asked and answered differently or inconclusively.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant as Clock};

use rustix::process::Signal;

use crate::answers;
use crate::cli;
use crate::commands::{self, At};
use crate::ends::{self, Ends};
use crate::lock;
use crate::part;
use crate::phase::{Step, SyncPoint};
use crate::process::{Ended, Input, Output, pipe, pipe_at_a_path};
use crate::records::{self, Pair};
use crate::session::Session;
use crate::state::{Found, Kind, Verdict};
use crate::status::heartbeat;
use crate::store::remove;
use crate::suite::{CommandError, Exit, Outcome, escape};
use crate::time::Instant;

/// How long a pair may take beside two heartbeats.
const PATIENCE: Duration = Duration::from_secs(60);
/// So often what cannot be compared yet is looked at again.
const ROUNDS: u32 = 20;
/// So often a source that has to settle must show a difference before it counts.
const DOUBTFUL_ROUNDS: u32 = 4;
/// A snapshot of such a source invents a few differences; more are not doubted.
const MOST_DOUBTFUL: usize = 10_000;
/// The first guess of how long a comparison takes.
const FIRST_GUESS: Duration = Duration::from_secs(30);
/// How many differences are shown.
const SHOWN: usize = 5;

/// One verification.
pub(crate) struct Verification<'a> {
    pub(crate) session: &'a Session,
    pub(crate) ends: &'a Ends,
    pub(crate) jobs: Option<u64>,
    /// Since when the schemas differ, and how long a change may take.
    pub(crate) unlike: std::cell::Cell<Option<(Clock, Duration)>>,
}

pub(crate) async fn run(session: &Session, flags: &cli::Verify) -> Outcome {
    session.alone(&[Step::Copy { restart: false }, Step::Cutover, Step::Resync])?;
    session.allowed()?;
    let ends = ends::look_again(session).await?;
    let state = session.state()?;
    let prunes = state
        .following
        .as_ref()
        .is_some_and(|following| following.prune);
    if prunes && ends.source.kind.is("postgres") {
        return Err(CommandError::usage(
            "follow --prune deletes what verify has to look up in the spool of a PostgreSQL source",
        )
        .hint(format!(
            "run follow without --prune; then: {}",
            session.words.same()
        )));
    }
    let sample = sample(session, flags.check_sample)?;
    part::refuse_sample(ends.filter.as_ref(), sample, &session.words.step("verify"))?;
    let verification = Verification {
        session,
        ends: &ends,
        jobs: flags.jobs.jobs,
        unlike: std::cell::Cell::new(None),
    };
    let proved = verification.relationships().await?;
    let answers = match sample {
        0 => String::new(),
        sample => answers::ask_both(&verification, proved.last.clone(), sample).await?,
    };
    let (first, source, target) = (
        &proved.first.sync_point,
        &ends.source.context,
        &ends.target.context,
    );
    let what = format!(
        "at {} and {}, in {}{answers}",
        first.source_revision,
        first.target_revision,
        match proved.rounds {
            1 => "1 round".to_owned(),
            rounds => format!("{rounds} rounds"),
        }
    );
    verification.verdict(Found::Equal, what, proved.at)?;
    let differences = session.file("differences.ndjson");
    remove(&differences).map_err(|error| session.cannot_write(&differences, &error))?;
    tracing::info!(
        "proven equal: {target} has the schema of {source} and holds what it holds, as of these revisions{answers}"
    );
    tracing::info!("hint: next: {}", session.words.step("cutover"));
    Ok(())
}

/// About how many relationships both ends are asked: at least as many as when answers differed.
fn sample(session: &Session, asked: u64) -> Outcome<u64> {
    let before = session.state()?.sample.unwrap_or(0);
    if asked < before {
        tracing::info!(
            "answers differed before, among those about {before} relationships: asking about as many \
             (--check-sample {before})"
        );
    }
    Ok(asked.max(before))
}

/// What was proved of the relationships.
struct Proved {
    first: Pair,
    last: SyncPoint,
    at: Instant,
    rounds: u32,
}

/// Whether so many differences, seen in so many rounds in a row, may not be there.
fn is_doubtful(source: &Kind, count: usize, rounds: u32) -> bool {
    source.needs_settling() && count <= MOST_DOUBTFUL && rounds < DOUBTFUL_ROUNDS
}

impl Verification<'_> {
    /// Waits for a pair of revisions that is newer than this call.
    pub(crate) async fn next_pair(&self) -> Outcome<Pair> {
        let session = self.session;
        let applied = session.applied_file();
        let had = records::last_pair(&applied);
        let patience = 2 * heartbeat(&session.state()?) + PATIENCE;
        let began = Clock::now();
        loop {
            if let Some(pair) = records::last_pair(&applied)
                && Some(&pair) != had.as_ref()
            {
                return Ok(pair);
            }
            if lock::at_work(session.store.folder(), Step::Follow).is_none() {
                return Err(CommandError::new(
                    Exit::TryAgain,
                    "follow does not run, so nothing shows which revisions belong together",
                )
                .hint(format!(
                    "run: {}; then: {}",
                    session.words.step("follow"),
                    session.words.same()
                )));
            }
            if began.elapsed() > patience {
                return Err(CommandError::new(
                    Exit::TryAgain,
                    format!(
                        "spice-apply has written no sync point for {} s: is it behind?",
                        patience.as_secs()
                    ),
                )
                .hint(format!(
                    "look: {}; then run: {}",
                    session.words.step("status"),
                    session.words.same()
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Compares all relationships. What is proved is proved of the first pair: later ones only show what it
    /// could not.
    async fn relationships(&self) -> Outcome<Proved> {
        let session = self.session;
        let (source, target) = (&self.ends.source.context, &self.ends.target.context);
        let mut first: Option<Pair> = None;
        let (mut took, mut round, mut open) = (FIRST_GUESS, 1, 0);
        let (mut only, mut doubted) = (Vec::<PathBuf>::new(), 0);
        loop {
            let pair = self.next_pair().await?;
            let revisions = &pair.sync_point;
            if !self.schemas_agree(revisions).await? {
                continue;
            }
            if round == 1 {
                first = Some(pair.clone());
            }
            let until = Instant::now().after(2 * took + FIRST_GUESS);
            let again = match only.is_empty() {
                true => String::new(),
                false => format!(": {open} relationships that could not be compared before"),
            };
            tracing::info!(
                "comparing {target} at {} with {source} at {}{again}",
                revisions.target_revision,
                revisions.source_revision
            );
            let began = Clock::now();
            let deferred = session.temporary(&format!("aside.{round}"))?;
            let differs = self.compare(revisions, until, &deferred, &only).await?;
            took = began.elapsed();
            if Instant::now() >= until {
                // Some may have expired in between.
                if differs {
                    self.undecided("differences, or what has expired meanwhile", revisions)?;
                }
                let _ = remove(&deferred);
                continue;
            }
            open = records::count(&deferred, b"{")
                .map_err(|error| session.cannot_write(&deferred, &error))?;
            only.clear();
            if open > 0 {
                only.push(deferred);
            }
            if differs {
                // In memory a snapshot can lack a transaction that was overtaken, and that of a MySQL can hold a
                // relationship twice (docs/reliability.md): what is different must be so at later pairs as well.
                doubted += 1;
                let differences = session.file("differences.ndjson");
                let count = self.count(&differences)?;
                if !is_doubtful(&self.ends.source.kind, count, doubted) {
                    return Err(self.different(count, revisions)?);
                }
                self.undecided("differences, which a single snapshot may invent", revisions)?;
                tracing::info!(
                    "{count} differences, which a single snapshot of {} may invent: comparing these again",
                    self.ends.source.kind
                );
                let kept = session.temporary(&format!("only.{round}"))?;
                std::fs::copy(&differences, &kept)
                    .map_err(|error| session.cannot_write(&kept, &error))?;
                only.push(kept);
                open += count;
                round += 1;
                continue;
            }
            doubted = 0;
            if open == 0 {
                return self.proved(first, revisions, round);
            }
            if round >= ROUNDS {
                return Err(CommandError::new(
                    Exit::TryAgain,
                    format!(
                        "{open} relationships are written all the time, and could not be \
                         compared in {round} rounds"
                    ),
                )
                .hint(format!("run: {}", session.words.same())));
            }
            round += 1;
        }
    }

    fn proved(&self, first: Option<Pair>, last: &SyncPoint, rounds: u32) -> Outcome<Proved> {
        let first = first.and_then(|first| Some((first.at?, first)));
        let Some((at, first)) = first else {
            let applied = self.session.applied_file();
            return Err(CommandError::new(
                Exit::Failed,
                format!("the last pair in {} has no time", applied.display()),
            )
            .hint(format!("run: {}", self.session.words.same())));
        };
        Ok(Proved {
            first,
            last: last.clone(),
            at,
            rounds,
        })
    }

    fn count(&self, updates: &Path) -> Outcome<usize> {
        let counted = records::count(updates, br#"{"update""#);
        counted.map_err(|error| self.session.cannot_write(updates, &error))
    }

    /// Compares both ends at a pair: whether they differ. What differs is in `differences.ndjson`, what cannot
    /// be compared at this pair in a file of its own.
    async fn compare(
        &self,
        at: &SyncPoint,
        as_of: Instant,
        deferred: &Path,
        only: &[PathBuf],
    ) -> Outcome<bool> {
        let session = self.session;
        let path = session.file("differences.ndjson");
        let mut options = crate::suite::files::private();
        let differences = options.create(true).truncate(true).open(&path);
        let differences = differences.map_err(|error| session.cannot_write(&path, &error))?;
        let (target_reader, target_writer) = pipe()?;
        let (source_reader, source_path, source_writer) = pipe_at_a_path()?;
        let diff = commands::diff_live(&as_of.to_string(), &session.spool_file(), deferred, only)
            .arg("-")
            .arg(source_path);
        let runner = &session.runner;
        let mut diff =
            runner.spawn(&diff, Input::Pipe(target_reader), Output::File(differences))?;
        drop(source_reader);
        let mut exports = Vec::new();
        for (context, revision, writer) in [
            (
                &self.ends.target.context,
                &at.target_revision,
                target_writer,
            ),
            (
                &self.ends.source.context,
                &at.source_revision,
                source_writer,
            ),
        ] {
            let export = commands::export_relationships(
                context,
                At::Revision(revision),
                self.ends.precision,
                self.jobs,
                self.ends.filter.as_ref(),
            );
            exports.push(runner.spawn(&export, Input::None, Output::Pipe(writer))?);
        }
        let compared = diff.wait().await;
        let mut failed = match compared {
            Ended::Code(0 | 3) => None,
            ended => {
                for export in &exports {
                    export.signal(Signal::TERM);
                }
                Some(("spice-diff", ended))
            }
        };
        for export in &mut exports {
            let ended = export.wait().await;
            // Of a comparison that ended first the exports only lost their reader.
            if !ended.is_success() && !ended.is_of_another() {
                failed = Some(("spice-export", ended));
            }
        }
        match failed {
            None => Ok(compared == Ended::Code(3)),
            Some((_, Ended::Code(4))) => Err(CommandError::new(
                Exit::HistoryLost,
                "the ends could not be compared: a revision left the history meanwhile",
            )
            .hint(format!(
                "raise --datastore-gc-window, or read faster with --jobs; then run: {}",
                session.words.same()
            ))),
            Some((program, ended)) => {
                Err(session.failed(program, ended, "the ends could not be compared"))
            }
        }
    }

    /// Both ends differ in so many relationships at these revisions.
    fn different(&self, count: usize, at: &SyncPoint) -> Outcome<CommandError> {
        let session = self.session;
        let path = session.file("differences.ndjson");
        let what = format!(
            "{count} at {} and {}",
            at.source_revision, at.target_revision
        );
        self.verdict(Found::Different, what, Instant::now())?;
        tracing::info!("the first of them:");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let updates = text.lines().filter(|line| line.starts_with(r#"{"update""#));
        for line in updates.take(SHOWN) {
            tracing::info!("{}", escape(line));
        }
        Ok(CommandError::new(
            Exit::Partial,
            format!(
                "{} differs from {} in {count} relationships; all of them: {}",
                self.ends.target.context,
                self.ends.source.context,
                path.display()
            ),
        )
        .hint(format!(
            "somebody else writes to {}, or something is wrong: find out which",
            self.ends.target.context
        ))
        .also(format!(
            "to repair it: {}; then {}; then run: {}",
            session.words.step("resync"),
            session.words.step("follow"),
            session.words.same()
        )))
    }

    /// What status and cutover go by.
    pub(crate) fn verdict(&self, found: Found, what: String, since: Instant) -> Outcome {
        self.session.update(|state| {
            state.verdict = Some(Verdict { found, since, what });
        })
    }

    /// Something was seen that an equal verdict must not survive, however this ends.
    pub(crate) fn undecided(&self, what: &str, at: &SyncPoint) -> Outcome {
        let known = self.session.state()?.verdict;
        if known.is_some_and(|verdict| verdict.found == Found::Different) {
            return Ok(());
        }
        let what = format!(
            "{what}, at {} and {}",
            at.source_revision, at.target_revision
        );
        self.verdict(Found::Undecided, what, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, MOST_DOUBTFUL, is_doubtful};

    #[test]
    fn differences_of_a_settling_source_count_once_they_were_seen_again() {
        for (kind, count, rounds, expected) in [
            ("postgres", 1, 1, false),
            ("mysql", 1, 1, true),
            ("memory", MOST_DOUBTFUL, 3, true),
            ("mysql", 1, 4, false),
            ("mysql", MOST_DOUBTFUL + 1, 1, false),
        ] {
            let found = is_doubtful(&Kind(kind.to_owned()), count, rounds);
            assert_eq!(found, expected, "{kind}, {count}, {rounds}");
        }
    }
}
