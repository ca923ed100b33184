//! `--dry-run`: reads the stream to its end, and what the target holds of it.

use std::fmt;

use spice_cli::progress::Progress;
use spice_cli::{CommandError, Exit};
use spice_client::lookup;
use spice_client::lookup::key;
use spice_record::digest::equal_at_precision;
use tokio::sync::mpsc;

use crate::chunk::{Chunk, Row};
use crate::input::{Step, Totals};
use crate::tally::conflict;
use crate::target::Target;
use crate::{OnConflict, lost, next};

pub(crate) struct DryRun<'a> {
    /// One that may hold relationships.
    target: Option<&'a Target>,
    on_conflict: OnConflict,
    progress: &'a Progress,
    found: Found,
}

/// Counts of relationships of the stream by what the target holds under their names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    alike: u64,
    otherwise: u64,
    absent: u64,
    /// The target cannot look for one with such an id.
    refused: u64,
}

impl<'a> DryRun<'a> {
    pub(crate) fn new(
        target: Option<&'a Target>,
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
                    if let Some(target) = self.target {
                        self.look_for(target, &chunk).await?;
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

    async fn look_for(&mut self, target: &Target, chunk: &Chunk) -> Result<(), CommandError> {
        let mut rows = chunk.rows()?;
        if !target.client.offers().expiry {
            let before = rows.len();
            rows.retain(|row| row.relationship.optional_expires_at.is_none());
            self.found.refused += (before - rows.len()) as u64;
        }
        let mut pieces = vec![rows.as_slice()];
        while let Some(rows) = pieces.pop() {
            let wanted: Vec<_> = rows.iter().map(|row| &row.relationship).collect();
            let retries = target.connection.max_retries;
            let there = match lookup::read(&target.client, &wanted, retries).await? {
                Ok(there) => there,
                Err(error) => {
                    if let [row] = rows {
                        tracing::warn!("line {}: would be refused: {}", row.line, error.message());
                        self.found.refused += 1;
                    } else {
                        let (first, rest) = rows.split_at(rows.len() / 2);
                        pieces.extend([rest, first]);
                    }
                    continue;
                }
            };
            for row in rows {
                let Some(relationship) = there.get(&key(&row.relationship)) else {
                    self.found.absent += 1;
                    continue;
                };
                if equal_at_precision(&row.relationship, relationship, target.precision()) {
                    self.found.alike += 1;
                    continue;
                }
                self.found.otherwise += 1;
                if self.on_conflict == OnConflict::Fail {
                    let relationship = relationship.clone();
                    return Err(conflict(
                        row,
                        &Row {
                            line: 0,
                            relationship,
                        },
                    ));
                }
            }
        }
        Ok(())
    }

    fn report(&self, totals: &Totals) -> Exit {
        let Totals {
            relationships,
            digest,
            precision,
            verified,
            ..
        } = totals;
        let proved = match verified {
            true => "whole",
            false => "well formed, but nothing proves it whole",
        };
        tracing::info!(
            "the stream is {proved}: {relationships} relationships, digest {digest} ({precision}); nothing \
             was written"
        );
        let Some(target) = self.target else {
            return Exit::Done;
        };
        let endpoint = target.connection.endpoint();
        let (found, policy) = (&self.found, self.on_conflict);
        tracing::info!(
            "of these {}; what {endpoint} holds beside them is not looked for: spice-diff compares both ways",
            Plan(found, policy)
        );
        match (policy, found) {
            (_, Found { refused: 1.., .. }) | (OnConflict::Skip, Found { otherwise: 1.., .. }) => {
                Exit::Partial
            }
            _ => Exit::Done,
        }
    }
}

/// What an import would do, in words.
struct Plan<'a>(&'a Found, OnConflict);

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(found, policy) = self;
        let would = match policy {
            OnConflict::Touch => "be touched",
            OnConflict::Skip => "be skipped",
            OnConflict::Fail => "stop the import",
        };
        write!(
            f,
            "the target holds {} alike and {} otherwise, which would {would}; {} are absent and would be loaded",
            found.alike, found.otherwise, found.absent
        )?;
        if found.refused > 0 {
            write!(f, "; {} would be refused", found.refused)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, Plan};
    use crate::OnConflict;

    #[test]
    fn plan_says_what_becomes_of_each_kind() {
        let mut found = Found {
            alike: 5,
            otherwise: 2,
            absent: 3,
            refused: 0,
        };
        let text = Plan(&found, OnConflict::Touch).to_string();
        assert_eq!(
            text,
            "the target holds 5 alike and 2 otherwise, which would be touched; 3 are absent and would be loaded"
        );
        found.refused = 1;
        let text = Plan(&found, OnConflict::Skip).to_string();
        assert!(
            text.contains("2 otherwise, which would be skipped"),
            "{text}"
        );
        assert!(text.ends_with("; 1 would be refused"), "{text}");
    }
}
