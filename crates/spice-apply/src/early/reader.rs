//! The thread that reads a live Watch from a named pipe, one after the other.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use spice_cli::byte_channel::{self, Receiver};
use spice_cli::quote::quoted;
use spice_cli::{CommandError, Exit, stdio};
use spice_client::same_datastore::datastore_id;
use spice_record::digest::{Digest, digest_text};
use spice_record::record::{Filter, StreamKind};
use spice_record::relationship::Update;
use spice_record::{Change, ChangeReader, Integrity, ReadError, Record, RecordReader};

use crate::input::weight_of_updates;

/// What may be read ahead.
const AHEAD_BYTES: usize = 2 << 20;
/// What is read from the pipe at a time.
const BUFFER: usize = 64 << 10;
/// What a revision takes in memory beside its text.
const STEP_BYTES: usize = 512;

/// What the thread delivers.
#[derive(Debug)]
pub(crate) enum EarlyStep {
    /// What follows is of a source with this schema.
    Schema(Option<Digest>),
    /// Updates of a revision, or a part of them.
    Updates(String, Vec<Update>),
    /// Everything through a revision was delivered.
    Through(String),
}

/// Whose changes are expected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    pub(crate) source: Option<String>,
    pub(crate) filter: Option<Filter>,
    pub(crate) mapping: Vec<String>,
}

/// Reads whatever is written into a named pipe, until the process ends.
///
/// # Errors
///
/// Exit 2 where it is no named pipe, 1 where it cannot be looked at.
pub(crate) fn open(path: &Path, expected: Expected) -> Result<Receiver<EarlyStep>, CommandError> {
    let name = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| {
        CommandError::new(
            Exit::Failed,
            format!("--early: cannot open {name}: {error}"),
        )
        .hint(format!("make it: mkfifo -m 600 {}", quoted(path)))
    })?;
    if !metadata.file_type().is_fifo() {
        return Err(
            CommandError::usage(format!("--early: {name} is not a named pipe"))
                .hint("give one that does not exist yet to: mkfifo -m 600 FILE"),
        );
    }
    let (sender, receiver) = byte_channel::channel(AHEAD_BYTES);
    let (runtime, path) = (tokio::runtime::Handle::current(), path.to_owned());
    // Not one of the runtime's threads: it waits for a writer, which may never come.
    std::thread::spawn(move || {
        let send = |step, bytes: usize| {
            runtime.block_on(sender.send(step, bytes.saturating_add(STEP_BYTES)))
        };
        while let Some(mut pipe) = opened(&path) {
            match read(&mut pipe, &path, &expected, &send) {
                Ok(Ended::ByReader) => return,
                Ok(Ended::ByWriter) => {}
                // The settled stream has it all.
                Err(failure) => {
                    tracing::warn!(
                        "early: {}: what follows is written once it has settled",
                        failure.message()
                    );
                    // Opened again now, it would be read from its middle.
                    let _ = std::io::copy(&mut pipe, &mut std::io::sink());
                }
            }
        }
    });
    Ok(receiver)
}

/// Waits for a writer; `None` where it is no pipe any more.
fn opened(path: &Path) -> Option<BufReader<File>> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let why = match opened {
        Ok((metadata, file)) if metadata.file_type().is_fifo() => {
            return Some(BufReader::with_capacity(BUFFER, file));
        }
        Ok(_) => "it is no named pipe any more".to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::warn!("early: {}: {why}; nothing is written early", path.display());
    None
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    ByWriter,
    /// Nobody listens any more.
    ByReader,
}

/// Reads what one writer writes.
fn read(
    pipe: &mut impl BufRead,
    path: &Path,
    expected: &Expected,
    send: &dyn Fn(EarlyStep, usize) -> bool,
) -> Result<Ended, CommandError> {
    let mut records = RecordReader::new(pipe, stdio::name(path));
    let header = match records.next_record() {
        Ok(Some(Record::Header(header))) => header,
        Ok(Some(other)) => return Err(records.unexpected("a header", &other).into()),
        // Opened and closed: somebody has looked whether there is a reader.
        Ok(None) => return Ok(Ended::ByWriter),
        Err(error) => return Err(error.into()),
    };
    let source = header.revision.as_deref().and_then(datastore_id);
    if header.stream != StreamKind::Changes
        || source != expected.source
        || header.filter != expected.filter
        || header.mapping != expected.mapping
    {
        return Err(CommandError::usage(
            "no changes, or those of another datastore, filter or mapping than the stream's",
        ));
    }
    tracing::info!("early: writing changes before they have settled");
    let schema = EarlyStep::Schema(header.schema.as_deref().map(digest_text));
    let mut changes = ChangeReader::after(records, &header, Integrity::Verified)?;
    let mut next = Some((schema, 0));
    loop {
        if let Some((step, bytes)) = next.take()
            && !send(step, bytes)
        {
            return Ok(Ended::ByReader);
        }
        let begin = changes.offset();
        let change = match changes.next_change() {
            Ok(Some(change)) => change,
            // It has no trailer where its writer was stopped within a transaction.
            Ok(None) | Err(ReadError::Cut { .. } | ReadError::Torn { .. }) => {
                tracing::info!("early: the live Watch has ended");
                return Ok(Ended::ByWriter);
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = usize::try_from(changes.offset() - begin).unwrap_or(usize::MAX);
        next = Some(match change {
            Change::Transaction(change) => {
                let bytes = bytes.saturating_add(weight_of_updates(&change.updates));
                (EarlyStep::Updates(change.revision, change.updates), bytes)
            }
            Change::Checkpoint(checkpoint) => (EarlyStep::Through(checkpoint.revision), bytes),
            Change::Schema(change) => (EarlyStep::Schema(Some(digest_text(&change.text))), bytes),
        });
    }
}

#[cfg(test)]
mod tests;
