//! Flags, starts and ends that make no sense, and their messages.

use std::path::PathBuf;

use serde_json::{Value, json};
use spice_record::relationship::StructJson;

use super::{Folded, PATIENCE, WATCHING, mark, source, source_with, spool_of, watch, write};
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::seal;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{folder, wait_until};

#[track_caller]
fn assert_says(program: Program, code: i32, words: &[&str]) -> Finished {
    let finished = program.run().expect_code(code);
    for word in words {
        let stderr = &finished.stderr;
        assert!(stderr.contains(word), "{word:?} is not in: {stderr}");
    }
    assert_eq!(finished.text(), "", "nothing is written");
    finished
}

#[test]
fn nonsensical_start_and_types_are_usage_errors() {
    let server = source(Datastore::Postgres);
    let since = oracle::head(&server);
    assert_says(watch(&server), 2, &["--since ZEDTOKEN", "spice-revision"]);
    assert_says(
        watch(&server).args(["--since", &since, "--type", "item", "--type", "itme"]),
        2,
        &["--type itme", "no such definition", "it has: item, user"],
    );
    assert_says(
        watch(&server).args(["--since", &since, "--until", &since]),
        2,
        &["names no transaction", "--mark"],
    );
    let other = source(Datastore::Memory);
    let foreign = oracle::head(&other);
    assert_says(
        watch(&server).args(["--since", &since, "--until", &foreign]),
        2,
        &["another datastore"],
    );
    assert_says(
        watch(&server).args(["--since", &foreign]),
        1,
        &["another datastore"],
    );
    // Of the same kind, so that only the datastore's id differs.
    let sibling = source(Datastore::Postgres);
    assert_says(
        watch(&server).args(["--since", &oracle::head(&sibling)]),
        1,
        &["another datastore"],
    );
    assert_says(
        watch(&server).args(["--since", &since, "--skip-applied"]),
        2,
        &["--skip-applied", "--since-file"],
    );
    assert_says(
        watch(&server).args(["--since", &since, "--spool-segment", "1k"]),
        2,
        &["--spool"],
    );
}

#[test]
fn type_filter_is_kept_by_the_spool() {
    let server = source(Datastore::Postgres);
    oracle::write_schema(
        &server,
        &format!(
            "{}\ndefinition other {{\n  relation holder: user\n}}\n",
            oracle::WRITERS_SCHEMA
        ),
    );
    let folder = folder();
    let spool = folder.path().join("changes.ndjson");
    let since = oracle::head(&server);
    write(&server, "touch", "a");
    oracle::load(
        &server,
        &super::line("touch", "b").replace("item:", "other:"),
    );
    let end = mark(&server);
    let with = |name: &str| {
        let program = watch(&server).args(["--since", &since, "--until", &end, "--type", name]);
        program.arg("--spool").arg(&spool)
    };
    with("other").run().expect_success();
    let folded = Folded::of(&spool_of(&spool));
    let held: Vec<_> = folded.relationships.keys().collect();
    assert_eq!(held, ["other:b#holder@user:u"]);
    assert_eq!(folded.header["filter"], json!({"types": ["other"]}));
    let words = ["--type and --resource-prefix must stay what they were"];
    assert_says(with("item"), 2, &words);
}

#[test]
fn foreign_damaged_or_locked_spool_is_refused() {
    let server = source(Datastore::Memory);
    let folder = folder();
    let spool = folder.path().join("changes.ndjson");
    let since = oracle::head(&server);
    write(&server, "touch", "a");
    write(&server, "touch", "b");
    let begin = |server: &Server| {
        watch(server)
            .args(["--since", &since, "--settle", "0s", "--spool"])
            .arg(&spool)
    };
    let first = begin(&server).spawn();
    first.wait_for_stderr(WATCHING, PATIENCE);
    let pid = first.pid().to_string();
    assert_says(
        begin(&server),
        2,
        &["another spice-watch", &pid, "one writer"],
    );
    wait_until("both are in the spool", PATIENCE, || {
        let spool = String::from_utf8_lossy(&spool_of(&spool)).into_owned();
        spool.contains(r#""objectId":"b""#)
    });
    first.signal("TERM");
    first.wait().expect_success();
    let other = source(Datastore::Memory);
    let foreign = begin(&other).run();
    assert_eq!(foreign.code(), Some(1), "{}", foreign.stderr);
    assert!(
        foreign.stderr.contains("another datastore"),
        "{}",
        foreign.stderr
    );
    let good = std::fs::read_to_string(&spool).unwrap();
    // In its middle; what was good before it is named, so that it can be kept.
    let complete = good.match_indices('\n').nth(1).unwrap().0 + 1;
    let mut bad = good.clone().into_bytes();
    bad[complete + 3] = b'?';
    std::fs::write(&spool, &bad).unwrap();
    let truncate = format!("truncate -s {complete} {}", spool.display());
    assert_says(begin(&server), 65, &[":3:", "damaged", &truncate]);
    assert_eq!(std::fs::read(&spool).unwrap(), bad, "left as it is");
    // The next command, as in the hint.
    std::fs::write(&spool, &bad[..complete]).unwrap();
    let end = mark(&server);
    begin(&server)
        .args(["--until", &end])
        .run()
        .expect_success();
    Folded::of(&spool_of(&spool)).assert_is(&server);
}

#[test]
fn disabled_watch_ends_1_and_names_the_flag() {
    let server = source_with(Datastore::Postgres, &["--datastore-disable-watch-support"]);
    let since = oracle::head(&server);
    let finished = watch(&server)
        .args(["--since", &since])
        .run()
        .expect_code(1);
    for word in [
        "Watch",
        "--datastore-disable-watch-support",
        "track_commit_timestamp",
    ] {
        assert!(finished.stderr.contains(word), "{}", finished.stderr);
    }
    assert_eq!(Folded::of(&finished.stdout).records.len(), 0);
}

#[test]
fn start_is_taken_from_every_kind_of_file() {
    let server = source(Datastore::Postgres);
    let other = oracle::head(&source(Datastore::Postgres));
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    write(&server, "touch", "a");
    let begin = oracle::head(&server);
    let export = Program::new("spice-export").args(["--context", server.context()]);
    let snapshot = export.run().expect_success();
    std::fs::write(path("snapshot"), &snapshot.stdout).unwrap();
    let at = snapshot.json_lines()[0]["header"]["revision"].clone();
    let second = write(&server, "touch", "b");
    let third = write(&server, "touch", "c");
    let end = mark(&server);
    let stream = watch(&server).args(["--since", &begin, "--until", &second]);
    let stream = stream.run().expect_success().stdout;
    std::fs::write(path("stream"), &stream).unwrap();
    let told = Folded::of(&stream).last().to_owned();
    let spool = watch(&server).args(["--since", &begin, "--until", &third, "--spool"]);
    spool.arg(path("spool")).run().expect_success();
    let spooled = Folded::of(&spool_of(&path("spool"))).last().to_owned();
    let summary = |source: &str, target: &str| {
        json!({"imported": {"relationships": 0, "loaded": 0, "present": 0, "touched": 0, "skipped": 0, "rejected": 0,
            "sourceRevision": source, "targetRevision": target, "digest": "0".repeat(32), "expiryPrecision": "us",
            "verified": true, "seconds": 1.0}})
    };
    let applied = |source: &str, target: &str| {
        json!({"applied": {"sourceRevision": source, "targetRevision": target,
            "transactions": 1, "updates": 1, "calls": 1}})
    };
    let file = |name: &str, record: Value| {
        std::fs::write(path(name), format!("{record}\n")).unwrap();
        path(name)
    };
    let cases: Vec<(PathBuf, &str)> = vec![
        (path("snapshot"), at.as_str().unwrap()),
        (path("stream"), &told),
        (path("spool"), &spooled),
        (file("imported", summary(&second, &other)), &second),
        (file("imported back", summary(&other, &second)), &second),
        (file("applied", applied(&second, &other)), &second),
        (file("applied back", applied(&other, &second)), &second),
        (file("position", seal::position(&second, &other)), &second),
        (
            file("position back", seal::position(&other, &second)),
            &second,
        ),
    ];
    for (file, expected) in cases {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let program = || {
            // Even with --since: it is older.
            let both = ["--since", &begin, "--until", &end, "--since-file"];
            watch(&server).args(both).arg(&file)
        };
        let finished = program().run().expect_success();
        let folded = Folded::of(&finished.stdout);
        assert_eq!(folded.header["revision"], expected, "{name}");
        // Proven to be after a load: only where something was written to this server.
        let proven = program().arg("--skip-applied").run();
        let code = if name.ends_with("back") { 0 } else { 2 };
        assert_eq!(proven.code(), Some(code), "{name}: {}", proven.stderr);
    }
    // Where there is no file yet, the flag counts; alone, it has to be there.
    let missing = path("missing");
    let finished = watch(&server)
        .args(["--since", &second, "--until", &end, "--since-file"])
        .arg(&missing)
        .run()
        .expect_success();
    assert_eq!(Folded::of(&finished.stdout).header["revision"], second);
    let alone = watch(&server).arg("--since-file").arg(&missing);
    assert_says(alone, 1, &["missing"]);
    let neither = file("neither", seal::position(&other, &other));
    let neither = watch(&server).arg("--since-file").arg(neither);
    assert_says(neither, 1, &["another datastore"]);
}

#[test]
fn applied_transactions_become_checkpoints_with_skip_applied() {
    let server = source(Datastore::Postgres);
    let folder = folder();
    let since = oracle::head(&server);
    let position = folder.path().join("position");
    let record = seal::position(&since, &since);
    std::fs::write(&position, format!("{record}\n")).unwrap();
    write(&server, "touch", "own");
    // What spice-apply writes.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let token = runtime.block_on(async {
        use authzed::v1::{RelationshipUpdate, WriteRelationshipsRequest};
        let applied = json!({"spicePipes": {"source": "aaaaaaaa", "revision": "1"}});
        let applied: StructJson = serde_json::from_value(applied).unwrap();
        let request = WriteRelationshipsRequest {
            updates: vec![RelationshipUpdate {
                operation: authzed::v1::relationship_update::Operation::Touch.into(),
                relationship: Some(super::item("applied")),
            }],
            optional_transaction_metadata: Some(applied.0),
            ..WriteRelationshipsRequest::default()
        };
        super::client(&server)
            .await
            .write_relationships(request)
            .await
            .unwrap()
    });
    write(&server, "touch", "own2");
    let end = mark(&server);
    let program = || {
        watch(&server)
            .args(["--until", &end, "--since-file"])
            .arg(&position)
    };
    let all = Folded::of(&program().run().expect_success().stdout);
    all.assert_is(&server);
    let finished = program().arg("--skip-applied").run().expect_success();
    let folded = Folded::of(&finished.stdout);
    let names: Vec<_> = folded.relationships.keys().cloned().collect();
    assert_eq!(names, ["item:own#holder@user:u", "item:own2#holder@user:u"]);
    assert!(folded.records.contains(&("checkpoint".to_owned(), token)));
}
