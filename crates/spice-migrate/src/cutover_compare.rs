//! Both ends compared behind the fence: before the switch, or after it.

use crate::commands::At;
use crate::compare::{self, Both, Compared};
use crate::cutover::Cutover;
use crate::phase::{Switch, SyncPoint};
use crate::process::Ended;
use crate::state::{Found, Verdict};
use crate::suite::{CommandError, Exit, Outcome};
use crate::time::Instant;

impl Cutover<'_> {
    /// Are both ends equal, at the end of the source and at the target's revision that belongs to it? Returns
    /// what to say of it.
    pub(crate) async fn verify(
        &self,
        second: &str,
        sync_point: &SyncPoint,
        is_switched: bool,
    ) -> Outcome<String> {
        let (source, target, precision) = (self.source(), self.target(), self.ends.precision);
        let at = &sync_point.target_revision;
        tracing::info!("comparing {source} at {second} with {target} at {at}");
        let both = Both {
            source,
            source_at: At::Revision(second),
            target,
            target_at: At::Revision(at),
            precision,
            filter: self.ends.filter.as_ref(),
        };
        let compared = match compare::compare(self.session, &both).await? {
            Ok(compared) => compared,
            Err((program, ended)) => {
                return Err(self.not_compared(program, ended, is_switched));
            }
        };
        compare::show([source, target], &compared, precision)?;
        if !compared.is_equal() {
            let what = format!("digests at {second} and {at}, behind the fence");
            return Err(self.unequal(what, is_switched)?);
        }
        let but = compared.but();
        tracing::info!("equal: {target} holds what {source} held at the switch{but}");
        let Compared { source, .. } = compared;
        Ok(format!(
            "equal, {} relationships, digest {} ({precision}){but}",
            source.relationships, source.digest
        ))
    }

    fn unequal(&self, what: String, is_switched: bool) -> Outcome<CommandError> {
        let (session, source, target) = (self.session, self.source(), self.target());
        let shown = what.clone();
        session.update(|state| {
            state.verdict = Some(Verdict {
                found: Found::Different,
                since: Instant::now(),
                what,
            });
            if !is_switched {
                state.phase = state.phase.clone().unfenced();
            }
        })?;
        let words = &session.words;
        let report = format!(
            "and please report it, with {}: this must not happen where nobody else writes to {target}",
            session.store.folder().display()
        );
        Ok(match is_switched {
            true => CommandError::new(
                Exit::Partial,
                format!("{source} and {target} differ, and the switch was ordered"),
            )
            .hint(crate::status::different(session, &session.state()?, &shown)),
            false => CommandError::new(
                Exit::Partial,
                format!("{source} and {target} differ. Nothing is switched: do not switch"),
            )
            .hint(format!("lift the fence; then: {}", words.step("follow")))
            .also(format!(
                "what differs: {}; to make {target} equal: {}",
                words.step("verify"),
                words.step("resync")
            )),
        }
        .also(report))
    }

    fn not_compared(&self, program: &str, ended: Ended, is_switched: bool) -> CommandError {
        let (session, source, target) = (self.session, self.source(), self.target());
        let words = &session.words;
        match (ended, is_switched) {
            (Ended::Code(4), false) => CommandError::new(
                Exit::HistoryLost,
                "the ends were not compared: a revision to compare has left the history. Nothing \
                 is switched; writes are still stopped",
            )
            .hint(match self.flags.verify_before_switch {
                true => format!(
                    "without --verify-before-switch it does not compare, unless it must: run: {}",
                    words.step("cutover")
                ),
                false => format!("run: {}; then lift the fence", words.step("abort")),
            }),
            (Ended::Code(4), true) => CommandError::new(
                Exit::HistoryLost,
                format!(
                    "the ends were not compared: a revision to compare has left the history. The \
                     switch remains valid, on the markers alone: leave {source} fenced"
                ),
            )
            .hint(format!(
                "raise --datastore-gc-window before the next one; next: {}",
                words.step("reverse")
            )),
            (ended, true) => {
                tracing::info!(
                    "the switch remains valid: leave reads and writes at {target}, and {source} fenced"
                );
                let what = "only the comparison after the switch is missing";
                session.failed(program, ended, what)
            }
            (ended, false) => session.failed(
                program,
                ended,
                "the ends could not be compared. Nothing is switched; writes are still stopped",
            ),
        }
    }

    /// Was the source written since the switch?
    pub(crate) async fn late_writes(&self, switch: &Switch) -> Outcome {
        let Some(marker) = &switch.marker else {
            return Ok(());
        };
        let (session, source, target) = (self.session, self.source(), self.target());
        let markers = [marker.as_str(), switch.second.as_str()];
        let leaked = self.drain.late_writes(&markers, switch.drained).await?;
        if leaked == 0 {
            return Ok(());
        }
        let segment = session.spool().segment(switch.drained.segment);
        Err(CommandError::new(
            Exit::Failed,
            format!(
                "the fence did not hold: {leaked} transactions were written to {source} after it \
                 (above). {target} lacks them"
            ),
        )
        .hint(format!(
            "the switch remains valid. Close that way now; then write to {target} by hand what of \
             them still counts: they are in {}, after byte {}",
            segment.display(),
            switch.drained.offset
        )))
    }
}
