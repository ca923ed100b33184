//! Records that claim that both ends agree.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use authzed::zedtoken;

use super::{Capture, PATIENCE, applied, apply, ends, mark};
use crate::cutover::transactions;
use crate::support::oracle::{self, Precision, Writers};
use crate::support::spicedb::{Datastore, Server, rows};
use crate::support::{AT_ONCE, figure, repeat, wait_until};

/// Resources in updates of the spool at or before a place that a revision of the source does not see:
/// PostgreSQL gives overlapping transactions one after the other.
fn unseen(spool: &str, pair: &str) -> BTreeSet<String> {
    let at = zedtoken::decode(pair).unwrap();
    let mut resources = BTreeSet::new();
    for line in spool.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let (_, record) = record.as_object().unwrap().iter().next().unwrap();
        let Some(revision) = record["revision"].as_str() else {
            continue;
        };
        let updates = record["updates"].as_array().into_iter().flatten();
        let seen = at
            .revision
            .sees(&zedtoken::decode(revision).unwrap().revision);
        if seen != Some(true) {
            for update in updates {
                let id = update["relationship"]["resource"]["objectId"]
                    .as_str()
                    .unwrap();
                resources.insert(format!(r#""item:{id}""#));
            }
        }
        if revision == pair {
            break;
        }
    }
    resources
}

fn pairs_agree_under_load(datastore: Datastore) {
    let (source, target, folder) = ends(oracle::WRITERS_SCHEMA, datastore);
    let capture = Capture::of(&source, folder.path());
    let flags = ["--rate", "30", "--updates", "20", "--keys", "100"];
    let writers = Writers::until_stopped(&source, &folder.path().join("journal"), &flags);
    wait_until("a backlog", PATIENCE, || transactions(&capture.spool) > 300);
    let file = folder.path().join("position");
    // Not as fast as the writers, so that it coalesces.
    let follow = apply(&target)
        .arg("--spool")
        .arg(&capture.spool)
        .arg("--position")
        .arg(&file);
    let follow = follow.args(["--max-rps", "40"]).spawn();
    // How long they write beside it is what a soak varies.
    std::thread::sleep(Duration::from_secs(u64::from(repeat(8, 60))));
    writers.stop();
    // Then nothing but checkpoints.
    let until = mark(&source);
    let idle = |one: &Value| one["syncPoint"] == true && one["updates"] == 0;
    wait_until("a pair without an update", PATIENCE, || {
        applied(&follow.stdout_so_far()).last().is_some_and(idle)
    });
    follow.signal("TERM");
    let followed = follow.wait().expect_success();
    let told = applied(&followed.stdout);
    let pairs: Vec<&Value> = told.iter().filter(|one| one["syncPoint"] == true).collect();
    assert!(
        told.iter().any(|one| one["coalesced"] == true),
        "there was a backlog"
    );
    let at = |pair: &Value| {
        pair["at"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    let mut longest = Duration::ZERO;
    for two in pairs.windows(2) {
        longest = longest.max(at(two[1]).duration_since(at(two[0])).unsigned_abs());
    }
    figure(&format!("{} pairs, at most {longest:?} apart", pairs.len()));
    // One is due every 10 s; the rest is for a busy machine.
    assert!(longest < AT_ONCE, "{longest:?}");
    let idle = pairs.last().unwrap();
    assert_eq!(idle["updates"], 0, "a pair while only checkpoints came");
    let spool = std::fs::read_to_string(&capture.spool).unwrap();
    let (mut compared, mut aside) = (0, 0);
    for pair in pairs
        .iter()
        .step_by(pairs.len() / repeat(8, 40) as usize + 1)
        .chain([idle])
    {
        let name = |end: &str| pair[end].as_str().unwrap();
        let unseen = unseen(&spool, name("sourceRevision"));
        let dump = |server: &Server, at: &str| -> Vec<String> {
            let dump = oracle::dump_at(server, at, Precision::Microseconds);
            let counts = |line: &String| !unseen.iter().any(|resource| line.contains(resource));
            dump.into_iter().filter(counts).collect()
        };
        let (left, right) = (
            dump(&source, name("sourceRevision")),
            dump(&target, name("targetRevision")),
        );
        oracle::assert_same_lines("source", &left, "target", &right);
        compared += left.len();
        aside += unseen.len();
    }
    figure(&format!(
        "{compared} relationships compared, {aside} set aside"
    ));
    assert!(compared > 500 && aside < compared / 2);
    let last = apply(&target)
        .arg("--spool")
        .arg(&capture.spool)
        .arg("--position")
        .arg(&file);
    last.args(["--until", &until]).run().expect_success();
    wait_until("both ends have as many", PATIENCE, || rows(&source) > 0);
    oracle::assert_same_relationships(&source, &target, Precision::Microseconds);
}

#[test]
fn pairs_of_postgres_and_postgres_agree_but_for_what_overlaps() {
    pairs_agree_under_load(Datastore::Postgres);
}

#[test]
fn pairs_of_postgres_and_memory_agree_but_for_what_overlaps() {
    pairs_agree_under_load(Datastore::Memory);
}
