//! Whether the writer of a spool is still at work.

use std::time::{Duration, Instant};

use spice_cli::{CommandError, Exit};
use spice_spool::Spool;

/// How long no writer may be seen before that is taken for its end, and how often it is reported.
const WRITER_GONE: Duration = Duration::from_secs(5);
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Whether the writer of a spool is still at work, when there is nothing to read.
pub(super) struct WriterMonitor<'a> {
    spool: &'a Spool,
    until: bool,
    alone_since: Option<Instant>,
    reported_at: Option<Instant>,
    checked_at: Instant,
}

impl<'a> WriterMonitor<'a> {
    pub(super) fn new(spool: &'a Spool, until: bool) -> Self {
        Self {
            spool,
            until,
            alone_since: None,
            reported_at: None,
            checked_at: Instant::now(),
        }
    }

    pub(super) fn progressed(&mut self) {
        self.alone_since = None;
    }

    /// Exit 4 where the writer recorded a lost history; 75 where it is gone before `--until`.
    pub(super) fn check(&mut self, what: &str, last: Option<&str>) -> Result<(), CommandError> {
        if self.checked_at.elapsed() < Duration::from_millis(200) {
            return Ok(());
        }
        self.checked_at = Instant::now();
        if self.spool.writer_lives() {
            self.alone_since = None;
            return Ok(());
        }
        let path = self.spool.path().display();
        let alone = *self.alone_since.get_or_insert_with(Instant::now);
        // A writer that has just ended may have written more than was read.
        if alone.elapsed() > Duration::from_millis(500)
            && let Some(reason) = self.spool.lost()
        {
            return Err(CommandError::new(
                Exit::HistoryLost,
                format!("the capture into {path} ended: {}", reason.trim()),
            )
            .hint(
                "take a new snapshot: what is on the target lacks the changes after that revision",
            ));
        }
        if alone.elapsed() < WRITER_GONE {
            return Ok(());
        }
        let where_ = match last {
            Some(revision) => format!("it ends at revision {revision}"),
            None => "nothing is in it".to_owned(),
        };
        if self.until {
            return Err(CommandError::new(
                Exit::TryAgain,
                format!("{what} {path}, and {where_}, before --until"),
            )
            .hint("run spice-watch --spool again, then the same command"));
        }
        if self
            .reported_at
            .is_none_or(|at| at.elapsed() >= REPORT_EVERY)
        {
            self.reported_at = Some(Instant::now());
            tracing::warn!("{what} {path}: is spice-watch running? {where_}");
        }
        Ok(())
    }
}
