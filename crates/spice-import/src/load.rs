//! One chunk onto the target: bulk first, and what the target refuses is narrowed down.
//!
//! A bulk import is one transaction, all or nothing. So after any failure the same rows can be sent
//! again, and after "already exists" they can be told apart by reading what is there. Nothing is ever
//! dropped because its neighbour is in the way.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use authzed::v1::{Relationship, relationship_update::Operation};
use authzed::{Client, Code, Kind};
use spice_cli::{CommandError, Exit, lock};
use spice_client::lookup;
use spice_client::lookup::{ByKey, key};
use spice_client::retry::Retry;
use spice_record::ExpiryPrecision;
use spice_record::digest::equal_at_precision;

use crate::OnConflict;
use crate::chunk::{Chunk, Row};
use crate::tally::{Rejects, Tally, conflict};

mod write;

/// A stream is ended before the target ends it (after 30 s); the rest goes into the next one.
const STREAM_TIME: Duration = Duration::from_secs(20);
/// A transaction that fails after this, half of the time that SpiceDB gives it, was too much for the target
/// whatever the error says: on Spanner it is UNKNOWN or INTERNAL ("failed to lookup namespaces: ...
/// Canceled", measured on its emulator, v1.56.0).
const SLOW: Duration = Duration::from_secs(15);
/// So few are not too much: the target was away.
const SLOW_FROM: usize = 500;
/// How often a connection breaks under the same rows before they are sent in halves.
const BREAKS: usize = 2;
/// How often an internal error is put down to something else before it is put down to the rows.
const INTERNAL_RETRIES: usize = 2;

/// What all chunks share.
pub(crate) struct Loader {
    pub(crate) client: Client,
    pub(crate) max_retries: usize,
    pub(crate) on_conflict: OnConflict,
    /// How precisely the target keeps expiries.
    pub(crate) precision: ExpiryPrecision,
    pub(crate) rejects: Mutex<Rejects>,
    /// How many rows the target bears in one transaction, as far as is known.
    pub(crate) bearable: AtomicUsize,
}

/// Rows on their way.
struct Attempt {
    chunk: Chunk,
    /// How often they have been found in conflict.
    conflicts: u8,
    /// A refused row is being looked for among them.
    bisecting: bool,
}

impl Loader {
    /// Loads one chunk. The tally tells what became of it also where that failed.
    pub(crate) async fn load(&self, chunk: Chunk) -> (Tally, Result<(), CommandError>) {
        let mut tally = Tally::default();
        let ((first, last), started) = (chunk.lines(), Instant::now());
        let outcome = self.pieces(chunk, &mut tally).await;
        tracing::debug!(
            "lines {first} to {last}, {:.1} s: {tally}",
            started.elapsed().as_secs_f64()
        );
        (tally, outcome)
    }

    async fn pieces(&self, chunk: Chunk, tally: &mut Tally) -> Result<(), CommandError> {
        let mut pieces = vec![Attempt {
            chunk,
            conflicts: 0,
            bisecting: false,
        }];
        while let Some(piece) = pieces.pop() {
            if piece.chunk.len() > self.bearable.load(Ordering::Relaxed) {
                let rows = piece.chunk.rows()?;
                pieces.extend(halves(&rows, piece.conflicts, piece.bisecting));
                continue;
            }
            let ended = self.import(&piece, tally).await?;
            let chunk = piece.chunk;
            let (conflicts, bisecting) = (piece.conflicts, piece.bisecting);
            let (first, last) = chunk.lines();
            match ended {
                Imported::All => tally.loaded += chunk.len() as u64,
                Imported::First(messages) => {
                    let (done, rest) = chunk.split_at_message(messages);
                    tally.loaded += done.len() as u64;
                    pieces.push(Attempt {
                        chunk: rest,
                        conflicts,
                        bisecting,
                    });
                }
                Imported::Conflict => {
                    let rows = chunk.rows()?;
                    let absent = match self.resolve(&rows, tally).await? {
                        Ok(absent) => absent,
                        Err(error) => {
                            pieces.extend(self.bisect(rows, &error, conflicts, tally)?);
                            continue;
                        }
                    };
                    // Nothing to be seen, but something in the way.
                    if conflicts > 0 || absent.len() == chunk.len() {
                        self.create(&absent, tally).await?;
                    } else if !absent.is_empty() {
                        let chunk = Chunk::from_rows(&absent);
                        pieces.push(Attempt {
                            chunk,
                            conflicts: conflicts + 1,
                            bisecting,
                        });
                    }
                }
                Imported::TooSlow(error) if chunk.len() > 1 => {
                    tracing::warn!(
                        "lines {first} to {last} take too long in one transaction: {error}; halving it, and \
                         what comes after it"
                    );
                    let half = chunk.len().div_ceil(2);
                    self.bearable.fetch_min(half, Ordering::Relaxed);
                    pieces.extend(halves(&chunk.rows()?, conflicts, bisecting));
                }
                Imported::TooSlow(error) => return Err(error.into()),
                Imported::Broken(error) => {
                    tracing::warn!(
                        "lines {first} to {last}: the connection breaks under them each time: {error}; \
                         halving them"
                    );
                    pieces.extend(halves(&chunk.rows()?, conflicts, bisecting));
                }
                Imported::Refused(error) => {
                    pieces.extend(self.bisect(chunk.rows()?, &error, conflicts, tally)?);
                }
            }
        }
        Ok(())
    }

    /// Sends a chunk as one transaction, again and again while its failure is a passing one.
    async fn import(&self, piece: &Attempt, tally: &mut Tally) -> Result<Imported, CommandError> {
        let chunk = &piece.chunk;
        if chunk.expires && !self.client.offers().expiry {
            return Ok(Imported::Refused(self.client.drops_expiry()));
        }
        let mut retry = Retry::new(self.max_retries);
        // On the way from the whole chunk to the one row every repetition would cost a delay.
        let patient = !piece.bisecting || chunk.len() == 1;
        let mut internal_retries = if patient { INTERNAL_RETRIES } else { 0 };
        let mut breaks = 0;
        loop {
            // The rest of the messages is left out once the stream has been open for long.
            let started = Instant::now();
            let messages = chunk.messages().into_iter().enumerate();
            let in_time = messages
                .take_while(move |(index, _)| *index == 0 || started.elapsed() < STREAM_TIME)
                .map(|(_, message)| message);
            let error = match self.client.import(futures::stream::iter(in_time)).await {
                Ok(loaded) => return imported(chunk, loaded),
                Err(error) => error,
            };
            match error.kind() {
                Kind::AlreadyExists => return Ok(Imported::Conflict),
                Kind::StreamTimeout => return Ok(Imported::TooSlow(error)),
                _ if is_too_slow(&error, chunk.len(), started.elapsed()) => {
                    return Ok(Imported::TooSlow(error));
                }
                _ if self.is_row_error(&error, &mut internal_retries).await => {
                    return Ok(Imported::Refused(error));
                }
                _ => {
                    // An answer that is too large for somebody on the way: a proxy, or our own bound of
                    // headers, which a server exceeds when it names thousands of invalid rows.
                    let broke = error.kind() == Kind::Unavailable
                        && error.code().is_none_or(|code| code == Code::Unknown);
                    if broke && breaks >= BREAKS.min(self.max_retries) && chunk.len() > 1 {
                        return Ok(Imported::Broken(error));
                    }
                    breaks += usize::from(broke);
                    let (cause, unknown) = (error.clone(), error.is_ambiguous_for_writes());
                    if let Err(failure) = retry.pause(error, "loading again").await {
                        // It breaks under this one row, and under nothing else.
                        if broke
                            && breaks > BREAKS
                            && chunk.len() == 1
                            && self.client.reconnect().write_marker().await.is_ok()
                        {
                            return Ok(Imported::Refused(cause));
                        }
                        tally.unknown += if unknown { chunk.len() as u64 } else { 0 };
                        let (first, last) = chunk.lines();
                        return Err(failure.context(format!("lines {first} to {last}")));
                    }
                }
            }
        }
    }

    /// What is left of rows of which the target refuses one: that one is rejected once it stands alone.
    fn bisect(
        &self,
        rows: Vec<Row>,
        error: &authzed::Error,
        conflicts: u8,
        tally: &mut Tally,
    ) -> Result<Vec<Attempt>, CommandError> {
        if let [row] = rows.as_slice() {
            self.reject(row, error, tally)?;
            return Ok(Vec::new());
        }
        let rows = self.without_refused_shapes(rows, tally)?;
        Ok(halves(&rows, conflicts, true))
    }

    /// Tells the rows of a chunk in conflict apart by what the target holds; gives back those of
    /// which nothing is to be seen there or, inside, the error with which it refuses to look for one.
    async fn resolve(
        &self,
        rows: &[Row],
        tally: &mut Tally,
    ) -> Result<Result<Vec<Row>, authzed::Error>, CommandError> {
        let wanted: Vec<_> = rows.iter().map(|row| &row.relationship).collect();
        let there = match lookup::read(&self.client, &wanted, self.max_retries).await? {
            Ok(there) => there,
            Err(error) => return Ok(Err(error)),
        };
        let expires = |relationship: &Relationship| relationship.optional_expires_at.is_some();
        let seen: ByKey<bool> = there
            .iter()
            .map(|(key, relationship)| (key.clone(), expires(relationship)))
            .collect();
        let mut settled: ByKey<Row> = there
            .into_iter()
            .map(|(key, relationship)| {
                (
                    key,
                    Row {
                        line: 0,
                        relationship,
                    },
                )
            })
            .collect();
        let mut absent: ByKey<Row> = ByKey::new();
        let mut touch: ByKey<Row> = ByKey::new();
        for row in rows {
            let key = key(&row.relationship);
            let Some(known) = settled.get(&key) else {
                // A stream made by hand may say a relationship twice: the first one settles it.
                settled.insert(key.clone(), row.clone());
                absent.insert(key, row.clone());
                continue;
            };
            if equal_at_precision(&row.relationship, &known.relationship, self.precision) {
                tally.present += 1;
                continue;
            }
            match self.on_conflict {
                OnConflict::Fail => return Err(conflict(row, known)),
                OnConflict::Skip => {
                    self.rejects().skip(row, known);
                    tally.skipped += 1;
                }
                OnConflict::Touch => {
                    // Of several, the last one wins, and stands for all of them.
                    let replaced = absent.remove(&key).or_else(|| touch.remove(&key));
                    tally.present += u64::from(replaced.is_some());
                    settled.insert(key.clone(), row.clone());
                    touch.insert(key, row.clone());
                }
            }
        }
        // Under one that was not seen something may lie that has expired.
        let (unsure, sure): (Vec<Row>, Vec<Row>) = touch.into_values().partition(|row| {
            let relationship = &row.relationship;
            seen.get(&key(relationship)) != Some(&expires(relationship))
        });
        self.write_all(&sure, Operation::Touch, tally).await?;
        self.touch(&unsure, tally).await?;
        let mut absent: Vec<Row> = absent.into_values().collect();
        absent.sort_by_key(|row| row.line);
        Ok(Ok(absent))
    }

    fn reject(
        &self,
        row: &Row,
        error: &authzed::Error,
        tally: &mut Tally,
    ) -> Result<(), CommandError> {
        self.rejects().reject(row, error)?;
        tally.rejected += 1;
        Ok(())
    }

    /// Rejects, without asking again, the rows that the target refuses for their shape.
    fn without_refused_shapes(
        &self,
        rows: Vec<Row>,
        tally: &mut Tally,
    ) -> Result<Vec<Row>, CommandError> {
        let mut left = Vec::with_capacity(rows.len());
        let mut rejects = self.rejects();
        for row in rows {
            if rejects.reject_by_shape(&row)? {
                tally.rejected += 1;
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

/// The server counts what it loaded; any other count than that of whole messages is a lost row.
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
                    "lines {first} to {last}: {} relationships sent, but the target says it loaded {loaded}",
                    chunk.len()
                ),
            ))
        }
    }
}

/// Whether a transaction of so many rows that failed after this time was too much for the target.
fn is_too_slow(error: &authzed::Error, rows: usize, after: Duration) -> bool {
    error.is_transient() && rows > SLOW_FROM && after > SLOW
}

fn halves(rows: &[Row], conflicts: u8, bisecting: bool) -> Vec<Attempt> {
    let (first, rest) = rows.split_at(rows.len() / 2);
    // The last piece is taken first: so rows are named in the order of the stream.
    let halves = [rest, first].into_iter().filter(|half| !half.is_empty());
    halves
        .map(|half| Attempt {
            chunk: Chunk::from_rows(half),
            conflicts,
            bisecting,
        })
        .collect()
}
