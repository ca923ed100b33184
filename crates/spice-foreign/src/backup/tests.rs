//! Backups are read back, and no damaged one is taken for complete, but where the format cannot show it.

use prost::Message as _;
use spice_record::ExpiryPrecision;
use spice_record::digest::equal_at_precision;
use testdata::Sample;

use super::*;
use crate::avro::{ContainerWriter, put_bytes, put_long};
use crate::testing::zed_backup;

const CODECS: [Codec; 4] = [Codec::Null, Codec::Deflate, Codec::Snappy, Codec::Zstandard];
const TOKEN: &str = "GhUKEzE3OTU0MTUxMDcxNDI1MDIxMjc=";

fn header() -> Header {
    Header {
        revision: Some(TOKEN.to_owned()),
        ..Sample::rich(0).header()
    }
}

/// Expiries that the format holds in full.
fn sample(count: u64) -> Vec<Relationship> {
    let sample = Sample {
        expiry_step: 1_000_000,
        ..Sample::rich(count)
    };
    sample.iter().collect()
}

/// A backup of ours.
fn ours(relationships: &[Relationship], codec: Codec) -> Vec<u8> {
    let precision = ExpiryPrecision::Micros;
    let mut writer = BackupWriter::create(Vec::new(), header(), precision, codec).unwrap();
    for relationship in relationships {
        writer.write(relationship).unwrap();
    }
    writer.finish().unwrap().1
}

/// A backup as zed writes it, and where each of its blocks ends.
fn zeds(relationships: &[Relationship], codec: Codec) -> (Vec<u8>, Vec<usize>) {
    zed_backup(
        testdata::SCHEMA,
        relationships,
        codec,
        &[(TOKEN_KEY, TOKEN)],
    )
}

fn read(bytes: &[u8]) -> Result<(Vec<Relationship>, BackupReader<&[u8]>), ReadError> {
    let mut reader = BackupReader::open(bytes, "file")?;
    let mut found = Vec::new();
    while let Some(relationship) = reader.next_relationship()? {
        found.push(relationship);
    }
    assert!(reader.next_relationship()?.is_none(), "it stays at the end");
    Ok((found, reader))
}

#[track_caller]
fn assert_same(found: &[Relationship], expected: &[Relationship]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            equal_at_precision(found, expected, ExpiryPrecision::Micros),
            "{found:?} {expected:?}"
        );
    }
}

#[test]
fn backups_are_read_back() {
    for codec in CODECS {
        for count in [0, 1, 99, 100, 3_000] {
            let relationships = sample(count);
            let bytes = ours(&relationships, codec);
            let (found, reader) = read(&bytes).unwrap();
            assert_same(&found, &relationships);
            assert_eq!((reader.schema(), reader.codec()), (testdata::SCHEMA, codec));
            assert_eq!(reader.revision(), Some(TOKEN));
            assert_eq!(reader.header(), Some(&header().sealed()));
            assert!(reader.unknown_metadata().is_empty());
            let (bytes, _) = zeds(&relationships, codec);
            let (found, reader) = read(&bytes).unwrap();
            assert_same(&found, &relationships);
            assert_eq!((reader.schema(), reader.codec()), (testdata::SCHEMA, codec));
            assert_eq!((reader.revision(), reader.header()), (Some(TOKEN), None));
        }
    }
}

#[test]
fn same_input_gives_the_same_backup() {
    let relationships = sample(200);
    assert_eq!(
        ours(&relationships, Codec::Snappy),
        ours(&relationships, Codec::Snappy)
    );
}

#[test]
fn expiries_are_cut_to_milliseconds_and_counted() {
    let sample = Sample {
        expiry_step: 1,
        ..Sample::rich(2_000)
    };
    let relationships: Vec<Relationship> = sample.iter().collect();
    let precision = ExpiryPrecision::Micros;
    let mut writer = BackupWriter::create(Vec::new(), header(), precision, Codec::Snappy).unwrap();
    let mut expected = Vec::new();
    let mut cut = 0;
    for mut relationship in relationships {
        writer.write(&relationship).unwrap();
        if let Some(expiry) = &mut relationship.optional_expires_at {
            cut += u64::from(expiry.nanos % 1_000_000 != 0);
            expiry.nanos -= expiry.nanos % 1_000_000;
        }
        expected.push(relationship);
    }
    assert!(cut > 100, "{cut}");
    assert_eq!(writer.truncated(), cut);
    let (_, bytes) = writer.finish().unwrap();
    assert_same(&read(&bytes).unwrap().0, &expected);
}

#[test]
fn every_time_is_read_back_and_none_becomes_another() {
    let mut one = sample(1).remove(0);
    for seconds in [-62_135_596_799, -1, 0, 1, 253_402_300_799] {
        one.optional_expires_at = Some(authzed::Timestamp {
            seconds,
            nanos: 999_000_000,
        });
        let found = read(&ours(&[one.clone()], Codec::Null)).unwrap().0;
        assert_same(&found, &[one.clone()]);
    }
    for (seconds, named) in [
        (-62_135_596_800, "takes for never"),
        (i64::MAX, "outside the years"),
        (253_402_300_800, "outside the years"),
    ] {
        one.optional_expires_at = Some(authzed::Timestamp { seconds, nanos: 0 });
        let mut out = Vec::new();
        let message = encode_relationship(&one, &mut out).unwrap_err();
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn no_cut_of_ours_is_accepted() {
    let bytes = ours(&sample(1_500), Codec::Snappy);
    let mut random = fastrand::Rng::with_seed(1);
    let ends = 0..bytes.len();
    for cut in (0..1_000)
        .map(|_| random.usize(ends.clone()))
        .chain(bytes.len() - 60..bytes.len())
    {
        let error = read(&bytes[..cut]).err().expect("refused");
        assert!(matches!(error, ReadError::Cut { .. }), "{cut}: {error}");
    }
    // Also where a block ends: what follows the first is a file of its own otherwise.
    let sync = &bytes[bytes.len() - 16..];
    let found = bytes
        .windows(16)
        .enumerate()
        .filter(|(_, window)| *window == sync);
    let borders: Vec<usize> = found.map(|(place, _)| place + 16).collect();
    assert!(borders.len() > 3, "{borders:?}");
    for cut in &borders[..borders.len() - 1] {
        let error = read(&bytes[..*cut]).err().expect("refused").to_string();
        assert!(
            error.contains("cut: it ends") || error.contains("no schema"),
            "{error}"
        );
    }
}

#[test]
fn no_flip_of_ours_is_accepted() {
    let relationships = sample(300);
    for codec in CODECS {
        let bytes = ours(&relationships, codec);
        let mut random = fastrand::Rng::with_seed(2);
        let header = (0..2_000).chain(bytes.len() - 400..bytes.len());
        let places = (0..1_000)
            .map(|_| random.usize(..bytes.len()))
            .chain(header);
        let mut bits = fastrand::Rng::with_seed(3);
        for place in places {
            let mut bytes = bytes.clone();
            bytes[place] ^= 1 << bits.u8(..8);
            if let Ok((found, reader)) = read(&bytes) {
                // Packed otherwise, but the same, down to header and zedtoken.
                assert_same(&found, &relationships);
                assert_eq!(reader.revision(), Some(TOKEN), "{codec:?} {place}");
                assert_eq!(reader.schema(), testdata::SCHEMA);
                assert!(reader.header().is_some(), "{codec:?} {place}");
            }
        }
    }
}

#[test]
fn cut_of_zeds_is_refused_but_where_a_block_ends() {
    let relationships = sample(1_500);
    let (bytes, ends) = zeds(&relationships, Codec::Snappy);
    let mut random = fastrand::Rng::with_seed(4);
    let near = ends
        .iter()
        .flat_map(|end| end - 3..(end + 4).min(bytes.len()));
    let cuts: Vec<usize> = (0..1_000)
        .map(|_| random.usize(..bytes.len()))
        .chain(near)
        .collect();
    for cut in cuts {
        match read(&bytes[..cut]) {
            Ok((found, _)) => {
                // Documented: the format has no end marker.
                let blocks = ends
                    .iter()
                    .position(|end| *end == cut)
                    .expect("a block ends");
                assert_eq!(found.len(), blocks * 100 + 99);
            }
            Err(error) => assert!(
                matches!(error, ReadError::Cut { .. }) || error.to_string().contains("no schema"),
                "{cut}: {error}"
            ),
        }
    }
}

#[test]
fn flip_of_zeds_is_refused_but_in_the_zedtoken() {
    let relationships = sample(500);
    let (bytes, _) = zeds(&relationships, Codec::Snappy);
    let token = bytes
        .windows(TOKEN.len())
        .position(|window| window == TOKEN.as_bytes())
        .unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    let places = (0..1_000)
        .map(|_| random.usize(..bytes.len()))
        .chain(0..1_500);
    let mut bits = fastrand::Rng::with_seed(6);
    for place in places {
        let mut bytes = bytes.clone();
        bytes[place] ^= 1 << bits.u8(..8);
        let Ok((found, reader)) = read(&bytes) else {
            continue;
        };
        // Documented: nothing covers zed's zedtoken. A key that became another is reported as unknown.
        let in_token = (token..token + TOKEN.len()).contains(&place);
        let known = reader.unknown_metadata().is_empty();
        assert!(
            in_token || !known || reader.revision() == Some(TOKEN),
            "{place}"
        );
        assert_same(&found, &relationships);
        assert_eq!(reader.schema(), testdata::SCHEMA);
    }
}

#[test]
fn block_that_is_not_full_shows_where_zed_ended() {
    for (count, is_full) in [
        (0, false),
        (98, false),
        (99, true),
        (100, false),
        (299, true),
    ] {
        let (backup, _) = zeds(&sample(count), Codec::Snappy);
        let (_, reader) = read(&backup).unwrap();
        assert_eq!(reader.ends_with_a_full_block(), is_full, "{count}");
        assert_eq!(reader.ended_early(), None);
    }
    let mut object = Vec::new();
    encode_schema(testdata::SCHEMA, &mut object);
    let mut writer =
        ContainerWriter::create(Vec::new(), Codec::Snappy, layout::WRITTEN, &[]).unwrap();
    writer.put(&object).unwrap();
    for block in sample(100).chunks(99) {
        for relationship in block {
            object.clear();
            encode_relationship(relationship, &mut object).unwrap();
            writer.put(&object).unwrap();
        }
        writer.flushed().unwrap();
    }
    object.clear();
    encode_relationship(&sample(200)[150], &mut object).unwrap();
    writer.put(&object).unwrap();
    writer.flushed().unwrap();
    let backup = writer.into_inner();
    let (found, reader) = read(&backup).unwrap();
    assert_eq!((found.len(), reader.ended_early()), (101, Some(2)));
}

#[test]
fn blocks_of_other_files_are_refused() {
    let one = ours(&sample(300), Codec::Snappy);
    let relationships = Sample {
        seed: 2,
        ..Sample::rich(300)
    };
    let other = ours(&relationships.iter().collect::<Vec<_>>(), Codec::Snappy);
    for bytes in [
        [&one[..], &other[..]].concat(),
        [&one[..], &one[..]].concat(),
        [&one[..], b"\n"].concat(),
        [&one[..one.len() / 2], &other[other.len() / 2..]].concat(),
    ] {
        assert!(read(&bytes).is_err());
    }
}

/// A backup of one object after the schema.
fn with_object(object: &[u8]) -> Vec<u8> {
    let mut schema = Vec::new();
    encode_schema(testdata::SCHEMA, &mut schema);
    let mut writer =
        ContainerWriter::create(Vec::new(), Codec::Snappy, layout::WRITTEN, &[]).unwrap();
    writer.put(&schema).unwrap();
    writer.put(object).unwrap();
    writer.flushed().unwrap();
    writer.into_inner()
}

fn object(names: [&str; 7], context: &[u8], expiration: i64) -> Vec<u8> {
    let mut object = vec![0];
    for name in names {
        put_bytes(&mut object, name.as_bytes());
    }
    put_bytes(&mut object, context);
    put_long(&mut object, expiration);
    object
}

const NAMES: [&str; 7] = ["document", "readme", "viewer", "user", "anne", "", ""];
const NEVER: i64 = -62_135_596_800_000;

#[test]
fn old_spellings_are_read() {
    let names = ["document", "readme", "viewer", "user", "anne", "...", ""];
    let found = read(&with_object(&object(names, b"", NEVER))).unwrap().0;
    let subject = found[0].subject.as_ref().unwrap();
    assert_eq!(subject.optional_relation, "");
    assert_eq!(found[0].optional_expires_at, None);
    assert_eq!(found[0].optional_caveat, None);
    // A backup of a zed before December 2025.
    let old = layout::WRITTEN.replace(
        r#",{"name":"expiration","type":{"type":"long","logicalType":"timestamp-millis"}}"#,
        "",
    );
    let mut writer = ContainerWriter::create(Vec::new(), Codec::Snappy, &old, &[]).unwrap();
    let mut schema = Vec::new();
    encode_schema(testdata::SCHEMA, &mut schema);
    writer.put(&schema).unwrap();
    let complete = object(NAMES, b"", 0);
    for _ in 0..2 {
        writer.put(&complete[..complete.len() - 1]).unwrap();
    }
    writer.flushed().unwrap();
    let bytes = writer.into_inner();
    let (found, reader) = read(&bytes).unwrap();
    assert!(!reader.has_expirations());
    assert_eq!((found.len(), &found[0].optional_expires_at), (2, &None));
    assert_eq!(reader.revision(), None);
}

#[test]
fn object_that_is_none_is_refused_by_name() {
    let good = object(NAMES, b"", NEVER);
    assert!(read(&with_object(&good)).is_ok());
    let with = |place: usize, name: &'static str| {
        let mut names = NAMES;
        names[place] = name;
        names
    };
    let mut schema = Vec::new();
    encode_schema("", &mut schema);
    let context = authzed::JsonObject::from(prost_types::Struct {
        fields: [("a".to_owned(), prost_types::Value::default())].into(),
    });
    assert!(
        read(&with_object(&object(
            with(6, "c"),
            &context.encode_to_vec(),
            0
        )))
        .is_ok()
    );
    let long = "a".repeat(4_097);
    let mut too_long = vec![0];
    put_bytes(&mut too_long, long.as_bytes());
    for (object, named) in [
        (good[..good.len() - 1].to_vec(), "it ends within a number"),
        (
            [&good[..], b"\0"].concat(),
            "1 bytes behind its last object",
        ),
        (object(with(0, ""), b"", NEVER), "no object_type"),
        (object(with(4, ""), b"", NEVER), "no subject_object_id"),
        (object(NAMES, b"\x0a", NEVER), "without a caveat_name"),
        (object(with(6, "c"), b"\x0a\x05", NEVER), "is no Struct"),
        (object(NAMES, b"", i64::MAX), "outside the years"),
        (schema, "a second schema"),
        (vec![4], "kind 2"),
        (too_long, "at most 4096"),
        (
            vec![0, 0xfe, 0xff, 0xff, 0xff, 0x0f],
            "not so many are left",
        ),
        (vec![0, 2, 0xff], "not UTF-8"),
    ] {
        let message = read(&with_object(&object)).err().expect(named).to_string();
        assert!(message.contains(named), "{named}: {message}");
    }
}

#[test]
fn backup_without_a_schema_is_neither_read_nor_written() {
    let bare = Header {
        schema: None,
        ..header()
    };
    let precision = ExpiryPrecision::Micros;
    assert!(BackupWriter::create(Vec::new(), bare, precision, Codec::Snappy).is_err());
    let mut writer =
        ContainerWriter::create(Vec::new(), Codec::Snappy, layout::WRITTEN, &[]).unwrap();
    let empty = writer.flushed().map(|_| writer.into_inner()).unwrap();
    let message = read(&empty).err().expect("refused").to_string();
    assert!(message.contains("no schema"), "{message}");
    let mut writer =
        ContainerWriter::create(Vec::new(), Codec::Snappy, layout::WRITTEN, &[]).unwrap();
    writer.put(&object(NAMES, b"", NEVER)).unwrap();
    writer.flushed().unwrap();
    let message = read(&writer.into_inner())
        .err()
        .expect("refused")
        .to_string();
    assert!(message.contains("before the schema"), "{message}");
}
