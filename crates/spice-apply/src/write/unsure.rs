//! TOUCHes that a target may have acknowledged and not done: see [`touch`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use authzed::v1::{Relationship, RelationshipUpdate, relationship_update::Operation};
use authzed::{JsonObject, Kind};
use spice_pipe::existing::{self, key};
use spice_pipe::retry::Retry;
use spice_pipe::touch::{self, Expiring, Skips};
use spice_pipe::{Exit, Failure, lock};
use spice_record::relationship::Text;

use super::{SPLIT_PER_CALL, Target, Written};

/// What was learned of the target.
#[derive(Default)]
pub(super) struct Learned {
    /// Which touches it may skip, by its last answer.
    skips: Option<Skips>,
    /// Which relations can hold an expiry, once that had to be known.
    relations: Option<Arc<Expiring>>,
    is_newest_schema: bool,
}

/// A call that was acknowledged.
pub(super) struct Answer {
    pub(super) token: String,
    /// Updates that may not have been done.
    pub(super) unsure: Vec<RelationshipUpdate>,
}

impl Target {
    /// The schema of the target may be another one now.
    pub(crate) fn forget_schema(&self) {
        lock(&self.learned).is_newest_schema = false;
    }

    /// The same updates with a CREATE in place of each TOUCH that the target may skip, as far as that is
    /// known yet: a CREATE is done, or refused because something is there.
    pub(super) async fn as_creates(
        &self,
        updates: &[RelationshipUpdate],
    ) -> Result<Option<Vec<RelationshipUpdate>>, Failure> {
        let skips = lock(&self.learned).skips.unwrap_or(Skips::Nothing);
        let unsure = self.unsure(skips, updates).await?;
        if unsure.is_empty() {
            return Ok(None);
        }
        let mut creates = updates.to_vec();
        for index in unsure {
            creates[index].operation = Operation::Create.into();
        }
        Ok(Some(creates))
    }

    /// What an answer to updates is worth.
    pub(super) async fn answer(
        &self,
        written: authzed::Written,
        updates: &[RelationshipUpdate],
        were_creates: bool,
    ) -> Result<Answer, Failure> {
        let skips = Skips::of(&written);
        lock(&self.learned).skips = Some(skips);
        let unsure = match were_creates {
            true => Vec::new(),
            false => self.unsure(skips, updates).await?,
        };
        let unsure = unsure.into_iter().map(|index| updates[index].clone());
        Ok(Answer {
            token: written.token,
            unsure: unsure.collect(),
        })
    }

    /// Where the updates stand that may be skipped.
    async fn unsure(
        &self,
        skips: Skips,
        updates: &[RelationshipUpdate],
    ) -> Result<Vec<usize>, Failure> {
        let may_be_skipped = |index: &usize| {
            let update = &updates[*index];
            let relationship = update.relationship.as_ref();
            update.operation() == Operation::Touch
                && relationship.is_some_and(|relationship| skips.may_hold(relationship))
        };
        let mut unsure: Vec<usize> = (0..updates.len()).filter(may_be_skipped).collect();
        if !unsure.is_empty() {
            let expiring = self.expiring().await?;
            unsure.retain(|index| {
                let relationship = updates[*index].relationship.as_ref();
                relationship.is_some_and(|relationship| expiring.holds(relationship))
            });
        }
        Ok(unsure)
    }

    /// Which relations can hold an expiry, or could under a schema that was read before.
    async fn expiring(&self) -> Result<Arc<Expiring>, Failure> {
        let before = {
            let learned = lock(&self.learned);
            match &learned.relations {
                Some(relations) if learned.is_newest_schema => return Ok(Arc::clone(relations)),
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
        let mut learned = lock(&self.learned);
        learned.relations = Some(Arc::clone(&relations));
        learned.is_newest_schema = true;
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
