//! Silent connections, stopped readers and impatient servers under `spice-watch`.

use std::io::Read as _;
use std::time::{Duration, Instant};

use super::PATIENCE;
use crate::apply::mark;
use crate::support::oracle;
use crate::support::spicedb::Datastore;
use crate::support::toxiproxy::Proxy;
use crate::watch::{
    Folded, WATCHING, churn, import_held, source, source_with, wait_for_stdout, watch, watch_by,
    write,
};

#[test]
fn silent_connection_is_noticed_and_left() {
    std::thread::scope(|scope| {
        for (datastore, settle) in [(Datastore::Postgres, "0s"), (Datastore::Memory, "0s")] {
            scope.spawn(move || {
                let server = source(datastore);
                let since = oracle::head(&server);
                let proxy = Proxy::to(server.endpoint());
                let watching = watch_by(&proxy.endpoint(), &server)
                    .args(["--since", &since, "--settle", settle])
                    .timeout(PATIENCE)
                    .spawn();
                watching.wait_for_stderr(WATCHING, PATIENCE);
                write(&server, "touch", "before");
                wait_for_stdout(&watching, "before");
                proxy.stall();
                let began = Instant::now();
                write(&server, "touch", "meanwhile");
                watching.wait_for_stderr("reconnecting", PATIENCE);
                assert!(began.elapsed() > Duration::from_secs(12), "not a cut");
                // What was stalled stays so; a new connection is not.
                proxy.heal();
                wait_for_stdout(&watching, "meanwhile");
                write(&server, "touch", "after");
                wait_for_stdout(&watching, "after");
                let folded = Folded::of(&watching.terminate().stdout);
                folded.assert_each_once();
                folded.assert_is(&server);
            });
        }
    });
}

#[test]
fn reader_stopped_for_40_s_under_load_gets_everything() {
    // A short buffer, so that even the server would give up.
    let server = source_with(Datastore::Postgres, &["--datastore-watch-buffer-length=64"]);
    let since = oracle::head(&server);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut watching = watch(&server)
        .args(["--since", &since])
        .stdout_to(writer)
        .timeout(PATIENCE)
        .spawn();
    watching.wait_for_stderr(WATCHING, PATIENCE);
    let began = Instant::now();
    for _ in 0..30 {
        churn(&server, 3);
        server.sql("ANALYZE relation_tuple");
        std::thread::sleep(Duration::from_millis(500));
    }
    std::thread::sleep(Duration::from_secs(40).saturating_sub(began.elapsed()));
    assert!(watching.is_running());
    let end = mark(&server);
    let until = watch(&server).args(["--since", &since, "--until", &end]);
    let drained = Folded::of(&until.run().expect_success().stdout);
    drained.assert_is(&server);
    // Not the marker: a poll gives one checkpoint, and a later transaction may be in it.
    let mut records = drained.records.iter().rev();
    let last = records.find(|(kind, _)| kind == "transaction");
    let last = last.unwrap().1.clone();
    let read = std::thread::spawn(move || {
        let (mut all, mut chunk) = (Vec::new(), vec![0; 1 << 20]);
        while let Ok(count @ 1..) = reader.read(&mut chunk) {
            all.extend_from_slice(&chunk[..count]);
            if String::from_utf8_lossy(&all[all.len().saturating_sub(2 << 20)..]).contains(&last) {
                break;
            }
        }
        // What comes after it.
        (all, reader)
    });
    let (mut all, mut reader) = read.join().unwrap();
    // Also while it ends.
    let read = std::thread::spawn(move || {
        reader.read_to_end(&mut all).unwrap();
        all
    });
    let finished = watching.terminate();
    let all = read.join().unwrap();
    let end = all.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let folded = Folded::of(&all[..end]);
    assert!(folded.updates > 50_000, "{}", folded.updates);
    folded.assert_each_once();
    folded.assert_is(&server);
    assert!(finished.peak_kib < 120 << 10, "{} KiB", finished.peak_kib);
}

#[test]
fn watch_that_the_server_ends_for_being_slow_is_resumed() {
    let server = source_with(
        Datastore::Postgres,
        &[
            "--datastore-watch-buffer-length=4",
            "--datastore-watch-buffer-write-timeout=20ms",
        ],
    );
    let since = oracle::head(&server);
    // More than what connections hold on their own.
    churn(&server, 81);
    let proxy = Proxy::to(server.endpoint());
    proxy.bandwidth(1_000);
    let end = mark(&server);
    let finished = watch_by(&proxy.endpoint(), &server)
        .args(["--since", &since, "--until", &end])
        .run()
        .expect_success();
    assert!(
        finished.stderr.contains("fell too far behind"),
        "it did not happen: {}",
        finished.stderr
    );
    let folded = Folded::of(&finished.stdout);
    folded.assert_each_once();
    folded.assert_is(&server);
}

#[test]
fn too_small_change_buffer_ends_1_and_names_its_flag() {
    let server = source_with(
        Datastore::Postgres,
        &["--datastore-watch-change-buffer-maximum-size=1MiB"],
    );
    let since = oracle::head(&server);
    import_held(&server, "import-", 30_000, || ());
    let finished = watch(&server)
        .args(["--since", &since])
        .run()
        .expect_code(1);
    assert!(
        !finished.stderr.contains("again in"),
        "no retries: {}",
        finished.stderr
    );
    assert!(
        finished
            .stderr
            .contains("--datastore-watch-change-buffer-maximum-size"),
        "{}",
        finished.stderr
    );
    assert_eq!(Folded::of(&finished.stdout).updates, 0);
}
