//! Both ends compared while they are written, and made equal again without emptying the target.

use std::time::{Duration, Instant as Clock};

use spice_migrate::phase::Phase;
use spice_migrate::time::Instant;

use super::under_load::least_rate;
use super::{Migration, PATIENCE, delete, fenced, precision, relationship, touch};
use crate::support::oracle::{self, Writers};
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, but_for_dead_mysql_servers};
use crate::support::{figure, repeat, wait_until};

/// Writers that write until they are asked to stop: 1,200 updates a second, where the machine bears it.
struct Load {
    writers: Writers,
    began: Clock,
}

impl Load {
    fn on(migration: &Migration) -> Self {
        let journal = migration.folder.path().join("journal");
        let flags = ["--rate", "8", "--updates", "75"];
        Self {
            writers: Writers::until_stopped(&migration.from, &journal, &flags),
            began: Clock::now(),
        }
    }

    /// How many updates a second there were, and the seconds that the slowest transaction took. One that
    /// is slower than the settle time of a MySQL source may be missed.
    fn stop(self) -> (f64, f64) {
        let took = self.began.elapsed().as_secs_f64();
        let summary = self.writers.stop();
        let number = |name: &str| summary[name].as_f64().unwrap();
        (number("updates") / took, number("slowestSeconds"))
    }
}

fn verified_again_and_again(migration: &Migration, times: u32) {
    for _ in 0..times {
        // Also the answers: an overlapping transaction, or an expiry, must not look like another one.
        let verify = migration.step(&["verify", "--check-sample", "200"]);
        let verified = verify.run().expect_success();
        for said in ["proven equal", "equal answers"] {
            assert!(verified.stderr.contains(said), "{}", verified.stderr);
        }
    }
    let verdict = migration.verdict();
    assert!(verdict.starts_with("equal since "), "{verdict}");
}

/// Removes a relationship on the target behind the back of spice-apply: it is found, named, repaired.
fn removed_and_found(migration: &Migration) {
    touch(&migration.from, "planted");
    let name = "item:planted#holder@user:somebody";
    wait_until("the target holds what will be removed", PATIENCE, || {
        oracle::lookup(&migration.to, name).is_some()
    });
    delete(&migration.to, "planted");
    let verified = migration.step(&["verify"]).run().expect_code(3);
    assert!(
        verified.stderr.contains("differs from"),
        "{}",
        verified.stderr
    );
    let differences = std::fs::read_to_string(migration.file("differences.ndjson")).unwrap();
    let updates: Vec<&str> = differences
        .lines()
        .filter(|line| line.starts_with(r#"{"update""#))
        .collect();
    assert_eq!(updates.len(), 1, "{differences}");
    assert!(updates[0].contains("OPERATION_TOUCH"), "{differences}");
    assert!(
        updates[0].contains(r#""objectId":"planted""#),
        "{differences}"
    );
    Program::new("spice-apply")
        .args(["--context", migration.to.context()])
        .arg(migration.file("differences.ndjson"))
        .run()
        .expect_success();
    verified_again_and_again(migration, 1);
}

/// Verifies again and again while everybody writes, and once more after something was removed.
fn verified_under_load(migration: &Migration, times: u32) {
    let load = Load::on(migration);
    migration.plan_and_copy();
    let following = migration.follow();
    let began = Clock::now();
    verified_again_and_again(migration, times);
    let took = began.elapsed().as_secs_f64() / f64::from(times);
    removed_and_found(migration);
    let (rate, slowest) = load.stop();
    following.signal("TERM");
    following.wait();
    figure(&format!(
        "{times} verifications at {rate:.0} updates a second, {took:.1} s each: all equal; one removed: named; \
         slowest transaction {slowest:.1} s"
    ));
    assert!(rate >= least_rate(), "{rate} updates a second only");
}

#[test]
fn verify_of_postgres_under_load_finds_what_was_removed() {
    let migration = Migration::between(Datastore::Postgres, Datastore::Postgres);
    verified_under_load(&migration, repeat(3, 20));
}

#[test]
fn verify_of_mysql_under_load_finds_what_was_removed() {
    but_for_dead_mysql_servers(|| {
        let migration = Migration::between(Datastore::MySql, Datastore::Postgres).settling("10s");
        verified_under_load(&migration, repeat(2, 20));
    });
}

#[test]
fn differing_schema_and_answers_are_named_and_repaired() {
    let migration = Migration::between(Datastore::Postgres, Datastore::Postgres);
    let schema = oracle::read_schema(&migration.from);
    let guarded = |expression: &str| {
        let group = "definition group {\n\trelation member: user | user with within\n\trelation owner: user\n";
        format!("{schema}\n{group}\tpermission enter = {expression}\n}}\n")
    };
    oracle::write_schema(&migration.from, &guarded("member + owner"));
    let line = |relation: &str, n: u32| {
        format!(r#"{{"resource":"group:g{n}","relation":"{relation}","subject":"user:u{n}"}}"#)
    };
    let lines = (0..60).map(|n| line(if n % 2 == 0 { "member" } else { "owner" }, n));
    oracle::load_bulk(
        &migration.from,
        &(lines.collect::<Vec<_>>().join("\n") + "\n"),
    );
    migration.plan_and_copy();
    let following = migration.follow();
    let verify = |code| {
        let verify = migration.step(&["verify", "--check-sample", "200"]);
        verify.run().expect_code(code).stderr
    };
    let equal = verify(0);
    assert!(equal.contains(" equal answers"), "{equal}");
    assert!(!migration.file("checks.ndjson").exists());

    // A change that follow brings over is no difference.
    oracle::write_schema(&migration.from, &guarded("owner + member + owner"));
    verify(0);

    oracle::write_schema(&migration.to, &guarded("member"));
    let differ = verify(3);
    let what = "expression of permission group#enter";
    assert!(differ.contains(what), "{differ}");
    let verdict = migration.verdict();
    assert!(verdict.starts_with("different since ") && verdict.contains(what));
    let cutover = migration.step(&["cutover"]).input("fenced\n").run();
    let cutover = cutover.expect_code(1);
    assert!(cutover.stderr.contains(what), "{}", cutover.stderr);
    assert!(!migration.is_fenced());

    let resync = migration.step(&["resync"]).run();
    resync.expect_success();
    following.wait().expect_success();
    let following = migration.follow();
    verify(0);
    following.signal("TERM");
    following.wait();
}

#[test]
fn verdict_age_is_checked_before_the_fence_only() {
    let migration = Migration::between(Datastore::Postgres, Datastore::Postgres);
    migration.plan_and_copy();
    let following = migration.follow();
    let refused = |what: &str| {
        let cutover = migration.step(&["cutover"]).input("fenced\n").run();
        let status = migration.step(&["status"]).run();
        for said in [cutover, status] {
            let said = said.expect_code(1);
            assert!(said.stderr.contains(what), "{}", said.stderr);
            assert!(said.stderr.contains(" verify"), "{}", said.stderr);
        }
        assert!(!migration.is_fenced());
    };
    refused("verify has not proved");
    migration.step(&["verify"]).run().expect_success();
    let young = migration.saved().verdict;
    migration.step(&["status"]).run().expect_success();
    let mut old = young.clone();
    if let Some(verdict) = &mut old {
        verdict.since = Instant(jiff::Timestamp::now() - jiff::SignedDuration::from_hours(2));
    }
    migration.change(|state| state.verdict.clone_from(&old));
    refused("more than 1h ago");
    migration
        .step(&["status", "--max-verify-age", "3h"])
        .run()
        .expect_success();
    // What was refused since then, or was before.
    let rejects = migration.folder.path().join("rejects");
    std::fs::write(&rejects, "{}\n").unwrap();
    migration.change(|state| {
        state.following.as_mut().unwrap().rejects = Some(rejects.clone());
        state.verdict.clone_from(&young);
    });
    refused(rejects.to_str().unwrap());
    let file = std::fs::File::options().write(true).open(&rejects);
    let before = std::time::SystemTime::now() - Duration::from_secs(7200);
    file.unwrap().set_modified(before).unwrap();
    migration.step(&["status"]).run().expect_success();
    // The verdict grows too old while the fence is waited for.
    let mut waiting = migration.step(&["cutover"]).input_later().spawn();
    waiting.wait_for_stderr("type: fenced", PATIENCE);
    migration.change(|state| state.verdict = old);
    fenced(&mut waiting);
    let waited = waiting.wait().expect_code(1).stderr;
    assert!(waited.contains("lift the fence"), "{waited}");
    assert!(!migration.is_fenced());
    assert_eq!(migration.status()["running"], true);
    // As a cutover leaves it that was killed behind its fence: the verdict was young when it began.
    migration.change(|state| {
        let ready = state.phase.ready().unwrap();
        let at = Instant::now();
        state.phase = Phase::Fenced { ready, at };
    });
    let cutover = migration.step(&["cutover"]).input("").run();
    let cutover = cutover.expect_success();
    assert!(cutover.stderr.contains("SWITCH"), "{}", cutover.stderr);
    following.wait().expect_success();
}

#[test]
fn resync_under_load_restores_missing_and_removes_extra() {
    let migration = Migration::between(Datastore::Postgres, Datastore::Postgres);
    let names: Vec<String> = (0..200)
        .map(|n| relationship(&format!("bulk-{n}")))
        .collect();
    oracle::load_bulk(&migration.from, &(names.join("\n") + "\n"));
    let load = Load::on(&migration);
    migration.plan_and_copy();
    let following = migration.follow();
    for n in 0..20 {
        delete(&migration.to, &format!("bulk-{n}"));
        touch(&migration.to, &format!("extra-{n}"));
    }
    // It stops follow by itself.
    let resynced = migration.step(&["resync"]).run().expect_success();
    following.wait().expect_success();
    assert!(
        resynced.stderr.contains("was made equal to"),
        "{}",
        resynced.stderr
    );
    let following = migration.follow();
    verified_again_and_again(&migration, 1);
    load.stop();
    verified_again_and_again(&migration, 1);
    let precision = precision(Datastore::Postgres, Datastore::Postgres);
    wait_until("the last writes are on the target", PATIENCE, || {
        oracle::dump(&migration.from, precision) == oracle::dump(&migration.to, precision)
    });
    let mut expected = oracle::expected(&migration.folder.path().join("journal"), precision);
    expected.extend(names);
    expected.sort();
    let there = oracle::dump(&migration.to, precision);
    oracle::assert_same_lines("the journal", &expected, "the target", &there);
    following.signal("TERM");
    following.wait();
}

/// As people write comments, and not as SpiceDB gives them back.
fn commented(words: &str) -> String {
    format!(
        "/**\n *   {words}\n */\ndefinition user {{}}\n\n//////\n//things\n//////\n\
         definition item {{\n  /**who*/ relation holder: user\n}}\n"
    )
}

#[test]
fn comments_differ_by_their_words_and_not_by_their_form() {
    let migration = Migration::between(Datastore::Postgres, Datastore::Memory);
    oracle::write_schema(&migration.from, &commented("somebody"));
    // Deployed by somebody's own pipeline, from the same file.
    oracle::write_schema(&migration.to, &commented("somebody"));
    touch(&migration.from, "a");
    migration.plan_and_copy();
    let following = migration.follow();
    migration.step(&["verify"]).run().expect_success();
    oracle::write_schema(&migration.from, &commented("anybody"));
    touch(&migration.from, "b");
    wait_until("the comment arrives", PATIENCE, || {
        oracle::read_schema(&migration.to) == oracle::read_schema(&migration.from)
    });
    migration.step(&["verify"]).run().expect_success();
    migration.cut_over();
    following.wait().expect_success();
}
