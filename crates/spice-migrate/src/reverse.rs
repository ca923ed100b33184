//! `reverse`: the way back is a migration of its own, in a folder inside that of the way there.

use crate::folder;
use crate::phase::Step;
use crate::session::Session;
use crate::store::Store;
use crate::suite::{CommandError, Exit, Outcome};

/// Makes the folder of the way back, unless it is there: its state begins at the revision of the target
/// that belongs to the end of the source.
pub(crate) fn prepare(session: &Session) -> Outcome<Store> {
    let state = session.state()?;
    let (source, target) = (&state.source.context, &state.target.context);
    session.allowed()?;
    if state.target.kind.is("spanner") {
        return Err(CommandError::new(Exit::Failed, format!(
                "{target} is on Spanner, which cannot be followed: its Watch leaves the expiry of relationships out"
            )).hint(format!(
                "the way back is a migration from {target} into an empty server, with writes stopped: plan it with \
                 --fenced and another --state"
            )));
    }
    session.alone(&[
        Step::Copy { restart: false },
        Step::Follow,
        Step::Cutover,
        Step::Resync,
    ])?;
    let store = Store::new(&folder::reverse(session.store.folder()));
    let _alone = session.store.alone()?;
    folder::make(store.folder())?;
    if store.load()?.is_none()
        && let Some(reversed) = state.reversed()
    {
        store.save(reversed)?;
    }
    tracing::info!(
        "following {target} back to {source}, from where the switch was ordered: only what others wrote travels"
    );
    Ok(store)
}

/// Refuses to compare or to order anything after a switch back: the target is stale then.
pub(crate) fn is_not_switched(session: &Session) -> Outcome {
    let back = Store::new(&folder::reverse(session.store.folder())).load()?;
    let Some(state) = back else {
        return Ok(());
    };
    let Some(switch) = state.phase.switch() else {
        return Ok(());
    };
    let (from, to) = (&state.source.context, &state.target.context);
    let message =
        format!("the switch back from {from} to {to} was ordered {switch}: {from} is stale");
    let again = session.words.on_the_way_back().step("reverse");
    Err(CommandError::usage(message)
        .hint(format!(
            "what is written to {to} comes to {from} with: {again}"
        ))
        .also("to move once more, plan with another --state"))
}

/// Refuses to continue while the way back is followed.
pub(crate) fn is_not_at_work(session: &Session) -> Outcome {
    let store = Store::new(&folder::reverse(session.store.folder()));
    match crate::lock::at_work(store.folder(), Step::Follow) {
        None => Ok(()),
        Some(_) => Err(CommandError::new(
            Exit::TryAgain,
            "reverse of this migration is still at work",
        )
        .hint(format!(
            "stop it with: {}; then run: {}",
            session.words.step("abort"),
            session.words.same()
        ))),
    }
}
