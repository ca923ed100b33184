//! TOUCHes that a server may acknowledge and skip: see [`touch`].

use std::sync::atomic::Ordering;

use authzed::Written;
use authzed::v1::{Relationship, relationship_update::Operation};
use spice_cli::{CommandError, lock};

use super::{Item, Outcome, Policy, Stage, WriteEngine};
use crate::lookup::key;
use crate::server::{Layout, Server};
use crate::touch::{self, Skips};

impl<S: Server> WriteEngine<S> {
    /// Whether the server may skip TOUCHes, as far as that is known yet.
    pub fn may_skip_touches(&self) -> bool {
        lock(&self.skips).is_some_and(|skips| skips != Skips::Nothing)
    }

    /// Whether a call of these updates has to have a CREATE in place of a TOUCH that the server may
    /// skip, as far as that is known yet: a CREATE is done, or refused because something is there.
    pub(super) fn has_skippable_touches<P: Policy>(&self, policy: &P, items: &[P::Item]) -> bool {
        let skips = (*lock(&self.skips)).unwrap_or(Skips::Nothing);
        let is_skippable = |item: &P::Item| self.may_be_skipped(skips, policy, item);
        items.iter().any(is_skippable)
    }

    /// The operation of an update in a call with CREATEs.
    pub(super) fn operation_with_creates<P: Policy>(
        &self,
        policy: &P,
        item: &P::Item,
    ) -> Operation {
        let skips = (*lock(&self.skips)).unwrap_or(Skips::Nothing);
        match self.may_be_skipped(skips, policy, item) {
            true => Operation::Create,
            false => policy.operation(item),
        }
    }

    /// Of updates that were acknowledged, those that may not have been done.
    pub(super) fn unconfirmed<P: Policy>(
        &self,
        policy: &P,
        items: &[P::Item],
        written: &Written,
        were_creates: bool,
    ) -> Vec<P::Item> {
        let skips = Skips::of(self.server().keeps_expiry(), written);
        *lock(&self.skips) = Some(skips);
        let unconfirmed = items
            .iter()
            .filter(|item| !were_creates && self.may_be_skipped(skips, policy, item));
        unconfirmed.cloned().collect()
    }

    /// Whatever the schema is now: what expired under one before it is in the way until it is collected.
    fn may_be_skipped<P: Policy>(&self, skips: Skips, policy: &P, item: &P::Item) -> bool {
        policy.operation(item) == Operation::Touch
            && item
                .relationship()
                .is_some_and(|relationship| skips.may_hold(relationship))
    }

    /// Reads the TOUCHes of an outcome that the server may have skipped. Those that it has skipped are
    /// deleted, written again, and read once more.
    ///
    /// # Errors
    ///
    /// The server's; exit 1 where they have another expiry even then.
    pub async fn verify_touches<P: Policy>(
        &self,
        policy: &P,
        layout: Layout,
        mut outcome: Outcome<P::Item>,
    ) -> Result<Outcome<P::Item>, CommandError> {
        let unconfirmed = std::mem::take(&mut outcome.unconfirmed);
        let skipped = self.skipped(unconfirmed, layout).await?;
        if skipped.is_empty() {
            return Ok(outcome);
        }
        self.report_skipped(&skipped);
        let mut refused = 0;
        // Few at a time: between two of these calls they are not there.
        for items in skipped.chunks(self.setting().size) {
            let deleted = self
                .call(policy, items, Stage::DeleteSkipped, false)
                .await?;
            outcome.add(deleted);
            let touched = self.call(policy, items, Stage::WriteSkipped, false).await;
            let touched = touched.map_err(|failure| touch::only_deleted(failure, &named(items)))?;
            refused += touched.refused;
            outcome.add(touched);
        }
        outcome.unconfirmed.clear();
        let skipped = self.skipped(skipped, layout).await?;
        // What was refused on its way back is named, and no longer there.
        if skipped.len() as u64 <= refused {
            return Ok(outcome);
        }
        Err(touch::still_undone(skipped.len(), &named(&skipped)))
    }

    /// Those of which another expiry is read than was written.
    async fn skipped<T: Item>(
        &self,
        mut items: Vec<T>,
        layout: Layout,
    ) -> Result<Vec<T>, CommandError> {
        let touched: Vec<&Relationship> = items.iter().filter_map(Item::relationship).collect();
        if touched.is_empty() {
            return Ok(Vec::new());
        }
        let server = self.server();
        let there = server.lookup(&touched, layout, self.max_retries).await??;
        let undone = touch::undone(&touched, &there);
        items.retain(|item| {
            let relationship = item.relationship();
            relationship.is_some_and(|relationship| undone.contains(&key(relationship)))
        });
        Ok(items)
    }

    fn report_skipped<T: Item>(&self, skipped: &[T]) {
        let count = skipped.len() as u64;
        if self.skipped.fetch_add(count, Ordering::Relaxed) == 0 {
            tracing::warn!("{}: {}", touch::UNDONE, named(skipped));
        } else {
            tracing::info!("{count} more touches were not done: {}", named(skipped));
        }
    }
}

fn named<T: Item>(items: &[T]) -> String {
    let relationships: Vec<&Relationship> = items.iter().filter_map(Item::relationship).collect();
    touch::named(relationships.into_iter())
}
