//! `copy`: exports from one end into the other, captures what changes meanwhile, and compares the copy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use spice_record::record::Imported;

use crate::cli::{self, OnConflict};
use crate::commands::{self, At, Import};
use crate::compare::{self, Both, Compared, Counted};
use crate::ends::{self, Ends};
use crate::phase::{Phase, Procedure, Step};
use crate::process::{Ended, Input, Output, pipe};
use crate::session::Session;
use crate::state::State;
use crate::store::remove;
use crate::suite::{CommandError, Exit, Outcome};
use crate::time::Instant;
use crate::{capture, part, records};

pub(crate) async fn run(session: &Session, flags: &cli::Copy) -> Outcome {
    session.alone(&[Step::Follow, Step::Cutover, Step::Reverse, Step::Resync])?;
    session.allowed()?;
    let state = session.state()?;
    let mut is_new = state.phase == Phase::Planned {};
    if flags.restart {
        is_new |= state.procedure == Procedure::Live;
    } else {
        match state.phase {
            Phase::Planned {} | Phase::Copying { .. } | Phase::Incomplete { .. } => {}
            Phase::Copied { .. } | Phase::Unequal { .. } => {
                tracing::info!("the copy is {}; comparing, not writing", state.phase);
                let ends = ends::look_again(session).await?;
                return prove(session, &ends, &newest_import(session)?).await;
            }
            _ => {
                tracing::info!("the copy is {}; nothing was written", state.phase);
                tracing::info!(
                    "hint: next: {}. (A new copy: --restart)",
                    after_copy(session, &state)
                );
                return Ok(());
            }
        }
    }
    let ends = ends::look_again(session).await?;
    let planned = state.on_conflict.as_deref();
    let mut policy = flags.on_conflict.map(OnConflict::name).or(planned);
    if is_new {
        ends::fit(session, &ends, policy).await?;
        if flags.restart && state.procedure == Procedure::Live {
            forget_changes(session)?;
        }
    } else {
        policy = policy.or(Some("skip"));
        tracing::info!(
            "resuming the copy, {}; what is on {} stays (--on-conflict {})",
            state.phase,
            state.target.context,
            policy.unwrap_or_default()
        );
    }
    let transfer = Transfer {
        session,
        ends: &ends,
        flags,
        policy,
        before: (!is_new).then(|| state.phase.clone()),
    };
    let imported = transfer.run().await?;
    prove(session, &ends, &imported).await
}

/// One export into one import.
struct Transfer<'a> {
    session: &'a Session,
    ends: &'a Ends,
    flags: &'a cli::Copy,
    policy: Option<&'a str>,
    before: Option<Phase>,
}

impl Transfer<'_> {
    /// Copies; the summary of the import, if everything is on the target.
    async fn run(&self) -> Outcome<Imported> {
        let session = self.session;
        let state = session.state()?;
        let (ended, output) = match state.procedure {
            Procedure::Fenced => {
                let settle = session.settle()?;
                let settle = settle.as_ref().map(crate::time::Span::text);
                self.transfer(At::Settled(settle)).await?
            }
            Procedure::Live => {
                let start = match state.start {
                    Some(start) => start,
                    None => capture::begin_at_head(session).await?,
                };
                let transfer = self.transfer(At::Revision(&start.revision));
                let capture = &self.flags.capture;
                capture::beside(session, &start.captured_since, capture, transfer).await?
            }
        };
        let [exported, imported] = ended;
        let is_over = matches!(imported, Ended::Code(0 | 3)) && exported.is_success();
        if !is_over {
            return Err(self.failed(exported, imported)?);
        }
        let summary = self.keep(&output)?;
        if imported == Ended::Code(3) {
            return Err(self.incomplete(&summary)?);
        }
        session.set_phase(Phase::Copied {
            since: Instant::now(),
        })?;
        Ok(summary)
    }

    /// From here on there may be relationships of this migration on the target.
    async fn transfer(&self, at: At<'_>) -> Outcome<([Ended; 2], Vec<u8>)> {
        let session = self.session;
        session.set_phase(Phase::Copying {
            since: Instant::now(),
        })?;
        let jobs = self.flags.jobs.jobs;
        let (source, target) = (&self.ends.source.context, &self.ends.target.context);
        let import = Import {
            unnamed: self.ends.unnamed,
            policy: self.policy,
            rejects: self.flags.rejects.as_deref(),
            jobs,
        };
        let (reader, writer) = pipe()?;
        let export = commands::export(
            source,
            at,
            self.ends.precision,
            jobs,
            self.ends.filter.as_ref(),
        );
        let import = commands::import(target, &import);
        let mut export = session
            .runner
            .spawn(&export, Input::None, Output::Pipe(writer))?;
        let import = session
            .runner
            .spawn(&import, Input::Pipe(reader), Output::Kept)?;
        let (imported, output) = import.finish().await;
        // The importer sees the exporter's end at once: then it ends with 65. The exporter sees the importer's
        // only when it writes.
        if !matches!(imported, Ended::Code(0 | 65)) {
            export.signal(Signal::TERM);
        }
        let exported = export.wait().await;
        if imported == Ended::Code(2) && self.before.is_none() {
            // Refused before anything was written.
            session.set_phase(Phase::Planned {})?;
        }
        Ok(([exported, imported], output))
    }

    /// Appends the summary of the import to the records of this migration.
    fn keep(&self, output: &[u8]) -> Outcome<Imported> {
        use std::io::Write as _;

        let session = self.session;
        let path = session.file("imported.ndjson");
        let mut file = session.append(&path)?;
        let written = file.write_all(output).and_then(|()| file.sync_all());
        written.map_err(|error| session.cannot_write(&path, &error))?;
        records::imported(output)
            .ok_or_else(|| no_summary(session, "spice-import has printed no summary"))
    }

    fn incomplete(&self, summary: &Imported) -> Outcome<CommandError> {
        let session = self.session;
        session.set_phase(Phase::Incomplete {
            since: Instant::now(),
        })?;
        let (source, target) = (&self.ends.source.context, &self.ends.target.context);
        let rejects = match &self.flags.rejects {
            Some(file) => format!(" (now in {})", file.display()),
            None => String::new(),
        };
        let by_whom = match session.is_live() {
            true => format!("if nobody else is meant to write to {target}"),
            false => format!("with {source} fenced"),
        };
        Ok(CommandError::new(Exit::Partial, format!(
                "not everything of {source} is on {target}: {} differ there and were skipped, {} were refused{rejects}",
                summary.skipped, summary.rejected
            )).hint(format!(
                "do not switch; the messages above name them (also in {})",
                session.file("copy.log").display()
            ))
        .also(format!("what differs: {by_whom}, add --on-conflict touch, which takes the source's"))
        .also(format!(
            "what was refused {target} cannot hold: change or delete it on {source}; then run: {}",
            session.words.same()
        )))
    }

    fn failed(&self, exported: Ended, imported: Ended) -> Outcome<CommandError> {
        let session = self.session;
        let state = session.state()?;
        let left = match state.phase {
            Phase::Planned {} => "nothing was copied",
            _ => "the copy is not finished",
        };
        let source = &self.ends.source.context;
        if state.procedure == Procedure::Live && exported == Ended::Code(4) {
            let revision = state.start.map(|start| start.revision).unwrap_or_default();
            return Ok(CommandError::new(
                Exit::HistoryLost,
                format!("{left}: revision {revision} has left the history of {source}"),
            )
            .hint(format!(
                "raise --datastore-gc-window on {source} (and add --jobs), for the copy takes \
                 longer than it lasts"
            ))
            .also(format!(
                "then {}, and begin again at a new revision: {}",
                part::empty(&self.ends.target.context, self.ends.filter.as_ref()),
                session.words.step("copy --restart")
            )));
        }
        Ok(match (exported, imported) {
            (_, Ended::Code(0)) | (Ended::Signal(15), Ended::Code(65)) => {
                session.failed("spice-export", exported, left)
            }
            // The exporter lost its reader, or was asked to end.
            (Ended::Code(0) | Ended::Signal(13 | 15), _) => {
                session.failed("spice-import", imported, left)
            }
            // The importer got a cut stream.
            (_, Ended::Code(65)) => session.failed("spice-export", exported, left),
            _ => {
                tracing::error!("spice-import failed as well: {}", imported.number());
                session.failed("spice-export", exported, left)
            }
        })
    }
}

fn no_summary(session: &Session, what: &str) -> CommandError {
    let hint = format!("begin again: {}", session.words.step("copy --restart"));
    CommandError::new(Exit::BadData, what).hint(hint)
}

fn newest_import(session: &Session) -> Outcome<Imported> {
    let path = session.file("imported.ndjson");
    let bytes = records::tail(&path, 1_000_000).unwrap_or_default();
    let missing = || {
        no_summary(
            session,
            &format!("{} has no summary of an import", path.display()),
        )
    };
    records::imported(&bytes).ok_or_else(missing)
}

/// What comes after a copy.
fn after_copy(session: &Session, state: &State) -> String {
    let words = &session.words;
    match state.procedure {
        Procedure::Live => format!(
            "{}, while {} still has the history after the copy",
            words.step("follow"),
            state.source.context
        ),
        Procedure::Fenced => format!(
            "with {} fenced, run: {}; then switch",
            state.source.context,
            words.step("check")
        ),
    }
}

/// Does the target hold what was imported?
async fn prove(session: &Session, ends: &Ends, imported: &Imported) -> Outcome {
    let state = session.state()?;
    let (source, target) = (&ends.source.context, &ends.target.context);
    let missing = || no_summary(session, "the summary of the import names no revision");
    let source_revision = imported.source_revision.as_deref().ok_or_else(missing)?;
    let target_revision = imported.target_revision.as_deref().ok_or_else(missing)?;
    let precision = imported.expiry_precision.to_string();
    tracing::info!("reading {target} at {target_revision}, to compare it with what was imported");
    let (at, filter) = (At::Revision(target_revision), ends.filter.as_ref());
    let there = match compare::read_end(session, target, at, &precision, filter, None).await? {
        Ok(there) => there,
        Err(unread) => return Err(not_compared(session, unread)),
    };
    let mut compared = Compared {
        source: Counted {
            relationships: imported.relationships,
            digest: imported.digest,
        },
        target: there,
        as_of: None,
    };
    if !compared.is_equal() {
        let both = Both {
            source,
            source_at: At::Revision(source_revision),
            target,
            target_at: at,
            precision: &precision,
            filter,
        };
        let took = Duration::try_from_secs_f64(imported.seconds).unwrap_or_default();
        compared = match compare::again(session, &both, took).await? {
            Ok(compared) => compared,
            Err(unread) => return Err(not_compared(session, unread)),
        };
    }
    compare::show(
        [&format!("snapshot of {source}"), target],
        &compared,
        &precision,
    )?;
    let since = Instant::now();
    if !compared.is_equal() {
        session.set_phase(Phase::Unequal { since })?;
        return Err(unequal(session, &state));
    }
    session.set_phase(Phase::Proven { since })?;
    tracing::info!(
        "proven: {target} holds {source} as of revision {source_revision}{}",
        compared.but()
    );
    tracing::info!("{}", what_of_later(session, &state));
    tracing::info!("hint: next: {}", after_copy(session, &state));
    Ok(())
}

fn what_of_later(session: &Session, state: &State) -> String {
    let (source, target) = (&state.source.context, &state.target.context);
    match state.procedure {
        Procedure::Live => format!(
            "what was written to {source} until now is in {}; what comes later is not captured before follow runs",
            session.spool_file().display()
        ),
        Procedure::Fenced => format!("what is written to {source} after that is NOT on {target}"),
    }
}

fn unequal(session: &Session, state: &State) -> CommandError {
    let (source, target) = (&state.source.context, &state.target.context);
    let hint = match state.procedure {
        Procedure::Live => format!(
            "somebody writes to {target}, or it was not empty: {}; then: {}",
            part::empty(target, state.filter.as_ref()),
            session.words.step("copy --restart")
        ),
        Procedure::Fenced => format!(
            "if {source} was written meanwhile: fence it, then {}",
            session.words.step("copy --restart --on-conflict touch")
        ),
    };
    CommandError::new(
        Exit::Partial,
        format!("{target} does not hold exactly what was copied from {source}. Do not switch"),
    )
    .hint(hint)
    .also(part::extra(source, target, state.filter.as_ref()))
}

fn not_compared(session: &Session, (program, ended): compare::Unread) -> CommandError {
    if ended != Ended::Code(4) {
        return session.failed(program, ended, "the ends could not be compared");
    }
    let hint = match session.is_live() {
        true => format!(
            "resume with: {}. cutover compares both ends",
            session.words.step("follow")
        ),
        false => format!(
            "compare the ends as they are now: {}",
            session.words.step("check")
        ),
    };
    CommandError::new(
        Exit::HistoryLost,
        "everything was copied, but the revision to compare is no longer in the history",
    )
    .hint(hint)
}

/// Forgets what belongs to the revision of a copy that is not wanted any more.
fn forget_changes(session: &Session) -> Outcome {
    session.update(|state| {
        let planned = State::planned(state.procedure, state.source.clone(), state.target.clone());
        *state = State {
            settle: state.settle.take(),
            gc_window: state.gc_window.take(),
            filter: state.filter.take(),
            is_reverse: state.is_reverse,
            ..planned
        };
    })?;
    for path in of_a_copy(session)? {
        remove(&path).map_err(|error| session.cannot_write(&path, &error))?;
    }
    let applied = session.applied_file();
    if applied.exists() {
        let before = session.file("applied.before.ndjson");
        std::fs::rename(&applied, before)
            .map_err(|error| session.cannot_write(&applied, &error))?;
    }
    Ok(())
}

fn of_a_copy(session: &Session) -> Outcome<Vec<PathBuf>> {
    let mut files = spool_files(session)?;
    let others = [
        "position",
        "position.early",
        "differences.ndjson",
        "checks.ndjson",
    ];
    files.extend(others.map(|name| session.file(name)));
    Ok(files)
}

/// The spool's files, those beside it as well.
pub(crate) fn spool_files(session: &Session) -> Outcome<Vec<PathBuf>> {
    let folder: &Path = session.store.folder();
    let failed = |error: std::io::Error| {
        let message = format!("cannot read {}: {error}", folder.display());
        CommandError::new(Exit::Failed, message).hint(format!("run: {}", session.words.same()))
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("changes.ndjson")
        {
            files.push(entry.path());
        }
    }
    Ok(files)
}
