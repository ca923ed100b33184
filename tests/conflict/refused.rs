//! Values that the target does not take: each is named and kept, and its neighbours arrive.

use std::time::Duration;

use serde_json::{Value, json};

use super::rejects::{rejects_in, values};
use super::{assert_says, by_hand, counts, dump, line, on_network, with_schema};
use crate::support::oracle;
use crate::support::spicedb::{Datastore, Server};

/// 500 good lines with these in the middle.
fn among_good_ones(bad: &[String]) -> Vec<String> {
    let good = |number| {
        line(
            &format!("tenant/document:d{number}#owner@user:u"),
            &Value::Null,
        )
    };
    let mut lines: Vec<String> = (0..500).map(good).collect();
    lines.splice(250..250, bad.iter().cloned());
    lines
}

#[test]
fn values_that_the_target_cannot_take_are_named_one_by_one() {
    let viewer = |id: &str| format!("tenant/document:{id}#viewer@user:u");
    let caveat = |context: Value| json!({"optionalCaveat": {"caveatName": "on_network", "context": context}});
    let wrong_type = line(&viewer("wrong"), &caveat(json!({"cidr": 5})));
    let unknown = line(&viewer("unknown"), &caveat(json!({"cider": "10.0.0.0/8"})));
    let no_caveat = line(
        &viewer("none"),
        &json!({"optionalCaveat": {"caveatName": "nosuch"}}),
    );
    let not_allowed = line("tenant/document:d#owner@user:*", &Value::Null);
    let permission = line("tenant/document:d#view@user:u", &Value::Null);
    let no_type = line("tenant/nosuch:d#view@user:u", &Value::Null);
    let zero = line(&viewer("zero"), &on_network("10.0.0.0/8\u{0}"));
    let all = [
        (
            &wrong_type,
            "wrong#viewer@user:u[on_network]: could not convert context parameter `cidr`",
        ),
        (
            &unknown,
            "unknown#viewer@user:u[on_network]: unknown parameter `cider`",
        ),
        (&no_caveat, "none#viewer@user:u[nosuch]: "),
        (&not_allowed, "d#owner@user:*: "),
        (&permission, "d#view@user:u: "),
        (&no_type, "tenant/nosuch:d#view@user:u: "),
        (
            &zero,
            "zero#viewer@user:u[on_network]: an internal error occurred while accessing the \
             datastore: perhaps its database cannot hold a value",
        ),
    ];
    for (datastore, refused) in [(Datastore::Memory, &all[..6]), (Datastore::Postgres, &all)] {
        let target = with_schema(datastore);
        let bad: Vec<String> = refused.iter().map(|(line, _)| (*line).clone()).collect();
        let lines = among_good_ones(&bad);
        let folder = crate::support::folder();
        let rejects = rejects_in(&folder);
        let finished = by_hand(&target, &lines).args(["--rejects", &rejects]);
        let finished = finished.run().expect_code(3);
        assert_eq!(counts(&finished), [500, 0, 0, 0, refused.len() as u64]);
        for (index, (_, words)) in refused.iter().enumerate() {
            let at = format!("line {}: refused ", 251 + index);
            assert_says(&finished, &[&at, words]);
        }
        assert_eq!(dump(&target).len(), 500);
        let kept = std::fs::read_to_string(&rejects).unwrap();
        assert_eq!(values(&kept), values(&bad.concat()));
        // One of them alone ends an import that may reject nothing.
        for (line, words) in refused {
            let finished = by_hand(&target, std::slice::from_ref(line))
                .args(["--on-conflict", "touch"])
                .run()
                .expect_code(1);
            assert_says(
                &finished,
                &[
                    "line 1: the target refuses ",
                    words,
                    "hint: --rejects FILE --on-conflict touch",
                ],
            );
        }
        assert_eq!(dump(&target).len(), 500);
    }
    // What memory takes and PostgreSQL does not.
    let target = with_schema(Datastore::Memory);
    by_hand(&target, &[zero]).run().expect_success();
}

#[test]
fn context_above_the_limit_is_imported_but_not_touched() {
    let text = "tenant/document:large#viewer@user:u";
    let large = line(text, &on_network("x".repeat(30_000)));
    for datastore in [Datastore::Memory, Datastore::Postgres] {
        let target = with_schema(datastore);
        by_hand(&target, std::slice::from_ref(&large))
            .run()
            .expect_success();
        assert!(oracle::lookup(&target, text).unwrap().len() > 30_000);

        // 3,000 rows that differ on the target, one of them too large to be written over.
        let viewer = |number| format!("tenant/document:d{number}#viewer@user:u");
        let rows = |more: &Value| -> Vec<String> {
            let mut rows: Vec<String> = (0..3_000).map(|n| line(&viewer(n), more)).collect();
            rows.insert(1_500, large.clone());
            rows
        };
        let target = with_schema(datastore);
        let mut there = rows(&Value::Null);
        there[1_500] = line(text, &Value::Null);
        by_hand(&target, &there).run().expect_success();
        let folder = crate::support::folder();
        let rejects = rejects_in(&folder);
        let touching = by_hand(&target, &rows(&on_network("10.0.0.0/8")));
        let touching = touching.args(["--on-conflict", "touch", "--rejects", &rejects]);
        let finished = touching.run().expect_code(3);
        assert_eq!(counts(&finished), [0, 0, 3_000, 0, 1]);
        // The others are written by the hundred, or by as many as a busy target takes in a second.
        let log = target.log();
        let writes = log.matches(r#""grpc.method":"WriteRelationships""#).count();
        assert!((3..600).contains(&writes), "{writes} writes");
        assert_says(
            &finished,
            &["line 1501: refused ", text, "maximum allowed caveat size"],
        );
        let longest = finished.stderr.lines().map(str::len).max();
        assert!(longest < Some(2_000), "a message of {longest:?} characters");
        assert!(!oracle::lookup(&target, text).unwrap().contains("caveat"));
        let changed = dump(&target)
            .iter()
            .filter(|line| line.contains("10.0.0.0/8"))
            .count();
        assert_eq!(changed, 3_000);
    }
}

#[test]
fn invalid_ids_do_not_stop_the_conflicts_beside_them() {
    for datastore in [Datastore::Memory, Datastore::Postgres] {
        let target = with_schema(datastore);
        let held = line("tenant/group:held#member@user:a", &Value::Null);
        by_hand(&target, std::slice::from_ref(&held))
            .run()
            .expect_success();
        // The conflict comes first: so the target is asked what it holds even under the bad ids.
        let bad = ["a b", "ä", "semi;colon"];
        let bad = bad.map(|id| line(&format!("tenant/group:{id}#member@user:a"), &Value::Null));
        let mut lines = vec![held];
        lines.extend(among_good_ones(&bad));
        let folder = crate::support::folder();
        let rejects = rejects_in(&folder);
        let load = by_hand(&target, &lines).args(["--rejects", &rejects, "--on-conflict", "skip"]);
        let finished = load.run().expect_code(3);
        assert_eq!(counts(&finished), [500, 1, 0, 0, 3], "{datastore:?}");
        let kept = std::fs::read_to_string(&rejects).unwrap();
        assert_eq!(values(&kept), values(&bad.concat()));
    }
}

/// A bulk import answers these with UNKNOWN, as it does a database that goes away.
#[test]
fn ids_that_no_server_takes_are_named_at_once() {
    let target = with_schema(Datastore::Postgres);
    let long = "x".repeat(1_025);
    let texts = [
        "tenant/group:*#member@user:a".to_owned(),
        "tenant/group:a b#member@user:a".to_owned(),
        format!("tenant/group:{long}#member@user:a"),
        "tenant/group:g#member@user:a b".to_owned(),
        format!("tenant/group:g#member@user:{long}"),
    ];
    for text in &texts {
        let bad = line(text, &Value::Null);
        let finished = by_hand(&target, &[bad]).run().expect_code(1);
        assert_says(&finished, &["line 1: the target refuses tenant/group:"]);
        assert!(
            !finished.stderr.contains("loading again"),
            "{text}: {}",
            finished.stderr
        );
    }
    let bad: Vec<String> = texts.iter().map(|text| line(text, &Value::Null)).collect();
    let folder = crate::support::folder();
    let load = by_hand(&target, &among_good_ones(&bad)).args(["--rejects", &rejects_in(&folder)]);
    let finished = load.run().expect_code(3);
    assert_eq!(counts(&finished), [500, 0, 0, 0, bad.len() as u64]);
}

#[test]
fn thousands_of_invalid_rows_in_one_message_cost_no_neighbour() {
    // SpiceDB names each of them in its error, in about 500 bytes: together more than 1 MiB of headers.
    let datastores = [Datastore::Memory, Datastore::Postgres];
    let count = crate::support::repeat(1, 2) as usize;
    for datastore in datastores.into_iter().take(count) {
        let target = with_schema(datastore);
        let of = |id: String| line(&format!("tenant/document:{id}#owner@user:u"), &Value::Null);
        let mut lines: Vec<String> = (0..20_000).map(|number| of(format!("d{number}"))).collect();
        let bad: Vec<String> = (0..5_000)
            .map(|number| of(format!("no%id%{number}")))
            .collect();
        lines.splice(100..100, bad);
        let folder = crate::support::folder();
        let rejects = rejects_in(&folder);
        let finished = by_hand(&target, &lines)
            .args(["--rejects", &rejects])
            .timeout(Duration::from_secs(300))
            .run()
            .expect_code(3);
        assert_eq!(counts(&finished), [20_000, 0, 0, 0, 5_000]);
        assert_eq!(dump(&target).len(), 20_000);
        crate::support::figure(&format!("{datastore:?}: {:?}", finished.took));
        let longest = finished.stderr.lines().map(str::len).max();
        assert!(longest < Some(2_048), "{longest:?}");
    }
}

/// What older servers pass on from their databases, with codes that elsewhere say "try again".
#[test]
fn value_that_an_old_database_cannot_hold_is_named_at_once() {
    const OLD: &str = "v1.45.4";
    let (mysql, postgres) = (Datastore::MySql, Datastore::Postgres);
    let foreign = on_network("10.0.0.0/8 \u{1f600}");
    let cases = [
        (mysql, Some(OLD), on_network("\u{4e2d}"), "Error 1366 "),
        (mysql, Some(OLD), foreign.clone(), "Error 1366 "),
        (postgres, Some(OLD), on_network("\u{0}"), "SQLSTATE 22P05"),
        (mysql, None, foreign, "cannot hold a value"),
    ];
    for (datastore, version, bad, said) in cases {
        let builder = Server::builder(datastore);
        let target = match version {
            Some(version) => builder
                .version(version)
                .flag("--enable-experimental-relationship-expiration"),
            None => builder,
        };
        let target = target.start();
        oracle::write_schema(&target, testdata::SCHEMA);
        let bad = line("tenant/document:bad#viewer@user:u", &bad);
        let lines = among_good_ones(std::slice::from_ref(&bad));
        let folder = crate::support::folder();
        let rejects = rejects_in(&folder);
        let finished = by_hand(&target, &lines).args(["--rejects", &rejects]);
        let finished = finished.run().expect_code(3);
        assert_says(&finished, &["line 251: refused tenant/document:bad#", said]);
        // A newer one returns no more than INTERNAL, which can pass.
        let retried = finished.stderr.contains("loading again");
        assert_eq!(retried, version.is_none(), "{}", finished.stderr);
        assert_eq!(counts(&finished), [500, 0, 0, 0, 1]);
        let kept = std::fs::read_to_string(&rejects).unwrap();
        assert_eq!(values(&kept), values(&bad));
        let alone = by_hand(&target, std::slice::from_ref(&bad));
        let alone = alone.args(["--on-conflict", "touch"]).run().expect_code(1);
        assert_says(&alone, &["line 1: the target refuses ", said]);

        let updates = lines.concat();
        let updates = updates.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let update =
                json!({"operation": "OPERATION_TOUCH", "relationship": line["relationship"]});
            format!("{}\n", json!({"update": update}))
        });
        let updates: String = updates.collect();
        let rejects = folder.path().join("updates");
        let applied = crate::apply::apply(&target)
            .args(["--no-trailer", "--rejects"])
            .arg(&rejects)
            .input(updates)
            .run()
            .expect_code(3);
        assert_says(
            &applied,
            &["refused tenant/document:bad#", "1 update was refused"],
        );
        assert_eq!(dump(&target).len(), 500);
    }
}
