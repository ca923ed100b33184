//! What is known of a migration, in one file that is replaced durably.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spice_record::digest::{Digest, digest_text};
use spice_record::record::Filter;

use crate::phase::{Phase, Procedure, SpoolEnd, Switch};
use crate::time::{Instant, Span};

/// The format of the file.
pub const FORMAT: &str = "spice-migrate";
/// The version that this program reads and writes.
pub const VERSION: u64 = 1;

/// The kind of a datastore, as `spice-revision --json` names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kind(pub String);

impl Kind {
    /// Whether it is this kind.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.0 == name
    }

    /// Whether transactions become visible in another order than that of their revisions.
    #[must_use]
    pub fn needs_settling(&self) -> bool {
        !matches!(self.0.as_str(), "postgres" | "cockroachdb" | "spanner")
    }
}

/// Its title in messages.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.as_str() {
            "memory" => "memory",
            "mysql" => "MySQL",
            "postgres" => "PostgreSQL",
            "cockroachdb" => "CockroachDB",
            "spanner" => "Spanner",
            "memory-or-spanner" => "memory or Spanner",
            _ => "a datastore of an unknown kind",
        })
    }
}

/// One of the two servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct End {
    /// Its table in the contexts file.
    pub context: String,
    /// Its datastore's id; SpiceDB v1.45 and older names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore_id: Option<String>,
    /// Its datastore's kind.
    pub kind: Kind,
}

impl End {
    /// The id, in messages.
    #[must_use]
    pub fn id(&self) -> &str {
        self.datastore_id.as_deref().unwrap_or("without a name")
    }
}

/// Where copy and capture begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Start {
    /// The revision that is copied.
    pub revision: String,
    /// Where the capture begins; earlier on memory.
    pub captured_since: String,
}

/// With what `follow` was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Following {
    /// When.
    pub since: Instant,
    /// How often an empty transaction is written to the source.
    pub heartbeat: Span,
    /// The settle time, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<Span>,
    /// Whether applied segments of the spool are deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prune: bool,
    /// The file for updates that the target refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejects: Option<PathBuf>,
    /// What is done about a change of the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
}

/// What a comparison of both ends found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    /// They are equal.
    Equal,
    /// They differ.
    Different,
    /// Something was seen, and the comparison was not finished.
    Undecided,
}

/// The result of the newest comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// What was found.
    pub found: Found,
    /// Of when it speaks.
    pub since: Instant,
    /// At which revisions, and how much.
    pub what: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = match self.found {
            Found::Equal => "equal",
            Found::Different => "different",
            Found::Undecided => "undecided",
        };
        write!(f, "{found} since {}: {}", self.since, self.what)
    }
}

/// Everything that is known of a migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u64,
    /// Of all other fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Digest>,
    /// Which of the two procedures.
    pub procedure: Procedure,
    /// The server that is left.
    pub source: End,
    /// The server that is reached.
    pub target: End,
    /// This is the way back: what came from the target does not travel.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_reverse: bool,
    /// The settle time of the source, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<Span>,
    /// How long the source keeps its history, if that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gc_window: Option<Span>,
    /// What is moved, if that is not everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// The policy of `--on-conflict`, if the target may hold relationships.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<String>,
    /// How far it is.
    pub phase: Phase,
    /// Where copy and capture begin, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// With what `follow` was started last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub following: Option<Following>,
    /// What the newest comparison found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// About how many relationships both ends were asked when their answers differed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<u64>,
    /// The spool's end when everything through the fence was in it; kept for the comparison after the switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<SpoolEnd>,
    /// When it was given up, unless it was taken up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted: Option<Instant>,
}

impl State {
    /// What was found different at both ends after the switch was ordered.
    pub(crate) fn differs_since(&self, switch: &Switch) -> Option<&str> {
        let verdict = self.verdict.as_ref()?;
        let is_different = verdict.found == Found::Different && verdict.since >= switch.at;
        is_different.then_some(verdict.what.as_str())
    }

    /// What a Watch leaves out, on the way back.
    pub(crate) fn skip(&self) -> Option<crate::commands::Skip> {
        let source = self.target.datastore_id.clone();
        self.is_reverse.then_some(crate::commands::Skip(source))
    }

    /// A planned migration.
    #[must_use]
    pub fn planned(procedure: Procedure, source: End, target: End) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            checksum: None,
            procedure,
            source,
            target,
            is_reverse: false,
            settle: None,
            gc_window: None,
            filter: None,
            on_conflict: None,
            phase: Phase::Planned {},
            start: None,
            following: None,
            verdict: None,
            sample: None,
            drained: None,
            aborted: None,
        }
    }

    /// The way back, after an ordered switch; `None` without one.
    #[must_use]
    pub fn reversed(&self) -> Option<Self> {
        use crate::phase::{How, Ready};

        let switch = self.phase.switch()?;
        let ready = Ready {
            how: How::Switched,
            since: switch.at,
        };
        let revision = switch.sync_point.target_revision.clone();
        let mut reversed = Self::planned(self.procedure, self.target.clone(), self.source.clone());
        reversed.is_reverse = true;
        reversed.filter.clone_from(&self.filter);
        reversed.phase = Phase::Following { ready };
        reversed.start = Some(Start {
            captured_since: revision.clone(),
            revision,
        });
        Some(reversed)
    }

    /// The checksum of all other fields.
    ///
    /// # Errors
    ///
    /// Where a path is not UTF-8.
    pub fn compute_checksum(&self) -> serde_json::Result<Digest> {
        let plain = Self {
            checksum: None,
            ..self.clone()
        };
        Ok(digest_text(&serde_json::to_string(&plain)?))
    }

    /// When a comparison proved both ends equal, if that is the newest result.
    #[must_use]
    pub fn proved_at(&self) -> Option<Instant> {
        let verdict = self.verdict.as_ref()?;
        (verdict.found == Found::Equal).then_some(verdict.since)
    }
}
