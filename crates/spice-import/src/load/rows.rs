//! Rows that are written one way or the other: with WriteRelationships, which tells which of them the
//! target does not take.

use std::time::Duration;

use authzed::Kind;
use authzed::v1::{
    Relationship, RelationshipUpdate, WriteRelationshipsRequest, relationship_update::Operation,
};
use prost::Message as _;
use spice_cli::CommandError;
use spice_client::lookup;
use spice_client::lookup::{bare, key};
use spice_client::retry::Retry;
use spice_client::touch;
use spice_client::touch::Skips;

use super::{INTERNAL_RETRIES, Loader};
use crate::chunk::Row;
use crate::tally::Tally;

/// Databases plan larger calls badly: MariaDB 10.11 takes 2.5 to 3 s for one of 1,000 and 0.1 s for one of 200
/// (measured on 2 busy cores). A server's own limit, which is 1,000 unless it is told otherwise, is learned.
const UPDATES_PER_WRITE: usize = 200;
const TOO_MANY_UPDATES: &str = "TOO_MANY_UPDATES_IN_REQUEST";
const WRITE_BYTES: usize = 2 << 20;
/// When a server or a proxy has let go of what a client gave up.
const LATE: Duration = Duration::from_secs(30);
/// How many rows are deleted before they are written again: until then they are not there.
const REWRITTEN: usize = 200;

/// Rows of which more is to be known, or done.
#[derive(Default)]
pub(super) struct Left {
    /// They are there already, where that matters to the operation.
    in_the_way: Vec<Row>,
    /// Acknowledged by a target that may not have done it.
    unsure: Vec<Row>,
}

impl Loader {
    /// Creates rows of which nothing is to be seen on the target, though something is in the way of at
    /// least one of them: mostly a row that has expired and was not collected yet. No CREATE can replace
    /// that, only a TOUCH; and only that one row is touched, for somebody else may write at the same time.
    pub(super) async fn create(&self, rows: &[Row], tally: &mut Tally) -> Result<(), CommandError> {
        let left = self.write_all(rows, Operation::Create, tally).await?;
        for row in left.in_the_way {
            let row = std::slice::from_ref(&row);
            match self.resolve(row, tally).await? {
                Ok(absent) => self.touch(&absent, tally).await?,
                Err(error) => {
                    self.bisect(row.to_vec(), &error, 0, tally)?;
                }
            }
        }
        Ok(())
    }

    /// Touches rows that get an expiry, or lose one: what the target may have acknowledged without
    /// doing it is read, and deleted and written again where it was not done.
    pub(super) async fn touch(&self, rows: &[Row], tally: &mut Tally) -> Result<(), CommandError> {
        let left = self.write_all(rows, Operation::Touch, tally).await?;
        let undone = self.undone(left.unsure).await?;
        if undone.is_empty() {
            return Ok(());
        }
        tracing::warn!("{}: {}", touch::UNDONE, named(&undone));
        let mut rejected = 0;
        for rows in undone.chunks(REWRITTEN) {
            // They are counted as touched already.
            let mut counted = Tally::default();
            let delete = |row: &Row| Row {
                line: row.line,
                relationship: bare(row.relationship.clone()),
            };
            let deletes: Vec<Row> = rows.iter().map(delete).collect();
            self.write_all(&deletes, Operation::Delete, &mut counted)
                .await?;
            let touched = self.write_all(rows, Operation::Touch, &mut counted).await;
            touched.map_err(|failure| touch::only_deleted(failure, &named(rows)))?;
            tally.touched -= counted.rejected;
            tally.rejected += counted.rejected;
            rejected += counted.rejected;
        }
        let undone = self.undone(undone).await?;
        // What was refused on its way back is named, and no longer there.
        if undone.len() as u64 <= rejected {
            return Ok(());
        }
        Err(touch::still_undone(undone.len(), &named(&undone)))
    }

    async fn undone(&self, mut rows: Vec<Row>) -> Result<Vec<Row>, CommandError> {
        if rows.is_empty() {
            return Ok(rows);
        }
        let touched: Vec<&Relationship> = rows.iter().map(|row| &row.relationship).collect();
        let there = lookup::read(&self.client, &touched, self.max_retries).await??;
        let undone = touch::undone(&touched, &there);
        rows.retain(|row| undone.contains(&key(&row.relationship)));
        Ok(rows)
    }

    /// Writes rows in as few calls as the target allows.
    pub(super) async fn write_all(
        &self,
        rows: &[Row],
        operation: Operation,
        tally: &mut Tally,
    ) -> Result<Left, CommandError> {
        let mut left = Left::default();
        let mut limit = UPDATES_PER_WRITE;
        let mut pieces = vec![rows];
        while let Some(rows) = pieces.pop() {
            let bytes: usize = rows.iter().map(|row| row.relationship.encoded_len()).sum();
            if rows.len() > limit || (bytes > WRITE_BYTES && rows.len() > 1) {
                let (first, rest) = rows.split_at(limit.min(rows.len() / 2));
                pieces.extend([rest, first]);
                continue;
            }
            if rows.is_empty() {
                continue;
            }
            let error = match self.write(rows, operation, tally).await? {
                Ok(written) => {
                    match operation {
                        Operation::Create => tally.loaded += rows.len() as u64,
                        Operation::Touch => tally.touched += rows.len() as u64,
                        _ => {}
                    }
                    if operation == Operation::Touch {
                        let skips = Skips::of(self.client.offers().expiry, &written);
                        let unsure = rows.iter().filter(|row| skips.may_hold(&row.relationship));
                        left.unsure.extend(unsure.cloned());
                    }
                    continue;
                }
                Err(error) => error,
            };
            match rows {
                // Any other limit is of bytes, and is one row's fault.
                [_, _, ..] if error.reason() == Some(TOO_MANY_UPDATES) => {
                    let learned = error.limit().and_then(|limit| usize::try_from(limit).ok());
                    limit = learned.unwrap_or(1).clamp(1, rows.len() - 1);
                    pieces.push(rows);
                }
                [row] if error.kind() == Kind::AlreadyExists => left.in_the_way.push(row.clone()),
                [_] if operation == Operation::Delete => return Err(error.into()),
                [row] => self.reject(row, &error, tally)?,
                _ => {
                    let (first, rest) = rows.split_at(rows.len() / 2);
                    pieces.extend([rest, first]);
                }
            }
        }
        Ok(left)
    }

    /// One WriteRelationships; gives back, inside, an error that lies with the rows.
    async fn write(
        &self,
        rows: &[Row],
        operation: Operation,
        tally: &mut Tally,
    ) -> Result<Result<authzed::Written, authzed::Error>, CommandError> {
        let mut retry = Retry::new(self.max_retries);
        let mut internal_retries = INTERNAL_RETRIES;
        loop {
            let update = |row: &Row| RelationshipUpdate {
                operation: operation.into(),
                relationship: Some(row.relationship.clone()),
            };
            let request = WriteRelationshipsRequest {
                updates: rows.iter().map(update).collect(),
                ..WriteRelationshipsRequest::default()
            };
            let error = match self.client.write(request).await {
                Ok(written) => return Ok(Ok(written)),
                Err(error) => error,
            };
            if self.is_row_error(&error, &mut internal_retries).await {
                return Ok(Err(error));
            }
            let unknown = error.is_ambiguous_for_writes();
            if let Err(failure) = retry.pause(error, "writing again").await {
                tally.unknown += if unknown { rows.len() as u64 } else { 0 };
                return Err(failure);
            }
            if unknown && operation == Operation::Delete {
                // Applied late, it would take away what is written after it.
                tokio::time::sleep(LATE).await;
            }
        }
    }

    /// Whether another attempt is in vain because of what the rows hold.
    ///
    /// An internal error is how a server reports a value that its database cannot hold (U+0000 on
    /// PostgreSQL), and also a database that is restarting (measured, SpiceDB v1.56). It is put down to
    /// the rows only if the database takes an empty write all the same, again and again.
    pub(super) async fn is_row_error(
        &self,
        error: &authzed::Error,
        internal_retries: &mut usize,
    ) -> bool {
        match error.kind() {
            Kind::Refused | Kind::MessageTooLarge | Kind::LimitExceeded | Kind::AlreadyExists => {
                true
            }
            Kind::Internal if self.client.write_marker().await.is_err() => false,
            Kind::Internal if *internal_retries == 0 => true,
            Kind::Internal => {
                *internal_retries -= 1;
                false
            }
            _ => false,
        }
    }
}

fn named(rows: &[Row]) -> String {
    touch::named(rows.iter().map(|row| &row.relationship))
}
