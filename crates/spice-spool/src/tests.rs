use std::fs;

use spice_cli::Exit;
use spice_record::record::{Checkpoint, SchemaChange, StreamKind, Transaction};
use spice_record::{Change, ChangeSealer, Header, Record};

use super::position::PositionFile;
use super::{Polled, Spool, SpoolReader, SpoolTail, SpoolWriter};

mod segments;

/// In memory where that is possible: every reopening syncs.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn header(revision: &str) -> Header {
    Header {
        revision: Some(revision.to_owned()),
        schema: Some("definition user {}".to_owned()),
        ..Header::new(StreamKind::Changes, "test", "2026-11-24T00:00:00Z")
    }
}

fn line(record: &Record) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).unwrap();
    line.push(b'\n');
    line
}

fn transaction(revision: &str, part: Option<u64>, last: bool) -> Change {
    Change::Transaction(Box::new(Transaction {
        revision: revision.to_owned(),
        part,
        last_part: (part.is_some() && last).then_some(true),
        ..Transaction::default()
    }))
}

/// What follows the header.
fn changes() -> Vec<Change> {
    let checkpoint = Change::Checkpoint(Box::new(Checkpoint {
        revision: "d".to_owned(),
        ..Checkpoint::default()
    }));
    let schema = Change::Schema(Box::new(SchemaChange {
        revision: "c".to_owned(),
        text: "definition other {}".to_owned(),
        ..SchemaChange::default()
    }));
    vec![
        transaction("a", None, true),
        transaction("b", Some(1), false),
        transaction("b", Some(2), false),
        transaction("b", Some(3), true),
        schema,
        checkpoint,
        transaction("e", Some(1), false),
        transaction("e", Some(2), true),
    ]
}

/// A spool's lines, and the revision that is complete with each.
fn lines() -> Vec<(Vec<u8>, Option<String>)> {
    let (mut sealer, header) = ChangeSealer::begin(header("start"));
    let header = line(&Record::Header(Box::new(header)));
    let mut lines = vec![(header, Some("start".to_owned()))];
    lines.extend(changes().into_iter().map(|change| {
        let revision = change.completed_revision().map(str::to_owned);
        (line(&sealer.seal(change)), revision)
    }));
    lines
}

fn open(spool: &Spool) -> (SpoolWriter, Option<SpoolTail>) {
    SpoolWriter::open(spool, None).unwrap()
}

/// All lines that are there.
fn follow(reader: &mut SpoolReader) -> Vec<Change> {
    let mut all = Vec::new();
    while let Polled::Change(change, ..) = reader.next().unwrap() {
        all.push(change);
    }
    all
}

/// Applies what a follower gets as a program does that keeps complete revisions only.
fn complete_revisions(changes: &[Change]) -> Vec<String> {
    let (mut complete, mut parts) = (Vec::new(), 0);
    for change in changes {
        if let Change::Transaction(change) = change
            && let Some(part) = change.part
        {
            // From the first part again, if its writer died.
            parts = if part == 1 { 1 } else { parts + 1 };
            assert_eq!(part, parts, "no part is skipped");
        }
        if let Some(revision) = change.completed_revision() {
            complete.push(revision.to_owned());
            parts = 0;
        }
    }
    complete
}

#[test]
fn spool_cut_at_any_byte_reopens_at_its_last_full_revision() {
    let folder = folder();
    let path = folder.path().join("spool");
    let spool = Spool::new(&path);
    let mut bytes = Vec::new();
    // After how many bytes which revision is complete.
    let mut ends = Vec::new();
    for (text, revision) in lines() {
        bytes.extend(text);
        ends.extend(revision.map(|revision| (bytes.len(), revision)));
    }
    for cut in 0..=bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let end = ends.iter().rev().find(|(end, _)| *end <= cut);
        // Reads what is there of an unfinished revision, before it is cut back.
        let mut early = SpoolReader::open(&spool).unwrap();
        assert_eq!(early.is_some(), end.is_some(), "at {cut}");
        let mut seen = early.as_mut().map(follow).unwrap_or_default();
        let (mut writer, left) = open(&spool);
        let left = left.map(|left| (left.revision, left.schema));
        let schema = match end {
            Some((_, revision)) if ["c", "d", "e"].contains(&revision.as_str()) => {
                "definition other {}"
            }
            _ => "definition user {}",
        };
        let expected = end.map(|(_, name)| (name.clone(), Some(schema.to_owned())));
        assert_eq!(left, expected, "at {cut}");
        let length = end.map_or(0, |(end, _)| *end);
        assert_eq!(fs::read(&path).unwrap(), &bytes[..length], "at {cut}");
        if end.is_none() {
            writer.header(header("start")).unwrap();
        }
        // Another writer reports other things.
        let other = [
            ("x", Some(1), false),
            ("x", Some(2), true),
            ("y", None, true),
        ];
        for (revision, part, last) in other {
            writer.write(transaction(revision, part, last)).unwrap();
        }
        writer.sync().unwrap();
        let mut expected: Vec<String> = ends[1..]
            .iter()
            .filter(|(end, _)| *end <= cut)
            .map(|(_, revision)| revision.clone())
            .collect();
        expected.extend(["x".to_owned(), "y".to_owned()]);
        let mut late = SpoolReader::open(&spool).unwrap().unwrap();
        assert_eq!(complete_revisions(&follow(&mut late)), expected, "at {cut}");
        let early = early.as_mut().unwrap_or(&mut late);
        seen.extend(follow(early));
        if end.is_some() {
            assert_eq!(complete_revisions(&seen), expected, "at {cut}");
        }
    }
}

#[test]
fn segments_chain_and_one_with_a_torn_header_is_ignored() {
    let folder = folder();
    let spool = Spool::new(&folder.path().join("spool"));
    let (mut writer, left) = SpoolWriter::open(&spool, Some(1)).unwrap();
    assert!(left.is_none());
    writer.header(header("start")).unwrap();
    for change in changes() {
        let revision = change.completed_revision().map(str::to_owned);
        writer.write(change).unwrap();
        if let Some(revision) = revision {
            writer.rotate(&revision, Some("text")).unwrap();
        }
    }
    drop(writer);
    assert_eq!(spool.segments().unwrap(), [0, 1, 2, 3, 4, 5]);
    let mut reader = SpoolReader::open(&spool).unwrap().unwrap();
    let found = complete_revisions(&follow(&mut reader));
    assert_eq!(found, ["a", "b", "c", "d", "e"]);
    assert_eq!(reader.segment(), 5);
    let newest = spool.segment(5);
    let complete = fs::read(&newest).unwrap();
    for cut in [0, 1, complete.len() - 1] {
        fs::write(&newest, &complete[..cut]).unwrap();
        let mut reader = SpoolReader::open(&spool).unwrap().unwrap();
        assert_eq!(
            complete_revisions(&follow(&mut reader)).len(),
            5,
            "cut at {cut}"
        );
        let (writer, left) = open(&spool);
        assert_eq!(left.unwrap().revision, "e");
        assert_eq!(spool.segments().unwrap(), [0, 1, 2, 3, 4]);
        drop(writer);
        fs::write(&newest, &complete).unwrap();
    }
    // A segment that is missing in the middle is no end.
    fs::remove_file(spool.segment(2)).unwrap();
    let mut reader = SpoolReader::open(&spool).unwrap().unwrap();
    let found = std::iter::from_fn(|| match reader.next() {
        Ok(Polled::Change(..)) => Some(Ok(())),
        Ok(Polled::CaughtUp) => None,
        Err(failure) => Some(Err(failure)),
    });
    let failures: Vec<_> = found.take(20).filter_map(Result::err).collect();
    assert!(!failures.is_empty(), "it must not look like the end");
}

#[test]
fn position_is_locked_for_one_process() {
    let folder = folder();
    let position = PositionFile::new(&folder.path().join("position"));
    let held = position.lock().unwrap();
    let refused = position.lock().unwrap_err();
    assert_eq!(refused.exit, Exit::Usage);
    let own = format!("process {}", std::process::id());
    assert!(refused.message().contains(&own), "{refused:?}");
    drop(held);
    position.lock().unwrap();
    assert!(!position.path().exists(), "the lock is no position");
}

#[test]
fn older_segment_without_a_header_is_damage() {
    let folder = folder();
    let spool = Spool::new(&folder.path().join("spool"));
    let (mut writer, _) = SpoolWriter::open(&spool, Some(1)).unwrap();
    writer.header(header("start")).unwrap();
    for revision in ["a", "b", "c"] {
        writer.write(transaction(revision, None, true)).unwrap();
        writer.rotate(revision, Some("text")).unwrap();
    }
    drop(writer);
    for torn in [0, 1] {
        let path = spool.segment(torn);
        let complete = fs::read(&path).unwrap();
        fs::write(&path, b"").unwrap();
        let failure = match SpoolReader::open(&spool) {
            Err(failure) => failure,
            Ok(reader) => {
                let mut reader = reader.unwrap();
                assert!(matches!(reader.next(), Ok(Polled::Change(..))));
                reader.next().map(drop).unwrap_err()
            }
        };
        assert_eq!(failure.exit, Exit::BadData);
        assert!(failure.message().contains("has no header"), "{failure:?}");
        fs::write(&path, complete).unwrap();
    }
}

#[test]
fn writer_is_known_by_its_lock_and_a_second_one_is_refused() {
    let folder = folder();
    let spool = Spool::new(&folder.path().join("spool"));
    assert!(!spool.writer_lives());
    let (writer, _) = open(&spool);
    assert!(spool.writer_lives());
    let refused = SpoolWriter::open(&spool, None).err().unwrap();
    assert_eq!(refused.exit, Exit::Usage);
    drop(writer);
    assert!(!spool.writer_lives());
    assert!(spool.lost().is_none());
    spool.set_lost("gone").unwrap();
    assert_eq!(spool.lost().unwrap().trim(), "gone");
    spool.clear_lost();
    assert!(spool.lost().is_none());
}

/// Segments of three writers, one of which a byte was changed in: whatever a follower gives out before
/// it fails is what was written.
#[test]
fn no_reader_delivers_anything_after_a_flipped_bit() {
    let folder = folder();
    let spool = Spool::new(&folder.path().join("spool"));
    let (mut writer, _) = SpoolWriter::open(&spool, Some(600)).unwrap();
    writer.header(header("start")).unwrap();
    for change in changes() {
        let revision = change.completed_revision().map(str::to_owned);
        writer.write(change).unwrap();
        if let Some(revision) = revision {
            writer.rotate(&revision, Some("text")).unwrap();
        }
    }
    drop(writer);
    let sound = follow(&mut SpoolReader::open(&spool).unwrap().unwrap());
    let segments = spool.segments().unwrap();
    assert!(segments.len() > 2, "{segments:?}");
    let (mut refused, mut same) = (0, 0);
    for number in segments {
        let path = spool.segment(number);
        let bytes = fs::read(&path).unwrap();
        // One bit of each byte.
        for bit in (0..bytes.len()).map(|byte| byte * 8 + byte % 8) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &damaged).unwrap();
            let mut given = Vec::new();
            let failed = match SpoolReader::open(&spool) {
                Ok(reader) => {
                    let mut reader = reader.expect("a header");
                    loop {
                        match reader.next() {
                            Ok(Polled::Change(change, ..)) => given.push(change),
                            Ok(Polled::CaughtUp) => break false,
                            Err(_) => break true,
                        }
                    }
                }
                Err(_) => true,
            };
            assert_eq!(given, sound[..given.len()], "segment {number}, bit {bit}");
            // A newline of the last line that is gone makes it a torn one: its writer may yet end it.
            let is_torn = !damaged.ends_with(b"\n");
            assert!(
                failed || is_torn || given == sound,
                "segment {number}, bit {bit}"
            );
            if failed { refused += 1 } else { same += 1 }
        }
        fs::write(&path, &bytes).unwrap();
    }
    assert!(refused > 10 * same, "{refused} refused, {same} the same");
}
