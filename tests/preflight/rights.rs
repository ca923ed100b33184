//! A token that may not make one call, for each call and each end: a gateway refuses it.

use serde_json::Value;

use super::{Pair, expect_only};
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::refusing::Refusing;
use crate::support::spicedb::{Datastore, Server};

/// Calls of the source, whether the migration fails without, and the first steps that need it. Comments of its
/// schema are rendered otherwise than they were written.
const SOURCE: [(&str, bool, &str); 9] = [
    ("ReadSchema", true, "copy"),
    ("DiffSchema", true, "copy"),
    ("ReflectSchema", true, "copy"),
    ("ExportBulkRelationships", true, "copy"),
    ("Watch", true, "live"),
    ("WriteRelationships", true, "live"),
    ("CheckBulkPermissions", false, "all"),
    ("ReadRelationships", false, "all"),
    ("WriteSchema", false, "all"),
];

/// Calls of a target without a schema.
const TARGET: [(&str, bool, &str); 10] = [
    ("ReadSchema", true, "copy"),
    ("DiffSchema", true, "copy"),
    ("ReflectSchema", true, "copy"),
    ("ExportBulkRelationships", true, "copy"),
    ("WriteSchema", true, "copy"),
    ("ImportBulkRelationships", true, "copy"),
    ("WriteRelationships", true, "copy"),
    ("Watch", false, "all"),
    ("CheckBulkPermissions", false, "all"),
    ("ReadRelationships", false, "all"),
];

fn denied<'a>(found: &'a [Value], end: &str) -> Vec<&'a str> {
    let findings = found.iter().map(|line| &line["finding"]);
    let denied = findings.filter(|finding| {
        finding["end"] == end && finding["check"] == "rights" && finding["severity"] != "ok"
    });
    denied
        .map(|finding| finding["found"].as_str().unwrap())
        .collect()
}

/// Each row of a table, with a gateway in front of one end.
fn each(end: &str, calls: &[(&str, bool, &str)]) {
    let pair = Pair::in_memory();
    pair.unchanged(|| each_of(&pair, end, calls));
}

fn each_of(pair: &Pair, end: &str, calls: &[(&str, bool, &str)]) {
    for (call, is_fatal, since) in calls {
        let server = if end == "source" {
            &pair.old
        } else {
            &pair.new
        };
        let gateway = Refusing::to(server, &[*call]);
        let endpoint = gateway.endpoint();
        match end {
            "source" => pair.connect(Some(&endpoint), None),
            _ => pair.connect(None, Some(&endpoint)),
        }
        let code = if *is_fatal { 1 } else { 3 };
        let found = pair.check(&["--for", *since], code);
        let refused = denied(&found, end);
        let expected = format!("the token may not call {call}: this token may not call {call}");
        assert_eq!(refused, [expected], "{end} {call}");
        // Earlier steps do not make it.
        let earlier = match *since {
            "all" => "live",
            "live" => "copy",
            _ => continue,
        };
        let found = pair.check(&["--for", earlier], 0);
        expect_only(&found, &[]);
    }
}

#[test]
fn each_call_that_the_source_refuses_is_named() {
    each("source", &SOURCE);
}

#[test]
fn each_call_that_the_target_refuses_is_named() {
    each("target", &TARGET);
}

/// Each case with what spice-export, of the types, or spice-revision, of the newest revision, then does.
#[test]
fn definitions_that_cannot_be_read_fail_where_a_step_reads_them() {
    const PLAIN: &str = "definition user {}\n\ndefinition document {\n\trelation owner: user\n}\n";
    let pair = Pair::of(
        Server::start(Datastore::Memory),
        Server::start(Datastore::Memory),
    );
    oracle::write_schema(&pair.old, PLAIN);
    oracle::load(
        &pair.old,
        &oracle::line("touch", "document:a#owner@user:eve"),
    );
    let old = Refusing::to(&pair.old, &["ReflectSchema"]);
    pair.connect(Some(&old.endpoint()), None);
    let end = |program: &str, flags: &[&str]| {
        let program = Program::new(program).env("SPICE_CONTEXTS", pair.contexts());
        let finished = program.args(["--settle", "0s"]).args(flags).run();
        finished.code().unwrap()
    };
    let by_type: &[&str] = &["--type", "document"];
    let commented = format!("/**  who may  */\n{PLAIN}");
    for (schema, flags, verdict, exported) in [
        (PLAIN, &[][..], 3, 0),
        (PLAIN, by_type, 1, 77),
        (&commented, &[], 1, 77),
    ] {
        oracle::write_schema(&pair.old, schema);
        pair.check(&[&["--for", "copy"], flags].concat(), verdict);
        let export = end("spice-export", &[&["--context", "old"], flags].concat());
        assert_eq!(export, exported, "{schema} {flags:?}");
    }
    oracle::write_schema(&pair.old, PLAIN);
    let new = Refusing::to(&pair.new, &["ReflectSchema"]);
    pair.connect(None, Some(&new.endpoint()));
    pair.check(&["--for", "copy"], 1);
    assert_eq!(end("spice-revision", &["--head", "--context", "new"]), 77);
    oracle::write_schema(&pair.new, PLAIN);
    pair.check(&["--for", "copy"], 3);
    assert_eq!(end("spice-revision", &["--head", "--context", "new"]), 0);
}

#[test]
fn gateway_that_refuses_nothing_is_not_noticed() {
    let pair = Pair::in_memory();
    let (old, new) = (Refusing::to(&pair.old, &[]), Refusing::to(&pair.new, &[]));
    pair.connect(Some(&old.endpoint()), Some(&new.endpoint()));
    expect_only(&pair.check(&["--for", "all"], 0), &[]);
}

#[test]
fn all_refused_calls_are_named_in_one_run() {
    let pair = Pair::in_memory();
    let names = |calls: &[(&'static str, bool, &str)]| {
        calls.iter().map(|(name, _, _)| *name).collect::<Vec<_>>()
    };
    let (source, target) = (names(&SOURCE), names(&TARGET));
    let (old, new) = (
        Refusing::to(&pair.old, &source),
        Refusing::to(&pair.new, &target),
    );
    pair.connect(Some(&old.endpoint()), Some(&new.endpoint()));
    let found = pair.unchanged(|| pair.check(&["--for", "all"], 1));
    for (end, calls) in [("source", &source), ("target", &target)] {
        let refused = denied(&found, end);
        for call in calls {
            let part = format!("may not call {call}:");
            let is_named = refused.iter().any(|text| text.contains(&part));
            assert!(is_named, "{end} {call}: {refused:?}");
        }
    }
    assert!(oracle::dump(&pair.new, oracle::Precision::Nanoseconds).is_empty());
}
