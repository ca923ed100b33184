//! Transactions that overlap, and revisions that become visible late.

use std::path::Path;
use std::time::Duration;

use super::{
    Folded, PATIENCE, WATCHING, import_held, mark, source, source_with, spool_of, txid,
    wait_for_stdout, watch, write, writers,
};
use crate::cutover::transactions;
use crate::support::oracle::{self, Writers};
use crate::support::spicedb::{Datastore, but_for_dead_mysql_servers};
use crate::support::{folder, repeat, wait_until};

/// Flags of writers; with few resources these are created and deleted again and again.
fn churning(resources: &str) -> [&str; 6] {
    ["--rate", "10", "--keys", resources, "--updates", "3"]
}

/// Until some of their transactions are committed after what was sent before, as the server is as busy for them.
fn wait_for_writes(writers: &Writers) {
    std::thread::sleep(Duration::from_secs(1));
    let written = || {
        let journal = std::fs::read_to_string(writers.journal()).unwrap();
        journal.lines().count()
    };
    let least = written() + 40;
    wait_until("forty transactions more", PATIENCE, || written() >= least);
}

#[test]
fn transactions_overlapping_an_import_on_postgres_come_once() {
    for case in 0..repeat(2, 10) {
        let server = source(Datastore::Postgres);
        let folder = folder();
        let since = oracle::head(&server);
        let watching = watch(&server).args(["--since", &since]).spawn();
        watching.wait_for_stderr(WATCHING, PATIENCE);
        let flags = churning("8");
        let writers = writers(&server, folder.path(), &flags);
        import_held(&server, "import-", 2_000, || wait_for_writes(&writers));
        writers.stop();
        let end = mark(&server);
        let ended = watch(&server).args(["--since", &since, "--until", &end]);
        let again = Folded::of(&ended.run().expect_success().stdout);
        wait_for_stdout(&watching, again.last());
        let live = Folded::of(&watching.terminate().stdout);
        for folded in [&live, &again] {
            folded.assert_each_once();
            folded.assert_is(&server);
        }
        // Later transactions were delivered first.
        let changes = live
            .records
            .iter()
            .filter(|(kind, _)| kind == "transaction");
        let ids: Vec<u64> = changes.map(|(_, token)| txid(token).unwrap()).collect();
        let late = ids.iter().enumerate().map(|(at, id)| {
            let earlier = &ids[..at];
            earlier.iter().filter(|earlier| *earlier > id).count()
        });
        let overtaken = late.max().unwrap();
        assert!(
            overtaken > 10,
            "case {case}: {overtaken} overtook the import"
        );
    }
}

/// The import began before the touch and ends after the deletion: what a server shows at its end has the one without
/// the other, and a Watch from there delivers the touch once more.
fn continued_after_a_late_import(is_stopped: bool) {
    let server = source_with(Datastore::Postgres, &["--enable-revision-heartbeat=false"]);
    let folder = folder();
    let spool = folder.path().join("changes.ndjson");
    let since = oracle::head(&server);
    let capture = || {
        let watching = watch(&server).args(["--since", &since, "--spool"]);
        watching.arg(&spool)
    };
    let through = |end: &str| {
        capture().args(["--until", end]).run().expect_success();
    };
    let text_of = |spool: &Path| String::from_utf8(spool_of(spool)).unwrap();
    let mut deleted = String::new();
    let mut watching = None;
    import_held(&server, "import-", 500, || {
        through(&write(&server, "touch", "revoked"));
        if is_stopped {
            watching = Some(capture().spawn());
        }
        deleted = write(&server, "delete", "revoked");
        if is_stopped {
            wait_until("the deletion is there", PATIENCE, || {
                text_of(&spool).contains(&deleted)
            });
        }
    });
    let is_imported = || text_of(&spool).contains("import-499");
    match watching {
        Some(watching) => {
            wait_until("the import is there", PATIENCE, is_imported);
            watching.terminate();
        }
        None => through(&deleted),
    }
    assert!(is_imported());
    through(&mark(&server));
    let folded = Folded::of(&spool_of(&spool));
    folded.assert_is(&server);
    // The end that was asked for does not see the import, which comes again from there.
    if is_stopped {
        folded.assert_each_once();
    }
}

#[test]
fn stream_that_ends_with_a_late_import_revives_nothing_when_it_is_continued() {
    continued_after_a_late_import(false);
}

#[test]
fn watch_stopped_after_a_late_import_revives_nothing_when_it_is_continued() {
    continued_after_a_late_import(true);
}

#[test]
fn import_open_for_3_s_on_mysql_needs_settling() {
    but_for_dead_mysql_servers(|| {
        for _ in 0..repeat(1, 5) {
            let server = source(Datastore::MySql);
            let folder = folder();
            let since = oracle::head(&server);
            let start = |settle: &str| {
                let watching = watch(&server).args(["--since", &since, "--settle", settle]);
                let watching = watching.spawn();
                watching.wait_for_stderr(WATCHING, PATIENCE);
                watching
            };
            let (live, settled) = (start("0s"), start("20s"));
            let flags = churning("20");
            let writers = writers(&server, folder.path(), &flags);
            import_held(&server, "import-", 500, || wait_for_writes(&writers));
            writers.stop();
            let end = mark(&server);
            for watching in [&live, &settled] {
                wait_for_stdout(watching, &end);
            }
            let settled = Folded::of(&settled.terminate().stdout);
            settled.assert_each_once();
            settled.assert_is(&server);
            let live = Folded::of(&live.terminate().stdout);
            let imported = |folded: &Folded| {
                let names = folded.relationships.keys();
                names
                    .filter(|name| name.starts_with("item:import-"))
                    .count()
            };
            assert_eq!(imported(&settled), 500);
            assert_eq!(imported(&live), 0, "delivered although it came late");
        }
    });
}

/// In memory and on MySQL, with a spool that is drained after the last write.
fn drained(datastore: Datastore) {
    let server = source(datastore);
    let folder = folder();
    let spool = folder.path().join("changes.ndjson");
    let since = oracle::head(&server);
    let capture = watch(&server)
        .args(["--since", &since, "--settle", "2s", "--spool"])
        .arg(&spool)
        .spawn();
    let writers = writers(&server, folder.path(), &["--keys", "200"]);
    wait_until("some of it settles meanwhile", PATIENCE, || {
        transactions(&spool) > 50
    });
    writers.stop();
    capture.signal("TERM");
    capture.wait().expect_success();

    let end = mark(&server);
    let drain = watch(&server)
        .args(["--until", &end, "--spool"])
        .arg(&spool);
    let drained = drain.run().expect_success();
    assert!(
        drained.stderr.contains("everything through"),
        "{}",
        drained.stderr
    );
    let folded = Folded::of(&spool_of(&spool));
    folded.assert_each_once();
    folded.assert_is(&server);
    assert_eq!(folded.last(), end);
}

#[test]
fn settled_spool_of_memory_under_writers_equals_the_source() {
    drained(Datastore::Memory);
}

#[test]
fn settled_spool_of_mysql_under_writers_equals_the_source() {
    but_for_dead_mysql_servers(|| {
        drained(Datastore::MySql);
    });
}
