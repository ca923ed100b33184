//! A migration made of what `--print` prints, pasted into bash step by step.

use super::{Migration, PATIENCE, delete, relationship, touch};
use crate::support::oracle::{self, Precision, Writers};
use crate::support::program::Program;
use crate::support::spicedb::Datastore;
use crate::support::wait_until;

impl Migration {
    /// A step as it is printed, as a script of bash.
    fn printed(&self, arguments: &[&str]) -> Program {
        let print = [arguments, &["--print"]].concat();
        let printed = self.step(&print).run().expect_success();
        let script = printed.text().to_owned();
        assert!(script.lines().all(|line| !line.ends_with(' ')), "{script}");
        Program::at(std::path::Path::new("bash"))
            .args(["-c", &script])
            .timeout(PATIENCE)
    }
}

#[test]
fn pasted_plan_ends_beside_writers_that_never_pause() {
    let migration = Migration::between(Datastore::Memory, Datastore::Memory);
    let journal = migration.folder.path().join("journal");
    let flags = ["--writers", "4", "--rate", "40", "--updates", "1"];
    let writers = Writers::until_stopped(&migration.from, &journal, &flags);
    wait_until("they write", PATIENCE, || {
        std::fs::read_to_string(&journal).is_ok_and(|text| text.lines().count() > 20)
    });
    let (from, to) = (migration.from.context(), migration.to.context());
    let plan = ["plan", "--from", from, "--to", to];
    migration.printed(&plan).run().expect_success();
    writers.stop();
}

#[test]
fn pasted_steps_move_everything_and_back() {
    let migration = Migration::between(Datastore::Postgres, Datastore::Postgres);
    for id in ["kept", "revoked"] {
        touch(&migration.from, id);
    }
    let (from, to) = (migration.from.context(), migration.to.context());
    let plan = ["plan", "--from", from, "--to", to];
    migration.printed(&plan).run().expect_success();
    assert!(
        !migration.file("state.json").exists(),
        "printing keeps nothing"
    );
    migration.plan();
    let state = std::fs::read(migration.file("state.json")).unwrap();

    migration.printed(&["copy"]).run().expect_success();
    let follow = migration.printed(&["follow", "--heartbeat", "1s"]).spawn();
    touch(&migration.from, "followed");
    delete(&migration.from, "revoked");
    let holds = |server, id: &str| {
        oracle::dump(server, Precision::Microseconds).contains(&relationship(id))
    };
    wait_until("it is on the target", PATIENCE, || {
        holds(&migration.to, "followed") && !holds(&migration.to, "revoked")
    });
    let applied = migration.file("applied.ndjson");
    wait_until("there is a sync point", PATIENCE, || {
        std::fs::read_to_string(&applied).is_ok_and(|text| text.contains("syncPoint"))
    });
    migration.printed(&["status"]).run().expect_success();
    migration
        .printed(&["verify", "--check-sample", "20"])
        .run()
        .expect_success();
    let cutover = migration.printed(&["cutover", "--fence-command", "true"]);
    let cutover = cutover.run().expect_success();
    assert!(
        cutover.text().contains("SWITCH READS AND WRITES TO"),
        "{}",
        cutover.text()
    );
    follow.wait().expect_success();
    oracle::assert_same_relationships(&migration.from, &migration.to, Precision::Microseconds);

    let reverse = migration.printed(&["reverse", "--heartbeat", "1s"]).spawn();
    touch(&migration.to, "new-on-new");
    wait_until("it has come back", PATIENCE, || {
        holds(&migration.from, "new-on-new")
    });
    // As a terminal does it.
    reverse.signal("TERM");
    reverse.wait();
    oracle::assert_same_relationships(&migration.from, &migration.to, Precision::Microseconds);

    // A target that has drifted.
    delete(&migration.to, "kept");
    touch(&migration.to, "extra");
    migration.printed(&["resync"]).run().expect_success();
    oracle::assert_same_relationships(&migration.from, &migration.to, Precision::Microseconds);
    assert_eq!(std::fs::read(migration.file("state.json")).unwrap(), state);
}

#[test]
fn ordered_switch_is_not_undone_by_pasted_steps() {
    let migration = Migration::between(Datastore::Postgres, Datastore::Postgres);
    touch(&migration.from, "kept");
    migration.plan_and_copy();
    let following = migration.follow();
    touch(&migration.from, "followed");
    let flags = ["cutover", "--skip-verify", "--fence-command", "true"];
    wait_until("it is switched", PATIENCE, || {
        migration.step(&flags).run().code() == Some(0)
    });
    following.wait().expect_success();
    for step in [
        &["copy", "--restart"][..],
        &["follow"],
        &["resync"],
        &["cutover"],
    ] {
        let refused = migration.step(&[step, &["--print"]].concat()).run();
        let refused = refused.expect_code(2);
        assert_eq!(refused.text(), "", "{step:?}");
        assert!(refused.stderr.contains("reverse"), "{}", refused.stderr);
    }
    // The way back can be pasted, though this cutover was run.
    let reverse = migration.printed(&["reverse", "--heartbeat", "1s"]).spawn();
    touch(&migration.to, "new-on-new");
    wait_until("it has come back", PATIENCE, || {
        let there = oracle::dump(&migration.from, Precision::Microseconds);
        there.contains(&relationship("new-on-new"))
    });
    reverse.signal("TERM");
    reverse.wait();
}
