//! Damaged backups, of every codec and of every kind of damage: none makes an output that looks complete, but for
//! what `docs/convert.md` names.

use authzed::v1::Relationship;

use super::*;

/// Seven blocks of zed's: the schema and 99 relationships, five times 100, and 50.
const RELATIONSHIPS: u64 = 649;
const FLIPS: usize = 150;
const CUTS: usize = 100;

/// What was done to a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Cut,
    /// At the end of a block.
    CutBetween,
    /// Of one bit, not in the zedtoken.
    Flip,
    FlipInToken,
    Removed,
    Repeated,
    Swapped,
}

/// A backup, and where its header and each of its blocks end.
struct Original {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Original {
    fn new(bytes: Vec<u8>) -> Self {
        let sync = &bytes[bytes.len() - 16..];
        let places = bytes.windows(16).enumerate();
        let ends = places.filter(|(_, window)| *window == sync);
        let ends = ends.map(|(place, _)| place + 16).collect();
        Self { bytes, ends }
    }

    fn zeds(codec: Codec) -> Self {
        let relationships: Vec<Relationship> = milliseconds(RELATIONSHIPS).iter().collect();
        let metadata = [(TOKEN_KEY, TOKEN)];
        Self::new(zed_backup(testdata::SCHEMA, &relationships, codec, &metadata).0)
    }

    fn blocks(&self) -> Vec<&[u8]> {
        let pairs = self.ends.windows(2);
        pairs.map(|pair| &self.bytes[pair[0]..pair[1]]).collect()
    }

    /// The header and these blocks.
    fn with(&self, blocks: &[&[u8]]) -> Vec<u8> {
        [&self.bytes[..self.ends[0]], &blocks.concat()].concat()
    }

    fn damaged(&self, seed: u64) -> Vec<(Damage, Vec<u8>)> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut all = Vec::new();
        let length = self.bytes.len();
        for _ in 0..CUTS {
            let cut = random.usize(..length);
            let kind = match self.ends.contains(&cut) {
                true => Damage::CutBetween,
                false => Damage::Cut,
            };
            all.push((kind, self.bytes[..cut].to_vec()));
        }
        for end in &self.ends[..self.ends.len() - 1] {
            all.push((Damage::CutBetween, self.bytes[..*end].to_vec()));
        }
        let token = self.bytes.windows(TOKEN.len());
        let token = token
            .enumerate()
            .find(|(_, bytes)| *bytes == TOKEN.as_bytes());
        let token = token.map_or(0, |(place, _)| place);
        for _ in 0..FLIPS {
            let place = random.usize(..length);
            let mut bytes = self.bytes.clone();
            bytes[place] ^= 1 << random.u8(..8);
            let kind = match (token..token + TOKEN.len()).contains(&place) {
                true => Damage::FlipInToken,
                false => Damage::Flip,
            };
            all.push((kind, bytes));
        }
        let blocks = self.blocks();
        for place in 0..blocks.len() {
            let mut removed = blocks.clone();
            removed.remove(place);
            all.push((Damage::Removed, self.with(&removed)));
            let mut repeated = blocks.clone();
            repeated.insert(place, blocks[place]);
            all.push((Damage::Repeated, self.with(&repeated)));
            if place > 0 {
                let mut swapped = blocks.clone();
                swapped.swap(place - 1, place);
                all.push((Damage::Swapped, self.with(&swapped)));
            }
        }
        all
    }
}

/// The relationships in some order, where a conversion succeeds; nothing is left where it fails.
fn converted(folder: &Folder, bytes: &[u8]) -> Option<(Header, Vec<String>)> {
    folder.file("damaged", bytes);
    let out = folder.path("out");
    match folder.convert("damaged", "out", "--strict") {
        Ok(exit) => {
            assert!(matches!(exit, Exit::Done | Exit::Partial), "{exit:?}");
            let (header, mut found) = stream(&out);
            std::fs::remove_file(out).unwrap();
            found.sort();
            matches!(exit, Exit::Done).then_some((header, found))
        }
        Err(failure) => {
            assert_eq!(failure.exit, Exit::BadData, "{failure:?}");
            assert!(!out.exists(), "{failure:?}");
            None
        }
    }
}

#[test]
fn damaged_backups_of_zed_are_not_taken_for_complete() {
    let folder = Folder::new();
    let (mut count, mut altered) = (0, 0);
    for (seed, codec) in (1..).zip(Codec::ALL) {
        let original = Original::zeds(codec);
        assert_eq!(original.ends.len(), 8, "{codec:?}");
        let (_, expected) = converted(&folder, &original.bytes).unwrap();
        for (damage, bytes) in original.damaged(seed) {
            count += 1;
            let Some((header, found)) = converted(&folder, &bytes) else {
                continue;
            };
            let is_same = found == expected && header.schema.as_deref() == Some(testdata::SCHEMA);
            match damage {
                // Their order is of no meaning.
                Damage::Swapped => assert!(is_same, "{codec:?}"),
                Damage::FlipInToken => assert!(is_same, "{codec:?}"),
                // Documented: nothing shows that blocks are missing between others.
                Damage::Removed => assert_eq!(found.len() + 100, expected.len(), "{codec:?}"),
                // Documented: no checksum.
                Damage::Flip if !codec.has_checksum() => altered += usize::from(!is_same),
                Damage::Flip => assert!(is_same && header.revision.as_deref() == Some(TOKEN)),
                Damage::Cut | Damage::CutBetween | Damage::Repeated => {
                    panic!("{codec:?}: {damage:?} taken for complete")
                }
            }
        }
    }
    assert!(count > 1_500, "{count}");
    assert!(altered > 0, "null has no checksum");
}

#[test]
fn damaged_backups_of_ours_are_not_taken_for_complete() {
    let folder = Folder::new();
    folder.file("stream", sealed(milliseconds(4_000)));
    let mut count = 0;
    for (seed, codec) in (1..).zip(["null", "deflate", "snappy", "zstandard"]) {
        let flags = format!("--to zedbackup --codec {codec}");
        folder.converted("stream", "backup", &flags);
        let original = Original::new(folder.read("backup"));
        assert!(original.ends.len() > 5, "{}", original.ends.len());
        let (_, expected) = converted(&folder, &original.bytes).unwrap();
        for (damage, bytes) in original.damaged(seed) {
            count += 1;
            let Some((header, found)) = converted(&folder, &bytes) else {
                continue;
            };
            // Packed otherwise, or in another order.
            assert!(
                matches!(damage, Damage::Flip | Damage::Swapped),
                "{damage:?}"
            );
            assert_eq!(found, expected, "{codec}");
            assert_eq!(header.revision.as_deref(), Some(TOKEN));
            assert_eq!(header.schema.as_deref(), Some(testdata::SCHEMA));
        }
    }
    assert!(count > 1_000, "{count}");
}

#[test]
fn last_block_shows_whether_zed_ended() {
    let folder = Folder::new();
    for (relationships, is_full) in [
        (0, false),
        (98, false),
        (99, true),
        (100, false),
        (399, true),
    ] {
        folder.file("zed", zeds(milliseconds(relationships), None));
        match is_full {
            true => folder.refused("zed", "", Exit::BadData, "a full block of 100 objects"),
            false => folder.converted("zed", "out", "--strict"),
        }
        folder.converted("zed", "out", "--allow-incomplete");
        assert_eq!(stream(&folder.path("out")).1.len() as u64, relationships);
        let exit = folder.convert("zed", "out", "--allow-incomplete --strict");
        assert_eq!(matches!(exit, Ok(Exit::Partial)), is_full, "{exit:?}");
    }
}
