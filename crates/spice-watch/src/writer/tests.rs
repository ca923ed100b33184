use prost_types::{Struct, Value, value::Kind};
use spice_record::record::StreamKind;
use spice_record::{ChangeCheck, Integrity, Record, RecordReader};
use spice_spool::Spool;
use testserver::{touch, transaction};

use super::*;

fn header(schema: &str) -> Header {
    Header {
        revision: Some("start".to_owned()),
        schema: Some(schema.to_owned()),
        ..Header::new(StreamKind::Changes, "test", "2026-11-24T00:00:00Z")
    }
}

fn changes(revision: &str, count: usize) -> Event {
    Event::Transaction {
        revision: revision.to_owned(),
        updates: (0..count).map(|n| touch(&format!("d{n}"))).collect(),
        metadata: Vec::new(),
        contended: false,
    }
}

fn checkpoint(revision: &str) -> Event {
    Event::Checkpoint(Checkpoint {
        revision: revision.to_owned(),
        ..Checkpoint::default()
    })
}

/// Writes events to a new spool with segments of this size; gives all segments' records.
fn write(events: Vec<Event>, segment: Option<u64>) -> Result<Vec<Vec<Record>>, CommandError> {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::new(&folder.path().join("spool"));
    let sink = Sink::Spool(Box::new(SpoolWriter::open(&spool, segment)?.0));
    let (sender, receiver) = byte_channel::channel(1 << 30);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for event in events {
        assert!(runtime.block_on(sender.send(event, 1)));
    }
    drop(sender);
    let mut writer = Writer {
        sink: Some(sink),
        schema: Some("one".to_owned()),
        progress: Progress::start("updates", true),
    };
    writer.run(receiver)?;
    let numbers = spool.segments().unwrap().into_iter();
    Ok(numbers.map(|number| read(&spool, number)).collect())
}

/// The records of a segment, each checked.
fn read(spool: &Spool, number: u64) -> Vec<Record> {
    let file = std::fs::File::open(spool.segment(number)).unwrap();
    let mut reader = RecordReader::new(io::BufReader::new(file), "spool");
    let mut records = Vec::new();
    let mut check = None;
    while let Some(record) = reader.next_record().unwrap() {
        match (&mut check, Change::try_from(record.clone())) {
            (Some(check), Ok(change)) => ChangeCheck::check(check, &change).unwrap(),
            (None, Err(Record::Header(header))) => {
                check = Some(ChangeCheck::begin(&header, Integrity::Verified).unwrap());
            }
            other => panic!("{other:?}"),
        }
        records.push(record);
    }
    records
}

fn parts(records: &[Record]) -> Vec<(usize, Option<u64>, Option<bool>)> {
    let transactions = records.iter().filter_map(|record| match record {
        Record::Transaction(t) => Some((t.updates.len(), t.part, t.last_part)),
        _ => None,
    });
    transactions.collect()
}

fn header_event() -> Event {
    Event::Header(Box::new(header("one")))
}

#[test]
fn transaction_of_common_size_is_one_line() {
    let written = write(vec![header_event(), changes("a", PART_UPDATES)], None).unwrap();
    assert_eq!(parts(&written[0]), [(PART_UPDATES, None, None)]);
}

#[test]
fn only_the_last_part_of_a_large_transaction_is_marked() {
    let events = vec![header_event(), changes("a", 2 * PART_UPDATES + 1)];
    let written = write(events, None).unwrap();
    assert_eq!(
        parts(&written[0]),
        [
            (PART_UPDATES, Some(1), None),
            (PART_UPDATES, Some(2), None),
            (1, Some(3), Some(true)),
        ]
    );
}

#[test]
fn transaction_without_updates_is_one_line() {
    let written = write(vec![header_event(), changes("a", 0)], None).unwrap();
    assert_eq!(parts(&written[0]), [(0, None, None)]);
}

/// An update with a caveat context of so many values.
fn with_context(values: usize) -> RelationshipUpdate {
    let value = |n: usize| Value {
        kind: Some(Kind::NumberValue(n as f64)),
    };
    let fields = (0..values).map(|n| (format!("v{n}"), value(n))).collect();
    let mut update = touch("a");
    if let Some(relationship) = &mut update.relationship {
        relationship.optional_caveat = Some(authzed::v1::ContextualizedCaveat {
            caveat_name: "c".to_owned(),
            context: Some(Struct { fields }.into()),
        });
    }
    update
}

#[test]
fn parts_are_bounded_by_values_of_contexts() {
    let updates = (0..4)
        .map(|_| with_context(PART_CONTEXT_VALUES / 3))
        .collect();
    let event = Event::Transaction {
        revision: "a".to_owned(),
        updates,
        metadata: Vec::new(),
        contended: false,
    };
    let written = write(vec![header_event(), event], None).unwrap();
    let counts: Vec<usize> = parts(&written[0]).iter().map(|part| part.0).collect();
    assert_eq!(counts.iter().sum::<usize>(), 4);
    assert!(counts.len() >= 2, "{counts:?}");
}

#[test]
fn metadata_is_on_the_first_part_only() {
    let event = Event::Transaction {
        revision: "a".to_owned(),
        updates: (0..PART_UPDATES + 1)
            .map(|n| touch(&n.to_string()))
            .collect(),
        metadata: vec![authzed::JsonObject::default()],
        contended: false,
    };
    let written = write(vec![header_event(), event], None).unwrap();
    let metadata = written[0].iter().filter_map(|record| match record {
        Record::Transaction(t) => Some(t.metadata.len()),
        _ => None,
    });
    assert_eq!(metadata.collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn segments_start_after_a_complete_revision_and_record_it() {
    let schema = Event::Schema(SchemaChange {
        revision: "b".to_owned(),
        text: "two".to_owned(),
        ..SchemaChange::default()
    });
    let events = vec![
        header_event(),
        changes("a", 2 * PART_UPDATES),
        schema,
        checkpoint("c"),
    ];
    let written = write(events, Some(1)).unwrap();
    let headers = written.iter().map(|records| match &records[0] {
        Record::Header(header) => {
            let revision = header.revision.clone().unwrap();
            (revision, header.schema.clone().unwrap(), records.len())
        }
        other => panic!("{other:?}"),
    });
    let headers: Vec<_> = headers.collect();
    let expected = [
        ("start", "one", 3),
        ("a", "one", 2),
        ("b", "two", 2),
        ("c", "two", 1),
    ];
    let expected = expected.map(|(r, s, n)| (r.to_owned(), s.to_owned(), n));
    assert_eq!(headers, expected);
}

#[test]
fn end_of_a_spool_writes_no_trailer() {
    let events = vec![
        header_event(),
        checkpoint("a"),
        Event::End(StreamEnd::Until),
    ];
    assert_eq!(write(events, None).unwrap()[0].len(), 2);
}

#[test]
fn stream_without_a_header_is_refused() {
    assert_eq!(
        write(vec![checkpoint("a")], None).unwrap_err().exit,
        Exit::Failed
    );
}

#[test]
fn weight_grows_with_the_updates() {
    let (few, many) = (transaction(1, &["a"]), transaction(1, &["a"; 100]));
    assert!(weight(&many) > 50 * weight(&few));
}

#[tokio::test(start_paused = true)]
async fn emitter_without_a_reader_fails() {
    let (emitter, events) = Emitter::to_test(100);
    drop(events);
    let failure = emitter.send(checkpoint("a"), 1).await.unwrap_err();
    assert_eq!(failure.message(), "the output is closed");
}

#[tokio::test(start_paused = true)]
async fn emitter_counts_as_drained_once_half_of_its_room_is_free() {
    let (emitter, mut events) = Emitter::to_test(WAITING_BYTES);
    emitter
        .send(checkpoint("a"), WAITING_BYTES / 2 + 1)
        .await
        .unwrap();
    assert!(emitter.is_full(WAITING_BYTES / 2));
    let drained = tokio::time::timeout(Duration::from_secs(60), emitter.drained());
    assert!(drained.await.is_err());
    drop(events.try_recv().unwrap());
    let drained = tokio::time::timeout(Duration::from_secs(60), emitter.drained());
    assert!(drained.await.is_ok());
}
