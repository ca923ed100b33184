//! The source, and the way from it, while an export reads.

use std::io::Read as _;
use std::time::Duration;

use testdata::Sample;

use super::{PATIENCE, SAMPLE, assert_exports, cut_until_noticed, export_by, seen, source};
use crate::copy::{export, holding};
use crate::support::disk::SmallDisk;
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::repeat;
use crate::support::spicedb::{Datastore, Server};
use crate::support::toxiproxy::Proxy;
use crate::support::wait_until;

const RESUMING: &str = "; resuming the export in";

#[test]
fn export_cut_at_random_leaves_no_hole_and_no_duplicate() {
    let sample = Sample::rich(30_000 * u64::from(repeat(1, 3)));
    let server = source(sample);
    let expected = seen(sample);
    let proxy = Proxy::to(server.endpoint());
    for flags in [&["--page-size", "300"][..], &["--jobs", "4"]] {
        // KB a second: it lasts until it has been cut often enough.
        proxy.bandwidth(100);
        let mut program = export_by(&proxy, &server).args(flags).spawn();
        program.wait_for_stderr("exporting", PATIENCE);
        let times = repeat(6, 20);
        let pauses = [Duration::from_millis(400)];
        let noticed = cut_until_noticed(&mut program, &proxy, times, RESUMING, &pauses);
        assert_eq!(noticed, times, "{}", program.stderr_so_far());
        proxy.heal();
        assert_exports(&program.wait().expect_success(), &expected);
    }
}

#[test]
fn export_over_a_silent_connection_is_resumed() {
    let sample = Sample::rich(30_000);
    let server = source(sample);
    let expected = seen(sample);
    let proxy = Proxy::to(server.endpoint());
    proxy.bandwidth(100);
    let program = export_by(&proxy, &server)
        .args(["--page-size", "300", "--request-timeout", "2s"])
        .spawn();
    program.wait_for_output(1 << 16);
    proxy.stall();
    program.wait_for_stderr("no answer in time; resuming the export", PATIENCE);
    proxy.heal();
    assert_exports(&program.wait().expect_success(), &expected);
}

#[test]
fn export_from_a_restarted_source_has_no_hole_or_duplicate() {
    // More than what is on its way when the server ends: up to 2 MiB a stream, and buffers.
    let sample = Sample::rich(SAMPLE);
    let server = source(sample);
    let expected = seen(sample);
    let proxy = Proxy::to(server.endpoint());
    proxy.bandwidth(200);
    let program = export_by(&proxy, &server)
        .args(["--page-size", "300"])
        .spawn();
    program.wait_for_stderr("exporting", PATIENCE);
    for end in [Server::kill9, Server::stop] {
        let noticed = program.count_on_stderr(RESUMING);
        program.wait_for_output(program.stdout_so_far().len() + (1 << 16));
        end(&server);
        program.wait_for_more(RESUMING, noticed, PATIENCE);
        server.restart();
    }
    proxy.heal();
    let finished = program.wait().expect_success();
    let noticed = finished.stderr.matches(RESUMING).count();
    assert!(noticed >= 2, "{noticed} times: {}", finished.stderr);
    assert_exports(&finished, &expected);
}

#[test]
fn source_that_returns_as_another_datastore_ends_export() {
    // Its cursors hold no datastore id, and a server answers any: only the revision differs.
    let sample = Sample::rich(60_000);
    let server = holding(sample, Datastore::Memory);
    let proxy = Proxy::to(server.endpoint());
    proxy.bandwidth(200);
    let program = export_by(&proxy, &server)
        .args(["--page-size", "300"])
        .spawn();
    program.wait_for_output(1 << 16);
    server.restart();
    crate::copy::import(&server)
        .input(crate::copy::stream_of(sample))
        .run()
        .expect_success();
    let finished = program.wait().expect_code(1);
    assert!(
        finished.stderr.contains("another datastore"),
        "{}",
        finished.stderr
    );
    assert!(!finished.text().contains(r#"{"trailer":"#));
}

#[test]
fn source_away_at_the_last_page_of_an_export_does_not_end_it() {
    let sample = Sample::rich(8_000);
    let server = source(sample);
    let proxy = Proxy::to(server.endpoint());
    // The last pages wait behind a reader that does not read; then comes the probe.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let program = export_by(&proxy, &server)
        .args(["--page-size", "2000"])
        .stdout_to(writer)
        .spawn();
    program.wait_for_stderr("exporting", PATIENCE);
    // It writes, and does not wait for a busy server; what it reads ahead is there a moment later.
    wait_until("the pipe is full", PATIENCE, || {
        rustix::io::ioctl_fionread(&reader).unwrap() > 60_000
    });
    for _ in 0..5 {
        program.wait_until_blocked();
    }
    proxy.disable();
    let read = std::thread::spawn(move || {
        let mut stream = Vec::new();
        reader.read_to_end(&mut stream).map(|_| stream).unwrap()
    });
    program.wait_for_stderr("checking that the revision", PATIENCE);
    proxy.enable();
    let mut finished = program.wait().expect_success();
    finished.stdout = read.join().unwrap();
    assert!(
        finished.stderr.contains("checking that the revision"),
        "{}",
        finished.stderr
    );
    assert_exports(&finished, &seen(sample));
}

#[test]
fn stopped_for_40_s_either_program_of_the_pipe_goes_on() {
    let sample = Sample::rich(60_000);
    let server = source(sample);
    let expected = seen(sample);
    let targets = [(); 2].map(|()| Server::start(Datastore::Postgres));
    let pipe = |target: &Server| {
        let slowly = export(&server).args(["--page-size", "100"]);
        Pipe::from(slowly)
            .to(crate::copy::import(target))
            .timeout(PATIENCE)
            .spawn()
    };
    // The first of one pipe, the second of the other.
    let stop = |target: &Server, which: usize| {
        let all = pipe(target);
        all[1].wait_for_stderr("wrote the schema", PATIENCE);
        all[which].signal("STOP");
        all
    };
    let pipes = [stop(&targets[0], 0), stop(&targets[1], 1)];
    let stopped = [&pipes[0][0], &pipes[1][1]];
    // Twice the 20 s after which a server gives up.
    std::thread::sleep(Duration::from_secs(40));
    stopped.iter().for_each(|program| program.signal("CONT"));
    for (all, target) in pipes.into_iter().zip(&targets) {
        for program in all {
            let finished = program.wait().expect_success();
            // Both were at work all the time. Whether the export had to resume is up to the kernel: a
            // server gives up after 20 s without an acknowledgement, and buffers may hold enough.
            assert!(
                finished.took >= Duration::from_secs(40),
                "{}",
                finished.stderr
            );
        }
        super::assert_holds(target, &expected);
    }
}

#[test]
fn full_disk_ends_export_and_leaves_no_file() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let server = holding(Sample::rich(60_000), Datastore::Memory);
    let path = disk.path().join("backup.ndjson");
    for flags in [&[][..], &["--zstd=1"], &["--gzip=1"]] {
        let finished = export(&server)
            .args(flags)
            .arg("--output")
            .arg(&path)
            .run()
            .expect_code(1);
        assert!(
            finished.stderr.contains("backup.ndjson")
                && finished.stderr.contains("No space left on device"),
            "{}",
            finished.stderr
        );
        let left = std::fs::read_dir(disk.path()).unwrap().count();
        assert_eq!(left, 0, "nothing is left on the disk");
    }
    let finished = export(&server).output_file(&path).run().expect_code(1);
    assert!(
        finished.stderr.contains("cannot write to stdout: No space"),
        "{}",
        finished.stderr
    );
    // What is there is seen to be cut.
    Program::new("spice-import")
        .arg("--dry-run")
        .arg(&path)
        .run()
        .expect_code(65);
}
