//! The position of an apply: saving it, and whether a stream continues from there.

use std::sync::Mutex;
use std::time::Duration;

use authzed::zedtoken;
use spice_cli::{CommandError, lock};
use spice_client::same_datastore::datastore_id;
use spice_record::Header;
use spice_record::record::{Filter, Position, SpoolOffset};
use spice_spool::Spool;
use spice_spool::position::PositionFile;

use crate::ambiguous::AMBIGUITY_WINDOW;
use crate::early;

/// Where a position is saved durably.
pub(crate) trait PositionSink: Send + Sync {
    /// # Errors
    ///
    /// Exit 1 if it cannot be written.
    fn save(&self, position: &Position) -> Result<(), CommandError>;
}

impl PositionSink for PositionFile {
    fn save(&self, position: &Position) -> Result<(), CommandError> {
        Self::save(self, position)
    }
}

/// The position file, and what was saved there last.
pub(crate) struct PositionStore {
    sink: Box<dyn PositionSink>,
    saved: Mutex<Option<Position>>,
}

impl PositionStore {
    pub(crate) fn new(sink: impl PositionSink + 'static, saved: Option<Position>) -> Self {
        Self {
            sink: Box::new(sink),
            saved: Mutex::new(saved),
        }
    }

    /// Saves how far everything is on the target.
    ///
    /// # Errors
    ///
    /// Exit 1 if it cannot be written.
    pub(crate) fn save(&self, position: Position) -> Result<(), CommandError> {
        let mut saved = lock(&self.saved);
        self.sink.save(&position)?;
        *saved = Some(position);
        Ok(())
    }

    /// Notes beside the saved position that a write after it may be applied late: a process that resumes
    /// there, after a crash, has to wait for that.
    ///
    /// # Errors
    ///
    /// Exit 1 if it cannot be written.
    pub(crate) fn note_ambiguous(&self, window: Duration) -> Result<(), CommandError> {
        let mut saved = lock(&self.saved);
        let Some(position) = saved.as_mut() else {
            return Ok(());
        };
        position.ambiguous_until = Some(from_now(window));
        self.sink.save(position)
    }

    /// Notes beside the saved position that the target may hold changes through this revision, before their
    /// place in the stream.
    ///
    /// # Errors
    ///
    /// Exit 1 if it cannot be written.
    pub(crate) fn note_early(&self, until: &str) -> Result<(), CommandError> {
        let mut saved = lock(&self.saved);
        let Some(position) = saved.as_mut() else {
            return Ok(());
        };
        position.early_until = Some(until.to_owned());
        self.sink.save(position)
    }
}

/// Refuses a position that has passed what was written early, not all of which came in the settled stream.
///
/// # Errors
///
/// Exit 1.
pub(crate) fn check_early(position: &Position) -> Result<(), CommandError> {
    let until = position.early_until.as_deref();
    match until.is_some_and(|until| zedtoken::includes(&position.source_revision, until)) {
        true => Err(early::never_settled()),
        false => Ok(()),
    }
}

/// Deletes the segments of a spool before a position that was saved.
pub(crate) fn prune(spool: &Spool, place: SpoolOffset) {
    let segments = spool.segments().unwrap_or_default();
    for number in segments
        .into_iter()
        .filter(|number| *number < place.segment)
    {
        if let Err(error) = std::fs::remove_file(spool.segment(number)) {
            tracing::warn!("--prune: {}: {error}", spool.segment(number).display());
        }
    }
}

/// The time after so long, RFC 3339.
pub(crate) fn from_now(window: Duration) -> String {
    (jiff::Timestamp::now() + window).to_string()
}

/// How long an ambiguous write of a process before this one may still be applied, at this time.
pub(crate) fn ambiguous_for(position: &Position, now: jiff::Timestamp) -> Duration {
    let until = position.ambiguous_until.as_deref();
    let Some(Ok(until)) = until.map(str::parse::<jiff::Timestamp>) else {
        return Duration::ZERO;
    };
    let left = until.duration_since(now);
    // A clock that was set back must not make it endless.
    Duration::try_from(left)
        .unwrap_or_default()
        .min(AMBIGUITY_WINDOW)
}

/// Whether a stream starts at a position, or earlier: then nothing is missing between them.
///
/// # Errors
///
/// What is wrong, for the message.
pub(crate) fn check_start(position: Option<&Position>, header: &Header) -> Result<(), String> {
    let (Some(position), Some(start)) = (position, &header.revision) else {
        return Ok(());
    };
    // The very first start stays good: on PostgreSQL a revision whose transaction began before it does
    // not see everything that it sees.
    if *start == position.source_revision || position.start.as_ref() == Some(start) {
        return Ok(());
    }
    let sees = match (
        zedtoken::decode(&position.source_revision),
        zedtoken::decode(start),
    ) {
        (Ok(resume), Ok(start)) if resume == start => Some(true),
        (Ok(resume), Ok(start)) => resume.revision.sees(&start.revision),
        _ => None,
    };
    if sees == Some(true) {
        return Ok(());
    }
    Err(format!(
        "gap: the stream begins after revision {start}, the position is at {}: the changes between them \
         would be missing; begin with spice-watch --since-file POSITION",
        position.source_revision
    ))
}

/// Refuses a position that belongs to another target: no server would.
///
/// # Errors
///
/// Exit 2.
pub(crate) fn check_target(
    file: &PositionFile,
    position: &Position,
    head: &str,
) -> Result<(), CommandError> {
    let target = datastore_id(head);
    check_same(file, "target", position.target.as_ref(), target.as_ref())
}

/// Refuses a position that belongs to another source, filter or mapping.
///
/// # Errors
///
/// Exit 2.
pub(crate) fn check_source(
    file: &PositionFile,
    position: &Position,
    header: &Header,
) -> Result<(), CommandError> {
    let source = header.revision.as_deref().and_then(datastore_id);
    check_same(file, "source", position.source.as_ref(), source.as_ref())?;
    if position.filter != header.filter {
        return Err(CommandError::usage(format!(
            "the position {} was reached with the changes of {}, and not of {} as in this stream",
            file.path().display(),
            Filter::described(position.filter.as_ref()),
            Filter::described(header.filter.as_ref())
        ))
        .hint(
            "--type and --resource-prefix of spice-watch must stay what they were; for others begin a new copy, \
             with another --position",
        ));
    }
    if position.mapping != header.mapping {
        return Err(CommandError::usage(format!(
            "the position {} was reached with another mapping than this stream's",
            file.path().display()
        ))
        .hint("put spice-map into the pipe with the flags and the key file that it had before"));
    }
    Ok(())
}

fn check_same(
    file: &PositionFile,
    what: &str,
    expected: Option<&String>,
    found: Option<&String>,
) -> Result<(), CommandError> {
    let (Some(expected), Some(found)) = (expected, found) else {
        return Ok(());
    };
    if expected == found {
        return Ok(());
    }
    let path = file.path().display();
    Err(CommandError::usage(format!(
        "the position {path} belongs to another {what} ({expected}) than this ({found})"
    ))
    .hint("check --context and the stream; a new migration takes a new --position file"))
}

#[cfg(test)]
mod tests;
