//! `plan`: checks both ends, writes to neither, and prints the steps.

use std::io::Write as _;

use spice_record::record::Filter;

use crate::cli::{self, OnConflict};
use crate::commands::Preflight;
use crate::ends::{self, Between};
use crate::part;
use crate::phase::{Phase, Procedure, Refusal, Step, allows};
use crate::plan_text::{self, Text};
use crate::preflight;
use crate::session::Session;
use crate::state::State;
use crate::suite::{CommandError, Outcome};
use crate::time::Span;

/// Whether these flags fit what is known; before anything is made.
pub(crate) fn may_begin(session: &Session, flags: &cli::Plan) -> Outcome {
    between(session, flags).map(drop)
}

/// The procedure that the flags ask for.
pub(crate) fn procedure(flags: &cli::Plan) -> Procedure {
    match flags.fenced {
        true => Procedure::Fenced,
        false => Procedure::Live,
    }
}

/// What is to be planned.
pub(crate) fn between(session: &Session, flags: &cli::Plan) -> Outcome<Between> {
    let procedure = procedure(flags);
    for context in [&flags.from, &flags.to].into_iter().flatten() {
        if context.chars().any(char::is_control) {
            return Err(
                CommandError::usage("--from and --to have no control characters")
                    .hint("give the names of tables of the contexts file"),
            );
        }
    }
    let Some(mut state) = session.known() else {
        let (Some(source), Some(target)) = (&flags.from, &flags.to) else {
            return Err(
                CommandError::usage("plan needs --from CONTEXT and --to CONTEXT").hint(format!(
                    "run: {}",
                    session.words.step("plan --from CONTEXT --to CONTEXT")
                )),
            );
        };
        if source == target {
            return Err(
                CommandError::usage(format!("--from and --to are both {source}"))
                    .hint("give the contexts of two servers"),
            );
        }
        return Ok(Between {
            source: source.clone(),
            target: target.clone(),
            procedure,
            filter: flags.filter.filter(),
        });
    };
    let filter = filter(session, state.filter.take(), &state.phase, flags)?;
    let (source, target) = (&state.source.context, &state.target.context);
    let is_same =
        |given: &Option<String>, known: &String| given.as_ref().is_none_or(|given| given == known);
    if !is_same(&flags.from, source) || !is_same(&flags.to, target) {
        return Err(CommandError::usage(format!(
                "{} is the folder of the migration from {source} to {target}",
                session.store.folder().display()
            )).hint("leave --from and --to out; or, for another migration, give another folder with --state"));
    }
    if let Some(switch) = state.phase.switch()
        && allows(state.procedure, &state.phase, Step::Plan) == Err(Refusal::SwitchOrdered)
    {
        return Err(
            CommandError::usage(format!("the switch to {target} was ordered {switch}"))
                .hint("for another migration, plan with another --state"),
        );
    }
    if (state.phase != Phase::Planned {}) && state.procedure != procedure {
        return Err(CommandError::usage(format!(
            "the copy has begun, planned the other way ({})",
            state.procedure.name()
        ))
        .hint(format!(
            "plan as before; or, to change that, {} and plan with another --state",
            part::empty(target, filter.as_ref())
        )));
    }
    Ok(Between {
        source: source.clone(),
        target: target.clone(),
        procedure,
        filter,
    })
}

/// The filter that is given, or that of the plan before. Once a copy has begun, it is in each file of the folder.
fn filter(
    session: &Session,
    known: Option<Filter>,
    phase: &Phase,
    flags: &cli::Plan,
) -> Outcome<Option<Filter>> {
    let Some(given) = flags.filter.filter() else {
        return Ok(known);
    };
    if *phase != (Phase::Planned {}) && known.as_ref() != Some(&given) {
        let planned = Filter::described(known.as_ref());
        return Err(CommandError::usage(format!(
            "the copy has begun, of {planned}, and not of {given}"
        ))
        .hint(format!(
            "leave --type and --resource-prefix out; or, for {given}, plan with another --state than {}",
            session.store.folder().display()
        )));
    }
    Ok(Some(given))
}

pub(crate) async fn run(session: &Session, flags: &cli::Plan) -> Outcome {
    session.alone(&[
        Step::Copy { restart: false },
        Step::Follow,
        Step::Cutover,
        Step::Reverse,
    ])?;
    let between = between(session, flags)?;
    let known = session.known();
    let phase = known
        .as_ref()
        .map_or(Phase::Planned {}, |state| state.phase.clone());
    let is_begun = phase != Phase::Planned {};
    let before = |get: fn(State) -> Option<Span>| known.clone().and_then(get);
    let kept = known
        .as_ref()
        .and_then(|state| state.on_conflict.as_deref());
    let policy = flags.on_conflict.map(OnConflict::name).or(kept);
    let there = match (is_begun, policy) {
        (false, None) => match between.filter {
            None => "holds no relationships; it has no schema, or the same".to_owned(),
            Some(_) => "holds none of these; it has no schema, or the same".to_owned(),
        },
        (false, Some(policy)) => {
            format!("may hold relationships (--on-conflict {policy}); its schema fits")
        }
        (true, _) => format!("copy {phase}"),
    };
    let settle = flags.settle.settle.clone();
    let settle = settle.or_else(|| before(|state| state.settle));
    let gc_window = flags.gc_window.clone();
    let gc_window = gc_window.or_else(|| before(|state| state.gc_window));
    let to_check = Preflight {
        source: &between.source,
        target: &between.target,
        procedure: between.procedure,
        policy: policy.or(is_begun.then_some("skip")),
        gc_window: gc_window.as_ref().map(Span::text),
        settle: settle.as_ref().map(Span::text),
        filter: between.filter.as_ref(),
        relationships: flags.relationships,
        timeout: flags.timeout.as_ref().map(Span::text),
    };
    let passed = preflight::run(session, &to_check, flags, is_begun).await?;
    // Every step looks at its ends: are they two, can the source be followed, are they those that were planned?
    let ends = ends::look(session, &between).await?;
    let planned = State {
        settle: settle.clone(),
        gc_window: gc_window.clone(),
        filter: between.filter.clone(),
        on_conflict: policy.map(str::to_owned),
        ..State::planned(between.procedure, ends.source.clone(), ends.target.clone())
    };
    match known {
        None => session.keep(planned)?,
        Some(_) => session.update(|state| {
            state.procedure = planned.procedure;
            state.source = planned.source;
            state.target = planned.target;
            state.settle = planned.settle;
            state.gc_window = planned.gc_window;
            state.filter = planned.filter;
            state.on_conflict = planned.on_conflict;
        })?,
    }
    let text = plan_text::text(&Text {
        ends: &ends,
        procedure: between.procedure,
        there: &there,
        preflight: &passed,
        settle: settle.as_ref(),
        gc_window: gc_window.as_ref(),
        words: &session.words,
    });
    keep(session, &text)?;
    crate::suite::stdio::print_line(text.trim_end())?;
    tracing::info!("planned; nothing was written to either server");
    tracing::info!(
        "hint: next: {}",
        match between.procedure {
            Procedure::Live => session.words.step("copy"),
            Procedure::Fenced => "step 1 above".to_owned(),
        }
    );
    Ok(())
}

fn keep(session: &Session, text: &str) -> Outcome {
    let path = session.file("plan.txt");
    let mut options = crate::suite::files::private();
    let written = options
        .create(true)
        .truncate(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| session.cannot_write(&path, &error))
}
