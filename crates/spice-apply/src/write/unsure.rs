//! TOUCHes that a target may have acknowledged and not done: see [`touch`].

use std::sync::atomic::Ordering;

use authzed::JsonObject;
use authzed::v1::{Relationship, RelationshipUpdate, relationship_update::Operation};
use spice_cli::{CommandError, lock};
use spice_client::lookup;
use spice_client::lookup::{bare, key};
use spice_client::touch;
use spice_client::touch::Skips;

use super::{SPLIT_PER_CALL, Target, Written};

/// A call that was acknowledged.
pub(super) struct Answer {
    pub(super) token: String,
    /// Updates that may not have been done.
    pub(super) unsure: Vec<RelationshipUpdate>,
}

impl Target {
    /// The same updates with a CREATE in place of each TOUCH that the target may skip, as far as that is
    /// known yet: a CREATE is done, or refused because something is there.
    pub(super) fn as_creates(
        &self,
        updates: &[RelationshipUpdate],
    ) -> Option<Vec<RelationshipUpdate>> {
        let skips = (*lock(&self.skips))?;
        if !updates.iter().any(|update| may_be_skipped(skips, update)) {
            return None;
        }
        let create = |update: &RelationshipUpdate| {
            let mut update = update.clone();
            if may_be_skipped(skips, &update) {
                update.operation = Operation::Create.into();
            }
            update
        };
        Some(updates.iter().map(create).collect())
    }

    /// What an answer to updates is worth.
    pub(super) fn answer(
        &self,
        written: authzed::Written,
        updates: &[RelationshipUpdate],
        were_creates: bool,
    ) -> Answer {
        let skips = Skips::of(self.client().offers().expiry, &written);
        *lock(&self.skips) = Some(skips);
        let unsure = updates
            .iter()
            .filter(|update| !were_creates && may_be_skipped(skips, update));
        Answer {
            token: written.token,
            unsure: unsure.cloned().collect(),
        }
    }

    /// Reads what is unsure; deletes what was not done, writes it again, and reads that.
    pub(super) async fn made_sure(
        &self,
        mut written: Written,
        metadata: Option<&JsonObject>,
        of: &str,
    ) -> Result<Written, CommandError> {
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
            touched.map_err(|failure| touch::only_deleted(failure, &named(touches)))?;
        }
        written.unsure.clear();
        let undone = self.undone(&undone).await?;
        if undone.is_empty() {
            return Ok(written);
        }
        Err(touch::still_undone(undone.len(), &named(&undone)).context(of))
    }

    async fn undone(
        &self,
        touches: &[RelationshipUpdate],
    ) -> Result<Vec<RelationshipUpdate>, CommandError> {
        let touched: Vec<&Relationship> = relationships(touches).collect();
        if touched.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.client();
        let there = lookup::read_scattered(&client, &touched, self.max_retries).await??;
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

/// Whatever the schema is now: what expired under one before it stands in the way until it is collected.
fn may_be_skipped(skips: Skips, update: &RelationshipUpdate) -> bool {
    let relationship = update.relationship.as_ref();
    update.operation() == Operation::Touch
        && relationship.is_some_and(|relationship| skips.may_hold(relationship))
}

fn delete(touch: &RelationshipUpdate) -> RelationshipUpdate {
    RelationshipUpdate {
        operation: Operation::Delete.into(),
        relationship: touch.relationship.clone().map(bare),
    }
}

fn relationships(updates: &[RelationshipUpdate]) -> impl Iterator<Item = &Relationship> {
    let relationships = updates.iter().map(|update| update.relationship.as_ref());
    relationships.flatten()
}

fn named(updates: &[RelationshipUpdate]) -> String {
    let undone: Vec<&Relationship> = relationships(updates).collect();
    touch::named(undone.into_iter())
}
