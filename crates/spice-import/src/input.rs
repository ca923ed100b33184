//! The thread that reads and checks the stream, and cuts it into chunks.

use std::io::BufRead;
use std::path::PathBuf;

use spice_cli::{CommandError, stdio};
use spice_record::{Digest, ExpiryPrecision, Header, Integrity, RecordReader, SnapshotReader};
use tokio::sync::mpsc;

use crate::chunk::{Chunk, ChunkBuilder};

/// What the thread delivers, in this order.
pub(crate) enum Step {
    /// Once; `None` for a stream without a header.
    Header(Option<Box<Header>>),
    /// Relationships, as they come.
    Chunk(Chunk),
    /// Once, last: the stream is complete and agrees with its trailer.
    End(Totals),
    /// Instead of anything else, and last.
    Failed(CommandError),
}

/// What was in the stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    pub(crate) relationships: u64,
    pub(crate) digest: Digest,
    pub(crate) precision: ExpiryPrecision,
    pub(crate) verified: bool,
    /// Expiries with a part that PostgreSQL (microseconds) and MySQL (seconds) do not keep.
    pub(crate) below_micros: u64,
    pub(crate) below_seconds: u64,
}

/// Opens the input and starts to read. One chunk is read, or waits, while others are loaded.
pub(crate) fn start(path: PathBuf, integrity: Integrity) -> mpsc::Receiver<Step> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let read = stdio::open(&path)
            .and_then(|(input, name)| read(RecordReader::new(input, name), integrity, &sender));
        let last = match read {
            Ok(Some(totals)) => Step::End(totals),
            Ok(None) => return,
            Err(failure) => Step::Failed(failure),
        };
        let _ = sender.blocking_send(last);
    });
    receiver
}

/// Reads to the end; `None` where nobody listens any more.
fn read(
    records: RecordReader<Box<dyn BufRead + Send>>,
    integrity: Integrity,
    sender: &mpsc::Sender<Step>,
) -> Result<Option<Totals>, CommandError> {
    let mut stream = SnapshotReader::open(records, integrity)?;
    let header = stream.header().cloned().map(Box::new);
    if sender.blocking_send(Step::Header(header)).is_err() {
        return Ok(None);
    }
    let (mut below_micros, mut below_seconds) = (0, 0);
    let runtime = tokio::runtime::Handle::current();
    // A chunk that waits is as much memory as one that is loaded: the next one is read once it is taken.
    let room = || runtime.block_on(sender.reserve()).ok();
    let Some(mut permit) = room() else {
        return Ok(None);
    };
    let mut chunk = ChunkBuilder::default();
    while let Some(relationship) = stream.next_relationship()? {
        if let Some(expiry) = &relationship.optional_expires_at {
            below_micros += u64::from(expiry.nanos % 1_000 != 0);
            below_seconds += u64::from(expiry.nanos != 0);
        }
        chunk.push(stream.line(), &relationship);
        if chunk.is_full()
            && let Some(full) = chunk.take()
        {
            permit.send(Step::Chunk(full));
            match room() {
                Some(free) => permit = free,
                None => return Ok(None),
            }
        }
    }
    // The last rows are delivered only now that the trailer is verified.
    if let Some(last) = chunk.take() {
        permit.send(Step::Chunk(last));
    }
    let precision = stream.precision().unwrap_or_default();
    let sum = stream.sum();
    Ok(Some(Totals {
        relationships: sum.relationships(),
        digest: sum.digest(precision),
        precision,
        verified: stream.is_verified(),
        below_micros,
        below_seconds,
    }))
}
