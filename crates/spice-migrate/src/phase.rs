//! How far a migration is, and which step that allows.

use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// The steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Looks at both ends.
    Plan,
    /// Copies, and compares the copy.
    Copy {
        /// Even if there is a finished copy.
        restart: bool,
    },
    /// Compares both ends while writes are stopped.
    Check,
    /// Captures and applies changes.
    Follow,
    /// Reports how far that is.
    Status,
    /// Compares both ends while they are written.
    Verify,
    /// Writes what differs.
    Resync,
    /// Orders the switch.
    Cutover,
    /// Stops the other steps.
    Abort,
    /// Begins the way back.
    Reverse,
}

impl Step {
    /// Every step that has processes of its own.
    pub const ALL: [Self; 9] = [
        Self::Plan,
        Self::Copy { restart: false },
        Self::Check,
        Self::Cutover,
        Self::Verify,
        Self::Resync,
        Self::Follow,
        Self::Reverse,
        Self::Abort,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Copy { .. } => "copy",
            Self::Check => "check",
            Self::Follow => "follow",
            Self::Status => "status",
            Self::Verify => "verify",
            Self::Resync => "resync",
            Self::Cutover => "cutover",
            Self::Abort => "abort",
            Self::Reverse => "reverse",
        }
    }
}

/// The two procedures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Procedure {
    /// Applications write meanwhile.
    Live,
    /// Writes are stopped from the copy to the switch.
    Fenced,
}

impl Procedure {
    /// In messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Fenced => "fenced",
        }
    }
}

/// How the target got what it holds, once it can be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Copied, not compared.
    Copied,
    /// Copied and compared.
    Proven,
    /// Made equal by a resync.
    Resynced,
    /// It was the source before a switch: the way back.
    Switched,
}

impl How {
    /// In messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::Proven => "proven",
            Self::Resynced => "resynced",
            Self::Switched => "the source before the switch",
        }
    }
}

/// What a target holds that can be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// How it got that.
    pub how: How,
    /// Since when.
    pub since: Instant,
}

/// The end of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolEnd {
    /// Number of the segment, from 0.
    pub segment: u64,
    /// Its size in bytes.
    pub offset: u64,
}

/// Two revisions at which both ends can be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SyncPoint {
    /// Of the source.
    pub source_revision: String,
    /// Of the target.
    pub target_revision: String,
}

/// An ordered switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Switch {
    /// When it was ordered.
    pub at: Instant,
    /// The write downtime, in milliseconds.
    pub downtime_ms: u64,
    /// The first marker, if the source took one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
    /// The revision of the source behind the fence, to compare at.
    pub second: String,
    /// The revisions that belong together; the way back begins at the target's.
    pub sync_point: SyncPoint,
    /// Where everything through the marker ends in the spool.
    pub drained: SpoolEnd,
}

impl std::fmt::Display for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let downtime = std::time::Duration::from_millis(self.downtime_ms);
        let downtime = crate::time::seconds(downtime);
        write!(f, "on {}, write downtime {downtime} s", self.at)
    }
}

/// How far a migration is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "camelCase", deny_unknown_fields)]
pub enum Phase {
    /// Nothing was written.
    Planned {},
    /// There may be relationships of this migration on the target.
    Copying {
        /// Since when.
        since: Instant,
    },
    /// The copy has ended, and relationships were skipped or refused.
    Incomplete {
        /// Since when.
        since: Instant,
    },
    /// The copy has ended and was not compared.
    Copied {
        /// Since when.
        since: Instant,
    },
    /// The copy was compared, and differs.
    Unequal {
        /// Since when.
        since: Instant,
    },
    /// The copy was compared, and is equal.
    Proven {
        /// Since when.
        since: Instant,
    },
    /// The target lies between what it was and the source.
    Resyncing {
        /// Since when.
        since: Instant,
        /// A write may be under way.
        writing: bool,
    },
    /// The target was made equal.
    Resynced {
        /// Since when.
        since: Instant,
    },
    /// Changes were followed at least once.
    Following {
        /// What the target held before.
        ready: Ready,
    },
    /// Writes to the source were confirmed to be stopped.
    Fenced {
        /// What the target held before changes were followed.
        ready: Ready,
        /// When they were.
        at: Instant,
    },
    /// The marker behind the fence was written.
    MarkerWritten {
        /// As in [`Phase::Fenced`].
        ready: Ready,
        /// As in [`Phase::Fenced`].
        at: Instant,
        /// What was committed before the fence comes before it.
        marker: String,
    },
    /// Everything through the marker is in the spool.
    Drained {
        /// As in [`Phase::Fenced`].
        ready: Ready,
        /// As in [`Phase::Fenced`].
        at: Instant,
        /// As in [`Phase::MarkerWritten`].
        marker: String,
        /// Where it ends there.
        drained: SpoolEnd,
    },
    /// The switch was ordered.
    Switched {
        /// That order.
        switch: Switch,
    },
    /// Both ends were compared after it.
    Verified {
        /// That order.
        switch: Switch,
        /// What was found.
        equal: String,
    },
}

/// Why a step is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It needs a copy, and there is none.
    NothingCopied,
    /// It needs a finished copy.
    CopyUnfinished,
    /// It needs a finished resync.
    ResyncUnfinished,
    /// The switch was ordered.
    SwitchOrdered,
    /// The switch was not ordered.
    SwitchNotOrdered,
    /// It is no step of the procedure with writes stopped.
    IsFenced,
    /// It is no step of the live procedure.
    IsLive,
}

impl Phase {
    /// What the target holds, if it can be followed and the switch was not ordered.
    #[must_use]
    pub fn ready(&self) -> Option<Ready> {
        let ready = |how, since| Some(Ready { how, since });
        match *self {
            Self::Copied { since } => ready(How::Copied, since),
            Self::Proven { since } => ready(How::Proven, since),
            Self::Resynced { since } => ready(How::Resynced, since),
            Self::Following { ready, .. }
            | Self::Fenced { ready, .. }
            | Self::MarkerWritten { ready, .. }
            | Self::Drained { ready, .. } => Some(ready),
            Self::Planned {}
            | Self::Copying { .. }
            | Self::Incomplete { .. }
            | Self::Unequal { .. }
            | Self::Resyncing { .. }
            | Self::Switched { .. }
            | Self::Verified { .. } => None,
        }
    }

    /// The switch, if it was ordered.
    #[must_use]
    pub fn switch(&self) -> Option<&Switch> {
        match self {
            Self::Switched { switch } | Self::Verified { switch, .. } => Some(switch),
            _ => None,
        }
    }

    /// When the fence was confirmed, if that was and no switch was ordered.
    #[must_use]
    pub fn fenced_at(&self) -> Option<Instant> {
        match self {
            Self::Fenced { at, .. } | Self::MarkerWritten { at, .. } | Self::Drained { at, .. } => {
                Some(*at)
            }
            _ => None,
        }
    }

    /// The marker behind the fence, if there is one and no switch was ordered.
    #[must_use]
    pub fn marker(&self) -> Option<&str> {
        match self {
            Self::MarkerWritten { marker, .. } | Self::Drained { marker, .. } => Some(marker),
            _ => None,
        }
    }

    /// Without a fence: as it was while changes were followed.
    #[must_use]
    pub fn unfenced(self) -> Self {
        match (self.fenced_at(), self.ready()) {
            (Some(_), Some(ready)) => Self::Following { ready },
            _ => self,
        }
    }
}

/// As `status` and messages say it.
impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, since) = match self {
            Self::Planned {} => return f.write_str("not begun"),
            Self::Copying { since } => ("begun", since),
            Self::Incomplete { since } => ("incomplete", since),
            Self::Copied { since } => ("copied", since),
            Self::Unequal { since } => ("unequal", since),
            Self::Proven { since } => ("proven", since),
            Self::Resyncing { since, .. } => ("resyncing", since),
            Self::Resynced { since } => ("resynced", since),
            Self::Following { ready }
            | Self::Fenced { ready, .. }
            | Self::MarkerWritten { ready, .. }
            | Self::Drained { ready, .. } => (ready.how.name(), &ready.since),
            Self::Switched { switch } | Self::Verified { switch, .. } => {
                return write!(f, "switched {switch}");
            }
        };
        write!(f, "{name} since {since}")
    }
}

/// The step that leads on from this phase, while none is at work.
#[must_use]
pub fn next_step(procedure: Procedure, phase: &Phase) -> Step {
    match (phase, procedure) {
        (
            Phase::Planned {}
            | Phase::Copying { .. }
            | Phase::Incomplete { .. }
            | Phase::Unequal { .. },
            _,
        ) => Step::Copy { restart: false },
        (Phase::Switched { .. } | Phase::Verified { .. }, _) => Step::Reverse,
        (_, Procedure::Fenced) => Step::Check,
        (Phase::Resyncing { .. }, _) => Step::Resync,
        (Phase::Fenced { .. } | Phase::MarkerWritten { .. } | Phase::Drained { .. }, _) => {
            Step::Cutover
        }
        (
            Phase::Copied { .. }
            | Phase::Proven { .. }
            | Phase::Resynced { .. }
            | Phase::Following { .. },
            Procedure::Live,
        ) => Step::Follow,
    }
}

/// Whether a step may run in this phase: the only place that decides it.
///
/// # Errors
///
/// Why it may not.
pub fn allows(procedure: Procedure, phase: &Phase, step: Step) -> Result<(), Refusal> {
    match (procedure, step) {
        (Procedure::Fenced, Step::Follow | Step::Verify | Step::Cutover | Step::Resync) => {
            return Err(Refusal::IsFenced);
        }
        (Procedure::Live, Step::Check) => return Err(Refusal::IsLive),
        _ => {}
    }
    match step {
        Step::Status | Step::Abort => Ok(()),
        Step::Plan => match phase.switch() {
            Some(_) => Err(Refusal::SwitchOrdered),
            None => Ok(()),
        },
        Step::Reverse => match phase.switch() {
            Some(_) => Ok(()),
            None => Err(Refusal::SwitchNotOrdered),
        },
        Step::Copy { restart } => match phase {
            Phase::Switched { .. } | Phase::Verified { .. } => Err(Refusal::SwitchOrdered),
            Phase::Resyncing { .. } if !restart => Err(Refusal::ResyncUnfinished),
            _ => Ok(()),
        },
        Step::Check | Step::Resync => match phase {
            Phase::Switched { .. } | Phase::Verified { .. } => Err(Refusal::SwitchOrdered),
            Phase::Planned {} => Err(Refusal::NothingCopied),
            _ => Ok(()),
        },
        Step::Cutover if phase.switch().is_some() => Ok(()),
        Step::Follow | Step::Verify | Step::Cutover => match phase {
            Phase::Switched { .. } | Phase::Verified { .. } => Err(Refusal::SwitchOrdered),
            Phase::Planned {} => Err(Refusal::NothingCopied),
            Phase::Copying { .. } | Phase::Incomplete { .. } | Phase::Unequal { .. } => {
                Err(Refusal::CopyUnfinished)
            }
            Phase::Resyncing { .. } => Err(Refusal::ResyncUnfinished),
            Phase::Copied { .. }
            | Phase::Proven { .. }
            | Phase::Resynced { .. }
            | Phase::Following { .. }
            | Phase::Fenced { .. }
            | Phase::MarkerWritten { .. }
            | Phase::Drained { .. } => Ok(()),
        },
    }
}

#[cfg(test)]
#[path = "phase_tests.rs"]
mod tests;
