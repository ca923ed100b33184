//! Drops repeated deliveries, and decides from which checkpoints a Watch may resume.
//!
//! PostgreSQL delivers revisions again, thousands of times, while transactions overlap (measured, SpiceDB v1.56).
//! It continues from a snapshot: that of the transaction which committed last, to which the other transactions of the
//! same answer were added. Where that transaction began early, the snapshot lacks what earlier answers held. A
//! checkpoint at it is no point to resume at: an old touch would come again, and the later deletion that is part of
//! the snapshot would not (measured: 12 deleted relationships were there again).

use std::collections::{BTreeMap, HashSet};

use authzed::zedtoken::{PostgresRevision, Revision, revision_of};

/// Half of what is remembered of datastores other than PostgreSQL, which deliver a revision once.
const HALF: usize = 50_000;

/// The kind of record of a revision; it can have one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Transaction,
    Schema,
    Checkpoint,
}

/// What was delivered.
pub(crate) struct Delivered {
    recent: RecentRevisions,
    postgres: Option<Transactions>,
}

/// Of PostgreSQL: the transactions, and those that changed the schema.
struct Transactions {
    changes: Txids,
    schemas: Txids,
}

impl Delivered {
    /// Everything that the start of a stream includes.
    pub(crate) fn before(start: &str) -> Self {
        let postgres = match revision_of(start) {
            Revision::Postgres(start) => {
                let seen = Txids::seen_by(&start);
                Some(Transactions {
                    changes: seen.clone(),
                    schemas: seen,
                })
            }
            _ => None,
        };
        Self {
            recent: RecentRevisions::default(),
            postgres,
        }
    }

    /// Whether this came already.
    pub(crate) fn contains(&self, revision: &Revision, kind: Kind) -> bool {
        match (&self.postgres, txid(revision), kind) {
            (Some(postgres), Some(txid), Kind::Transaction) => postgres.changes.contains(txid),
            (Some(postgres), Some(txid), Kind::Schema) => postgres.schemas.contains(txid),
            _ => self.recent.contains(revision, kind),
        }
    }

    /// Whether this comes for the first time; it is remembered.
    pub(crate) fn insert(&mut self, revision: &Revision, kind: Kind) -> bool {
        if self.contains(revision, kind) {
            return false;
        }
        match (&mut self.postgres, txid(revision), kind) {
            (Some(postgres), Some(txid), Kind::Transaction) => postgres.changes.insert(txid),
            (Some(postgres), Some(txid), Kind::Schema) => postgres.schemas.insert(txid),
            _ => self.recent.insert(revision, kind),
        }
        true
    }

    /// Whether a Watch may resume at this checkpoint: it sees everything that was delivered.
    pub(crate) fn is_resume_point(&mut self, checkpoint: &Revision) -> bool {
        let (Some(postgres), Revision::Postgres(checkpoint)) = (&mut self.postgres, checkpoint)
        else {
            return true;
        };
        let seen = Txids::seen_by(checkpoint);
        let sees_all = seen.include(&postgres.changes) && seen.include(&postgres.schemas);
        if sees_all {
            // A poll delivers everything that the end of it sees.
            postgres.changes = seen.clone();
            postgres.schemas = seen;
        }
        sees_all
    }
}

fn txid(revision: &Revision) -> Option<u64> {
    match revision {
        Revision::Postgres(revision) => revision.txid,
        _ => None,
    }
}

/// A set of transaction ids, as ranges: the first of each, and the one after its last. Those of a database that
/// nothing else uses are one range.
#[derive(Clone, Default)]
struct Txids(BTreeMap<u64, u64>);

impl Txids {
    fn seen_by(revision: &PostgresRevision) -> Self {
        let mut seen = Self::default();
        let mut first = 0;
        for running in &revision.in_progress {
            seen.insert_range(first, *running);
            first = running + 1;
        }
        seen.insert_range(first, revision.xmax);
        if let Some(own) = revision.txid {
            seen.insert(own);
        }
        seen
    }

    fn contains(&self, txid: u64) -> bool {
        let range = self.0.range(..=txid).next_back();
        range.is_some_and(|(_, after)| txid < *after)
    }

    fn include(&self, other: &Self) -> bool {
        other.0.iter().all(|(first, after)| {
            let range = self.0.range(..=first).next_back();
            range.is_some_and(|(_, end)| after <= end)
        })
    }

    fn insert(&mut self, txid: u64) {
        if !self.contains(txid) {
            self.insert_range(txid, txid + 1);
        }
    }

    /// A range of which it has nothing yet; an empty one is none.
    fn insert_range(&mut self, mut first: u64, mut after: u64) {
        if first >= after {
            return;
        }
        if let Some((before, end)) = self.0.range(..first).next_back()
            && *end == first
        {
            first = *before;
        }
        if let Some(end) = self.0.remove(&after) {
            after = end;
        }
        self.0.insert(first, after);
    }
}

/// The newest revisions, by what they mean: a token may be spelt in several ways.
#[derive(Default)]
struct RecentRevisions {
    newer: HashSet<(Revision, Kind)>,
    older: HashSet<(Revision, Kind)>,
}

impl RecentRevisions {
    fn contains(&self, revision: &Revision, kind: Kind) -> bool {
        let entry = (revision.clone(), kind);
        self.newer.contains(&entry) || self.older.contains(&entry)
    }

    fn insert(&mut self, revision: &Revision, kind: Kind) {
        if self.newer.len() >= HALF {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert((revision.clone(), kind));
    }
}

#[cfg(test)]
mod tests;
