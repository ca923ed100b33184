//! Coalescing: of several updates of a relationship only the last one is written.

use std::collections::{HashMap, HashSet};

use authzed::v1::{Relationship, RelationshipUpdate, relationship_update::Operation};
use spice_client::lookup::{bare, key};
use spice_record::digest::key_digest;

/// Where the update of each relationship is, by its key.
pub(crate) type Indices = HashMap<Vec<u8>, usize>;

/// The last update of each relationship.
#[derive(Default)]
pub(crate) struct Coalescer {
    pub(crate) updates: Vec<RelationshipUpdate>,
    pub(crate) indices: Indices,
    pub(crate) contended: HashSet<u128>,
}

impl Coalescer {
    /// `contended`: it is a state that was read at the source.
    pub(crate) fn add(&mut self, update: RelationshipUpdate, contended: bool) {
        let Some(relationship) = update.relationship else {
            return;
        };
        let count = self.updates.len();
        let index = *self.indices.entry(key(&relationship)).or_insert(count);
        if contended || index < count {
            self.contended.insert(key_digest(&relationship).0);
        }
        let update = idempotent(update.operation, relationship);
        match self.updates.get_mut(index) {
            Some(earlier) => *earlier = update,
            None => self.updates.push(update),
        }
    }
}

/// Only touches and bare deletes: both can be done again, and a delete that names a caveat is refused
/// where the target's schema has none of that name. A touch gives every caveat a context: on MySQL one
/// without would be a change each time, to what is there already (measured, SpiceDB v1.56).
pub(crate) fn idempotent(operation: i32, mut relationship: Relationship) -> RelationshipUpdate {
    let operation = if operation == i32::from(Operation::Delete) {
        relationship = bare(relationship);
        Operation::Delete
    } else {
        if let Some(caveat) = &mut relationship.optional_caveat {
            caveat.context.get_or_insert_default();
        }
        Operation::Touch
    };
    RelationshipUpdate {
        operation: operation.into(),
        relationship: Some(relationship),
    }
}
