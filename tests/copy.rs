//! What arrives is what was there, from any datastore to any other.

use spice_record::{ExpiryPrecision, SnapshotWriter};
use testdata::Sample;

use crate::support::oracle::{self, Precision};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::spicedb::{Datastore, Server};

/// `spice-export` from a server on which nobody writes.
pub(crate) fn export(server: &Server) -> Program {
    Program::on("spice-export", server).args(["--settle", "0s"])
}

/// `spice-import` to a server.
pub(crate) fn import(server: &Server) -> Program {
    Program::on("spice-import", server)
}

/// A sealed stream of a sample, as bytes.
pub(crate) fn stream_of(sample: Sample) -> Vec<u8> {
    let precision = ExpiryPrecision::default();
    let mut stream = SnapshotWriter::create(Vec::new(), sample.header(), precision).unwrap();
    for relationship in sample.iter() {
        stream.write(&relationship).unwrap();
    }
    stream.finish().unwrap().1
}

/// A new server that holds a sample.
pub(crate) fn holding(sample: Sample, datastore: Datastore) -> Server {
    let server = Server::start(datastore);
    import(&server)
        .input(stream_of(sample))
        .run()
        .expect_success();
    server
}

/// The one `imported` record that an import printed.
pub(crate) fn summary(finished: &Finished) -> serde_json::Value {
    let lines = finished.json_lines();
    assert_eq!(lines.len(), 1, "one summary: {lines:?}");
    lines[0]["imported"].clone()
}

pub(crate) fn copy(from: &Server, to: &Server, flags: &[&str]) -> serde_json::Value {
    let finished = Pipe::from(export(from).args(flags))
        .to(import(to))
        .expect_success();
    summary(&finished)
}

/// Copies along a route of datastores; every hop must give the same digest, and the independent
/// client must see the same set as at the start.
pub(crate) fn round(sample: Sample, route: &[Datastore], precision: Precision, flags: &[&str]) {
    let first = holding(sample, route[0]);
    let seen_first = oracle::dump(&first, precision);
    assert_eq!(seen_first.len() as u64, sample.relationships);
    let mut digests = Vec::new();
    let mut from = first;
    for datastore in &route[1..] {
        let to = Server::start(*datastore);
        let imported = copy(&from, &to, flags);
        assert_eq!(imported["loaded"], sample.relationships);
        assert_eq!(imported["verified"], true);
        assert_eq!(imported["expiryTruncated"], 0);
        digests.push(imported["digest"].clone());
        oracle::assert_same_lines("first", &seen_first, "hop", &oracle::dump(&to, precision));
        from = to;
    }
    assert!(
        digests.windows(2).all(|pair| pair[0] == pair[1]),
        "{digests:?}"
    );
}

const ROUND: [Datastore; 4] = [
    Datastore::Memory,
    Datastore::Postgres,
    Datastore::MySql,
    Datastore::Memory,
];

#[test]
fn memory_to_postgres_to_mysql_to_memory_keeps_everything() {
    round(
        Sample::portable(5_000),
        &ROUND,
        Precision::Seconds,
        &["--expiry-precision", "s"],
    );
}

#[test]
fn memory_to_mysql_to_postgres_to_memory_keeps_everything() {
    let mut route = ROUND;
    route.reverse();
    round(
        Sample::portable(5_000),
        &route,
        Precision::Seconds,
        &["--expiry-precision", "s"],
    );
}

#[test]
fn memory_and_postgres_keep_microseconds_and_all_of_unicode() {
    let route = [
        Datastore::Memory,
        Datastore::Postgres,
        Datastore::Memory,
        Datastore::Postgres,
    ];
    round(Sample::rich(5_000), &route, Precision::Microseconds, &[]);
}

#[test]
fn nanoseconds_survive_where_the_datastore_keeps_them() {
    let sample = Sample {
        expiry_step: 1,
        ..Sample::rich(1_000)
    };
    let from = holding(sample, Datastore::Memory);
    let (memory, postgres) = (
        Server::start(Datastore::Memory),
        Server::start(Datastore::Postgres),
    );
    let to_memory = copy(&from, &memory, &[]);
    assert_eq!(to_memory["expiryTruncated"], 0);
    oracle::assert_same_relationships(&from, &memory, Precision::Nanoseconds);
    let to_postgres = copy(&from, &postgres, &[]);
    assert!(
        to_postgres["expiryTruncated"].as_u64() > Some(50),
        "{to_postgres}"
    );
    oracle::assert_same_relationships(&from, &postgres, Precision::Microseconds);
    assert_eq!(to_memory["digest"], to_postgres["digest"]);
}

#[test]
fn mysql_cuts_fractions_of_seconds_and_says_so() {
    // Without characters beyond the basic plane, which MySQL refuses.
    let sample = Sample {
        expiry_step: 500_000_000,
        ..Sample::portable(1_000)
    };
    let from = holding(sample, Datastore::Memory);
    let to = Server::start(Datastore::MySql);
    let imported = copy(&from, &to, &[]);
    assert!(
        imported["expiryTruncated"].as_u64() > Some(30),
        "{imported}"
    );
    oracle::assert_same_relationships(&from, &to, Precision::Seconds);
    // The same again: what MySQL made of them is what was asked for.
    let again = Pipe::from(export(&from)).to(import(&to).args(["--on-conflict", "fail"]));
    assert_eq!(summary(&again.expect_success())["present"], 1_000);
}

#[test]
fn characters_that_mariadb_refuses_are_named() {
    let from = holding(Sample::rich(1_000), Datastore::Memory);
    let to = Server::start(Datastore::MySql);
    let folder = crate::support::folder();
    let rejects = folder.path().join("rejects.ndjson");
    let mut all = Pipe::from(export(&from))
        .to(import(&to).arg("--rejects").arg(&rejects))
        .run();
    let imported = all.pop().unwrap().expect_code(3);
    let rejected = summary(&imported)["rejected"].as_u64().unwrap();
    let lines = std::fs::read_to_string(&rejects).unwrap();
    assert_eq!(lines.lines().count() as u64, rejected);
    assert!(lines.lines().all(|line| line.contains('🦀')), "only those");
    let there = oracle::dump(&to, Precision::Seconds).len() as u64;
    assert_eq!(there + rejected, 1_000);
}

#[test]
fn nothing_but_a_schema_can_be_copied() {
    let from = holding(Sample::portable(0), Datastore::Memory);
    let to = Server::start(Datastore::Postgres);
    let imported = copy(&from, &to, &[]);
    assert_eq!(imported["relationships"], 0);
    assert_eq!(imported["digest"], "0".repeat(32));
    assert_eq!(oracle::read_schema(&from), oracle::read_schema(&to));
}

#[test]
fn icu_collation_changes_the_order_and_not_the_digest() {
    let source = holding(Sample::rich(3_000), Datastore::Memory);
    let icu = Server::builder(Datastore::Postgres).icu().start();
    let digest = copy(&source, &icu, &[])["digest"].clone();
    let from_icu = export(&icu).run().expect_success().json_lines();
    assert_eq!(from_icu.last().unwrap()["trailer"]["digest"], digest);
    let from_memory = export(&source).run().expect_success().json_lines();
    assert!(from_icu[1..] != from_memory[1..], "the orders differ");
}

#[test]
fn parallel_export_is_complete() {
    let flags = [
        &["--jobs", "4"][..],
        &["--jobs", "3", "--page-size", "7"],
        &["--page-size", "10000000"],
    ];
    is_complete_with(20_000, &flags);
}

/// A query for each relationship.
#[test]
fn export_by_pages_of_one_is_complete() {
    is_complete_with(4_000, &[&["--page-size", "1"]]);
}

fn is_complete_with(relationships: u64, all: &[&[&str]]) {
    let server = holding(Sample::rich(relationships), Datastore::Postgres);
    let whole = export(&server).run().expect_success().json_lines();
    for flags in all.iter().copied() {
        let sharded = export(&server)
            .args(flags)
            .run()
            .expect_success()
            .json_lines();
        assert_eq!(
            sharded.last().unwrap()["trailer"]["digest"],
            whole.last().unwrap()["trailer"]["digest"],
            "{flags:?}"
        );
    }
}

#[test]
fn filters_take_what_they_say() {
    let server = holding(Sample::rich(5_000), Datastore::Memory);
    let all = export(&server).run().expect_success().json_lines();
    let expected = |kept: &dyn Fn(&str, &str) -> bool| {
        let relationships = all.iter().filter_map(|line| line.get("relationship"));
        let resources = relationships.map(|relationship| &relationship["resource"]);
        let id = |resource: &serde_json::Value, field: &str| {
            resource[field].as_str().unwrap().to_owned()
        };
        resources
            .filter(|r| kept(&id(r, "objectType"), &id(r, "objectId")))
            .count()
    };
    let count = |flags: &[&str]| {
        let lines = export(&server)
            .args(flags)
            .run()
            .expect_success()
            .json_lines();
        assert!(
            lines[0]["header"]["filter"].is_object(),
            "the header has the filter"
        );
        lines.len() - 2
    };
    let groups = expected(&|kind, _| kind == "tenant/group");
    assert!(groups > 500);
    assert_eq!(count(&["--type", "tenant/group"]), groups);
    let two = expected(&|kind, _| kind != "tenant/document");
    assert_eq!(
        count(&["--type", "tenant/group", "--type", "tenant/folder"]),
        two
    );
    let prefixed = expected(&|_, id| id.starts_with("d1"));
    assert!(prefixed > 10);
    assert_eq!(count(&["--resource-prefix", "d1"]), prefixed);
    assert_eq!(count(&["--resource-prefix", "d1", "--jobs", "4"]), prefixed);
    let both = expected(&|kind, id| kind == "tenant/group" && id.starts_with('g'));
    assert_eq!(
        count(&[
            "--type",
            "tenant/group",
            "--resource-prefix",
            "g",
            "--jobs",
            "2"
        ]),
        both
    );
}

#[test]
fn stream_through_zstd_and_a_file_is_the_same() {
    let server = holding(Sample::rich(2_000), Datastore::Memory);
    let folder = crate::support::folder();
    let path = folder.path().join("backup.ndjson.zst");
    export(&server)
        .args(["--zstd=9", "--output"])
        .arg(&path)
        .run()
        .expect_success();
    let packed = std::fs::read(&path).unwrap();
    assert_eq!(packed[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    let to = Server::start(Datastore::Memory);
    import(&to).arg(&path).run().expect_success();
    oracle::assert_same_relationships(&server, &to, Precision::Nanoseconds);
}

#[test]
fn stream_through_gzip_and_a_pipe_is_the_same() {
    let server = holding(Sample::rich(2_000), Datastore::Memory);
    let exported = export(&server).arg("--gzip=9").run().expect_success();
    assert_eq!(exported.stdout[..2], [0x1f, 0x8b]);
    let gzip = Program::at(std::path::Path::new("gzip")).arg("-dc");
    let plain = gzip.input(exported.stdout.clone()).run().expect_success();
    assert_eq!(plain.text().lines().count(), 2_002);
    let to = Server::start(Datastore::Memory);
    import(&to).input(exported.stdout).run().expect_success();
    oracle::assert_same_relationships(&server, &to, Precision::Nanoseconds);
}
