//! How far a spool is, and how far it was applied: read from its files. No server is asked.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use spice_record::Record;
use spice_record::record::Checkpoint;

use crate::phase::SpoolEnd;
use crate::records;
use crate::suite::Spool;
use crate::time::Instant;

/// Within so much of a file there is a checkpoint, unless it has only begun.
const NEAR: u64 = 4_000_000;

/// What a spool and a position say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Something was captured.
    pub is_begun: bool,
    /// The segment that the position names is there.
    pub is_complete: bool,
    /// When the source was heard last.
    pub heard_at: Option<Instant>,
    /// Through when everything was applied.
    pub applied_at: Option<Instant>,
    /// How long the source took to report the last heartbeat, in seconds.
    pub capture_lag: Option<f64>,
    /// Bytes of the segments that there are.
    pub captured_bytes: u64,
    /// Transactions that are captured and not applied.
    pub backlog: u64,
    /// Their bytes, and those of checkpoints between them.
    pub backlog_bytes: u64,
}

impl View {
    /// Reads a spool. `position`: where the next line to be applied begins.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn read(spool: &Spool, position: Option<SpoolEnd>) -> io::Result<Self> {
        let segments = spool.segments()?;
        let (Some(first), Some(newest)) = (segments.first(), segments.last()) else {
            return Ok(Self::default());
        };
        let mut view = Self {
            is_begun: true,
            ..Self::default()
        };
        let place = position.unwrap_or(SpoolEnd {
            segment: *first,
            offset: 0,
        });
        let newest_file = spool.segment(*newest);
        let end = std::fs::metadata(&newest_file)?.len();
        let last = last_checkpoint(&newest_file, end)?;
        view.capture_lag = last.as_ref().and_then(|last| last.lag);
        view.heard_at = seen_through(&newest_file, end)?;
        for segment in &segments {
            view.captured_bytes += std::fs::metadata(spool.segment(*segment))?.len();
        }
        if !segments.contains(&place.segment) {
            return Ok(view);
        }
        view.is_complete = true;
        let file = spool.segment(place.segment);
        let own = match position {
            Some(place) => line_length(&file, place.offset)?,
            None => 0,
        };
        let applied = place.offset + own;
        view.applied_at = seen_through(&file, applied)?;
        for segment in segments.iter().filter(|number| **number >= place.segment) {
            let skip = if *segment == place.segment {
                applied
            } else {
                0
            };
            let (bytes, transactions) = after(&spool.segment(*segment), skip)?;
            view.backlog_bytes += bytes;
            view.backlog += transactions;
        }
        Ok(view)
    }
}

/// Reads a part of a file.
fn part(file: &Path, from: u64, to: u64) -> io::Result<io::Take<BufReader<File>>> {
    let mut file = File::open(file)?;
    file.seek(SeekFrom::Start(from))?;
    Ok(BufReader::new(file).take(to.saturating_sub(from)))
}

fn each_line(mut input: impl BufRead, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        each(&line);
        line.clear();
    }
    Ok(())
}

/// The length of the line that begins here.
fn line_length(file: &Path, offset: u64) -> io::Result<u64> {
    let mut line = Vec::new();
    let length = part(file, offset, u64::MAX)?.read_until(b'\n', &mut line)?;
    Ok(length as u64)
}

/// Bytes and transactions after an offset.
fn after(file: &Path, offset: u64) -> io::Result<(u64, u64)> {
    let (mut bytes, mut transactions) = (0, 0);
    each_line(part(file, offset, u64::MAX)?, |line| {
        bytes += line.len() as u64;
        transactions += u64::from(line.starts_with(br#"{"transaction""#));
    })?;
    Ok((bytes, transactions))
}

/// The last checkpoint near the end of the first bytes of a file.
fn last_checkpoint(file: &Path, end: u64) -> io::Result<Option<Checkpoint>> {
    let from = end.saturating_sub(NEAR);
    match checkpoint_in(file, from, end)? {
        None if from > 0 => checkpoint_in(file, 0, end),
        found => Ok(found),
    }
}

fn checkpoint_in(file: &Path, from: u64, end: u64) -> io::Result<Option<Checkpoint>> {
    let mut last = None;
    each_line(part(file, from, end)?, |line| {
        if line.starts_with(br#"{"checkpoint""#)
            && let Some(Record::Checkpoint(checkpoint)) = records::parse(line)
        {
            last = Some(*checkpoint);
        }
    })?;
    Ok(last)
}

/// When everything was captured that these bytes of a segment hold.
fn seen_through(file: &Path, end: u64) -> io::Result<Option<Instant>> {
    let at = last_checkpoint(file, end)?.and_then(|checkpoint| checkpoint.at);
    match at.and_then(|at| at.parse().ok()) {
        Some(at) => Ok(Some(at)),
        None => begun(file),
    }
}

/// When a segment was begun.
fn begun(file: &Path) -> io::Result<Option<Instant>> {
    let mut line = Vec::new();
    part(file, 0, u64::MAX)?.read_until(b'\n', &mut line)?;
    Ok(match records::parse(&line) {
        Some(Record::Header(header)) => header.created_at.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::View;
    use crate::phase::SpoolEnd;
    use crate::suite::Spool;

    const HEADER: &str = "{\"header\":{\"format\":\"spice-pipes/1\",\"stream\":\"changes\",\"producer\":\"x\",\
                          \"createdAt\":\"2026-01-01T00:00:00Z\"}}\n";

    fn checkpoint(second: u32) -> String {
        format!(
            "{{\"checkpoint\":{{\"revision\":\"r{second}\",\"at\":\"2026-01-01T00:00:{second:02}Z\",\"lag\":0.5}}}}\n"
        )
    }

    #[test]
    fn backlog_begins_after_the_line_of_the_position() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(&folder.path().join("changes.ndjson"));
        assert_eq!(View::read(&spool, None).unwrap(), View::default());
        let transaction = "{\"transaction\":{\"revision\":\"a\",\"updates\":[]}}\n";
        let first = HEADER.to_owned() + transaction + &checkpoint(10);
        std::fs::write(spool.segment(0), &first).unwrap();
        std::fs::write(
            spool.segment(1),
            HEADER.to_owned() + transaction + &checkpoint(20),
        )
        .unwrap();
        let nothing = View::read(&spool, None).unwrap();
        assert_eq!((nothing.backlog, nothing.capture_lag), (2, Some(0.5)));
        let offset = (first.len() - checkpoint(10).len()) as u64;
        let at = Some(SpoolEnd { segment: 0, offset });
        let view = View::read(&spool, at).unwrap();
        assert!(view.is_begun && view.is_complete);
        assert_eq!(view.backlog, 1);
        assert_eq!(view.applied_at.unwrap().to_string(), "2026-01-01T00:00:10Z");
        assert_eq!(view.heard_at.unwrap().to_string(), "2026-01-01T00:00:20Z");
        let gone = Some(SpoolEnd { segment: 9, offset });
        assert!(!View::read(&spool, gone).unwrap().is_complete);
    }
}
