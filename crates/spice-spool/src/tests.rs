use std::fs;

use spice_record::record::{Checkpoint, SchemaChange, SpoolOffset, StreamKind, Transaction};
use spice_record::{Change, ChangeSealer, Header, Record};

use super::{Polled, Spool, SpoolReader, SpoolTail, SpoolWriter};

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

/// A spool's lines, and the revision that is whole with each.
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
fn follow(follower: &mut SpoolReader) -> Vec<Change> {
    let mut all = Vec::new();
    while let Polled::Change(change, ..) = follower.next().unwrap() {
        all.push(change);
    }
    all
}

/// Applies what a follower gets as a program does that keeps whole revisions only.
fn whole_of(changes: &[Change]) -> Vec<String> {
    let (mut whole, mut parts) = (Vec::new(), 0);
    for change in changes {
        if let Change::Transaction(change) = change
            && let Some(part) = change.part
        {
            // From the first part again, if its writer died.
            parts = if part == 1 { 1 } else { parts + 1 };
            assert_eq!(part, parts, "no part is skipped");
        }
        if let Some(revision) = change.completed_revision() {
            whole.push(revision.to_owned());
            parts = 0;
        }
    }
    whole
}

#[test]
fn spool_cut_at_every_byte_reopens_at_its_last_whole_revision_and_followers_agree() {
    let folder = folder();
    let path = folder.path().join("spool");
    let spool = Spool::new(&path);
    let mut bytes = Vec::new();
    // After how many bytes which revision is whole.
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
        let (mut appender, left) = open(&spool);
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
            appender.header(header("start")).unwrap();
        }
        // Another writer says other things.
        let other = [
            ("x", Some(1), false),
            ("x", Some(2), true),
            ("y", None, true),
        ];
        for (revision, part, last) in other {
            appender.write(transaction(revision, part, last)).unwrap();
        }
        appender.sync().unwrap();
        let mut expected: Vec<String> = ends[1..]
            .iter()
            .filter(|(end, _)| *end <= cut)
            .map(|(_, revision)| revision.clone())
            .collect();
        expected.extend(["x".to_owned(), "y".to_owned()]);
        let mut late = SpoolReader::open(&spool).unwrap().unwrap();
        assert_eq!(whole_of(&follow(&mut late)), expected, "at {cut}");
        let early = early.as_mut().unwrap_or(&mut late);
        seen.extend(follow(early));
        if end.is_some() {
            assert_eq!(whole_of(&seen), expected, "at {cut}");
        }
    }
}

#[test]
fn segments_chain_and_one_whose_header_is_torn_counts_for_nothing() {
    let folder = folder();
    let spool = Spool::new(&folder.path().join("spool"));
    let (mut appender, left) = SpoolWriter::open(&spool, Some(1)).unwrap();
    assert!(left.is_none());
    appender.header(header("start")).unwrap();
    for change in changes() {
        let revision = change.completed_revision().map(str::to_owned);
        appender.write(change).unwrap();
        if let Some(revision) = revision {
            appender.rotate(&revision, Some("text")).unwrap();
        }
    }
    drop(appender);
    assert_eq!(spool.segments().unwrap(), [0, 1, 2, 3, 4, 5]);
    let mut follower = SpoolReader::open(&spool).unwrap().unwrap();
    let found = whole_of(&follow(&mut follower));
    assert_eq!(found, ["a", "b", "c", "d", "e"]);
    assert_eq!(follower.segment(), 5);
    let newest = spool.segment(5);
    let whole = fs::read(&newest).unwrap();
    for cut in [0, 1, whole.len() - 1] {
        fs::write(&newest, &whole[..cut]).unwrap();
        let mut follower = SpoolReader::open(&spool).unwrap().unwrap();
        assert_eq!(whole_of(&follow(&mut follower)).len(), 5, "cut at {cut}");
        let (appender, left) = open(&spool);
        assert_eq!(left.unwrap().revision, "e");
        assert_eq!(spool.segments().unwrap(), [0, 1, 2, 3, 4]);
        drop(appender);
        fs::write(&newest, &whole).unwrap();
    }
    // A segment that is missing in the middle is no end.
    fs::remove_file(spool.segment(2)).unwrap();
    let mut follower = SpoolReader::open(&spool).unwrap().unwrap();
    let found = std::iter::from_fn(|| match follower.next() {
        Ok(Polled::Change(..)) => Some(Ok(())),
        Ok(Polled::CaughtUp) => None,
        Err(failure) => Some(Err(failure)),
    });
    let failures: Vec<_> = found.take(20).filter_map(Result::err).collect();
    assert!(!failures.is_empty(), "it must not look like the end");
}

#[test]
fn writer_is_known_by_its_lock_and_a_second_one_is_refused() {
    let folder = folder();
    let spool = Spool::new(&folder.path().join("spool"));
    assert!(!spool.writer_lives());
    let (appender, _) = open(&spool);
    assert!(spool.writer_lives());
    let refused = SpoolWriter::open(&spool, None).err().unwrap();
    assert_eq!(refused.exit, crate::Exit::Usage);
    drop(appender);
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
fn a_flipped_bit_anywhere_in_a_spool_is_refused_and_nothing_after_it_is_given_out() {
    let folder = folder();
    let spool = Spool::new(&folder.path().join("spool"));
    let (mut appender, _) = SpoolWriter::open(&spool, Some(600)).unwrap();
    appender.header(header("start")).unwrap();
    for change in changes() {
        let revision = change.completed_revision().map(str::to_owned);
        appender.write(change).unwrap();
        if let Some(revision) = revision {
            appender.rotate(&revision, Some("text")).unwrap();
        }
    }
    drop(appender);
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
                Ok(follower) => {
                    let mut follower = follower.expect("a header");
                    loop {
                        match follower.next() {
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

/// A spool with a segment for each revision: `start`, then a to e in segments 0 to 5.
fn segmented(spool: &Spool) {
    let (mut writer, _) = SpoolWriter::open(spool, Some(1)).unwrap();
    writer.header(header("start")).unwrap();
    for change in changes() {
        let revision = change.completed_revision().map(str::to_owned);
        writer.write(change).unwrap();
        if let Some(revision) = revision {
            writer.rotate(&revision, Some("text")).unwrap();
        }
    }
}

/// Each change with the place where it begins.
fn places(spool: &Spool) -> Vec<(Option<String>, SpoolOffset)> {
    let mut reader = SpoolReader::open(spool).unwrap().unwrap();
    let mut all = Vec::new();
    while let Polled::Change(change, place, _) = reader.next().unwrap() {
        all.push((change.completed_revision().map(str::to_owned), place));
    }
    all
}

#[test]
fn seek_continues_after_the_revision_with_and_without_a_hint() {
    let folder = folder();
    let spool = Spool::new(&folder.path().join("spool"));
    segmented(&spool);
    let all = places(&spool);
    let wrong = SpoolOffset {
        segment: 0,
        offset: 1,
    };
    let beyond = SpoolOffset {
        segment: 99,
        offset: 5,
    };
    for (number, (revision, place)) in all.iter().enumerate() {
        let Some(revision) = revision else { continue };
        for hint in [None, Some(*place), Some(wrong), Some(beyond)] {
            let mut reader = SpoolReader::open(&spool).unwrap().unwrap();
            assert!(reader.seek(revision, hint).unwrap(), "{revision} {hint:?}");
            let rest = follow(&mut reader).len();
            assert_eq!(rest, all.len() - number - 1, "{revision} {hint:?}");
        }
    }
}

#[test]
fn seek_finds_the_revision_of_a_header_and_nothing_else() {
    let folder = folder();
    let spool = Spool::new(&folder.path().join("spool"));
    segmented(&spool);
    let mut reader = SpoolReader::open(&spool).unwrap().unwrap();
    assert!(reader.seek("start", None).unwrap());
    assert_eq!(follow(&mut reader).len(), changes().len());
    assert!(!reader.seek("nowhere", None).unwrap());
}

#[test]
fn hint_at_another_revision_is_not_trusted() {
    let folder = folder();
    let spool = Spool::new(&folder.path().join("spool"));
    segmented(&spool);
    let all = places(&spool);
    let of = |name: &str| {
        let found = all
            .iter()
            .find(|(revision, _)| revision.as_deref() == Some(name));
        found.unwrap().1
    };
    let mut reader = SpoolReader::open(&spool).unwrap().unwrap();
    assert!(reader.seek("a", Some(of("d"))).unwrap());
    let next = follow(&mut reader);
    assert_eq!(whole_of(&next), ["b", "c", "d", "e"]);
}

#[test]
fn pruned_spool_is_read_from_its_oldest_segment() {
    let folder = folder();
    let spool = Spool::new(&folder.path().join("spool"));
    segmented(&spool);
    for segment in 0..2 {
        fs::remove_file(spool.segment(segment)).unwrap();
    }
    let mut reader = SpoolReader::open(&spool).unwrap().unwrap();
    assert_eq!(reader.segment(), 2);
    assert_eq!(reader.header().revision.as_deref(), Some("b"));
    assert_eq!(whole_of(&follow(&mut reader)), ["c", "d", "e"]);
    assert!(!reader.seek("a", None).unwrap(), "it was pruned");
    assert!(reader.seek("b", None).unwrap(), "where the rest begins");
    let (_, tail) = open(&spool);
    assert_eq!(tail.unwrap().revision, "e");
}

#[test]
fn exchanged_segments_are_refused() {
    let folder = folder();
    let spool = Spool::new(&folder.path().join("spool"));
    segmented(&spool);
    let (one, other) = (spool.segment(1), spool.segment(2));
    let aside = folder.path().join("aside");
    fs::rename(&one, &aside).unwrap();
    fs::rename(&other, &one).unwrap();
    fs::rename(&aside, &other).unwrap();
    let mut reader = SpoolReader::open(&spool).unwrap().unwrap();
    assert!(matches!(reader.next(), Ok(Polled::Change(..))));
    let failure = reader.next().unwrap_err();
    assert_eq!(failure.exit, crate::Exit::BadData);
    assert!(failure.message().contains("does not follow"), "{failure:?}");
}

#[test]
fn line_removed_from_the_middle_is_refused() {
    let all = lines();
    for missing in 1..all.len() - 1 {
        let folder = folder();
        let spool = Spool::new(&folder.path().join("spool"));
        let kept = all
            .iter()
            .enumerate()
            .filter(|(number, _)| *number != missing);
        let bytes: Vec<u8> = kept.flat_map(|(_, (line, _))| line.clone()).collect();
        fs::write(spool.segment(0), bytes).unwrap();
        let mut reader = SpoolReader::open(&spool).unwrap().unwrap();
        for _ in 1..missing {
            assert!(matches!(reader.next(), Ok(Polled::Change(..))));
        }
        assert!(reader.next().is_err(), "line {missing} is missing");
        assert!(SpoolWriter::open(&spool, None).is_err(), "line {missing}");
    }
}

#[test]
fn reader_waits_for_the_end_of_a_line() {
    let all = lines();
    let folder = folder();
    let spool = Spool::new(&folder.path().join("spool"));
    let mut bytes = all[0].0.clone();
    fs::write(spool.segment(0), &bytes).unwrap();
    let mut reader = SpoolReader::open(&spool).unwrap().unwrap();
    let (begun, rest) = all[1].0.split_at(20);
    for (part, complete) in [(begun, false), (rest, true)] {
        bytes.extend_from_slice(part);
        fs::write(spool.segment(0), &bytes).unwrap();
        let found = reader.next().unwrap();
        assert_eq!(matches!(found, Polled::Change(..)), complete);
    }
}

#[test]
fn header_without_a_checksum_is_refused_by_reader_and_writer() {
    let folder = folder();
    let spool = Spool::new(&folder.path().join("spool"));
    fs::write(
        spool.segment(0),
        line(&Record::Header(Box::new(header("start")))),
    )
    .unwrap();
    assert_eq!(
        SpoolReader::open(&spool).err().map(|failure| failure.exit),
        Some(crate::Exit::BadData)
    );
    assert!(SpoolWriter::open(&spool, None).is_err());
}

#[test]
fn file_that_is_not_a_spool_is_not_touched() {
    let folder = folder();
    let spool = Spool::new(&folder.path().join("notes.txt"));
    fs::write(spool.segment(0), "my notes").unwrap();
    let failure = SpoolWriter::open(&spool, None).err().unwrap();
    assert_eq!(failure.exit, crate::Exit::Usage);
    assert_eq!(fs::read(spool.segment(0)).unwrap(), b"my notes");
}

#[test]
fn only_names_of_segments_count() {
    let folder = folder();
    let path = folder.path().join("spool");
    let spool = Spool::new(&path);
    assert!(spool.segments().unwrap().is_empty());
    assert_eq!(spool.end(), None);
    for suffix in [
        "", ".000003", ".3", ".0000003", ".000000", ".lock", ".old", "2",
    ] {
        fs::write(folder.path().join(format!("spool{suffix}")), "abc").unwrap();
    }
    assert_eq!(spool.segments().unwrap(), [0, 3]);
    assert_eq!(spool.newest_segment(), Some(spool.segment(3)));
    let end = SpoolOffset {
        segment: 3,
        offset: 3,
    };
    assert_eq!(spool.end(), Some(end));
}

#[test]
fn writer_without_a_header_writes_no_change() {
    let folder = folder();
    let (mut writer, _) = open(&Spool::new(&folder.path().join("spool")));
    assert!(writer.write(transaction("a", None, true)).is_err());
    writer.rotate("a", None).unwrap();
    writer.sync().unwrap();
}
