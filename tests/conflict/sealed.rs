//! Streams that somebody filtered or made by hand, and runs that write nothing.

use std::path::Path;

use serde_json::Value;
use testdata::Sample;

use super::{assert_says, by_hand, counts, dump, line, with_schema};
use crate::copy::{export, holding, import, stream_of, summary};
use crate::support::oracle::{self, Precision};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};

/// The filter of the documentation, by jq itself where it is installed.
fn only_documents(stream: &[u8]) -> Vec<u8> {
    const FILTER: &str = r#"select(.relationship == null or .relationship.resource.objectType == "tenant/document")"#;
    if Path::new("/usr/bin/jq").exists() {
        let jq = Program::at(Path::new("jq")).args(["-c", FILTER]);
        return jq.input(stream).run().expect_success().stdout;
    }
    let kept = stream
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| {
            let line: Value = serde_json::from_slice(line).unwrap();
            let kind = line.pointer("/relationship/resource/objectType");
            kind.is_none_or(|kind| kind == "tenant/document")
        });
    kept.collect::<Vec<_>>().concat()
}

#[test]
fn filtered_stream_is_accepted_with_partial() {
    let source = holding(Sample::rich(5_000), Datastore::Memory);
    let stream = export(&source).run().expect_success().stdout;
    let filtered = only_documents(&stream);
    let documents: Vec<String> = oracle::dump(&source, Precision::Nanoseconds)
        .into_iter()
        .filter(|line| line.contains("\"resource\":\"tenant/document:"))
        .collect();
    assert!(documents.len() > 1_000 && documents.len() < 5_000);

    let target = Server::start(Datastore::Memory);
    for flags in [&[][..], &["--dry-run"]] {
        let refused = import(&target).args(flags).input(filtered.clone()).run();
        assert_says(&refused.expect_code(65), &["promises 5000", "--partial"]);
    }
    assert!(dump(&target).is_empty());
    let taken = import(&target).arg("--partial").input(filtered.clone());
    let taken = taken.run().expect_success();
    assert_eq!(summary(&taken)["verified"], false);
    assert_eq!(summary(&taken)["sourceRevision"], oracle::head(&source));
    assert_eq!(counts(&taken)[0], documents.len() as u64);
    let there = oracle::dump(&target, Precision::Nanoseconds);
    oracle::assert_same_lines("documents", &documents, "target", &there);

    // Even with --partial the stream has both its ends, and its header is the one it had.
    let text = String::from_utf8(filtered).unwrap();
    let whole: Vec<&str> = text.lines().collect();
    let (last, other) = (whole.len() - 1, text.replacen("banned", "bonned", 1));
    for (cut, words) in [
        (
            whole[..last].join("\n") + "\n",
            &["cut", "without a trailer"][..],
        ),
        (whole[1..].join("\n") + "\n", &["no header"]),
        (other, &["header altered"]),
        (String::new(), &["empty input"]),
    ] {
        let refused = Program::new("spice-import").args(["--partial", "--dry-run"]);
        assert_says(&refused.input(cut).run().expect_code(65), words);
    }
    // A complete stream has nothing filtered out; nothing proves that here.
    let another = Server::start(Datastore::Memory);
    let all = import(&another).arg("--partial").input(stream).run();
    assert_eq!(summary(&all.expect_success())["verified"], false);
}

#[test]
fn stream_filtered_by_the_export_says_so() {
    let source = holding(Sample::portable(1_000), Datastore::Memory);
    for (flags, words) in [
        (
            &["--type", "tenant/group"][..],
            "resources of type tenant/group",
        ),
        (
            &["--resource-prefix", "g00"],
            "resources with ids that begin with \"g00\"",
        ),
    ] {
        let stream = export(&source).args(flags).run().expect_success().stdout;
        let dry = Program::new("spice-import")
            .arg("--dry-run")
            .input(stream.clone());
        assert_says(
            &dry.run().expect_success(),
            &["a part of its source", words],
        );
        let target = Server::start(Datastore::Memory);
        let finished = import(&target).input(stream).run().expect_success();
        assert_says(&finished, &["a part of its source", words]);
        assert_eq!(summary(&finished)["verified"], true);
    }
}

#[test]
fn lines_made_by_hand_need_unsealed() {
    let target = with_schema(Datastore::Memory);
    let lines: Vec<String> = (0..20)
        .map(|n| line(&format!("tenant/document:d{n}#owner@user:u"), &Value::Null))
        .collect();
    let sealed = import(&target).input(lines.concat()).run().expect_code(65);
    assert_says(&sealed, &["<stdin>:1:", "no header", "--no-trailer"]);
    let partial = import(&target).arg("--partial").input(lines.concat());
    assert_says(
        &partial.run().expect_code(65),
        &["no header", "--no-trailer"],
    );
    assert!(dump(&target).is_empty());

    let finished = by_hand(&target, &lines).run().expect_success();
    assert_eq!(counts(&finished), [20, 0, 0, 0, 0]);
    let imported = summary(&finished);
    assert_eq!(imported["verified"], false);
    assert!(imported.get("sourceRevision").is_none());
    assert_eq!(dump(&target).len(), 20);
    // What is there is still checked.
    for (bad, words) in [
        (
            "{\"relationship\":{}}\n",
            &["<stdin>:21:", "missing field"][..],
        ),
        ("{\"relationship\"", &["<stdin>:21:", "torn"]),
        (
            "{\"checkpoint\":{\"revision\":\"r\"}}\n",
            &["<stdin>:21:", "no checkpoint"],
        ),
    ] {
        let load = import(&target).args(["--no-trailer", "--on-conflict", "skip"]);
        let failed = load.input(lines.concat() + bad).run().expect_code(65);
        assert_says(&failed, words);
    }
    let nothing = by_hand(&target, &[]).args(["--on-conflict", "skip"]).run();
    assert_says(&nothing.expect_code(65), &["empty input"]);
}

#[test]
fn dry_run_with_a_server_reads_everything_and_writes_nothing() {
    let stream = stream_of(Sample::rich(3_000));
    let bare = Server::start(Datastore::Memory);
    let dry = |server: &Server, flags: &[&str], stream: &[u8]| {
        import(server)
            .arg("--dry-run")
            .args(flags)
            .input(stream)
            .run()
    };
    for flags in [&[][..], &["--schema", "write"], &["--schema", "skip"]] {
        let finished = dry(&bare, flags, &stream).expect_success();
        assert_says(
            &finished,
            &["the stream is complete: 3000", "nothing was written"],
        );
        assert!(finished.stdout.is_empty(), "there is no import to sum up");
        assert_says(&export(&bare).run().expect_code(1), &["has no schema"]);
    }
    let cut = &stream[..stream.len() / 2];
    assert_says(&dry(&bare, &[], cut).expect_code(65), &["<stdin>"]);
    let check = dry(&bare, &["--schema", "check"], &stream);
    assert_says(&check.expect_code(1), &["has no schema"]);

    let held = holding(Sample::rich(100), Datastore::Postgres);
    let (before, schema) = (dump(&held), oracle::read_schema(&held));
    assert_says(&dry(&held, &[], &stream).expect_code(2), &["already holds"]);
    for policy in ["skip", "touch", "fail"] {
        dry(&held, &["--on-conflict", policy], &stream).expect_success();
    }
    let source = holding(Sample::rich(10), Datastore::Memory);
    oracle::write_schema(
        &source,
        &format!("{}\ndefinition newer {{}}", testdata::SCHEMA),
    );
    let pipe = |flags: &[&str]| {
        let dry = import(&held).args(["--dry-run", "--on-conflict", "skip"]);
        Pipe::from(export(&source))
            .to(dry.args(flags))
            .run()
            .pop()
            .unwrap()
    };
    assert_says(&pipe(&[]).expect_code(1), &["definition newer missing"]);
    pipe(&["--schema", "write"]).expect_success();
    oracle::assert_same_lines("before", &before, "after", &dump(&held));
    assert_eq!(oracle::read_schema(&held), schema);
}

#[test]
fn dry_run_without_a_server_checks_the_stream_alone() {
    let stream = stream_of(Sample::rich(3_000));
    let dry = |flags: &[&str], input: Vec<u8>| {
        let program = Program::new("spice-import").arg("--dry-run").args(flags);
        program.input(input).run()
    };
    let whole = dry(&[], stream.clone()).expect_success();
    assert_says(
        &whole,
        &[
            "the stream is complete: 3000 relationships",
            "nothing was written",
        ],
    );
    let by_hand = line("a:b#c@d:e", &Value::Null).into_bytes();
    let unproved = dry(&["--no-trailer"], by_hand).expect_success();
    assert_says(
        &unproved,
        &["1 relationships", "nothing proves that it is complete"],
    );
    dry(&[], stream[..stream.len() - 10].to_vec()).expect_code(65);
}
