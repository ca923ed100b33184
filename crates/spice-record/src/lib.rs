//! The `spice-stream/1` format: what travels between the programs, one JSON object per line.
//!
//! The normative text is `docs/format.md`. Here:
//!
//! | module | holds |
//! |---|---|
//! | [`record`] | the kinds of line and their fields |
//! | [`relationship`] | SpiceDB's messages as proto3 JSON, and how a relationship is named in a message |
//! | [`read`] | bytes to records: line numbers, length limit, torn last line |
//! | [`snapshot`] | a whole snapshot stream, written and checked: header, relationships, trailer |
//! | [`changes`] | a whole change stream, sealed and checked line by line; a spool is made of the same lines |
//! | [`updates`] | a whole update stream, written and checked: header, updates, trailer |
//! | [`checks`] | a whole stream of checks, written and checked: questions with their answers |
//! | [`time`] | what counts as a time |
//! | [`digest`] | the order-free digest, and the canonical form that it is made of |
//!
//! Relationships are the API's own messages ([`authzed::v1::Relationship`]), so that nothing is
//! converted between the wire and the stream. This crate does no network and no terminal I/O.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod chain;
pub mod changes;
pub mod checks;
mod context;
pub mod digest;
mod foreign;
mod object;
pub mod read;
pub mod record;
pub mod relationship;
pub mod snapshot;
mod stream_writer;
#[cfg(test)]
mod tests;
pub mod time;
pub mod updates;

pub use changes::{Change, ChangeCheck, ChangeReader, ChangeSealer};
pub use checks::{Check, CheckReader, CheckWriter};
pub use digest::{Digest, DigestSum, ExpiryPrecision, Hashes};
pub use read::{ReadError, RecordReader};
pub use record::{Header, Record, Trailer};
pub use snapshot::{Integrity, SnapshotReader, SnapshotWriter};
pub use updates::{UpdateReader, UpdateWriter};

/// The value of the header's `format` field in every stream that this version writes or reads.
pub const FORMAT: &str = "spice-stream/1";
