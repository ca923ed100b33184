//! `resync`: makes the target equal again without emptying it, from a new revision on, while both are
//! written. For a target that has drifted, and for one that has lost its history. Killed in the middle, it
//! begins again.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::cli;
use crate::commands::{self, Apply, At};
use crate::copy::spool_files;
use crate::ends::{self, Ends};
use crate::lock;
use crate::phase::{Phase, Step};
use crate::process::{Child, Ended, Input, Output, pipe, pipe_at_a_path};
use crate::session::Session;
use crate::suite::{CommandError, Exit, Outcome, PositionFile};
use crate::time::Instant;
use crate::{capture, reverse};

/// How long a write may be applied late that was cut.
const LATE: Duration = Duration::from_secs(30);

pub(crate) async fn run(session: &Session, flags: &cli::Resync) -> Outcome {
    session.alone(&[Step::Copy { restart: false }, Step::Cutover, Step::Verify])?;
    reverse::is_not_at_work(session)?;
    session.allowed()?;
    let why = "resync takes over from here: follow has ended as it should";
    session.stop_step(&session.store, Step::Follow, why).await?;
    let ends = ends::look_again(session).await?;
    wait_for_late_writes(session).await?;
    let since = Instant::now();
    session.set_phase(Phase::Resyncing {
        since,
        writing: false,
    })?;
    archive(session)?;
    let start = capture::begin_at_head(session).await?;
    let resync = Resync {
        session,
        ends: &ends,
        flags,
        since,
    };
    let work = resync.work(&start.revision);
    let applied = capture::beside(session, &start.captured_since, &flags.capture, work).await?;
    session.set_phase(Phase::Resynced {
        since: Instant::now(),
    })?;
    let (source, target) = (&ends.source.context, &ends.target.context);
    let words = &session.words;
    if applied == Ended::Code(3) {
        let rejects = flags
            .rejects
            .as_ref()
            .map(|file| file.display().to_string());
        return Err(CommandError::new(
            Exit::Partial,
            format!(
                "updates that {target} refused are in {}",
                rejects.unwrap_or_default()
            ),
        )
        .hint(format!(
            "see what spice-apply prints above; then: {}",
            words.step("follow")
        )));
    }
    tracing::info!(
        "{target} was made equal to {source} as of revision {}; what was written since is captured",
        start.revision
    );
    tracing::info!(
        "hint: next: {}; then: {}",
        words.step("follow"),
        words.step("verify")
    );
    Ok(())
}

/// A write of a process that was killed may still be applied late.
async fn wait_for_late_writes(session: &Session) -> Outcome {
    let folder = session.store.folder();
    let position = PositionFile::new(&session.position_file())
        .load()
        .ok()
        .flatten();
    let may_be_ambiguous = position.is_some_and(|position| position.ambiguous_until.is_some())
        || lock::was_killed(folder, Step::Follow)
        || matches!(
            session.state()?.phase,
            Phase::Resyncing { writing: true, .. }
        );
    if may_be_ambiguous {
        tracing::info!(
            "a write of the process before this one may still be applied late: waiting {} s",
            LATE.as_secs()
        );
        tokio::time::sleep(LATE).await;
        lock::forget(folder, Step::Follow);
    }
    Ok(())
}

/// Puts away what belongs to the revision from which was followed until now.
fn archive(session: &Session) -> Outcome {
    let folder = archive_folder(session)?;
    let state = session.file("state.json");
    let kept = folder.join("state.json");
    std::fs::copy(&state, &kept).map_err(|error| session.cannot_write(&kept, &error))?;
    let mut files = spool_files(session)?;
    files.extend(
        [
            "position",
            "position.early",
            "applied.ndjson",
            "differences.ndjson",
            "checks.ndjson",
        ]
        .map(|name| session.file(name)),
    );
    for file in files.iter().filter(|file| file.exists()) {
        let to = folder.join(file.file_name().unwrap_or_default());
        std::fs::rename(file, to).map_err(|error| session.cannot_write(file, &error))?;
    }
    session.update(|state| {
        state.start = None;
        state.following = None;
        state.verdict = None;
        state.drained = None;
    })?;
    tracing::info!("what was captured until now is in {}", folder.display());
    Ok(())
}

fn archive_folder(session: &Session) -> Outcome<PathBuf> {
    let name = format!("before-{}", Instant::now().0.strftime("%Y%m%dT%H%M%S.%3fZ"));
    let folder = session.file(&name);
    std::fs::create_dir(&folder).map_err(|error| session.cannot_write(&folder, &error))?;
    Ok(folder)
}

struct Resync<'a> {
    session: &'a Session,
    ends: &'a Ends,
    flags: &'a cli::Resync,
    since: Instant,
}

impl Resync<'_> {
    /// Brings the schema, compares both ends, and applies what differs.
    async fn work(&self, revision: &str) -> Outcome<Ended> {
        self.schema(revision).await?;
        self.differences(revision).await
    }

    /// Relationships of the source may need its schema. Where others prevent it, the comparison removes them,
    /// and follow brings it.
    async fn schema(&self, revision: &str) -> Outcome {
        let session = self.session;
        let (source, target) = (&self.ends.source.context, &self.ends.target.context);
        let header = ends::header_of(
            session,
            source,
            At::Revision(revision),
            self.ends.filter.as_ref(),
        )
        .await?;
        let file = session.temporary("header")?;
        let is_shared = self.ends.filter.is_some();
        std::fs::write(&file, header).map_err(|error| session.cannot_write(&file, &error))?;
        let command = commands::import_schema(target, self.ends.unnamed, is_shared).arg(&file);
        let (ended, _) = session.runner.run(&command).await?;
        match ended {
            Ended::Code(0) => Ok(()),
            Ended::Code(1) if is_shared => Err(CommandError::new(
                Exit::Failed,
                format!(
                    "the schema of {target} differs from that of {source}, and others share it: it is not changed. \
                     Nothing else was changed either"
                ),
            )
            .hint(format!(
                "make both schemas equal; then run: {}",
                session.words.same()
            ))),
            Ended::Code(1) => {
                tracing::info!("{target} does not take the schema of {source} yet; continuing");
                Ok(())
            }
            ended => {
                let what = format!("the schema of {source} could not be brought to {target}");
                Err(session.failed("spice-import", ended, &what))
            }
        }
    }

    fn is_writing(&self, writing: bool) -> Outcome {
        self.session.set_phase(Phase::Resyncing {
            since: self.since,
            writing,
        })
    }

    async fn differences(&self, revision: &str) -> Outcome<Ended> {
        let session = self.session;
        self.is_writing(true)?;
        let (mut others, mut apply) = self.spawn(revision)?;
        let applied = apply.wait().await;
        let mut failed = match applied {
            Ended::Code(0 | 3) => None,
            ended => Some(("spice-apply", ended)),
        };
        match failed {
            None => self.is_writing(false)?,
            Some(_) => {
                for child in &others {
                    child.signal(Signal::TERM);
                }
            }
        }
        // What ended first made the others end: a stream that was cut (65), a reader that has left.
        for child in &mut others {
            let ended = child.wait().await;
            let is_reason = match failed {
                None => true,
                Some((_, first)) => first == Ended::Code(65),
            };
            if !ended.is_success() && !ended.is_of_another() && is_reason {
                failed = Some((child.program, ended));
            }
        }
        match failed {
            None => Ok(applied),
            Some((program, ended)) => Err(session.failed(
                program,
                ended,
                &format!(
                    "the resync is not finished: {} lies between what it was and {}",
                    self.ends.target.context, self.ends.source.context
                ),
            )),
        }
    }

    /// Two exports into a comparison, and that into an apply.
    fn spawn(&self, revision: &str) -> Outcome<(Vec<Child>, Child)> {
        let (session, runner) = (self.session, &self.session.runner);
        let (source, target) = (&self.ends.source.context, &self.ends.target.context);
        let (target_reader, target_writer) = pipe()?;
        let (updates_reader, updates_writer) = pipe()?;
        let (source_reader, source_path, source_writer) = pipe_at_a_path()?;
        let diff = commands::diff("-", source_path).arg("--exit-zero");
        let diff = runner.spawn(
            &diff,
            Input::Pipe(target_reader),
            Output::Pipe(updates_writer),
        )?;
        drop(source_reader);
        let mut others = vec![diff];
        for (context, at, writer) in [
            (target, At::Settled(Some("0s")), target_writer),
            (source, At::Revision(revision), source_writer),
        ] {
            let (precision, jobs) = (self.ends.precision, self.flags.jobs.jobs);
            let export = commands::export_relationships(
                context,
                at,
                precision,
                jobs,
                self.ends.filter.as_ref(),
            );
            others.push(runner.spawn(&export, Input::None, Output::Pipe(writer))?);
        }
        let apply = commands::apply_updates(
            target,
            &Apply {
                unnamed: self.ends.unnamed,
                max_rps: self.flags.max_rps,
                rejects: self.flags.rejects.as_deref(),
                ..Apply::default()
            },
        );
        let applied = session.append(&session.applied_file())?;
        let apply = runner.spawn(&apply, Input::Pipe(updates_reader), Output::File(applied))?;
        Ok((others, apply))
    }
}
