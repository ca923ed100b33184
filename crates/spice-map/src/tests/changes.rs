use authzed::v1::RelationshipUpdate;
use authzed::v1::relationship_update::Operation;
use spice_cli::Exit;
use spice_record::record::{Checkpoint, SchemaChange, StreamEnd, StreamKind, Transaction};
use spice_record::relationship::{DisplayRelationship, StructJson, Update};
use spice_record::{
    Change, ChangeReader, ChangeWriter, Header, Integrity, Record, RecordReader, UpdateReader,
    UpdateWriter,
};

use super::{REVISION, assert_refused, header, map, relationship};

const SCHEMA: &str =
    "definition crm/user {}\ndefinition crm/doc {\n relation viewer: crm/user\n}\n";

fn update(operation: Operation, text: &str) -> RelationshipUpdate {
    RelationshipUpdate {
        operation: operation.into(),
        relationship: Some(relationship(text)),
    }
}

fn transaction(revision: &str, updates: &[&str]) -> Transaction {
    let updates = updates
        .iter()
        .map(|text| Update(update(Operation::Touch, text)));
    Transaction {
        revision: revision.to_owned(),
        updates: updates.collect(),
        ..Transaction::default()
    }
}

fn changes(schema: &str, all: impl IntoIterator<Item = Change>, end: Option<StreamEnd>) -> String {
    let mut out = Vec::new();
    let mut writer = ChangeWriter::create(&mut out, header(StreamKind::Changes, schema)).unwrap();
    for change in all {
        writer.write(change).unwrap();
    }
    match end {
        Some(end) => drop(writer.finish(end).unwrap()),
        None => drop(writer),
    }
    String::from_utf8(out).unwrap()
}

/// The lines of a sealed stream, and why it ended.
fn read(stream: &str) -> (Header, Vec<Change>, StreamEnd) {
    let mut records = RecordReader::new(stream.as_bytes(), "test");
    let Some(Record::Header(header)) = records.next_record().unwrap() else {
        panic!("no header");
    };
    let mut reader = ChangeReader::after(records, &header, Integrity::Verified).unwrap();
    let mut all = Vec::new();
    while let Some(change) = reader.next_change().unwrap() {
        all.push(change);
    }
    (*header, all, reader.end_reason().unwrap())
}

fn sample() -> Vec<Change> {
    let mut first = transaction("r1", &["crm/doc:a#viewer@crm/user:ann"]);
    first.part = Some(1);
    let mut last = transaction("r1", &["crm/doc:b#viewer@crm/user:bob"]);
    (last.part, last.last_part) = (Some(2), Some(true));
    last.contended = true;
    last.metadata = vec![
        serde_json::from_str(r#"{"who":"ann","spicePipes":{"source":"s","by":"ann"}}"#).unwrap(),
        serde_json::from_str(r#"{"who":"bob"}"#).unwrap(),
    ];
    vec![
        Change::Transaction(Box::new(first)),
        Change::Transaction(Box::new(last)),
        Change::Schema(Box::new(SchemaChange {
            revision: "r2".to_owned(),
            text: format!("{SCHEMA}definition crm/new {{\n relation viewer: crm/doc\n}}\n"),
            ..SchemaChange::default()
        })),
        Change::Transaction(Box::new(transaction("r3", &["crm/new:n#viewer@crm/doc:a"]))),
        Change::Checkpoint(Box::new(Checkpoint {
            revision: "r4".to_owned(),
            at: Some("2026-11-27T00:00:00Z".to_owned()),
            lag: Some(0.5),
            ..Checkpoint::default()
        })),
    ]
}

#[test]
fn changes_keep_revisions_parts_and_the_reason_of_their_end() {
    for end in [StreamEnd::Until, StreamEnd::Quiet, StreamEnd::Signal] {
        let input = changes(SCHEMA, sample(), Some(end));
        let (written, counts) = map(&["--rename", "crm/=sales/"], &input).unwrap();
        assert!(
            !written.replace("rename crm/=sales/", "").contains("crm/"),
            "{written}"
        );
        let (header, all, found) = read(&written);
        assert_eq!((found, header.revision.as_deref()), (end, Some(REVISION)));
        assert_eq!((counts.read, counts.dropped), (3, 0));
        let revisions: Vec<_> = all.iter().map(Change::completed_revision).collect();
        assert_eq!(
            revisions,
            [None, Some("r1"), Some("r2"), Some("r3"), Some("r4")]
        );
        let Change::Transaction(last) = &all[1] else {
            panic!("{all:?}")
        };
        assert!(last.contended && last.metadata.len() == 2);
        let Change::Schema(schema) = &all[2] else {
            panic!("{all:?}")
        };
        assert!(schema.text.contains("relation viewer: sales/doc"));
        let Change::Checkpoint(checkpoint) = &all[4] else {
            panic!("{all:?}")
        };
        assert_eq!(checkpoint.lag, Some(0.5));
    }
}

#[test]
fn revision_of_which_nothing_is_kept_remains() {
    let input = changes(SCHEMA, sample(), Some(StreamEnd::Until));
    let (written, counts) = map(&["--only-type", "crm/new"], &input).unwrap();
    let (header, all, _) = read(&written);
    assert_eq!((all.len(), counts.dropped), (5, 2));
    assert_eq!(header.filter.unwrap().types, ["crm/new"]);
    assert!(!header.schema.unwrap().contains("definition"));
    let Change::Transaction(first) = &all[0] else {
        panic!("{all:?}")
    };
    assert!(first.updates.is_empty() && first.part == Some(1));
    let Change::Schema(schema) = &all[2] else {
        panic!("{all:?}")
    };
    assert!(schema.text.contains("definition crm/user") && schema.text.contains("crm/new"));
}

#[test]
fn redaction_leaves_only_the_origin_in_metadata() {
    let input = changes(SCHEMA, sample(), Some(StreamEnd::Until));
    let flags = ["--redact", "crm/user", "--key-file", "KEY"];
    let (written, _) = map(&flags, &input).unwrap();
    assert!(
        !written.contains("\"ann\"") && !written.contains("\"bob\""),
        "{written}"
    );
    let (_, all, _) = read(&written);
    let Change::Transaction(last) = &all[1] else {
        panic!("{all:?}")
    };
    let metadata: Vec<StructJson> = vec![
        serde_json::from_str(r#"{"spicePipes":{"source":"s"}}"#).unwrap(),
        StructJson::default(),
    ];
    assert_eq!(last.metadata, metadata);
}

#[test]
fn changes_that_were_cut_can_be_tried_again() {
    let input = changes(SCHEMA, sample(), None);
    assert_refused(
        &["--rename", "crm/=sales/"],
        &input,
        Exit::TryAgain,
        "without a trailer",
    );
    let sound = changes(SCHEMA, sample(), Some(StreamEnd::Until));
    let missing: Vec<&str> = sound
        .lines()
        .enumerate()
        .filter(|(n, _)| *n != 4)
        .map(|(_, l)| l)
        .collect();
    let missing = missing.join("\n") + "\n";
    assert_refused(&["--rename", "crm/=sales/"], &missing, Exit::BadData, "");
}

#[test]
fn schema_that_comes_later_and_collides_is_refused_by_its_revision() {
    let change = Change::Schema(Box::new(SchemaChange {
        revision: "r2".to_owned(),
        text: format!("{SCHEMA}definition sales/doc {{}}\n"),
        ..SchemaChange::default()
    }));
    let input = changes(SCHEMA, [change], Some(StreamEnd::Until));
    assert_refused(
        &["--rename", "crm/=sales/"],
        &input,
        Exit::Usage,
        "the schema of revision r2: --rename: line",
    );
}

#[test]
fn name_that_a_later_schema_may_bring_is_no_error_in_changes() {
    let input = changes(SCHEMA, sample(), Some(StreamEnd::Until));
    let (written, _) = map(&["--rename", "crm/new=crm/newest"], &input).unwrap();
    assert!(written.contains("crm/newest"));
}

#[test]
fn updates_are_mapped_without_a_schema() {
    let writer = UpdateWriter::create(Vec::new(), header(StreamKind::Updates, ""));
    let mut writer = writer.unwrap();
    writer
        .write(update(Operation::Delete, "crm/doc:a#viewer@crm/user:ann"))
        .unwrap();
    writer
        .write(update(Operation::Touch, "crm/old:a#viewer@crm/user:ann"))
        .unwrap();
    let input = String::from_utf8(writer.finish().unwrap()).unwrap();
    let flags = ["--rename", "crm/=sales/", "--drop", "crm/old"];
    let (written, counts) = map(&flags, &input).unwrap();
    assert_eq!((counts.read, counts.dropped), (2, 1));
    let mut records = RecordReader::new(written.as_bytes(), "test");
    let Some(Record::Header(header)) = records.next_record().unwrap() else {
        panic!("no header");
    };
    let mut reader = UpdateReader::after(records, header, Integrity::Verified).unwrap();
    let found = reader.next_update().unwrap().unwrap();
    assert_eq!(found.operation(), Operation::Delete);
    let shown = DisplayRelationship(found.relationship.as_ref().unwrap()).to_string();
    assert_eq!(shown, "sales/doc:a#viewer@sales/user:ann");
    assert_eq!(reader.next_update().unwrap(), None);
}

#[test]
fn name_that_updates_never_had_is_reported_at_their_end() {
    let writer = UpdateWriter::create(Vec::new(), header(StreamKind::Updates, ""));
    let mut writer = writer.unwrap();
    let touched = update(Operation::Touch, "crm/doc:a#viewer@crm/user:ann");
    writer.write(touched).unwrap();
    let input = String::from_utf8(writer.finish().unwrap()).unwrap();
    let flags = ["--redact", "crm/usre", "--key-file", "KEY"];
    let (_, counts) = map(&flags, &input).unwrap();
    assert_eq!(counts.unseen.as_deref(), Some("\"crm/usre\" (--redact)"));
}

#[test]
fn name_that_changes_never_had_is_reported_at_their_end() {
    let unseen = |schema: &str, name: &str| {
        let input = changes(schema, sample(), Some(StreamEnd::Until));
        map(&["--drop", name, "--drop-references"], &input)
            .unwrap()
            .1
            .unseen
    };
    let named = |name: &str| Some(format!("\"{name}\" (--drop)"));
    for schema in ["", SCHEMA] {
        assert_eq!(unseen(schema, "crm/usr"), named("crm/usr"));
        assert_eq!(unseen(schema, "crm/doc#seen"), named("crm/doc#seen"));
        // A later schema brings it.
        assert_eq!(unseen(schema, "crm/new"), None);
        assert_eq!(unseen(schema, "crm/new#viewer"), None);
    }
}

#[test]
fn stream_of_checks_is_refused() {
    let header = serde_json::to_string(&Record::Header(Box::new(
        header(StreamKind::Checks, SCHEMA).sealed(),
    )));
    let input = header.unwrap() + "\n";
    assert_refused(
        &["--rename", "crm/=sales/"],
        &input,
        Exit::BadData,
        "stream of checks",
    );
}
