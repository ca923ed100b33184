//! Whether it is safe to cut over: pure, from what was measured and from what was proved.

use std::path::PathBuf;
use std::time::Duration;

use crate::state::{Found, Verdict};
use crate::time::{Instant, Span, seconds};
use crate::verify_age::is_verified;

/// How far the target is behind, as far as the folder shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lag {
    /// Something was captured.
    pub is_captured: bool,
    /// `follow` runs.
    pub is_followed: bool,
    /// Something was applied.
    pub is_applied: bool,
    /// How long ago the source was heard; `None` where the spool lacks the segment of the position.
    pub heard: Option<Duration>,
    /// How much later was captured than applied.
    pub behind: Duration,
    /// How long the source took to report the last heartbeat.
    pub capture_lag: Option<Duration>,
}

/// What is asked of a cutover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The most that the target may be behind.
    pub max_lag: Span,
    /// How long ago both ends may have been found equal; `None`: no comparison is required.
    pub max_verify_age: Option<Span>,
    /// So much longer: somebody was waited for.
    pub grace: Duration,
    /// How often the source is written to.
    pub heartbeat: Duration,
    /// How long its revisions take to settle.
    pub settle: Duration,
}

/// Updates that the target has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejects {
    /// The file that holds them.
    pub file: PathBuf,
    /// When it was written last.
    pub at: Instant,
}

/// Why it is not safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsafe {
    /// Nothing was captured yet.
    NothingCaptured,
    /// `follow` does not run.
    NotFollowed,
    /// Nothing was applied yet.
    NothingApplied,
    /// The spool lacks the segment that the position names.
    SegmentMissing,
    /// The newest comparison found both ends different.
    Different(Verdict),
    /// The source was not heard for so long, though it is asked this often.
    Silent {
        /// For how long.
        heard: Duration,
        /// How often.
        heartbeat: Duration,
    },
    /// The target is so much behind.
    Behind(Duration),
    /// The source took so long to report a heartbeat.
    Late(Duration),
    /// The target has refused updates since both ends were found equal.
    Refused(PathBuf),
    /// No comparison has found both ends equal.
    NotVerified,
    /// That was too long ago.
    VerifiedTooLongAgo(Instant),
}

/// Whether it is safe to cut over now.
///
/// # Errors
///
/// The first reason why it is not.
pub fn safe_to_cut_over(
    lag: &Lag,
    verdict: Option<&Verdict>,
    rejects: Option<&Rejects>,
    policy: &Policy,
    now: Instant,
) -> Result<(), Unsafe> {
    is_followed(lag)?;
    let Some(heard) = lag.heard else {
        return Err(Unsafe::SegmentMissing);
    };
    if let Some(verdict) = verdict.filter(|verdict| verdict.found == Found::Different) {
        return Err(Unsafe::Different(verdict.clone()));
    }
    let max_lag = policy.max_lag.duration();
    if heard > 2 * policy.heartbeat + max_lag {
        return Err(Unsafe::Silent {
            heard,
            heartbeat: policy.heartbeat,
        });
    }
    if lag.behind > max_lag {
        return Err(Unsafe::Behind(lag.behind));
    }
    // What a heartbeat takes includes the settle time.
    match lag.capture_lag {
        Some(late) if late > policy.settle + max_lag => return Err(Unsafe::Late(late)),
        _ => {}
    }
    let proved_at = verdict.filter(|verdict| verdict.found == Found::Equal);
    let proved_at = proved_at.map(|verdict| verdict.since);
    if let Some(rejects) = rejects.filter(|rejects| proved_at.is_none_or(|at| rejects.at >= at)) {
        return Err(Unsafe::Refused(rejects.file.clone()));
    }
    is_verified(proved_at, policy, now)
}

fn is_followed(lag: &Lag) -> Result<(), Unsafe> {
    if !lag.is_captured {
        return Err(Unsafe::NothingCaptured);
    }
    if !lag.is_followed {
        return Err(Unsafe::NotFollowed);
    }
    match lag.is_applied {
        true => Ok(()),
        false => Err(Unsafe::NothingApplied),
    }
}

/// What a reason is to people, and the way on where it is a step: `verify`, or another one.
pub struct Reason {
    /// Why it is not safe.
    pub why: String,
    /// What to do, if that is always the same.
    pub remedy: Option<String>,
}

impl Unsafe {
    /// In the words of this migration. `verify`: the command that compares both ends.
    #[must_use]
    pub fn describe(&self, source: &str, target: &str, policy: &Policy, verify: &str) -> Reason {
        let max_lag = &policy.max_lag;
        let run_verify = || Some(format!("run: {verify} (without that proof: --skip-verify)"));
        let (why, remedy) = match self {
            Self::NothingCaptured => ("nothing was captured yet".to_owned(), None),
            Self::NotFollowed => ("follow is not running".to_owned(), None),
            Self::NothingApplied => ("nothing was applied yet".to_owned(), None),
            Self::SegmentMissing => (
                "the spool lacks the segment that the position names".to_owned(),
                None,
            ),
            Self::Different(verdict) => (
                format!("verify found {target} different: {verdict}"),
                Some(format!(
                    "repair it (docs/cutover.md, \"Verify\"), then run: {verify}"
                )),
            ),
            Self::Silent { heard, heartbeat } => (
                format!(
                    "nothing was heard of {source} for {} s, though it is asked every {} s",
                    heard.as_secs(),
                    heartbeat.as_secs()
                ),
                None,
            ),
            Self::Behind(behind) => (
                format!(
                    "{target} is {} s behind what was captured (--max-lag {max_lag})",
                    seconds(*behind)
                ),
                None,
            ),
            Self::Late(late) => (
                format!(
                    "{source} reported the last heartbeat only {} s after it, more than --max-lag {max_lag} and the \
                     settle time allow",
                    seconds(*late)
                ),
                None,
            ),
            Self::Refused(file) => (
                format!(
                    "{target} has refused updates since it was last proved equal: they are in {}",
                    file.display()
                ),
                Some(format!("correct and apply them; then run: {verify}")),
            ),
            Self::NotVerified => (
                format!("verify has not proved {target} equal to {source}"),
                run_verify(),
            ),
            Self::VerifiedTooLongAgo(at) => (
                format!(
                    "that {target} equals {source} was proved at {at}, more than {} ago (--max-verify-age)",
                    policy.max_verify_age.as_ref().map_or("", Span::text)
                ),
                run_verify(),
            ),
        };
        Reason { why, remedy }
    }
}

#[cfg(test)]
#[path = "safety_tests.rs"]
mod tests;
