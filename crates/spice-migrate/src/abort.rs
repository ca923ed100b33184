//! `abort`: stops all steps, and deletes nothing.

use crate::folder;
use crate::phase::{Step, next_step};
use crate::session::Session;
use crate::status;
use crate::store::Store;
use crate::suite::{Outcome, PositionFile};
use crate::time::Instant;

pub(crate) async fn run(session: &Session) -> Outcome {
    let reverse = Store::new(&folder::reverse(session.store.folder()));
    for store in [&session.store, &reverse] {
        for step in Step::ALL {
            if step == Step::Abort {
                continue;
            }
            let name = match store.folder() == reverse.folder() && step == Step::Follow {
                true => "reverse",
                false => step.name(),
            };
            let why = format!("abort: {name} has ended");
            session.stop_step(store, step, &why).await?;
        }
    }
    session.update(|state| {
        state.aborted = Some(Instant::now());
        if state.phase.switch().is_none() {
            state.phase = state.phase.clone().unfenced();
            state.verdict = None;
            state.drained = None;
        }
    })?;
    let state = session.state()?;
    let (source, target) = (&state.source.context, &state.target.context);
    let words = &session.words;
    if let Some(switch) = state.phase.switch() {
        let through = match applied_through(&reverse) {
            Some(revision) => format!("what was written through revision {revision} of {target}"),
            None => "nothing of it".to_owned(),
        };
        tracing::info!("stopped. The switch to {target} had been ordered {switch}");
        tracing::info!("of what was written to {target} since, {source} holds {through}");
        tracing::info!("hint: {}", status::way_back(session, &state));
        return Ok(());
    }
    let through = match applied_through(&session.store) {
        Some(revision) => format!("the changes through revision {revision} of {source}"),
        None => "no changes".to_owned(),
    };
    let next = next_step(state.procedure, &state.phase).name();
    tracing::info!("stopped. Nothing was switched, and nothing is deleted");
    tracing::info!("{source} is untouched: continue to use it; if it is fenced, lift the fence");
    tracing::info!(
        "{target} is stale: it holds the copy ({}) and {through}. Nobody should read it",
        state.phase
    );
    tracing::info!(
        "{} holds captured changes, and is as confidential as {source}",
        session.spool_file().display()
    );
    tracing::info!(
        "hint: to continue after all, while {source} still has the history: {}",
        words.step(next)
    );
    tracing::info!(
        "hint: or, to give up: {}, and delete {}",
        crate::part::empty(target, state.filter.as_ref()),
        session.store.folder().display()
    );
    Ok(())
}

fn applied_through(store: &Store) -> Option<String> {
    let position = PositionFile::new(&store.file("position")).load().ok()??;
    Some(position.source_revision)
}
