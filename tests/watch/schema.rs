//! Changes of the schema, in their place; and spools in segments.

use serde_json::Value;

use super::{Folded, PATIENCE, WATCHING, mark, source, wait_for_stdout, watch, write};
use crate::support::oracle::{self, Writers};
use crate::support::spicedb::{Datastore, Server};
use crate::support::{folder, wait_until};

/// Where in a stream a text comes first.
#[track_caller]
fn place(stream: &[Value], kind: &str, text: &str) -> usize {
    let is = |line: &Value| line[kind].is_object() && line.to_string().contains(text);
    let found = stream.iter().position(is);
    found.unwrap_or_else(|| panic!("no {kind} with {text:?}: {stream:#?}"))
}

/// A relation, then a caveat is added and used at once, while it is watched live and behind the head.
fn followed_on(datastore: Datastore, settle: &str) {
    let server = source(datastore);
    let since = oracle::head(&server);
    let watching = watch(&server)
        .args(["--since", &since, "--settle", settle])
        .spawn();
    watching.wait_for_stderr(WATCHING, PATIENCE);
    write(&server, "touch", "first");
    // Identical: no change, whatever the server sends.
    oracle::write_schema(&server, oracle::WRITERS_SCHEMA);
    wait_for_stdout(&watching, "first");
    let relation = oracle::WRITERS_SCHEMA.replace(
        "  relation holder",
        "  relation owner: user\n  relation holder",
    );
    oracle::write_schema(&server, &relation);
    oracle::load(
        &server,
        "{\"op\":\"touch\",\"resource\":\"item:second\",\"relation\":\"owner\",\"subject\":\"user:u\"}\n",
    );
    wait_for_stdout(&watching, "item:second".split(':').next_back().unwrap());
    let caveat = format!("caveat always(on bool) {{ on }}\n{relation}")
        .replace("use expiration\n", "")
        .replace(
            "user with within |",
            "user with within | user with always |",
        );
    oracle::write_schema(&server, &format!("use expiration\n{caveat}"));
    oracle::load(
        &server,
        "{\"op\":\"touch\",\"resource\":\"item:third\",\"relation\":\"holder\",\
         \"subject\":\"user:u\",\"caveat\":\"always\"}\n",
    );
    super::wait_for_checkpoint_after(&watching, "third");
    // A drain gives the same.
    let live = watching.terminate();
    let folded = Folded::of(&live.stdout);
    folded.assert_is(&server);
    assert_eq!(folded.schemas.len(), 2, "{:#?}", folded.schemas);
    assert_eq!(folded.schemas[1], oracle::read_schema(&server));
    let stream = live.json_lines();
    let [first, second, third] =
        ["first", "second", "third"].map(|name| place(&stream, "transaction", name));
    let [owner, always] = ["owner", "always"].map(|text| place(&stream, "schema", text));
    assert!(first < owner && owner < second, "{stream:#?}");
    assert!(second < always && always < third, "{stream:#?}");
    let before = folded.header["schema"].as_str().unwrap();
    assert!(!before.contains("owner"), "{before}");
}

#[test]
fn schema_changes_on_postgres_are_written_in_their_place() {
    followed_on(Datastore::Postgres, "0s");
}

#[test]
fn schema_changes_in_memory_are_written_in_their_place() {
    followed_on(Datastore::Memory, "0s");
    followed_on(Datastore::Memory, "1s");
}

#[test]
fn schema_changes_on_mysql_are_found_by_comparing() {
    followed_on(Datastore::MySql, "0s");
    followed_on(Datastore::MySql, "1s");
}

/// Nobody watched when it changed.
fn found_by_the_drain(server: &Server) {
    let folder = folder();
    let spool = folder.path().join("changes.ndjson");
    let since = oracle::head(server);
    let quiet = watch(server)
        .args([
            "--since",
            &since,
            "--settle",
            "0s",
            "--until-quiet",
            "1s",
            "--spool",
        ])
        .arg(&spool);
    quiet.run().expect_success();
    let relation = oracle::WRITERS_SCHEMA.replace(
        "  relation holder",
        "  relation owner: user\n  relation holder",
    );
    oracle::write_schema(server, &relation);
    let end = mark(server);
    let drain = || watch(server).args(["--until", &end, "--spool"]).arg(&spool);
    drain().run().expect_success();
    drain().run().expect_success();
    let folded = Folded::of(&super::spool_of(&spool));
    assert_eq!(folded.schemas, [oracle::read_schema(server)]);
}

#[test]
fn schema_changed_while_unwatched_is_written_by_the_drain() {
    for datastore in [Datastore::Postgres, Datastore::MySql, Datastore::Memory] {
        found_by_the_drain(&source(datastore));
    }
}

#[test]
fn segments_never_split_a_revision_and_headers_chain() {
    let server = source(Datastore::Postgres);
    let folder = folder();
    let spool = folder.path().join("changes.ndjson");
    let since = oracle::head(&server);
    let capture = || {
        watch(&server)
            .args(["--since", &since, "--spool-segment", "20k", "--spool"])
            .arg(&spool)
    };
    let capturing = capture().spawn();
    let flags = ["--rate", "20"];
    let writers = Writers::until_stopped(&server, &folder.path().join("journal"), &flags);
    wait_until("some segments are full", PATIENCE, || {
        folder.path().join("changes.ndjson.000005").exists()
    });
    writers.stop();
    // One revision in several parts is as large as some hundred segments.
    super::import_held(&server, "import-", 25_000, || ());
    let relation = oracle::WRITERS_SCHEMA.replace(
        "  relation holder",
        "  relation owner: user\n  relation holder",
    );
    oracle::write_schema(&server, &relation);
    write(&server, "touch", "z");
    let end = mark(&server);
    wait_until("it is captured", PATIENCE, || {
        String::from_utf8_lossy(&super::spool_of(&spool)).contains("item\",\"objectId\":\"z\"")
    });
    capturing.signal("TERM");
    capturing.wait().expect_success();
    capture().args(["--until", &end]).run().expect_success();
    let folded = Folded::of(&super::spool_of(&spool));
    folded.assert_is(&server);
    let mut last = since.clone();
    let mut schema = folded.header["schema"].clone();
    schema = schema.as_str().unwrap().replace("owner", "").into();
    let mut segments = 0;
    for number in 0.. {
        let path = match number {
            0 => spool.clone(),
            _ => folder.path().join(format!("changes.ndjson.{number:06}")),
        };
        let Ok(bytes) = std::fs::read(&path) else {
            break;
        };
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // Panics unless every revision in it is complete.
        let segment = Folded::of(&bytes);
        assert_eq!(
            segment.header["revision"],
            last.as_str(),
            "segment {number}"
        );
        if number > 0 {
            assert_eq!(segment.header["schema"], schema, "segment {number}");
        } else {
            schema = segment.header["schema"].clone();
        }
        if let Some(text) = segment.schemas.last() {
            schema = text.clone().into();
        }
        if let Some((_, revision)) = segment.records.last() {
            last.clone_from(revision);
        }
        segments += 1;
    }
    assert!(segments > 4, "{segments}");
    // A spool in segments is also a start.
    let again = watch(&server)
        .arg("--since-file")
        .arg(&spool)
        .args(["--until", &end])
        .run()
        .expect_success();
    assert!(again.stderr.contains(&last), "{}", again.stderr);
}
