//! Streams of a source that numbers transactions when they begin: only a checkpoint is safe.

use serde_json::{Value, json};

use super::{SCHEMA, applied, apply, delete, header_of, ids, integer, lines, position, touch};
use crate::support::folder;
use crate::support::spicedb::{Datastore, Server};
use spice_record::record::StreamKind;

fn header() -> Value {
    let header = header_of(StreamKind::Changes, Some(integer(1)), Some(SCHEMA));
    json!({ "header": header })
}

fn transaction(revision: u64, updates: &[Value]) -> Value {
    json!({"transaction": {"revision": integer(revision), "updates": updates}})
}

fn contended(revision: u64, updates: &[Value]) -> Value {
    json!({"transaction": {"revision": integer(revision), "updates": updates, "contended": true}})
}

fn checkpoint(revision: u64) -> Value {
    json!({"checkpoint": {"revision": integer(revision)}})
}

#[test]
fn position_moves_at_checkpoints_and_pairs_are_made_there() {
    let (server, folder) = (Server::start(Datastore::Memory), folder());
    let file = folder.path().join("position");
    let program = || apply(&server).arg("--position").arg(&file);
    // The DELETE at 87 came after the TOUCH at 90; the stream is cut before it.
    let swapped = [
        header(),
        transaction(87, &[delete("ch407"), touch("other")]),
        transaction(90, &[touch("ch407")]),
    ];
    let finished = program().input(lines(&swapped)).run().expect_code(75);
    assert_eq!(position(&file)["sourceRevision"], integer(1));
    assert_eq!(ids(&server), ["ch407", "other"]);
    let printed = applied(&finished.stdout);
    assert!(
        printed.iter().all(|one| one["syncPoint"] != true),
        "{printed:?}"
    );
    let corrected = [contended(91, &[delete("ch407")]), checkpoint(91)];
    let whole = lines(swapped.iter().chain(&corrected));
    let finished = program().input(whole.clone()).run().expect_code(75);
    assert_eq!(position(&file)["sourceRevision"], integer(91));
    assert_eq!(ids(&server), ["other"]);
    let printed = applied(&finished.stdout);
    let paired: Vec<&Value> = printed
        .iter()
        .filter(|one| one["syncPoint"] == true)
        .collect();
    assert_eq!(paired.len(), 1, "{printed:?}");
    assert_eq!(paired[0]["sourceRevision"], integer(91));
}

#[test]
fn backlog_moves_the_position_to_its_last_checkpoint() {
    let (server, folder) = (Server::start(Datastore::Memory), folder());
    let file = folder.path().join("position");
    let mut stream = vec![header()];
    for revision in (2..200).step_by(2) {
        stream.push(transaction(revision, &[touch(&format!("d{revision}"))]));
        stream.push(checkpoint(revision + 1));
    }
    stream.push(transaction(200, &[touch("last")]));
    let program = apply(&server).arg("--position").arg(&file);
    program.input(lines(&stream)).run().expect_code(75);
    assert_eq!(position(&file)["sourceRevision"], integer(199));
    assert_eq!(ids(&server).len(), 100);
}

#[test]
fn what_collided_is_compared_before_the_end_is_announced() {
    let (server, folder) = (Server::start(Datastore::Memory), folder());
    let file = folder.path().join("position");
    let stream = [
        header(),
        transaction(2, &[touch("a"), touch("b"), touch("c")]),
        transaction(3, &[delete("a")]),
        contended(4, &[touch("a"), delete("b")]),
        checkpoint(4),
    ];
    let finished = apply(&server)
        .args(["--until", &integer(4)])
        .arg("--position")
        .arg(&file)
        .input(lines(&stream))
        .run()
        .expect_success();
    let said = "compared 2 contended relationships with the target: equal";
    assert!(finished.stderr.contains(said), "{}", finished.stderr);
    assert_eq!(ids(&server), ["a", "c"]);
}
