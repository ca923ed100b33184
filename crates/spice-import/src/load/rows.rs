//! Rows that are written one way or the other: with WriteRelationships, whose errors show which of them
//! the target does not take.

use std::sync::Mutex;
use std::time::Duration;

use authzed::v1::relationship_update::Operation;
use authzed::{Error, Kind};
use spice_cli::{CommandError, lock};
use spice_client::server::{Layout, Server};
use spice_client::write_engine::{AfterAmbiguous, Policy, Stage};

use super::Loader;
use crate::chunk::Row;
use crate::stats::Stats;

/// When a server or a proxy has let go of what a client gave up.
const AMBIGUITY_WINDOW: Duration = Duration::from_secs(30);

impl<S: Server> Loader<S> {
    /// Creates rows that are not visible on the target, though something is in the way of at least one of
    /// them: mostly a row that has expired and was not collected yet. No CREATE can replace that, only a
    /// TOUCH; and only that one row is touched, for another program may write at the same time.
    pub(super) async fn create(
        &self,
        rows: Vec<Row>,
        stats: &mut Stats,
    ) -> Result<(), CommandError> {
        let in_the_way = self.write(rows, Operation::Create, false, stats).await?;
        for row in in_the_way {
            match self.reconcile(std::slice::from_ref(&row), stats).await? {
                Ok(absent) => self.touch(absent, stats).await?,
                Err(error) => self.reject(&row, &error, stats)?,
            }
        }
        Ok(())
    }

    /// Touches rows whose expiry does not change.
    pub(super) async fn touch_unchanged(
        &self,
        rows: Vec<Row>,
        stats: &mut Stats,
    ) -> Result<(), CommandError> {
        let written = self.write(rows, Operation::Touch, false, stats).await;
        written.map(drop)
    }

    /// Touches rows that get an expiry, or lose one: those that the target may have skipped are read, and
    /// deleted and written again where they were.
    pub(super) async fn touch(
        &self,
        rows: Vec<Row>,
        stats: &mut Stats,
    ) -> Result<(), CommandError> {
        let written = self.write(rows, Operation::Touch, true, stats).await;
        written.map(drop)
    }

    /// Writes rows in as few calls as the target allows; returns those of which a CREATE found something
    /// in the way.
    async fn write(
        &self,
        rows: Vec<Row>,
        operation: Operation,
        verify: bool,
        stats: &mut Stats,
    ) -> Result<Vec<Row>, CommandError> {
        let policy = RowPolicy {
            loader: self,
            operation,
            stats: Mutex::default(),
            in_the_way: Mutex::default(),
        };
        let written = async {
            let written = self.engine.write(&policy, rows, false).await?;
            if verify {
                self.engine
                    .verify_touches(&policy, Layout::Sorted, written)
                    .await?;
            }
            Ok(())
        }
        .await;
        // Also after a failure: the stats must be true.
        stats.add(&lock(&policy.stats));
        written.map(|()| std::mem::take(&mut *lock(&policy.in_the_way)))
    }
}

/// What an import does with refused and ambiguous rows.
struct RowPolicy<'a, S> {
    loader: &'a Loader<S>,
    operation: Operation,
    stats: Mutex<Stats>,
    in_the_way: Mutex<Vec<Row>>,
}

impl<S: Server> Policy for RowPolicy<'_, S> {
    type Item = Row;

    fn operation(&self, _row: &Row) -> Operation {
        self.operation
    }

    fn acknowledged(&self, rows: &[Row], stage: Stage) {
        let mut stats = lock(&self.stats);
        match (stage, self.operation) {
            (Stage::Write, Operation::Create) => stats.loaded += rows.len() as u64,
            (Stage::Write, Operation::Touch) => stats.touched += rows.len() as u64,
            // They are counted as touched already.
            _ => {}
        }
    }

    fn ambiguous(&self, _rows: &[Row], stage: Stage) -> Result<AfterAmbiguous, CommandError> {
        let wait = match stage {
            // Applied late, it would delete what is written after it.
            Stage::DeleteSkipped => AMBIGUITY_WINDOW,
            _ => Duration::ZERO,
        };
        Ok(AfterAmbiguous {
            reconnect: false,
            wait,
        })
    }

    fn abandoned(&self, rows: &[Row], stage: Stage) {
        if stage == Stage::Write {
            lock(&self.stats).unknown += rows.len() as u64;
        }
    }

    fn refused(&self, row: &Row, stage: Stage, error: &Error) -> Result<(), CommandError> {
        match stage {
            Stage::DeleteSkipped => return Err(error.clone().into()),
            Stage::Write if error.kind() == Kind::AlreadyExists => {
                lock(&self.in_the_way).push(row.clone());
                return Ok(());
            }
            Stage::Write | Stage::WriteSkipped => {}
        }
        let mut stats = lock(&self.stats);
        self.loader.reject(row, error, &mut stats)?;
        if stage == Stage::WriteSkipped {
            stats.touched -= 1;
        }
        Ok(())
    }
}
