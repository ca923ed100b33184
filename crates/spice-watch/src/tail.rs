//! The end of a spool that is continued: what changed shortly before.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use spice_cli::{CommandError, Exit};
use spice_record::record::Transaction;
use spice_record::{Change, ChangeCheck, Integrity, Record, RecordReader};
use spice_spool::Spool;

const CHECKPOINT: &[u8] = b"{\"checkpoint\":";
const BLOCK_BYTES: u64 = 1 << 20;
/// A checkpoint is shorter than this.
const LINE_BYTES: u64 = 4 << 10;

/// The transactions of a spool since some time before its last checkpoint.
pub(crate) struct Tail {
    spool: Spool,
    /// Segments, and where to begin in each.
    files: VecDeque<(PathBuf, u64)>,
    records: Option<RecordReader<BufReader<File>>>,
    /// Whether all of that time is there.
    pub(crate) is_complete: bool,
}

impl Tail {
    /// Finds where the time before the last checkpoint begins.
    ///
    /// # Errors
    ///
    /// Exit 1 where the spool cannot be read.
    pub(crate) fn open(spool: &Spool, time: Duration) -> Result<Self, CommandError> {
        Self::open_in_blocks(spool, time, BLOCK_BYTES)
    }

    fn open_in_blocks(spool: &Spool, time: Duration, block: u64) -> Result<Self, CommandError> {
        let mut files = VecDeque::new();
        let mut newest = None;
        let mut is_complete = false;
        let segments = spool.segments().map_err(|error| failed(spool, &error))?;
        for number in segments.into_iter().rev() {
            let path = spool.segment(number);
            let begin = find(&path, &mut newest, time, block);
            let begin = begin.map_err(|error| failed(spool, &error))?;
            files.push_front((path, begin.unwrap_or(0)));
            is_complete = begin.is_some();
            if is_complete {
                break;
            }
        }
        Ok(Self {
            spool: spool.clone(),
            files,
            records: None,
            is_complete,
        })
    }

    /// The next line with updates.
    ///
    /// # Errors
    ///
    /// Exit 1 where the spool cannot be read, 65 where it is damaged.
    pub(crate) fn next(&mut self) -> Result<Option<Transaction>, CommandError> {
        loop {
            match self.next_change()? {
                Some(Change::Transaction(transaction)) => return Ok(Some(*transaction)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next line but for headers.
    ///
    /// # Errors
    ///
    /// As [`Tail::next`].
    pub(crate) fn next_change(&mut self) -> Result<Option<Change>, CommandError> {
        loop {
            let Some(records) = &mut self.records else {
                let Some((path, begin)) = self.files.pop_front() else {
                    return Ok(None);
                };
                let opened = open_at(&path, begin).map_err(|error| failed(&self.spool, &error))?;
                let lines = BufReader::with_capacity(BLOCK_BYTES as usize, opened);
                self.records = Some(RecordReader::new(lines, path.display().to_string()));
                continue;
            };
            let damaged =
                |error| CommandError::from(error).context("the end of the spool cannot be read");
            let change = match records.next_record().map_err(damaged)? {
                Some(Record::Transaction(transaction)) => Change::Transaction(transaction),
                Some(Record::Schema(schema)) => Change::Schema(schema),
                Some(Record::Checkpoint(checkpoint)) => Change::Checkpoint(checkpoint),
                Some(_) => continue,
                None => {
                    self.records = None;
                    continue;
                }
            };
            let mut check = ChangeCheck::in_the_middle(Integrity::Unchecked);
            check
                .check(&change)
                .map_err(|message| damaged(records.fault(message)))?;
            return Ok(Some(change));
        }
    }
}

fn failed(spool: &Spool, error: &io::Error) -> CommandError {
    let path = spool.path().display();
    let message = format!("cannot read the end of the spool {path}: {error}");
    CommandError::new(Exit::Failed, message)
}

fn open_at(path: &Path, offset: u64) -> io::Result<File> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    Ok(file)
}

/// Where the newest checkpoint of a segment begins that is older than the newest of all by a time.
/// The file is read backwards in blocks of this many bytes.
fn find(
    path: &Path,
    newest: &mut Option<Timestamp>,
    time: Duration,
    block_bytes: u64,
) -> io::Result<Option<u64>> {
    let length = std::fs::metadata(path)?.len();
    let mut end = length;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(block_bytes);
        let stop = length.min(end + LINE_BYTES);
        block.clear();
        open_at(path, start)?
            .take(stop - start)
            .read_to_end(&mut block)?;
        let mut before = usize::try_from(end - start).unwrap_or(block.len());
        while let Some(at) = block[..before].iter().rposition(|byte| *byte == b'\n') {
            before = at;
            let line = block.get(at + 1..).unwrap_or_default();
            let Some(moment) = moment(line) else {
                continue;
            };
            let newest = *newest.get_or_insert(moment);
            if newest.duration_since(moment).unsigned_abs() > time && moment < newest {
                return Ok(Some(start + at as u64 + 1));
            }
        }
        end = start;
    }
    Ok(None)
}

/// When a checkpoint was seen, if one begins here.
fn moment(lines: &[u8]) -> Option<Timestamp> {
    if !lines.starts_with(CHECKPOINT) {
        return None;
    }
    let line = lines.split(|byte| *byte == b'\n').next()?;
    match serde_json::from_slice(line) {
        Ok(Record::Checkpoint(checkpoint)) => checkpoint.at?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(revision: &str) -> String {
        format!("{{\"transaction\":{{\"revision\":\"{revision}\",\"updates\":[]}}}}\n")
    }

    fn checkpoint(second: u32) -> String {
        format!(
            "{{\"checkpoint\":{{\"revision\":\"c{second}\",\"at\":\"2026-11-25T00:00:{second:02}Z\"}}}}\n"
        )
    }

    /// The revisions in the last 10 s of a spool of these segments.
    fn tail(segments: &[String]) -> (Vec<String>, bool) {
        let (revisions, is_complete) = tail_in_blocks(segments, BLOCK_BYTES);
        (revisions.unwrap(), is_complete)
    }

    fn tail_in_blocks(
        segments: &[String],
        block: u64,
    ) -> (Result<Vec<String>, CommandError>, bool) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(&folder.path().join("spool"));
        for (number, text) in segments.iter().enumerate() {
            std::fs::write(spool.segment(number as u64), text).unwrap();
        }
        let mut tail = Tail::open_in_blocks(&spool, Duration::from_secs(10), block).unwrap();
        let revisions = std::iter::from_fn(|| tail.next().transpose());
        let revisions = revisions.map(|found| found.map(|transaction| transaction.revision));
        (revisions.collect(), tail.is_complete)
    }

    #[test]
    fn the_tail_starts_at_the_last_checkpoint_before_the_time() {
        let first = checkpoint(0);
        let old = format!("{first}{}{}", transaction("a"), checkpoint(5));
        let mid = format!("{}{}{}", transaction("b"), checkpoint(20), transaction("d"));
        let new = format!("{}{}", checkpoint(25), transaction("e"));
        let all = format!("{old}{mid}{new}");
        let found = ["b", "d", "e"].map(str::to_owned).to_vec();
        assert_eq!(tail(&[all]), (found.clone(), true));
        assert_eq!(tail(&[format!("{old}{mid}"), new.clone()]), (found, true));
        let short = ["b", "d", "e"].map(str::to_owned).to_vec();
        assert_eq!(tail(&[mid, new]), (short, false));
        assert_eq!(tail(&[]), (vec![], false));
    }

    #[test]
    fn a_checkpoint_is_found_wherever_blocks_are_cut() {
        let filler = "x".repeat(20);
        let text = format!(
            "{}{}{}{}",
            checkpoint(0),
            checkpoint(1),
            transaction(&filler),
            checkpoint(59)
        );
        for block in 1..text.len() as u64 + 2 {
            let (found, is_complete) = tail_in_blocks(std::slice::from_ref(&text), block);
            assert_eq!(found.unwrap(), [filler.as_str()], "in blocks of {block}");
            assert!(is_complete, "in blocks of {block}");
        }
    }

    #[test]
    fn checkpoint_of_the_limit_itself_is_too_young() {
        let text = |second| {
            let (old, young) = (transaction("old"), transaction("young"));
            format!("{old}{}{young}{}", checkpoint(second), checkpoint(20))
        };
        let both = ["old", "young"].map(str::to_owned).to_vec();
        assert_eq!(tail(&[text(10)]), (both, false));
        assert_eq!(tail(&[text(9)]), (vec!["young".to_owned()], true));
    }

    #[test]
    fn checkpoints_without_a_time_or_torn_are_passed_over() {
        let timeless = "{\"checkpoint\":{\"revision\":\"x\"}}\n";
        let old = transaction("old");
        let text = format!("{old}{}{timeless}{}", checkpoint(0), transaction("a"));
        let torn = &checkpoint(59)[..20];
        assert!(
            tail_in_blocks(&[format!("{text}{torn}")], BLOCK_BYTES)
                .0
                .is_err()
        );
        let text = format!("{text}{}", checkpoint(59));
        assert_eq!(tail(&[text]), (vec!["a".to_owned()], true));
    }

    #[test]
    fn damaged_tail_is_refused() {
        let text = format!("{}what\n{}", checkpoint(0), checkpoint(59));
        let (found, _) = tail_in_blocks(&[text], BLOCK_BYTES);
        assert_eq!(found.unwrap_err().exit, Exit::BadData);
    }
}
