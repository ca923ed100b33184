//! The schema of the stream and that of the target: written, checked, left alone.

use serde_json::Value;
use spice_record::record::StreamKind;
use spice_record::{ExpiryPrecision, Header, SnapshotWriter};

use super::{assert_says, by_hand, counts, dump, line};
use crate::copy::{export, holding, import};
use crate::support::oracle;
use crate::support::pipe::Pipe;
use crate::support::spicedb::{Datastore, Server};

const PLAIN: &str = "caveat young(age int) {\n\tage < 30 && age > 2\n}\n\ndefinition doc {\n\
                     \trelation owner: user | user with young\n}\n\ndefinition user {}";
/// The same with redundant parentheses, which SpiceDB v1.56 takes for a difference.
const PARENTHESES: &str = "definition user {}\ndefinition doc {\n\
                           relation owner: user | user with young\n}\n\
                           caveat young(age int) { ((age) < 30) && (age > (2)) }";
const DIFFERENT: &str = "caveat young(age int) {\n\tage < 40\n}\n\ndefinition doc {\n\
                         \trelation owner: user | user with young\n\trelation reader: user\n}\n\n\
                         definition user {}";

/// A stream of one relationship, with this schema or none.
fn stream(schema: Option<&str>) -> Vec<u8> {
    let header = Header {
        schema: schema.map(str::to_owned),
        ..Header::new(StreamKind::Snapshot, "hand", "2026-01-01T00:00:00Z")
    };
    let precision = ExpiryPrecision::default();
    let mut stream = SnapshotWriter::create(Vec::new(), header, precision).unwrap();
    let relationship = line("doc:d#owner@user:u", &Value::Null);
    let mut reader = spice_record::RecordReader::new(relationship.as_bytes(), "line");
    let Some(spice_record::Record::Relationship(relationship)) = reader.next_record().unwrap()
    else {
        panic!("a relationship")
    };
    stream.write(&relationship).unwrap();
    stream.finish().unwrap().1
}

/// A target with this schema, or none.
fn target(schema: Option<&str>) -> Server {
    let server = Server::start(Datastore::Memory);
    if let Some(schema) = schema {
        oracle::write_schema(&server, schema);
    }
    server
}

/// The schema that a server gives back for this text.
fn normal(text: &str) -> String {
    oracle::read_schema(&target(Some(text)))
}

/// Mode, the target's schema, exit code, words on stderr, the target's schema afterwards.
type Case<'a> = (&'a str, Option<&'a str>, i32, &'a [&'a str], &'a str);

#[test]
fn schema_modes_do_what_they_say_on_any_target() {
    let plain = normal(PLAIN);
    assert_eq!(
        normal(PARENTHESES),
        plain,
        "the server spells both the same"
    );
    let different = normal(DIFFERENT);
    let differs = &[
        "is not the stream's: ",
        "relation doc#reader too many",
        "expression of caveat young",
        "--schema write changes",
        "--schema skip leaves",
    ][..];
    let none = "no schema";
    let cases: [Case<'_>; 16] = [
        ("", None, 0, &["wrote the schema"], &plain),
        ("write", None, 0, &["wrote the schema"], &plain),
        ("check", None, 1, &["has no schema", "--schema write"], none),
        (
            "skip",
            None,
            1,
            &["line 2: the target refuses", "doc"],
            none,
        ),
        ("", Some(PLAIN), 0, &[], &plain),
        ("write", Some(PLAIN), 0, &[], &plain),
        ("check", Some(PLAIN), 0, &[], &plain),
        ("skip", Some(PLAIN), 0, &[], &plain),
        ("", Some(PARENTHESES), 0, &[], &plain),
        ("write", Some(PARENTHESES), 0, &[], &plain),
        ("check", Some(PARENTHESES), 0, &[], &plain),
        ("skip", Some(PARENTHESES), 0, &[], &plain),
        ("", Some(DIFFERENT), 1, differs, &different),
        ("write", Some(DIFFERENT), 0, &["wrote the schema"], &plain),
        ("check", Some(DIFFERENT), 1, differs, &different),
        ("skip", Some(DIFFERENT), 0, &[], &different),
    ];
    let spelled = cases.iter().map(|case| (case, &*plain));
    // A stream made by hand may spell what the server has as it likes.
    let respelled = [0, 2, 4, 6, 12].map(|case| (&cases[case], PARENTHESES));
    for ((mode, there, code, words, afterwards), text) in spelled.chain(respelled) {
        let server = target(*there);
        let flags: &[&str] = match *mode {
            "" => &[],
            mode => &["--schema", mode],
        };
        let finished = import(&server).args(flags).input(stream(Some(text))).run();
        let what = format!("--schema {mode}, {there:?}: {}", finished.stderr);
        assert_eq!(finished.code(), Some(*code), "{what}");
        assert_says(&finished, words);
        let wrote = finished.stderr.contains("wrote the schema");
        assert_eq!(wrote, words.contains(&"wrote the schema"), "{what}");
        if *afterwards == none {
            assert_says(&export(&server).run().expect_code(1), &["has no schema"]);
            continue;
        }
        assert_eq!(oracle::read_schema(&server), *afterwards, "{what}");
        match code {
            0 => assert_eq!(counts(&finished), [1, 0, 0, 0, 0], "{what}"),
            _ => assert!(dump(&server).is_empty(), "{what}"),
        }
    }
}

#[test]
fn source_with_redundant_parentheses_can_be_copied() {
    let source = target(Some(PARENTHESES));
    by_hand(&source, &[line("doc:d#owner@user:u", &Value::Null)])
        .run()
        .expect_success();
    for there in [None, Some(PLAIN), Some(PARENTHESES)] {
        let to = target(there);
        let copied = Pipe::from(export(&source)).to(import(&to)).expect_success();
        assert_eq!(counts(&copied), [1, 0, 0, 0, 0]);
        assert_eq!(oracle::read_schema(&to), oracle::read_schema(&source));
    }
}

#[test]
fn what_differs_is_named_with_what_kind_of_thing_it_is() {
    let (plain, other) = (target(Some(PLAIN)), target(None));
    for (from, to, expected) in [
        (
            "caveat young",
            "// or old\ncaveat young",
            "comment of caveat young",
        ),
        (
            "\trelation owner",
            "\t/** pays */\n\trelation owner",
            "comment of relation doc#owner",
        ),
        (
            "definition user",
            "/** signs in */\ndefinition user",
            "comment of definition user",
        ),
        ("age < 30", "age < 31", "expression of caveat young"),
        (
            "(age int)",
            "(age uint)",
            "type of parameter age of caveat young",
        ),
        (
            "(age int) {\n\t",
            "(age int, name string) {\n\tname != \"\" && ",
            "parameter name of caveat young",
        ),
        (
            "owner: user |",
            "owner: user | user:* |",
            "allowed subjects of relation doc#owner",
        ),
        (
            "user with young\n",
            "user with young\n\tpermission see = owner\n",
            "permission doc#see missing",
        ),
        (
            "definition user {}",
            "definition user {}\ndefinition bot {}",
            "definition bot missing",
        ),
    ] {
        let changed = PLAIN.replacen(from, to, 1);
        assert_ne!(changed, PLAIN, "{from}");
        let finished = import(&plain).input(stream(Some(&changed))).run();
        assert_says(
            &finished.expect_code(1),
            &["is not the stream's: ", expected],
        );
        // The other way round what was missing is too much.
        oracle::write_schema(&other, "");
        oracle::write_schema(&other, &changed);
        let finished = import(&other).input(stream(Some(PLAIN))).run();
        let expected = expected.replace("missing", "too many");
        assert_says(
            &finished.expect_code(1),
            &["is not the stream's: ", &expected],
        );
    }
}

#[test]
fn schema_forbidden_by_the_targets_data_is_refused() {
    let server = target(Some(DIFFERENT));
    let reader = line("doc:d#reader@user:u", &Value::Null);
    by_hand(&server, &[reader]).run().expect_success();
    let finished = import(&server)
        .args(["--schema", "write", "--on-conflict", "skip"])
        .input(stream(Some(PLAIN)))
        .run()
        .expect_code(1);
    assert_says(
        &finished,
        &[
            "WriteSchema: ",
            "cannot delete relation `reader`",
            "doc:d#reader",
        ],
    );
    assert_eq!(dump(&server).len(), 1);
    assert_eq!(oracle::read_schema(&server), normal(DIFFERENT));
}

#[test]
fn stream_without_schema_loads_into_the_schema_that_is_there() {
    for (mode, there, code, words) in [
        ("", Some(DIFFERENT), 0, &[][..]),
        ("skip", Some(DIFFERENT), 0, &[]),
        ("", None, 1, &["line 2: the target refuses"]),
        ("check", Some(PLAIN), 2, &["--schema", "carries no schema"]),
        ("write", Some(PLAIN), 2, &["--schema", "carries no schema"]),
    ] {
        let server = target(there);
        let flags: &[&str] = if mode.is_empty() {
            &[]
        } else {
            &["--schema", mode]
        };
        let finished = import(&server).args(flags).input(stream(None)).run();
        assert_says(&finished.expect_code(code), words);
        if let Some(there) = there {
            assert_eq!(oracle::read_schema(&server), normal(there));
            assert_eq!(dump(&server).len(), usize::from(code == 0));
        }
    }
    let source = holding(testdata::Sample::portable(50), Datastore::Memory);
    let to = target(Some(testdata::SCHEMA));
    let copied = Pipe::from(export(&source).arg("--no-schema")).to(import(&to));
    assert_eq!(counts(&copied.expect_success()), [50, 0, 0, 0, 0]);
    oracle::assert_same_relationships(&source, &to, oracle::Precision::Nanoseconds);
}
