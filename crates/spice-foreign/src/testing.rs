//! Backups as zed's own encoder makes them, in blocks of 100 objects. For tests: no program enables it.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "for tests, and written to memory"
)]

use std::io::Write as _;

use authzed::v1::Relationship;

use crate::Codec;
use crate::avro::{ContainerWriter, put_bytes, put_long};
use crate::backup::{WRITTEN_LAYOUT, encode_relationship, encode_schema};

/// A backup, and where each of its blocks ends.
#[must_use]
pub fn zed_backup(
    schema: &str,
    relationships: &[Relationship],
    codec: Codec,
    metadata: &[(&str, &str)],
) -> (Vec<u8>, Vec<usize>) {
    let mut objects = vec![Vec::new()];
    encode_schema(schema, &mut objects[0]);
    for relationship in relationships {
        let mut object = Vec::new();
        encode_relationship(relationship, &mut object).unwrap();
        objects.push(object);
    }
    let writer = ContainerWriter::create(Vec::new(), codec, WRITTEN_LAYOUT, metadata).unwrap();
    let mut bytes = writer.into_inner();
    let sync = bytes[bytes.len() - 16..].to_vec();
    let mut ends = Vec::new();
    for block in objects.chunks(100) {
        put_long(&mut bytes, i64::try_from(block.len()).unwrap());
        put_bytes(&mut bytes, &pack(codec, &block.concat()));
        bytes.extend_from_slice(&sync);
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// Packs a block, also by the codecs that are read only.
fn pack(codec: Codec, block: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(block).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Xz => {
            let options = lzma_rust2::XzOptions::with_preset(1);
            let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            encoder.write_all(block).unwrap();
            encoder.finish().unwrap()
        }
        _ => codec.pack(block).unwrap(),
    }
}
