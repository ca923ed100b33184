//! The rejects file: what the target's schema does not allow is in it, and can be fed again.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use spice_record::{ExpiryPrecision, SnapshotWriter};
use testdata::Sample;

use super::{assert_says, by_hand, counts, dump, line, with_schema};
use crate::copy::{import, summary};
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};

/// The sample's schema with one relation more.
fn newer_schema() -> String {
    let newer =
        testdata::SCHEMA.replace("banned: user\n", "banned: user\n\trelation auditor: user\n");
    assert_ne!(newer, testdata::SCHEMA);
    newer
}

/// A stream with the newer schema, in which these rows (counted from 0) use the new relation.
fn stream_with(sample: Sample, auditors: impl Fn(usize) -> bool) -> Vec<u8> {
    let mut header = sample.header();
    header.schema = Some(newer_schema());
    let precision = ExpiryPrecision::default();
    let mut stream = SnapshotWriter::create(Vec::new(), header, precision).unwrap();
    for (index, mut relationship) in sample.iter().enumerate() {
        if auditors(index) {
            "auditor".clone_into(&mut relationship.relation);
            let resource = relationship.resource.as_mut().unwrap();
            "tenant/document".clone_into(&mut resource.object_type);
            let subject = relationship.subject.as_mut().unwrap();
            subject.optional_relation.clear();
            let object = subject.object.as_mut().unwrap();
            "user".clone_into(&mut object.object_type);
            object.object_id = format!("auditor{index}");
            relationship.optional_caveat = None;
            relationship.optional_expires_at = None;
        }
        stream.write(&relationship).unwrap();
    }
    stream.finish().unwrap().1
}

/// `spice-import` into a target whose schema is older than the stream's.
fn load(server: &Server, stream: &[u8], flags: &[&str]) -> Program {
    import(server)
        .args(["--schema", "skip"])
        .args(flags)
        .input(stream)
        .timeout(Duration::from_secs(600))
}

pub(super) fn rejects_in(folder: &tempfile::TempDir) -> String {
    folder
        .path()
        .join("rejects.ndjson")
        .to_str()
        .unwrap()
        .to_owned()
}

/// Feeds rejects again, into a target whose schema was repaired.
fn feed_again(server: &Server, rejects: &str) -> Program {
    import(server).args(["--no-trailer", "--on-conflict", "skip", rejects])
}

#[test]
fn one_refused_of_100_000_is_kept_and_can_be_applied() {
    let stream = stream_with(Sample::portable(100_000), |index| index == 61_234);
    let whole = Server::start(Datastore::Memory);
    import(&whole).input(stream.clone()).run().expect_success();
    let expected = dump(&whole);
    assert_eq!(expected.len(), 100_000);
    drop(whole);
    let bad = expected
        .iter()
        .find(|line| line.contains("auditor"))
        .unwrap();
    let others: Vec<String> = expected
        .iter()
        .filter(|line| *line != bad)
        .cloned()
        .collect();

    let target = with_schema(Datastore::Memory);
    let failed = load(&target, &stream, &[]).run().expect_code(1);
    assert!(failed.stdout.is_empty());
    assert_says(
        &failed,
        &[
            "line 61236: the target refuses tenant/document:",
            "#auditor@user:auditor61234",
            "relation/permission `auditor` not found",
            "hint: --rejects FILE --on-conflict skip",
        ],
    );
    // What it reports as loaded is there, and no more.
    let there: BTreeSet<String> = dump(&target).into_iter().collect();
    assert!(
        there.len() > 50_000,
        "what came before the bad one is there"
    );
    let said = format!(
        "{} relationships of this stream are on the target",
        there.len()
    );
    assert_says(&failed, &[&said]);
    assert!(there.iter().all(|line| others.binary_search(line).is_ok()));

    // The hint, followed.
    let folder = crate::support::folder();
    let rejects = rejects_in(&folder);
    let flags = ["--rejects", &rejects, "--on-conflict", "skip"];
    let finished = load(&target, &stream, &flags).run().expect_code(3);
    let left = 99_999 - there.len() as u64;
    assert_eq!(counts(&finished), [left, there.len() as u64, 0, 0, 1]);
    assert_says(
        &finished,
        &["line 61236: refused tenant/document:", "not found"],
    );
    oracle::assert_same_lines("expected", &others, "with rejects", &dump(&target));
    let kept = std::fs::read_to_string(&rejects).unwrap();
    assert_eq!(kept.lines().count(), 1);
    let line = String::from_utf8(stream).unwrap();
    assert_eq!(kept.trim_end(), line.lines().nth(61_235).unwrap());

    oracle::write_schema(&target, &newer_schema());
    let again = feed_again(&target, &rejects).run().expect_success();
    assert_eq!(counts(&again), [1, 0, 0, 0, 0]);
    oracle::assert_same_lines("expected", &expected, "fed again", &dump(&target));
}

#[test]
fn ten_thousand_refused_of_50_000_are_kept() {
    let stream = stream_with(Sample::portable(50_000), |index| index % 5 == 3);
    for datastore in [Datastore::Memory, Datastore::Postgres] {
        let target = with_schema(datastore);
        let folder = crate::support::folder();
        let rejects = rejects_in(&folder);
        let finished = load(&target, &stream, &["--rejects", &rejects]).run();
        let finished = finished.expect_code(3);
        assert_eq!(counts(&finished), [40_000, 0, 0, 0, 10_000]);
        assert_eq!(finished.stderr.matches(": refused ").count(), 100);
        assert_says(&finished, &["more are refused; they are in", &rejects]);
        assert_eq!(dump(&target).len(), 40_000);
        let kept = std::fs::read_to_string(&rejects).unwrap();
        let distinct: BTreeSet<&str> = kept.lines().collect();
        assert_eq!(distinct.len(), 10_000);
        oracle::write_schema(&target, &newer_schema());
        let again = feed_again(&target, &rejects).run().expect_success();
        assert_eq!(counts(&again), [10_000, 0, 0, 0, 0]);
    }
}

/// Lines of JSON without their spelling.
pub(super) fn values(lines: &str) -> Vec<Value> {
    let values = lines.lines().map(serde_json::from_str);
    values.map(Result::unwrap).collect()
}

#[test]
fn rejects_file_is_private_appended_to_and_removed_when_empty() {
    let target = with_schema(Datastore::Memory);
    let folder = crate::support::folder();
    let rejects = rejects_in(&folder);
    let bad = |id: &str| {
        line(
            &format!("tenant/document:{id}#auditor@user:u"),
            &Value::Null,
        )
    };
    let good = line("tenant/document:good#owner@user:u", &Value::Null);
    let load = |lines: &[String]| {
        by_hand(&target, lines).args(["--on-conflict", "skip", "--rejects", &rejects])
    };
    load(std::slice::from_ref(&good)).run().expect_success();
    assert!(!Path::new(&rejects).exists(), "empty, so it is gone");
    load(&[bad("one"), good.clone()]).run().expect_code(3);
    let mode = std::fs::metadata(&rejects).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    load(&[good.clone(), bad("two")]).run().expect_code(3);
    load(&[good]).run().expect_success();
    let kept = std::fs::read_to_string(&rejects).unwrap();
    assert_eq!(values(&kept), values(&(bad("one") + &bad("two"))));

    // The file that is read, by its name, by another name and as stdin.
    let link = folder.path().join("link");
    std::fs::hard_link(&rejects, &link).unwrap();
    let again = || import(&target).args(["--no-trailer", "--on-conflict", "skip"]);
    for program in [
        again().args([&rejects, "--rejects", &rejects]),
        again().arg(&rejects).arg("--rejects").arg(&link),
        again().args(["--rejects", &rejects]).input_file(&link),
    ] {
        let finished = program.run().expect_code(2);
        assert_says(&finished, &["--rejects", "is the file that is read"]);
    }
    assert_eq!(std::fs::read_to_string(&rejects).unwrap(), kept);
    // A missing folder is reported before anything is written.
    let nowhere = again()
        .args(["--rejects", "/nosuch/rejects"])
        .input(bad("one"));
    assert_says(
        &nowhere.run().expect_code(1),
        &["--rejects /nosuch/rejects"],
    );
    let another = by_hand(
        &target,
        &[line("tenant/document:new#owner@user:u", &Value::Null)],
    );
    let another = another.args(["--on-conflict", "skip", "--dry-run", "--rejects", &rejects]);
    another.run().expect_success();
    assert_eq!(dump(&target).len(), 1);
}

#[test]
fn jobs_side_by_side_load_and_reject_the_same() {
    let stream = stream_with(Sample::portable(110_000), |index| index % 27_500 == 7);
    let mut dumps = Vec::new();
    for jobs in ["1", "4"] {
        let target = with_schema(Datastore::Postgres);
        let folder = crate::support::folder();
        let rejects = rejects_in(&folder);
        let finished = load(&target, &stream, &["--jobs", jobs, "--rejects", &rejects]).run();
        let finished = finished.expect_code(3);
        assert_eq!(counts(&finished), [109_996, 0, 0, 0, 4], "{jobs} jobs");
        assert_eq!(summary(&finished)["verified"], true);
        let kept = std::fs::read_to_string(&rejects).unwrap();
        let kept: BTreeSet<String> = kept.lines().map(str::to_owned).collect();
        dumps.push((dump(&target), kept));
    }
    oracle::assert_same_lines("1 job", &dumps[0].0, "4 jobs", &dumps[1].0);
    assert_eq!(dumps[0].1, dumps[1].1);
}
