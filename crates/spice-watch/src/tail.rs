//! The end of a spool that is continued: what changed shortly before.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use spice_pipe::spool::Spool;
use spice_pipe::{Exit, Failure};
use spice_record::record::Transaction;
use spice_record::{Change, ChangeCheck, Record, Seal};

const CHECKPOINT: &[u8] = b"{\"checkpoint\":";
const TRANSACTION: &[u8] = b"{\"transaction\":";
const BLOCK_BYTES: u64 = 1 << 20;
/// A checkpoint is shorter than this.
const LINE_BYTES: u64 = 4 << 10;

/// The transactions of a spool since some time before its last checkpoint.
pub(crate) struct Tail {
    spool: Spool,
    /// Segments, and where to begin in each.
    files: VecDeque<(PathBuf, u64)>,
    lines: Option<BufReader<File>>,
    line: Vec<u8>,
    /// Whether all of that time is there.
    pub(crate) is_whole: bool,
}

impl Tail {
    /// Finds where the time before the last checkpoint begins.
    ///
    /// # Errors
    ///
    /// Exit 1 where the spool cannot be read.
    pub(crate) fn open(spool: &Spool, time: Duration) -> Result<Self, Failure> {
        let mut files = VecDeque::new();
        let mut newest = None;
        let mut is_whole = false;
        let segments = spool.segments().map_err(|error| failed(spool, &error))?;
        for number in segments.into_iter().rev() {
            let path = spool.segment(number);
            let begin = find(&path, &mut newest, time).map_err(|error| failed(spool, &error))?;
            files.push_front((path, begin.unwrap_or(0)));
            is_whole = begin.is_some();
            if is_whole {
                break;
            }
        }
        Ok(Self {
            spool: spool.clone(),
            files,
            lines: None,
            line: Vec::new(),
            is_whole,
        })
    }

    /// The next line with updates.
    ///
    /// # Errors
    ///
    /// Exit 1 where the spool cannot be read, 65 where it is damaged.
    pub(crate) fn next(&mut self) -> Result<Option<Transaction>, Failure> {
        loop {
            let Some(lines) = &mut self.lines else {
                let Some((path, begin)) = self.files.pop_front() else {
                    return Ok(None);
                };
                let opened = open_at(&path, begin).map_err(|error| failed(&self.spool, &error))?;
                self.lines = Some(BufReader::with_capacity(BLOCK_BYTES as usize, opened));
                continue;
            };
            self.line.clear();
            let read = lines.read_until(b'\n', &mut self.line);
            if read.map_err(|error| failed(&self.spool, &error))? == 0 {
                self.lines = None;
            } else if self.line.starts_with(TRANSACTION) {
                let read = transaction(&self.line).map_err(|error| {
                    let path = self.spool.path().display();
                    let message = format!("the end of the spool {path} is damaged: {error}");
                    Failure::new(Exit::BadData, message)
                })?;
                return Ok(Some(read));
            }
        }
    }
}

/// A line that has its checksum.
fn transaction(line: &[u8]) -> Result<Transaction, String> {
    let record = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let Record::Transaction(transaction) = record else {
        return Err(format!("expected a transaction, got a {}", record.kind()));
    };
    let change = Change::Transaction(transaction);
    ChangeCheck::in_the_middle(Seal::Unsealed).check(&change)?;
    match change {
        Change::Transaction(transaction) => Ok(*transaction),
        _ => Err("not a transaction".to_owned()),
    }
}

fn failed(spool: &Spool, error: &io::Error) -> Failure {
    let path = spool.path().display();
    let message = format!("cannot read the end of the spool {path}: {error}");
    Failure::new(Exit::Failed, message)
}

fn open_at(path: &Path, offset: u64) -> io::Result<File> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    Ok(file)
}

/// Where the newest checkpoint of a segment begins that is older than the newest of all by a time.
fn find(path: &Path, newest: &mut Option<Timestamp>, time: Duration) -> io::Result<Option<u64>> {
    let length = std::fs::metadata(path)?.len();
    let mut end = length;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES);
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
    use std::time::Duration;

    use spice_pipe::spool::Spool;

    use super::Tail;

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
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(&folder.path().join("spool"));
        for (number, text) in segments.iter().enumerate() {
            std::fs::write(spool.segment(number as u64), text).unwrap();
        }
        let mut tail = Tail::open(&spool, Duration::from_secs(10)).unwrap();
        let mut revisions = Vec::new();
        while let Some(transaction) = tail.next().unwrap() {
            revisions.push(transaction.revision);
        }
        (revisions, tail.is_whole)
    }

    #[test]
    fn the_tail_begins_at_the_last_checkpoint_before_the_time_and_goes_on_to_the_end() {
        let old = format!("{{}}\n{}{}", transaction("a"), checkpoint(5));
        let mid = format!("{}{}{}", transaction("b"), checkpoint(20), transaction("d"));
        let new = format!("{{}}\n{}{}", checkpoint(25), transaction("e"));
        let all = format!("{old}{mid}{}", &new[3..]);
        let found = ["b", "d", "e"].map(str::to_owned).to_vec();
        assert_eq!(tail(&[all]), (found.clone(), true));
        assert_eq!(tail(&[old + &mid, new.clone()]), (found, true));
        let short = ["b", "d", "e"].map(str::to_owned).to_vec();
        assert_eq!(tail(&[format!("{{}}\n{mid}"), new]), (short, false));
        assert_eq!(tail(&[]), (vec![], false));
    }

    #[test]
    fn a_checkpoint_is_found_wherever_blocks_are_cut() {
        for padding in (1 << 20) - 120..(1 << 20) + 20 {
            let filler = "x".repeat(padding);
            let text = format!(
                "{{}}\n{}{}{filler}\n{}",
                checkpoint(1),
                transaction("a"),
                checkpoint(59)
            );
            assert_eq!(tail(&[text]), (vec!["a".to_owned()], true), "{padding}");
        }
    }
}
