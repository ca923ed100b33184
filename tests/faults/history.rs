//! Revisions that leave the source's history.

use testdata::Sample;

use super::{PATIENCE, export_by};
use crate::copy::{export, import, stream_of};
use crate::support::oracle::{self, Precision};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::running::Running;
use crate::support::spicedb::{Datastore, Server};
use crate::support::wait_until;

/// A server that forgets after 20 s: longer than a busy machine needs to begin an export.
pub(super) fn forgetful(datastore: Datastore, sample: Sample) -> Server {
    let server = Server::builder(datastore)
        .flag("--datastore-revision-quantization-interval=1s")
        .flag("--datastore-gc-window=20s")
        .flag("--datastore-gc-interval=2s")
        .start();
    import(&server)
        .input(stream_of(sample))
        .run()
        .expect_success();
    server
}

/// Deletes everything. Where nobody writes, the newest revision of memory and MySQL stays for ever.
pub(super) fn delete_all(server: &Server) {
    let deletes: String = oracle::dump(server, Precision::Microseconds)
        .iter()
        .map(|line| oracle::line_of("delete", line))
        .collect();
    oracle::load(server, &deletes);
}

/// The revision that an export reads, from its message.
fn revision_of(export: &Running) -> String {
    let said = " at revision ";
    export.wait_for_stderr(said, PATIENCE);
    let stderr = export.stderr_so_far();
    let rest = stderr.split_once(said).unwrap().1;
    rest.split_whitespace().next().unwrap().to_owned()
}

/// Waits until the server refuses a revision. On an idle PostgreSQL even the newest one expires.
pub(super) fn wait_until_expired(server: &Server, revision: &str) {
    wait_until("the revision expires", PATIENCE, || {
        let export = export(server).args(["--at", revision, "--type", "user"]);
        let code = export.run().code();
        // 75: a busy server has not answered in time.
        assert!([Some(0), Some(4), Some(75)].contains(&code), "{code:?}");
        code == Some(4)
    });
}

fn expired_before(datastore: Datastore) {
    let server = forgetful(datastore, Sample::portable(1_000));
    let old = oracle::head(&server);
    delete_all(&server);
    wait_until_expired(&server, &old);
    let finished = export(&server).args(["--at", &old]).run().expect_code(4);
    assert!(finished.stdout.is_empty(), "{}", finished.text());
    assert!(
        finished.stderr.contains("--datastore-gc-window"),
        "{}",
        finished.stderr
    );
}

/// The reader is stopped while everything is deleted and collected.
fn expired_in_the_middle(datastore: Datastore) {
    // PostgreSQL is read page by page, and some 40,000 go ahead of the reader.
    let sample = Sample::portable(match datastore {
        Datastore::Postgres => 80_000,
        _ => 5_000,
    });
    let server = forgetful(datastore, sample);
    let folder = crate::support::folder();
    let path = folder.path().join("stream.ndjson");
    let reader = Program::at("cat".as_ref()).output_file(&path);
    let mut all = Pipe::from(export(&server).args(["--page-size", "100"]))
        .to(reader)
        .timeout(PATIENCE)
        .spawn();
    all[1].signal("STOP");
    let revision = revision_of(&all[0]);
    all[0].wait_until_blocked();
    // Without statistics PostgreSQL takes minutes for so many deletions.
    if datastore == Datastore::Postgres {
        server.sql("ANALYZE relation_tuple");
    }
    delete_all(&server);
    wait_until_expired(&server, &revision);
    // PostgreSQL refuses it after the window; what it has deleted is collected some time later.
    if datastore == Datastore::Postgres {
        wait_until("most rows are collected", PATIENCE, || {
            let left = server.sql("SELECT count(*) FROM relation_tuple");
            left.trim().parse::<u64>().unwrap() < sample.relationships / 3
        });
    }
    assert!(all[0].is_running(), "it waits for its reader");
    all[1].signal("CONT");
    let mut all = all.into_iter();
    let finished = all.next().unwrap().wait().expect_code(4);
    assert!(
        finished.stderr.contains("expired during its export"),
        "{}",
        finished.stderr
    );
    all.next().unwrap().wait().expect_success();
    let stream = std::fs::read_to_string(&path).unwrap();
    assert!(stream.lines().count() > 1, "it had begun");
    assert!(
        !stream.contains(r#"{"trailer":"#),
        "a stream without trailer"
    );
    let short = stream.lines().count() as u64 <= sample.relationships;
    // PostgreSQL ends such a stream short and "OK" (measured); the others hold what they read.
    assert!(short || datastore != Datastore::Postgres, "nothing missing");
    let taken = Program::new("spice-import")
        .arg("--dry-run")
        .arg(&path)
        .run();
    assert_eq!(taken.code(), Some(65), "{}", taken.stderr);
}

#[test]
fn revision_expired_before_export_from_postgres_exits_4() {
    expired_before(Datastore::Postgres);
}

#[test]
fn revision_expired_before_export_from_mysql_exits_4() {
    expired_before(Datastore::MySql);
}

#[test]
fn revision_expired_before_export_from_memory_exits_4() {
    expired_before(Datastore::Memory);
}

#[test]
fn revision_expired_during_export_from_postgres_exits_4() {
    expired_in_the_middle(Datastore::Postgres);
}

#[test]
fn revision_expired_during_export_from_mysql_exits_4() {
    expired_in_the_middle(Datastore::MySql);
}

#[test]
fn revision_expired_during_export_from_memory_exits_4() {
    expired_in_the_middle(Datastore::Memory);
}

#[test]
fn revision_expired_while_disconnected_exits_4() {
    let server = forgetful(Datastore::Postgres, Sample::portable(20_000));
    let proxy = crate::support::toxiproxy::Proxy::to(server.endpoint());
    proxy.bandwidth(100);
    server.sql("ANALYZE relation_tuple");
    let program = export_by(&proxy, &server)
        .args(["--page-size", "100", "--max-retries", "100"])
        .spawn();
    let revision = revision_of(&program);
    program.wait_for_output(1 << 12);
    proxy.disable();
    delete_all(&server);
    wait_until_expired(&server, &revision);
    proxy.enable();
    let finished = program.wait().expect_code(4);
    assert!(finished.text().lines().count() > 1, "it had begun");
    assert!(!finished.text().contains(r#"{"trailer":"#));
}
