//! Drops repeated deliveries. PostgreSQL delivers revisions again, thousands of times, while
//! transactions overlap (measured, SpiceDB v1.56).

use std::collections::HashSet;

use authzed::zedtoken::Revision;

/// Half of what is remembered. What is forgotten and comes again is emitted again, which is harmless:
/// changes are applied idempotently.
const HALF: usize = 50_000;

/// The kind of record of a revision; it can have one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Transaction,
    Schema,
    Checkpoint,
}

/// The newest revisions, by what they mean: a token may be spelt in several ways.
#[derive(Default)]
pub(crate) struct RecentRevisions {
    newer: HashSet<(Revision, Kind)>,
    older: HashSet<(Revision, Kind)>,
}

impl RecentRevisions {
    /// Whether this came already.
    pub(crate) fn contains(&self, revision: &Revision, kind: Kind) -> bool {
        let entry = (revision.clone(), kind);
        self.newer.contains(&entry) || self.older.contains(&entry)
    }

    /// Whether this comes for the first time; it is remembered.
    pub(crate) fn insert(&mut self, revision: &Revision, kind: Kind) -> bool {
        if self.contains(revision, kind) {
            return false;
        }
        let entry = (revision.clone(), kind);
        if self.newer.len() >= HALF {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::{HALF, Kind, RecentRevisions, Revision};

    #[test]
    fn a_revision_is_new_once_for_each_kind() {
        let mut seen = RecentRevisions::default();
        let revision = Revision::Integer(1);
        assert!(seen.insert(&revision, Kind::Transaction));
        assert!(seen.insert(&revision, Kind::Checkpoint));
        assert!(!seen.insert(&revision, Kind::Transaction));
    }

    #[test]
    fn the_newest_are_remembered_and_the_oldest_forgotten() {
        let mut seen = RecentRevisions::default();
        let mut is_new =
            |number: usize| seen.insert(&Revision::Integer(number as u64), Kind::Transaction);
        assert!((0..3 * HALF).all(&mut is_new));
        assert!(!(2 * HALF..3 * HALF).any(&mut is_new));
        assert!(is_new(0));
    }
}
