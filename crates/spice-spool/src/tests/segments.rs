//! Segments: seeking, pruning, damage between them.

use spice_record::record::SpoolOffset;

use super::*;

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
    assert_eq!(complete_revisions(&next), ["b", "c", "d", "e"]);
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
    assert_eq!(complete_revisions(&follow(&mut reader)), ["c", "d", "e"]);
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
    assert_eq!(failure.exit, Exit::BadData);
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
        Some(Exit::BadData)
    );
    assert!(SpoolWriter::open(&spool, None).is_err());
}

#[test]
fn file_that_is_not_a_spool_is_not_touched() {
    let folder = folder();
    let spool = Spool::new(&folder.path().join("notes.txt"));
    fs::write(spool.segment(0), "my notes").unwrap();
    let failure = SpoolWriter::open(&spool, None).err().unwrap();
    assert_eq!(failure.exit, Exit::Usage);
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
