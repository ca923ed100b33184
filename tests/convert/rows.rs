//! Relationships that an application keeps in its own database, compared with a server and repaired both ways.

use std::collections::BTreeMap;
use std::path::Path;

use authzed::v1::Relationship;
use serde_json::{Value, json};
use testdata::Sample;

use crate::copy::{export, holding};
use crate::support::folder;
use crate::support::oracle::{self, Precision};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::spicedb::Datastore;

/// The rows of the application, by what identifies each.
type Rows = BTreeMap<String, Value>;

fn key_of(relationship: &Value) -> String {
    let part = |name: &str| relationship[name].to_string();
    format!(
        "{} {} {}",
        part("resource"),
        part("relation"),
        part("subject")
    )
}

fn row(relationship: &Relationship) -> (String, Value) {
    let mut line = Vec::new();
    spice_record::snapshot::write_relationship(&mut line, relationship).unwrap();
    let record: Value = serde_json::from_slice(&line).unwrap();
    let relationship = record["relationship"].clone();
    (key_of(&relationship), relationship)
}

/// What an application writes: one object a line, without header and trailer, in its own order.
fn write_rows(path: &Path, rows: &Rows) {
    let lines = rows.values().rev();
    let lines: String = lines
        .map(|row| format!("{}\n", json!({ "relationship": row })))
        .collect();
    std::fs::write(path, lines).unwrap();
}

fn seal(rows: &Path, out: &Path) {
    let program = Program::new("spice-convert").args(["--no-trailer", "--output"]);
    program.arg(out).arg(rows).run().expect_success();
}

/// The updates that turn the first into the second.
fn diff(from: &Path, to: &Path) -> Program {
    Program::new("spice-diff").arg(from).arg(to)
}

#[test]
fn own_database_is_compared_and_repaired_both_ways() {
    let sample = Sample::portable(2_000);
    let server = holding(sample, Datastore::Postgres);
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let mut rows: Rows = sample.iter().map(|one| row(&one)).collect();
    assert_eq!(rows.len(), 2_000);
    export(&server)
        .output_file(&path("server"))
        .run()
        .expect_success();
    // As it should be, nothing differs.
    write_rows(&path("rows"), &rows);
    seal(&path("rows"), &path("sealed"));
    diff(&path("server"), &path("sealed"))
        .run()
        .expect_success();
    // About 150 missing, 100 that the server lacks, 50 with another context.
    let keys: Vec<String> = rows.keys().cloned().collect();
    for key in keys
        .iter()
        .step_by(20)
        .take(100)
        .chain(keys.iter().skip(7).step_by(40).take(50))
    {
        rows.remove(key);
    }
    let other = Sample {
        seed: 99,
        ..Sample::portable(3_000)
    };
    let more: Vec<_> = other.iter().map(|one| row(&one)).collect();
    let more = more
        .into_iter()
        .filter(|(key, _)| !keys.contains(key))
        .take(100);
    let added: Vec<String> = more
        .map(|(key, row)| (rows.insert(key.clone(), row), key).1)
        .collect();
    assert_eq!(added.len(), 100);
    let mut changed = 0;
    let with_context = |row: &&mut Value| row["optionalCaveat"].get("context").is_some();
    for row in rows.values_mut().filter(with_context).take(50) {
        row["optionalCaveat"]
            .as_object_mut()
            .unwrap()
            .remove("context");
        changed += 1;
    }
    assert_eq!(changed, 50);
    write_rows(&path("rows"), &rows);
    seal(&path("rows"), &path("sealed"));

    // The application is repaired by what its own code does with each update.
    let finished = diff(&path("sealed"), &path("server")).run().expect_code(3);
    let mut repaired = rows.clone();
    for record in finished.json_lines() {
        let update = &record["update"];
        let relationship = &update["relationship"];
        match update["operation"].as_str() {
            Some("OPERATION_DELETE") => drop(repaired.remove(&key_of(relationship))),
            Some(_) => drop(repaired.insert(key_of(relationship), relationship.clone())),
            None => {}
        }
    }
    write_rows(&path("repaired rows"), &repaired);
    seal(&path("repaired rows"), &path("repaired"));
    diff(&path("server"), &path("repaired"))
        .run()
        .expect_success();

    // The server is repaired by the updates in the other direction.
    let apply = Program::on("spice-apply", &server);
    let finished = Pipe::from(diff(&path("server"), &path("sealed")))
        .to(apply)
        .run();
    let codes: Vec<_> = finished.iter().map(Finished::code).collect();
    assert_eq!(codes, [Some(3), Some(0)], "{}", finished[1].stderr);
    export(&server)
        .output_file(&path("server"))
        .run()
        .expect_success();
    diff(&path("server"), &path("sealed"))
        .run()
        .expect_success();
    // An independent client counts the same.
    let seen = oracle::dump(&server, Precision::Seconds);
    assert_eq!(seen.len(), rows.len());
}
