//! Records that programs leave in the folder, or print.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use spice_record::Record;
use spice_record::record::{Applied, Digests, Imported};

use crate::phase::SyncPoint;
use crate::time::Instant;

/// The end of a file that is looked through: many records of an apply.
const TAIL: u64 = 1_000_000;

/// What is in each line with a sync point, and in no other one of an apply.
pub(crate) const SYNC_POINT: &str = r#""syncPoint":true"#;

/// How a record of early changes begins.
const EARLY: &str = r#"{"applied":{"earlyRevision":"#;

/// The record in one line.
pub(crate) fn parse(line: &[u8]) -> Option<Record> {
    serde_json::from_slice(line).ok()
}

/// The last line that has a record of this kind.
fn last<T>(bytes: &[u8], kind: impl Fn(Record) -> Option<T>) -> Option<T> {
    let mut lines = bytes.split(|byte| *byte == b'\n').rev();
    lines.find_map(|line| parse(line).and_then(&kind))
}

/// The summary that an import printed.
pub(crate) fn imported(bytes: &[u8]) -> Option<Imported> {
    last(bytes, |record| match record {
        Record::Imported(imported) => Some(*imported),
        _ => None,
    })
}

/// What a digest printed.
pub(crate) fn digests(bytes: &[u8]) -> Option<Digests> {
    last(bytes, |record| match record {
        Record::Digest(digests) => Some(*digests),
        _ => None,
    })
}

/// Revisions that belong together, and when they were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) sync_point: SyncPoint,
    pub(crate) at: Option<Instant>,
}

fn pair(applied: &Applied) -> Option<Pair> {
    let revisions = applied
        .source_revision
        .clone()
        .zip(applied.target_revision.clone());
    let (source_revision, target_revision) = revisions.filter(|_| applied.sync_point)?;
    Some(Pair {
        sync_point: SyncPoint {
            source_revision,
            target_revision,
        },
        at: applied.at.as_ref().and_then(|at| at.parse().ok()),
    })
}

/// The newest pair in the records of an apply.
pub(crate) fn last_pair(applied: &Path) -> Option<Pair> {
    let bytes = tail(applied, TAIL).ok()?;
    last(&bytes, |record| match record {
        Record::Applied(applied) => pair(&applied),
        _ => None,
    })
}

/// Through which revision of the source an apply has written early, in the last of its records that have one.
pub(crate) fn last_early(applied: &Path) -> Option<String> {
    let bytes = tail(applied, TAIL).ok()?;
    let is_early = |line: &&[u8]| {
        let start = line.get(..EARLY.len());
        start == Some(EARLY.as_bytes())
    };
    let line = bytes.split(|byte| *byte == b'\n').rfind(is_early)?;
    match parse(line)? {
        Record::Applied(applied) => applied.early_revision,
        _ => None,
    }
}

/// When an apply wrote last.
pub(crate) fn last_write(applied: &Path) -> Option<String> {
    let bytes = tail(applied, TAIL).ok()?;
    last(&bytes, |record| match record {
        Record::Applied(applied) if applied.transactions > 0 => applied.at,
        _ => None,
    })
}

/// The end of a file. Its first line may be torn.
pub(crate) fn tail(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// How many lines of a file begin like this.
pub(crate) fn count(path: &Path, start: &[u8]) -> io::Result<usize> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let lines = bytes.split(|byte| *byte == b'\n');
    Ok(lines.filter(|line| line.starts_with(start)).count())
}

#[cfg(test)]
mod tests {
    use spice_record::Record;
    use spice_record::record::Applied;

    use super::{last_early, last_pair, last_write};

    #[test]
    fn newest_early_record_is_found_among_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("applied.ndjson");
        let line = |early: Option<&str>| {
            let applied = Applied {
                early_revision: early.map(str::to_owned),
                at: Some("2026-01-01T00:00:00Z".to_owned()),
                ..Applied::default()
            };
            serde_json::to_string(&Record::Applied(Box::new(applied))).unwrap() + "\n"
        };
        std::fs::write(&file, line(None)).unwrap();
        assert_eq!(last_early(&file), None);
        let lines = [line(Some("r1")), line(Some("r2")), line(None)].concat();
        std::fs::write(&file, lines + "{\"applied\":{\"earlyRev").unwrap();
        assert_eq!(last_early(&file).as_deref(), Some("r2"));
    }

    #[test]
    fn newest_pair_counts_and_a_torn_line_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("applied.ndjson");
        assert_eq!(last_pair(&file), None);
        let line = |n: u32, is_one: bool| {
            let sync_point = if is_one { ",\"syncPoint\":true" } else { "" };
            format!(
                "{{\"applied\":{{\"sourceRevision\":\"s{n}\",\"targetRevision\":\"t{n}\"{sync_point},\
                 \"transactions\":{n},\"at\":\"2026-01-01T00:00:0{n}Z\"}}}}\n"
            )
        };
        let torn = "{\"applied\":{\"sourceRevision\":\"s9";
        std::fs::write(
            &file,
            line(1, true) + &line(2, true) + &line(3, false) + torn,
        )
        .unwrap();
        let pair = last_pair(&file).unwrap();
        assert_eq!(pair.sync_point.source_revision, "s2");
        assert_eq!(pair.at.unwrap().to_string(), "2026-01-01T00:00:02Z");
        assert_eq!(last_write(&file).unwrap(), "2026-01-01T00:00:03Z");
    }
}
