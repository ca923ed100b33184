//! What is kept of a migration: refused where it is damaged or another one's, and never older than the
//! switch.

use std::path::Path;

use spice_migrate::phase::{Phase, Procedure};
use spice_migrate::state::{End, Kind, State};
use spice_migrate::store::Store;

use super::{Migration, PATIENCE, delete, fenced, relationship, touch};
use crate::support::oracle::{self, Precision};
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::spicedb::Datastore;
use crate::support::{folder, wait_until};

fn run(state: &Path, arguments: &[&str]) -> Finished {
    Program::new("spice-migrate")
        .arg("--state")
        .arg(state)
        .args(arguments)
        .run()
}

fn planned() -> State {
    let end = |context: &str| End {
        context: context.to_owned(),
        datastore_id: Some(format!("id of {context}")),
        kind: Kind("postgres".to_owned()),
    };
    State::planned(Procedure::Live, end("old"), end("new"))
}

/// Every step that a state allows to begin.
const STEPS: [&[&str]; 5] = [
    &["status"],
    &["copy"],
    &["follow"],
    &["cutover"],
    &["abort"],
];

#[test]
fn damaged_newer_or_foreign_state_is_refused_and_stays() {
    let folder = folder();
    let store = Store::new(folder.path());
    store.save(planned()).unwrap();
    let file = folder.path().join("state.json");
    let good = std::fs::read_to_string(&file).unwrap();
    let damaged = good.replace("\"planned\"", "\"plannec\"");
    let altered = good.replace("id of old", "id of odl");
    let cut = good[..good.len() / 2].to_owned();
    let newer = good.replace("\"version\": 1", "\"version\": 9");
    for (text, code, what) in [
        (damaged, 65, "is damaged"),
        (altered, 65, "checksum"),
        (cut, 65, "is damaged"),
        (newer, 2, "newer spice-migrate"),
    ] {
        std::fs::write(&file, &text).unwrap();
        for step in STEPS {
            let refused = run(folder.path(), step).expect_code(code);
            assert!(refused.stderr.contains(what), "{}", refused.stderr);
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
    std::fs::write(&file, &good).unwrap();
    let other = ["plan", "--from", "old", "--to", "another"];
    let refused = run(folder.path(), &other).expect_code(2);
    assert!(
        refused
            .stderr
            .contains("is the folder of the migration from old to new"),
        "{}",
        refused.stderr
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), good);
}

#[test]
fn folder_of_the_former_script_is_refused_with_a_way_on() {
    let folder = folder();
    std::fs::write(
        folder.path().join("ends"),
        "procedure=live\nfrom=old\nto=new\n",
    )
    .unwrap();
    for step in [
        &["status"][..],
        &["copy"],
        &["plan", "--from", "old", "--to", "new"],
    ] {
        let refused = run(folder.path(), step).expect_code(2);
        for word in ["scripts/migrate", "--state"] {
            assert!(refused.stderr.contains(word), "{}", refused.stderr);
        }
    }
    assert!(!folder.path().join("state.json").exists());
}

#[test]
fn servers_that_were_not_planned_are_refused() {
    let migration = Migration::between(Datastore::Memory, Datastore::Memory).settling("0s");
    migration.plan();
    migration.change(|state| {
        state.target.datastore_id = Some("another".to_owned());
        let since = "2026-01-01T00:00:00Z".parse().unwrap();
        state.phase = Phase::Copying { since };
    });
    let before = std::fs::read(migration.file("state.json")).unwrap();
    let refused = migration.step(&["copy"]).run().expect_code(2);
    assert!(
        refused.stderr.contains("not the planned ends"),
        "{}",
        refused.stderr
    );
    assert_eq!(std::fs::read(migration.file("state.json")).unwrap(), before);
}

/// As a loss of power leaves the folder that lost any number of the last writes of its state.
#[test]
fn no_lost_write_of_the_state_lets_a_step_undo_the_switch() {
    let migration = Migration::between(Datastore::Postgres, Datastore::Postgres);
    touch(&migration.from, "revoked-later");
    migration.plan_and_copy();
    let follow = migration.follow();
    touch(&migration.from, "kept");
    migration.cut_over();
    follow.wait().expect_success();
    // What a copy, a follow or a resync would bring back.
    delete(&migration.to, "revoked-later");
    let history = std::fs::read_to_string(migration.file("history.ndjson")).unwrap();
    let states: Vec<&str> = history.lines().collect();
    let phase = |text: &str| serde_json::from_str::<State>(text).unwrap().phase;
    let names: Vec<Phase> = states.iter().map(|text| phase(text)).collect();
    for is_there in [
        |phase: &Phase| *phase == Phase::Planned {},
        |phase: &Phase| matches!(phase, Phase::Proven { .. }),
        |phase: &Phase| matches!(phase, Phase::Following { .. }),
        |phase: &Phase| matches!(phase, Phase::Fenced { .. }),
        |phase: &Phase| matches!(phase, Phase::MarkerWritten { .. }),
        |phase: &Phase| matches!(phase, Phase::Drained { .. }),
        |phase: &Phase| matches!(phase, Phase::Switched { .. }),
    ] {
        assert!(names.iter().any(is_there), "{names:?}");
    }
    for text in &states {
        for step in [
            &["copy", "--restart"][..],
            &["copy"],
            &["follow"],
            &["resync"],
            &["plan"],
        ] {
            std::fs::write(migration.file("state.json"), text).unwrap();
            let refused = migration.step(step).run().expect_code(2);
            assert!(
                refused.stderr.contains("was ordered"),
                "{step:?} in {:?}: {}",
                phase(text),
                refused.stderr
            );
        }
    }
    let there = oracle::dump(&migration.to, Precision::Microseconds);
    oracle::assert_same_lines("the target", &[relationship("kept")], "it", &there);
    // Without any state the record of the switch alone keeps every step out.
    std::fs::remove_file(migration.file("state.json")).unwrap();
    migration.step(&["copy", "--restart"]).run().expect_code(65);
    let (from, to) = (migration.from.context(), migration.to.context());
    let plan = ["plan", "--from", from, "--to", to];
    migration.step(&plan).run().expect_code(65);
}

#[test]
fn switch_is_recorded_before_it_is_announced() {
    for _ in 0..crate::support::repeat(2, 10) {
        let migration = Migration::between(Datastore::Memory, Datastore::Memory).settling("0s");
        migration.plan_and_copy();
        let follow = migration.follow();
        let mut cutover = migration.cutover(&[]);
        fenced(&mut cutover);
        cutover.wait_for_stderr("SWITCH READS AND WRITES", PATIENCE);
        cutover.kill9();
        assert!(migration.switch().is_some());
        assert!(migration.file("switch.json").exists());
        drop(cutover);
        follow.wait().expect_success();
    }
}

#[test]
fn killed_follow_takes_its_programs_along_and_resumes() {
    let migration = Migration::between(Datastore::Postgres, Datastore::Postgres);
    migration.plan_and_copy();
    let follow = migration.follow();
    let programs = super::children(follow.pid());
    assert_eq!(programs.len(), 2, "{programs:?}");
    let kill = format!("kill -KILL {}", follow.pid());
    let status = std::process::Command::new("sh")
        .args(["-c", &kill])
        .status();
    assert!(status.unwrap().success());
    // At once: it waits for what still ends.
    let again = migration.step(&["follow"]).timeout(PATIENCE).spawn();
    wait_until("its programs have ended", PATIENCE, || {
        !programs.iter().any(|pid| super::lives(*pid))
    });
    touch(&migration.from, "later");
    wait_until("it is followed again", PATIENCE, || {
        oracle::dump(&migration.to, Precision::Microseconds).contains(&relationship("later"))
    });
    again.signal("TERM");
    assert_eq!(again.wait().signal(), Some(15));
}
