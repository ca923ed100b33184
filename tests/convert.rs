//! What zed writes is converted, and what is converted zed takes, with real servers at both ends.

mod damage;
mod formats;
mod rows;

use std::path::Path;

use testdata::Sample;

use crate::copy::{export, holding, import, stream_of};
use crate::support::oracle::{self, Precision};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{figure, folder};

fn convert(from: &Path) -> Program {
    Program::new("spice-convert").arg(from)
}

/// Whether zed is missing, which is printed: a test that needs it is skipped then.
fn lacks_zed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let lacks = !std::env::split_paths(&path).any(|folder| folder.join("zed").is_file());
    if lacks {
        figure("skipped, zed is not on PATH: https://github.com/authzed/zed");
    }
    lacks
}

fn zed(arguments: &[&str]) -> Program {
    Program::at(Path::new("zed"))
        .args(arguments)
        .arg("--skip-version-check")
}

fn zed_on(server: &Server, arguments: &[&str]) -> Program {
    let token = server.token();
    let connection = ["--insecure", "--endpoint", server.endpoint(), "--token"];
    zed(arguments).args(connection).arg(token)
}

/// What zed keeps of an expiry in full.
fn milliseconds(count: u64) -> Sample {
    Sample {
        expiry_step: 1_000_000,
        ..Sample::rich(count)
    }
}

#[test]
fn zed_restores_what_was_converted() {
    if lacks_zed() {
        return;
    }
    let (source, target) = (
        holding(milliseconds(12_345), Datastore::Memory),
        Server::start(Datastore::Memory),
    );
    let folder = folder();
    for codec in ["null", "deflate", "snappy", "zstandard"] {
        let backup = folder.path().join(codec);
        let path = backup.to_str().unwrap();
        let converting = Program::new("spice-convert").args(["--to", "zedbackup", "--strict"]);
        let converting = converting.args(["--codec", codec, "--output", path]);
        Pipe::from(export(&source)).to(converting).expect_success();
        let revision = zed(&["backup", "parse-revision", path]);
        let revision = revision.run().expect_success().text().trim().to_owned();
        let own = Program::new("spice-revision").arg(path).run();
        assert_eq!(own.expect_success().text().trim(), revision);
    }
    let path = folder.path().join("snappy");
    let restoring = zed_on(&target, &["backup", "restore", path.to_str().unwrap()]);
    restoring.run().expect_success();
    let compared = oracle::assert_same_relationships(&source, &target, Precision::Nanoseconds);
    assert_eq!(compared, 12_345);
}

#[test]
fn backup_of_zed_is_imported_and_equals_its_source() {
    if lacks_zed() {
        return;
    }
    let source = holding(milliseconds(5_000), Datastore::Postgres);
    let target = Server::start(Datastore::Memory);
    let folder = folder();
    let backup = folder.path().join("old.zedbackup");
    let creating = zed_on(&source, &["backup", "create", backup.to_str().unwrap()]);
    creating.run().expect_success();
    let imported = Pipe::from(convert(&backup)).to(import(&target));
    imported.expect_success();
    let compared = oracle::assert_same_relationships(&source, &target, Precision::Nanoseconds);
    assert_eq!(compared, 5_000);
    let [converted, exported] = ["converted", "exported"].map(|name| folder.path().join(name));
    let output = ["--output", converted.to_str().unwrap()];
    let finished = convert(&backup).args(output).run().expect_success();
    let stderr = &finished.stderr;
    assert!(
        stderr.contains("cannot be proven to be complete"),
        "{stderr}"
    );
    let revision = Program::new("spice-revision").arg(&backup).run();
    let revision = revision.expect_success().text().trim().to_owned();
    let exporting = export(&source).args(["--at", &revision]);
    exporting.output_file(&exported).run().expect_success();
    let compare = Program::new("spice-diff").arg(&converted).arg(&exported);
    compare.run().expect_success();
    // And back to zed.
    let again = folder.path().join("again.zedbackup");
    let flags = ["--to", "zedbackup", "--strict", "--output"];
    convert(&converted)
        .args(flags)
        .arg(&again)
        .run()
        .expect_success();
    let second = Server::start(Datastore::Memory);
    zed_on(&second, &["backup", "restore", again.to_str().unwrap()])
        .run()
        .expect_success();
    let compared = oracle::assert_same_relationships(&source, &second, Precision::Nanoseconds);
    assert_eq!(compared, 5_000);
    // zed's own lock, and a cut in a block.
    std::fs::write(folder.path().join("old.zedbackup.lock"), "cursor").unwrap();
    let finished = convert(&backup).run().expect_code(65);
    assert!(finished.stderr.contains("old.zedbackup.lock is there"));
    convert(&backup)
        .arg("--allow-incomplete")
        .run()
        .expect_success();
    let bytes = std::fs::read(&backup).unwrap();
    let cut = folder.path().join("cut.zedbackup");
    std::fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    assert_nothing(&convert(&cut).args(["--to", "text"]).run());
    // Between two blocks: the schema and 5,000 relationships are 50 full blocks, and one object.
    let sync = &bytes[bytes.len() - 16..];
    let places = bytes
        .windows(16)
        .enumerate()
        .filter(|(_, window)| *window == sync);
    let ends: Vec<usize> = places.map(|(place, _)| place + 16).collect();
    assert_eq!(ends.len(), 52, "the header and 51 blocks");
    for end in &ends[..51] {
        std::fs::write(&cut, &bytes[..*end]).unwrap();
        assert_nothing(&convert(&cut).args(["--to", "text"]).run());
    }
}

#[test]
fn zed_validates_what_was_converted() {
    if lacks_zed() {
        return;
    }
    let folder = folder();
    let [stream, yaml] = ["stream", "sample.yaml"].map(|name| folder.path().join(name));
    std::fs::write(&stream, stream_of(Sample::rich(500))).unwrap();
    let flags = ["--to", "yaml", "--output", yaml.to_str().unwrap()];
    convert(&stream).args(flags).run().expect_success();
    let finished = zed(&["validate", yaml.to_str().unwrap()]).run();
    let finished = finished.expect_success();
    let output = format!("{}{}", finished.text(), finished.stderr);
    assert!(output.contains("500 relationships loaded"), "{output}");
}

/// Refused, and nothing that could be taken for complete was printed.
#[track_caller]
fn assert_nothing(finished: &Finished) {
    assert_eq!(finished.code(), Some(65), "{}", finished.stderr);
    assert!(
        finished.stdout.is_empty(),
        "{} bytes",
        finished.stdout.len()
    );
}

#[test]
fn stdout_gets_nothing_of_an_incomplete_input() {
    let stream = stream_of(milliseconds(3_000));
    let cut = stream.len() - 300;
    let end = stream[..cut]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .unwrap()
        + 1;
    for to in ["zedbackup", "yaml", "text"] {
        let convert = || Program::new("spice-convert").args(["--to", to]);
        assert_nothing(&convert().input(&stream[..end]).run());
        let finished = convert().input(&stream[..]).run().expect_success();
        assert!(finished.stdout.len() > 50_000, "{}", finished.stdout.len());
        let back = Program::new("spice-convert").input(finished.stdout.clone());
        let back = Pipe::from(back).to(Program::new("spice-digest").arg("--json"));
        let digest = back.expect_success().json_lines();
        assert_eq!(digest[0]["digest"]["total"]["relationships"], 3_000);
    }
    // A stream has its trailer: what is there of it is refused by each reader.
    let convert = Program::new("spice-convert").input(&stream[..end]).run();
    let digest = Program::new("spice-digest").input(convert.stdout.clone());
    assert_eq!(convert.code(), Some(65));
    digest.run().expect_code(65);
}
