//! Sound streams of each kind, and what they mean to their readers.

use std::io::BufRead;

use authzed::v1::{Relationship, RelationshipUpdate, relationship_update::Operation};
use spice_record::checks::{Check, CheckReader, CheckWriter};
use spice_record::record::{Checkpoint, SchemaChange, StreamEnd, StreamKind, Transaction};
use spice_record::relationship::{StructJson, Update};
use spice_record::{
    Change, ChangeReader, ChangeSealer, ExpiryPrecision, Header, Integrity, ReadError, Record,
    RecordReader, SnapshotReader, SnapshotWriter, UpdateReader, UpdateWriter,
};
use testdata::Sample;

/// The kinds of stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Relationships at one revision.
    Snapshot,
    /// Transactions, schemas and checkpoints.
    Changes,
    /// Updates without revisions.
    Updates,
    /// Questions with answers.
    Checks,
}

/// All that a reader gives out, each as text; of a snapshot, sorted: its order means nothing.
pub type Meaning = Vec<String>;

fn header(stream: StreamKind) -> Header {
    Header {
        revision: Some("GhAKBENKRUgSCDBmNDQ4MDg2".to_owned()),
        schema: Some(testdata::SCHEMA.to_owned()),
        ..Header::new(stream, "fuzz", "2026-11-25T00:00:00Z")
    }
}

/// Relationships with everything: caveats with contexts, expiries down to the nanosecond.
fn relationships(count: u64) -> impl Iterator<Item = Relationship> {
    Sample::rich(count).iter()
}

fn update(number: usize, relationship: Relationship) -> RelationshipUpdate {
    let operation = match number % 3 {
        0 => Operation::Delete,
        _ => Operation::Touch,
    };
    RelationshipUpdate {
        operation: operation.into(),
        relationship: Some(relationship),
    }
}

/// Lines of a change stream: transactions with metadata, one in parts, a schema, checkpoints.
#[must_use]
pub(crate) fn changes(relationships_: u64) -> Vec<Change> {
    let updates: Vec<Update> = relationships(relationships_)
        .enumerate()
        .map(|(number, relationship)| Update(update(number, relationship)))
        .collect();
    let mut changes = Vec::new();
    for (number, updates) in updates.chunks(3).enumerate() {
        let revision = format!("revision-{number}");
        let metadata = r#"{"why":"a test","n":[1,2.5,{"a":null}]}"#;
        let metadata: StructJson = serde_json::from_str(metadata).unwrap_or_default();
        let parts = if number % 4 == 1 { 2 } else { 1 };
        let updates_of_part = updates.len().div_ceil(parts);
        for (part, updates) in updates.chunks(updates_of_part).enumerate() {
            let is_last = (part + 1) * updates_of_part >= updates.len() && part + 1 == parts;
            changes.push(Change::Transaction(Box::new(Transaction {
                revision: revision.clone(),
                updates: updates.to_vec(),
                metadata: if part == 0 {
                    vec![metadata.clone()]
                } else {
                    Vec::new()
                },
                part: (parts > 1).then_some(part as u64 + 1),
                last_part: (parts > 1 && is_last).then_some(true),
                contended: number % 5 == 3,
                ..Transaction::default()
            })));
        }
        if number.is_multiple_of(3) {
            changes.push(Change::Checkpoint(Box::new(Checkpoint {
                revision: format!("checkpoint-{number}"),
                at: Some("2026-11-25T00:00:01Z".to_owned()),
                lag: number.is_multiple_of(2).then_some(0.25),
                ..Checkpoint::default()
            })));
        }
        if number % 7 == 2 {
            changes.push(Change::Schema(Box::new(SchemaChange {
                revision: format!("schema-{number}"),
                text: format!("definition user {{}}\n// {number}\n"),
                ..SchemaChange::default()
            })));
        }
    }
    changes
}

impl Kind {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Snapshot, Self::Changes, Self::Updates, Self::Checks];

    /// A sound stream of about so many lines.
    ///
    /// # Panics
    ///
    /// Never: a `Vec` takes all.
    #[must_use]
    pub fn sound(self, lines: u64) -> Vec<u8> {
        self.write(lines).expect("a Vec takes all")
    }

    fn write(self, lines: u64) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Snapshot => {
                let header = header(StreamKind::Snapshot);
                let mut writer =
                    SnapshotWriter::create(Vec::new(), header, ExpiryPrecision::Micros)?;
                for mut relationship in relationships(lines) {
                    // A trailer that also has an exactDigest.
                    if let Some(expiry) = &mut relationship.optional_expires_at {
                        expiry.nanos += 7;
                    }
                    writer.write(&relationship)?;
                }
                writer.finish().map(|(_, out)| out)
            }
            Self::Updates => {
                let mut writer = UpdateWriter::create(Vec::new(), header(StreamKind::Updates))?;
                for (number, relationship) in relationships(lines).enumerate() {
                    writer.write(update(number, relationship))?;
                }
                writer.finish()
            }
            Self::Changes => {
                let (mut sealer, header) = ChangeSealer::begin(header(StreamKind::Changes));
                let mut records = vec![Record::Header(Box::new(header))];
                records.extend(
                    changes(3 * lines)
                        .into_iter()
                        .map(|change| sealer.seal(change)),
                );
                records.push(sealer.trailer(StreamEnd::Until));
                let mut out = Vec::new();
                for record in records {
                    serde_json::to_writer(&mut out, &record)?;
                    out.push(b'\n');
                }
                Ok(out)
            }
            Self::Checks => {
                let mut writer = CheckWriter::create(Vec::new(), header(StreamKind::Checks))?;
                for number in 0..lines {
                    let check = check(number).map_err(std::io::Error::other)?;
                    writer.write(check)?;
                }
                writer.finish()
            }
        }
    }

    /// What a stream means to the reader of this kind.
    ///
    /// # Errors
    ///
    /// Why it is refused.
    pub fn read(self, stream: impl BufRead) -> Result<Meaning, ReadError> {
        let mut records = RecordReader::new(stream, "fuzz");
        let header = match records.next_record()? {
            Some(Record::Header(header)) => header,
            Some(_) => return Err(records.fault("no header")),
            None => return Err(records.stream_fault("empty")),
        };
        let mut meaning = vec![format!("{header:?}")];
        let seal = Integrity::Verified;
        match self {
            Self::Snapshot => {
                let mut reader = SnapshotReader::after(records, header, seal)?;
                while let Some(relationship) = reader.next_relationship()? {
                    meaning.push(format!("{relationship:?}"));
                }
                meaning.sort();
            }
            Self::Changes => {
                let mut reader = ChangeReader::after(records, &header, seal)?;
                while let Some(change) = reader.next_change()? {
                    meaning.push(format!("{change:?}"));
                }
            }
            Self::Updates => {
                let mut reader = UpdateReader::after(records, header, seal)?;
                while let Some(update) = reader.next_update()? {
                    meaning.push(format!("{update:?}"));
                }
            }
            Self::Checks => {
                let mut reader = CheckReader::after(records, header)?;
                while let Some(check) = reader.next_check()? {
                    meaning.push(format!("{check:?}"));
                }
            }
        }
        Ok(meaning)
    }
}

fn check(number: u64) -> serde_json::Result<Check> {
    let answer = match number % 4 {
        0 => r#""item":{"permissionship":"PERMISSIONSHIP_HAS_PERMISSION"}"#,
        1 => r#""item":{"permissionship":"PERMISSIONSHIP_NO_PERMISSION"}"#,
        2 => {
            r#""item":{"permissionship":"PERMISSIONSHIP_CONDITIONAL_PERMISSION","partialCaveatInfo":{"missingRequiredContext":["used"]}}"#
        }
        _ => r#""error":{"code":9,"message":"max depth exceeded"}"#,
    };
    let other = if number.is_multiple_of(3) {
        r#","otherServer":{"item":{"permissionship":"PERMISSIONSHIP_NO_PERMISSION"}}"#
    } else {
        ""
    };
    serde_json::from_str(&format!(
        r#"{{"request":{{"resource":{{"objectType":"document","objectId":"d{number}"}},"permission":"view","subject":{{"object":{{"objectType":"user","objectId":"ann"}}}},"context":{{"limit":{number}}}}},{answer}{other}}}"#
    ))
}
