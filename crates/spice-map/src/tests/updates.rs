//! The difference of two snapshots, once it is mapped, is the difference of the mapped snapshots.

use std::collections::BTreeMap;

use authzed::v1::RelationshipUpdate;
use authzed::v1::relationship_update::Operation;
use proptest::prelude::*;
use spice_record::record::StreamKind;
use spice_record::relationship::DisplayRelationship;
use spice_record::{Integrity, Record, RecordReader, UpdateReader, UpdateWriter};

use super::{header, map, read, relationship, snapshot};

const SCHEMA: &str = "caveat c(x int) { x == 1 }\ncaveat d(x int) { x == 2 }\n\
    definition user {}\ndefinition team {\n relation member: user | user with c\n}\n\
    definition doc {\n relation viewer: user | user with c | user with d | team#member\n \
    relation editor: user | user with c\n}\n";

/// What the relationships of a source can be, without their caveats.
const KEYS: [&str; 6] = [
    "doc:1#viewer@user:ann",
    "doc:1#editor@user:ann",
    "doc:2#viewer@user:bob",
    "doc:2#viewer@team:eng#member",
    "team:eng#member@user:ann",
    "doc:2#editor@user:bob",
];

const FLAGS: [&[&str]; 7] = [
    &["--drop", "c", "--drop-references"],
    &["--drop", "c", "--drop", "d", "--drop-references"],
    &["--drop", "doc#editor"],
    &["--only-type", "doc", "--drop", "d", "--drop-references"],
    &["--only-resource-prefix", "doc:2"],
    &["--rename", "doc=file", "--rename", "c=e"],
    &[
        "--redact",
        "user",
        "--key-file",
        "KEY",
        "--drop",
        "c",
        "--drop-references",
    ],
];

/// For each key: not there, without a caveat, with `c`, with `d`.
type States = [u8; KEYS.len()];

/// The relationships of a source, as text. Only the first takes `d`.
fn held(states: States) -> BTreeMap<usize, String> {
    let held = states.into_iter().enumerate().filter_map(|(key, state)| {
        let name = KEYS[key];
        let takes_caveats = !name.contains("@team");
        Some((
            key,
            match state {
                0 => return None,
                2 if takes_caveats => format!("{name}[c]"),
                3 if name.contains("viewer") && takes_caveats => format!("{name}[d]"),
                _ => name.to_owned(),
            },
        ))
    });
    held.collect()
}

fn updates_between(before: &BTreeMap<usize, String>, after: &BTreeMap<usize, String>) -> String {
    let mut writer = UpdateWriter::create(Vec::new(), header(StreamKind::Updates, "")).unwrap();
    for key in 0..KEYS.len() {
        let (operation, text) = match (before.get(&key), after.get(&key)) {
            (old, new) if old == new => continue,
            (_, Some(new)) => (Operation::Touch, new),
            (Some(old), None) => (Operation::Delete, old),
            (None, None) => continue,
        };
        let update = RelationshipUpdate {
            operation: operation.into(),
            relationship: Some(relationship(text)),
        };
        writer.write(update).unwrap();
    }
    String::from_utf8(writer.finish().unwrap()).unwrap()
}

/// A mapped snapshot: what it holds, by what identifies each.
fn mapped(flags: &[&str], held: &BTreeMap<usize, String>) -> BTreeMap<String, String> {
    let held: Vec<&str> = held.values().map(String::as_str).collect();
    let (written, _) = map(flags, &snapshot(SCHEMA, &held)).unwrap();
    let relationships = read(&written).1;
    let shown = relationships
        .iter()
        .map(|one| DisplayRelationship(one).to_string());
    shown.map(|text| (key_of(&text), text)).collect()
}

fn key_of(text: &str) -> String {
    text.split('[').next().unwrap().to_owned()
}

fn apply(updates: &str, target: &mut BTreeMap<String, String>) {
    let mut records = RecordReader::new(updates.as_bytes(), "test");
    let Some(Record::Header(header)) = records.next_record().unwrap() else {
        panic!("no header");
    };
    let mut reader = UpdateReader::after(records, header, Integrity::Verified).unwrap();
    while let Some(update) = reader.next_update().unwrap() {
        let text = DisplayRelationship(update.relationship.as_ref().unwrap()).to_string();
        match update.operation() {
            Operation::Delete => drop(target.remove(&key_of(&text))),
            _ => drop(target.insert(key_of(&text), text)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mapped_difference_is_that_of_the_mapped_snapshots(
        before in proptest::array::uniform6(0..4_u8),
        after in proptest::array::uniform6(0..4_u8),
        flags in 0..FLAGS.len(),
    ) {
        let (before, after) = (held(before), held(after));
        let flags = FLAGS[flags];
        let mut target = mapped(flags, &before);
        let updates = updates_between(&before, &after);
        if updates.lines().count() > 2 {
            apply(&map(flags, &updates).unwrap().0, &mut target);
        }
        prop_assert_eq!(target, mapped(flags, &after), "{:?}: {:?} to {:?}", flags, before, after);
    }
}

#[test]
fn grant_that_becomes_conditional_on_a_dropped_caveat_is_revoked() {
    let flags = ["--drop", "c", "--drop-references"];
    let held = |text: &str| BTreeMap::from([(0, text.to_owned())]);
    let (plain, conditional) = (held(KEYS[0]), held("doc:1#viewer@user:ann[c]"));
    for (before, after) in [
        (&plain, conditional.clone()),
        (&conditional, BTreeMap::new()),
    ] {
        let updates = updates_between(before, &after);
        let (written, counts) = map(&flags, &updates).unwrap();
        assert_eq!((counts.read, counts.dropped), (1, 0));
        let mut target = BTreeMap::from([(KEYS[0].to_owned(), KEYS[0].to_owned())]);
        apply(&written, &mut target);
        assert!(target.is_empty(), "{written}");
        assert!(!written.contains("aveat"), "{written}");
    }
}
