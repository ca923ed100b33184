//! `check`: compares both ends as they are now, with writes stopped.

use crate::commands::At;
use crate::compare::{self, Both};
use crate::ends;
use crate::part::extra;
use crate::session::Session;
use crate::suite::{CommandError, Exit, Outcome};
use crate::time::Span;

pub(crate) async fn run(session: &Session) -> Outcome {
    session.allowed()?;
    let ends = ends::look_again(session).await?;
    let (source, target) = (&ends.source.context, &ends.target.context);
    tracing::info!("reading {source} and {target} as they are now");
    let settle = session.settle()?;
    let both = Both {
        source,
        source_at: At::Settled(settle.as_ref().map(Span::text)),
        target,
        target_at: At::Settled(Some("0s")),
        precision: ends.precision,
        filter: ends.filter.as_ref(),
    };
    let compared = match compare::compare(session, &both).await? {
        Ok(compared) => compared,
        Err((program, ended)) => {
            return Err(session.failed(program, ended, "the ends could not be compared"));
        }
    };
    compare::show([source, target], &compared, ends.precision)?;
    if !compared.is_equal() {
        return Err(CommandError::new(
            Exit::Partial,
            format!("{source} and {target} differ. Do not switch"),
        )
        .hint(format!(
            "if {source} was written since the copy: fence it, then {}; then check again",
            session.words.step("copy --restart --on-conflict touch")
        ))
        .also(extra(source, target, ends.filter.as_ref())));
    }
    tracing::info!(
        "equal: {target} holds what {source} holds{}",
        compared.but()
    );
    tracing::info!("hint: if {source} is fenced, switch reads and writes to {target} now");
    Ok(())
}
