//! Writes whose end is not known, and may still come.
//!
//! A call that was given up can be applied later, after its repetition and after later updates of the
//! same relationships: a proxy may hold its bytes, the memory datastore lets it wait. So its
//! relationships are remembered, read again when nothing of it can be under way any more, and written
//! again where they are not as they were left.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use authzed::Client;
use authzed::v1::{Consistency, Relationship, RelationshipUpdate, relationship_update::Operation};
use spice_cli::CommandError;
use spice_client::lookup;
use spice_client::lookup::key;
use spice_record::ExpiryPrecision;
use spice_record::digest::equal_at_precision;
use spice_record::relationship::DisplayRelationship;
use tokio::time::Instant;

/// When a server or a proxy has let go of what a client gave up.
pub(crate) const AMBIGUITY_WINDOW: Duration = Duration::from_secs(30);

/// The relationships in doubt, as they must be.
#[derive(Default)]
pub(crate) struct AmbiguousWrites {
    relationships: HashMap<Vec<u8>, AmbiguousWrite>,
    /// A write of a schema is in doubt as well, until then.
    schema_until: Option<Instant>,
}

struct AmbiguousWrite {
    update: RelationshipUpdate,
    until: Instant,
}

impl AmbiguousWrites {
    pub(crate) fn is_empty(&self) -> bool {
        self.relationships.is_empty() && self.schema_until.is_none()
    }

    /// The end of a write of a schema is not known.
    pub(crate) fn note_schema(&mut self) {
        self.schema_until = Some(Instant::now() + AMBIGUITY_WINDOW);
    }

    /// Whether to look at the schema: no write of one can come any more.
    pub(crate) fn schema_is_due(&self) -> bool {
        self.schema_until
            .is_some_and(|until| until <= Instant::now())
    }

    /// The schema was looked at then, and is right, unless it came into doubt again since.
    pub(crate) fn settle_schema_until(&mut self, looked: Instant) {
        self.schema_until = self.schema_until.filter(|until| *until > looked);
    }

    /// The end of a call with these updates is not known.
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

    /// These were acknowledged: what must be there is what they say.
    pub(crate) fn acknowledged(&mut self, updates: &[RelationshipUpdate]) {
        if self.relationships.is_empty() {
            return;
        }
        for update in updates {
            let doubt = update.relationship.as_ref().map(key);
            if let Some(doubt) = doubt.and_then(|key| self.relationships.get_mut(&key)) {
                doubt.update.clone_from(update);
            }
        }
    }

    /// When the last of them can be looked at.
    pub(crate) fn settled_at(&self) -> Option<Instant> {
        let relationships = self.relationships.values().map(|doubt| doubt.until);
        relationships.chain(self.schema_until).max()
    }

    /// What must be there of the ones that have settled.
    pub(crate) fn due(&self) -> Vec<RelationshipUpdate> {
        let now = Instant::now();
        let due = self
            .relationships
            .values()
            .filter(|doubt| doubt.until <= now);
        due.map(|doubt| doubt.update.clone()).collect()
    }

    /// These were looked at then, and are right now, but for those that came into doubt again since.
    pub(crate) fn settle_until(&mut self, updates: &[RelationshipUpdate], looked: Instant) {
        for relationship in updates
            .iter()
            .filter_map(|update| update.relationship.as_ref())
        {
            let key = key(relationship);
            if self
                .relationships
                .get(&key)
                .is_some_and(|doubt| doubt.until <= looked)
            {
                self.relationships.remove(&key);
            }
        }
    }

    /// These are known not to be there, and never will be.
    pub(crate) fn settle(&mut self, updates: &[RelationshipUpdate]) {
        for relationship in updates
            .iter()
            .filter_map(|update| update.relationship.as_ref())
        {
            self.relationships.remove(&key(relationship));
        }
    }
}

/// Reads the relationships of updates; gives back those that the target does not hold as they say, for a
/// write that was given up was applied late.
///
/// # Errors
///
/// The target's.
pub(crate) async fn wrong(
    client: &Client,
    updates: &[RelationshipUpdate],
    max_retries: usize,
    precision: ExpiryPrecision,
) -> Result<Vec<RelationshipUpdate>, CommandError> {
    let wrong = differing(client, updates, max_retries, precision).await?;
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

/// Reads the relationships of updates; gives back those that the target does not hold as they say.
///
/// # Errors
///
/// The target's.
pub(crate) async fn differing(
    client: &Client,
    updates: &[RelationshipUpdate],
    max_retries: usize,
    precision: ExpiryPrecision,
) -> Result<Vec<RelationshipUpdate>, CommandError> {
    let wanted: Vec<&Relationship> = updates
        .iter()
        .filter_map(|update| update.relationship.as_ref())
        .collect();
    let newest = Consistency::fully_consistent();
    let there = lookup::read_few(client, &wanted, newest, max_retries).await??;
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
