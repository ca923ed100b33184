//! `status`: how far the target is behind, read from the folder alone. No server is asked.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::{self, MAX_LAG, MAX_VERIFY_AGE, Safety};
use crate::live;
use crate::lock;
use crate::phase::{SpoolEnd, Step, next_step};
use crate::rows::Rows;
use crate::safety::{Lag, Policy, Reason, Rejects, Unsafe, safe_to_cut_over};
use crate::session::Session;
use crate::spool_view::View;
use crate::state::State;
use crate::store::Store;
use crate::suite::{Exit, Outcome, PositionFile, Spool, quoted};
use crate::time::{Instant, Span};

/// A heartbeat that is not known.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long revisions of MySQL and memory take to settle: the default of the programs.
const SETTLE: Duration = Duration::from_secs(35);

/// How far a migration is, at an instant.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// That instant.
    pub now: Instant,
    /// The process that follows.
    pub follow: Option<i32>,
    /// What the spool and the position say.
    pub view: View,
    /// The same, as the decision needs it.
    pub lag: Lag,
    /// What is left of the source's history until changes are lost, in milliseconds, if its window is
    /// known.
    pub headroom_ms: Option<i64>,
    /// Updates that the target has refused.
    pub rejects: Option<Rejects>,
}

impl Snapshot {
    /// Measures: reads the spool, the position, and the lock of `follow`.
    #[must_use]
    pub fn measure(store: &Store, state: &State, now: Instant) -> Self {
        let position = PositionFile::new(&store.file("position"))
            .load()
            .ok()
            .flatten();
        let place = position.as_ref().and_then(|position| position.spool);
        let place = place.map(|place| SpoolEnd {
            segment: place.segment,
            offset: place.offset,
        });
        let spool = Spool::new(&store.file("changes.ndjson"));
        let view = View::read(&spool, place).unwrap_or_default();
        let follow = lock::leader(store.folder(), Step::Follow);
        let rejects = state.following.as_ref();
        let rejects = rejects.and_then(|following| following.rejects.as_deref());
        Self::of(
            state,
            view,
            follow,
            position.is_some(),
            rejects.and_then(rejected),
            now,
        )
    }

    /// From what was read.
    #[must_use]
    pub fn of(
        state: &State,
        view: View,
        follow: Option<i32>,
        is_applied: bool,
        rejects: Option<Rejects>,
        now: Instant,
    ) -> Self {
        let heard = view.heard_at.filter(|_| view.is_complete);
        let heard = heard.map(|at| at.elapsed(now));
        let behind = match (view.applied_at, view.heard_at) {
            (Some(applied), Some(heard)) if view.backlog > 0 => applied.elapsed(heard),
            _ => Duration::ZERO,
        };
        let window = state.gc_window.as_ref().map(Span::duration);
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let headroom_ms = window
            .zip(heard)
            .map(|(window, heard)| millis(window) - millis(heard) - millis(settling(state)));
        let capture_lag = view.capture_lag;
        let capture_lag = capture_lag.and_then(|lag| Duration::try_from_secs_f64(lag).ok());
        Self {
            now,
            follow,
            lag: Lag {
                is_captured: view.is_begun,
                is_followed: follow.is_some(),
                is_applied,
                heard,
                behind,
                capture_lag,
            },
            view,
            headroom_ms,
            rejects,
        }
    }

    /// Whether it is safe to cut over.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub fn judge(&self, state: &State, policy: &Policy) -> Result<(), Unsafe> {
        let (verdict, rejects) = (state.verdict.as_ref(), self.rejects.as_ref());
        safe_to_cut_over(&self.lag, verdict, rejects, policy, self.now)
    }
}

fn rejected(file: &Path) -> Option<Rejects> {
    let metadata = std::fs::metadata(file)
        .ok()
        .filter(|metadata| metadata.len() > 0)?;
    let at = jiff::Timestamp::try_from(metadata.modified().ok()?).ok()?;
    Some(Rejects {
        file: file.to_owned(),
        at: Instant(at),
    })
}

/// How often `follow` writes to the source.
#[must_use]
pub fn heartbeat(state: &State) -> Duration {
    let following = state.following.as_ref();
    following.map_or(HEARTBEAT, |following| following.heartbeat.duration())
}

/// How long a revision of the source must have been known before it is used.
#[must_use]
pub fn settling(state: &State) -> Duration {
    let following = state
        .following
        .as_ref()
        .and_then(|following| following.settle.as_ref());
    match following.or(state.settle.as_ref()) {
        Some(settle) => settle.duration(),
        None if state.source.kind.needs_settling() => SETTLE,
        None => Duration::ZERO,
    }
}

impl Safety {
    /// The command that cuts over under the same conditions.
    pub(crate) fn cutover(&self, session: &Session) -> String {
        let mut step = "cutover".to_owned();
        for (flag, value, default) in [
            ("--max-lag", &self.max_lag, MAX_LAG),
            ("--max-verify-age", &self.max_verify_age, MAX_VERIFY_AGE),
        ] {
            if value.text() != default {
                step += &format!(" {flag} {}", quoted(value.text()));
            }
        }
        if self.skip_verify {
            step += " --skip-verify";
        }
        session.words.step(&step)
    }

    /// What is asked of a cutover of this migration.
    pub(crate) fn policy(&self, state: &State) -> Policy {
        Policy {
            max_lag: self.max_lag.clone(),
            max_verify_age: (!self.skip_verify).then(|| self.max_verify_age.clone()),
            grace: Duration::ZERO,
            heartbeat: heartbeat(state),
            settle: settling(state),
        }
    }
}

/// Why it is not safe, in words, if it is not: after the switch never.
pub(crate) fn reason(
    session: &Session,
    state: &State,
    snapshot: &Snapshot,
    policy: &Policy,
) -> Option<Reason> {
    if let Some(switch) = state.phase.switch() {
        return Some(Reason {
            why: format!("the switch was ordered already: {switch}"),
            remedy: None,
        });
    }
    let (source, target) = (&state.source.context, &state.target.context);
    let verify = session.words.step("verify");
    let found = snapshot.judge(state, policy).err()?;
    Some(found.describe(source, target, policy, &verify))
}

pub(crate) fn run(session: &Session, flags: &cli::Status) -> Outcome<Exit> {
    if flags.watch {
        return live::run(session, flags);
    }
    let state = session.state()?;
    let snapshot = Snapshot::measure(&session.store, &state, Instant::now());
    let policy = flags.safety.policy(&state);
    let reason = reason(session, &state, &snapshot, &policy);
    let text = match flags.json {
        true => as_json(&snapshot, reason.as_ref()).to_string(),
        false => Rows::of(session, &state, &snapshot).text(),
    };
    crate::suite::stdio::print_line(text.trim_end())?;
    let Some(reason) = reason else {
        tracing::info!("safe to cut over");
        tracing::info!("hint: next: {}", flags.safety.cutover(session));
        return Ok(Exit::Done);
    };
    tracing::info!("not safe to cut over: {}", reason.why);
    tracing::info!("hint: {}", way_on(session, &state, &snapshot, &reason));
    Ok(Exit::Failed)
}

pub(crate) fn way_on(
    session: &Session,
    state: &State,
    snapshot: &Snapshot,
    reason: &Reason,
) -> String {
    let words = &session.words;
    if state.phase.switch().is_some() {
        way_back(session, state)
    } else if snapshot.follow.is_none() {
        begin_again(session, state)
    } else if let Some(remedy) = &reason.remedy {
        remedy.clone()
    } else {
        format!("look at what follow prints; then {}", words.step("status"))
    }
}

/// A hint on the way back.
pub(crate) fn way_back(session: &Session, state: &State) -> String {
    let target = &state.target.context;
    let back = Store::new(&crate::folder::reverse(session.store.folder()));
    let back = back.load().ok().flatten();
    if let Some(switch) = back.as_ref().and_then(|back| back.phase.switch()) {
        return format!(
            "the switch back to {} was ordered {switch}; to follow it in turn: {}",
            state.source.context,
            session.words.on_the_way_back().step("reverse")
        );
    }
    if let Some(what) = state
        .phase
        .switch()
        .and_then(|switch| state.differs_since(switch))
    {
        return different(session, state, what);
    }
    match state.target.kind.is("spanner") {
        true => format!(
            "there is no way back by following, for {target} is on Spanner: what is written to {target} now stays there"
        ),
        false => format!(
            "next: {}, so that the way back stays open",
            session.words.step("reverse")
        ),
    }
}

/// What to do where both ends differ, and the switch was ordered.
pub(crate) fn different(session: &Session, state: &State, what: &str) -> String {
    let (source, target) = (&state.source.context, &state.target.context);
    format!(
        "both ends differ ({what}): stop writes to {target}, keep {source} fenced; run: {}, until {} --reverse reports \
         no backlog; then point reads and writes back at {source}, and lift the fence",
        session.words.step("reverse"),
        session.words.step("status")
    )
}

/// What comes next while `follow` does not run.
fn begin_again(session: &Session, state: &State) -> String {
    let words = &session.words;
    let next = next_step(state.procedure, &state.phase);
    if next == Step::Cutover {
        return format!(
            "next: {} resumes behind the fence; or, to give up: {}, and lift the fence",
            words.step("cutover"),
            words.step("abort")
        );
    }
    match session.spool().lost() {
        Some(_) if next == Step::Follow => format!(
            "changes of {} are lost: {}",
            state.source.context,
            words.step("resync")
        ),
        _ => format!("next: {}", words.step(next.name())),
    }
}

fn as_json(snapshot: &Snapshot, reason: Option<&Reason>) -> Value {
    let lag = &snapshot.lag;
    let seconds = |duration: Duration| millis_as_seconds(duration.as_millis());
    let known = lag.heard.is_some();
    json!({"status": {
        "running": snapshot.follow.is_some(),
        "lagSeconds": known.then(|| seconds(lag.behind)),
        "heardSecondsAgo": lag.heard.map(seconds),
        "captureLagSeconds": snapshot.view.capture_lag,
        "backlog": known.then_some(snapshot.view.backlog),
        "backlogBytes": known.then_some(snapshot.view.backlog_bytes),
        "headroomSeconds": snapshot.headroom_ms.map(|ms| ms as f64 / 1_000.0),
        "safe": reason.is_none(),
        "why": reason.map(|reason| reason.why.clone()),
    }})
}

fn millis_as_seconds(millis: u128) -> f64 {
    u32::try_from(millis).map_or(f64::MAX, |millis| f64::from(millis) / 1_000.0)
}
