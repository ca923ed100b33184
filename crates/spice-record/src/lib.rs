//! The `spice-stream/1` format: what travels between the programs, one JSON object per line.
//!
//! The normative text is `docs/format.md`. Here:
//!
//! | module | holds |
//! |---|---|
//! | [`record`] | the kinds of line and their fields |
//! | [`relationship`] | SpiceDB's messages as proto3 JSON, and how a relationship is named in a message |
//! | [`read`] | bytes to records: line numbers, length limit, torn last line |
//! | [`snapshot`] | writer and reader of a snapshot stream: header, relationships, trailer |
//! | [`changes`] | writer and reader of a change stream, and which revision is complete; a spool holds the same lines |
//! | [`updates`] | writer and reader of an update stream: header, updates, trailer |
//! | [`checks`] | writer and reader of a stream of checks: questions with their answers |
//! | [`Integrity`] | how strictly a reader checks |
//! | [`foreign`] | what an input is that is no stream |
//! | [`printable`] | which characters are shown as they are |
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
pub mod foreign;
mod integrity;
mod object;
pub mod printable;
pub mod read;
pub mod record;
pub mod relationship;
pub mod snapshot;
mod stream_writer;
#[cfg(test)]
mod tests;
pub mod time;
pub mod updates;

pub use changes::{Change, ChangeCheck, ChangeReader, ChangeSealer, ChangeWriter};
pub use checks::{Check, CheckReader, CheckWriter};
pub use digest::{Digest, DigestSum, ExpiryPrecision, Hashes};
pub use integrity::Integrity;
pub use read::{ReadError, RecordReader};
pub use record::{Header, Record, Trailer};
pub use snapshot::{SnapshotReader, SnapshotWriter};
pub use updates::{UpdateReader, UpdateWriter};

/// The value of the header's `format` field in every stream that this version writes or reads.
pub const FORMAT: &str = "spice-stream/1";
