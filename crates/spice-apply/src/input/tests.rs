//! What the reading thread delivers, and what it refuses, of streams of every kind.

use std::cell::RefCell;
use std::io::Write as _;

use spice_client::scripted::{delete, token_of, touch};
use spice_record::record::{Checkpoint, StreamEnd};
use spice_record::{ChangeWriter, UpdateWriter};

use super::*;

fn revision(number: u64) -> String {
    let nanos = 1_795_415_107_142_000_000 + number;
    token_of("sourcedb", &format!("{nanos}.0000000000"))
}

fn header(kind: StreamKind) -> Header {
    let header = Header::new(kind, "test", "2026-11-26T05:00:00Z");
    match kind {
        StreamKind::Changes => Header {
            revision: Some(revision(0)),
            ..header
        },
        _ => header,
    }
}

fn transaction(number: u64) -> Change {
    Change::Transaction(Box::new(Transaction {
        revision: revision(number),
        updates: vec![Update(touch(&number.to_string()))],
        ..Transaction::default()
    }))
}

fn checkpoint(number: u64) -> Change {
    Change::Checkpoint(Box::new(Checkpoint {
        revision: revision(number),
        ..Checkpoint::default()
    }))
}

/// Transactions 1 to `count`, then a checkpoint.
fn changes(count: u64) -> String {
    let mut writer = ChangeWriter::create(Vec::new(), header(StreamKind::Changes)).unwrap();
    for number in 1..=count {
        writer.write(transaction(number)).unwrap();
    }
    writer.write(checkpoint(count + 1)).unwrap();
    String::from_utf8(writer.finish(StreamEnd::Until).unwrap()).unwrap()
}

fn update_stream(count: usize) -> String {
    let mut writer = UpdateWriter::create(Vec::new(), header(StreamKind::Updates)).unwrap();
    for number in 0..count {
        let update = match number % 3 {
            0 => delete(&number.to_string()),
            _ => touch(&number.to_string()),
        };
        writer.write(update).unwrap();
    }
    String::from_utf8(writer.finish().unwrap()).unwrap()
}

/// How a stream is read.
struct Reading {
    seal: Integrity,
    position: Option<Position>,
    at_least_once: bool,
    /// So many steps are taken, then the loop has ended.
    takes: usize,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            seal: Integrity::Verified,
            position: None,
            at_least_once: false,
            takes: usize::MAX,
        }
    }
}

impl Reading {
    /// The steps as text, the weight of each, and how reading ended.
    fn of(self, stream: &str) -> (Vec<String>, Vec<usize>, Result<(), CommandError>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(stream.as_bytes()).unwrap();
        let input = Input {
            file: file.path().to_owned(),
            spool: None,
            position: self.position,
            seal: self.seal,
            at_least_once: self.at_least_once,
            until: false,
            stop: Arc::default(),
        };
        let taken = RefCell::new((Vec::new(), Vec::new()));
        let ended = input.read(&|step, bytes| {
            let mut taken = taken.borrow_mut();
            if taken.0.len() == self.takes {
                return false;
            }
            taken.0.push(text(&step));
            taken.1.push(bytes);
            true
        });
        let (steps, bytes) = taken.into_inner();
        (steps, bytes, ended)
    }
}

/// A step in one word, with the number of its revision or the count of its updates.
fn text(step: &Step) -> String {
    let number = |token: &str| (0..10_000).find(|number| revision(*number) == token);
    match step {
        Step::Opened(_) => "opened".to_owned(),
        Step::Header(header) => format!("header {}", header.is_some()),
        Step::Transaction(change, _) => format!("transaction {:?}", number(&change.revision)),
        Step::Updates(updates) => format!("updates {}", updates.len()),
        Step::Schema(..) => "schema".to_owned(),
        Step::Checkpoint(token, _) => format!("checkpoint {:?}", number(token)),
        Step::EarlyThrough(token) => format!("early through {:?}", number(token)),
        Step::End(through) => format!("end {:?}", through.as_deref().and_then(number)),
        Step::Cut(failure) => format!("cut {:?}", failure.exit),
        Step::Failed(failure) => format!("failed {:?}", failure.exit),
    }
}

fn steps(stream: &str) -> Vec<String> {
    let (steps, _, ended) = Reading::default().of(stream);
    ended.unwrap();
    steps
}

#[test]
fn changes_are_delivered_in_order_and_end_at_the_last_revision() {
    assert_eq!(
        steps(&changes(2)),
        [
            "header true",
            "transaction Some(1)",
            "transaction Some(2)",
            "checkpoint Some(3)",
            "end Some(3)"
        ]
    );
}

#[test]
fn cut_change_stream_delivers_its_complete_records_and_then_75() {
    let stream = changes(3);
    let lines: Vec<&str> = stream.lines().collect();
    // Between two lines, and inside one.
    let between = lines[..3].join("\n") + "\n";
    let torn = between.clone() + &lines[3][..20];
    for cut in [between, torn] {
        assert_eq!(
            steps(&cut),
            [
                "header true",
                "transaction Some(1)",
                "transaction Some(2)",
                "cut TryAgain"
            ]
        );
    }
}

#[test]
fn missing_or_altered_line_is_refused_after_those_before_it() {
    let stream = changes(4);
    let lines: Vec<&str> = stream.lines().collect();
    let without = [&lines[..2], &lines[3..]].concat().join("\n") + "\n";
    let altered = stream.replacen("\"3\"", "\"7\"", 1);
    assert_ne!(altered, stream);
    for (damaged, before) in [(without, 2), (altered, 3)] {
        let (steps, _, ended) = Reading::default().of(&damaged);
        assert_eq!(ended.unwrap_err().exit, Exit::BadData);
        assert_eq!(steps.len(), before, "{steps:?}");
    }
}

#[test]
fn trailer_that_proves_nothing_is_refused_for_every_kind() {
    let snapshot = testdata::snapshot(20);
    for sound in [changes(3), update_stream(20), snapshot] {
        for (fault, stream) in testdata::faulty_trailers(&sound) {
            let (steps, _, ended) = Reading::default().of(&stream);
            // A change stream without its end is cut: what came is good.
            match ended {
                Ok(()) => assert_eq!(steps.last().unwrap(), "cut TryAgain", "{fault}"),
                Err(failure) => assert_eq!(failure.exit, Exit::BadData, "{fault}"),
            }
            assert!(!steps.iter().any(|step| step.starts_with("end")), "{fault}");
        }
    }
}

#[test]
fn updates_smaller_than_a_group_wait_for_the_trailer() {
    let stream = update_stream(GROUP - 1);
    let last = stream.trim_end().rfind('\n').unwrap();
    let (delivered, _, ended) = Reading::default().of(&stream[..=last]);
    assert_eq!(delivered, ["header true"], "nothing is verified yet");
    assert_eq!(ended.unwrap_err().exit, Exit::BadData);
    assert_eq!(steps(&stream), ["header true", "updates 999", "end None"]);
}

#[test]
fn larger_sets_of_updates_are_delivered_in_groups() {
    assert_eq!(
        steps(&update_stream(2 * GROUP + 1)),
        [
            "header true",
            "updates 1000",
            "updates 1000",
            "updates 1",
            "end None"
        ]
    );
}

#[test]
fn snapshot_is_touched() {
    assert_eq!(
        steps(&testdata::snapshot(20)),
        ["header true", "updates 20", "end None"]
    );
}

#[test]
fn position_of_another_start_is_a_gap() {
    let at = |number| {
        Some(Position {
            source_revision: revision(number),
            ..Position::default()
        })
    };
    let reading = |position| Reading {
        position,
        ..Reading::default()
    };
    // The stream begins after 0: a position at 5 sees all that it leaves out.
    let (_, _, ended) = reading(at(5)).of(&changes(9));
    ended.unwrap();
    let mut begins_later = ChangeWriter::create(
        Vec::new(),
        Header {
            revision: Some(revision(8)),
            ..header(StreamKind::Changes)
        },
    )
    .unwrap();
    begins_later.write(transaction(9)).unwrap();
    let begins_later = begins_later.finish(StreamEnd::Until).unwrap();
    let (steps, _, ended) = reading(at(5)).of(&String::from_utf8(begins_later).unwrap());
    assert_eq!(steps, [] as [&str; 0]);
    let failure = ended.unwrap_err();
    assert_eq!(failure.exit, Exit::BadData);
    assert!(failure.message().contains("gap"), "{failure:?}");
}

#[test]
fn only_changes_have_a_position() {
    let position = Position {
        source_revision: revision(1),
        ..Position::default()
    };
    for stream in [update_stream(3), testdata::snapshot(3)] {
        let reading = Reading {
            position: Some(position.clone()),
            ..Reading::default()
        };
        let (steps, _, ended) = reading.of(&stream);
        assert_eq!((steps.len(), ended.unwrap_err().exit), (0, Exit::Usage));
    }
}

#[test]
fn list_made_by_hand_needs_no_trailer_flag() {
    let line = serde_json::json!({ "relationship": relationship_json() }).to_string() + "\n";
    let (steps, _, ended) = Reading::default().of(&line);
    let failure = ended.unwrap_err();
    assert_eq!((steps.len(), failure.exit), (0, Exit::BadData));
    assert!(failure.hint_text().contains("--no-trailer"), "{failure:?}");
    let by_hand = Reading {
        seal: Integrity::Unchecked,
        ..Reading::default()
    };
    let (steps, _, ended) = by_hand.of(&line.repeat(3));
    ended.unwrap();
    assert_eq!(steps, ["header false", "updates 3", "end None"]);
}

fn relationship_json() -> serde_json::Value {
    let line = testdata::snapshot(1);
    let line = line.lines().nth(1).unwrap();
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    value["relationship"].clone()
}

#[test]
fn empty_input_is_refused() {
    let (steps, _, ended) = Reading::default().of("");
    let failure = ended.unwrap_err();
    assert_eq!((steps.len(), failure.exit), (0, Exit::BadData));
    assert!(failure.message().contains("empty input"), "{failure:?}");
}

#[test]
fn nothing_is_read_for_a_loop_that_has_ended() {
    for stream in [changes(50), update_stream(5 * GROUP)] {
        let reading = Reading {
            takes: 2,
            ..Reading::default()
        };
        let (steps, _, ended) = reading.of(&stream);
        ended.unwrap();
        assert_eq!(steps.len(), 2);
    }
}

#[test]
fn weight_counts_the_updates_beside_their_text() {
    let mut many = Transaction {
        revision: revision(1),
        ..Transaction::default()
    };
    many.updates = vec![Update(touch("a")); 100];
    assert_eq!(
        weight(&Change::Transaction(Box::new(many))),
        100 * UPDATE_BYTES
    );
    assert_eq!(weight(&checkpoint(1)), 0);
    let (_, bytes, _) = Reading::default().of(&update_stream(10));
    assert!(bytes[1] >= 10 * UPDATE_BYTES, "{bytes:?}");
}

fn at(number: u64) -> Option<Position> {
    Some(Position {
        source_revision: revision(number),
        ..Position::default()
    })
}

#[test]
fn stream_that_begins_before_the_position_resumes_behind_it() {
    let all = steps(&changes(3));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for (position, expected) in [
        (0, &all[..]),
        (2, &["opened", "header true", all[3], all[4], all[5]][..]),
        // All of it, and more than it has.
        (4, &["opened", "header true", all[5]][..]),
        (7, &["opened", "header true", all[5]][..]),
    ] {
        let reading = Reading {
            position: at(position),
            ..Reading::default()
        };
        let (steps, _, ended) = reading.of(&changes(3));
        ended.unwrap();
        assert_eq!(steps, expected, "position at {position}");
    }
    // What is skipped is checked also.
    let damaged = changes(4).replacen("\"2\"", "\"7\"", 1);
    let reading = Reading {
        position: at(3),
        ..Reading::default()
    };
    let (steps, _, ended) = reading.of(&damaged);
    assert_eq!(
        (steps, ended.unwrap_err().exit),
        (vec!["opened".to_owned()], Exit::BadData)
    );
}

#[test]
fn header_at_the_position_has_the_schema_that_was_skipped() {
    let mut writer = ChangeWriter::create(Vec::new(), header(StreamKind::Changes)).unwrap();
    for number in 1..=3 {
        let schema = SchemaChange {
            revision: revision(number),
            text: format!("definition d{number} {{}}"),
            ..SchemaChange::default()
        };
        writer.write(Change::Schema(Box::new(schema))).unwrap();
    }
    let stream = String::from_utf8(writer.finish(StreamEnd::Until).unwrap()).unwrap();
    for (position, expected) in [
        (0, None),
        (2, Some("definition d2 {}")),
        (3, Some("definition d3 {}")),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(stream.as_bytes()).unwrap();
        let input = Input {
            file: file.path().to_owned(),
            spool: None,
            position: at(position),
            seal: Integrity::Verified,
            at_least_once: false,
            until: false,
            stop: Arc::default(),
        };
        let schema = RefCell::new(None);
        let ended = input.read(&|step, _| {
            if let Step::Header(Some(header)) = step {
                *schema.borrow_mut() = header.schema;
            }
            true
        });
        ended.unwrap();
        assert_eq!(
            schema.into_inner().as_deref(),
            expected,
            "position at {position}"
        );
    }
}

#[test]
fn log_that_repeats_and_tears_lines_is_read_at_least_once() {
    let stream = changes(3);
    let lines: Vec<&str> = stream.split_inclusive('\n').collect();
    let torn = "{\"header\":{\"form\n";
    let log = [
        &[torn][..],
        &lines[..3],
        &[&lines[3][..30], "\n"][..],
        &lines[..],
    ]
    .concat()
    .concat();
    let (steps_of_log, _, ended) = Reading {
        at_least_once: true,
        ..Reading::default()
    }
    .of(&log);
    ended.unwrap();
    assert_eq!(steps_of_log, steps(&stream));
    let (_, _, ended) = Reading::default().of(&log);
    assert_eq!(ended.unwrap_err().exit, Exit::BadData);
}
