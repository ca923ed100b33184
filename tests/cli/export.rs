//! What `spice-export` refuses, and where it writes to.

use base64::Engine as _;
use testdata::Sample;

use super::{AT_ONCE, assert_says, run, with_schema};
use crate::copy::{export, holding};
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::spicedb::Datastore;

#[test]
fn export_of_what_is_not_there_prints_nothing() {
    let server = holding(Sample::portable(100), Datastore::Postgres);
    let other = holding(Sample::portable(1), Datastore::Postgres);
    let foreign = oracle::head(&other);
    let of_memory = oracle::head(&with_schema(Datastore::Memory));
    let nowhere = "/nosuch/folder/backup.ndjson";
    let cases: [(&[&str], i32, &[&str]); 8] = [
        (
            &["--type", "tenant/documents"],
            2,
            &[
                "--type tenant/documents",
                "hint: it has: ",
                "tenant/document",
            ],
        ),
        (&["--type", ""], 2, &["--type", "hint: it has: "]),
        (&["--at", "garbage"], 2, &["--at", "expected a zedtoken"]),
        (&["--at", &foreign], 1, &["another datastore"]),
        (&["--at", &of_memory], 1, &["another datastore"]),
        // A valid zedtoken that no server has given out.
        (&["--at", "Gg0KATQSCDhkMmQ1YzI3"], 1, &["another datastore"]),
        (&["--output", nowhere], 1, &["cannot create", nowhere]),
        (
            &["--output", "/tmp"],
            1,
            &["cannot create /tmp", "directory"],
        ),
    ];
    for (flags, code, words) in cases {
        let finished = run(export(&server).args(flags));
        assert_says(&finished, code, words, &format!("{flags:?}"));
        assert!(finished.stdout.is_empty(), "{flags:?}");
        assert!(finished.took < AT_ONCE, "{flags:?}");
    }
}

#[test]
fn export_at_an_expired_or_future_revision_is_lost_history() {
    let server = with_schema(Datastore::Memory);
    let head = run(Program::new("spice-revision").args([
        "--head",
        "--settle",
        "0s",
        "--json",
        "--context",
        server.context(),
    ]));
    let id = head.expect_success().json_lines()[0]["revision"]["datastoreId"].clone();
    let future = zedtoken("9000000000000000000", id.as_str().unwrap());
    let finished = run(export(&server).args(["--at", &future]));
    let words = [
        "the revision has left the server's history",
        "or never was in it",
    ];
    assert_says(&finished, 4, &words, "future");
    assert!(finished.stdout.is_empty());
}

/// The zedtoken of a revision, as a server would write it.
fn zedtoken(revision: &str, datastore: &str) -> String {
    let field = |tag: u8, text: &[u8]| {
        let mut bytes = vec![tag, u8::try_from(text.len()).unwrap()];
        bytes.extend_from_slice(text);
        bytes
    };
    let inner = [
        field(0x0a, revision.as_bytes()),
        field(0x12, datastore.as_bytes()),
    ];
    base64::engine::general_purpose::STANDARD.encode(field(0x1a, &inner.concat()))
}

#[test]
fn export_at_a_revision_with_another_schema_asks_for_a_new_one() {
    for datastore in [Datastore::Memory, Datastore::Postgres] {
        let server = holding(Sample::portable(100), datastore);
        let before = oracle::head(&server);
        let changed = testdata::SCHEMA.replace(
            "permission edit = owner",
            "permission edit = owner + viewer",
        );
        oracle::write_schema(&server, &changed);
        let finished = run(export(&server).args(["--at", &before]));
        let words = [
            "changed after revision",
            "tenant/document#edit",
            "hint: take a new revision",
        ];
        assert_says(&finished, 1, &words, &format!("{datastore:?}"));
        assert!(finished.stdout.is_empty());
        // Written again as it was, the text is the revision's once more.
        oracle::write_schema(&server, testdata::SCHEMA);
        let exported = run(export(&server).args(["--at", &before])).expect_success();
        assert_eq!(exported.json_lines()[0]["header"]["revision"], before);
    }
}

#[test]
fn output_to_a_device_or_a_link_leaves_it_in_place() {
    let server = holding(Sample::portable(10), Datastore::Memory);
    let folder = crate::support::folder();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    std::fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    run(export(&server).arg("--output").arg(&link)).expect_success();
    assert!(link.is_symlink());
    assert_eq!(std::fs::read_to_string(&real).unwrap().lines().count(), 12);
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let mut exporting = export(&server).arg("--output").arg(&pipe).spawn();
    assert!(exporting.is_running());
    let came = std::fs::read_to_string(&pipe).unwrap();
    exporting.wait().expect_success();
    assert_eq!(came.lines().count(), 12);
    assert!(!pipe.is_file());
}
