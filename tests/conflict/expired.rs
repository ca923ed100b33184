//! Conflicts that a look at the target does not show: rows that have expired and were not collected
//! yet, and relationships that are twice in the stream.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testdata::Sample;

use super::{ALL, HELD, assert_says, by_hand, counts, dump, line, on_network, with_schema};
use crate::copy::{holding, stream_of};
use crate::support::oracle::{self, Precision};
use crate::support::spicedb::{Datastore, Server};
use crate::support::wait_until;

/// A row that expires at once, and is still in the database when it has.
fn expired(server: &Server, resource: &str, subject: &str) {
    let soon = Command::new("date")
        .args(["-u", "-d", "+2 seconds", "+%FT%TZ"])
        .output();
    let soon = soon.unwrap().stdout;
    let update = json!({
        "op": "create", "resource": resource, "relation": "member", "subject": subject,
        "expires": String::from_utf8(soon).unwrap().trim(),
    });
    oracle::load(server, &format!("{update}\n"));
    wait_until("the row expires", Duration::from_secs(20), || {
        oracle::lookup(server, &format!("{resource}#member@{subject}")).is_none()
    });
}

#[test]
fn expired_row_in_the_way_is_replaced_by_the_live_one() {
    for datastore in [Datastore::Memory, Datastore::Postgres] {
        let target = with_schema(datastore);
        let held = line("tenant/group:held#member@user:a", &Value::Null);
        by_hand(&target, std::slice::from_ref(&held))
            .run()
            .expect_success();
        for (number, policy) in ["fail", "skip", "touch"].into_iter().enumerate() {
            let resource = format!("tenant/group:g{number}");
            expired(&target, &resource, "user:back");
            let live = line(&format!("{resource}#member@user:back"), &Value::Null);
            let load = by_hand(&target, &[held.clone(), live]).args(["--on-conflict", policy]);
            let loaded = load.run().expect_success();
            assert_eq!(counts(&loaded), [0, 1, 1, 0, 0], "{datastore:?}, {policy}");
            let there = oracle::lookup(&target, &format!("{resource}#member@user:back"));
            assert!(!there.unwrap().contains("expires"), "it lives for ever now");
        }
    }
}

#[test]
fn expired_row_among_thousands_costs_none_of_its_neighbours() {
    for datastore in [Datastore::Memory, Datastore::Postgres] {
        let target = holding(Sample::rich(HELD), datastore);
        expired(&target, "tenant/group:g", "user:back");
        let mut lines = String::from_utf8(stream_of(Sample::rich(ALL))).unwrap();
        // Without header and trailer, and with the row that lives again.
        lines = lines
            .lines()
            .filter(|line| line.starts_with("{\"rel"))
            .fold(
                line("tenant/group:g#member@user:back", &Value::Null),
                |lines, line| format!("{lines}{line}\n"),
            );
        let load = by_hand(&target, &[lines]).args(["--on-conflict", "skip"]);
        let [loaded, present, touched, skipped, rejected] = counts(&load.run().expect_success());
        assert_eq!([present, skipped, rejected], [HELD, 0, 0]);
        // Only the one row was written over: a neighbour may have been somebody else's in the meantime.
        assert_eq!([loaded, touched], [ALL - HELD, 1]);
        let whole = holding(Sample::rich(ALL), Datastore::Memory);
        let back = line("tenant/group:g#member@user:back", &Value::Null);
        let back = by_hand(&whole, &[back]).args(["--on-conflict", "fail"]);
        back.run().expect_success();
        oracle::assert_same_relationships(&whole, &target, Precision::Microseconds);
    }
}

#[test]
fn duplicate_in_the_stream_is_settled_by_the_policy() {
    let text = "tenant/document:d#viewer@user:u";
    let (one, other) = (
        line(text, &on_network("10.0.0.0/8")),
        line(text, &Value::Null),
    );
    let third = line("tenant/document:e#viewer@user:u", &Value::Null);
    for datastore in [Datastore::Memory, Datastore::Postgres] {
        let target = with_schema(datastore);
        let same = by_hand(&target, &[one.clone(), third.clone(), one.clone()]).run();
        assert_eq!(counts(&same.expect_success()), [2, 1, 0, 0, 0]);
        assert_eq!(dump(&target).len(), 2);

        let lines = [one.clone(), third.clone(), other.clone()];
        let cases: [(&str, i32, [u64; 5], bool); 2] = [
            ("skip", 3, [2, 0, 0, 1, 0], true),
            // The last one counts.
            ("touch", 0, [1, 1, 1, 0, 0], false),
        ];
        for (policy, code, expected, first) in cases {
            let target = with_schema(datastore);
            let finished = by_hand(&target, &lines).args(["--on-conflict", policy]);
            let finished = finished.run().expect_code(code);
            assert_eq!(counts(&finished), expected, "{datastore:?}, {policy}");
            let there = oracle::lookup(&target, text).unwrap();
            assert_eq!(there.contains("10.0.0.0/8"), first, "{policy}: {there}");
            assert_eq!(dump(&target).len(), 2);
        }
        let target = with_schema(datastore);
        let failed = by_hand(&target, &lines).run().expect_code(1);
        assert_says(&failed, &["line 3: conflict of ", text, "line 1 has "]);
        assert_says(
            &failed,
            &["0 relationships of this stream are on the target"],
        );
        assert!(dump(&target).is_empty());
    }
}
