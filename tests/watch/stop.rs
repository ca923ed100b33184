//! Ends that are meant.

use std::io::Read as _;
use std::time::{Duration, Instant};

use super::{Folded, PATIENCE, WATCHING, mark, source, spool_of, watch, write, writers};
use crate::support::oracle;
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::spicedb::Datastore;
use crate::support::toxiproxy::Proxy;
use crate::support::{AT_ONCE, folder, wait_until};

#[test]
fn sigterm_ends_0_with_a_trailer_and_sigint_by_the_signal() {
    for datastore in [Datastore::Postgres, Datastore::Memory] {
        let server = source(datastore);
        let folder = folder();
        let flags = ["--rate", "5", "--updates", "3"];
        let writers = writers(&server, folder.path(), &flags);
        for (name, signal) in [("TERM", None), ("INT", Some(2))] {
            // The machine may be too busy for a trailer within a second, but not every time.
            let whole = (0..3).find_map(|_| {
                let since = oracle::head(&server);
                let watching = watch(&server)
                    .args(["--since", &since, "--settle", "0s"])
                    .spawn();
                super::wait_for_stdout(&watching, "transaction");
                let began = Instant::now();
                watching.signal(name);
                let finished = watching.wait();
                assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
                finished.text().contains("trailer").then_some(finished)
            });
            let finished = whole.expect("a trailer");
            assert_eq!(finished.signal(), signal, "{}", finished.stderr);
            assert_eq!(finished.code(), signal.is_none().then_some(0));
            let folded = Folded::of(&finished.stdout);
            let trailer = folded.trailer.as_ref().expect("a trailer");
            assert_eq!(trailer["endReason"], "signal");
            assert_eq!(trailer["revision"], folded.last());
            assert!(
                finished.stderr.contains(folded.last()),
                "{}",
                finished.stderr
            );
        }
        writers.stop();
    }
}

#[test]
fn sigterm_ends_0_within_a_second_and_the_spool_is_whole() {
    let server = source(Datastore::Postgres);
    let folder = folder();
    let spool = folder.path().join("changes.ndjson");
    let since = oracle::head(&server);
    let writers = writers(&server, folder.path(), &[]);
    let mut before = Vec::new();
    for _ in 0..3 {
        let watching = watch(&server)
            .args(["--since", &since, "--spool"])
            .arg(&spool)
            .spawn();
        wait_until("the spool grows", PATIENCE, || {
            std::fs::metadata(&spool).is_ok() && spool_of(&spool).len() > before.len()
        });
        let began = Instant::now();
        watching.signal("TERM");
        watching.wait().expect_success();
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        let now = spool_of(&spool);
        Folded::of(&now);
        assert!(now.starts_with(&before), "only appended to");
        assert!(now.len() > before.len(), "something was");
        before = now;
    }
    writers.stop();
    let end = mark(&server);
    let drain = watch(&server)
        .args(["--until", &end, "--spool"])
        .arg(&spool);
    drain.run().expect_success();
    Folded::of(&spool_of(&spool)).assert_is(&server);
}

#[test]
fn sigterm_ends_within_a_second_with_a_stopped_reader() {
    let server = source(Datastore::Postgres);
    let since = oracle::head(&server);
    // Far more than a pipe holds.
    let line = |n| {
        format!("{{\"resource\":\"item:{n}\",\"relation\":\"holder\",\"subject\":\"user:u\"}}\n")
    };
    oracle::load_bulk(&server, &(0..5_000).map(line).collect::<String>());
    let (mut reader, writer) = std::io::pipe().unwrap();
    let watching = watch(&server)
        .args(["--since", &since])
        .stdout_to(writer)
        .spawn();
    // It writes, and does not wait for a busy server.
    wait_until("the pipe is full", PATIENCE, || {
        rustix::io::ioctl_fionread(&reader).unwrap() > 60_000
    });
    watching.wait_until_blocked();
    let began = Instant::now();
    watching.signal("TERM");
    let finished = watching.wait();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    // What was written is not all, so it is no success; and nobody can take it for complete.
    assert_eq!(finished.signal(), Some(15), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("nobody reads the output"),
        "{}",
        finished.stderr
    );
    let mut told = String::new();
    reader.read_to_string(&mut told).unwrap();
    assert!(told.len() > 60_000, "the pipe was full: {}", told.len());
    assert!(!told.contains("trailer"));
}

#[test]
fn sigterm_ends_within_a_second_on_a_silent_connection() {
    let server = source(Datastore::Memory);
    let since = oracle::head(&server);
    for settle in ["0s", "1s"] {
        // The machine may be too busy for a trailer within a second, but not every time.
        let has_ended_well = (0..3).any(|_| {
            let proxy = Proxy::to(server.endpoint());
            let watching = super::watch_by(&proxy.endpoint(), &server)
                .args(["--since", &since, "--settle", settle])
                .spawn();
            watching.wait_for_stderr(WATCHING, PATIENCE);
            proxy.stall();
            // By now a read of the start, or of the head, waits for its answer.
            std::thread::sleep(Duration::from_secs(11));
            let began = Instant::now();
            let finished = watching.terminate();
            assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
            finished.code() == Some(0)
        });
        assert!(has_ended_well, "with --settle {settle}");
    }
}

#[test]
fn reader_that_left_ends_it_of_sigpipe_and_silently() {
    let server = source(Datastore::Postgres);
    let folder = folder();
    let since = oracle::head(&server);
    let writers = writers(&server, folder.path(), &[]);
    let head = Program::at("head".as_ref()).args(["-n", "2"]);
    let finished = Pipe::from(watch(&server).args(["--since", &since]))
        .to(head)
        .run();
    assert_eq!(finished[0].signal(), Some(13), "{}", finished[0].stderr);
    assert!(
        !finished[0].stderr.contains("error"),
        "{}",
        finished[0].stderr
    );
    assert_eq!(finished[1].json_lines().len(), 2);
    writers.stop();
}

#[test]
fn until_quiet_ends_when_nothing_changes() {
    for_both(|datastore| {
        let server = source(datastore);
        let since = oracle::head(&server);
        write(&server, "touch", "a");
        let began = Instant::now();
        let finished = watch(&server)
            .args(["--since", &since, "--settle", "1s", "--until-quiet", "10s"])
            .run()
            .expect_success();
        assert!(began.elapsed() >= Duration::from_secs(10));
        assert!(
            finished.stderr.contains("which proves nothing"),
            "{}",
            finished.stderr
        );
        let folded = Folded::of(&finished.stdout);
        assert_eq!(folded.trailer.as_ref().unwrap()["endReason"], "quiet");
        folded.assert_is(&server);
    });
}

/// Where nothing has to settle, and where it has, at the same time.
fn for_both(test: impl Fn(Datastore) + Sync) {
    std::thread::scope(|scope| {
        let test = &test;
        for datastore in [Datastore::Postgres, Datastore::Memory] {
            scope.spawn(move || test(datastore));
        }
    });
}

#[test]
fn quiet_is_not_what_an_outage_makes() {
    for_both(|datastore| {
        let server = source(datastore);
        let since = oracle::head(&server);
        let proxy = Proxy::to(server.endpoint());
        let watching = super::watch_by(&proxy.endpoint(), &server)
            .args([
                "--since",
                &since,
                "--settle",
                "500ms",
                "--until-quiet",
                "15s",
            ])
            .spawn();
        watching.wait_for_stderr(WATCHING, PATIENCE);
        proxy.disable();
        write(&server, "touch", "a");
        watching.wait_for_stderr("again in", PATIENCE);
        // For longer than the silence that would end it.
        std::thread::sleep(Duration::from_secs(17));
        proxy.enable();
        let finished = watching.wait().expect_success();
        Folded::of(&finished.stdout).assert_is(&server);
    });
}

/// As a spool is left by a program that ends after the last change of a round, before it has read which of
/// them collided.
#[test]
fn drain_reads_contended_relationships_left_by_a_spool() {
    let server = source(Datastore::Memory);
    let folder = folder();
    let spool = folder.path().join("spool");
    let since = oracle::head(&server);
    for operation in ["touch", "delete", "touch"] {
        write(&server, operation, "contended");
    }
    let until = mark(&server);
    // Somebody writes after the mark: so the spool has more than is asked for.
    write(&server, "touch", "stray");
    let later = mark(&server);
    let drain = |until: &str| {
        watch(&server)
            .args(["--since", &since, "--settle", "2s", "--until", until])
            .arg("--spool")
            .arg(&spool)
            .run()
            .expect_success()
    };
    drain(&later);
    let whole = std::fs::read_to_string(&spool).unwrap();
    let is_corrected = |text: &str| text.contains(r#""contended":true"#);
    assert!(is_corrected(&whole), "{whole}");
    let changes = |line: &&str| line.contains("stray") && !is_corrected(line);
    let last = whole.lines().find(changes).expect("the stray write");
    let end = whole.find(last).unwrap() + last.len() + 1;
    std::fs::write(&spool, &whole[..end]).unwrap();
    assert!(!is_corrected(&whole[..end]));
    let drained = drain(&until);
    assert!(
        drained.stderr.contains("contended: read"),
        "{}",
        drained.stderr
    );
    let text = std::fs::read_to_string(&spool).unwrap();
    let read = text.lines().filter(|line| is_corrected(line));
    let read: Vec<&str> = read.collect();
    assert!(
        read.iter()
            .any(|line| line.contains("item\",\"objectId\":\"contended")),
        "{read:?}"
    );
    assert!(text.lines().last().unwrap().contains("checkpoint") || text.contains("trailer"));
}
