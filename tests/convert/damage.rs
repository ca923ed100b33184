//! A converter never writes an output that looks complete from an input that is not, whatever ends it.

use std::io::Write as _;

use testdata::Sample;

use super::{convert, milliseconds};
use crate::copy::stream_of;
use crate::support::disk::SmallDisk;
use crate::support::program::Program;
use crate::support::{Random, figure, folder};

const FORMATS: [&str; 4] = ["stream", "zedbackup", "yaml", "text"];

/// A backup of ours, by the program itself.
fn backup(count: u64, codec: &str) -> Vec<u8> {
    let program = Program::new("spice-convert").args(["--to", "zedbackup", "--codec", codec]);
    program
        .input(stream_of(milliseconds(count)))
        .run()
        .expect_success()
        .stdout
}

/// Where the header and each block end.
fn ends(backup: &[u8]) -> Vec<usize> {
    let sync = &backup[backup.len() - 16..];
    let places = backup
        .windows(16)
        .enumerate()
        .filter(|(_, window)| *window == sync);
    places.map(|(place, _)| place + 16).collect()
}

#[test]
fn a_thousand_damaged_backups_make_no_output() {
    let mut random = Random::new(1);
    let (mut refused, mut equal) = (0, 0);
    for codec in ["null", "deflate", "snappy", "zstandard"] {
        let sound = backup(2_500, codec);
        let digest_of = |bytes: &[u8]| {
            let finished = Program::new("spice-convert")
                .args(["--to", "text"])
                .input(bytes)
                .run();
            (finished.code(), finished.stdout)
        };
        let (_, expected) = digest_of(&sound);
        let ends = ends(&sound);
        assert!(ends.len() > 3, "{codec}: {}", ends.len());
        let cuts = ends[..ends.len() - 1].iter().copied();
        let cuts: Vec<usize> = cuts
            .chain((0..120).map(|_| random.below(sound.len())))
            .collect();
        let cuts = cuts
            .into_iter()
            .map(|cut| sound[..cut].to_vec())
            .collect::<Vec<_>>();
        let flips = (0..160).map(|_| {
            let mut bytes = sound.clone();
            bytes[random.below(sound.len())] ^= 1 << random.below(8);
            bytes
        });
        for bytes in cuts.into_iter().chain(flips.collect::<Vec<_>>()) {
            match digest_of(&bytes) {
                (Some(0), found) => {
                    assert!(found == expected, "{codec}: another content");
                    equal += 1;
                }
                (code, found) => {
                    assert_eq!(code, Some(65));
                    assert!(found.is_empty(), "{codec}: {} bytes", found.len());
                    refused += 1;
                }
            }
        }
    }
    figure(&format!(
        "{refused} refused, {equal} packed otherwise with the same content"
    ));
    assert!(refused > 1_000, "{refused}");
}

#[test]
fn blocks_made_to_harm_take_little_memory() {
    const LIMIT_KIB: u64 = 100 << 10;
    let sound = backup(10, "zstandard");
    let header = &sound[..ends(&sound)[0]];
    let sync = &header[header.len() - 16..];
    let length = |bytes: usize| {
        let mut rest = bytes * 2;
        let mut out = Vec::new();
        while rest > 0x7f {
            out.push(0x80 | u8::try_from(rest & 0x7f).unwrap());
            rest >>= 7;
        }
        out.push(u8::try_from(rest).unwrap());
        out
    };
    let mut peak = 0;
    for mib in [31, 33, 1_000] {
        let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
        for _ in 0..mib {
            packed.write_all(&vec![0; 1 << 20]).unwrap();
        }
        let packed = packed.finish().unwrap();
        let block = [&length(1)[..], &length(packed.len()), &packed, sync].concat();
        let finished = convert("-".as_ref())
            .input([header, &block].concat())
            .run()
            .expect_code(65);
        assert!(
            finished.peak_kib < LIMIT_KIB,
            "{mib} MiB: {} KiB",
            finished.peak_kib
        );
        peak = peak.max(finished.peak_kib);
    }
    figure(&format!("{} MiB at most", peak >> 10));
}

#[test]
fn full_disk_leaves_no_output() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let stream = stream_of(Sample {
        expiry_step: 1_000_000,
        ..Sample::rich(40_000)
    });
    let out = disk.path().join("out");
    let temp = ["--temp-dir", disk.path().to_str().unwrap()];
    for to in FORMATS {
        let program = || {
            Program::new("spice-convert")
                .args(["--to", to])
                .input(&stream[..])
        };
        let finished = program().arg("--output").arg(&out).run().expect_code(1);
        assert!(
            finished.stderr.contains("No space left"),
            "{to}: {}",
            finished.stderr
        );
        let left = std::fs::read_dir(disk.path()).unwrap().count();
        assert_eq!(left, 0, "{to}");
        if to == "stream" {
            continue;
        }
        // Where the output is held back.
        let finished = program().args(temp).run().expect_code(1);
        assert!(finished.stdout.is_empty(), "{to}");
        let named = format!("temporary file in {}", disk.path().display());
        assert!(
            finished.stderr.contains(&named),
            "{to}: {}",
            finished.stderr
        );
    }
}

#[test]
fn signal_in_the_middle_leaves_no_output() {
    let folder = folder();
    let stream = stream_of(milliseconds(3_000));
    for to in FORMATS {
        for flags in [&["--output", "out"][..], &[]] {
            let program = Program::new("spice-convert").args(["--to", to]).args(flags);
            let mut running = program.current_folder(folder.path()).input_later().spawn();
            let mut stdin = running.take_stdin();
            stdin.write_all(&stream[..stream.len() - 100]).unwrap();
            running.signal("TERM");
            let finished = running.wait();
            assert_eq!(finished.signal(), Some(15), "{to}: {}", finished.stderr);
            let left = std::fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(left, 0, "{to} {flags:?}");
            if to == "stream" {
                let digest = Program::new("spice-digest").input(finished.stdout).run();
                digest.expect_code(65);
            } else {
                assert!(finished.stdout.is_empty(), "{to} {flags:?}");
            }
        }
    }
}
