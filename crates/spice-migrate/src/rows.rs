//! The rows of `status`: the same facts for a printed text and for the live screen.

use std::time::Duration;

use crate::lock;
use crate::phase::Step;
use crate::records;
use crate::session::Session;
use crate::state::State;
use crate::status::Snapshot;
use crate::store::Store;
use crate::suite::escape;
use crate::time::{Instant, seconds};

/// On MySQL and memory a comparison proves little about what was written minutes later.
const FADES: Duration = Duration::from_secs(300);

/// What is known of a migration, one row each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    /// What is moved, if that is not everything.
    pub(crate) part: Option<String>,
    pub(crate) follow: String,
    pub(crate) phase: String,
    pub(crate) lag: String,
    pub(crate) backlog: String,
    pub(crate) headroom: String,
    pub(crate) verdict: String,
    pub(crate) fence: Option<String>,
    pub(crate) aborted: Option<String>,
    pub(crate) reverse: Option<String>,
}

impl Rows {
    pub(crate) fn of(session: &Session, state: &State, snapshot: &Snapshot) -> Self {
        let verdict = match &state.verdict {
            Some(verdict) => format!("{verdict}{}", fades(session, state, snapshot.now)),
            None => "not done".to_owned(),
        };
        let fenced = state.phase.fenced_at().map(|at| {
            let (ago, source) = (at.elapsed(snapshot.now).as_secs(), &state.source.context);
            format!("confirmed {ago} s ago: writes to {source} are stopped")
        });
        let filter = state.filter.as_ref();
        Self {
            part: filter.map(|filter| escape(&format!("only {filter}")).to_string()),
            follow: match snapshot.follow {
                Some(pid) => format!("runs, process {pid}"),
                None => "does not run".to_owned(),
            },
            phase: state.phase.to_string(),
            lag: lag(state, snapshot),
            backlog: backlog(snapshot),
            headroom: headroom(state, snapshot),
            verdict: escape(&verdict).to_string(),
            fence: fenced,
            aborted: state.aborted.map(|at| format!("at {at}")),
            reverse: state.phase.switch().map(|_| reverse_runs(session)),
        }
    }

    /// The text of `status`.
    pub(crate) fn text(&self) -> String {
        let rows = [
            ("part", self.part.as_ref()),
            ("follow", Some(&self.follow)),
            ("copy", Some(&self.phase)),
            ("lag", Some(&self.lag)),
            ("backlog", Some(&self.backlog)),
            ("headroom", Some(&self.headroom)),
            ("verify", Some(&self.verdict)),
            ("fence", self.fence.as_ref()),
            ("aborted", self.aborted.as_ref()),
            ("reverse", self.reverse.as_ref()),
        ];
        rows.into_iter()
            .filter_map(|(name, value)| Some(format!("{name:<11}{}\n", value?)))
            .collect()
    }
}

fn lag(state: &State, snapshot: &Snapshot) -> String {
    let lag = &snapshot.lag;
    let Some(heard) = lag.heard else {
        return String::new();
    };
    let mut text = format!(
        "{} s behind what was captured; {} was last heard {} s ago",
        seconds(lag.behind),
        state.source.context,
        seconds(heard)
    );
    if let Some(late) = lag.capture_lag {
        let late = seconds(late);
        text += &format!(", and reported the last heartbeat {late} s after it");
    }
    text
}

fn backlog(snapshot: &Snapshot) -> String {
    let view = &snapshot.view;
    match snapshot.lag.heard {
        Some(_) => format!(
            "{} transactions, {} bytes",
            view.backlog, view.backlog_bytes
        ),
        None => "unknown".to_owned(),
    }
}

fn headroom(state: &State, snapshot: &Snapshot) -> String {
    match (snapshot.headroom_ms, &state.gc_window) {
        (Some(ms), Some(window)) => format!("{} s of {window}", ms / 1_000),
        (None, Some(window)) => format!("unknown of {window}"),
        _ => "unknown".to_owned(),
    }
}

/// What to say of an equal verdict that is older than some minutes, where transactions can overtake each
/// other.
fn fades(session: &Session, state: &State, now: Instant) -> String {
    let proved = state
        .proved_at()
        .filter(|_| state.source.kind.needs_settling());
    match proved {
        Some(at) if at.elapsed(now) > FADES => format!(
            "; on such a source a verdict of the last minutes is worth more: {}",
            session.words.step("verify")
        ),
        _ => String::new(),
    }
}

/// Whether the way back is followed, and what it has brought back.
fn reverse_runs(session: &Session) -> String {
    let store = Store::new(&crate::folder::reverse(session.store.folder()));
    let runs = match lock::leader(store.folder(), Step::Follow) {
        Some(pid) => format!("runs, process {pid}"),
        None => "does not run".to_owned(),
    };
    match records::last_write(&store.file("applied.ndjson")) {
        Some(at) => format!("{runs}; the last write came back at {at}"),
        None => format!("{runs}; no write has come back"),
    }
}
