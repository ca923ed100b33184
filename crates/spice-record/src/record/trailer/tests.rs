//! Each reader refuses a trailer that proves nothing.

use authzed::v1::{
    CheckBulkPermissionsRequestItem, ObjectReference, Relationship, RelationshipUpdate,
    SubjectReference,
};

use crate::checks::{Answer, Check, Fault, Question};
use crate::record::{Checkpoint, StreamEnd, StreamKind, Transaction};
use crate::{
    Change, ChangeCheck, ChangeReader, ChangeWriter, CheckReader, CheckWriter, ExpiryPrecision,
    Header, Integrity, ReadError, Record, RecordReader, SnapshotReader, SnapshotWriter,
    UpdateReader, UpdateWriter,
};

fn header(stream: StreamKind) -> Header {
    Header {
        revision: Some("start".to_owned()),
        ..Header::new(stream, "test", "2026-11-24T00:00:00Z")
    }
}

fn object(object_type: &str, object_id: &str) -> Option<ObjectReference> {
    Some(ObjectReference {
        object_type: object_type.to_owned(),
        object_id: object_id.to_owned(),
    })
}

fn subject() -> Option<SubjectReference> {
    Some(SubjectReference {
        object: object("user", "eve"),
        optional_relation: String::new(),
    })
}

fn relationship(id: &str) -> Relationship {
    Relationship {
        resource: object("document", id),
        relation: "viewer".to_owned(),
        subject: subject(),
        ..Relationship::default()
    }
}

fn transaction(revision: &str) -> Change {
    Change::Transaction(Box::new(Transaction {
        revision: revision.to_owned(),
        ..Transaction::default()
    }))
}

fn checkpoint(revision: &str) -> Change {
    Change::Checkpoint(Box::new(Checkpoint {
        revision: revision.to_owned(),
        ..Checkpoint::default()
    }))
}

/// A complete stream of a kind, with two records.
fn stream(kind: StreamKind) -> String {
    let (header, out) = (header(kind), Vec::new());
    let bytes = match kind {
        StreamKind::Snapshot => {
            let writer = SnapshotWriter::create(out, header, ExpiryPrecision::Micros);
            let mut writer = writer.unwrap();
            writer.write(&relationship("a")).unwrap();
            writer.write(&relationship("b")).unwrap();
            writer.finish().unwrap().1
        }
        StreamKind::Changes => {
            let mut writer = ChangeWriter::create(out, header).unwrap();
            writer.write(transaction("one")).unwrap();
            writer.write(checkpoint("two")).unwrap();
            writer.flush().unwrap();
            writer.finish(StreamEnd::Until).unwrap()
        }
        StreamKind::Updates => {
            let mut writer = UpdateWriter::create(out, header).unwrap();
            for id in ["a", "b"] {
                let update = RelationshipUpdate {
                    operation: 2,
                    relationship: Some(relationship(id)),
                };
                writer.write(update).unwrap();
            }
            writer.finish().unwrap()
        }
        StreamKind::Checks => {
            let mut writer = CheckWriter::create(out, header).unwrap();
            for id in ["a", "b"] {
                let request = CheckBulkPermissionsRequestItem {
                    resource: object("document", id),
                    permission: "view".to_owned(),
                    subject: subject(),
                    context: None,
                };
                let check = Check {
                    request: Question(request),
                    answer: Answer::Error(Fault {
                        code: 9,
                        message: "no".to_owned(),
                        reason: None,
                    }),
                    other_server: None,
                    inconclusive: false,
                };
                writer.write(check).unwrap();
            }
            writer.finish().unwrap()
        }
    };
    String::from_utf8(bytes).unwrap()
}

const KINDS: [StreamKind; 4] = [
    StreamKind::Snapshot,
    StreamKind::Changes,
    StreamKind::Updates,
    StreamKind::Checks,
];

/// Reads a stream to its end, as strictly as possible; how many records came.
fn read(kind: StreamKind, stream: &str) -> Result<usize, ReadError> {
    let mut records = RecordReader::new(stream.as_bytes(), "test");
    let Some(Record::Header(header)) = records.next_record()? else {
        panic!("no header");
    };
    let (strict, mut count) = (Integrity::Verified, 0);
    match kind {
        StreamKind::Snapshot => {
            let mut reader = SnapshotReader::after(records, header, strict)?;
            while reader.next_relationship()?.is_some() {
                count += 1;
            }
            assert!(reader.is_verified());
        }
        StreamKind::Changes => {
            let mut reader = ChangeReader::after(records, &header, strict)?;
            while reader.next_change()?.is_some() {
                count += 1;
            }
            assert_eq!(reader.through(), Some("two"));
        }
        StreamKind::Updates => {
            let mut reader = UpdateReader::after(records, header, strict)?;
            while reader.next_update()?.is_some() {
                count += 1;
            }
        }
        StreamKind::Checks => {
            let mut reader = CheckReader::after(records, header)?;
            while reader.next_check()?.is_some() {
                count += 1;
            }
        }
    }
    Ok(count)
}

#[test]
fn what_a_writer_writes_its_reader_reads_to_the_end() {
    for kind in KINDS {
        assert_eq!(read(kind, &stream(kind)).unwrap(), 2, "{kind}");
    }
}

#[test]
fn trailer_without_its_checksum_is_refused_by_each_reader() {
    for kind in KINDS {
        for (fault, stream) in testdata::faulty_trailers(&stream(kind)) {
            if !fault.starts_with("checksum") {
                continue;
            }
            let error = read(kind, &stream).expect_err(fault);
            let error = error.to_string();
            assert!(error.contains("checksum"), "{kind}, {fault}: {error}");
        }
    }
}

#[test]
fn faulty_trailer_is_refused_by_each_reader() {
    for kind in KINDS {
        let variants = testdata::faulty_trailers(&stream(kind));
        assert!(variants.len() >= 7, "{kind}");
        for (fault, stream) in variants {
            assert!(read(kind, &stream).is_err(), "{kind}: {fault}");
        }
    }
}

#[test]
fn stream_without_its_trailer_is_reported_as_cut() {
    for kind in KINDS {
        let stream = stream(kind);
        let (rest, _) = stream.trim_end().rsplit_once('\n').unwrap();
        let error = read(kind, &format!("{rest}\n")).unwrap_err();
        assert!(matches!(error, ReadError::Cut { .. }), "{kind}: {error}");
    }
}

#[test]
fn records_after_the_trailer_are_refused() {
    for kind in KINDS {
        let stream = stream(kind);
        let record = stream.lines().nth(1).unwrap();
        let error = read(kind, &format!("{stream}{record}\n")).unwrap_err();
        assert!(
            error.to_string().contains("after the trailer"),
            "{kind}: {error}"
        );
    }
}

#[test]
fn trailer_of_another_kind_is_refused() {
    for kind in KINDS {
        for other in KINDS.into_iter().filter(|other| *other != kind) {
            let (own, other_stream) = (stream(kind), stream(other));
            let (rest, _) = own.trim_end().rsplit_once('\n').unwrap();
            let trailer = other_stream.lines().last().unwrap();
            let mixed = format!("{rest}\n{trailer}\n");
            assert!(read(kind, &mixed).is_err(), "{kind} with {other}");
        }
    }
}

/// Where a check of these changes resumes: with and without settling.
fn resumes(changes: &[Change]) -> (Option<String>, Option<String>) {
    let header = header(StreamKind::Changes).sealed();
    let mut check = ChangeCheck::begin(&header, Integrity::Unchecked).unwrap();
    for change in changes {
        check.check(change).unwrap();
    }
    let of = |settle| check.resume_from(settle).map(str::to_owned);
    (of(false), of(true))
}

#[test]
fn revision_to_resume_from_is_the_last_complete_or_settled_one() {
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(resumes(&[]), (some("start"), some("start")));
    let one = transaction("one");
    assert_eq!(
        resumes(std::slice::from_ref(&one)),
        (some("one"), some("start"))
    );
    let all = [one, checkpoint("two"), transaction("three")];
    assert_eq!(resumes(&all), (some("three"), some("two")));
}

#[test]
fn revision_in_parts_is_complete_with_its_last_part() {
    let part = |number, last: bool| {
        Change::Transaction(Box::new(Transaction {
            revision: "one".to_owned(),
            part: Some(number),
            last_part: last.then_some(true),
            ..Transaction::default()
        }))
    };
    assert_eq!(part(1, false).completed_revision(), None);
    assert_eq!(part(2, true).completed_revision(), Some("one"));
    let (through, _) = resumes(&[part(1, false)]);
    assert_eq!(through.as_deref(), Some("start"));
    let (through, _) = resumes(&[part(1, false), part(2, true)]);
    assert_eq!(through.as_deref(), Some("one"));
}

#[test]
fn middle_without_checkpoint_resumes_at_its_last_transaction() {
    let mut check = ChangeCheck::in_the_middle(Integrity::Unchecked);
    assert_eq!(check.resume_from(true), None);
    check.check(&transaction("one")).unwrap();
    assert_eq!(check.resume_from(true), Some("one"));
}
