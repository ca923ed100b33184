//! How far the target is, and how much of that may be saved.
//!
//! Everything here is decided by what was acknowledged; nothing is written or read. The position only
//! advances past a revision once all of it was acknowledged, and past a schema once the target has it.

use authzed::DatastoreKind;
use authzed::zedtoken::includes;
use spice_client::same_datastore::datastore_id;
use spice_record::Header;
use spice_record::digest::{Digest, digest_text};
use spice_record::record::{Position, SpoolOffset, StreamKind};
use tokio::time::{Duration, Instant};

/// The position is saved at most this late.
const SAVE_EVERY: Duration = Duration::from_millis(100);

mod sync_point;

pub(super) use self::sync_point::SyncPoint;

/// A place in the stream: a revision, and where its record begins in a spool.
pub(super) type Place = (String, SpoolOffset);

/// A batch that was acknowledged.
#[derive(Clone, Debug, Default)]
pub(super) struct Acknowledged {
    /// The last revision in it; `None` for updates without revisions.
    pub(super) revision: Option<Place>,
    /// Whether that revision is complete with it.
    pub(super) completes: bool,
    /// A part of a revision that was cut.
    pub(super) is_part: bool,
    /// The last checkpoint in it, and whether no revision comes after that.
    pub(super) checkpoint: Option<Place>,
    pub(super) ends_at_checkpoint: bool,
    /// It took one call, and nothing else was in flight from the beginning of that to its end.
    pub(super) is_only_call: bool,
}

/// The position, and what is known beside it.
#[derive(Debug)]
pub(super) struct PositionTracker {
    /// Where everything is on the target; `None` for a stream without revisions.
    position: Option<Position>,
    /// Since when something of it is not saved.
    unsaved_since: Option<Instant>,
    synced_at: Instant,
    /// Whether the position has advanced since the last sync point.
    has_advanced: bool,
    /// What was acknowledged while a schema is pending.
    behind_schema: Option<Place>,
    /// What of the spool a process before this one may have applied already.
    replay_until: Option<SpoolOffset>,
    /// Only a checkpoint is a place to resume from: the source's revisions are not in the order of their
    /// effects, and what corrects that comes between a revision and the checkpoint behind it.
    only_checkpoints: bool,
    /// What was acknowledged since the last of them.
    since_checkpoint: Option<Place>,
}

impl PositionTracker {
    /// At a head of the target, before any stream.
    pub(super) fn new(head: String) -> Self {
        Self {
            position: Some(Position {
                target: datastore_id(&head),
                target_revision: Some(head),
                ..Position::default()
            }),
            unsaved_since: None,
            synced_at: Instant::now(),
            has_advanced: false,
            behind_schema: None,
            replay_until: None,
            only_checkpoints: false,
            since_checkpoint: None,
        }
    }

    /// Continues from a saved position, or begins where the stream does. Returns a schema that the
    /// header has, and that must be on the target before anything else, with its revision.
    pub(super) fn resume_from(
        &mut self,
        saved: Option<Position>,
        header: Option<&Header>,
        replay_until: Option<SpoolOffset>,
    ) -> Option<(String, String)> {
        self.replay_until = replay_until;
        // Only changes have revisions to resume from: a snapshot that is touched over what is there
        // does not describe the rest.
        let header = header.filter(|header| header.stream == StreamKind::Changes);
        let start = header.and_then(|header| header.revision.clone());
        let (Some(start), Some(header)) = (start, header) else {
            self.position = None;
            return None;
        };
        self.only_checkpoints = DatastoreKind::of_token(&start).needs_contended_reads();
        let fresh = self.position.take().unwrap_or_default();
        let Some(saved) = saved else {
            self.position = Some(Position {
                source: datastore_id(&start),
                filter: header.filter.clone(),
                mapping: header.mapping.clone(),
                start: Some(start.clone()),
                source_revision: start.clone(),
                ..fresh
            });
            self.unsaved_since = Some(Instant::now());
            // It may have changed between the copy and the beginning of the stream: the stream holds
            // only later changes.
            return header.schema.clone().map(|text| (text, start));
        };
        // What changed between the end of the last stream and the beginning of this one is only in its
        // header. In the middle of a spool the header is older than what was applied.
        let digest = header.schema.as_deref().map(digest_text);
        let is_at_start = saved.spool.is_none() || saved.source_revision == start;
        let has_changed = is_at_start && saved.schema != digest;
        let revision = saved.source_revision.clone();
        self.position = Some(saved);
        let schema = header.schema.clone().filter(|_| has_changed);
        schema.map(|text| (text, revision))
    }

    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// The source's datastore.
    pub(super) fn source(&self) -> Option<&str> {
        self.position.as_ref()?.source.as_deref()
    }

    pub(super) fn only_checkpoints(&self) -> bool {
        self.only_checkpoints
    }

    /// Whether the target may hold more than everything through a place already.
    pub(super) fn is_replay(&self, place: SpoolOffset) -> bool {
        self.replay_until.is_some_and(|until| place < until)
    }

    /// A batch was acknowledged; `target_revision` holds all of it. Returns the revision through which
    /// everything is on the target with it, for the report.
    pub(super) fn acknowledged(
        &mut self,
        batch: Acknowledged,
        target_revision: Option<&String>,
        is_schema_pending: bool,
    ) -> Option<String> {
        let (token, place) = batch.revision.filter(|_| batch.completes)?;
        if let (Some(position), Some(revision)) = (&mut self.position, target_revision) {
            position.target_revision = Some(revision.clone());
            // It holds more than the source's revision does, until that advances.
            position.sync_point = false;
        }
        if !self.only_checkpoints {
            self.advance(&token, place, is_schema_pending);
            return Some(token);
        }
        self.since_checkpoint = (!batch.ends_at_checkpoint).then_some((token, place));
        let (revision, place) = batch.checkpoint?;
        self.advance(&revision, place, is_schema_pending);
        Some(revision).filter(|_| batch.ends_at_checkpoint)
    }

    /// Everything through a checkpoint is on the target; returns whether anything was written since the
    /// checkpoint before it.
    pub(super) fn checkpoint(
        &mut self,
        revision: &str,
        place: SpoolOffset,
        is_schema_pending: bool,
    ) -> bool {
        let has_written = self.since_checkpoint.take().is_some();
        self.advance(revision, place, is_schema_pending);
        has_written
    }

    /// The stream holds a schema here; the target has it, unless it is pending.
    pub(super) fn schema_change(
        &mut self,
        revision: &str,
        place: SpoolOffset,
        is_schema_pending: bool,
    ) {
        if self.since_checkpoint.is_none() {
            self.advance(revision, place, is_schema_pending);
        }
    }

    /// The stream ended as it should: one can resume there, as at a checkpoint.
    pub(super) fn stream_ended(&mut self, is_schema_pending: bool) {
        if let Some((revision, place)) = self.since_checkpoint.take() {
            self.advance(&revision, place, is_schema_pending);
        }
    }

    /// The target has the newest schema.
    pub(super) fn has_schema(&mut self, digest: Digest) {
        if let Some(position) = &mut self.position {
            position.schema = Some(digest);
            self.note_unsaved();
        }
        // What was acknowledged while it was pending counts now.
        if let Some((revision, place)) = self.behind_schema.take() {
            self.advance(&revision, place, false);
        }
    }

    /// Everything through a revision is on the target, unless a schema is still missing there.
    fn advance(&mut self, revision: &str, place: SpoolOffset, is_schema_pending: bool) {
        if is_schema_pending {
            self.behind_schema = Some((revision.to_owned(), place));
            return;
        }
        if let Some(position) = &mut self.position {
            revision.clone_into(&mut position.source_revision);
            position.spool = (place.offset > 0).then_some(place);
            position.sync_point = false;
            self.has_advanced = true;
            self.note_unsaved();
        }
    }

    /// What is written next is early, through this revision; `false` where so much is noted: a process before this
    /// one may have come further.
    pub(super) fn note_early(&mut self, until: &str) -> bool {
        let Some(position) = &mut self.position else {
            return false;
        };
        let noted = position.early_until.as_deref();
        if noted.is_some_and(|noted| includes(noted, until)) {
            return false;
        }
        position.early_until = Some(until.to_owned());
        self.note_unsaved();
        true
    }

    /// The source's revision, where it has passed all that is noted as written early.
    pub(super) fn passed_early(&self) -> Option<&str> {
        let position = self.position.as_ref()?;
        let at = position.source_revision.as_str();
        let until = position.early_until.as_deref()?;
        includes(at, until).then_some(at)
    }

    /// The target holds everything through the position, and no more.
    pub(super) fn clear_early(&mut self) {
        if let Some(position) = &mut self.position {
            position.early_until = None;
            self.note_unsaved();
        }
    }

    /// Whether the target may hold more than everything through the position.
    fn is_ahead(&self) -> bool {
        let position = self.position.as_ref();
        position.is_some_and(|position| position.early_until.is_some())
    }

    /// Something of the position is to be saved.
    pub(super) fn note_unsaved(&mut self) {
        self.unsaved_since.get_or_insert_with(Instant::now);
    }

    pub(super) fn is_unsaved(&self) -> bool {
        self.unsaved_since.is_some()
    }

    /// When the position is to be saved.
    pub(super) fn save_at(&self) -> Option<Instant> {
        self.unsaved_since.map(|since| since + SAVE_EVERY)
    }

    pub(super) fn note_saved(&mut self) {
        self.unsaved_since = None;
    }
}
