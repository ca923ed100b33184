//! What a log that delivers lines at least once adds to a change stream: repeated lines, and lines that
//! were torn when their producer died. The chain of checksums proves that nothing else is skipped.

use std::collections::{HashSet, VecDeque};

use crate::digest::Digest;
use crate::read::ReadError;
use crate::record::Record;
use crate::record::change::Sealed as _;

/// How far a repetition may reach back, in lines. A producer that resumes repeats what its
/// predecessor had in flight, a few thousand at most.
const RECENT: usize = 65_536;
/// The most unreadable lines in a row. Each producer that dies leaves one.
pub const MAX_TORN: u64 = 16;

/// The lines read last, by their checksums.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    recent: HashSet<u128>,
    order: VecDeque<u128>,
    torn: u64,
    skipped: u64,
}

impl Repeats {
    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Skips a line that is no record. The line after it must continue the chain.
    pub(super) fn skip_torn(&mut self, fault: ReadError) -> Result<(), ReadError> {
        self.torn += 1;
        if self.torn > MAX_TORN || !matches!(fault, ReadError::Line { .. }) {
            return Err(fault);
        }
        self.skipped += 1;
        Ok(())
    }

    /// Whether a record was read before. `header`: the checksum of the stream's.
    pub(super) fn skip_repeated(&mut self, record: &Record, header: Option<Digest>) -> bool {
        self.torn = 0;
        let checksum = match record {
            Record::Header(repeated) => {
                let is_repeated = header.is_some() && repeated.checksum == header;
                self.skipped += u64::from(is_repeated);
                return is_repeated;
            }
            Record::Transaction(change) => change.seal().1,
            Record::Schema(change) => change.seal().1,
            Record::Checkpoint(checkpoint) => checkpoint.seal().1,
            _ => return false,
        };
        let is_repeated = checksum.is_some_and(|checksum| self.recent.contains(&checksum.0));
        self.skipped += u64::from(is_repeated);
        is_repeated
    }

    /// A line was read for the first time.
    pub(super) fn insert(&mut self, checksum: Option<Digest>) {
        let Some(Digest(checksum)) = checksum else {
            return;
        };
        if self.recent.insert(checksum) {
            self.order.push_back(checksum);
        }
        if self.order.len() > RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent.remove(&oldest);
        }
    }
}
