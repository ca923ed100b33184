//! A clone of a database, which has the datastore id of the original: it is brought up to date from there.

use serde_json::json;
use testdata::Sample;

use super::{assert_says, counts, dump};
use crate::apply::{apply, head, mark};
use crate::copy::{export, holding, import};
use crate::support::oracle;
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};

const SAMPLE: u64 = 1_000;
const CHANGED: u64 = 20;
const NEW: u64 = 10;
const DELETED: usize = 30;

/// Touches as many relationships, with this network in their caveat context.
fn touch(server: &Server, count: u64, network: &str) {
    let line = |number| {
        let one = json!({
            "op": "touch", "resource": format!("tenant/document:changed-{number}"), "relation": "viewer",
            "subject": "user:u", "caveat": "on_network", "context": {"cidr": network},
        });
        format!("{one}\n")
    };
    oracle::load(server, &(0..count).map(line).collect::<String>());
}

/// A server, a clone of it that has fallen behind, and a revision of the server from before: one of the
/// clone means nothing there. Some relationships are changed, some new.
fn original_and_clone() -> (Server, Server, String) {
    let original = holding(Sample::portable(SAMPLE), Datastore::Postgres);
    touch(&original, CHANGED, "10.0.0.0/8");
    let start = head(&original);
    let clone = original.clone_database();
    assert_eq!(dump(&clone), dump(&original));
    touch(&original, CHANGED + NEW, "192.168.0.0/16");
    (original, clone, start)
}

#[test]
fn import_of_the_original_refreshes_its_clone() {
    let (original, clone, _) = original_and_clone();
    let stream = export(&original).run().expect_success().stdout;
    let program = |flags: &[&str]| import(&clone).args(flags).input(stream.clone()).run();
    let refused = program(&["--on-conflict", "touch"]).expect_code(2);
    assert_says(
        &refused,
        &["the target's own datastore", "--same-datastore"],
    );
    let before = dump(&clone);
    let dry = |policy: &str| program(&["--dry-run", "--same-datastore", "--on-conflict", policy]);
    let counted = "holds 1000 equal and 20 different, which would";
    let plan = dry("touch").expect_success();
    assert_says(
        &plan,
        &[counted, "be touched; 10 are absent and would be loaded"],
    );
    assert_says(&dry("skip").expect_code(3), &[counted, "be skipped"]);
    assert_says(
        &dry("fail").expect_code(1),
        &["conflict of tenant/document:changed-"],
    );
    assert_eq!(dump(&clone), before, "nothing was written");
    let touched = program(&["--same-datastore", "--on-conflict", "touch"]).expect_success();
    assert_eq!(counts(&touched), [NEW, SAMPLE, CHANGED, 0, 0]);
    assert_eq!(dump(&clone), dump(&original));
}

#[test]
fn changes_of_the_original_are_followed_by_its_clone() {
    let (original, clone, start) = original_and_clone();
    let gone: String = dump(&original)
        .iter()
        .take(DELETED)
        .map(|one| oracle::line_of("delete", one))
        .collect();
    oracle::load(&original, &gone);
    let end = mark(&original);
    let follow = |flags: &[&str]| {
        let watch = Program::new("spice-watch").args(["--context", original.context()]);
        let apply = apply(&clone).args(["--until", &end]).args(flags);
        Pipe::from(watch.args(["--since", &start, "--until", &end]))
            .to(apply)
            .run()
            .pop()
            .unwrap()
    };
    let refused = follow(&[]).expect_code(2);
    assert_says(
        &refused,
        &["the target's own datastore", "--same-datastore"],
    );
    follow(&["--same-datastore"]).expect_success();
    assert_eq!(dump(&clone), dump(&original));
}
