//! SIGINT, SIGTERM and SIGPIPE: what could be saved is saved and reported, then the program ends by the real
//! signal.

use std::io::Write as _;
use std::time::Instant;

use testdata::Sample;

use super::{
    PATIENCE, SAMPLE, assert_accounted, assert_holds, import_by, seen, wait_for_rows, writes,
};
use crate::copy::{export, holding, import, stream_of};
use crate::support::oracle::{self, Precision};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::spicedb::{Datastore, Server, rows};
use crate::support::toxiproxy::Proxy;
use crate::support::{AT_ONCE, wait_until};

const SIGNALS: [(&str, i32); 2] = [("INT", 2), ("TERM", 15)];

#[test]
fn signal_ends_import_within_a_second_and_names_its_state() {
    for (name, number) in SIGNALS {
        // The machine may be too busy for the last words within a second, but not every time.
        let has_reported = (0..3).any(|_| import_ends_within_a_second(name, number));
        assert!(has_reported, "nothing was reported on SIG{name}");
    }
}

/// Whether it has named its state.
fn import_ends_within_a_second(name: &str, number: i32) -> bool {
    let sample = Sample::rich(SAMPLE);
    let server = Server::start(Datastore::Postgres);
    let proxy = Proxy::to(server.endpoint());
    // It takes more than ten seconds.
    proxy.toxic("bandwidth", "upstream", &serde_json::json!({ "rate": 800 }));
    let program = import_by(&proxy, &server).input(stream_of(sample)).spawn();
    wait_for_rows(&server, 50_000);
    let began = Instant::now();
    program.signal(name);
    let finished = program.wait();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(finished.signal(), Some(number), "{}", finished.stderr);
    assert!(finished.stdout.is_empty(), "no summary");
    // A transaction that was dropped is rolled back, unless all of it was there already.
    wait_until("no transaction is open", PATIENCE, || !writes(&server));
    let there = usize::try_from(rows(&server)).unwrap();
    assert!((50_000..110_000).contains(&there), "{there}");
    let stderr = &finished.stderr;
    let Some((said, rest)) = stderr.split_once(" relationships of this stream are on the target")
    else {
        return false;
    };
    let said: usize = said.rsplit(' ').next().unwrap().parse().unwrap();
    let more = rest
        .strip_prefix(", and up to ")
        .map_or(0, |rest| rest.split(' ').next().unwrap().parse().unwrap());
    assert!((said..=said + more).contains(&there), "{there}: {stderr}");
    let again = import(&server)
        .args(["--on-conflict", "skip"])
        .input(stream_of(sample))
        .timeout(PATIENCE)
        .run()
        .expect_success();
    assert_accounted(&again, sample);
    assert_holds(&server, &seen(sample));
    true
}

#[test]
fn signal_ends_import_that_waits_for_its_input() {
    let server = Server::start(Datastore::Memory);
    let stream = stream_of(Sample::rich(100));
    let middle = stream.len() / 2;
    for (name, number) in SIGNALS {
        // Before the header, in the middle; loading and only checking.
        for (begun, dry) in [(0, false), (middle, false), (0, true), (middle, true)] {
            let mut program = import(&server)
                .args(dry.then_some("--dry-run"))
                .timeout(PATIENCE)
                .input_later()
                .spawn();
            let mut stdin = program.take_stdin();
            stdin.write_all(&stream[..begun]).unwrap();
            program.wait_until_blocked();
            let began = Instant::now();
            program.signal(name);
            let finished = program.wait();
            assert_eq!(finished.signal(), Some(number), "{}", finished.stderr);
            assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        }
    }
    assert_eq!(oracle::dump(&server, Precision::Nanoseconds).len(), 0);
}

#[test]
fn signal_ends_export_whose_reader_stands_still() {
    let server = holding(Sample::rich(20_000), Datastore::Memory);
    for (name, number) in SIGNALS {
        let (reader, writer) = std::io::pipe().unwrap();
        let program = export(&server).timeout(PATIENCE).stdout_to(writer).spawn();
        program.wait_for_stderr("exporting", PATIENCE);
        program.wait_until_blocked();
        let began = Instant::now();
        program.signal(name);
        let finished = program.wait();
        assert_eq!(finished.signal(), Some(number), "{}", finished.stderr);
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        drop(reader);
    }
}

#[test]
fn signal_during_export_leaves_no_file() {
    let server = holding(Sample::rich(20_000), Datastore::Memory);
    let proxy = Proxy::to(server.endpoint());
    proxy.bandwidth(100);
    let folder = crate::support::folder();
    for (name, number) in SIGNALS {
        let program = super::export_by(&proxy, &server)
            .args(["--page-size", "100", "--output"])
            .arg(folder.path().join("backup.ndjson"))
            .spawn();
        program.wait_for_stderr("exporting", PATIENCE);
        wait_until("a partial file", PATIENCE, || {
            std::fs::read_dir(folder.path()).unwrap().count() == 1
        });
        program.signal(name);
        let finished = program.wait();
        assert_eq!(finished.signal(), Some(number), "{}", finished.stderr);
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 0, "no file, complete or partial");
    }
}

#[test]
fn reader_that_leaves_ends_export_silently_by_sigpipe() {
    let server = holding(Sample::rich(20_000), Datastore::Memory);
    let mut all: Vec<Finished> = Pipe::from(export(&server))
        .to(Program::at("head".as_ref()).arg("-1"))
        .run();
    let head = all.pop().unwrap().expect_success();
    assert!(head.text().starts_with(r#"{"header":"#));
    let finished = all.pop().unwrap();
    assert_eq!(finished.signal(), Some(13), "{}", finished.stderr);
    assert!(
        !finished.stderr.contains("error") && !finished.stderr.contains("warning"),
        "{}",
        finished.stderr
    );
}
