//! `cutover`: waits for the fence, brings the rest over, orders the switch, and compares both ends.

use std::io::BufRead as _;
use std::path::Path;
use std::time::Duration;

use crate::cli::{self, OnSchema};
use crate::commands::Apply;
use crate::drain::{Drain, Marker};
use crate::early::Early;
use crate::ends::{self, Ends};
use crate::part;
use crate::phase::{Phase, Step, Switch, SyncPoint};
use crate::records;
use crate::reverse;
use crate::session::Session;
use crate::state::State;
use crate::status::{self, Snapshot};
use crate::store::Durable;
use crate::suite::{CommandError, Exit, Outcome, PositionFile};
use crate::time::{Instant, seconds};
use crate::verify_age::is_verified;

/// A marker behind it shows later writes as a leak. Without one, only a fence that was confirmed within so
/// long is taken to be closed still.
const FENCE_LASTS: Duration = Duration::from_secs(300);
/// The verdict was young when this began, and somebody was waited for.
const GRACE: Duration = Duration::from_secs(60);

/// Whether a fence that was confirmed so long ago is taken to hold still.
fn fence_lasts(phase: &Phase, age: Duration) -> bool {
    phase.marker().is_some() || age < FENCE_LASTS
}

/// One cutover.
pub(crate) struct Cutover<'a> {
    pub(crate) session: &'a Session,
    pub(crate) flags: &'a cli::Cutover,
    pub(crate) ends: &'a Ends,
    pub(crate) drain: Drain<'a>,
}

pub(crate) async fn run(session: &Session, flags: &cli::Cutover) -> Outcome {
    session.alone(&[Step::Copy { restart: false }, Step::Verify, Step::Resync])?;
    reverse::is_not_at_work(session)?;
    reverse::is_not_switched(session)?;
    session.allowed()?;
    let state = session.state()?;
    let ends = ends::look_again(session).await?;
    let following = state.following.as_ref();
    let rejects = flags.rejects.clone().or_else(|| following?.rejects.clone());
    let schema = flags.schema.map(|schema| OnSchema::name(schema).to_owned());
    let schema = schema.or_else(|| following?.schema.clone());
    let apply = Apply {
        unnamed: ends.unnamed,
        jobs: Some(flags.jobs),
        max_rps: None,
        rejects: rejects.as_deref(),
        schema: part::schema_mode(ends.filter.as_ref(), schema.as_deref()),
    };
    let cutover = Cutover {
        session,
        flags,
        ends: &ends,
        drain: Drain::new(
            session,
            &ends,
            apply,
            &flags.spool_segment,
            flags.until_quiet.text(),
        )?,
    };
    let (switch, is_compared) = match &state.phase {
        Phase::Switched { switch } => {
            tracing::info!("the switch was ordered: {switch}");
            match state.differs_since(switch) {
                None => tracing::info!(
                    "SWITCH READS AND WRITES TO {} NOW, unless that is done",
                    state.target.context
                ),
                Some(what) => tracing::info!(
                    "do NOT switch: both ends were found different since ({what}); comparing again"
                ),
            }
            (switch.clone(), false)
        }
        Phase::Verified { switch, equal } => {
            tracing::info!("the switch was ordered: {switch}");
            tracing::info!("and both ends were compared: {equal}");
            tracing::info!("hint: {}", status::way_back(session, &state));
            return Ok(());
        }
        _ => {
            let switched = cutover.to_the_switch(&state, rejects.as_deref()).await;
            switched.map_err(|failure| cutover.behind_the_fence(failure))?
        }
    };
    if !is_compared {
        let equal = cutover
            .verify(&switch.second, &switch.sync_point, true)
            .await?;
        cutover.late_writes(&switch).await?;
        let verified = switch.clone();
        session.set_phase(Phase::Verified {
            switch: verified,
            equal,
        })?;
    }
    tracing::info!(
        "hint: {}; leave {} fenced",
        status::way_back(session, &state),
        ends.source.context
    );
    Ok(())
}

impl Cutover<'_> {
    /// What holds for each failure between the fence and the order: writes are stopped still.
    fn behind_the_fence(&self, failure: CommandError) -> CommandError {
        let session = self.session;
        let is_fenced = session
            .known()
            .is_some_and(|state| state.phase.fenced_at().is_some());
        match is_fenced {
            true => failure.also(format!(
                "writes to {} are STILL STOPPED and SWITCH was not printed: the same command resumes behind the fence; \
                 or, to give up: {}; then lift the fence",
                self.source(),
                session.words.step("abort")
            )),
            false => failure,
        }
    }

    pub(crate) fn source(&self) -> &str {
        &self.ends.source.context
    }

    pub(crate) fn target(&self) -> &str {
        &self.ends.target.context
    }

    /// Brings the rest over and orders the switch; whether both ends were compared before it.
    async fn to_the_switch(
        &self,
        state: &State,
        rejects: Option<&Path>,
    ) -> Outcome<(Switch, bool)> {
        let fenced = self.fence(state).await?;
        // From here on applications wait: as little as possible. The state is written while the marker is;
        // follow is stopped only once the state has the fence, or the same command could not resume.
        let (marker, stopped) = tokio::join!(self.marker(state, fenced), async {
            self.keep_fence(state, fenced)?;
            self.stop_follow().await
        });
        let (marker, stopped) = (marker?, stopped?);
        let (second, drained) = match &marker {
            Some(marker) => self.drain.behind_the_fence(marker).await?,
            None => self.drain.quiet_source().await?,
        };
        let checked = Instant::now();
        self.drain.applied_everything().await?;
        let sync_point = self.sync_point()?;
        let refused = self.drain.refused.get();
        // A verdict from before a fence that had to be confirmed again is too old.
        let is_late = state.phase.fenced_at().is_some_and(|first| first != fenced);
        let verifies_first =
            self.flags.verify_before_switch || marker.is_none() || refused || is_late;
        let mut equal = None;
        if verifies_first {
            equal = Some(self.verify(&second, &sync_point, false).await?);
        }
        self.say_rejects(refused, rejects);
        let now = Instant::now();
        let switch = Switch {
            at: now,
            downtime_ms: millis(fenced, now),
            marker,
            second,
            sync_point,
            drained,
        };
        let order = self.session.store.record_switch(state, switch)?;
        self.order(&order, fenced, stopped, checked);
        let switch = order.get().clone();
        if let Some(equal) = equal {
            self.session.set_phase(Phase::Verified {
                switch: switch.clone(),
                equal,
            })?;
            return Ok((switch, true));
        }
        Ok((switch, false))
    }

    /// The order: only of a switch that is recorded durably.
    fn order(&self, switch: &Durable<Switch>, fenced: Instant, stopped: Instant, checked: Instant) {
        let target = self.target();
        let downtime = Duration::from_millis(switch.get().downtime_ms);
        match self.session.is_quiet {
            true => tracing::warn!("SWITCH READS AND WRITES TO {target} NOW"),
            false => tracing::info!("SWITCH READS AND WRITES TO {target} NOW"),
        }
        tracing::info!(
            "write downtime {} s, from the fence to this line: follow stopped {} ms after the \
             fence, fence checked {}, all applied {}",
            seconds(downtime),
            millis(fenced, stopped),
            millis(fenced, checked),
            switch.get().downtime_ms
        );
    }

    /// When writes to the source were confirmed to be stopped. That begins the write downtime.
    async fn fence(&self, state: &State) -> Outcome<Instant> {
        let session = self.session;
        if let Some(at) = state.phase.fenced_at() {
            let age = at.elapsed(Instant::now());
            let lasts = fence_lasts(&state.phase, age);
            match lasts {
                true => tracing::info!(
                    "resuming behind the fence that was confirmed at {at}, {} s ago",
                    age.as_secs()
                ),
                false => tracing::info!(
                    "the fence was confirmed at {at}, {} s ago, and no marker was written behind it: confirm \
                     once more that it holds",
                    age.as_secs()
                ),
            }
            tracing::info!(
                "hint: if it was lifted since: stop this, run: {}",
                session.words.step("abort")
            );
            if lasts {
                return Ok(at);
            }
            // follow was stopped behind the fence, so what is safe before one is not asked again.
            self.wait_for_the_fence().await?;
            return Ok(Instant::now());
        }
        let snapshot = Snapshot::measure(&session.store, state, Instant::now());
        let policy = self.flags.safety.policy(state);
        if let Some(reason) = status::reason(session, state, &snapshot, &policy) {
            let look = || format!("look: {}", session.words.step("status"));
            let remedy = reason.remedy.unwrap_or_else(look);
            return Err(CommandError::new(
                Exit::Failed,
                format!("not safe to cut over: {}. Nothing was stopped", reason.why),
            )
            .hint(format!("{remedy}; then run: {}", session.words.same())));
        }
        let began = Instant::now();
        let early = Early::begin(session, self.ends).await;
        let grace = GRACE + began.elapsed(Instant::now());
        let fenced = self.wait_for_the_fence().await;
        match (&fenced, early) {
            (Err(_), Some(early)) => early.end().await,
            (_, early) => drop(early),
        }
        fenced?;
        let at = Instant::now();
        self.is_still_verified(at, grace)?;
        Ok(at)
    }

    /// Keeps when the fence was confirmed, unless an earlier run did.
    fn keep_fence(&self, state: &State, at: Instant) -> Outcome {
        match state.phase.ready() {
            Some(ready) if state.phase.fenced_at() != Some(at) => {
                self.session.set_phase(Phase::Fenced { ready, at })
            }
            _ => Ok(()),
        }
    }

    /// The verdict was young when this began, and somebody may have been waited for, for long.
    fn is_still_verified(&self, now: Instant, grace: Duration) -> Outcome {
        let session = self.session;
        if self.flags.fence_command.is_some() {
            return Ok(());
        }
        let Some(state) = session.store.load()? else {
            return Ok(());
        };
        let mut policy = self.flags.safety.policy(&state);
        policy.grace = grace;
        let Err(found) = is_verified(state.proved_at(), &policy, now) else {
            return Ok(());
        };
        let verify = session.words.step("verify");
        let reason = found.describe(self.source(), self.target(), &policy, &verify);
        Err(CommandError::new(
            Exit::Failed,
            format!(
                "no longer safe to cut over: {}. Nothing was switched, follow continues",
                reason.why
            ),
        )
        .hint(format!(
            "lift the fence; then run: {verify}; then: {}",
            session.words.same()
        )))
    }

    async fn wait_for_the_fence(&self) -> Outcome {
        let (session, source) = (self.session, self.source());
        if let Some(command) = &self.flags.fence_command {
            tracing::info!("fencing: {command}");
            let ended = session.runner.shell(command)?.wait().await;
            return match ended.is_success() {
                true => Ok(()),
                false => Err(CommandError::new(
                    Exit::Failed,
                    format!(
                        "the fence command ended with {}: nothing is switched",
                        ended.number()
                    ),
                )
                .hint(format!(
                    "see what it prints above; follow continues; then run: {}",
                    session.words.same()
                ))),
            };
        }
        let how = match session.state()?.is_reverse {
            true => "docs/cutover.md, \"How to fence\"".to_owned(),
            false => format!("{}, step 5", session.file("plan.txt").display()),
        };
        tracing::info!(
            "stop all writes to {source} now; how: {how}. Nothing else has to be done before the switch"
        );
        tracing::info!("when they are stopped, type: fenced");
        let (sender, line) = tokio::sync::oneshot::channel();
        // A read of stdin cannot be interrupted.
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = std::io::stdin().lock().read_line(&mut line);
            let _ = sender.send(read.ok().filter(|count| *count > 0).map(|_| line));
        });
        match line.await.ok().flatten().as_deref().map(str::trim) {
            Some("fenced") => Ok(()),
            Some(other) => Err(CommandError::usage(format!(
                "not fenced, but {other:?}: nothing is switched, follow continues"
            ))
            .hint(format!("run: {}", session.words.same()))),
            None => Err(CommandError::usage(format!(
                "nobody confirmed that writes to {source} are stopped: stdin has ended. Nothing is \
                 switched, follow continues"
            ))
            .hint("run this on a terminal, or with --fence-command COMMAND")),
        }
    }

    async fn stop_follow(&self) -> Outcome<Instant> {
        let why = "cutover takes over from here: follow has ended as it should";
        let session = self.session;
        session.stop_step(&session.store, Step::Follow, why).await?;
        Ok(Instant::now())
    }

    /// The marker of this fence, which may have been written already.
    async fn marker(&self, state: &State, at: Instant) -> Outcome<Option<String>> {
        let phase = &state.phase;
        if let Some(marker) = phase.marker()
            && phase.fenced_at() == Some(at)
        {
            return Ok(Some(marker.to_owned()));
        }
        let Marker::At(marker) = self.drain.marker().await? else {
            return Ok(None);
        };
        if let Some(ready) = phase.ready() {
            let marker = marker.clone();
            self.session
                .set_phase(Phase::MarkerWritten { ready, at, marker })?;
        }
        Ok(Some(marker))
    }

    /// The last pair of revisions, which must be that of the end.
    fn sync_point(&self) -> Outcome<SyncPoint> {
        let session = self.session;
        let applied = session.applied_file();
        let failed = |message: String| {
            CommandError::new(Exit::Failed, message).hint(format!("run: {}", session.words.same()))
        };
        let pair = records::last_pair(&applied).ok_or_else(|| {
            failed(format!(
                "spice-apply has left no sync point in {}. Nothing is switched",
                applied.display()
            ))
        })?;
        let position = PositionFile::new(&session.position_file()).load()?;
        let position = position.map(|position| position.source_revision);
        match position.as_ref() == Some(&pair.sync_point.source_revision) {
            true => Ok(pair.sync_point),
            false => Err(failed(format!(
                "the last sync point in {} is not that of the end. Nothing is switched; writes are still stopped",
                applied.display()
            ))),
        }
    }

    fn say_rejects(&self, refused: bool, rejects: Option<&Path>) {
        let Some(file) = rejects else {
            return;
        };
        let holds = std::fs::metadata(file).is_ok_and(|metadata| metadata.len() > 0);
        if refused || holds {
            let target = self.target();
            tracing::info!(
                "updates that {target} refused are in {}: {target} lacks them",
                file.display()
            );
        }
    }
}

fn millis(from: Instant, to: Instant) -> u64 {
    u64::try_from(from.elapsed(to).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{FENCE_LASTS, fence_lasts};
    use crate::phase::{How, Phase, Ready};
    use crate::time::Instant;

    #[test]
    fn fence_lasts_for_minutes_or_behind_a_marker() {
        let at: Instant = "2026-01-01T00:00:00Z".parse().unwrap();
        let ready = Ready {
            how: How::Proven,
            since: at,
        };
        let fenced = Phase::Fenced { ready, at };
        assert!(fence_lasts(&fenced, FENCE_LASTS - Duration::from_millis(1)));
        assert!(!fence_lasts(&fenced, FENCE_LASTS));
        let marker = "m".to_owned();
        let marked = Phase::MarkerWritten { ready, at, marker };
        assert!(fence_lasts(&marked, 10 * FENCE_LASTS));
    }
}
