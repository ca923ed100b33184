//! Streams from a log that delivers lines at least once.

use super::*;

/// A header and so many checkpoints, each a line with its newline.
fn lines(count: usize) -> Vec<String> {
    lines_after("r0", count)
}

fn lines_after(revision: &str, count: usize) -> Vec<String> {
    let header = Header {
        revision: Some(revision.to_owned()),
        ..Header::new(StreamKind::Changes, "test", "2026-11-26T05:00:00Z")
    };
    let mut writer = ChangeWriter::create(Vec::new(), header).unwrap();
    for number in 1..=count {
        let checkpoint = Checkpoint {
            revision: format!("r{number}"),
            ..Checkpoint::default()
        };
        writer
            .write(Change::Checkpoint(Box::new(checkpoint)))
            .unwrap();
    }
    let stream = String::from_utf8(writer.finish(StreamEnd::Until).unwrap()).unwrap();
    let lines = stream.split_inclusive('\n').map(str::to_owned);
    lines.take(count + 1).collect()
}

/// Reads to the end: the revisions, how many lines were skipped, and the error.
fn read(stream: &str) -> (Vec<String>, u64, ReadError) {
    let mut records = RecordReader::new(stream.as_bytes(), "log");
    let Ok(Some(Record::Header(header))) = records.next_record() else {
        panic!("no header");
    };
    let reader = ChangeReader::after(records, &header, Integrity::Verified).unwrap();
    let mut reader = reader.at_least_once();
    let mut revisions = Vec::new();
    loop {
        match reader.next_change() {
            Ok(Some(change)) => revisions.push(change.completed_revision().unwrap().to_owned()),
            Ok(None) => panic!("it has no trailer"),
            Err(error) => return (revisions, reader.skipped(), error),
        }
    }
}

fn pick(lines: &[String], order: &[usize]) -> String {
    order.iter().map(|line| lines[*line].as_str()).collect()
}

#[test]
fn repeated_lines_are_skipped_in_any_interleaving() {
    let lines = lines(5);
    let every = ["r1", "r2", "r3", "r4", "r5"];
    for (order, repeated) in [
        (&[0, 1, 2, 3, 4, 5][..], 0),
        // A run again, from its middle and from its header.
        (&[0, 1, 2, 3, 2, 3, 4, 5][..], 2),
        (&[0, 1, 2, 0, 1, 2, 3, 4, 5][..], 3),
        (&[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5][..], 6),
        // What a killed producer had in flight arrives between the lines of the next one.
        (&[0, 1, 2, 3, 2, 3, 4, 4, 5, 5][..], 4),
    ] {
        let (revisions, skipped, error) = read(&pick(&lines, order));
        assert_eq!(revisions, every, "{order:?}");
        assert_eq!(skipped, repeated, "{order:?}");
        assert!(matches!(error, ReadError::Cut { .. }), "{error}");
    }
}

#[test]
fn torn_lines_are_skipped_if_the_chain_continues() {
    let lines = lines(3);
    let torn = |line: usize| format!("{}\n", &lines[line][..lines[line].len() - 3]);
    let stream = pick(&lines, &[0, 1]) + &torn(2) + &torn(2) + &pick(&lines, &[2, 3]);
    let (revisions, skipped, error) = read(&stream);
    assert_eq!(revisions, ["r1", "r2", "r3"]);
    assert_eq!(skipped, 2);
    assert!(matches!(error, ReadError::Cut { .. }), "{error}");
    // The torn line is not sent again: a gap.
    let (revisions, _, error) = read(&(pick(&lines, &[0, 1]) + &torn(2) + &lines[3]));
    assert_eq!(revisions, ["r1"]);
    assert!(error.to_string().contains("missing"), "{error}");
    // Not a stream at all.
    let (_, skipped, error) = read(&(lines[0].clone() + &"{\"a\n".repeat(30)));
    assert_eq!(skipped, MAX_TORN);
    assert!(matches!(error, ReadError::Line { .. }), "{error}");
}

#[test]
fn missing_altered_and_foreign_lines_are_refused_at_least_once() {
    let lines = lines(4);
    let (revisions, _, error) = read(&pick(&lines, &[0, 1, 3, 4]));
    assert_eq!(revisions, ["r1"]);
    assert!(error.to_string().contains("missing"), "{error}");
    let altered = pick(&lines, &[0, 1]) + &lines[2].replace("r2", "r9");
    let (revisions, _, error) = read(&altered);
    assert_eq!(revisions, ["r1"]);
    assert!(error.to_string().contains("altered"), "{error}");
    let other = lines_after("r7", 1);
    let (_, _, error) = read(&(pick(&lines, &[0, 1]) + &other[0]));
    assert!(matches!(error, ReadError::Line { .. }), "{error}");
}

#[test]
fn repetition_from_beyond_the_recent_lines_is_refused() {
    let lines = lines(70_000);
    let (revisions, skipped, error) = read(&(lines.concat() + &lines[1]));
    assert_eq!((revisions.len(), skipped), (70_000, 0));
    assert!(error.to_string().contains("repeated"), "{error}");
}
