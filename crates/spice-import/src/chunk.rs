//! Relationships that are read ahead, and go into the target in one transaction or more.
//!
//! A chunk must be held until it is acknowledged, and sent again where that is ambiguous. So it is held
//! as the encoded messages: a tenth of the memory of decoded relationships, and nothing to copy for
//! another attempt. Only where the target refuses it are its rows decoded again.

use authzed::v1::Relationship;
use authzed::{EncodedRelationships, RelationshipsEncoder};
use spice_cli::{CommandError, Exit};
use spice_client::write_engine::Item;
use spice_client::write_engine::controller::Setting;

/// The largest transaction: all of it is held for a retry, and larger ones gain nothing.
pub(crate) const CHUNK_RELATIONSHIPS: usize = 40_000;
const CHUNK_BYTES: usize = 6 << 20;
/// What transactions at the same time hold together.
const IN_FLIGHT_BYTES: usize = 12 << 20;
/// A server takes no message above 4 MiB; smaller ones keep both sides busy.
const MESSAGE_BYTES: usize = 256 << 10;
/// A transaction is some messages, so it has so many relationships at least.
pub(crate) const MESSAGE_RELATIONSHIPS: usize = 1_000;

/// A relationship, and the line it came from.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) line: u64,
    pub(crate) relationship: Relationship,
}

impl Row {
    /// What the target holds: it comes from no line.
    pub(crate) fn of_target(relationship: Relationship) -> Self {
        Self {
            line: 0,
            relationship,
        }
    }
}

impl Item for Row {
    fn relationship(&self) -> Option<&Relationship> {
        Some(&self.relationship)
    }
}

/// Gathers rows until they fill a chunk.
#[derive(Default)]
pub(crate) struct ChunkBuilder {
    chunk: Chunk,
    message: RelationshipsEncoder,
    bytes: usize,
}

impl ChunkBuilder {
    pub(crate) fn push(&mut self, line: u64, relationship: &Relationship) {
        let before = self.message.byte_len();
        self.message.push(relationship);
        self.chunk.lines.push(line);
        self.chunk.expires |= relationship.optional_expires_at.is_some();
        self.bytes += self.message.byte_len() - before;
        if self.message.byte_len() >= MESSAGE_BYTES || self.message.len() >= MESSAGE_RELATIONSHIPS {
            self.chunk.messages.push(self.message.take());
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.chunk.len() >= CHUNK_RELATIONSHIPS || self.bytes >= CHUNK_BYTES
    }

    /// The chunk so far, leaving an empty one; `None` if nothing is in it.
    pub(crate) fn take(&mut self) -> Option<Chunk> {
        if self.message.byte_len() > 0 {
            self.chunk.messages.push(self.message.take());
        }
        self.chunk.is_full = self.is_full();
        self.bytes = 0;
        Some(std::mem::take(&mut self.chunk)).filter(|chunk| chunk.len() > 0)
    }
}

/// Relationships that are read ahead together, and loaded in one transaction or more.
#[derive(Clone, Default)]
pub(crate) struct Chunk {
    messages: Vec<EncodedRelationships>,
    lines: Vec<u64>,
    /// Whether one of them has an expiry.
    pub(crate) expires: bool,
    /// It holds as much as a chunk may, by its rows or by its bytes.
    is_full: bool,
}

impl Chunk {
    pub(crate) fn from_rows(rows: &[Row]) -> Self {
        let mut builder = ChunkBuilder::default();
        for row in rows {
            builder.push(row.line, &row.relationship);
        }
        builder.take().unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// First and last line, for messages.
    pub(crate) fn lines(&self) -> (u64, u64) {
        let first = self.lines.first().copied().unwrap_or_default();
        (first, self.lines.last().copied().unwrap_or_default())
    }

    /// How many messages, from the first, hold exactly this many rows; `None` where it is within one.
    pub(crate) fn messages_holding(&self, rows: u64) -> Option<usize> {
        let mut held = 0;
        self.messages
            .iter()
            .position(|message| {
                held += message.len() as u64;
                held >= rows
            })
            .filter(|_| held == rows)
            .map(|index| index + 1)
    }

    pub(crate) fn messages(&self) -> Vec<EncodedRelationships> {
        self.messages.clone()
    }

    pub(crate) fn rows(&self) -> Result<Vec<Row>, CommandError> {
        let mut lines = self.lines.iter();
        let mut rows = Vec::with_capacity(self.len());
        for message in &self.messages {
            let relationships = message.decode().map_err(|error| {
                let (first, last) = self.lines();
                CommandError::new(
                    Exit::Failed,
                    format!("lines {first} to {last}: cannot decode what was encoded: {error}"),
                )
            })?;
            let numbered = lines.by_ref().zip(relationships);
            rows.extend(numbered.map(|(&line, relationship)| Row { line, relationship }));
        }
        Ok(rows)
    }

    /// Takes a transaction from the front, of complete messages and at least one: the rows are divided evenly
    /// into transactions that are no larger than this setting. And whether it is a measure of the setting.
    pub(crate) fn take(&mut self, setting: Setting) -> (Self, bool) {
        let most_bytes = IN_FLIGHT_BYTES / setting.in_flight;
        let parts = self.len().div_ceil(setting.size.max(1)).max(1);
        let size = self
            .len()
            .div_ceil(parts)
            .next_multiple_of(MESSAGE_RELATIONSHIPS);
        let (mut rows, mut bytes) = (0, 0);
        let fits = |message: &&EncodedRelationships| {
            rows += message.len();
            bytes += message.byte_len();
            rows <= size && bytes <= most_bytes
        };
        let fitting = self.messages.iter().take_while(fits).count();
        let messages = fitting.max(1).min(self.messages.len());
        let is_by_bytes = messages < self.messages.len() && rows <= size;
        let was_full = std::mem::take(&mut self.is_full);
        let (front, rest) = std::mem::take(self).split_at_message(messages);
        *self = rest;
        let is_measure =
            front.len() * 4 >= setting.size * 3 || is_by_bytes || was_full && self.len() == 0;
        (front, is_measure)
    }

    /// Cuts off the rows of the first `messages`.
    pub(crate) fn split_at_message(mut self, messages: usize) -> (Self, Self) {
        let rest = self.messages.split_off(messages);
        let rows = self.messages.iter().map(EncodedRelationships::len).sum();
        let rest = Self {
            messages: rest,
            lines: self.lines.split_off(rows),
            expires: self.expires,
            is_full: false,
        };
        self.lines.shrink_to_fit();
        (self, rest)
    }
}

#[cfg(test)]
mod tests;
