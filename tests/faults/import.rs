//! The target, and the way to it, while an import loads.

use std::io::Write as _;
use std::time::Duration;

use testdata::Sample;

use super::{
    PATIENCE, SAMPLE, assert_accounted, assert_holds, cut_until_noticed, import_by, seen,
    slow_way_there, wait_for_rows, writes,
};
use crate::copy::{holding, import, stream_of, summary};
use crate::support::disk::SmallDisk;
use crate::support::oracle::{self, Precision};
use crate::support::spicedb::{Datastore, Server};
use crate::support::toxiproxy::Proxy;
use crate::support::{folder, repeat, wait_until};

const LOADING: &str = "; loading again in";
const HAS_READ: &str = " is the stream's";
const BROKE: &str = "the connection broke";

fn cut_at_random(datastore: Datastore, sample: Sample, times: u32) {
    let server = Server::start(datastore);
    let proxy = Proxy::to(server.endpoint());
    // It takes half a minute: so it lasts until it has been cut often enough.
    slow_way_there(&proxy, 500);
    let mut program = import_by(&proxy, &server)
        .args(["--max-retries", "30"])
        .input(stream_of(sample))
        .spawn();
    program.wait_for_stderr("wrote the schema", PATIENCE);
    // Two cuts that no transaction survives, then one that it may: at all stages of it.
    let pauses = [1, 1, 3].map(Duration::from_secs);
    let noticed = cut_until_noticed(&mut program, &proxy, times, BROKE, &pauses);
    assert_eq!(noticed, times, "{}", program.stderr_so_far());
    proxy.heal();
    let finished = program.wait().expect_success();
    assert_accounted(&finished, sample);
    assert_holds(&server, &seen(sample));
}

#[test]
fn import_into_postgres_cut_at_random_loads_everything() {
    let sample = Sample::rich(SAMPLE * u64::from(repeat(1, 6)));
    cut_at_random(Datastore::Postgres, sample, repeat(4, 20));
}

#[test]
fn import_into_memory_cut_at_random_loads_everything() {
    let sample = Sample::rich(SAMPLE * u64::from(repeat(1, 2)));
    cut_at_random(Datastore::Memory, sample, repeat(3, 6));
}

#[test]
fn lost_acknowledgement_of_an_import_is_no_conflict() {
    // Small enough for the windows of HTTP/2, which are not opened any more.
    let sample = Sample::portable(200);
    let first = holding(sample, Datastore::Memory);
    let expected = oracle::dump(&first, Precision::Microseconds);
    for datastore in [Datastore::Postgres, Datastore::Memory, Datastore::MySql] {
        let server = Server::start(datastore);
        oracle::write_schema(&server, testdata::SCHEMA);
        let proxy = Proxy::to(server.endpoint());
        let stream = stream_of(sample);
        let end = stream.len() - stream.rsplit(|byte| *byte == b'\n').nth(1).unwrap().len() - 1;
        let mut program = import_by(&proxy, &server)
            .arg("--verbose")
            .input_later()
            .spawn();
        let mut stdin = program.take_stdin();
        stdin.write_all(&stream[..end]).unwrap();
        // Of a small stream nothing is written before its trailer. The schema is the last that it reads.
        program.wait_for_stderr(HAS_READ, PATIENCE);
        program.wait_until_blocked();
        proxy.toxic(
            "timeout",
            "downstream",
            &serde_json::json!({ "timeout": 0 }),
        );
        stdin.write_all(&stream[end..]).unwrap();
        drop(stdin);
        wait_until("the target holds everything", PATIENCE, || {
            oracle::dump(&server, Precision::Seconds).len() as u64 == sample.relationships
        });
        proxy.heal();
        proxy.cut();
        let finished = program.wait().expect_success();
        assert!(finished.stderr.contains(LOADING), "{}", finished.stderr);
        assert_accounted(&finished, sample);
        assert_eq!(summary(&finished)["present"], sample.relationships);
        assert_holds(&server, &expected);
    }
}

#[test]
fn target_killed_during_import_loads_everything() {
    restarted(Server::kill9);
}

#[test]
fn target_stopped_during_import_loads_everything() {
    restarted(Server::stop);
}

/// The target goes away in the middle of a transaction, twice.
fn restarted(end: impl Fn(&Server)) {
    let sample = Sample::rich(SAMPLE);
    let server = Server::start(Datastore::Postgres);
    let proxy = Proxy::to(server.endpoint());
    // It takes twenty seconds.
    slow_way_there(&proxy, 500);
    let program = import_by(&proxy, &server).input(stream_of(sample)).spawn();
    program.wait_for_stderr("wrote the schema", PATIENCE);
    for committed in [0, 50_000] {
        let noticed = program.count_on_stderr(LOADING);
        wait_for_rows(&server, committed);
        wait_until("a transaction is open", PATIENCE, || writes(&server));
        end(&server);
        program.wait_for_more(LOADING, noticed, PATIENCE);
        server.restart();
    }
    proxy.heal();
    let finished = program.wait().expect_success();
    let noticed = finished.stderr.matches(LOADING).count();
    assert!(noticed >= 2, "{noticed} times: {}", finished.stderr);
    assert_accounted(&finished, sample);
    assert_holds(&server, &seen(sample));
}

#[test]
fn target_away_at_the_end_of_an_import_does_not_end_it() {
    let sample = Sample::rich(0);
    let server = Server::start(Datastore::Postgres);
    oracle::write_schema(&server, testdata::SCHEMA);
    let proxy = Proxy::to(server.endpoint());
    let stream = stream_of(sample);
    let header = stream.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut program = import_by(&proxy, &server)
        .arg("--verbose")
        .input_later()
        .spawn();
    let mut stdin = program.take_stdin();
    stdin.write_all(&stream[..header]).unwrap();
    // Of a small stream nothing is written before its trailer. The schema is the last that it reads.
    program.wait_for_stderr(HAS_READ, PATIENCE);
    program.wait_until_blocked();
    proxy.disable();
    stdin.write_all(&stream[header..]).unwrap();
    drop(stdin);
    program.wait_for_stderr(" in 0.", PATIENCE);
    proxy.enable();
    assert_accounted(&program.wait().expect_success(), sample);
}

#[test]
fn database_of_the_target_away_during_import_rejects_nothing() {
    let sample = Sample::rich(SAMPLE);
    let server = Server::start(Datastore::Postgres);
    let proxy = Proxy::to(server.endpoint());
    slow_way_there(&proxy, 500);
    let rejects = folder();
    let program = import_by(&proxy, &server)
        .arg("--rejects")
        .arg(rejects.path().join("rejects.ndjson"))
        .input(stream_of(sample))
        .spawn();
    wait_for_rows(&server, 50_000);
    // No connection of SpiceDB to its database lives for long.
    wait_until("it is noticed several times", PATIENCE, || {
        server.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        program.count_on_stderr(LOADING) >= 3
    });
    proxy.heal();
    let finished = program.wait().expect_success();
    assert!(finished.stderr.contains("warning"), "{}", finished.stderr);
    assert_accounted(&finished, sample);
    assert_holds(&server, &seen(sample));
}

#[test]
fn slow_link_to_an_impatient_target_halves_the_batches() {
    let sample = Sample::rich(4_000);
    let server = Server::builder(Datastore::Postgres)
        .flag("--streaming-api-response-delay-timeout=1s")
        .start();
    let proxy = Proxy::to(server.endpoint());
    // A thousand relationships, 70 KB, take 2 s.
    slow_way_there(&proxy, 35);
    let finished = import_by(&proxy, &server)
        .input(stream_of(sample))
        .run()
        .expect_success();
    assert!(
        finished.stderr.contains("halving it"),
        "{}",
        finished.stderr
    );
    assert_accounted(&finished, sample);
    assert_eq!(summary(&finished)["loaded"], sample.relationships);
    assert_holds(&server, &seen(sample));
}

#[test]
fn slow_link_is_loaded_in_several_transactions() {
    let sample = Sample::rich(20_000);
    let server = Server::start(Datastore::Postgres);
    let proxy = Proxy::to(server.endpoint());
    // 1.4 MB take 25 s.
    slow_way_there(&proxy, 55);
    let program = import_by(&proxy, &server).input(stream_of(sample)).spawn();
    wait_for_rows(&server, 1);
    let first = crate::support::spicedb::rows(&server);
    assert!(first < sample.relationships, "not all in one transaction");
    let finished = program.wait().expect_success();
    // Ended by us after 20 s, or, where buffers on the way hid how slow it is, halved after the target
    // ended it.
    assert_eq!(summary(&finished)["loaded"], sample.relationships);
    assert_holds(&server, &seen(sample));
}

#[test]
fn full_disk_under_the_rejects_ends_import() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let server = Server::start(Datastore::Memory);
    oracle::write_schema(&server, "definition nothing {}");
    let finished = import(&server)
        .args(["--schema", "skip", "--rejects"])
        .arg(disk.path().join("rejects.ndjson"))
        .input(stream_of(Sample::rich(20_000)))
        .run()
        .expect_code(1);
    assert!(
        finished.stderr.contains("rejects.ndjson")
            && finished.stderr.contains("No space left on device"),
        "{}",
        finished.stderr
    );
}
