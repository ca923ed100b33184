//! A target that holds something already: what is the same, what differs and what only seems to be
//! gone. Sets are compared as the independent client sees them.

mod clone;
mod expired;
mod limits;
mod refused;
mod rejects;
mod restore;
mod schema;
mod sealed;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testdata::Sample;

use crate::copy::{holding, import, stream_of, summary};
use crate::support::oracle::{self, Precision};
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::spicedb::{Datastore, Server};

const ALL: u64 = 5_285;
const HELD: u64 = 2_599;

fn dump(server: &Server) -> Vec<String> {
    oracle::dump(server, Precision::Microseconds)
}

/// A line of a stream, from `resource:id#relation@subject:id` and the fields beside these.
fn line(text: &str, more: &Value) -> String {
    let (resource, rest) = text.split_once('#').unwrap();
    let (relation, subject) = rest.split_once('@').unwrap();
    let object = |text: &str| {
        let (object_type, id) = text.split_once(':').unwrap();
        json!({"objectType": object_type, "objectId": id})
    };
    let mut relationship = json!({
        "resource": object(resource),
        "relation": relation,
        "subject": {"object": object(subject)},
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        relationship[name] = value.clone();
    }
    format!("{}\n", json!({"relationship": relationship}))
}

/// The caveat of the sample's schema, with this as the network.
fn on_network(cidr: impl Into<Value>) -> Value {
    json!({"optionalCaveat": {"caveatName": "on_network", "context": {"cidr": cidr.into()}}})
}

/// `spice-import` of lines made by hand.
fn by_hand(server: &Server, lines: &[String]) -> Program {
    import(server).arg("--no-trailer").input(lines.concat())
}

/// The counts of a summary, in the order loaded, present, touched, skipped, rejected.
#[track_caller]
fn counts(finished: &Finished) -> [u64; 5] {
    let summary = summary(finished);
    let names = ["loaded", "present", "touched", "skipped", "rejected"];
    let counts = names.map(|name| summary[name].as_u64().unwrap());
    assert_eq!(summary["relationships"], counts.iter().sum::<u64>());
    counts
}

/// Fails unless stderr has all of these.
#[track_caller]
fn assert_says(finished: &Finished, words: &[&str]) {
    for word in words {
        let stderr: String = finished.stderr.chars().take(2_000).collect();
        assert!(
            finished.stderr.contains(word),
            "{word:?} is not in: {stderr}"
        );
    }
}

/// An empty server with the sample's schema.
fn with_schema(datastore: Datastore) -> Server {
    let server = Server::start(datastore);
    oracle::write_schema(&server, testdata::SCHEMA);
    server
}

/// `resource#relation@subject` of a line of the oracle's.
fn name(line: &str) -> String {
    let line: Value = serde_json::from_str(line).unwrap();
    let part = |name: &str| line[name].as_str().unwrap().to_owned();
    format!(
        "{}#{}@{}",
        part("resource"),
        part("relation"),
        part("subject")
    )
}

#[test]
fn target_that_holds_a_part_is_completed_whatever_the_policy() {
    let expected = dump(&holding(Sample::rich(ALL), Datastore::Memory));
    for (datastore, policy) in [
        (Datastore::Memory, "skip"),
        (Datastore::Memory, "touch"),
        (Datastore::Memory, "fail"),
        (Datastore::Postgres, "skip"),
        (Datastore::MySql, "skip"),
    ] {
        // MySQL keeps neither fractions of seconds nor all of Unicode.
        let sample = match datastore {
            Datastore::MySql => Sample::portable,
            _ => Sample::rich,
        };
        let target = holding(sample(HELD), datastore);
        let again = || {
            import(&target)
                .args(["--on-conflict", policy])
                .input(stream_of(sample(ALL)))
                .run()
                .expect_success()
        };
        assert_eq!(counts(&again()), [ALL - HELD, HELD, 0, 0, 0], "{policy}");
        if datastore == Datastore::MySql {
            assert_eq!(dump(&target).len() as u64, ALL);
        } else {
            oracle::assert_same_lines("expected", &expected, policy, &dump(&target));
        }
        assert_eq!(counts(&again()), [0, ALL, 0, 0, 0], "{policy}, again");
    }
}

#[test]
fn target_that_is_not_empty_is_refused_without_a_policy() {
    let target = holding(Sample::rich(10), Datastore::Memory);
    let (before, schema) = (dump(&target), oracle::read_schema(&target));
    let mut newer = Sample::rich(ALL).header();
    newer.schema = Some(format!("{}\ndefinition newer {{}}", testdata::SCHEMA));
    let precision = spice_record::ExpiryPrecision::default();
    let stream = spice_record::SnapshotWriter::create(Vec::new(), newer, precision).unwrap();
    let stream = stream.finish().unwrap().1;
    for flags in [&["--schema", "write"][..], &["--dry-run"], &[]] {
        let finished = import(&target).args(flags).input(stream.clone()).run();
        let finished = finished.expect_code(2);
        let words = [
            "already holds relationships",
            target.endpoint(),
            "--on-conflict",
        ];
        assert_says(&finished, &words);
        assert!(finished.stdout.is_empty());
    }
    oracle::assert_same_lines("before", &before, "after", &dump(&target));
    assert_eq!(oracle::read_schema(&target), schema);
}

/// A target that holds 2,599 of 5,285, ten of them with another caveat context; also these ten, and
/// the line in the stream of the first of them.
fn with_ten_that_differ(datastore: Datastore) -> (Server, BTreeSet<String>, usize) {
    let target = holding(Sample::rich(HELD), datastore);
    let before: BTreeSet<String> = dump(&target).into_iter().collect();
    let caveated = before
        .iter()
        .filter(|line| line.contains("\"caveat\":\"on_network\"") && !line.contains("expires"));
    let changed = caveated.step_by(7).take(10).map(|line| {
        let mut update: Value = serde_json::from_str(line).unwrap();
        update["context"] = json!({"cidr": "192.0.2.0/24"});
        update["op"] = "touch".into();
        format!("{update}\n")
    });
    oracle::load(&target, &changed.collect::<String>());
    let after: BTreeSet<String> = dump(&target).into_iter().collect();
    let ten: BTreeSet<String> = after.difference(&before).cloned().collect();
    assert_eq!(ten.len(), 10);
    let names: BTreeSet<String> = ten.iter().map(|line| name(line)).collect();
    let stream = String::from_utf8(stream_of(Sample::rich(ALL))).unwrap();
    let first = stream.lines().position(|line| {
        let relationship = &serde_json::from_str::<Value>(line).unwrap()["relationship"];
        let part = |path: &str| {
            relationship
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or("")
        };
        let on = match part("/subject/optionalRelation") {
            "" => String::new(),
            relation => format!("#{relation}"),
        };
        names.contains(&format!(
            "{}:{}#{}@{}:{}{on}",
            part("/resource/objectType"),
            part("/resource/objectId"),
            part("/relation"),
            part("/subject/object/objectType"),
            part("/subject/object/objectId"),
        ))
    });
    (target, ten, first.unwrap() + 1)
}

#[test]
fn ten_that_differ_are_skipped_touched_or_end_the_import() {
    let expected = dump(&holding(Sample::rich(ALL), Datastore::Memory));
    for datastore in [Datastore::Memory, Datastore::Postgres] {
        let (target, ten, first) = with_ten_that_differ(datastore);
        let before = dump(&target);
        let load = |policy: &str| {
            import(&target)
                .args(["--on-conflict", policy])
                .input(stream_of(Sample::rich(ALL)))
                .run()
        };

        let failed = load("fail").expect_code(1);
        assert!(failed.stdout.is_empty());
        let at = format!("line {first}: conflict of ");
        assert_says(
            &failed,
            &[
                &at,
                "another caveat context",
                "are known to be on the target",
            ],
        );
        oracle::assert_same_lines("before", &before, "fail", &dump(&target));

        let skipped = load("skip").expect_code(3);
        assert_eq!(counts(&skipped), [ALL - HELD, HELD - 10, 0, 10, 0]);
        assert_eq!(skipped.stderr.matches(": skipped ").count(), 10);
        for line in &ten {
            assert_says(&skipped, &[&format!("skipped {}", name(line))]);
        }
        let words = [
            "the target holds it with another caveat context",
            "warning: imported, but not all: 5275 relationships of this stream are on the target",
            "(2686 loaded now, 2589 there before), 10 skipped",
        ];
        assert_says(&skipped, &words);
        let names: BTreeSet<String> = ten.iter().map(|line| name(line)).collect();
        let others = expected.iter().filter(|line| !names.contains(&name(line)));
        let mut kept: Vec<String> = others.chain(&ten).cloned().collect();
        kept.sort();
        oracle::assert_same_lines("expected", &kept, "skip", &dump(&target));

        let touched = load("touch").expect_success();
        assert_eq!(counts(&touched), [0, ALL - 10, 10, 0, 0]);
        oracle::assert_same_lines("expected", &expected, "touch", &dump(&target));
    }
}
