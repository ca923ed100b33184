//! A whole update stream, written: header, updates, trailer.

use std::io::{self, Write};

use authzed::v1::RelationshipUpdate;

use crate::lines::Lines;
use crate::record::{Header, Record, Trailer};
use crate::relationship::Update;

/// Writes an update stream.
///
/// Without [`finish`](Self::finish) there is no trailer, and no reader takes the stream for whole.
pub struct UpdateWriter<W> {
    lines: Lines<W>,
    updates: u64,
}

impl<W: Write> UpdateWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn create(out: W, header: Header) -> io::Result<Self> {
        Ok(Self {
            lines: Lines::begin(out, header)?,
            updates: 0,
        })
    }

    /// Writes one update.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(&mut self, update: RelationshipUpdate) -> io::Result<()> {
        self.updates += 1;
        self.lines.put(&Record::Update(Box::new(Update(update))))
    }

    /// Writes the trailer, flushes, and gives back the output.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn finish(self) -> io::Result<W> {
        let (_, out) = self.lines.seal(Trailer {
            updates: Some(self.updates),
            ..Trailer::default()
        })?;
        Ok(out)
    }
}
