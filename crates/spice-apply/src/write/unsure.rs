//! TOUCHes that a target may have acknowledged and not done: see [`touch`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use authzed::v1::{Relationship, RelationshipUpdate, relationship_update::Operation};
use authzed::{Kind, JsonObject};
use spice_pipe::existing::{self, key};
use spice_pipe::retry::Retry;
use spice_pipe::touch::{self, Expiring, Skips};
use spice_pipe::{Exit, Failure, lock};
use spice_record::relationship::Text;

use super::{SPLIT_PER_CALL, Target, Written};

/// Which relations of the target can hold an expiry, as far as that had to be known.
#[derive(Default)]
pub(super) struct Schemas {
    relations: Option<Arc<Expiring>>,
    is_newest: bool,
}

impl Target {
    /// The schema of the target may be another one now.
    pub(crate) fn forget_schema(&self) {
        lock(&self.schemas).is_newest = false;
    }

    /// Of updates that were acknowledged, those that may not have been done.
    pub(super) async fn unsure(
        &self,
        answer: &authzed::Written,
        updates: &[RelationshipUpdate],
    ) -> Result<Vec<RelationshipUpdate>, Failure> {
        let skips = Skips::of(answer);
        let may_be_skipped = |update: &&RelationshipUpdate| {
            let relationship = update.relationship.as_ref();
            update.operation() == Operation::Touch
                && relationship.is_some_and(|relationship| skips.may_hold(relationship))
        };
        let mut unsure = updates.iter().filter(may_be_skipped).peekable();
        if unsure.peek().is_none() {
            return Ok(Vec::new());
        }
        let expiring = self.expiring().await?;
        let can_expire = |update: &&RelationshipUpdate| {
            let relationship = update.relationship.as_ref();
            relationship.is_some_and(|relationship| expiring.holds(relationship))
        };
        Ok(unsure.filter(can_expire).cloned().collect())
    }

    /// Which relations can hold an expiry, or could under a schema that was read before.
    async fn expiring(&self) -> Result<Arc<Expiring>, Failure> {
        let before = {
            let schemas = lock(&self.schemas);
            match &schemas.relations {
                Some(relations) if schemas.is_newest => return Ok(Arc::clone(relations)),
                before => before.clone(),
            }
        };
        let mut retry = Retry::new(self.max_retries);
        let now = loop {
            match self.client().read_schema().await {
                Ok(schema) => {
                    break Expiring::of(schema.as_ref().map_or("", |schema| &schema.text));
                }
                // A token that may write relationships only.
                Err(error) if error.kind() == Kind::Denied => break Expiring::Any,
                Err(error) => {
                    retry
                        .pause(error, "reading the target's schema again")
                        .await?;
                }
            }
        };
        let relations = Arc::new(match before {
            Some(before) => before.or(&now),
            None => now,
        });
        *lock(&self.schemas) = Schemas {
            relations: Some(Arc::clone(&relations)),
            is_newest: true,
        };
        Ok(relations)
    }

    /// Reads what is unsure; deletes what was not done, writes it again, and reads that.
    pub(super) async fn made_sure(
        &self,
        mut written: Written,
        metadata: Option<&JsonObject>,
        of: &str,
    ) -> Result<Written, Failure> {
        let unsure = std::mem::take(&mut written.unsure);
        let undone = self.undone(&unsure).await?;
        if undone.is_empty() {
            return Ok(written);
        }
        self.say_undone(&undone);
        // Few at a time: between two of these calls they are not there.
        for touches in undone.chunks(SPLIT_PER_CALL) {
            let deletes: Vec<RelationshipUpdate> = touches.iter().map(delete).collect();
            self.call(&deletes, metadata, of, &mut written).await?;
            let touched = self.call(touches, metadata, of, &mut written).await;
            touched.map_err(|failure| {
                failure.context(format!(
                    "deleted, to write them with another expiry, and not written yet: {}",
                    named(touches)
                ))
            })?;
        }
        written.unsure.clear();
        let undone = self.undone(&undone).await?;
        if undone.is_empty() {
            return Ok(written);
        }
        Err(Failure::new(
            Exit::Failed,
            format!(
                "{of}: {} relationships have another expiry on the target, though they were written again: {}",
                undone.len(),
                named(&undone)
            ),
        )
        .hint("somebody else writes to the target: find out who, then run the same command again"))
    }

    async fn undone(
        &self,
        touches: &[RelationshipUpdate],
    ) -> Result<Vec<RelationshipUpdate>, Failure> {
        let touched: Vec<&Relationship> = relationships(touches).collect();
        if touched.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.client();
        let there = existing::read_scattered(&client, &touched, self.max_retries).await??;
        let undone = touch::undone(&touched, &there);
        let is_undone = |update: &&RelationshipUpdate| {
            let relationship = update.relationship.as_ref();
            relationship.is_some_and(|relationship| undone.contains(&key(relationship)))
        };
        Ok(touches.iter().filter(is_undone).cloned().collect())
    }

    fn say_undone(&self, undone: &[RelationshipUpdate]) {
        let count = undone.len() as u64;
        if self.undone.fetch_add(count, Ordering::Relaxed) == 0 {
            tracing::warn!("{}: {}", touch::UNDONE, named(undone));
        } else {
            tracing::info!("{count} more touches were not done: {}", named(undone));
        }
    }
}

fn delete(touch: &RelationshipUpdate) -> RelationshipUpdate {
    let mut delete = touch.clone();
    delete.operation = Operation::Delete.into();
    if let Some(relationship) = &mut delete.relationship {
        relationship.optional_caveat = None;
        relationship.optional_expires_at = None;
    }
    delete
}

fn relationships(updates: &[RelationshipUpdate]) -> impl Iterator<Item = &Relationship> {
    let relationships = updates.iter().map(|update| update.relationship.as_ref());
    relationships.flatten()
}

/// The first of them.
fn named(updates: &[RelationshipUpdate]) -> String {
    const NAMED: usize = 5;
    let first = relationships(updates).take(NAMED);
    let mut named: Vec<String> = first.map(|one| Text(one).to_string()).collect();
    if updates.len() > NAMED {
        named.push(format!("and {} more", updates.len() - NAMED));
    }
    named.join(", ")
}
