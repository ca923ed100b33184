//! Backups as zed's own encoder makes them, in blocks of 100 objects. For tests: no program enables it.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "for tests, and written to memory"
)]

use authzed::v1::Relationship;

use crate::Codec;
use crate::avro::ContainerWriter;
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
    let mut writer = ContainerWriter::create(Vec::new(), codec, WRITTEN_LAYOUT, metadata).unwrap();
    let mut ends = Vec::new();
    for block in objects.chunks(100) {
        for object in block {
            writer.put(object).unwrap();
        }
        ends.push(writer.flushed().unwrap());
    }
    (writer.into_inner(), ends)
}
