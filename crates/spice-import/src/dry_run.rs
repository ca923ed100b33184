//! `--dry-run`: reads the stream to its end, and looks up what the target holds of it.

use std::fmt;

use authzed::v1::Relationship;
use spice_cli::progress::Progress;
use spice_cli::{CommandError, Exit};
use spice_client::lookup::{ByKey, key};
use spice_client::server::{Layout, Server};
use spice_record::ExpiryPrecision;
use spice_record::digest::equal_at_precision;
use tokio::sync::mpsc;

use crate::chunk::{Chunk, Row};
use crate::input::{Step, Totals};
use crate::rejects::conflict;
use crate::{OnConflict, lost, next};

/// A target that may hold relationships.
#[derive(Clone)]
pub(crate) struct Occupied<S> {
    pub(crate) server: S,
    pub(crate) endpoint: String,
    pub(crate) max_retries: usize,
    /// How precisely it keeps expiries.
    pub(crate) precision: ExpiryPrecision,
}

pub(crate) struct DryRun<'a, S> {
    target: Option<Occupied<S>>,
    on_conflict: OnConflict,
    progress: &'a Progress,
    found: Found,
}

/// Counts of relationships of the stream by what the target holds under their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    equal: u64,
    different: u64,
    absent: u64,
    /// The target cannot look for one with such an id.
    refused: u64,
}

impl<'a, S: Server> DryRun<'a, S> {
    pub(crate) fn new(
        target: Option<Occupied<S>>,
        on_conflict: OnConflict,
        progress: &'a Progress,
    ) -> Self {
        Self {
            target,
            on_conflict,
            progress,
            found: Found::default(),
        }
    }

    /// Exit 3 where the import would skip or refuse some.
    pub(crate) async fn run(
        mut self,
        first: Step,
        mut steps: mpsc::Receiver<Step>,
    ) -> Result<Exit, CommandError> {
        let mut first = Some(first);
        loop {
            match next(&mut first, &mut steps).await {
                Some(Step::Chunk(chunk)) => {
                    self.progress.add(chunk.len() as u64);
                    if let Some(target) = &self.target {
                        let found = look_for(target, &chunk, self.on_conflict).await?;
                        self.found.add(&found);
                    }
                }
                Some(Step::End(totals)) => {
                    self.progress.clear();
                    return Ok(self.report(&totals));
                }
                Some(Step::Failed(failure)) => return Err(failure),
                Some(Step::Header(_)) | None => return Err(lost()),
            }
        }
    }

    fn report(&self, totals: &Totals) -> Exit {
        let Totals {
            relationships,
            digest,
            precision,
            verified,
            ..
        } = totals;
        let verified = match verified {
            true => "complete",
            false => "well formed, but nothing proves that it is complete",
        };
        tracing::info!(
            "the stream is {verified}: {relationships} relationships, digest {digest} ({precision}); nothing \
             was written"
        );
        let Some(target) = &self.target else {
            return Exit::Done;
        };
        let endpoint = &target.endpoint;
        let (found, policy) = (&self.found, self.on_conflict);
        tracing::info!(
            "of these {}; what else {endpoint} holds was not read: spice-diff compares both ways",
            Plan(found, policy)
        );
        found.exit(policy)
    }
}

impl Found {
    fn add(&mut self, other: &Self) {
        self.equal += other.equal;
        self.different += other.different;
        self.absent += other.absent;
        self.refused += other.refused;
    }

    /// Exit 3 where the import would skip or refuse some.
    fn exit(&self, policy: OnConflict) -> Exit {
        match (policy, self) {
            (_, Self { refused: 1.., .. }) | (OnConflict::Skip, Self { different: 1.., .. }) => {
                Exit::Partial
            }
            _ => Exit::Done,
        }
    }
}

/// Counts the rows of a chunk by what the target holds under their keys.
async fn look_for<S: Server>(
    target: &Occupied<S>,
    chunk: &Chunk,
    policy: OnConflict,
) -> Result<Found, CommandError> {
    let mut found = Found::default();
    let mut rows = chunk.rows()?;
    if !target.server.keeps_expiry() {
        let before = rows.len();
        rows.retain(|row| row.relationship.optional_expires_at.is_none());
        found.refused += (before - rows.len()) as u64;
    }
    let mut pieces = vec![rows.as_slice()];
    while let Some(rows) = pieces.pop() {
        let wanted: Vec<_> = rows.iter().map(|row| &row.relationship).collect();
        let lookup = target
            .server
            .lookup(&wanted, Layout::Sorted, target.max_retries);
        match (lookup.await?, rows) {
            (Ok(there), rows) => found.add(&count(rows, &there, policy, target.precision)?),
            (Err(error), [row]) => {
                tracing::warn!("line {}: would be refused: {}", row.line, error.message());
                found.refused += 1;
            }
            (Err(_), rows) => {
                let (first, rest) = rows.split_at(rows.len() / 2);
                pieces.extend([rest, first]);
            }
        }
    }
    Ok(found)
}

fn count(
    rows: &[Row],
    there: &ByKey<Relationship>,
    policy: OnConflict,
    precision: ExpiryPrecision,
) -> Result<Found, CommandError> {
    let mut found = Found::default();
    for row in rows {
        match there.get(&key(&row.relationship)) {
            None => found.absent += 1,
            Some(there) if equal_at_precision(&row.relationship, there, precision) => {
                found.equal += 1;
            }
            Some(there) if policy == OnConflict::Fail => {
                return Err(conflict(row, &Row::of_target(there.clone())));
            }
            Some(_) => found.different += 1,
        }
    }
    Ok(found)
}

/// What an import would do, in words.
struct Plan<'a>(&'a Found, OnConflict);

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(found, policy) = self;
        let would = match policy {
            OnConflict::Touch => "be touched",
            OnConflict::Skip => "be skipped",
            OnConflict::Fail => "end the import",
        };
        write!(
            f,
            "the target holds {} equal and {} different, which would {would}; {} are absent and would be loaded",
            found.equal, found.different, found.absent
        )?;
        if found.refused > 0 {
            write!(f, "; {} would be refused", found.refused)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
