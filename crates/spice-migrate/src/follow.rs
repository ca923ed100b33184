//! `follow`: captures and applies changes until it is stopped.

use crate::capture;
use crate::cli::{self, OnSchema};
use crate::commands::{self, Apply};
use crate::early;
use crate::ends;
use crate::part;
use crate::phase::{Phase, Step};
use crate::process::Ended;
use crate::restart::Kept;
use crate::session::Session;
use crate::state::{Following, State};
use crate::suite::{CommandError, Exit, Outcome};
use crate::time::Instant;

/// Which of the two programs ended first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Watch,
    Apply,
}

pub(crate) async fn run(session: &Session, flags: &cli::Follow) -> Outcome {
    session.alone(&[Step::Copy { restart: false }, Step::Cutover, Step::Resync])?;
    session.allowed()?;
    let ends = ends::look_again(session).await?;
    let state = begin(session, flags)?;
    let (source, target) = (&state.source.context, &state.target.context);
    tracing::info!(
        "following {source}; status: {}; the switch: {}",
        session.words.step("status"),
        session.words.step("cutover")
    );
    let since = state
        .start
        .as_ref()
        .map(|start| start.captured_since.clone());
    let mut watch = capture::capture(session, &since.unwrap_or_default(), &flags.capture)?;
    let apply = commands::apply_spool(
        target,
        &Apply {
            unnamed: ends.unnamed,
            jobs: flags.jobs,
            max_rps: flags.max_rps,
            rejects: flags.rejects.as_deref(),
            schema: part::schema_mode(ends.filter.as_ref(), flags.schema.map(OnSchema::name)),
        },
        &session.spool_file(),
        &session.position_file(),
    )
    .flag_if("--early", early::pipe(session))
    .arg_if("--prune", flags.prune);
    let applied = session.append(&session.applied_file())?;
    let mut apply = Kept::new(&session.runner, apply, Some(applied));
    let (first, ended) = tokio::select! {
        ended = watch.run() => (First::Watch, ended?),
        ended = apply.run() => (First::Apply, ended?),
    };
    let other = match first {
        First::Watch => apply.terminate().await,
        First::Apply => watch.terminate().await,
    };
    let (program, lost) = match first {
        First::Watch => (watch.program(), ended),
        First::Apply => (apply.program(), ended),
    };
    tracing::info!(
        "{program} ended first, with {}{}",
        lost.number(),
        other.map_or(String::new(), |other| format!(
            "; the other one with {}",
            other.number()
        ))
    );
    Err(over(session, &state, flags, program, ended, other))
}

/// What an interrupted cutover knew of a fence does not count any more.
fn begin(session: &Session, flags: &cli::Follow) -> Outcome<State> {
    let settle = session.settle()?;
    session.update(|state| {
        if let Some(ready) = state.phase.ready() {
            state.phase = Phase::Following { ready };
        }
        state.drained = None;
        state.aborted = None;
        state.following = Some(Following {
            since: Instant::now(),
            heartbeat: flags.capture.heartbeat.clone(),
            settle,
            prune: flags.prune,
            rejects: flags.rejects.clone(),
            schema: flags.schema.map(|schema| schema.name().to_owned()),
        });
    })?;
    session.state()
}

/// Why it has ended.
fn over(
    session: &Session,
    state: &State,
    flags: &cli::Follow,
    program: &str,
    ended: Ended,
    other: Option<Ended>,
) -> CommandError {
    let (source, target) = (&state.source.context, &state.target.context);
    let same = session.words.same();
    if ended == Ended::Code(4) || other == Some(Ended::Code(4)) {
        let hint = match state.is_reverse {
            true => format!(
                "{target} lacks what was written to {source} since; raise --datastore-gc-window on {source}, then: {}",
                session.words.step("resync")
            ),
            false => format!(
                "what to do now: docs/cutover.md, \"History lost\". In short: raise --datastore-gc-window on {source}, \
                 then: {}",
                session.words.step("resync")
            ),
        };
        return CommandError::new(Exit::HistoryLost, format!(
                "changes of {source} are lost: they left its history before they were captured. {target} cannot \
                 become equal by following"
            )).hint(hint);
    }
    match ended {
        Ended::Code(0) => CommandError::new(
            Exit::Failed,
            format!("{program} was stopped by somebody else"),
        )
        .hint(format!("run: {same}")),
        Ended::Code(3) => {
            let rejects = flags
                .rejects
                .as_ref()
                .map(|file| file.display().to_string());
            CommandError::new(
                Exit::Partial,
                format!(
                    "{program} ended with 3: the updates that {target} refused are in {}",
                    rejects.unwrap_or_default()
                ),
            )
            .hint(format!("see what it prints above; then run: {same}"))
        }
        ended => session.failed(
            program,
            ended,
            &format!("{} has ended", session.step.name()),
        ),
    }
}
