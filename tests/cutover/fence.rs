//! What can stop a cutover before the switch: refusals, a fence that leaks, `kill -9`, a source
//! that takes no writes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use spice_migrate::state::{Found, Verdict};
use spice_migrate::time::Instant;

use super::{
    Migration, PATIENCE, children, delete, downtime, fenced, relationship, touch, transactions,
};
use crate::support::oracle::{self, Precision, Writers};
use crate::support::program::Program;
use crate::support::spicedb::Datastore;
use crate::support::wait_until;

/// A migration that follows, and holds one relationship.
fn following(from: Datastore, to: Datastore) -> (Migration, crate::support::running::Running) {
    let migration = Migration::between(from, to);
    touch(&migration.from, "first");
    migration.plan_and_copy();
    let follow = migration.follow();
    (migration, follow)
}

/// The target holds what the writers have written, and what was there before.
fn holds_the_journal(migration: &Migration, journal: &Path) {
    holds_the_journal_and(migration, journal, &[relationship("first")]);
}

/// The target holds what the writers have written, and these.
pub(super) fn holds_the_journal_and(migration: &Migration, journal: &Path, others: &[String]) {
    let mut expected = oracle::expected(journal, Precision::Microseconds);
    expected.extend_from_slice(others);
    expected.sort();
    let there = oracle::dump(&migration.to, Precision::Microseconds);
    oracle::assert_same_lines("the journal", &expected, "the target", &there);
}

#[test]
fn each_step_twice_ends_as_it_did_and_changes_nothing() {
    let (migration, follow) = following(Datastore::Postgres, Datastore::Postgres);
    let again = migration.step(&["follow"]).run().expect_code(75);
    assert!(again.stderr.contains("still at work"), "{}", again.stderr);
    let copy = migration.step(&["copy"]).run().expect_code(75);
    assert!(
        copy.stderr
            .contains("follow of this migration is still at work")
    );
    touch(&migration.from, "second");
    migration.cut_over();
    let finished = follow.wait().expect_success();
    assert!(finished.stderr.contains("cutover takes over"));
    let both = [relationship("first"), relationship("second")];
    let there = oracle::dump(&migration.to, Precision::Microseconds);
    oracle::assert_same_lines("what was written", &both, "the target", &there);

    let head = oracle::head(&migration.to);
    let again = migration
        .step(&["cutover"])
        .input("")
        .run()
        .expect_success();
    assert!(again.stderr.contains("the switch was ordered"));
    assert!(
        migration
            .step(&["follow"])
            .run()
            .expect_code(2)
            .stderr
            .contains("reverse")
    );
    assert!(
        migration
            .step(&["copy", "--restart"])
            .run()
            .expect_code(2)
            .stderr
            .contains("deleted there")
    );
    for _ in 0..2 {
        migration.step(&["abort"]).run().expect_success();
    }
    let there = oracle::dump_at(&migration.to, &head, Precision::Microseconds);
    oracle::assert_same_lines("what was written", &both, "the target", &there);
}

#[test]
fn cutover_before_plan_copy_or_follow_is_refused() {
    let migration = Migration::between(Datastore::Postgres, Datastore::Memory);
    let refused = |what: &str, code| {
        let cutover = migration.step(&["cutover"]).input("fenced\n").run();
        let cutover = cutover.expect_code(code);
        assert!(cutover.stderr.contains(what), "{}", cutover.stderr);
        assert!(migration.switch().is_none());
    };
    refused("there is no plan", 2);
    migration.plan();
    refused("nothing has been copied", 2);
    migration.step(&["copy"]).run().expect_success();
    refused("follow is not running", 1);
    assert_eq!(migration.status()["safe"], false);
    let reverse = migration.step(&["reverse"]).run().expect_code(2);
    assert!(reverse.stderr.contains("the switch was not ordered"));

    // A target that does not keep up.
    let follow = migration.follow();
    wait_until("status reports that it is safe", PATIENCE, || {
        migration.status()["safe"] == true
    });
    let pid = follow.pid();
    let lock = std::fs::read_to_string(migration.file("follow.lock")).unwrap();
    assert_eq!(lock.trim(), pid.to_string());
    stop_applying(pid, "STOP");
    for n in 0..40 {
        touch(&migration.from, &format!("late{n}"));
    }
    wait_until("status reports that it is behind", PATIENCE, || {
        let status = migration.step(&["status", "--max-lag", "1s"]).run();
        status.code() == Some(1) && status.stderr.contains("behind what was captured")
    });
    assert!(migration.status()["backlog"].as_u64().unwrap() > 0);
    let late = migration
        .step(&["cutover", "--skip-verify", "--max-lag", "1s"])
        .input("fenced\n")
        .run()
        .expect_code(1);
    assert!(
        late.stderr.contains("not safe to cut over"),
        "{}",
        late.stderr
    );
    stop_applying(pid, "CONT");
    // Nobody gives the word.
    wait_until("status reports that it is safe", PATIENCE, || {
        migration.status()["safe"] == true
    });
    let mute = migration
        .step(&["cutover", "--skip-verify"])
        .input("no\n")
        .run()
        .expect_code(2);
    assert!(mute.stderr.contains("not fenced"), "{}", mute.stderr);
    let fence = ["cutover", "--skip-verify", "--fence-command", "exit 7"];
    let failed = migration.step(&fence).run().expect_code(1);
    assert!(failed.stderr.contains("ended with 7"), "{}", failed.stderr);
    migration.change(|state| {
        state.verdict = Some(Verdict {
            found: Found::Equal,
            since: Instant::now(),
            what: "as it was".to_owned(),
        });
    });
    migration.step(&["abort"]).run().expect_success();
    assert_eq!(migration.verdict(), "");
    let ended = follow.wait().expect_success();
    assert!(ended.stderr.contains("abort: follow has ended"));
    // And on again.
    let follow = migration.follow();
    migration.cut_over();
    follow.wait().expect_success();
    oracle::assert_same_relationships(&migration.from, &migration.to, Precision::Microseconds);
}

/// Signals the spice-apply that a process has started.
pub(super) fn stop_applying(parent: u32, signal: &str) {
    let found = children(parent).into_iter().filter(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() == "spice-apply"
    });
    let found: Vec<u32> = found.collect();
    assert_eq!(found.len(), 1, "spice-apply is at work");
    let kill = format!("kill -s {signal} {}", found[0]);
    let status = std::process::Command::new("sh")
        .args(["-c", &kill])
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn writer_behind_the_fence_is_noticed_and_nothing_is_switched() {
    let (migration, follow) = following(Datastore::Postgres, Datastore::Postgres);
    let journal = migration.folder.path().join("journal");
    let flags = ["--writers", "1", "--rate", "50", "--updates", "2"];
    let writers = Writers::until_stopped(&migration.from, &journal, &flags);
    wait_until("they write", PATIENCE, || {
        transactions(&migration.file("changes.ndjson")) > 5
    });
    let mut cutover = migration.cutover(&[]);
    fenced(&mut cutover);
    let cutover = cutover.wait().expect_code(1);
    assert!(
        cutover.stderr.contains("the fence does not hold"),
        "{}",
        cutover.stderr
    );
    assert!(!cutover.stderr.contains("SWITCH"), "{}", cutover.stderr);
    follow.wait().expect_success();
    // As the message advises: follow again, and cut over when the way is closed.
    let follow = migration.follow();
    writers.stop();
    migration.cut_over();
    follow.wait().expect_success();
    holds_the_journal(&migration, &journal);
}

#[test]
fn cutover_killed_at_any_moment_goes_on_with_the_same_command() {
    for round in 0..crate::support::repeat(3, 12) {
        let (migration, follow) = following(Datastore::Postgres, Datastore::Postgres);
        let journal = migration.folder.path().join("journal");
        let flags = ["--rate", "20", "--updates", "20", "--seconds", "3"];
        Writers::start(&migration.from, &journal, &flags).finish();
        let mut cutover = migration.cutover(&[]);
        fenced(&mut cutover);
        std::thread::sleep(Duration::from_millis(u64::from(60 + 130 * (round % 6))));
        cutover.kill9();
        let killed = cutover.wait();
        let switched = killed.stderr.contains("SWITCH");
        assert!(killed.signal() == Some(9) || switched, "{}", killed.stderr);
        let again = migration.cut_over();
        assert!(
            switched || again.stderr.contains("SWITCH"),
            "{}",
            again.stderr
        );
        assert!(again.stderr.contains("equal"), "{}", again.stderr);
        follow.wait().expect_success();
        holds_the_journal(&migration, &journal);
    }
}

#[test]
fn read_only_postgres_is_compared_before_the_switch() {
    let (migration, follow) = following(Datastore::Postgres, Datastore::Memory);
    touch(&migration.from, "second");
    delete(&migration.from, "first");
    migration.from.restart_with(&["--datastore-readonly"]);
    let cutover = migration
        .step(&["cutover", "--skip-verify", "--until-quiet", "8s"])
        .args(["--max-lag", "60s"])
        .input("fenced\n")
        .run()
        .expect_success();
    let text = &cutover.stderr;
    assert!(text.contains("which proves nothing"), "{text}");
    assert!(
        text.find("equal: ").unwrap() < text.find("SWITCH").unwrap(),
        "{text}"
    );
    assert!(downtime(&cutover) > 8.0);
    follow.wait().expect_success();
    let there = oracle::dump(&migration.to, Precision::Microseconds);
    oracle::assert_same_lines(
        "what was written",
        &[relationship("second")],
        "the target",
        &there,
    );
}

#[test]
fn read_only_mysql_ends_exactly_at_its_head() {
    let migration = Migration::between(Datastore::MySql, Datastore::Postgres).settling("1s");
    touch(&migration.from, "first");
    migration.plan_and_copy();
    let follow = migration.follow();
    touch(&migration.from, "second");
    delete(&migration.from, "first");
    migration.from.restart_with(&["--datastore-readonly"]);
    let cutover = migration
        .step(&["cutover", "--skip-verify", "--verify-before-switch"])
        .args(["--max-lag", "60s"])
        .input("fenced\n")
        .run()
        .expect_success();
    assert!(
        !cutover.stderr.contains("proves nothing"),
        "{}",
        cutover.stderr
    );
    let text = &cutover.stderr;
    assert!(
        text.find("equal: ").unwrap() < text.find("SWITCH").unwrap(),
        "{text}"
    );
    follow.wait().expect_success();
    let there = oracle::dump(&migration.to, Precision::Seconds);
    oracle::assert_same_lines(
        "what was written",
        &[relationship("second")],
        "the target",
        &there,
    );
}

#[test]
fn difference_behind_the_fence_survives_an_abort() {
    let (migration, follow) = following(Datastore::Postgres, Datastore::Postgres);
    let cutover = migration.cutover(&[]);
    let mut abort = migration.step(&["abort"]).run().expect_success();
    assert_eq!(cutover.wait().signal(), Some(15), "{}", abort.stderr);
    follow.wait().expect_success();

    let follow = migration.follow();
    touch(&migration.to, "behind-the-back");
    let differs = migration
        .step(&["cutover", "--skip-verify", "--verify-before-switch"])
        .input("fenced\n")
        .run()
        .expect_code(3);
    follow.wait().expect_success();
    for word in ["Nothing is switched", "lift the fence", "resync"] {
        assert!(differs.stderr.contains(word), "{}", differs.stderr);
    }
    assert!(migration.switch().is_none());
    let follow = migration.follow();
    let refused = migration
        .step(&["cutover", "--skip-verify"])
        .input("fenced\n")
        .run()
        .expect_code(1);
    assert!(
        refused.stderr.contains("different") && refused.stderr.contains("Nothing was stopped"),
        "{}",
        refused.stderr
    );
    abort = migration.step(&["abort"]).run().expect_success();
    follow.wait().expect_success();
    assert!(
        abort.stderr.contains("Nothing was switched"),
        "{}",
        abort.stderr
    );
}

#[test]
fn writer_after_the_switch_is_reported_by_the_comparison() {
    let (migration, follow) = following(Datastore::Postgres, Datastore::Postgres);
    // An export that begins late, as one of many relationships ends late: after the write.
    let slow = migration.folder.path().join("slow");
    std::fs::create_dir(&slow).unwrap();
    let export = slow.join("spice-export");
    let real = env!("CARGO_BIN_EXE_spice-export");
    let go = slow.join("go");
    let wait = format!("until [ -e {} ]; do sleep 0.05; done", go.display());
    std::fs::write(&export, format!("#!/bin/sh\n{wait}\nexec {real} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&export, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Programs are looked for beside it first.
    let program = slow.join("spice-migrate");
    std::fs::copy(env!("CARGO_BIN_EXE_spice-migrate"), &program).unwrap();
    let cutover = Program::at(&program).arg("--state").arg(migration.state());
    let cutover = cutover.args(["cutover", "--skip-verify"]).timeout(PATIENCE);
    let mut cutover = cutover.input_later().spawn();
    cutover.wait_for_stderr("type: fenced", PATIENCE);
    fenced(&mut cutover);
    cutover.wait_for_stderr("SWITCH READS AND WRITES", PATIENCE);
    touch(&migration.from, "too-late");
    std::fs::write(&go, "").unwrap();
    let finished = cutover.wait().expect_code(1);
    follow.wait().expect_success();
    for word in [
        "the fence did not hold: 1 transactions",
        "too-late",
        "remains valid",
    ] {
        assert!(finished.stderr.contains(word), "{}", finished.stderr);
    }
    assert!(migration.switch().is_some());
}
