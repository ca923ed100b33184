//! `spice-revision`: the token in whatever it is given, or a server's.

use std::path::Path;
use std::time::Duration;

use authzed::zedtoken::Revision;
use testdata::Sample;

use super::{assert_says, run, with_schema};
use crate::copy::{export, holding, import, stream_of};
use crate::support::AT_ONCE;
use crate::support::oracle::{self, Precision};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::seal::{self, Lines};
use crate::support::spicedb::{Datastore, Server};

fn revision() -> Program {
    Program::new("spice-revision")
}

fn head_of(server: &Server) -> Program {
    revision().args(["--head", "--context", server.context()])
}

/// What it finds in an input.
#[track_caller]
fn found(flags: &[&str], input: impl Into<Vec<u8>>) -> String {
    let finished = run(revision().args(flags).input(input)).expect_success();
    assert_eq!(finished.stderr, "");
    token(&finished)
}

/// The one line on stdout.
#[track_caller]
fn token(finished: &Finished) -> String {
    let text = finished.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end().to_owned()
}

#[test]
fn snapshot_says_its_revision_packed_or_not() {
    let server = holding(Sample::portable(2_000), Datastore::Memory);
    let folder = crate::support::folder();
    let [plain, packed, gzip] = ["plain", "packed", "gzip"].map(|name| folder.path().join(name));
    for (path, flags) in [
        (&plain, &["--output"][..]),
        (&packed, &["--zstd", "--output"]),
        (&gzip, &["--gzip", "--output"]),
    ] {
        run(export(&server).args(flags).arg(path)).expect_success();
        let bytes = std::fs::read(path).unwrap();
        let head = oracle::head(&server);
        assert_eq!(token(&run(revision().arg(path)).expect_success()), head);
        assert_eq!(found(&[], bytes.clone()), head);
        assert_eq!(found(&["-"], bytes), head);
    }
    // Its header answers, even where the rest is cut: that is for spice-import to refuse.
    let bytes = std::fs::read(&plain).unwrap();
    assert_eq!(found(&[], &bytes[..bytes.len() / 2]), oracle::head(&server));
}

/// A change stream, and after each of its lines the last revision that is complete.
const CHANGES: [(&str, &str); 8] = [
    (
        r#"{"header":{"format":"spice-stream/1","stream":"changes","revision":"r0","producer":"hand","createdAt":"2026-01-01T00:00:00Z"}}"#,
        "r0",
    ),
    (r#"{"transaction":{"revision":"r1","updates":[]}}"#, "r1"),
    (
        r#"{"transaction":{"revision":"r2","updates":[],"part":1}}"#,
        "r1",
    ),
    (
        r#"{"transaction":{"revision":"r2","updates":[],"part":2}}"#,
        "r1",
    ),
    (
        r#"{"transaction":{"revision":"r2","updates":[],"part":3,"lastPart":true}}"#,
        "r2",
    ),
    (r#"{"checkpoint":{"revision":"r3"}}"#, "r3"),
    (
        r#"{"schema":{"revision":"r4","text":"definition user {}"}}"#,
        "r4",
    ),
    (r#"{"trailer":{"revision":"r4","endReason":"until"}}"#, "r4"),
];

#[test]
fn change_stream_says_the_last_whole_revision_wherever_it_ends() {
    let mut stream = Vec::new();
    let mut last = None;
    let mut lines = Lines::default();
    for (line, expected) in CHANGES {
        let line = lines.add([&serde_json::from_str(line).unwrap()]);
        let line = line.trim_end();
        // Torn in this line: it does not count.
        let torn = [&stream[..], &line.as_bytes()[..line.len() - 1]].concat();
        match last {
            Some(last) => assert_eq!(found(&[], torn), last, "torn: {line}"),
            None => assert_says(&run(revision().input(torn)), 65, &["torn"], "header"),
        }
        stream.extend_from_slice(line.as_bytes());
        stream.push(b'\n');
        assert_eq!(found(&[], stream.clone()), expected, "{line}");
        last = Some(expected);
    }
    let packed = zstd::encode_all(&stream[..], 3).unwrap();
    assert_eq!(found(&[], packed.clone()), "r4");
    // Compression that is cut is damage, not a file that is still written.
    let cut = &packed[..packed.len() - 4];
    assert_says(&run(revision().input(cut)), 65, &["compressed"], "cut zstd");
    assert_says(
        &run(revision().arg("--target").input(stream)),
        2,
        &["--target"],
        "",
    );
}

#[test]
fn summaries_and_positions_name_source_or_target() {
    let source = holding(Sample::portable(100), Datastore::Memory);
    let target = Server::start(Datastore::Memory);
    let imported = Pipe::from(export(&source))
        .to(import(&target))
        .expect_success();
    let summary = imported.text();
    assert_eq!(found(&[], summary), oracle::head(&source));
    assert_eq!(found(&["--target"], summary), oracle::head(&target));
    let applied = r#"{"applied":{"sourceRevision":"s1","targetRevision":"t1","updates":3}}
{"applied":{"sourceRevision":"s2","targetRevision":"t2"}}
"#;
    let torn = format!("{applied}{{\"applied\":{{\"sourceRev");
    let position = format!("{}\n", seal::position("s2", "t2"));
    for input in [applied, &torn, &position] {
        assert_eq!(found(&[], input), "s2");
        assert_eq!(found(&["--target"], input), "t2");
    }
    let unsaid = "{\"applied\":{\"sourceRevision\":\"s1\"}}\n";
    let finished = run(revision().arg("--target").input(unsaid));
    assert_says(&finished, 65, &["<stdin>", "no revision"], "");
}

#[test]
fn input_without_a_revision_is_bad_data() {
    for (input, words) in [
        ("", &["<stdin>", "no revision"][..]),
        ("\n\n", &["no revision"]),
        ("hello\n", &["<stdin>:1:"]),
        ("{\"unknown\":{}}\n", &["<stdin>:1:", "unknown variant"]),
        (
            "{\"checkpoint\":{\"revision\":\"r1\"}}\n[]\n",
            &["<stdin>:2:"],
        ),
    ] {
        let finished = run(revision().input(input));
        assert_says(&finished, 65, words, input);
        assert!(finished.stdout.is_empty(), "{input}");
    }
    let unsettled = stream_of(Sample::portable(1));
    assert_says(
        &run(revision().input(unsettled)),
        65,
        &["no revision"],
        "by hand",
    );
    let other = r#"{"header":{"format":"spice-stream/9","stream":"changes","revision":"r","producer":"","createdAt":""}}"#;
    let finished = run(revision().input(format!("{other}\n")));
    assert_says(
        &finished,
        65,
        &["spice-stream/9", "reads spice-stream/1"],
        "",
    );
    let gone = run(revision().arg("/nosuch/stream"));
    assert_says(&gone, 1, &["/nosuch/stream", "No such file"], "");
}

#[test]
fn json_says_what_a_token_holds() {
    for (datastore, form, settles, kind, precision) in [
        (Datastore::Memory, "integer", true, "memory", "us"),
        (Datastore::MySql, "integer", true, "mysql", "s"),
        (Datastore::Postgres, "postgres", false, "postgres", "us"),
    ] {
        let server = with_schema(datastore);
        let mark = revision().args(["--mark", "--json", "--context", server.context()]);
        let head = head_of(&server).args(["--settle", "0s", "--json"]);
        let [mark, head] = [mark, head].map(|program| {
            let lines = run(program).expect_success().json_lines();
            lines[0]["revision"].clone()
        });
        for said in [&mark, &head] {
            assert_eq!(said["form"], form);
            assert_eq!(said["settles"], settles);
            assert_eq!(said["datastore"], kind);
            assert_eq!(said["expiryPrecision"], precision);
            assert_eq!(said["datastoreId"].as_str().unwrap().len(), 8);
            let line = format!("{{\"checkpoint\":{{\"revision\":{}}}}}\n", said["token"]);
            let again: serde_json::Value = serde_json::from_str(&found(&["--json"], line)).unwrap();
            let mut expected = said.clone();
            if kind == "memory" {
                // The token alone is ambiguous: no server is asked.
                expected["datastore"] = "memory-or-spanner".into();
            }
            assert_eq!(again["revision"], expected);
        }
        assert_eq!(mark["datastoreId"], head["datastoreId"]);
    }
    let finished = run(revision()
        .arg("--json")
        .input("{\"checkpoint\":{\"revision\":\"r1\"}}\n"));
    assert_says(&finished, 65, &["r1", "not a zedtoken"], "");
}

#[test]
fn head_is_the_servers_newest_revision() {
    let server = holding(Sample::portable(50), Datastore::Postgres);
    let snapshot = |token: &str| {
        let decoded = authzed::zedtoken::decode(token).unwrap();
        let Revision::Postgres(revision) = decoded.revision else {
            panic!("{token} is not PostgreSQL's");
        };
        (decoded.datastore_id, revision.xmax)
    };
    let before = snapshot(&oracle::head(&server));
    // PostgreSQL needs no settling, and by default does not wait.
    let finished = run(head_of(&server)).expect_success();
    let (ours, after) = (token(&finished), snapshot(&oracle::head(&server)));
    assert_eq!(finished.stderr, "");
    // Other databases of the same PostgreSQL also count.
    let (id, xmax) = snapshot(&ours);
    assert!(id.is_some() && id == before.0 && id == after.0);
    assert!(
        before.1 <= xmax && xmax <= after.1,
        "{before:?} {xmax} {after:?}"
    );
    let seen = oracle::dump_at(&server, &ours, Precision::Seconds);
    assert_eq!(seen.len(), 50);
    // In memory nothing else counts.
    let server = holding(Sample::portable(50), Datastore::Memory);
    let finished = run(head_of(&server).args(["--settle", "0s"])).expect_success();
    assert_eq!(token(&finished), oracle::head(&server));
}

#[test]
fn head_waits_until_it_has_settled_and_is_what_it_was_before() {
    let server = holding(Sample::portable(50), Datastore::Memory);
    let before = oracle::head(&server);
    let waiting = head_of(&server).args(["--settle", "2s"]).spawn();
    waiting.wait_for_stderr("waiting 2 s for the head", AT_ONCE);
    let update = r#"{"op":"touch","resource":"tenant/group:late","relation":"member","subject":"user:late"}"#;
    oracle::load(&server, update);
    let finished = waiting.wait().expect_success();
    assert!(
        finished.took >= Duration::from_secs(2),
        "{:?}",
        finished.took
    );
    assert_eq!(token(&finished), before);
    assert_ne!(oracle::head(&server), before);
    let by_default = head_of(&server).spawn();
    by_default.wait_for_stderr("waiting 35 s for the head", AT_ONCE);
    by_default.signal("TERM");
    let ended = by_default.wait();
    assert_eq!(ended.signal(), Some(15));
    assert!(ended.stdout.is_empty());
}

#[test]
fn mark_is_a_new_revision_that_changes_nothing() {
    for datastore in [Datastore::Memory, Datastore::MySql, Datastore::Postgres] {
        let server = holding(Sample::portable(200), datastore);
        let before = oracle::dump(&server, Precision::Nanoseconds);
        let mark = || run(revision().args(["--mark", "--context", server.context()]));
        let (first, second) = (mark().expect_success(), mark().expect_success());
        assert_ne!(token(&first), token(&second), "{datastore:?}");
        let at_mark = oracle::dump_at(&server, &token(&second), Precision::Nanoseconds);
        oracle::assert_same_lines("before", &before, "at the mark", &at_mark);
        let after = oracle::dump(&server, Precision::Nanoseconds);
        oracle::assert_same_lines("before", &before, "after", &after);
    }
}

#[test]
fn reading_from_a_pipe_does_not_kill_its_writer() {
    let server = holding(Sample::portable(40_000), Datastore::Memory);
    let folder = crate::support::folder();
    let backup = folder.path().join("backup.ndjson");
    let tee = Program::at(Path::new("tee")).arg(&backup);
    let finished = Pipe::from(export(&server))
        .to(tee)
        .to(revision())
        .expect_success();
    let exported = std::fs::read_to_string(&backup).unwrap();
    assert_eq!(exported.lines().count(), 40_002, "tee has all of it");
    assert_eq!(token(&finished), oracle::head(&server));
}
