//! Joins the relationships of both sides by their keys, in bounded memory.
//!
//! A relationship that is equal on both sides is removed at once, so two exports of the same order need
//! little memory. Beyond the bound the rest is written to disk, in parts by the digest of its key. In the
//! end each part is joined in a table of its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use authzed::v1::Relationship;
use prost::Message as _;
use spice_cli::{CommandError, Exit};
use spice_record::ExpiryPrecision;
use spice_record::digest::equal_at_precision;
use spice_record::relationship::DisplayRelationship;

use crate::row::{Row, Side};
use crate::spill::{Folder, PART_BITS, Spill};

/// What a place in the map takes beside the message: key, pointers, and the map's slack while it grows.
const PLACE_BYTES: usize = 160;
/// Cut so often, what shares a part shares its key.
const DEEPEST: u32 = 128 / PART_BITS - 1;
/// The most bytes of duplicates to hold before the comparison fails.
const MAX_DUPLICATE_BYTES: usize = 4 << 20;

/// What turns A into B.
#[derive(Debug, PartialEq)]
pub(crate) enum Difference {
    /// Only B holds it.
    Missing(Relationship),
    /// B holds it with this caveat, context or expiry.
    Changed(Relationship),
    /// Only A holds it.
    Extra(Relationship),
    /// One side holds it more than once. No complete snapshot does, but on PostgreSQL one at a revision
    /// that Watch gave can hold a relationship as it was before and after a deletion that the revision
    /// does not see (measured, SpiceDB v1.56).
    Duplicate(Side, Relationship),
}

#[derive(Default)]
struct Place {
    sides: [Option<Box<[u8]>>; 2],
}

pub(crate) struct Table {
    places: HashMap<u128, Place>,
    bytes: usize,
    memory: usize,
    depth: u32,
    folder: Folder,
    spill: Option<Spill>,
    /// What a side holds more than once.
    duplicates: Vec<Row>,
    duplicate_bytes: usize,
}

impl Table {
    pub(crate) fn new(memory: usize, folder: Folder) -> Self {
        Self::at_depth(memory, folder, 0)
    }

    fn at_depth(memory: usize, folder: Folder, depth: u32) -> Self {
        Self {
            places: HashMap::new(),
            bytes: 0,
            memory,
            depth,
            folder,
            spill: None,
            duplicates: Vec::new(),
            duplicate_bytes: 0,
        }
    }

    /// Adds a relationship of one side. Both are removed where the other side has an equal one.
    ///
    /// # Errors
    ///
    /// Exit 65 where a side holds very many of them twice, 1 where a temporary file fails.
    pub(crate) fn add(&mut self, row: Row) -> Result<(), CommandError> {
        let (this, other) = match row.side {
            Side::A => (0, 1),
            Side::B => (1, 0),
        };
        let mut place = match self.places.entry(row.key) {
            Entry::Occupied(place) => place,
            Entry::Vacant(place) => {
                self.bytes += row.message.len() + PLACE_BYTES;
                place.insert(Place::default()).sides[this] = Some(row.message);
                return self.keep_to_bound();
            }
        };
        if place.get().sides[this].is_some() {
            self.duplicate_bytes += row.message.len() + PLACE_BYTES;
            if self.duplicate_bytes > MAX_DUPLICATE_BYTES {
                return Err(duplicate_error(row.side, &decode(&row.message)?));
            }
            self.duplicates.push(row);
            return Ok(());
        }
        match &place.get().sides[other] {
            Some(message) if *message == row.message => {
                self.bytes -= message.len() + PLACE_BYTES;
                place.remove();
                Ok(())
            }
            _ => {
                self.bytes += row.message.len();
                place.get_mut().sides[this] = Some(row.message);
                self.keep_to_bound()
            }
        }
    }

    fn keep_to_bound(&mut self) -> Result<(), CommandError> {
        if self.bytes <= self.memory || self.depth == DEEPEST {
            return Ok(());
        }
        self.spill_all()
    }

    /// Moves everything to disk. The map keeps its room: it is wanted again.
    fn spill_all(&mut self) -> Result<(), CommandError> {
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => self
                .spill
                .insert(Spill::new(self.folder.clone(), self.depth)),
        };
        for (key, Place { sides }) in self.places.drain() {
            for (side, held) in [Side::A, Side::B].into_iter().zip(sides) {
                if let Some(message) = held {
                    spill.put(&Row { side, key, message })?;
                }
            }
        }
        self.bytes = 0;
        Ok(())
    }

    /// Reports each difference, in no order.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add), and those of `report`.
    pub(crate) fn finish(
        mut self,
        precision: ExpiryPrecision,
        report: &mut dyn FnMut(Difference) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        for row in std::mem::take(&mut self.duplicates) {
            report(Difference::Duplicate(row.side, decode(&row.message)?))?;
        }
        if self.spill.is_none() {
            return self
                .places
                .into_values()
                .try_for_each(|place| place.difference(precision)?.map_or(Ok(()), &mut *report));
        }
        self.spill_all()?;
        let Some(spill) = self.spill.take() else {
            return Ok(());
        };
        self.places = HashMap::new();
        for part in spill.into_parts()? {
            let mut table = Self::at_depth(self.memory, self.folder.clone(), self.depth + 1);
            let mut rows = part?;
            while let Some(row) = rows.next_row()? {
                table.add(row)?;
            }
            drop(rows);
            table.finish(precision, report)?;
        }
        Ok(())
    }
}

impl Place {
    fn difference(self, precision: ExpiryPrecision) -> Result<Option<Difference>, CommandError> {
        let [a, b] = self.sides;
        let a = a.as_deref().map(decode).transpose()?;
        let b = b.as_deref().map(decode).transpose()?;
        Ok(match (a, b) {
            (Some(a), Some(b)) if equal_at_precision(&a, &b, precision) => None,
            (Some(_), Some(b)) => Some(Difference::Changed(b)),
            (Some(a), None) => Some(Difference::Extra(a)),
            (None, Some(b)) => Some(Difference::Missing(b)),
            (None, None) => None,
        })
    }
}

fn decode(message: &[u8]) -> Result<Relationship, CommandError> {
    Relationship::decode(message).map_err(|error| {
        CommandError::new(
            Exit::Failed,
            format!("a temporary file is damaged: {error}"),
        )
    })
}

/// The error of a relationship that a side holds twice.
pub(crate) fn duplicate_error(side: Side, relationship: &Relationship) -> CommandError {
    CommandError::new(
        Exit::BadData,
        format!("{side:?} holds {} twice", DisplayRelationship(relationship)),
    )
    .hint(
        "no complete snapshot does: the stream was assembled by hand, or taken on PostgreSQL or MySQL at a \
         revision that other transactions overlapped; export at another revision",
    )
}

#[cfg(test)]
mod tests;
