//! Spanner as an end of a migration: a source only with writes stopped, a target like any other but for the way
//! back.

use spice_migrate::phase::Procedure;

use super::{Migration, relationship, touch};
use crate::support::oracle::{self, Precision};
use crate::support::spicedb::{Datastore, lacks_spanner};

#[test]
fn live_procedure_from_spanner_is_refused_by_plan() {
    if lacks_spanner() {
        return;
    }
    let migration = Migration::between(Datastore::Spanner, Datastore::Memory);
    touch(&migration.from, "there");
    let expiring = relationship("expiring").replacen('{', r#"{"op":"touch","#, 1);
    let expiring = expiring.replacen('}', r#","expires":"2031-01-01T00:00:00.123456Z"}"#, 1);
    oracle::load(&migration.from, &(expiring + "\n"));
    let (from, to) = (migration.from.context(), migration.to.context());
    let ends = ["plan", "--from", from, "--to", to];
    let refused = migration.step(&ends).run().expect_code(1);
    let first = refused.stderr.lines().next().unwrap();
    assert!(
        first.contains("is on Spanner, which cannot be followed"),
        "{first}"
    );
    assert!(
        refused.stderr.contains("plan --fenced"),
        "{}",
        refused.stderr
    );
    assert!(!migration.file("state.json").exists());
    let planned = migration.step(&[&ends[..], &["--fenced"]].concat()).run();
    let planned = planned.expect_success();
    for words in [
        "Spanner, datastore",
        "Spanner's leaves the expiry of relationships out",
    ] {
        assert!(planned.text().contains(words), "{}", planned.text());
    }
    migration.step(&["copy"]).run().expect_success();
    migration.step(&["check"]).run().expect_success();
    oracle::assert_same_relationships(&migration.from, &migration.to, Precision::Nanoseconds);
    let stopped = migration.folder.path().join("stopped");
    let fence = format!("touch '{}'", stopped.display());
    let refuse = |code: i32| {
        for step in [
            &["follow"][..],
            &["cutover", "--skip-verify", "--fence-command", &fence],
            &["resync"],
        ] {
            let refused = migration.step(step).run().expect_code(code);
            assert!(refused.stderr.contains("plan"), "{}", refused.stderr);
        }
        assert!(!stopped.exists());
    };
    refuse(2);
    // As an earlier version has planned it.
    migration.change(|state| state.procedure = Procedure::Live);
    refuse(1);
}

#[test]
fn live_procedure_to_spanner_switches_without_a_way_back() {
    if lacks_spanner() {
        return;
    }
    let migration = Migration::between(Datastore::Postgres, Datastore::Spanner);
    touch(&migration.from, "copied");
    let planned = migration.plan();
    assert!(
        planned.text().contains("There is no way back by following"),
        "{}",
        planned.text()
    );
    migration.step(&["copy"]).run().expect_success();
    let following = migration.follow();
    touch(&migration.from, "followed");
    let done = migration.cut_over();
    assert!(
        done.stderr.contains("SWITCH READS AND WRITES"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("there is no way back by following"),
        "{}",
        done.stderr
    );
    following.wait().expect_success();
    let same =
        oracle::assert_same_relationships(&migration.from, &migration.to, Precision::Microseconds);
    assert_eq!(same, 2);
    let refused = migration.step(&["reverse"]).run().expect_code(1);
    assert!(
        refused.stderr.contains("which cannot be followed"),
        "{}",
        refused.stderr
    );
    assert!(!migration.file("reverse/changes.ndjson").exists());
}
