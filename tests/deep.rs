//! Contexts nested to the limit are moved, followed and compared; deeper ones are refused by name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use authzed::v1::relationship_update::Operation;
use authzed::v1::{Relationship, RelationshipUpdate, WriteRelationshipsRequest};
use prost_types::Value;
use prost_types::value::Kind;
use spice_record::Record;

use crate::apply::apply;
use crate::check::check;
use crate::copy::{export, import};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{AT_ONCE, folder, oracle};

const SCHEMA: &str = "caveat anything(x any) {
	x == 1
}

definition user {}

definition document {
	relation viewer: user with anything
	permission view = viewer
}
";

/// The deepest that a stream can hold.
const DEEPEST: usize = authzed::MAX_DEPTH;

fn server() -> Server {
    let server = Server::start(Datastore::Memory);
    oracle::write_schema(&server, SCHEMA);
    server
}

/// A value in so many levels, which begin with the context itself.
fn context(levels: usize, form: &str, value: u32) -> String {
    const OBJECT: (&str, &str) = (r#"{"a":"#, "}");
    let level = |level: usize| match form {
        "objects" => OBJECT,
        "lists" => ("[", "]"),
        _ if level.is_multiple_of(2) => ("[", "]"),
        _ => OBJECT,
    };
    let open: String = (2..=levels).map(|number| level(number).0).collect();
    let close: String = (2..=levels).rev().map(|number| level(number).1).collect();
    format!(r#"{{"x":{open}{value}{close}}}"#)
}

fn relationship(levels: usize, form: &str, value: u32) -> String {
    let context = context(levels, form, value);
    format!(
        r#"{{"resource":{{"objectType":"document","objectId":"{form}{levels}"}},"relation":"viewer","subject":{{"object":{{"objectType":"user","objectId":"ann"}}}},"optionalCaveat":{{"caveatName":"anything","context":{context}}}}}"#
    )
}

/// Relationship lines with contexts of 33, 64 and the most levels.
fn lines(value: u32) -> BTreeSet<String> {
    let levels = [33, 64, DEEPEST].into_iter();
    let each = levels.flat_map(|levels| ["objects", "lists", "mixed"].map(|form| (levels, form)));
    each.map(|(levels, form)| {
        let relationship = relationship(levels, form, value);
        format!(r#"{{"relationship":{relationship}}}"#)
    })
    .collect()
}

/// The export of a server in a file, and the relationship lines in it.
fn exported(server: &Server, path: &Path) -> (PathBuf, BTreeSet<String>) {
    let stream = export(server).run().expect_success();
    std::fs::write(path, &stream.stdout).unwrap();
    let lines = stream.text().lines().map(str::to_owned);
    let lines = lines.filter(|line| line.starts_with(r#"{"relationship""#));
    (path.to_owned(), lines.collect())
}

fn revision(server: &Server, flags: &[&str]) -> String {
    let revision = Program::new("spice-revision").args(["--context", server.context()]);
    let revision = revision.args(flags).run().expect_success();
    revision.text().trim().to_owned()
}

#[test]
fn contexts_of_100_levels_are_copied_followed_compared() {
    let (one, other, folder) = (server(), server(), folder());
    let written: Vec<String> = lines(1).into_iter().collect();
    import(&one)
        .arg("--no-trailer")
        .input(written.join("\n") + "\n")
        .run()
        .expect_success();
    let (a, there) = exported(&one, &folder.path().join("a"));
    assert_eq!(there, lines(1));
    Pipe::from(export(&one)).to(import(&other)).expect_success();
    let (b, there) = exported(&other, &folder.path().join("b"));
    assert_eq!(there, lines(1));
    let diff = |code| {
        Program::new("spice-diff")
            .args([&a, &b])
            .run()
            .expect_code(code)
    };
    diff(0);
    Program::new("spice-digest")
        .args([&a, &b])
        .run()
        .expect_success();
    let asked = check(&one).args(["--sample", "50"]).arg(&a);
    let compare = check(&other).args(["--at", &revision(&other, &["--head", "--settle", "0s"])]);
    Pipe::from(asked).to(compare).expect_success();

    // Changes, the deepest value of each: by updates to one end, and by its Watch to the other one.
    let since = revision(&one, &["--head", "--settle", "0s"]);
    let updates = lines(2).into_iter().map(|line| {
        let update = line.replacen(
            r#"{"relationship":"#,
            r#"{"update":{"operation":"OPERATION_TOUCH","relationship":"#,
            1,
        );
        update + "}\n"
    });
    apply(&one)
        .arg("--no-trailer")
        .input(updates.collect::<String>())
        .run()
        .expect_success();
    let (_, there) = exported(&one, &a);
    assert_eq!(there, lines(2));
    let found = diff(3).text().matches(r#"{"update""#).count();
    assert_eq!(found, lines(2).len());
    let watch = Program::new("spice-watch")
        .args(["--context", one.context(), "--settle", "0s"])
        .args(["--since", &since, "--until", &revision(&one, &["--mark"])]);
    Pipe::from(watch).to(apply(&other)).expect_success();
    assert_eq!(exported(&other, &b).1, lines(2));
    diff(0);
}

/// Writes a context that is deeper than a stream can hold, as a client of another kind does.
fn write_deeper(server: &Server, levels: usize) {
    let line = format!(r#"{{"relationship":{}}}"#, relationship(2, "objects", 1));
    let Record::Relationship(deep) = serde_json::from_str(&line).unwrap() else {
        panic!("{line}");
    };
    let mut deep: Relationship = deep;
    let context = deep.optional_caveat.as_mut().unwrap().context.as_mut();
    let context = context.unwrap();
    for _ in 2..levels {
        let inner = Value {
            kind: Some(Kind::StructValue(context.0.clone())),
        };
        context.fields = [("x".to_owned(), inner)].into();
    }
    let update = RelationshipUpdate {
        operation: Operation::Touch.into(),
        relationship: Some(deep),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = crate::watch::client(server).await;
        let request = WriteRelationshipsRequest {
            updates: vec![update],
            ..Default::default()
        };
        client.write_relationships(request).await.unwrap();
    });
}

#[test]
fn too_deep_context_ends_export_and_watch_and_is_named() {
    let (server, empty) = (server(), server());
    let since = revision(&server, &["--head", "--settle", "0s"]);
    write_deeper(&server, DEEPEST + 1);
    let watch = Program::new("spice-watch")
        .args(["--context", server.context(), "--settle", "0s"])
        .args(["--since", &since]);
    for program in [export(&server), watch] {
        let began = Instant::now();
        let refused = program.run().expect_code(1);
        let took = began.elapsed();
        let said = "document:objects2#viewer@user:ann: a context or metadata nested more than 100";
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
        assert!(refused.stderr.contains("hint:"), "{}", refused.stderr);
        assert!(took < AT_ONCE, "{took:?}");
    }
    // A line of that depth.
    let deeper = relationship(DEEPEST + 1, "objects", 1);
    let refused = import(&empty)
        .arg("--no-trailer")
        .input(format!("{{\"relationship\":{deeper}}}\n"))
        .run()
        .expect_code(65);
    assert!(
        refused.stderr.contains("nested more than 100"),
        "{}",
        refused.stderr
    );
}
