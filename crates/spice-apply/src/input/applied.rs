//! What of a stream the position has already: a stream may begin before it.

use authzed::zedtoken::{self, Revision};
use spice_record::record::Position;
use spice_record::{Change, Header};

/// The lines of a stream before a position.
pub(super) struct AlreadyApplied {
    revision: String,
    decoded: Revision,
    /// The newest schema of these lines.
    schema: Option<String>,
}

impl AlreadyApplied {
    /// `None` where the stream begins at the position, or has none.
    pub(super) fn of(position: Option<&Position>, header: &Header) -> Option<Self> {
        let revision = &position?.source_revision;
        if header.revision.as_ref() == Some(revision) {
            return None;
        }
        Some(Self {
            decoded: zedtoken::decode(revision).ok()?.revision,
            revision: revision.clone(),
            schema: None,
        })
    }

    /// Whether a line is included in the position: a Watch that resumes there does not deliver it either.
    pub(super) fn includes(&mut self, change: &Change) -> bool {
        let revision = match change {
            Change::Transaction(change) => &change.revision,
            Change::Schema(change) => &change.revision,
            Change::Checkpoint(checkpoint) => &checkpoint.revision,
        };
        let is_included = *revision == self.revision
            || zedtoken::decode(revision)
                .is_ok_and(|there| self.decoded.sees(&there.revision) == Some(true));
        if is_included && let Change::Schema(change) = change {
            self.schema = Some(change.text.clone());
        }
        is_included
    }

    /// The header as it would be at the position: with the schema there.
    pub(super) fn header_there(&mut self, mut header: Box<Header>) -> Box<Header> {
        if let Some(schema) = self.schema.take() {
            header.schema = Some(schema);
        }
        header
    }
}
