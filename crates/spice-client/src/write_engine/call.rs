//! One call: repeated, bisected, made smaller, until it is known what became of each update.

use std::collections::VecDeque;

use authzed::v1::{RelationshipUpdate, WriteRelationshipsRequest, relationship_update::Operation};
use authzed::{Error, Kind};
use spice_cli::CommandError;
use tokio::time::Instant;

use super::splitting::AfterRefusal;
use super::{AfterAmbiguous, Item, Outcome, Policy, Stage, WriteEngine, is_late};
use crate::lookup::bare;
use crate::retry::Retry;
use crate::server::Server;

/// Why the updates of a call are not written.
enum NotDone {
    /// The server refuses at least one of them.
    Refused(Error),
    /// They were too many for the time it has: from now on calls are smaller.
    TooSlow,
}

impl<S: Server> WriteEngine<S> {
    /// Writes updates with one call, or more where the server takes fewer or refuses some. `is_paced`: the
    /// first one has had its turn.
    pub(super) async fn call<P: Policy>(
        &self,
        policy: &P,
        items: &[P::Item],
        stage: Stage,
        mut is_paced: bool,
    ) -> Result<Outcome<P::Item>, CommandError> {
        let mut outcome = Outcome::default();
        let mut parts = VecDeque::from([items]);
        // A refused one is being searched.
        let mut is_searching = false;
        while let Some(part) = parts.pop_front() {
            // Other calls may have learned it meanwhile.
            let limit = self.sizing.limit();
            if part.len() > limit {
                let (first, rest) = part.split_at(limit);
                parts.push_front(rest);
                parts.push_front(first);
                continue;
            }
            let error = match self
                .attempt(policy, part, stage, is_searching, &mut is_paced)
                .await?
            {
                Ok(answer) => {
                    policy.acknowledged(part, stage);
                    outcome.add(answer);
                    continue;
                }
                Err(NotDone::TooSlow) => {
                    parts.push_front(part);
                    continue;
                }
                Err(NotDone::Refused(error)) => error,
            };
            match self.sizing.after_refusal(part.len(), &error) {
                AfterRefusal::Smaller => parts.push_front(part),
                AfterRefusal::Halve => {
                    is_searching = true;
                    let (first, rest) = part.split_at(part.len() / 2);
                    parts.push_front(rest);
                    parts.push_front(first);
                }
                AfterRefusal::Single => {
                    for item in part {
                        policy.refused(item, stage, &error)?;
                        outcome.refused += 1;
                    }
                }
            }
        }
        Ok(outcome)
    }

    /// One call, repeated while its failure is a passing one; returns, inside, that it lies with the
    /// updates.
    async fn attempt<P: Policy>(
        &self,
        policy: &P,
        items: &[P::Item],
        stage: Stage,
        is_searching: bool,
        is_paced: &mut bool,
    ) -> Result<Result<Outcome<P::Item>, NotDone>, CommandError> {
        let mut with_creates = policy.tries_create()
            && stage != Stage::DeleteSkipped
            && self.has_skippable_touches(policy, items);
        let mut retry = Retry::new(self.max_retries);
        let mut row_errors = self.row_error_test(items.len(), is_searching);
        loop {
            if !std::mem::take(is_paced) {
                self.pace().await;
            }
            let update = |item: &P::Item| {
                let operation = match with_creates {
                    true => self.operation_with_creates(policy, item),
                    false => policy.operation(item),
                };
                update(item, operation, stage)
            };
            let request = WriteRelationshipsRequest {
                updates: items.iter().filter_map(update).collect(),
                optional_transaction_metadata: policy.metadata().cloned(),
                ..WriteRelationshipsRequest::default()
            };
            let (server, began) = (self.server(), Instant::now());
            let error = match self.in_flight(server.write(request)).await {
                Ok(written) => {
                    self.sizing.acknowledged(items.len(), began.elapsed());
                    row_errors.succeeded();
                    let unconfirmed = match stage {
                        Stage::DeleteSkipped => Vec::new(),
                        _ => self.unconfirmed(policy, items, &written, with_creates),
                    };
                    return Ok(Ok(Outcome {
                        calls: 1,
                        token: Some(written.token),
                        refused: 0,
                        unconfirmed,
                    }));
                }
                Err(error) => error,
            };
            if with_creates && error.kind() == Kind::AlreadyExists {
                with_creates = false;
                continue;
            }
            let is_late = is_late(&error, began.elapsed());
            if !is_late && row_errors.is_row_error(&server, &error).await {
                return Ok(Err(NotDone::Refused(error)));
            }
            let is_ambiguous = error.is_ambiguous_for_writes();
            let after = match is_ambiguous {
                true => policy.ambiguous(items, stage)?,
                false => AfterAmbiguous::default(),
            };
            if after.reconnect {
                self.reconnect();
            }
            if is_late && let Some(size) = self.sizing.too_slow(items.len()) {
                tracing::warn!(
                    "a call of {} updates takes too long: {error}; from now on calls have at most {size}",
                    items.len()
                );
                tokio::time::sleep(after.wait).await;
                return Ok(Err(NotDone::TooSlow));
            }
            if let Err(failure) = retry.pause(error, "writing again").await {
                if is_ambiguous {
                    policy.abandoned(items, stage);
                }
                return Err(failure.context(format!("a call of size {}", items.len())));
            }
            if !after.wait.is_zero() {
                tokio::time::sleep(after.wait).await;
            }
        }
    }
}

fn update<T: Item>(item: &T, operation: Operation, stage: Stage) -> Option<RelationshipUpdate> {
    let relationship = item.relationship()?.clone();
    let (operation, relationship) = match stage {
        Stage::DeleteSkipped => (Operation::Delete, bare(relationship)),
        _ => (operation, relationship),
    };
    Some(RelationshipUpdate {
        operation: operation.into(),
        relationship: Some(relationship),
    })
}
