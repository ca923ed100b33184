//! The zedtoken in any file of the suite: a stream, a spool, a summary or a position.

use std::io::{BufRead, Read as _};
use std::path::{Path, PathBuf};

use authzed::DatastoreKind;
use spice_record::read::MAX_LINE_BYTES;
use spice_record::record::{Filter, StreamKind};
use spice_record::{Change, ChangeCheck, Integrity, ReadError, Record, RecordReader};

use crate::Spool;
use spice_cli::CommandError;
use spice_cli::stdio;

/// The revisions that a file names.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The source's: a snapshot's own, the last complete one of a change stream or spool, or the one
    /// that was imported or applied.
    pub source: Option<String>,
    /// The target's, of a summary or a position.
    pub target: Option<String>,
    /// What part of the source it is of, where the file has it: a stream, a spool or a position, unless
    /// `spice-map` has changed its names.
    pub filter: Option<Filter>,
    /// Whether the file is a summary or a position.
    pub summary: bool,
}

/// Finds them in a file, or on stdin for `-`. Of a spool in segments the newest one counts.
///
/// # Errors
///
/// Exit 1 if it cannot be read, 65 if it is not one of these files.
pub fn find(path: &Path) -> Result<Found, CommandError> {
    let path = newest_file(path);
    let (input, name) = stdio::open(&path)?;
    find_in(input, name, &path)
}

/// The file that counts: of a spool in segments the newest one that holds something, else the file itself.
#[must_use]
pub fn newest_file(path: &Path) -> PathBuf {
    let spool = Spool::new(path);
    if let Some(newest) = spool.newest_segment() {
        let segments = spool.segments().unwrap_or_default();
        for number in segments.into_iter().rev() {
            let segment = spool.segment(number);
            // One that its writer has only begun holds nothing yet; what counts is before it.
            if segment != newest || !is_begun(&segment) {
                return segment;
            }
        }
    }
    path.to_owned()
}

/// Whether not even the first line is complete.
fn is_begun(segment: &Path) -> bool {
    let mut first = Vec::new();
    std::fs::File::open(segment).is_ok_and(|file| {
        let file = file.take(MAX_LINE_BYTES as u64 + 1);
        let read = std::io::BufReader::new(file).read_until(b'\n', &mut first);
        read.is_ok() && !first.ends_with(b"\n")
    })
}

/// Finds them in an input that was opened from a path.
///
/// # Errors
///
/// As [`find`].
pub fn find_in(
    input: impl BufRead,
    name: impl Into<String>,
    path: &Path,
) -> Result<Found, CommandError> {
    let mut records = RecordReader::new(input, name);
    let found = last(&mut records);
    if path == Path::new("-") {
        // Whoever writes to us (tee, for one) must not die of a closed pipe because we know enough.
        let _ = records.drain();
    }
    let found = found?;
    if found.source.is_none() {
        return Err(records.stream_fault("no revision in it").into());
    }
    Ok(found)
}

fn last<R: BufRead>(records: &mut RecordReader<R>) -> Result<Found, ReadError> {
    let mut last = Found::default();
    let mut check = None;
    loop {
        let record = match records.next_record() {
            Ok(Some(record)) => record,
            Ok(None) => break,
            // The end of a file that is still being written. Of a snapshot it is damage, but there
            // the header has answered already.
            Err(ReadError::Torn { .. }) if last.source.is_some() => break,
            Err(error) => return Err(error),
        };
        match record {
            Record::Header(header) if last.source.is_none() => {
                let faulty = |message| records.fault(message);
                header.check().map_err(faulty)?;
                last.source.clone_from(&header.revision);
                last.filter = header.filter.clone();
                last.filter = last.filter.filter(|_| header.mapping.is_empty());
                match header.stream {
                    StreamKind::Changes => {
                        check =
                            Some(ChangeCheck::begin(&header, Integrity::Verified).map_err(faulty)?);
                    }
                    // It is that of the header, whatever follows.
                    _ => break,
                }
            }
            Record::Imported(imported) => {
                last = summary(imported.source_revision, imported.target_revision);
            }
            // Between two pairs there are records without a revision that can be compared.
            Record::Applied(applied) if applied.source_revision.is_none() => {}
            Record::Applied(applied) => {
                last = summary(applied.source_revision, applied.target_revision);
            }
            Record::Digest(digests) => {
                // Shards of one snapshot name the same revision.
                let mut revisions = digests.revisions;
                revisions.dedup();
                let source = revisions.pop().filter(|_| revisions.is_empty());
                last = summary(source, None);
            }
            Record::Position(position) => {
                if position.checksum != position.compute_checksum().ok() {
                    let altered = "position altered: it does not have its checksum";
                    return Err(records.fault(altered));
                }
                last = summary(Some(position.source_revision), position.target_revision);
                last.filter = position.filter.filter(|_| position.mapping.is_empty());
            }
            record => {
                // Lines that `tail` has picked follow each other. Those made by hand have no checksums.
                let seal = if is_sealed(&record) {
                    Integrity::Verified
                } else {
                    Integrity::Unchecked
                };
                let check = check.get_or_insert_with(|| ChangeCheck::in_the_middle(seal));
                let checked = match Change::try_from(record) {
                    Ok(change) => check.check(&change),
                    Err(Record::Trailer(trailer)) => check.check_trailer(&trailer),
                    Err(other) => Err(format!("a change stream holds no {}", other.kind())),
                };
                checked.map_err(|message| records.fault(message))?;
                let must_settle = check.through().is_some_and(needs_settling);
                last.source = check.resume_from(must_settle).map(str::to_owned);
            }
        }
    }
    Ok(last)
}

fn is_sealed(record: &Record) -> bool {
    match record {
        Record::Transaction(change) => change.checksum.is_some(),
        Record::Schema(change) => change.checksum.is_some(),
        Record::Checkpoint(checkpoint) => checkpoint.checksum.is_some(),
        _ => true,
    }
}

fn needs_settling(token: &str) -> bool {
    DatastoreKind::of_token(token).needs_settling()
}

fn summary(source: Option<String>, target: Option<String>) -> Found {
    Found {
        source,
        target,
        filter: None,
        summary: true,
    }
}

#[cfg(test)]
mod tests {
    use spice_record::record::{Checkpoint, StreamKind, Transaction};
    use spice_record::{Change, ChangeSealer, Header, Record};

    use super::find;

    /// What collided is corrected between its transactions and their checkpoint: a stream that was cut
    /// there is resumed at the checkpoint before, where revisions are numbers of the beginning.
    #[test]
    fn stream_cut_before_a_correction_resumes_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("changes");
        // Revisions 1 and 2 of an integer source; of another form, each complete revision will do.
        let integers = ["GgcKATESAmFi", "GgcKATISAmFi"];
        for (tokens, expected) in [(integers, 0), (["a", "b"], 1)] {
            let header = Header {
                revision: Some(tokens[0].to_owned()),
                ..Header::new(StreamKind::Changes, "test", "2026-11-24T00:00:00Z")
            };
            let (mut sealer, header) = ChangeSealer::begin(header);
            let checkpoint = Change::Checkpoint(Box::new(Checkpoint {
                revision: tokens[0].to_owned(),
                ..Checkpoint::default()
            }));
            let transaction = Change::Transaction(Box::new(Transaction {
                revision: tokens[1].to_owned(),
                ..Transaction::default()
            }));
            let mut records = vec![Record::Header(Box::new(header))];
            records.extend([checkpoint, transaction].map(|change| sealer.seal(change)));
            let lines = records
                .iter()
                .map(|record| serde_json::to_string(record).unwrap() + "\n");
            std::fs::write(&path, lines.collect::<String>()).unwrap();
            assert_eq!(
                find(&path).unwrap().source.as_deref(),
                Some(tokens[expected])
            );
        }
    }

    #[test]
    fn revision_of_a_spool_comes_from_its_newest_usable_segment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let header = |revision: &str| {
            let header = Header {
                revision: Some(revision.to_owned()),
                ..Header::new(StreamKind::Changes, "test", "2026-11-24T00:00:00Z")
            };
            serde_json::to_string(&Record::Header(Box::new(header.sealed()))).unwrap() + "\n"
        };
        let newest = || find(&path).unwrap().source;
        std::fs::write(&path, header("a")).unwrap();
        assert_eq!(newest().as_deref(), Some("a"));
        std::fs::write(folder.path().join("spool.000001"), header("b")).unwrap();
        assert_eq!(newest().as_deref(), Some("b"));
        for begun in ["", &header("c")[..20]] {
            std::fs::write(folder.path().join("spool.000002"), begun).unwrap();
            assert_eq!(newest().as_deref(), Some("b"), "{begun:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(newest().as_deref(), Some("b"));
    }
}
