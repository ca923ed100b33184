//! `kill -9` of a program, and the same command again.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use testdata::Sample;

use super::{PATIENCE, SAMPLE, assert_accounted, assert_holds, seen, source};
use crate::copy::{export, import, stream_of, summary};
use crate::support::pipe::Pipe;
use crate::support::running::Finished;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{Random, repeat};

/// Fails unless the second run found nothing in its way, and everything is there.
#[track_caller]
fn assert_completed(finished: &Finished, server: &Server, sample: Sample) {
    assert_accounted(finished, sample);
    assert_eq!(summary(finished)["skipped"], 0);
    assert_holds(server, &seen(sample));
}

#[test]
fn killed_import_is_completed_by_the_same_command() {
    let sample = Sample::rich(SAMPLE);
    let stream = stream_of(sample);
    let mut random = Random::new(1);
    for case in 0..repeat(3, 20) {
        let server = Server::start(match case % 3 {
            2 => Datastore::Memory,
            _ => Datastore::Postgres,
        });
        let mut program = import(&server).timeout(PATIENCE).input_later().spawn();
        let mut stdin = program.take_stdin();
        // From before the first transaction to within the last; after 40,000 lines one is begun.
        let fed = random.below(stream.len());
        let fed = stream.len() - fed * 2 / 3;
        stdin.write_all(&stream[..fed]).unwrap();
        std::thread::sleep(Duration::from_millis(random.below(1_000) as u64));
        program.kill9();
        drop(stdin);
        let killed = program.wait();
        assert_eq!(killed.signal(), Some(9), "case {case}: {}", killed.stderr);
        let again = import(&server)
            .args(["--on-conflict", "skip"])
            .input(stream.clone())
            .timeout(PATIENCE)
            .run()
            .expect_success();
        assert_completed(&again, &server, sample);
    }
}

#[test]
fn killed_export_is_completed_by_the_same_pipe_with_skip() {
    let sample = Sample::rich(SAMPLE);
    let from = source(sample);
    let length = stream_of(sample).len();
    let mut random = Random::new(2);
    for case in 0..repeat(3, 20) {
        let server = Server::start(Datastore::Postgres);
        // Counted on its way, so that the moment does not depend on the speed of the day.
        let (mut exported, writer) = std::io::pipe().unwrap();
        let (reader, mut to_import) = std::io::pipe().unwrap();
        let exporting = export(&from).stdout_to(writer).spawn();
        let importing = import(&server).stdin_from(reader).timeout(PATIENCE).spawn();
        // Not so late that it may have ended.
        let until = random.below(length / 10 * 9);
        let mut passed = 0;
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = exported.read(&mut bytes) {
            passed += count;
            to_import.write_all(&bytes[..count]).unwrap();
            if passed >= until {
                exporting.kill9();
            }
        }
        drop(to_import);
        let exported = exporting.wait();
        assert_eq!(exported.signal(), Some(9), "{case}: {}", exported.stderr);
        let imported = importing.wait().expect_code(65);
        assert!(imported.stdout.is_empty(), "no summary");
        let again = Pipe::from(export(&from))
            .to(import(&server).args(["--on-conflict", "skip"]))
            .timeout(PATIENCE)
            .expect_success();
        assert_completed(&again, &server, sample);
    }
}
