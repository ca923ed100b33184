//! Ambiguous writes: their end is unknown, and they may still be applied.
//!
//! A call that was given up can be applied later, after its repetition and after later updates of the
//! same relationships: a proxy may hold its bytes, the memory datastore lets it wait. So its
//! relationships are remembered, read again when it cannot be in flight any more, and written again
//! where they are not as they must be.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use authzed::v1::{Relationship, RelationshipUpdate, relationship_update::Operation};
use spice_cli::CommandError;
use spice_client::lookup::key;
use spice_client::server::{Layout, Server};
use spice_record::ExpiryPrecision;
use spice_record::digest::equal_at_precision;
use spice_record::relationship::DisplayRelationship;
use tokio::time::Instant;

/// When a server or a proxy has let go of what a client gave up.
pub(crate) const AMBIGUITY_WINDOW: Duration = Duration::from_secs(30);

/// The relationships of ambiguous writes, as they must be.
#[derive(Default)]
pub(crate) struct AmbiguousWrites {
    relationships: HashMap<Vec<u8>, AmbiguousWrite>,
    /// A write of a schema is ambiguous as well, until then.
    schema_until: Option<Instant>,
}

struct AmbiguousWrite {
    update: RelationshipUpdate,
    until: Instant,
}

impl AmbiguousWrites {
    /// Whether a relationship is among them.
    pub(crate) fn has_relationships(&self) -> bool {
        !self.relationships.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.relationships.is_empty() && self.schema_until.is_none()
    }

    /// The end of a write of a schema is unknown.
    pub(crate) fn note_schema(&mut self) {
        self.schema_until = Some(Instant::now() + AMBIGUITY_WINDOW);
    }

    /// Whether to read the schema: no ambiguous write of one can be applied any more.
    pub(crate) fn schema_is_due(&self) -> bool {
        self.schema_until
            .is_some_and(|until| until <= Instant::now())
    }

    /// The schema was read then and is right, unless another write of it was ambiguous since.
    pub(crate) fn settle_schema_until(&mut self, looked: Instant) {
        self.schema_until = self.schema_until.filter(|until| *until > looked);
    }

    /// The end of a call with these updates is unknown.
    pub(crate) fn note(&mut self, updates: &[RelationshipUpdate]) {
        let until = Instant::now() + AMBIGUITY_WINDOW;
        for update in updates {
            if let Some(relationship) = &update.relationship {
                let update = update.clone();
                self.relationships
                    .insert(key(relationship), AmbiguousWrite { update, until });
            }
        }
    }

    /// These were acknowledged: the target must be as they require.
    pub(crate) fn acknowledged(&mut self, updates: &[RelationshipUpdate]) {
        for update in updates {
            let key = update.relationship.as_ref().map(key);
            if let Some(write) = key.and_then(|key| self.relationships.get_mut(&key)) {
                write.update.clone_from(update);
            }
        }
    }

    /// When all of them can be read: none can be applied late any more.
    pub(crate) fn settled_at(&self) -> Option<Instant> {
        let relationships = self.relationships.values().map(|write| write.until);
        relationships.chain(self.schema_until).max()
    }

    /// What must be there of the ones that have settled.
    pub(crate) fn due(&self) -> Vec<RelationshipUpdate> {
        let now = Instant::now();
        let due = self
            .relationships
            .values()
            .filter(|write| write.until <= now);
        due.map(|write| write.update.clone()).collect()
    }

    /// These were read then and are right now, except for those that became ambiguous again since.
    pub(crate) fn settle_until(&mut self, updates: &[RelationshipUpdate], looked: Instant) {
        for relationship in updates
            .iter()
            .filter_map(|update| update.relationship.as_ref())
        {
            let key = key(relationship);
            if self
                .relationships
                .get(&key)
                .is_some_and(|write| write.until <= looked)
            {
                self.relationships.remove(&key);
            }
        }
    }

    /// This one, whose end may be unknown, is not there now. Another one of the same relationship may be applied late.
    pub(crate) fn settle_one(&mut self, update: &RelationshipUpdate) {
        if let Some(key) = update.relationship.as_ref().map(key)
            && self
                .relationships
                .get(&key)
                .is_some_and(|write| write.update == *update)
        {
            self.relationships.remove(&key);
        }
    }

    /// These are not there, and never will be.
    pub(crate) fn settle(&mut self, updates: &[RelationshipUpdate]) {
        for relationship in updates
            .iter()
            .filter_map(|update| update.relationship.as_ref())
        {
            self.relationships.remove(&key(relationship));
        }
    }
}

/// Reads the relationships of updates; returns those that the target does not hold as they require,
/// because a write that had been given up was applied late.
///
/// # Errors
///
/// The target's.
pub(crate) async fn applied_late<S: Server>(
    server: &S,
    updates: &[RelationshipUpdate],
    max_retries: usize,
    precision: ExpiryPrecision,
) -> Result<Vec<RelationshipUpdate>, CommandError> {
    let wrong = differing(server, updates, max_retries, precision).await?;
    for relationship in wrong
        .iter()
        .filter_map(|update| update.relationship.as_ref())
    {
        tracing::warn!(
            "{}: a write that had been given up was applied late; writing the right state again",
            DisplayRelationship(relationship)
        );
    }
    Ok(wrong)
}

/// Reads the relationships of updates; returns those that the target does not hold as they require.
///
/// # Errors
///
/// The target's.
pub(crate) async fn differing<S: Server>(
    server: &S,
    updates: &[RelationshipUpdate],
    max_retries: usize,
    precision: ExpiryPrecision,
) -> Result<Vec<RelationshipUpdate>, CommandError> {
    let wanted: Vec<&Relationship> = updates
        .iter()
        .filter_map(|update| update.relationship.as_ref())
        .collect();
    let there = server.lookup(&wanted, Layout::Few, max_retries).await??;
    let is_wrong = |update: &&RelationshipUpdate| {
        let Some(must) = &update.relationship else {
            return false;
        };
        let deleted = update.operation() == Operation::Delete;
        !match there.get(&key(must)) {
            None => deleted || has_expired(must),
            Some(is) => !deleted && equal_at_precision(must, is, precision),
        }
    };
    Ok(updates.iter().filter(is_wrong).cloned().collect())
}

fn has_expired(relationship: &Relationship) -> bool {
    let Some(expiry) = &relationship.optional_expires_at else {
        return false;
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.is_ok_and(|now| i64::try_from(now.as_secs()).is_ok_and(|now| expiry.seconds <= now + 1))
}

#[cfg(test)]
mod tests;
