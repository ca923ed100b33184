//! A chunk in conflict: reads what the target holds, and applies the policy to each row.

use spice_cli::CommandError;
use spice_client::server::{Layout, Server};

use super::Loader;
use crate::chunk::Row;
use crate::conflict::sort;
use crate::stats::Stats;

impl<S: Server> Loader<S> {
    /// Treats the rows of a chunk in conflict by what the target holds; returns those that are not visible
    /// there or, inside, the error with which it refuses to look for one.
    pub(super) async fn reconcile(
        &self,
        rows: &[Row],
        stats: &mut Stats,
    ) -> Result<Result<Vec<Row>, authzed::Error>, CommandError> {
        let wanted: Vec<_> = rows.iter().map(|row| &row.relationship).collect();
        let server = self.engine.server();
        let lookup = server.lookup(&wanted, Layout::Sorted, self.engine.max_retries());
        let there = match lookup.await? {
            Ok(there) => there,
            Err(error) => return Ok(Err(error)),
        };
        let sorted = sort(rows, there, self.on_conflict, self.precision)?;
        stats.present += sorted.present;
        for (row, other) in &sorted.skipped {
            self.rejects().skip(row, other);
            stats.skipped += 1;
        }
        self.touch_unchanged(sorted.touch_unchanged, stats).await?;
        self.touch(sorted.touch, stats).await?;
        Ok(Ok(sorted.absent))
    }
}
