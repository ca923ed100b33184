//! Relationships in the formats of others, read strictly and written so that their own readers take them.
//!
//! | module | holds |
//! |---|---|
//! | [`avro`] | Avro object container files: metadata, blocks, codecs |
//! | [`backup`] | zed's backups: the records in such a file, and what proves that one of ours is complete |
//! | [`text`] | a relationship a line, in SpiceDB's notation |
//! | [`validation`] | YAML validation files, as the playground and `zed validate` use them |
//!
//! No length that an input names is allocated before the bytes are there. Errors are those of
//! [`spice_record::read`]: the bytes are at fault, unless the operating system reported one.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod avro;
pub mod backup;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod validation;

use std::io;

use spice_record::ReadError;

pub use avro::Codec;
pub use backup::{BackupReader, BackupWriter};
pub use text::TextReader;
pub use validation::{ValidationFile, ValidationWriter};

/// The error of a read. A decompressor reports damage through these two kinds.
#[must_use]
pub fn read_error(name: &str, source: io::Error) -> ReadError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => ReadError::Stream {
            name: name.to_owned(),
            message: format!("damaged: {source}"),
        },
        _ => ReadError::Io {
            name: name.to_owned(),
            source,
        },
    }
}
