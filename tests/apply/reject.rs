//! What the target refuses, and a target that has enough.

use serde_json::{Value, json};

use super::{
    SCHEMA, applied, apply, checkpoint, delete, ids, position, sealed, token, touch, transaction,
};
use crate::support::figure;
use crate::support::folder;
use crate::support::oracle;
use crate::support::spicedb::{Datastore, Server};

/// A relationship of a type that no schema has.
fn foreign(id: &str) -> Value {
    let mut update = touch(id);
    update["relationship"]["resource"]["objectType"] = json!("folder");
    update
}

#[test]
fn refused_update_stops_and_is_named_with_its_revision() {
    let (server, folder) = (Server::start(Datastore::Memory), folder());
    let file = folder.path().join("position");
    let changes = [
        transaction(2, &[touch("a")]),
        transaction(3, &[touch("b"), foreign("readme"), touch("c")]),
        transaction(4, &[touch("d")]),
    ];
    let stream = sealed(&changes, 4);
    let program = || {
        apply(&server)
            .arg("--position")
            .arg(&file)
            .input(stream.clone())
    };
    let finished = program().run().expect_code(1);
    let said = &finished.stderr;
    assert!(
        said.contains(&token(3)) && said.contains("folder:readme#viewer@user:eve"),
        "{said}"
    );
    assert!(said.contains("--rejects FILE"), "{said}");
    assert_eq!(position(&file)["sourceRevision"], token(2));
    // Every call has ended: there is nothing to wait for.
    assert!(position(&file)["ambiguousUntil"].is_null());
    assert!(!ids(&server).contains(&"d".to_owned()));
    // Repaired by hand, it resumes.
    let mended = format!("{SCHEMA}\n\ndefinition folder {{\n\trelation viewer: user\n}}");
    oracle::write_schema(&server, &mended);
    program().run().expect_success();
    assert_eq!(ids(&server), ["a", "b", "c", "d", "readme"]);
    assert_eq!(position(&file)["sourceRevision"], token(4));
}

#[test]
fn handmade_delete_unknown_to_the_schema_is_refused() {
    let folder = folder();
    for datastore in [Datastore::Memory, Datastore::Postgres] {
        let server = Server::start(datastore);
        oracle::write_schema(&server, SCHEMA);
        let mut misspelt = delete("a1");
        misspelt["relationship"]["relation"] = json!("viewr");
        let mut foreign = foreign("a1");
        foreign["operation"] = json!("OPERATION_DELETE");
        let made = super::lines([
            &json!({"update": touch("a1")}),
            &json!({"update": misspelt}),
            &json!({"update": foreign}),
        ]);
        let by_hand = || apply(&server).arg("--no-trailer").input(made.clone());
        let said = by_hand().run().expect_code(1).stderr;
        assert!(said.contains("document:a1#viewr@user:eve"), "{said}");
        assert!(said.contains("misspelt"), "{said}");
        let rejects = folder.path().join(format!("{datastore:?}"));
        let said = by_hand().arg("--rejects").arg(&rejects).run();
        let said = said.expect_code(3).stderr;
        assert!(said.contains("2 updates were refused"), "{said}");
        assert_eq!(
            std::fs::read_to_string(&rejects).unwrap().lines().count(),
            2
        );
        assert_eq!(ids(&server), ["a1"]);
        // A source that is followed has dropped it together with its relation.
        let changes = [transaction(2, &[misspelt, delete("a1")]), checkpoint(2)];
        let followed = apply(&server).input(sealed(&changes, 2));
        followed.run().expect_success();
        assert!(ids(&server).is_empty());
    }
}

#[test]
fn refused_updates_go_to_a_file_that_can_be_applied() {
    for datastore in [Datastore::Memory, Datastore::Postgres] {
        let (server, folder) = (Server::start(datastore), folder());
        let rejects = folder.path().join("rejects");
        let many: Vec<Value> = (0..300).map(|n| touch(&format!("d{n}"))).collect();
        let mut with: Vec<Value> = many.clone();
        with.insert(100, foreign("one"));
        with.insert(201, foreign("two"));
        let changes = [
            transaction(2, &with),
            transaction(3, &[foreign("three")]),
            checkpoint(3),
        ];
        let program = apply(&server).arg("--rejects").arg(&rejects);
        let finished = program.input(sealed(&changes, 3)).run();
        let finished = finished.expect_code(3);
        assert!(
            finished.stderr.contains("3 updates were refused"),
            "{}",
            finished.stderr
        );
        assert_eq!(ids(&server).len(), 300);
        assert_eq!(applied(&finished.stdout)[0]["split"], true);
        let kept = std::fs::read(&rejects).unwrap();
        assert_eq!(kept.iter().filter(|byte| **byte == b'\n').count(), 3);
        let mended = format!("{SCHEMA}\n\ndefinition folder {{\n\trelation viewer: user\n}}");
        oracle::write_schema(&server, &mended);
        apply(&server)
            .arg("--no-trailer")
            .input(kept)
            .run()
            .expect_success();
        assert_eq!(ids(&server).len(), 303);
    }
}

#[test]
fn value_that_postgres_cannot_hold_is_refused_alone() {
    let server = Server::start(Datastore::Postgres);
    let schema = "caveat named(name string) {\n\tname == 'x'\n}\n\ndefinition user {}\n\n\
                  definition document {\n\trelation viewer: user | user with named\n}";
    oracle::write_schema(&server, schema);
    let folder = folder();
    let (rejects, file) = (
        folder.path().join("rejects"),
        folder.path().join("position"),
    );
    let mut zero = touch("zero");
    zero["relationship"]["optionalCaveat"] =
        json!({"caveatName": "named", "context": {"name": "\u{0}"}});
    let changes = [
        transaction(2, &[touch("a"), zero, touch("b")]),
        checkpoint(2),
    ];
    let mut header = super::header(1);
    header["header"]["schema"] = json!(schema);
    let trailer = super::trailer(2);
    let stream = super::lines([&header].into_iter().chain(&changes).chain([&trailer]));
    let program = apply(&server).arg("--position").arg(&file);
    let program = program.arg("--rejects").arg(&rejects).input(stream);
    let finished = program.args(["--until", &token(2)]).run().expect_code(3);
    assert!(
        finished.stderr.contains("1 update was refused"),
        "{}",
        finished.stderr
    );
    assert_eq!(
        std::fs::read_to_string(&rejects).unwrap().lines().count(),
        1
    );
    assert_eq!(ids(&server), ["a", "b"]);
    assert_eq!(position(&file)["sourceRevision"], token(2));
}

#[test]
fn target_with_a_lower_limit_teaches_it() {
    let server = Server::builder(Datastore::Memory)
        .flag("--write-relationships-max-updates-per-call=70")
        .start();
    let many: Vec<Value> = (0..500).map(|n| touch(&format!("d{n}"))).collect();
    let changes = [
        transaction(2, &many),
        transaction(3, &[touch("x")]),
        checkpoint(3),
    ];
    let finished = apply(&server)
        .input(sealed(&changes, 3))
        .run()
        .expect_success();
    let printed = applied(&finished.stdout);
    assert_eq!(
        (&printed[0]["calls"], &printed[0]["split"]),
        (&json!(8), &json!(true))
    );
    assert_eq!(printed[0]["syncPoint"], Value::Null);
    assert_eq!(ids(&server).len(), 501);
}

#[test]
fn serialization_failures_are_backed_off_and_not_fatal() {
    // Somebody else writes the same rows all the time, and the server does not try again by itself.
    let server = Server::builder(Datastore::Postgres)
        .flag("--datastore-max-tx-retries=0")
        .start();
    oracle::write_schema(&server, SCHEMA);
    let rows = |update: fn(&str) -> Value| -> Vec<Value> {
        (0..200).map(|n| update(&format!("d{n}"))).collect()
    };
    let one = |revision: u64| match revision % 2 {
        0 => transaction(revision, &rows(delete)),
        _ => transaction(revision, &rows(touch)),
    };
    let changes: Vec<Value> = (2..80).map(one).collect();
    let stream = sealed(&changes, 79);
    // Two of the same: each is the other's rival.
    let rivals: Vec<_> = (0..3)
        .map(|_| {
            apply(&server)
                .args(["--no-coalesce", "--max-retries", "30"])
                .input(stream.clone())
                .spawn()
        })
        .collect();
    let finished: Vec<_> = rivals
        .into_iter()
        .map(|rival| rival.wait().expect_success())
        .collect();
    let said: String = finished.iter().map(|one| one.stderr.as_str()).collect();
    let retries = said.matches("writing again").count();
    figure(&format!("{retries} retries"));
    assert!(retries > 0, "they met");
    assert_eq!(ids(&server).len(), 200);
}
