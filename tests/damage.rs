//! A damaged stream is never accepted as complete: the matrix of damage and place.

mod changes;
mod unwritten;

use std::io::{Read as _, Write as _};
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use testdata::Sample;

use crate::copy::{export, holding, import, stream_of};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};
use crate::support::toxiproxy::Proxy;
use crate::support::{Random, oracle, repeat};

/// Exit code of `spice-import --dry-run`, which needs no server.
fn checked(stream: &[u8]) -> (i32, String) {
    let finished = Program::new("spice-import")
        .arg("--dry-run")
        .input(stream)
        .run();
    (finished.code().unwrap_or(-1), finished.stderr.clone())
}

#[track_caller]
fn assert_refused(stream: &[u8], what: &str) {
    let (code, stderr) = checked(stream);
    assert_eq!(code, 65, "{what}: {stderr}");
    assert!(
        stderr.contains("<stdin>"),
        "{what} names the input: {stderr}"
    );
}

/// Runs a check for many cases on all cores.
fn in_parallel(cases: usize, check: impl Fn(usize) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let case = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if case >= cases {
                        return;
                    }
                    check(case);
                }
            });
        }
    });
}

fn zstd_of(stream: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(stream).unwrap();
    encoder.finish().unwrap()
}

fn gzip_of(stream: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(stream).unwrap();
    encoder.finish().unwrap()
}

/// A stream in each form that it may have.
fn forms(stream: &[u8]) -> [(&'static str, Vec<u8>); 3] {
    [
        ("plain", stream.to_vec()),
        ("zstd", zstd_of(stream)),
        ("gzip", gzip_of(stream)),
    ]
}

fn lines(stream: &[u8]) -> Vec<&[u8]> {
    stream.split_inclusive(|byte| *byte == b'\n').collect()
}

#[test]
fn whole_stream_is_accepted() {
    let stream = stream_of(Sample::rich(2_000));
    for (name, stream) in forms(&stream) {
        assert_eq!(checked(&stream).0, 0, "{name}");
    }
    let (first, second) = stream.split_at(stream.len() / 2);
    let members = [gzip_of(first), gzip_of(second)].concat();
    assert_eq!(checked(&members).0, 0, "gzip of two members");
}

#[test]
fn cut_at_any_record_boundary_is_refused() {
    let stream = stream_of(Sample::rich(100));
    let lines = lines(&stream);
    in_parallel(lines.len(), |kept| {
        assert_refused(&lines[..kept].concat(), &format!("cut after {kept} lines"));
    });
}

#[test]
fn cut_at_random_bytes_is_refused() {
    let stream = stream_of(Sample::rich(2_000));
    for (name, stream) in forms(&stream) {
        let mut random = Random::new(1);
        let cuts: Vec<usize> = (0..1_000).map(|_| random.below(stream.len())).collect();
        in_parallel(cuts.len(), |case| {
            assert_refused(
                &stream[..cuts[case]],
                &format!("{name} cut at byte {}", cuts[case]),
            );
        });
    }
}

#[test]
fn flipped_bit_anywhere_is_refused() {
    let stream = stream_of(Sample::rich(50));
    let header = lines(&stream)[0].len();
    for (name, stream) in forms(&stream) {
        let mut random = Random::new(2);
        let place = |random: &mut Random, case: usize| match case % 4 {
            // The header is one line, and as much in danger as all the others.
            0 => random.below(header.min(stream.len())),
            _ => random.below(stream.len()),
        };
        let flips: Vec<(usize, u8)> = (0..1_000)
            .map(|case| (place(&mut random, case), 1 << random.below(8)))
            .collect();
        in_parallel(flips.len(), |case| {
            let (place, bit) = flips[case];
            let mut damaged = stream.clone();
            damaged[place] ^= bit;
            let (code, stderr) = checked(&damaged);
            // A `z` for a `Z` at the end of a time, or `\u00C3` for `\u00c3`, means the same; and not
            // every bit of a zstd block or of a gzip header means something.
            let harmless = code == 0 && says_the_same(&stream, &damaged);
            assert!(
                code == 65 || harmless,
                "{name}, byte {place} ^ {bit}: exit {code}: {stderr}"
            );
        });
    }
}

#[test]
fn what_follows_compressed_data_is_refused() {
    let stream = stream_of(Sample::rich(50));
    for packed in [gzip_of(&stream), zstd_of(&stream)] {
        for rest in [&b"\0"[..], b"\n", &[0; 512], &stream] {
            assert_refused(&[&packed[..], rest].concat(), "something after its end");
        }
    }
}

fn says_the_same(a: &[u8], b: &[u8]) -> bool {
    let parse = |stream: &[u8]| -> Vec<serde_json::Value> {
        let mut unpacked = Vec::new();
        let is_gzip = MultiGzDecoder::new(stream)
            .read_to_end(&mut unpacked)
            .is_ok();
        if !is_gzip {
            unpacked = zstd::decode_all(stream).unwrap_or_else(|_| stream.to_vec());
        }
        let text = String::from_utf8_lossy(&unpacked).to_string();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_default());
        lines.map(upper_times).collect()
    };
    parse(a) == parse(b)
}

fn upper_times(mut line: serde_json::Value) -> serde_json::Value {
    if let Some(expiry) = line.pointer_mut("/relationship/optionalExpiresAt") {
        *expiry = expiry.as_str().unwrap_or_default().to_uppercase().into();
    }
    line
}

#[test]
fn lines_that_do_not_belong_are_refused() {
    let stream = stream_of(Sample::rich(30));
    let whole = lines(&stream);
    let (first, last) = (0, whole.len() - 1);
    let edited = |edit: &dyn Fn(&mut Vec<&[u8]>)| {
        let mut lines = whole.clone();
        edit(&mut lines);
        lines.concat()
    };
    let refused: [(&str, Vec<u8>); 12] = [
        ("a line twice", edited(&|lines| lines.insert(5, lines[5]))),
        ("a line missing", edited(&|lines| _ = lines.remove(7))),
        (
            "the header twice",
            edited(&|lines| lines.insert(1, lines[first])),
        ),
        ("no header", edited(&|lines| _ = lines.remove(first))),
        ("the header last", edited(&|lines| lines.rotate_left(1))),
        (
            "the trailer before the last",
            edited(&|lines| lines.swap(last - 1, last)),
        ),
        ("the trailer first", edited(&|lines| lines.rotate_right(1))),
        (
            "the trailer twice",
            edited(&|lines| lines.push(lines[last])),
        ),
        ("two streams", [stream.clone(), stream.clone()].concat()),
        ("nothing", Vec::new()),
        ("blank lines only", b"\n\n \n".to_vec()),
        ("no last newline", stream[..stream.len() - 1].to_vec()),
    ];
    for (what, stream) in refused {
        assert_refused(&stream, what);
    }
    assert_eq!(
        checked(&edited(&|lines| lines[1..last].sort())).0,
        0,
        "sorted is the same set"
    );
    assert_eq!(
        checked(&edited(&|lines| lines.insert(3, b"\n"))).0,
        0,
        "blank lines are skipped"
    );
}

#[test]
fn malformed_lines_are_named_by_line_and_column() {
    let stream = stream_of(Sample::rich(3));
    let whole = lines(&stream);
    let with = |line: &str| {
        let mut lines = whole.clone();
        let line = format!("{line}\n");
        lines.insert(2, line.as_bytes());
        lines.concat()
    };
    let relationship = r#""resource":{"objectType":"user","objectId":"a"},"relation":"x","subject":{"object":{"objectType":"user","objectId":"b"}}"#;
    for (line, expected) in [
        ("{".to_owned(), "<stdin>:3:1: EOF"),
        ("[]".to_owned(), "expected an object with one key"),
        ("{}".to_owned(), "empty object"),
        (r#"{"tuple":{}}"#.to_owned(), "unknown variant `tuple`"),
        (
            r#"{"relationship":{}}"#.to_owned(),
            "missing field `resource`",
        ),
        (
            format!(r#"{{"relationship":{{{relationship}}},"x":1}}"#),
            "second key \"x\"",
        ),
        (
            format!(
                r#"{{"update":{{"operation":"OPERATION_TOUCH","relationship":{{{relationship}}}}}}}"#
            ),
            "a snapshot holds no update",
        ),
        (
            format!(r#"{{"relationship":{{{relationship},"optionalExpiresAt":"soon"}}}}"#),
            "expected an RFC 3339 time",
        ),
        (
            format!(r#"{{"relationship":{{{relationship},"relation":"y"}}}}"#),
            "duplicate field `relation`",
        ),
        (
            format!(
                r#"{{"relationship":{{{relationship},"optionalCaveat":{{"caveatName":"c","context":{{"a":1,"a":2}}}}}}}}"#
            ),
            "is twice in one object",
        ),
    ] {
        let (code, stderr) = checked(&with(&line));
        assert_eq!(code, 65, "{line}: {stderr}");
        assert!(stderr.contains("<stdin>:3:"), "{line}: {stderr}");
        assert!(
            stderr.contains(expected),
            "{line}: expected {expected:?} in {stderr}"
        );
    }
}

#[test]
fn endless_line_is_refused_without_being_held() {
    let mut program = Program::new("spice-import")
        .arg("--dry-run")
        .input_later()
        .spawn();
    let mut stdin = program.take_stdin();
    let block = vec![b'x'; 1 << 20];
    // Far more than the limit of 8 MiB; the program leaves long before the end.
    let written = (0..1_000)
        .take_while(|_| std::io::Write::write_all(&mut stdin, &block).is_ok())
        .count();
    drop(stdin);
    let finished = program.wait().expect_code(65);
    assert!(written < 100, "{written} MiB were taken");
    assert!(
        finished.stderr.contains("line longer than 8 MiB"),
        "{}",
        finished.stderr
    );
}

#[test]
fn damaged_stream_writes_nothing_and_never_exits_0() {
    let server = Server::start(Datastore::Memory);
    let stream = stream_of(Sample::rich(2_000));
    let mut random = Random::new(3);
    for case in 0..20 {
        let mut damaged = stream.clone();
        match case % 2 {
            0 => damaged.truncate(random.below(stream.len())),
            _ => damaged[random.below(stream.len())] ^= 0x10,
        }
        import(&server)
            .args(["--schema", "write"])
            .input(damaged)
            .run()
            .expect_code(65);
        assert_eq!(
            oracle::dump(&server, oracle::Precision::Nanoseconds).len(),
            0,
            "case {case}"
        );
    }
}

#[test]
fn producer_killed_without_pipefail_is_noticed() {
    let source = holding(Sample::rich(60_000), Datastore::Memory);
    for case in 0..repeat(3, 20) {
        let target = Server::start(Datastore::Memory);
        // It takes ten seconds at least: it is killed before its end.
        let proxy = Proxy::to(source.endpoint());
        proxy.bandwidth(500);
        let slowly = export(&source).args(["--endpoint", &proxy.endpoint()]);
        let pipe = Pipe::from(slowly)
            .to(import(&target))
            .timeout(Duration::from_secs(60));
        let mut all = pipe.spawn();
        std::thread::sleep(Duration::from_millis(100 + 60 * u64::from(case % 5)));
        all[0].kill9();
        let imported = all.pop().unwrap().wait();
        assert_eq!(imported.code(), Some(65), "{}", imported.stderr);
        assert!(
            imported.stdout.is_empty(),
            "no summary of an import that did not finish"
        );
    }
}
