//! Damage, and what must hold under it.
//!
//! [`Edit`] is one damage, [`damage`] applies some, [`Kind`] makes a sound stream of each kind and reads
//! it with the reader that every program uses. The property is in `tests/`: *whatever is done to a sealed
//! stream, it is refused, or it means the same.*

#![forbid(unsafe_code)]

mod spool;
mod streams;

use bolero::TypeGenerator;

pub use spool::{follow, write_spool};
pub use streams::{Kind, Meaning};

/// One damage. Places are taken modulo what is there.
#[derive(Clone, Debug, TypeGenerator)]
pub enum Edit {
    /// A bit is the other one.
    Flip(u32),
    /// A byte is another one.
    Set(u32, u8),
    /// A byte too many.
    Insert(u32, u8),
    /// A byte is missing.
    Remove(u32),
    /// A line is missing.
    DeleteLine(u16),
    /// A line occurs twice, the second time behind another one.
    RepeatLine(u16, u16),
    /// Two lines have changed places.
    SwapLines(u16, u16),
    /// All from here on is missing.
    Cut(u32),
}

/// A stream after some damages, one after the other.
#[must_use]
pub fn damage(stream: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = stream.to_vec();
    for edit in edits {
        let at = |place: u32, bytes: &[u8]| place as usize % bytes.len().max(1);
        match *edit {
            _ if bytes.is_empty() => {}
            Edit::Flip(bit) => {
                let bit = bit as usize % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            Edit::Set(place, byte) => {
                let place = at(place, &bytes);
                bytes[place] = byte;
            }
            Edit::Insert(place, byte) => {
                let place = at(place, &bytes);
                bytes.insert(place, byte);
            }
            Edit::Remove(place) => {
                let place = at(place, &bytes);
                bytes.remove(place);
            }
            Edit::Cut(place) => {
                let place = at(place, &bytes);
                bytes.truncate(place);
            }
            Edit::DeleteLine(line) => {
                bytes = with_lines(&bytes, |lines| {
                    lines.remove(usize::from(line) % lines.len());
                });
            }
            Edit::RepeatLine(line, behind) => {
                bytes = with_lines(&bytes, |lines| {
                    let line = lines[usize::from(line) % lines.len()];
                    lines.insert(usize::from(behind) % lines.len() + 1, line);
                });
            }
            Edit::SwapLines(one, other) => {
                bytes = with_lines(&bytes, |lines| {
                    let count = lines.len();
                    lines.swap(usize::from(one) % count, usize::from(other) % count);
                });
            }
        }
    }
    bytes
}

fn with_lines(bytes: &[u8], change: impl FnOnce(&mut Vec<&[u8]>)) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    change(&mut lines);
    lines.concat()
}
