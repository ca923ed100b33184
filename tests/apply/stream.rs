//! Streams and positions: what is taken, what is refused, and what it leaves behind.

use std::process::Command;

use serde_json::{Value, json};
use spice_record::record::StreamKind;

use super::{
    PATIENCE, SCHEMA, applied, apply, checkpoint, delete, header, header_of, ids, lines, mark,
    position, rejected_code, relationship, sealed, spool_of, token, token_of, touch, trailer,
    transaction,
};
use crate::copy::{export, import, stream_of};
use crate::support::disk::SmallDisk;
use crate::support::oracle::{self, Precision};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::seal::change_position;
use crate::support::spicedb::{Datastore, Server, rows};
use crate::support::{folder, wait_until};
use testdata::Sample;

fn three() -> Vec<Value> {
    vec![
        transaction(2, &[touch("a"), touch("b")]),
        transaction(3, &[delete("a"), touch("c")]),
        checkpoint(3),
    ]
}

#[test]
fn changes_are_applied_and_the_position_is_at_their_end() {
    let (server, folder) = (Server::start(Datastore::Memory), folder());
    let file = folder.path().join("position");
    let program = || apply(&server).arg("--position").arg(&file);
    let finished = program().input(sealed(&three(), 3)).run().expect_success();
    assert_eq!(ids(&server), ["b", "c"]);
    assert_eq!(position(&file)["sourceRevision"], token(3));
    let printed = applied(&finished.stdout);
    assert_eq!(printed.last().unwrap()["sourceRevision"], token(3));
    assert_eq!(printed.last().unwrap()["syncPoint"], true);
    // From an earlier position, and from none: the same state.
    change_position(&file, |position| position.source_revision = token(1));
    program().input(sealed(&three(), 3)).run().expect_success();
    std::fs::remove_file(&file).unwrap();
    program().input(sealed(&three(), 3)).run().expect_success();
    assert_eq!(ids(&server), ["b", "c"]);
    assert_eq!(position(&file)["sourceRevision"], token(3));
}

#[test]
fn position_of_another_stream_and_a_gap_are_refused() {
    let (server, other, folder) = (
        Server::start(Datastore::Memory),
        Server::start(Datastore::Memory),
        folder(),
    );
    let file = folder.path().join("position");
    let program = |server: &Server| apply(server).arg("--position").arg(&file);
    program(&server)
        .input(sealed(&three(), 3))
        .run()
        .expect_success();
    let stood = position(&file);

    let mut foreign = header(1);
    foreign["header"]["revision"] = json!(token_of(1, "01234567"));
    let foreign = lines([&foreign, &trailer(1)]);
    rejected_code(program(&server).input(foreign).run(), 2, "another source");
    rejected_code(
        program(&other).input(sealed(&three(), 3)).run(),
        2,
        "another target",
    );
    // Even where there would be nothing left to do.
    let done = program(&other)
        .input(sealed(&three(), 3))
        .args(["--until", &token(3)]);
    rejected_code(done.run(), 2, "another target");
    let mut filtered = header(1);
    filtered["header"]["filter"] = json!({"types": ["document"]});
    rejected_code(
        program(&server).input(lines([&filtered])).run(),
        2,
        "--type",
    );
    // It begins after 5, the position is at 3.
    let late = [header(5), transaction(6, &[touch("z")]), trailer(6)];
    rejected_code(program(&server).input(lines(&late)).run(), 65, "gap");
    assert!(ids(&other).is_empty());
    assert_eq!(ids(&server), ["b", "c"]);
    assert_eq!(position(&file), stood);
}

#[test]
fn stream_of_the_targets_own_datastore_is_refused() {
    let server = Server::start(Datastore::Memory);
    let own = mark(&server);
    let header = json!({"header": header_of(StreamKind::Changes, Some(own), Some(SCHEMA))});
    let stream = lines([&header, &transaction(2, &[touch("a")])]);
    rejected_code(apply(&server).input(stream).run(), 2, "datastore");
}

#[test]
fn stream_without_trailer_is_tried_again_from_the_position() {
    let (server, folder) = (Server::start(Datastore::Memory), folder());
    let file = folder.path().join("position");
    let program = || apply(&server).arg("--position").arg(&file);
    let whole = sealed(&three(), 3);
    let cut = |lines: usize| -> String { whole.split_inclusive('\n').take(lines).collect() };
    rejected_code(program().input(cut(2)).run(), 75, "without a trailer");
    assert_eq!(ids(&server), ["a", "b"]);
    assert_eq!(position(&file)["sourceRevision"], token(2));
    // A line that is torn counts for nothing.
    let torn = &whole[..cut(3).len() - 5];
    rejected_code(program().input(torn).run(), 75, "torn");
    assert_eq!(position(&file)["sourceRevision"], token(2));
    // And --until was not reached.
    let until = program().input(whole.clone()).args(["--until", &token(9)]);
    rejected_code(until.run(), 75, "before --until");
    assert_eq!(position(&file)["sourceRevision"], token(3));
    let until = program().input(whole).args(["--until", &token(3)]);
    until.run().expect_success();
}

#[test]
fn damaged_streams_are_bad_data() {
    let server = Server::start(Datastore::Memory);
    let run = |input: String| apply(&server).input(input).run();
    rejected_code(run(String::new()), 65, "empty input");
    let altered = sealed(&three(), 3).replacen("a test", "a tost", 1);
    rejected_code(run(altered), 65, "header altered");
    let unknown = sealed(&[json!({"tuple": {}})], 1);
    rejected_code(run(unknown), 65, "unknown variant `tuple`");
    let operation = sealed(&three(), 3).replacen("OPERATION_TOUCH", "OPERATION_UPSERT", 1);
    rejected_code(run(operation), 65, "OPERATION_UPSERT");
    let misplaced = sealed(&[json!({"relationship": relationship("a")})], 1);
    rejected_code(run(misplaced), 65, "relationship");
    rejected_code(
        run(lines([&transaction(2, &[touch("a")])])),
        65,
        "--no-trailer",
    );
    let after = sealed(&three(), 3) + &lines([&checkpoint(4)]);
    rejected_code(run(after), 65, "after the trailer");
    let two = lines([&header(1), &header(1)]);
    rejected_code(run(two), 65, "header");
}

#[test]
fn snapshot_is_touched_over_what_the_target_holds() {
    let sample = Sample::rich(3_000);
    let server = Server::start(Datastore::Postgres);
    let schema = testdata::SCHEMA;
    oracle::write_schema(&server, schema);
    import(&server)
        .input(stream_of(Sample {
            relationships: 1_000,
            ..sample
        }))
        .run()
        .expect_success();
    let whole = apply(&server)
        .input(stream_of(sample))
        .run()
        .expect_success();
    let updates: u64 = applied(&whole.stdout)
        .iter()
        .map(|one| one["updates"].as_u64().unwrap())
        .sum();
    assert_eq!(updates, 3_000);
    assert!(
        applied(&whole.stdout)
            .iter()
            .all(|one| one["syncPoint"].is_null())
    );
    let other = Server::start(Datastore::Postgres);
    import(&other)
        .input(stream_of(sample))
        .run()
        .expect_success();
    oracle::assert_same_relationships(&server, &other, Precision::Microseconds);
    // A stream that was cut or altered is reported; what came before is on the target.
    let stream = stream_of(sample);
    let cut = &stream[..stream.len() - 400];
    let cut = &cut[..=cut.iter().rposition(|byte| *byte == b'\n').unwrap()];
    rejected_code(apply(&server).input(cut).run(), 65, "without a trailer");
    let file = folder();
    let with = apply(&server)
        .input(stream)
        .arg("--position")
        .arg(file.path().join("p"));
    rejected_code(with.run(), 2, "--position");
}

#[test]
fn updates_and_relationships_by_hand_need_unsealed() {
    let server = Server::start(Datastore::Memory);
    oracle::write_schema(&server, SCHEMA);
    oracle::write(&server, "touch", "document:old#viewer@user:eve");
    // All of the target, turned by jq into its removal, and two more.
    let jq = |filter: &str| Program::at("jq".as_ref()).args(["-c", filter]);
    let removal = jq(
        r#"select(.relationship) | {update: {operation: "OPERATION_DELETE", relationship: .relationship}}"#,
    );
    let all = Pipe::from(export(&server))
        .to(removal)
        .to(apply(&server).arg("--no-trailer"));
    all.expect_success();
    assert!(ids(&server).is_empty());
    let by_hand = lines(&[
        json!({"relationship": relationship("one")}),
        json!({"update": touch("two")}),
        json!({"update": {"operation": "OPERATION_CREATE", "relationship": relationship("two")}}),
    ]);
    apply(&server)
        .arg("--no-trailer")
        .input(by_hand)
        .run()
        .expect_success();
    assert_eq!(ids(&server), ["one", "two"]);
    // jq's spelling of a sealed stream is as good as ours.
    let (reader, writer) = std::io::pipe().unwrap();
    let spelled = jq(".").input(sealed(&three(), 3)).stdout_to(writer).spawn();
    apply(&server).stdin_from(reader).run().expect_success();
    spelled.wait().expect_success();
    assert_eq!(ids(&server), ["b", "c", "one", "two"]);
}

#[test]
fn delete_unknown_to_the_targets_schema_counts_as_done() {
    for datastore in [Datastore::Memory, Datastore::Postgres] {
        let server = Server::start(datastore);
        let mut gone = delete("a");
        gone["relationship"]["resource"]["objectType"] = json!("folder");
        let mut relation = delete("a");
        relation["relationship"]["relation"] = json!("editor");
        let mut subject = delete("a");
        subject["relationship"]["subject"]["object"]["objectType"] = json!("robot");
        let changes = [
            transaction(2, &[touch("a"), gone, touch("b"), relation, subject]),
            checkpoint(2),
        ];
        apply(&server)
            .input(sealed(&changes, 2))
            .run()
            .expect_success();
        assert_eq!(ids(&server), ["a", "b"]);
    }
}

#[test]
fn metadata_of_the_source_is_kept_if_there_is_room() {
    let server = Server::start(Datastore::Postgres);
    let since = mark(&server);
    let with = |revision, metadata: Value| {
        let mut change = transaction(revision, &[touch(&format!("d{revision}"))]);
        change["transaction"]["metadata"] = json!([metadata]);
        change
    };
    let large = |bytes: usize| json!({"by": "x".repeat(bytes), "numbers": [1, 2.5, {"a": null}]});
    let changes = [
        with(2, json!({"by": "alice", "n": {"of": [1, true, null]}})),
        with(3, large(64_500)),
        with(4, large(65_500)),
        with(5, json!({"spicePipes": {"source": "elsewhere"}})),
        checkpoint(5),
    ];
    let exact = apply(&server)
        .arg("--no-coalesce")
        .input(sealed(&changes, 5));
    let finished = exact.run().expect_success();
    assert!(
        finished.stderr.contains("1 transactions had metadata"),
        "{}",
        finished.stderr
    );
    let seen = super::watch(&server).args(["--since", &since, "--until", &mark(&server)]);
    let seen = seen.run().expect_success().json_lines();
    let metadata: Vec<&Value> = seen
        .iter()
        .filter_map(|line| line["transaction"]["metadata"].get(0))
        .collect();
    assert_eq!(metadata.len(), 4);
    for (one, revision) in metadata.iter().zip(2..) {
        assert_eq!(
            one["spicePipes"],
            json!({"source": "5ou5ce00", "revision": token(revision)})
        );
    }
    assert_eq!(metadata[0]["by"], "alice");
    assert_eq!(metadata[0]["n"], json!({"of": [1, true, null]}));
    assert_eq!(metadata[1]["by"].as_str().unwrap().len(), 64_500);
    assert_eq!(metadata[2].as_object().unwrap().len(), 1);
}

#[test]
fn calls_keep_to_max_rps_and_one_revision_is_one_call() {
    let server = Server::start(Datastore::Memory);
    let changes: Vec<Value> = (2..32)
        .map(|n| transaction(n, &[touch(&n.to_string())]))
        .collect();
    let program = apply(&server)
        .args(["--max-rps", "10"])
        .input(sealed(&changes, 31));
    let finished = program.run().expect_success();
    let printed = applied(&finished.stdout);
    assert_eq!(printed.iter().filter(|one| one["calls"] == 1).count(), 30);
    // 30 calls and 29 pauses; the first may come at once.
    assert!(finished.took.as_millis() >= 2_700, "{:?}", finished.took);
}

#[test]
fn position_survives_a_full_disk() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let server = Server::start(Datastore::Memory);
    let file = disk.path().join("position");
    let program = || apply(&server).arg("--position").arg(&file);
    let first = [transaction(2, &[touch("a"), touch("b")]), checkpoint(2)];
    program().input(sealed(&first, 2)).run().expect_success();
    let stood = position(&file);
    // All that is left.
    let rest = format!("of={}", disk.path().join("rest").display());
    let filled = Command::new("dd")
        .args(["if=/dev/zero", "bs=1k", &rest])
        .output()
        .unwrap();
    assert!(!filled.status.success(), "it is full");
    let full = program().input(sealed(&three(), 3)).run();
    rejected_code(full, 1, "cannot write the position");
    assert_eq!(position(&file), stood);
    std::fs::remove_file(disk.path().join("rest")).unwrap();
    program().input(sealed(&three(), 3)).run().expect_success();
    assert_eq!(position(&file)["sourceRevision"], token(3));
    assert_eq!(ids(&server), ["b", "c"]);
    let mut left: Vec<_> = std::fs::read_dir(disk.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["position", "position.lock"]);
}

#[test]
fn position_is_applied_by_one_process_at_a_time() {
    let (server, folder) = (Server::start(Datastore::Postgres), folder());
    let (spool, file) = (folder.path().join("spool"), folder.path().join("position"));
    let last = spool_of(&spool, 200, 2);
    let program = || {
        let apply = apply(&server).arg("--spool").arg(&spool);
        apply.arg("--position").arg(&file)
    };
    let first = program().args(["--max-rps", "20"]).spawn();
    wait_until("it applies", PATIENCE, || rows(&server) > 0);
    let second = program()
        .args(["--until", &token(last)])
        .run()
        .expect_code(2);
    let owner = format!("(process {})", first.pid());
    assert!(second.stderr.contains(&owner), "{}", second.stderr);
    assert!(second.stderr.contains("hint:"), "{}", second.stderr);
    // Its lock ends with it, however it ends.
    first.kill9();
    first.wait();
    let resumed = program().args(["--until", &token(last)]).run();
    resumed.expect_success();
    assert_eq!(rows(&server), 400);
}
