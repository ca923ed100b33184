//! What is packed is unpacked, and what is damaged is refused in little memory.

use super::*;

const WRITTEN: [Codec; 4] = [Codec::Null, Codec::Deflate, Codec::Snappy, Codec::Zstandard];

fn text(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..bytes)
        .map(|place| match place % 3 {
            0 => random.u8(..),
            _ => b'a',
        })
        .collect()
}

#[test]
fn numbers_are_read_back() {
    for number in [
        0,
        1,
        -1,
        63,
        -64,
        64,
        300,
        i64::MIN,
        i64::MAX,
        -62_135_596_800_000,
    ] {
        let mut bytes = Vec::new();
        put_long(&mut bytes, number);
        let mut fields = Fields(&bytes);
        assert_eq!(fields.long(), Ok(number));
        assert!(fields.0.is_empty());
    }
    let mut bytes = Vec::new();
    put_long(&mut bytes, -2);
    put_long(&mut bytes, 64);
    assert_eq!(bytes, [3, 0x80, 1], "as the specification has it");
    for bad in [&[][..], &[0x80], &[0xff; 10], &[0x80; 11]] {
        assert!(Fields(bad).long().is_err(), "{bad:?}");
    }
}

#[test]
fn every_codec_unpacks_what_it_packs() {
    for codec in WRITTEN {
        let mut out = vec![1];
        for bytes in [0, 1, 100, 300_000] {
            let text = text(bytes);
            let mut packed = codec.pack(&text).unwrap();
            codec.unpack(&mut packed, &mut out).unwrap();
            assert_eq!(out, text, "{codec:?} {bytes}");
        }
        assert_eq!(Codec::named(codec.name().as_bytes()), Some(codec));
    }
    // Made by Python of the text "relationship".
    let samples: [(Codec, &[u8]); 2] = [(Codec::Bzip2, BZIP2), (Codec::Xz, XZ)];
    for (codec, packed) in samples {
        let mut out = Vec::new();
        codec.unpack(&mut packed.to_vec(), &mut out).unwrap();
        assert_eq!(out, b"relationship", "{codec:?}");
        assert!(codec.pack(b"").is_err());
    }
}

#[test]
fn damaged_block_is_refused_or_has_the_same_content() {
    let text = text(2_000);
    let mut random = fastrand::Rng::with_seed(2);
    let mut packed: Vec<(Codec, Vec<u8>, Vec<u8>)> = [Codec::Snappy, Codec::Zstandard]
        .map(|codec| (codec, codec.pack(&text).unwrap(), text.clone()))
        .into();
    packed.push((Codec::Bzip2, BZIP2.to_vec(), b"relationship".to_vec()));
    packed.push((Codec::Xz, XZ.to_vec(), b"relationship".to_vec()));
    let mut out = Vec::new();
    for (codec, packed, text) in packed {
        for _ in 0..1_000 {
            let mut bytes = packed.clone();
            let place = random.usize(..bytes.len());
            bytes[place] ^= 1 << random.u8(..8);
            if codec.unpack(&mut bytes.clone(), &mut out).is_ok() {
                assert_eq!(out, text, "{codec:?} {place}");
            }
            bytes.truncate(place);
            assert!(
                codec.unpack(&mut bytes, &mut out).is_err() || out == text,
                "{codec:?}"
            );
        }
    }
}

#[test]
fn bytes_behind_the_end_of_a_block_are_refused() {
    for codec in WRITTEN.into_iter().filter(|codec| *codec != Codec::Null) {
        let mut packed = codec.pack(b"relationship").unwrap();
        packed.push(0);
        let mut out = Vec::new();
        assert!(codec.unpack(&mut packed, &mut out).is_err(), "{codec:?}");
    }
    for (codec, packed) in [(Codec::Bzip2, BZIP2), (Codec::Xz, XZ)] {
        let mut packed = [packed, b"abcd"].concat();
        assert!(
            codec.unpack(&mut packed, &mut Vec::new()).is_err(),
            "{codec:?}"
        );
    }
}

#[test]
fn block_that_unpacks_to_too_much_is_refused() {
    let zeros = vec![0; (MAX_BLOCK_BYTES as usize) + 1];
    for codec in [Codec::Deflate, Codec::Snappy, Codec::Zstandard] {
        let mut packed = codec.pack(&zeros).unwrap();
        let message = codec.unpack(&mut packed, &mut Vec::new()).unwrap_err();
        assert!(message.contains("32 MiB"), "{codec:?}: {message}");
    }
    // It claims 20 MiB, and has 4 bytes.
    let mut claim = vec![0x80, 0x80, 0x80, 0x0a, 0, 0, 0, 0];
    let message = Codec::Snappy
        .unpack(&mut claim, &mut Vec::new())
        .unwrap_err();
    assert!(message.contains("claims"), "{message}");
}

fn container(codec: Codec) -> Vec<u8> {
    let mut writer =
        ContainerWriter::create(Vec::new(), codec, "\"bytes\"", &[("a", "b")]).unwrap();
    for _ in 0..2_000 {
        writer.put(&text(100)).unwrap();
    }
    writer.finish(b"end").unwrap()
}

/// How many objects are in it, and what the last block holds.
fn read(bytes: &[u8]) -> Result<(u64, Vec<u8>), ReadError> {
    let mut reader = ContainerReader::open(bytes, "file".to_owned())?;
    let mut objects = 0;
    while let Some(block) = reader.next_block()? {
        objects += block.objects;
    }
    Ok((objects, reader.block().to_vec()))
}

#[test]
fn containers_are_read_back() {
    for codec in WRITTEN {
        let bytes = container(codec);
        assert_eq!(read(&bytes).unwrap(), (2_000, b"end".to_vec()));
        let reader = ContainerReader::open(bytes.as_slice(), String::new()).unwrap();
        assert_eq!(
            (reader.schema(), reader.codec()),
            (&b"\"bytes\""[..], codec)
        );
        let metadata: Vec<_> = reader.metadata().collect();
        assert_eq!(metadata, [("a", &b"b"[..])]);
    }
}

#[test]
fn cut_within_header_or_block_is_refused() {
    let bytes = container(Codec::Snappy);
    let mut complete = 0;
    for cut in (0..bytes.len()).rev().step_by(7).chain(0..200) {
        match read(&bytes[..cut]) {
            Err(ReadError::Cut { message, .. }) => {
                assert!(message.contains("it ends"), "{message}");
            }
            Err(other) => panic!("{cut}: {other}"),
            Ok(_) => complete += 1,
        }
    }
    // Where a block ends nothing is missing that the format could show.
    assert!(complete <= 5, "{complete}");
}

#[test]
fn header_that_no_writer_makes_is_refused() {
    let metadata = |entries: &[(&[u8], &[u8])], count: i64| {
        let mut bytes = AVRO_MAGIC.to_vec();
        put_long(&mut bytes, count);
        if count < 0 {
            put_long(&mut bytes, 1_000);
        }
        for (key, value) in entries {
            put_bytes(&mut bytes, key);
            put_bytes(&mut bytes, value);
        }
        put_long(&mut bytes, 0);
        bytes.extend_from_slice(&[7; SYNC_BYTES]);
        bytes
    };
    assert!(read(&metadata(&[(b"a", b"b")], -1)).is_ok());
    let mut negative = metadata(&[(b"a", b"b")], 1);
    put_long(&mut negative, -1);
    let mut size = metadata(&[(b"a", b"b")], 1);
    put_long(&mut size, 1);
    put_long(&mut size, 1 << 40);
    for (bytes, named) in [
        (b"Obj\x02".to_vec(), "no Avro container file"),
        (metadata(&[(b"a", b"b"), (b"a", b"c")], 2), "\"a\" twice"),
        (metadata(&[(b"\xff", b"b")], 1), "not UTF-8"),
        (
            metadata(&[(b"avro.codec", b"lzo")], 1),
            "unknown codec \"lzo\", beside null",
        ),
        (
            metadata(&[(b"a", &[0; MAX_METADATA_BYTES])], 1),
            "1 MiB of metadata",
        ),
        (metadata(&[(b"a", b"b")], i64::MAX), "of metadata"),
        (
            [&AVRO_MAGIC[..], &[2, 0xff, 0xff, 0xff, 0xff, 0xf]].concat(),
            "1 MiB of metadata",
        ),
        ([&AVRO_MAGIC[..], &[0xff; 12]].concat(), "more than 64 bits"),
        (negative, "its count is -1"),
        (size, "more than 32 MiB"),
    ] {
        let message = read(&bytes).expect_err(named).to_string();
        assert!(message.contains(named), "{named}: {message}");
    }
    // Entries without bytes are bounded as well.
    let mut empty = AVRO_MAGIC.to_vec();
    put_long(&mut empty, i64::MAX);
    empty.resize(4 << 20, 0);
    assert!(read(&empty).is_err());
}

const BZIP2: &[u8] = &[
    0x42, 0x5a, 0x68, 0x39, 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, 0xaa, 0xc3, 0x53, 0x0a, 0x00, 0x00,
    0x04, 0x81, 0x80, 0x22, 0x65, 0xdc, 0x00, 0x20, 0x00, 0x22, 0x00, 0x31, 0x08, 0x06, 0x9a, 0x68,
    0xb0, 0x56, 0xe9, 0x0c, 0x92, 0xf1, 0x77, 0x24, 0x53, 0x85, 0x09, 0x0a, 0xac, 0x35, 0x30, 0xa0,
];
const XZ: &[u8] = &[
    0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21, 0x01,
    0x16, 0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0x01, 0x00, 0x0b, 0x72, 0x65, 0x6c, 0x61, 0x74,
    0x69, 0x6f, 0x6e, 0x73, 0x68, 0x69, 0x70, 0x00, 0x13, 0x36, 0xc4, 0x32, 0x07, 0xf8, 0x9b, 0xa7,
    0x00, 0x01, 0x24, 0x0c, 0xa6, 0x18, 0xd8, 0xd8, 0x1f, 0xb6, 0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00,
    0x00, 0x04, 0x59, 0x5a,
];
