//! Which updates are written together, and in which order.
//!
//! At the tip of the stream one revision of the source is one call. Under backlog consecutive
//! revisions are coalesced: only the last update of each relationship is written, and what is more than
//! one call takes is written by several at the same time. No two of them hold the same relationship. The
//! next batch begins beside the last of them, but for the relationships that both hold: those wait until
//! all have ended. So no update ever overtakes another one.

use std::collections::{HashSet, VecDeque};

use authzed::v1::RelationshipUpdate;
use spice_cli::byte_channel::Held;
use spice_record::record::{SpoolOffset, Transaction};
use spice_record::relationship::{StructJson, Update};

use crate::coalesce::{Coalescer, Indices};
use crate::input::Step;

/// A backlog of fewer revisions than this is written one by one.
const TIP: usize = 32;

/// Updates that are written together, at most one of each relationship.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) updates: Vec<RelationshipUpdate>,
    /// The last revision in it, and where that begins in a spool; none for updates without revisions.
    pub(crate) revision: Option<(String, SpoolOffset)>,
    pub(crate) transactions: u64,
    /// Whether the last revision is complete with it.
    pub(crate) completes: bool,
    /// A part of a revision that was cut.
    pub(crate) is_part: bool,
    /// The metadata of the source's writer, where it is one revision.
    pub(crate) metadata: Option<StructJson>,
    /// The last checkpoint in it, and whether no revision comes after that.
    pub(crate) checkpoint: Option<(String, SpoolOffset)>,
    pub(crate) ends_at_checkpoint: bool,
    /// The relationships that it held more than once, or that were read at the source (contended).
    pub(crate) contended: HashSet<u128>,
    /// Where each relationship was put; empty for what is not coalesced.
    pub(crate) indices: Indices,
}

impl Batch {
    /// Puts what the batch before this one has as well at the end; returns how many updates come before that.
    /// Of a batch that is not coalesced, none: all of it may be in the one before.
    pub(crate) fn hold_back(&mut self, before: &Indices) -> usize {
        if self.indices.is_empty() && !before.is_empty() {
            return 0;
        }
        let common = self
            .indices
            .iter()
            .filter(|(key, _)| before.contains_key(*key));
        let common: HashSet<usize> = common.map(|(_, index)| *index).collect();
        if !common.is_empty() {
            let updates = std::mem::take(&mut self.updates).into_iter().enumerate();
            let (held_back, mut first): (Vec<_>, Vec<_>) =
                updates.partition(|(index, _)| common.contains(index));
            first.extend(held_back);
            self.updates = first.into_iter().map(|(_, update)| update).collect();
        }
        self.updates.len() - common.len()
    }
}

/// Takes the next batch from the front of what was read: transactions, or updates. `None` where
/// something else is there. A checkpoint that `is_end` is not taken. `ends_at_checkpoint`: the first other one ends it.
pub(crate) fn next(
    waiting: &mut VecDeque<Held<Step>>,
    most: usize,
    no_coalesce: bool,
    ends_at_checkpoint: bool,
    is_end: &dyn Fn(&str) -> bool,
) -> Option<Batch> {
    match &waiting.front()?.message {
        Step::Transaction(change, _)
            if no_coalesce || waiting.len() <= TIP || change.part.is_some() =>
        {
            one(waiting)
        }
        Step::Transaction(..) => Some(coalesced(waiting, most, ends_at_checkpoint, is_end)),
        Step::Updates(_) => match waiting.pop_front()?.message {
            Step::Updates(updates) => {
                let mut coalescer = Coalescer::default();
                for update in updates {
                    coalescer.add(update, false);
                }
                Some(Batch {
                    updates: coalescer.updates,
                    completes: true,
                    ..Batch::default()
                })
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether so many updates wait in a backlog.
pub(crate) fn has_backlog(waiting: &VecDeque<Held<Step>>, updates: usize) -> bool {
    let mut count = 0;
    waiting.len() > TIP
        && waiting.iter().any(|step| {
            if let Step::Transaction(change, _) = &step.message {
                count += change.updates.len();
            }
            count >= updates
        })
}

fn one(waiting: &mut VecDeque<Held<Step>>) -> Option<Batch> {
    let Step::Transaction(change, place) = waiting.pop_front()?.message else {
        return None;
    };
    let (is_part, completes) = (change.part.is_some(), change.completes_revision());
    let Transaction {
        revision,
        updates,
        mut metadata,
        contended,
        ..
    } = *change;
    // A revision can have the metadata of several writers: then none of them describes all of it.
    let metadata = (metadata.len() == 1).then(|| metadata.pop()).flatten();
    let mut coalescer = Coalescer::default();
    for Update(update) in updates {
        coalescer.add(update, contended);
    }
    Some(Batch {
        updates: coalescer.updates,
        contended: coalescer.contended,
        revision: Some((revision, place)),
        transactions: u64::from(completes),
        completes,
        is_part,
        metadata,
        ..Batch::default()
    })
}

fn coalesced(
    waiting: &mut VecDeque<Held<Step>>,
    most: usize,
    ends_at_checkpoint: bool,
    is_end: &dyn Fn(&str) -> bool,
) -> Batch {
    let mut batch = Batch {
        completes: true,
        ..Batch::default()
    };
    let mut coalescer = Coalescer::default();
    loop {
        let fits = match waiting.front().map(|step| &step.message) {
            Some(Step::Transaction(change, _)) => {
                let updates = coalescer.updates.len() + change.updates.len();
                // Two at least: of a single one nothing is learned, for it remains one call.
                change.part.is_none() && (updates <= most || batch.transactions < 2)
            }
            _ => false,
        };
        let step = if fits { waiting.pop_front() } else { None };
        let Some(Step::Transaction(change, place)) = step.map(|step| step.message) else {
            break;
        };
        let Transaction {
            revision,
            updates,
            contended,
            ..
        } = *change;
        for Update(update) in updates {
            coalescer.add(update, contended);
        }
        batch.transactions += 1;
        batch.revision = Some((revision, place));
        batch.ends_at_checkpoint = false;
        // A checkpoint right behind it is replaced by the next one, unless the next batch begins behind
        // it.
        let mut steps = waiting.iter().map(|step| &step.message);
        if let (Some(Step::Checkpoint(revision, _)), Some(Step::Transaction(..))) =
            (steps.next(), steps.next())
            && !is_end(revision)
            && let Some(Step::Checkpoint(revision, place)) =
                waiting.pop_front().map(|step| step.message)
        {
            batch.checkpoint = Some((revision, place));
            batch.ends_at_checkpoint = true;
            if ends_at_checkpoint {
                break;
            }
        }
    }
    batch.updates = coalescer.updates;
    batch.contended = coalescer.contended;
    batch.indices = coalescer.indices;
    batch
}

#[cfg(test)]
mod tests;
