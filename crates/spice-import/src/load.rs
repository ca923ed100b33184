//! Loads one chunk: bulk import first, and what the target refuses is bisected.
//!
//! A bulk import is one transaction, all or nothing. So after any failure the same rows can be sent
//! again, and after "already exists" they can be distinguished by reading what is there. Nothing is ever
//! dropped because its neighbour is in the way.

use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use authzed::{Code, Kind};
use spice_cli::{CommandError, Exit, lock};
use spice_client::retry::Retry;
use spice_client::server::Server;
use spice_client::write_engine::controller::{Bounds, Setting};
use spice_client::write_engine::throughput::Throughput;
use spice_client::write_engine::{WriteEngine, is_late};
use spice_record::ExpiryPrecision;
use tokio::time::{Duration, Instant};

use crate::OnConflict;
use crate::chunk::{CHUNK_RELATIONSHIPS, Chunk, MESSAGE_RELATIONSHIPS, Row};
use crate::rejects::Rejects;
use crate::stats::Stats;

pub(crate) mod reconcile;
mod rows;
#[cfg(test)]
mod tests;

/// A stream is ended before the target ends it (after 30 s); the rest goes into the next one.
const STREAM_TIME: Duration = Duration::from_secs(20);
/// Transactions grow while the next one is expected to end within half of this.
const SLOW: Duration = Duration::from_secs(2);
/// How often a connection breaks under the same rows before they are sent in halves.
const BREAKS: usize = 2;

/// What all chunks share.
pub(crate) struct Loader<S> {
    engine: WriteEngine<S>,
    on_conflict: OnConflict,
    /// How precisely the target keeps expiries.
    precision: ExpiryPrecision,
    pub(crate) rejects: Mutex<Rejects>,
    /// How many rows a transaction has, and how many transactions are in flight.
    throughput: Mutex<Throughput>,
    /// The last transaction held rows that the target has.
    is_resuming: AtomicBool,
}

/// Rows of one transaction.
struct Attempt {
    chunk: Chunk,
    known: Known,
}

/// What is known of rows from earlier attempts.
#[derive(Clone, Copy, Default)]
struct Known {
    /// How often they have been found in conflict.
    conflicts: u8,
    /// A refused row is being looked for among them.
    bisecting: bool,
    /// They were sent before, with no known end.
    is_ambiguous: bool,
}

/// Measures transactions that begin with so many rows.
fn throughput(rows: usize, in_flight: &RangeInclusive<usize>) -> Mutex<Throughput> {
    let [first, most] = Setting::between(rows..=CHUNK_RELATIONSHIPS, in_flight);
    let bounds = Bounds {
        first,
        most,
        least: MESSAGE_RELATIONSHIPS,
        together: 2 * CHUNK_RELATIONSHIPS,
        slow: SLOW,
        is_bulk: true,
    };
    Mutex::new(Throughput::new(bounds, "relationships"))
}

impl<S: Server> Loader<S> {
    /// `in_flight`: how many transactions there are at a time, once they have stopped to grow, and at most. Before that
    /// it is one: of several conflicts in a short stream the first is named.
    pub(crate) fn new(
        server: S,
        max_retries: usize,
        on_conflict: OnConflict,
        precision: ExpiryPrecision,
        rejects: Rejects,
        in_flight: &RangeInclusive<usize>,
    ) -> Self {
        Self {
            engine: WriteEngine::new(server, max_retries, 1..=1, None),
            on_conflict,
            precision,
            rejects: Mutex::new(rejects),
            throughput: throughput(MESSAGE_RELATIONSHIPS, in_flight),
            is_resuming: AtomicBool::new(false),
        }
    }

    /// As it is once its transactions are large.
    #[cfg(test)]
    pub(crate) fn grown(mut self, in_flight: &RangeInclusive<usize>) -> Self {
        self.throughput = throughput(CHUNK_RELATIONSHIPS, in_flight);
        self
    }

    /// How many rows the next transaction has, and how many are in flight. Where rows are found to be there
    /// already, what is next to them probably is as well: it is read with one request, as much as there is.
    pub(crate) fn setting(&self) -> Setting {
        let throughput = lock(&self.throughput);
        match self.is_resuming.load(Ordering::Relaxed) {
            true => Setting {
                size: throughput.most(),
                in_flight: 1,
            },
            false => throughput.setting(),
        }
    }

    /// The last setting that was found.
    pub(crate) fn found(&self) -> Setting {
        lock(&self.throughput).setting()
    }

    /// Loads one chunk, and measures that where it `is_full`, a transaction as large as the setting asks.
    /// The stats are true also where that failed.
    pub(crate) async fn load_measured(
        &self,
        chunk: Chunk,
        is_full: bool,
    ) -> (Stats, Result<(), CommandError>) {
        let is_measured = is_full && !self.is_resuming.load(Ordering::Relaxed);
        let call = is_measured.then(|| lock(&self.throughput).begin());
        let (stats, outcome) = self.load(chunk).await;
        let is_resuming = stats.present + stats.touched + stats.skipped > 0;
        self.is_resuming.store(is_resuming, Ordering::Relaxed);
        match call {
            Some(call) if is_resuming || stats.rejected > 0 || outcome.is_err() => {
                lock(&self.throughput).leave_out(call);
            }
            Some(call) => {
                let count = usize::try_from(stats.loaded).unwrap_or(usize::MAX);
                lock(&self.throughput).end(call, count);
            }
            None => {}
        }
        (stats, outcome)
    }

    /// Loads one chunk. The stats are true also where that failed.
    pub(crate) async fn load(&self, chunk: Chunk) -> (Stats, Result<(), CommandError>) {
        let mut stats = Stats::default();
        let ((first, last), started) = (chunk.lines(), Instant::now());
        let outcome = self.attempts(chunk, &mut stats).await;
        tracing::debug!(
            "lines {first} to {last}, {:.1} s: {stats}",
            started.elapsed().as_secs_f64()
        );
        (stats, outcome)
    }

    async fn attempts(&self, chunk: Chunk, stats: &mut Stats) -> Result<(), CommandError> {
        let mut attempts = vec![Attempt {
            chunk,
            known: Known::default(),
        }];
        let outcome = self.work_off(&mut attempts, stats).await;
        let unknown = attempts.iter().filter(|attempt| attempt.known.is_ambiguous);
        stats.unknown += unknown.map(|left| left.chunk.len() as u64).sum::<u64>();
        outcome
    }

    async fn work_off(
        &self,
        attempts: &mut Vec<Attempt>,
        stats: &mut Stats,
    ) -> Result<(), CommandError> {
        while let Some(attempt) = attempts.pop() {
            if attempt.chunk.len() > lock(&self.throughput).most() {
                let rows = attempt.chunk.rows()?;
                attempts.extend(halves(&rows, attempt.known));
                continue;
            }
            let ended = self.import(&attempt, stats).await?;
            let Attempt { chunk, known } = attempt;
            let (first, last) = chunk.lines();
            match ended {
                Imported::All => stats.loaded += chunk.len() as u64,
                Imported::First(messages) => {
                    let (done, rest) = chunk.split_at_message(messages);
                    stats.loaded += done.len() as u64;
                    attempts.push(Attempt { chunk: rest, known });
                }
                Imported::Conflict => {
                    let rows = chunk.rows()?;
                    let absent = match self.reconcile(&rows, stats).await? {
                        Ok(absent) => absent,
                        Err(error) => {
                            attempts.extend(self.bisect(rows, &error, known, stats)?);
                            continue;
                        }
                    };
                    // Nothing is visible, but something is in the way.
                    if known.conflicts > 0 || absent.len() == chunk.len() {
                        self.create(absent, stats).await?;
                    } else if !absent.is_empty() {
                        let chunk = Chunk::from_rows(&absent);
                        attempts.push(Attempt {
                            chunk,
                            known: Known {
                                conflicts: known.conflicts + 1,
                                is_ambiguous: false,
                                ..known
                            },
                        });
                    }
                }
                Imported::TooSlow(error) => {
                    tracing::warn!(
                        "lines {first} to {last} take too long in one transaction: {error}; halving it, and \
                         those after it"
                    );
                    let known = Known {
                        is_ambiguous: known.is_ambiguous || error.is_ambiguous_for_writes(),
                        ..known
                    };
                    attempts.extend(halves(&chunk.rows()?, known));
                }
                Imported::Broken(error) => {
                    tracing::warn!(
                        "lines {first} to {last}: the connection breaks under them each time: {error}; \
                         halving them"
                    );
                    attempts.extend(halves(&chunk.rows()?, known));
                }
                Imported::Refused(error) => {
                    attempts.extend(self.bisect(chunk.rows()?, &error, known, stats)?);
                }
            }
        }
        Ok(())
    }

    /// Sends a chunk as one transaction, and repeats that while its failure is a passing one.
    async fn import(&self, attempt: &Attempt, stats: &mut Stats) -> Result<Imported, CommandError> {
        let chunk = &attempt.chunk;
        let server = self.engine.server();
        if chunk.expires && !server.keeps_expiry() {
            return Ok(Imported::Refused(server.drops_expiry()));
        }
        let max_retries = self.engine.max_retries();
        let mut retry = Retry::new(max_retries);
        let mut row_errors = self
            .engine
            .row_error_test(chunk.len(), attempt.known.bisecting);
        let mut breaks = 0;
        loop {
            // The rest of the messages is left out once the stream has been open for long.
            let started = Instant::now();
            let messages = chunk.messages().into_iter().enumerate();
            let in_time = messages
                .take_while(move |(index, _)| *index == 0 || started.elapsed() < STREAM_TIME)
                .map(|(_, message)| message);
            let error = match server.import(futures::stream::iter(in_time)).await {
                Ok(loaded) => {
                    lock(&self.throughput).acknowledged(chunk.len(), started.elapsed());
                    row_errors.succeeded();
                    return imported(chunk, loaded);
                }
                Err(error) => error,
            };
            match error.kind() {
                Kind::AlreadyExists => return Ok(Imported::Conflict),
                _ if self.is_too_slow(&error, chunk.len(), started.elapsed()) => {
                    return Ok(Imported::TooSlow(error));
                }
                _ if row_errors.is_row_error(&server, &error).await => {
                    return Ok(Imported::Refused(error));
                }
                _ => {
                    // An answer that is too large for somebody on the way: a proxy, or our own bound of
                    // headers, which a server exceeds when it names thousands of invalid rows.
                    let broke = error.kind() == Kind::Unavailable
                        && error.code().is_none_or(|code| code == Code::Unknown);
                    if broke && breaks >= BREAKS.min(max_retries) && chunk.len() > 1 {
                        return Ok(Imported::Broken(error));
                    }
                    breaks += usize::from(broke);
                    let (cause, unknown) = (error.clone(), error.is_ambiguous_for_writes());
                    if let Err(failure) = retry.pause(error, "loading again").await {
                        // It breaks under this one row, and under nothing else.
                        if broke
                            && breaks > BREAKS
                            && chunk.len() == 1
                            && server.reconnect().write_marker().await.is_ok()
                        {
                            return Ok(Imported::Refused(cause));
                        }
                        stats.unknown += if unknown || attempt.known.is_ambiguous {
                            chunk.len() as u64
                        } else {
                            0
                        };
                        let (first, last) = chunk.lines();
                        return Err(failure.context(format!("lines {first} to {last}")));
                    }
                }
            }
        }
    }

    /// What is left of rows of which the target refuses one: that one is rejected once it is alone.
    fn bisect(
        &self,
        rows: Vec<Row>,
        error: &authzed::Error,
        known: Known,
        stats: &mut Stats,
    ) -> Result<Vec<Attempt>, CommandError> {
        if let [row] = rows.as_slice() {
            self.reject(row, error, stats)?;
            return Ok(Vec::new());
        }
        let rows = self.without_refused_shapes(rows, stats)?;
        let known = Known {
            bisecting: true,
            ..known
        };
        Ok(halves(&rows, known))
    }

    /// Whether a transaction of so many rows that failed after this time was too much for the target. Then
    /// later ones are smaller.
    fn is_too_slow(&self, error: &authzed::Error, rows: usize, after: Duration) -> bool {
        (is_late(error, after) || error.kind() == Kind::StreamTimeout)
            && lock(&self.throughput).too_slow(rows).is_some()
    }

    fn reject(
        &self,
        row: &Row,
        error: &authzed::Error,
        stats: &mut Stats,
    ) -> Result<(), CommandError> {
        self.rejects().reject(row, error)?;
        stats.rejected += 1;
        Ok(())
    }

    /// Rejects, without another call, the rows that the target refuses for their shape.
    fn without_refused_shapes(
        &self,
        rows: Vec<Row>,
        stats: &mut Stats,
    ) -> Result<Vec<Row>, CommandError> {
        let mut left = Vec::with_capacity(rows.len());
        let mut rejects = self.rejects();
        for row in rows {
            if rejects.reject_by_shape(&row)? {
                stats.rejected += 1;
            } else {
                left.push(row);
            }
        }
        Ok(left)
    }

    fn rejects(&self) -> std::sync::MutexGuard<'_, Rejects> {
        lock(&self.rejects)
    }
}

/// How an import of a chunk ended, other than with an error that ends the program.
enum Imported {
    All,
    /// Time was up: only this many messages were sent, and they are there.
    First(usize),
    Conflict,
    TooSlow(authzed::Error),
    /// The connection broke, again and again.
    Broken(authzed::Error),
    Refused(authzed::Error),
}

/// The server counts what it loaded; any other count than that of complete messages is a lost row.
fn imported(chunk: &Chunk, loaded: u64) -> Result<Imported, CommandError> {
    if loaded == chunk.len() as u64 {
        return Ok(Imported::All);
    }
    match chunk.messages_holding(loaded) {
        Some(messages) if messages > 0 => Ok(Imported::First(messages)),
        _ => {
            let (first, last) = chunk.lines();
            Err(CommandError::new(
                Exit::Failed,
                format!(
                    "lines {first} to {last}: {} relationships sent, but the target has loaded {loaded}",
                    chunk.len()
                ),
            ))
        }
    }
}

fn halves(rows: &[Row], known: Known) -> Vec<Attempt> {
    let (first, rest) = rows.split_at(rows.len() / 2);
    // The last attempt is taken first: so rows are named in the order of the stream.
    let halves = [rest, first].into_iter().filter(|half| !half.is_empty());
    halves
        .map(|half| Attempt {
            chunk: Chunk::from_rows(half),
            known,
        })
        .collect()
}
