//! History that the source does not have any more, or never had.

use std::time::Duration;

use super::{
    Folded, PATIENCE, WATCHING, future_of, line, mark, source, source_with, watch, watch_by, write,
    writers,
};
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::running::{Finished, Running};
use crate::support::spicedb::{Datastore, Server};
use crate::support::toxiproxy::Proxy;
use crate::support::{figure, folder, repeat, wait_until};

/// A server that forgets after 5 s.
fn forgetful(datastore: Datastore) -> Server {
    forgetful_after("5s", datastore)
}

/// A server that forgets after a time: longer than a busy machine needs to start a program, where that is to begin
/// within it.
fn forgetful_after(window: &str, datastore: Datastore) -> Server {
    source_with(
        datastore,
        &[
            "--datastore-revision-quantization-interval=1s",
            &format!("--datastore-gc-window={window}"),
            "--datastore-gc-interval=1s",
        ],
    )
}

/// `a`, and its deletion a moment later.
fn vanish(server: &Server) {
    write(server, "touch", "a");
    write(server, "delete", "a");
}

#[track_caller]
fn assert_lost(finished: Finished, changes: bool) {
    let finished = finished.expect_code(4);
    assert!(
        finished.stderr.contains("history lost"),
        "{}",
        finished.stderr
    );
    assert!(
        finished.stderr.contains("take a new snapshot"),
        "{}",
        finished.stderr
    );
    if !changes {
        assert!(finished.stdout.is_empty(), "{}", finished.text());
    }
}

/// As often as it is tried, on stdout and with a spool.
fn lost_from(server: &Server, token: &str) {
    for case in 0..repeat(4, 50) {
        let begin = || watch(server).args(["--since", token, "--settle", "0s"]);
        if case % 2 == 0 {
            assert_lost(begin().run(), false);
            continue;
        }
        let folder = folder();
        let spool = folder.path().join("changes.ndjson");
        assert_lost(begin().arg("--spool").arg(&spool).run(), false);
        let word = std::fs::read_to_string(folder.path().join("changes.ndjson.lost")).unwrap();
        assert!(word.contains("history lost after revision"), "{word}");
        assert_eq!(std::fs::read_to_string(&spool).unwrap(), "");
    }
}

/// Waits until the server refuses to read at a revision.
pub(crate) fn wait_until_expired(server: &Server, revision: &str) {
    wait_until("the revision expires", PATIENCE, || {
        let export = Program::on("spice-export", server).args(["--at", revision, "--type", "user"]);
        export.run().code() == Some(4)
    });
}

fn expired_on(datastore: Datastore) {
    let server = forgetful(datastore);
    let since = oracle::head(&server);
    vanish(&server);
    wait_until_expired(&server, &since);
    lost_from(&server, &since);
}

#[test]
fn expired_token_on_postgres_exits_4_and_writes_nothing() {
    expired_on(Datastore::Postgres);
}

#[test]
fn expired_token_on_mysql_exits_4_and_writes_nothing() {
    expired_on(Datastore::MySql);
}

#[test]
fn future_token_exits_4_and_writes_nothing() {
    for datastore in [Datastore::Postgres, Datastore::MySql, Datastore::Memory] {
        let server = source(datastore);
        lost_from(&server, &future_of(&oracle::head(&server)));
    }
}

/// Many, begun while the start is still there, and until it has left the history: each delivers everything
/// or nothing.
fn expiring_on(datastore: Datastore) {
    let server = forgetful_after("15s", datastore);
    let since = oracle::head(&server);
    let all: String = (0..200).map(|n| line("touch", &n.to_string())).collect();
    oracle::load(&server, &all);
    oracle::load(&server, &all.replace("touch", "delete"));
    let (mut complete, mut lost) = (0, 0);
    let mut running: Vec<Running> = Vec::new();
    let step = Duration::from_millis(u64::from(repeat(500, 70)));
    let start = || {
        // Longer than a busy server needs for its first answer.
        let flags = ["--since", &since, "--settle", "0s", "--until-quiet", "30s"];
        watch(&server).args(flags).spawn()
    };
    let refused = |watching: &Running| watching.stderr_so_far().contains("history lost");
    // The last ones begin after the first that was refused.
    let mut more = 5;
    wait_until("one begins too late", PATIENCE, || {
        running.push(start());
        // The distance between two, not a wait.
        std::thread::sleep(step);
        more -= u32::from(more < 5 || running.iter().any(refused));
        more == 0
    });
    for running in running {
        let finished = running.wait();
        if finished.code() == Some(4) {
            // The start may be lost after everything was delivered; but never a part of it.
            let folded = Folded::of(&finished.stdout);
            assert!([0, 400].contains(&folded.updates), "{}", finished.text());
            lost += 1;
        } else {
            let folded = Folded::of(&finished.expect_success().stdout);
            assert_eq!(folded.updates, 400, "all of it");
            complete += 1;
        }
    }
    assert!(
        complete > 0 && lost > 0,
        "{complete} delivered everything, {lost} nothing"
    );
}

#[test]
fn start_that_expires_on_postgres_gives_everything_or_nothing() {
    expiring_on(Datastore::Postgres);
}

#[test]
fn start_that_expires_on_mysql_gives_everything_or_nothing() {
    expiring_on(Datastore::MySql);
}

/// A watch runs, the connection is away for 10 s.
fn lost_in_an_outage(datastore: Datastore) {
    let server = forgetful_after("15s", datastore);
    let proxies: Vec<Proxy> = (0..repeat(2, 50))
        .map(|_| Proxy::to(server.endpoint()))
        .collect();
    let since = oracle::head(&server);
    let watches: Vec<Running> = proxies
        .iter()
        .map(|proxy| {
            watch_by(&proxy.endpoint(), &server)
                .args(["--since", &since, "--settle", "0s"])
                // The outage is as long as the server needs to forget.
                .args(["--max-retries", "1000"])
                .spawn()
        })
        .collect();
    for watching in &watches {
        watching.wait_for_stderr(WATCHING, PATIENCE);
    }
    write(&server, "touch", "before");
    for watching in &watches {
        super::wait_for_stdout(watching, "before");
    }
    for proxy in &proxies {
        proxy.disable();
    }
    // None of them has seen more.
    let last = oracle::head(&server);
    vanish(&server);
    wait_until_expired(&server, &last);
    write(&server, "touch", "after");
    for proxy in &proxies {
        proxy.enable();
    }
    for watching in watches {
        let finished = watching.wait();
        let folded = Folded::of(&finished.stdout);
        assert_eq!(folded.updates, 1, "what came before: {}", finished.text());
        assert!(folded.trailer.is_none());
        assert_lost(finished, true);
    }
}

#[test]
fn history_lost_in_an_outage_on_postgres_exits_4() {
    lost_in_an_outage(Datastore::Postgres);
}

#[test]
fn history_lost_in_an_outage_on_mysql_exits_4() {
    lost_in_an_outage(Datastore::MySql);
}

#[test]
fn valid_token_is_never_taken_for_lost() {
    let server = source_with(Datastore::Postgres, &["--datastore-gc-window=600s"]);
    for case in 0..repeat(4, 50) {
        let folder = folder();
        let there = oracle::dump(&server, oracle::Precision::Seconds);
        let since = oracle::head(&server);
        let proxy = Proxy::to(server.endpoint());
        let watching = watch_by(&proxy.endpoint(), &server)
            .args(["--since", &since])
            .spawn();
        watching.wait_for_stderr(WATCHING, PATIENCE);
        let prefix = format!("case{case}-");
        let flags = ["--rate", "20", "--prefix", &prefix];
        let writers = writers(&server, folder.path(), &flags);
        let noticed = |watching: &Running| watching.stderr_so_far().matches("again in").count();
        for _ in 0..3 {
            let before = noticed(&watching);
            // A cut while it is about to connect is not noticed.
            wait_until("the cut is noticed", PATIENCE, || {
                proxy.cut();
                // It connects within this, and follows until the next cut.
                std::thread::sleep(Duration::from_millis(300));
                noticed(&watching) > before
            });
        }
        writers.stop();
        let end = mark(&server);
        let drain = watch(&server).args(["--since", &since, "--until", &end]);
        let drained = Folded::onto(&there, &drain.run().expect_success().stdout);
        super::wait_for_stdout(&watching, drained.last());
        let folded = Folded::onto(&there, &watching.terminate().stdout);
        folded.assert_each_once();
        folded.assert_is(&server);
        drained.assert_is(&server);
    }
}

/// What a watch has written so far, without a line that is not complete yet.
fn whole_lines(watching: &Running) -> Vec<u8> {
    let mut stdout = watching.stdout_so_far();
    let end = stdout.iter().rposition(|byte| *byte == b'\n');
    stdout.truncate(end.map_or(0, |end| end + 1));
    stdout
}

#[test]
fn heartbeat_keeps_an_idle_watch_within_the_history() {
    std::thread::scope(|scope| {
        for datastore in [Datastore::Postgres, Datastore::MySql, Datastore::Memory] {
            scope.spawn(move || {
                let server = forgetful_after("15s", datastore);
                let since = oracle::head(&server);
                let watching = watch(&server)
                    .args(["--since", &since, "--settle", "1s", "--heartbeat", "1s"])
                    .spawn();
                watching.wait_for_stderr(WATCHING, PATIENCE);
                // The start itself is lost: for two windows.
                wait_until_expired(&server, &since);
                let seen = || Folded::of(&whole_lines(&watching)).lags.len();
                let least = seen() + 15;
                wait_until("fifteen more heartbeats", PATIENCE, || seen() >= least);
                let again = watch(&server).args(["--since", &since, "--until-quiet", "1s"]);
                assert_lost(again.run(), false);
                write(&server, "touch", "late");
                super::wait_for_checkpoint_after(&watching, "late");
                let folded = Folded::of(&watching.terminate().stdout);
                assert!(folded.count("checkpoint") >= 10, "one a heartbeat");
                let lags = &folded.lags;
                figure(&format!("{datastore:?}: lags of the heartbeat: {lags:?} s"));
                // Behind the settle time, and a second or two of rounds; PostgreSQL needs none.
                let least = if datastore == Datastore::Postgres {
                    0.0
                } else {
                    1.0
                };
                assert!(lags.iter().all(|lag| *lag >= least), "{lags:?}");
                folded.assert_is(&server);
            });
        }
    });
}
