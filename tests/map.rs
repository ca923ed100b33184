//! A mapped stream is a stream like any other: it loads, is followed and compared, and means the same.

mod follow;
mod large;
mod redaction;
mod schemas;

use std::path::Path;

use spice_record::record::StreamKind;
use spice_record::{ExpiryPrecision, Header, SnapshotWriter};
use testdata::Sample;

use crate::apply::{apply, checkpoint, header, touch, trailer, transaction};
use crate::check::check;
use crate::copy::{export, holding, import};
use crate::support::oracle::{self, Precision};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::seal::lines;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{folder, wait_until};

fn map(flags: &[&str]) -> Program {
    Program::new("spice-map").args(flags)
}

/// A key file that only we can read.
fn key(folder: &Path) -> String {
    use std::os::unix::fs::PermissionsExt as _;

    let path = folder.join("key");
    std::fs::write(&path, "a key of the tests, no secret").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A stream without relationships that has this schema.
fn stream_with(schema: &str) -> Vec<u8> {
    let header = Header {
        schema: Some(schema.to_owned()),
        ..Header::new(StreamKind::Snapshot, "a test", "2026-01-01T00:00:00Z")
    };
    let writer = SnapshotWriter::create(Vec::new(), header, ExpiryPrecision::Micros).unwrap();
    writer.finish().unwrap().1
}

fn schema_of(finished: &Finished) -> String {
    let schema = &finished.json_lines()[0]["header"]["schema"];
    schema.as_str().unwrap().to_owned()
}

/// The relationships of the sample, by their new names.
fn renamed(lines: &[String]) -> Vec<String> {
    let lines = lines.iter().map(|line| {
        let line = line
            .replace("tenant/", "org/")
            .replace("on_network", "from_inside");
        let is_document = line.contains(r#""resource":"org/document:"#);
        match is_document {
            true => line.replace(r#""relation":"viewer""#, r#""relation":"reader""#),
            false => line,
        }
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines
}

#[test]
fn renamed_copy_loads_and_holds_the_same() {
    let source = holding(Sample::portable(3_000), Datastore::Memory);
    let target = Server::start(Datastore::Memory);
    let flags = [
        "--rename",
        "tenant/=org/",
        "--rename",
        "on_network=from_inside",
        "--rename",
        "tenant/document#viewer=reader",
    ];
    let imported = Pipe::from(export(&source))
        .to(map(&flags))
        .to(import(&target))
        .expect_success();
    assert!(
        imported.stderr.contains("changed by spice-map"),
        "{}",
        imported.stderr
    );
    let before = oracle::dump(&source, Precision::Nanoseconds);
    let after = oracle::dump(&target, Precision::Nanoseconds);
    oracle::assert_same_lines("renamed", &renamed(&before), "target", &after);
    // The same pipe, compared.
    let folder = folder();
    let [a, b, plain] = ["a", "b", "plain"].map(|name| folder.path().join(name));
    export(&target)
        .arg("--output")
        .arg(&a)
        .run()
        .expect_success();
    export(&source)
        .arg("--output")
        .arg(&plain)
        .run()
        .expect_success();
    let mapped = map(&flags).arg("--output").arg(&b).arg(&plain);
    mapped.run().expect_success();
    let diff = |a: &Path, b: &Path| Program::new("spice-diff").arg(a).arg(b).run();
    diff(&a, &b).expect_success();
    let refused = diff(&plain, &b).expect_code(65);
    assert!(
        refused.stderr.contains("mapped in different ways"),
        "{}",
        refused.stderr
    );
}

/// The answers to questions, by the new names, sorted.
fn answers(finished: &Finished, renamed: impl Fn(&str) -> String) -> Vec<String> {
    let lines = finished.json_lines();
    let checks = lines.iter().filter_map(|line| line.get("check"));
    let mut checks: Vec<String> = checks.map(|check| renamed(&check.to_string())).collect();
    checks.sort();
    checks
}

#[test]
fn renamed_copy_gives_the_same_answers() {
    let source = holding(Sample::portable(3_000), Datastore::Memory);
    let target = Server::start(Datastore::Memory);
    let flags = ["--rename", "tenant/=org/"];
    Pipe::from(export(&source))
        .to(map(&flags))
        .to(import(&target))
        .expect_success();
    let drawn = ["--seed", "7", "--sample", "400"];
    let before = Pipe::from(export(&source))
        .to(check(&source).args(drawn))
        .expect_success();
    let after = Pipe::from(export(&source))
        .to(map(&flags))
        .to(check(&target)
            .args(drawn)
            .args(["--at", &oracle::head(&target)]))
        .expect_success();
    let by_prefix = |check: &str| check.replace("tenant/", "org/");
    let (before, after) = (answers(&before, by_prefix), answers(&after, by_prefix));
    assert!(before.len() >= 400, "{}", before.len());
    assert_eq!(before, after);
}

#[test]
fn chosen_types_are_equal_to_an_export_of_these_types() {
    let source = holding(Sample::portable(1_000), Datastore::Memory);
    let target = Server::start(Datastore::Memory);
    let flags = ["--only-type", "tenant/group", "--rename", "tenant/=org/"];
    let folder = folder();
    let part = folder.path().join("part");
    let mapped = map(&flags).arg("--output").arg(&part);
    Pipe::from(export(&source)).to(mapped).expect_success();
    import(&target).arg(&part).run().expect_success();
    let schema = oracle::read_schema(&target);
    assert!(
        schema.contains("org/group") && !schema.contains("org/document"),
        "{schema}"
    );
    let there = folder.path().join("there");
    let exported = export(&target).args(["--type", "org/group", "--output"]);
    exported.arg(&there).run().expect_success();
    let diff = Program::new("spice-diff").arg(&there).arg(&part);
    diff.run().expect_success();
}

/// Changes of documents, as a source without a server would give them.
fn changes(through: u64) -> String {
    let mut records = vec![header(1)];
    for revision in 2..=through {
        records.push(transaction(revision, &[touch(&format!("d{revision}"))]));
        records.push(checkpoint(revision));
    }
    records.push(trailer(through));
    lines(&records)
}

#[test]
fn mapped_changes_resume_only_with_the_same_mapping() {
    let target = Server::start(Datastore::Memory);
    oracle::write_schema(
        &target,
        "definition user {}\n\ndefinition org/file {\n\trelation reader: user\n}",
    );
    let folder = folder();
    let position = folder.path().join("position");
    let flags = [
        "--rename",
        "document=org/file",
        "--rename",
        "document#viewer=reader",
    ];
    let applied = |flags: &[&str], through: u64| {
        let applying = apply(&target).arg("--position").arg(&position);
        let mapped = map(flags).input(changes(through)).run().expect_success();
        applying.input(mapped.stdout).run()
    };
    applied(&flags, 5).expect_success();
    let turned = [flags[2], flags[3], flags[0], flags[1]];
    applied(&turned, 8).expect_success();
    assert_eq!(oracle::dump(&target, Precision::Seconds).len(), 7);
    let refused = applied(&["--rename", "document=org/file"], 9).expect_code(2);
    assert!(
        refused.stderr.contains("another mapping"),
        "{}",
        refused.stderr
    );
    let plain = apply(&target).arg("--position").arg(&position);
    let refused = plain.input(changes(9)).run().expect_code(2);
    assert!(refused.stderr.contains("spice-map"), "{}", refused.stderr);
    assert_eq!(oracle::dump(&target, Precision::Seconds).len(), 7);
}

/// A follower applies what has come, also where nothing more comes.
#[test]
fn changes_are_passed_on_while_the_input_is_open() {
    use std::io::Write as _;

    let all = changes(4);
    let mut running = map(&["--rename", "document=file"]).input_later().spawn();
    let mut stdin = running.take_stdin();
    let lines: Vec<&str> = all.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        // In two pieces, the second of which begins the next line.
        let (begin, end) = line.split_at(line.len() / 2);
        stdin.write_all(begin.as_bytes()).unwrap();
        stdin.write_all(format!("{end}\n").as_bytes()).unwrap();
        let written = || {
            let stdout = running.stdout_so_far();
            stdout.iter().filter(|byte| **byte == b'\n').count()
        };
        wait_until(
            "the line is mapped",
            std::time::Duration::from_secs(20),
            || {
                // The trailer is verified at the end of the input.
                written() > number || number + 1 == lines.len()
            },
        );
    }
    drop(stdin);
    let finished = running.wait().expect_success();
    assert_eq!(finished.json_lines().len(), lines.len());
}
