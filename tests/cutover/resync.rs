//! A target made equal again without being emptied: killed on the way, under writes, and after its
//! source has forgotten changes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use spice_migrate::phase::Phase;

use super::{Migration, PATIENCE, children, delete, lives, precision, relationship, touch};
use crate::support::oracle::{self, Writers};
use crate::support::running::Running;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{figure, repeat, wait_until};

/// How many relationships no writer touches.
const STILL: u32 = 9_000;

fn still() -> Vec<String> {
    (0..STILL)
        .map(|n| relationship(&format!("still-{n}")))
        .collect()
}

/// A third of them missing, and as many that the source does not hold.
fn drift(target: &Server) {
    let line = |op: &str, id: String| {
        relationship(&id).replacen('{', &format!(r#"{{"op":"{op}","#), 1) + "\n"
    };
    let missing = (0..STILL)
        .step_by(3)
        .map(|n| line("delete", format!("still-{n}")));
    let extra = (0..STILL / 3).map(|n| line("touch", format!("extra-{n}")));
    oracle::load(target, &missing.chain(extra).collect::<String>());
}

/// How many of a third that are missing, and of as many extra, are left.
fn left_of_drift(target: &Server) -> usize {
    let there = oracle::dump(target, oracle::Precision::Microseconds);
    let count = |name: &str| there.iter().filter(|line| line.contains(name)).count();
    count("item:extra-") + STILL as usize - count("item:still-")
}

/// Writers, the relationships that they leave alone, and a target that has drifted from them.
fn drifted(seconds: u32) -> (Migration, Writers) {
    let migration = Migration::between(Datastore::Postgres, Datastore::Postgres);
    oracle::load_bulk(&migration.from, &(still().join("\n") + "\n"));
    let journal = migration.folder.path().join("journal");
    let seconds = seconds.to_string();
    // Over 1,000 a second in a soak; `make test` runs other tests beside this.
    let updates = repeat(60, 90).to_string();
    let load = ["--rate", "8", "--updates", &updates, "--seconds", &seconds];
    let writers = Writers::start(&migration.from, &journal, &load);
    migration.plan_and_copy();
    (migration, writers)
}

/// Follows until what the writers have written, and nothing else, is on the target.
fn equal_in_the_end(migration: &Migration, writers: Writers) {
    let following = migration.follow();
    let summary = writers.finish();
    figure(&format!("written meanwhile: {summary}"));
    let precision = precision(Datastore::Postgres, Datastore::Postgres);
    let mut expected = oracle::expected(&migration.folder.path().join("journal"), precision);
    expected.extend(still());
    expected.sort();
    let mut there = Vec::new();
    let equal = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until("the target holds all", PATIENCE, || {
            there = oracle::dump(&migration.to, precision);
            there == expected
        });
    }));
    if equal.is_err() {
        oracle::assert_same_lines("the journal", &expected, "the target", &there);
    }
    following.signal("TERM");
    following.wait();
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Whether a resync has come to a moment.
type IsThere = fn(&Migration, &Running) -> bool;

/// When a resync is killed.
const MOMENTS: [(&str, IsThere); 5] = [
    ("it has begun", |migration, _| {
        matches!(migration.saved().phase, Phase::Resyncing { .. })
    }),
    ("it has archived", |_, running| {
        running
            .stderr_so_far()
            .contains("what was captured until now is in")
    }),
    ("it captures", |migration, running| {
        running
            .stderr_so_far()
            .contains("what was captured until now is in")
            && !text(&migration.file("changes.ndjson")).is_empty()
    }),
    ("it writes", |migration, _| {
        !text(&migration.file("applied.ndjson")).is_empty()
    }),
    ("it has written", |_, running| {
        running.stderr_so_far().contains("spice-apply: applied")
    }),
];

#[test]
fn resync_killed_at_any_moment_resumes_and_ends_equal() {
    for round in 0..repeat(1, 4) {
        // Each waits 30 s after one that was killed while it wrote.
        let moments = if repeat(0, 1) == 1 {
            &MOMENTS[..]
        } else {
            &MOMENTS[2..4]
        };
        let (migration, writers) = drifted(repeat(25, 90));
        drift(&migration.to);
        // One call a second, so that it takes some time.
        let slow = ["resync", "--max-rps", "1"];
        for (name, is_there) in moments {
            let running = migration.step(&slow).spawn();
            wait_until(name, PATIENCE, || is_there(&migration, &running));
            running.kill9();
            assert_eq!(running.wait().signal(), Some(9), "killed when {name}");
            // What it has started ends by itself, soon after it.
            let mut followed = migration.step(&["follow"]).run();
            wait_until("its programs have ended", PATIENCE, || {
                if followed.code() == Some(75) {
                    followed = migration.step(&["follow"]).run();
                }
                followed.code() != Some(75)
            });
            let followed = followed.expect_code(2);
            assert!(
                followed.stderr.contains("a resync is not finished"),
                "{}",
                followed.stderr
            );
            if *name == "it writes" {
                let left = left_of_drift(&migration.to);
                let all = 2 * STILL as usize / 3;
                assert!(left > 0 && left < all, "{left} of {all} left when {name}");
            }
        }
        let resynced = migration.step(&["resync"]).run().expect_success();
        assert!(
            resynced.stderr.contains("waiting 30 s"),
            "{}",
            resynced.stderr
        );
        assert_eq!(left_of_drift(&migration.to), 0);
        equal_in_the_end(&migration, writers);
        figure(&format!("round {round}: killed {} times", moments.len()));
    }
}

/// Its programs end with it, and the next resync waits for what they may have written last.
#[test]
fn resync_that_alone_is_killed_takes_its_programs_along() {
    let (migration, writers) = drifted(5);
    writers.finish();
    drift(&migration.to);
    let running = migration.step(&["resync", "--max-rps", "1"]).spawn();
    wait_until("it writes", PATIENCE, || {
        !text(&migration.file("applied.ndjson")).is_empty()
    });
    let programs = children(running.pid());
    assert!(programs.len() >= 2, "{programs:?}");
    let kill = format!("kill -KILL {}", running.pid());
    let status = Command::new("sh").args(["-c", &kill]).status();
    assert!(status.unwrap().success());
    wait_until("its programs have ended", PATIENCE, || {
        !programs.iter().any(|pid| lives(*pid))
    });
    assert_eq!(running.wait().signal(), Some(9));
    let resynced = migration.step(&["resync"]).run().expect_success();
    assert!(
        resynced.stderr.contains("waiting 30 s") && resynced.stderr.contains("was made equal to"),
        "{}",
        resynced.stderr
    );
    assert_eq!(left_of_drift(&migration.to), 0);
}

#[test]
fn resync_under_load_ends_equal_each_time() {
    for _ in 0..repeat(1, 20) {
        let (migration, writers) = drifted(12);
        let following = migration.follow();
        drift(&migration.to);
        migration.step(&["resync"]).run().expect_success();
        following.wait().expect_success();
        assert_eq!(left_of_drift(&migration.to), 0);
        equal_in_the_end(&migration, writers);
    }
}

#[test]
fn lost_history_is_repaired_by_a_resync() {
    let migration = Migration::between(Datastore::Postgres, Datastore::Postgres);
    touch(&migration.from, "deleted-unseen");
    migration.plan_and_copy();
    let following = migration.follow();
    following.signal("TERM");
    following.wait();
    // Nothing captures now.
    migration.from.restart_with(&[
        "--datastore-revision-quantization-interval=1s",
        "--datastore-gc-window=5s",
        "--datastore-gc-interval=1s",
    ]);
    delete(&migration.from, "deleted-unseen");
    touch(&migration.from, "written-unseen");
    wait_until("it is forgotten", PATIENCE, || {
        let left = "SELECT count(*) FROM relation_tuple WHERE object_id = 'deleted-unseen'";
        migration.from.sql(left).trim() == "0"
    });
    // The transactions go with it, a moment later.
    std::thread::sleep(Duration::from_secs(3));
    let lost = migration.step(&["follow"]).run().expect_code(4);
    assert!(lost.stderr.contains("history lost"), "{}", lost.stderr);
    assert!(
        lost.stderr.contains("then: ") && lost.stderr.contains("resync"),
        "{}",
        lost.stderr
    );
    // Nothing was applied after the gap: the target is as it was.
    let name = |id: &str| format!("item:{id}#holder@user:somebody");
    let holds = |id: &str| oracle::lookup(&migration.to, &name(id)).is_some();
    assert!(holds("deleted-unseen") && !holds("written-unseen"));
    migration.from.restart_with(&["--datastore-gc-window=1h"]);
    // What is gone does not come back by that.
    migration.step(&["follow"]).run().expect_code(4);
    migration.step(&["resync"]).run().expect_success();
    assert!(!holds("deleted-unseen") && holds("written-unseen"));
    let following = migration.follow();
    touch(&migration.from, "written-later");
    wait_until("it is followed again", PATIENCE, || holds("written-later"));
    let verified = migration.step(&["verify"]).run().expect_success();
    assert!(
        verified.stderr.contains("proven equal"),
        "{}",
        verified.stderr
    );
    oracle::assert_same_relationships(
        &migration.from,
        &migration.to,
        precision(Datastore::Postgres, Datastore::Postgres),
    );
    following.signal("TERM");
    following.wait();
}
