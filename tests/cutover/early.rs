//! What has not settled is written early before the fence: whatever becomes of that, the target ends as the source.

use std::io::Write as _;
use std::time::Duration;

use super::fence::{holds_the_journal_and, stop_applying};
use super::{Migration, PATIENCE, fenced, relationship, touch};
use crate::support::oracle::{self, Precision, Writers};
use crate::support::spicedb::Datastore;
use crate::support::wait_until;

fn sync_points(migration: &Migration) -> usize {
    let applied = std::fs::read_to_string(migration.file("applied.ndjson")).unwrap_or_default();
    applied.matches(r#""syncPoint":true"#).count()
}

fn position(migration: &Migration) -> serde_json::Value {
    let text = std::fs::read(migration.file("position")).unwrap();
    let line: serde_json::Value = serde_json::from_slice(&text).unwrap();
    line["position"].clone()
}

/// Waits until what was written early has settled.
fn settles(migration: &Migration) {
    let before = sync_points(migration);
    wait_until("a sync point comes", PATIENCE, || {
        sync_points(migration) > before
    });
    wait_until("nothing is early any more", PATIENCE, || {
        position(migration)["earlyUntil"].is_null()
    });
}

#[test]
fn early_changes_survive_a_refusal_a_leak_and_a_killed_apply() {
    let migration = Migration::between(Datastore::Memory, Datastore::Postgres).settling("6s");
    let journal = migration.folder.path().join("journal");
    // So often that some come between two markers, which are a tenth of a second apart.
    let flags = ["--rate", "30", "--updates", "4", "--expiry", "us"];
    let writers = Writers::until_stopped(&migration.from, &journal, &flags);
    migration.plan_and_copy();
    let follow = migration.follow();
    settles(&migration);

    // Nobody fences: follow continues, and the target is behind its source again.
    let mut refused = migration.cutover(&[]);
    assert!(refused.stderr_so_far().contains("bringing over"));
    wait_until("changes are written early", PATIENCE, || {
        position(&migration)["earlyUntil"].is_string()
    });
    refused.take_stdin().write_all(b"no\n").unwrap();
    refused.wait().expect_code(2);
    settles(&migration);

    // The fence leaks.
    let mut leaking = migration.cutover(&[]);
    fenced(&mut leaking);
    let leaking = leaking.wait().expect_code(1);
    assert!(
        leaking.stderr.contains("does not hold"),
        "{}",
        leaking.stderr
    );
    follow.wait().expect_success();
    let follow = migration.follow();
    settles(&migration);

    // The apply dies, with all that it knows of what it has written early.
    let mut cutover = migration.cutover(&[]);
    stop_applying(follow.pid(), "KILL");
    wait_until("it is begun again", PATIENCE, || {
        follow.count_on_stderr("it begins again") > 0
    });
    std::thread::sleep(Duration::from_secs(1));
    writers.stop();
    fenced(&mut cutover);
    let cutover = cutover.wait().expect_success();
    assert!(cutover.stderr.contains("equal: "), "{}", cutover.stderr);
    follow.wait().expect_success();
    holds_the_journal_and(&migration, &journal, &[]);
}

/// Both come within the settle time, and the live Watch has only the newest schema.
#[test]
fn relationship_that_needs_a_schema_that_has_not_settled_is_there_at_the_end() {
    let migration = Migration::between(Datastore::Memory, Datastore::Memory).settling("10s");
    touch(&migration.from, "first");
    migration.plan_and_copy();
    let follow = migration.follow();
    let schema = oracle::read_schema(&migration.from);
    let schema = schema.replacen(
        "relation holder:",
        "relation keeper: user\n  relation holder:",
        1,
    );
    oracle::write_schema(&migration.from, &schema);
    let kept = relationship("kept").replacen("holder", "keeper", 1);
    oracle::load(
        &migration.from,
        &(kept.replacen('{', r#"{"op":"touch","#, 1) + "\n"),
    );
    touch(&migration.from, "second");
    let mut cutover = migration.cutover(&["--rejects", "/dev/null"]);
    fenced(&mut cutover);
    let cutover = cutover.wait().expect_success();
    assert!(cutover.stderr.contains("equal: "), "{}", cutover.stderr);
    follow.wait().expect_success();
    let mut expected = vec![kept, relationship("first"), relationship("second")];
    expected.sort();
    let mut there = oracle::dump(&migration.to, Precision::Microseconds);
    there.sort();
    oracle::assert_same_lines("what was written", &expected, "the target", &there);
}
