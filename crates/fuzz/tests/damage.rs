//! Any deletion, flip, repetition or reordering of a sealed stream is refused, or means the same.

use std::time::Duration;

use fuzz::{Edit, Kind, damage, follow, write_spool};
use spice_record::RecordReader;

/// Seconds in `make test`, minutes in `make soak`.
fn time() -> Duration {
    let soak = std::env::var_os("SPICE_SOAK").is_some();
    Duration::from_secs(if soak { 240 } else { 3 })
}

/// Whether a damaged stream was refused; where it was not, it must mean the same.
#[track_caller]
fn refused(kind: Kind, sound: &[u8], damaged: &[u8], what: &dyn std::fmt::Debug) -> bool {
    let Ok(read) = kind.read(damaged) else {
        return true;
    };
    let meant = kind.read(sound).expect("it is sound");
    assert_eq!(read, meant, "{kind:?}: {what:?}");
    false
}

#[test]
fn every_flipped_bit_is_refused_or_means_the_same() {
    for kind in Kind::ALL {
        let sound = kind.sound(4);
        let bits = u32::try_from(sound.len() * 8).unwrap();
        let is_refused = |bit| {
            let edit = Edit::Flip(bit);
            refused(
                kind,
                &sound,
                &damage(&sound, std::slice::from_ref(&edit)),
                &edit,
            )
        };
        let count = (0..bits).filter(|bit| is_refused(*bit)).count();
        // What passes is another case of a hex digit in an escape, or white space.
        assert!(
            count * 100 > bits as usize * 99,
            "{kind:?}: {count} of {bits}"
        );
    }
}

#[test]
fn flipped_bits_of_large_streams_are_refused_or_mean_the_same() {
    for kind in Kind::ALL {
        let sound = kind.sound(300);
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..5_000 / Kind::ALL.len() {
            let edit = Edit::Flip(rng.u32(..));
            refused(
                kind,
                &sound,
                &damage(&sound, std::slice::from_ref(&edit)),
                &edit,
            );
        }
    }
}

#[test]
fn missing_doubled_or_swapped_line_is_refused_or_harmless() {
    for kind in Kind::ALL {
        let sound = kind.sound(12);
        let lines = u16::try_from(sound.iter().filter(|byte| **byte == b'\n').count()).unwrap();
        for one in 0..lines {
            let missing = Edit::DeleteLine(one);
            assert!(
                refused(
                    kind,
                    &sound,
                    &damage(&sound, std::slice::from_ref(&missing)),
                    &missing
                ),
                "{kind:?}: {missing:?}"
            );
            for other in 0..lines {
                let duplicate = Edit::RepeatLine(one, other);
                assert!(
                    refused(
                        kind,
                        &sound,
                        &damage(&sound, std::slice::from_ref(&duplicate)),
                        &duplicate
                    ),
                    "{kind:?}: {duplicate:?}"
                );
                let swapped = Edit::SwapLines(one, other);
                let damaged = damage(&sound, std::slice::from_ref(&swapped));
                let is_refused = refused(kind, &sound, &damaged, &swapped);
                // The order of a snapshot means nothing.
                assert!(
                    is_refused || damaged == sound || kind == Kind::Snapshot,
                    "{kind:?}: {swapped:?}"
                );
            }
        }
    }
}

/// Lines of two sound streams, mixed, are no third one.
#[test]
fn a_trailer_of_another_stream_is_refused() {
    for kind in Kind::ALL {
        let (sound, other) = (kind.sound(5), kind.sound(6));
        let trailer = other.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
        let body = &sound[..sound
            .trim_ascii_end()
            .iter()
            .rposition(|b| *b == b'\n')
            .unwrap()];
        let mixed = [body, b"\n", trailer.unwrap(), b"\n"].concat();
        assert!(kind.read(mixed.as_slice()).is_err(), "{kind:?}");
        for stranger in Kind::ALL {
            assert_eq!(
                stranger.read(sound.as_slice()).is_ok(),
                stranger == kind,
                "{kind:?} for {stranger:?}"
            );
        }
    }
}

#[test]
fn fuzz_streams() {
    let sound = Kind::ALL.map(|kind| (kind, kind.sound(8)));
    bolero::check!()
        .with_type::<(u8, Vec<Edit>)>()
        .with_test_time(time())
        .for_each(|(which, edits)| {
            let (kind, sound) = &sound[usize::from(*which) % sound.len()];
            refused(*kind, sound, &damage(sound, edits), edits);
        });
}

#[test]
fn fuzz_record_reader() {
    bolero::check!()
        .with_test_time(time())
        .for_each(|bytes: &[u8]| {
            let mut records = RecordReader::new(bytes, "fuzz");
            while let Ok(Some(_)) = records.next_record() {}
            for kind in Kind::ALL {
                assert!(kind.read(bytes).is_err(), "no checksum is guessed");
            }
        });
}

#[test]
fn fuzz_spool() {
    let folder = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let path = folder.path().join("spool");
    let segments = write_spool(&path, 60, 2_000).unwrap();
    assert!(segments.len() > 3, "{segments:?}");
    let (sound, is_refused) = follow(&path);
    assert!(!is_refused && sound.len() > 20);
    let bytes: Vec<Vec<u8>> = segments.iter().map(|s| std::fs::read(s).unwrap()).collect();
    bolero::check!()
        .with_type::<(u8, Vec<Edit>)>()
        .with_test_time(time())
        .for_each(|(which, edits)| {
            let which = usize::from(*which) % segments.len();
            let damaged = damage(&bytes[which], edits);
            std::fs::write(&segments[which], &damaged).unwrap();
            let (given, is_refused) = follow(&path);
            let so_far = given.len().min(sound.len());
            assert_eq!(given, sound[..so_far], "segment {which}: {edits:?}");
            // Only the end of the last segment may be missing without an error: it may yet be written.
            let is_last = which + 1 == segments.len();
            let is_cut = bytes[which]
                .starts_with(&damaged[..damaged.len().min(bytes[which].len())])
                || !damaged.ends_with(b"\n")
                || damaged.iter().all(u8::is_ascii_whitespace);
            assert!(
                is_refused || given == sound || (is_last && is_cut),
                "segment {which}: {edits:?}"
            );
            std::fs::write(&segments[which], &bytes[which]).unwrap();
        });
}

/// Streams that were found by fuzzing or made up by an attacker: each is refused.
#[test]
fn corpus_is_refused() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/attack");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        for kind in Kind::ALL {
            let read =
                spice_cli::stdio::open(&path).is_ok_and(|(input, _)| kind.read(input).is_ok());
            assert!(!read, "{}: {kind:?}", path.display());
        }
        count += 1;
    }
    assert!(count >= 26, "{count} files");
}
