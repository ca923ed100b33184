//! Relationships of which the source's transactions collided, compared before an end is announced.
//!
//! Where a source numbers transactions when they begin, the stream has the state of a relationship
//! that changed more than once within a short time as it was read there. These are few, and the likeliest
//! to be wrong: so at `--until` they are also read from the target.

use std::collections::{HashMap, HashSet};

use authzed::v1::RelationshipUpdate;
use spice_record::digest::key_digest;

/// How many relationships are remembered as changed.
const RECENT: usize = 200_000;
/// How many states are compared at most.
const MAX_STATES: usize = 10_000;

/// The relationships that changed more than once, as the stream has them.
#[derive(Default)]
pub(crate) struct Contended {
    newer: HashSet<u128>,
    older: HashSet<u128>,
    states: HashMap<u128, RelationshipUpdate>,
    /// How many there was no room for.
    pub(crate) left_out: u64,
}

impl Contended {
    /// These were written; those in `contended` are states that were read, or came more than once.
    pub(crate) fn note(&mut self, updates: &[RelationshipUpdate], contended: &HashSet<u128>) {
        for update in updates {
            let Some(relationship) = &update.relationship else {
                continue;
            };
            let key = key_digest(relationship).0;
            let again = self.older.contains(&key) || !self.newer.insert(key);
            if self.newer.len() >= RECENT / 2 {
                self.older = std::mem::take(&mut self.newer);
            }
            if let Some(state) = self.states.get_mut(&key) {
                state.clone_from(update);
            } else if (again || contended.contains(&key)) && self.states.len() < MAX_STATES {
                self.states.insert(key, update.clone());
            } else if again || contended.contains(&key) {
                self.left_out += 1;
            }
        }
    }

    /// How the target must hold them.
    pub(crate) fn states(&self) -> Vec<RelationshipUpdate> {
        self.states.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use authzed::v1::{
        ObjectReference, Relationship, RelationshipUpdate, relationship_update::Operation,
    };
    use spice_record::digest::key_digest;

    use super::{Contended, MAX_STATES};

    fn update(operation: Operation, id: usize) -> RelationshipUpdate {
        RelationshipUpdate {
            operation: operation.into(),
            relationship: Some(Relationship {
                resource: Some(ObjectReference {
                    object_type: "item".to_owned(),
                    object_id: id.to_string(),
                }),
                ..Relationship::default()
            }),
        }
    }

    #[test]
    fn last_state_of_what_changed_twice_or_was_read_is_compared() {
        let mut contended = Contended::default();
        let none = HashSet::new();
        contended.note(
            &[update(Operation::Touch, 1), update(Operation::Touch, 2)],
            &none,
        );
        assert!(contended.states().is_empty());
        contended.note(&[update(Operation::Delete, 2)], &none);
        assert_eq!(contended.states(), [update(Operation::Delete, 2)]);
        contended.note(&[update(Operation::Touch, 2)], &none);
        assert_eq!(contended.states(), [update(Operation::Touch, 2)]);
        let read = update(Operation::Delete, 3);
        let key = read.relationship.as_ref().map(|one| key_digest(one).0);
        contended.note(&[read], &key.into_iter().collect());
        assert_eq!(contended.states().len(), 2);
    }

    #[test]
    fn states_beyond_the_bound_are_counted() {
        let mut contended = Contended::default();
        let all: Vec<_> = (0..MAX_STATES + 5)
            .map(|id| update(Operation::Touch, id))
            .collect();
        for _ in 0..2 {
            contended.note(&all, &HashSet::new());
        }
        assert_eq!(
            (contended.states().len(), contended.left_out),
            (MAX_STATES, 5)
        );
    }
}
