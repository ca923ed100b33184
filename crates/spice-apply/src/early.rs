//! Early changes: those of a live Watch, written before they have settled.
//!
//! Where revisions have to settle, the stream is a settle time behind its source. Shortly before a switch the
//! live Watch is applied as well: it lacks what becomes visible late, but little else. So here is remembered
//! what was written early, and of the settled stream only what differs is written. A settled update never
//! wins over a later early one of the same relationship. Each early change comes again in the settled stream:
//! until then it is *unconfirmed*, and the target is ahead of its position.

mod kept;
mod reader;

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::Hasher as _;

use authzed::v1::RelationshipUpdate;
use authzed::zedtoken::{self, Revision};
use prost::Message as _;
use spice_cli::{CommandError, Exit};
use spice_client::lookup::key;
use spice_record::relationship::Update;

use crate::coalesce::idempotent;

pub(crate) use self::kept::KeptFile;
pub(crate) use self::reader::{EarlyStep, Expected, open};

/// Of how many relationships an early change is remembered at most: some 200 bytes each. Others are written
/// once they have settled.
const MOST: usize = 100_000;

/// What was written to a relationship early.
#[derive(Clone, Debug, PartialEq)]
struct Written {
    revision: Revision,
    /// Of the update. It needs no key of its own: what it is compared with has the same revision.
    fingerprint: u64,
    /// The target has it.
    is_acknowledged: bool,
}

/// A settled update that is to be written after all, if the target refuses the early one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LeftOut {
    pub(crate) revision: String,
    pub(crate) update: RelationshipUpdate,
}

/// What was written early, and has not come in the settled stream yet.
#[derive(Debug, Default)]
pub(crate) struct EarlyChanges {
    /// By the complete key of the relationship: a digest could be forged to make a revocation be left out.
    unconfirmed: HashMap<Vec<u8>, Written>,
    /// The last settled update of a relationship that was left out for one that is not acknowledged.
    left_out: HashMap<Vec<u8>, LeftOut>,
    /// Through where the settled stream was read.
    settled: Option<Revision>,
    /// The newest revision of which something was written early.
    newest: Option<(String, Revision)>,
}

/// A settled transaction's updates.
#[derive(Debug, Default)]
pub(crate) struct Divided {
    pub(crate) to_write: Vec<Update>,
    /// What the target has, or a later early change of the same relationship.
    pub(crate) already_there: Vec<Update>,
}

impl EarlyChanges {
    /// Whether everything that was written early has come in the settled stream.
    pub(crate) fn is_empty(&self) -> bool {
        self.unconfirmed.is_empty()
    }

    /// Whether everything early through a settled revision has come in the settled stream.
    pub(crate) fn is_confirmed_through(&self, token: &str) -> bool {
        let settled = decode(token);
        let has_settled = |written: &Written| {
            let settled = settled.as_ref();
            settled.is_some_and(|settled| !is_after(&written.revision, settled))
        };
        !self.unconfirmed.values().any(has_settled)
    }

    /// The newest revision of which something was written early.
    pub(crate) fn newest(&self) -> Option<&str> {
        self.newest.as_ref().map(|(token, _)| token.as_str())
    }

    /// The settled stream was read through a revision.
    pub(crate) fn settled(&mut self, token: &str) {
        self.settled = decode(token);
    }

    /// What of a live transaction is to be written early: what is newer than the settled stream, and than what was
    /// written early before.
    pub(crate) fn take(&mut self, token: &str, updates: Vec<Update>) -> Vec<RelationshipUpdate> {
        let Some(revision) = decode(token) else {
            return Vec::new();
        };
        if self
            .settled
            .as_ref()
            .is_none_or(|settled| !is_after(&revision, settled))
        {
            return Vec::new();
        }
        let mut taken = Vec::with_capacity(updates.len());
        for Update(update) in updates {
            let Some(key) = key_of(&update) else {
                continue;
            };
            let is_known = match self.unconfirmed.get(&key) {
                Some(written) if is_after(&written.revision, &revision) => continue,
                written => written.is_some(),
            };
            if !is_known && self.unconfirmed.len() >= MOST {
                continue;
            }
            let written = Written {
                revision: revision.clone(),
                fingerprint: fingerprint(&update),
                is_acknowledged: false,
            };
            self.unconfirmed.insert(key, written);
            taken.push(update);
        }
        let newest = self.newest.as_ref();
        if !taken.is_empty() && newest.is_none_or(|(_, newest)| is_after(&revision, newest)) {
            self.newest = Some((token.to_owned(), revision));
        }
        taken
    }

    /// Divides the updates of a settled transaction. One that is `contended` is no event, but a state that was read
    /// at this revision: it confirms nothing.
    pub(crate) fn divide(&mut self, token: &str, contended: bool, updates: Vec<Update>) -> Divided {
        let revision = decode(token);
        let mut divided = Divided::default();
        for update in updates {
            let is_there = match (&revision, key_of(&update.0)) {
                (Some(revision), Some(key)) => {
                    self.is_there((token, revision), contended, &key, &update.0)
                }
                _ => false,
            };
            match is_there {
                true => divided.already_there.push(update),
                false => divided.to_write.push(update),
            }
        }
        divided
    }

    fn is_there(
        &mut self,
        (token, revision): (&str, &Revision),
        contended: bool,
        key: &[u8],
        update: &RelationshipUpdate,
    ) -> bool {
        let Some(written) = self.unconfirmed.get(key) else {
            return false;
        };
        if is_after(&written.revision, revision) {
            if !written.is_acknowledged {
                let left_out = LeftOut {
                    revision: token.to_owned(),
                    update: update.clone(),
                };
                self.left_out.insert(key.to_vec(), left_out);
            }
            return true;
        }
        let is_same = !contended
            && written.is_acknowledged
            && written.revision == *revision
            && written.fingerprint == fingerprint(update);
        self.unconfirmed.remove(key);
        is_same
    }

    /// These were taken, and the target has them; those that are `waiting` were taken after them.
    pub(crate) fn acknowledged<'a>(
        &mut self,
        updates: &[RelationshipUpdate],
        waiting: impl Iterator<Item = &'a RelationshipUpdate>,
    ) {
        let later: HashSet<Vec<u8>> = waiting.filter_map(key_of).collect();
        for update in updates {
            let Some(key) = key_of(update).filter(|key| !later.contains(key)) else {
                continue;
            };
            self.left_out.remove(&key);
            if let Some(written) = self.unconfirmed.get_mut(&key)
                && written.fingerprint == fingerprint(update)
            {
                written.is_acknowledged = true;
            }
        }
    }

    /// The target refuses these now: the settled stream has them in their place. Returns what was left out for them.
    pub(crate) fn forget(&mut self, updates: &[RelationshipUpdate]) -> Vec<LeftOut> {
        let mut left_out = Vec::new();
        for update in updates {
            let Some(key) = key_of(update) else {
                continue;
            };
            // Not that of a later one, which is written still.
            let written = self.unconfirmed.get(&key);
            if written.is_some_and(|written| written.fingerprint == fingerprint(update)) {
                self.unconfirmed.remove(&key);
            }
            left_out.extend(self.left_out.remove(&key));
        }
        left_out
    }
}

/// What was written early never came in the settled stream, and the position has passed it.
pub(crate) fn never_settled() -> CommandError {
    CommandError::new(
        Exit::Failed,
        "changes that a live Watch delivered, and that were written early, never came once they had settled: the \
         target may hold what the source does not",
    )
    .hint("repair the target: spice-migrate resync; or compare both ends with spice-diff, repair, and take a new --position")
}

fn decode(token: &str) -> Option<Revision> {
    Some(zedtoken::decode(token).ok()?.revision)
}

fn is_after(later: &Revision, earlier: &Revision) -> bool {
    earlier.sees(later) == Some(false)
}

fn key_of(update: &RelationshipUpdate) -> Option<Vec<u8>> {
    update.relationship.as_ref().map(key)
}

/// Of an update as it is written.
fn fingerprint(update: &RelationshipUpdate) -> u64 {
    let mut hasher = DefaultHasher::new();
    if let Some(relationship) = update.relationship.clone() {
        hasher.write(&idempotent(update.operation, relationship).encode_to_vec());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
