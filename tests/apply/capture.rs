//! The spool and who writes it: a capture that ends, loses its history, or lost its end.

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use serde_json::json;

use super::{
    Capture, PATIENCE, SCHEMA, apply, checkpoint, ends, head, header, header_of, ids, lines, mark,
    position, rejected_code, token, touch, transaction, watch,
};
use crate::support::seal::{Lines, change_position};
use crate::support::spicedb::{Datastore, Server, rows};
use crate::support::{folder, oracle, wait_until};
use crate::watch::history::wait_until_expired;
use spice_record::record::StreamKind;

fn write(server: &Server, id: &str) {
    oracle::write(server, "touch", &format!("document:{id}#viewer@user:eve"));
}

#[test]
fn apply_until_ends_75_when_the_capture_is_killed_and_resumes() {
    let (source, target, folder) = ends(SCHEMA, Datastore::Postgres);
    let capture = Capture::of(&source, folder.path());
    let file = folder.path().join("position");
    let program = || {
        let program = apply(&target).arg("--spool").arg(&capture.spool);
        program.arg("--position").arg(&file)
    };
    let follow = program().spawn();
    write(&source, "first");
    wait_until("it follows", PATIENCE, || rows(&target) == 1);
    capture.running.kill9();
    write(&source, "second");
    let until = mark(&source);
    follow.wait_for_stderr("nobody appends to the spool", PATIENCE);
    // A second one needs a position of its own: the follower holds the lock of this one.
    let copied = folder.path().join("copied");
    std::fs::copy(&file, &copied).unwrap();
    let waiting = apply(&target).arg("--spool").arg(&capture.spool);
    let waiting = waiting
        .arg("--position")
        .arg(&copied)
        .args(["--until", &until])
        .run()
        .expect_code(75);
    // It names the last revision there is, here that of the position.
    let last = position(&file)["sourceRevision"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        waiting.stderr.contains(&last),
        "{}: {}",
        last,
        waiting.stderr
    );
    assert!(
        waiting.stderr.contains("before --until"),
        "{}",
        waiting.stderr
    );
    assert_eq!(rows(&target), 1);
    let again = watch(&source).arg("--spool").arg(&capture.spool).spawn();
    wait_until("the follower resumes by itself", PATIENCE, || {
        rows(&target) == 2
    });
    follow.signal("TERM");
    follow.wait().expect_success();
    program().args(["--until", &until]).run().expect_success();
    drop(again);
    oracle::assert_same_relationships(&source, &target, oracle::Precision::Microseconds);
}

#[test]
fn capture_that_lost_its_history_makes_apply_end_4() {
    let (source, target, folder) = (
        Server::builder(Datastore::Postgres)
            // Longer than a busy machine needs from the head to the first record of the capture.
            .flag("--datastore-gc-window=20s")
            .flag("--datastore-gc-interval=1s")
            .flag("--datastore-revision-quantization-interval=1s")
            .start(),
        Server::start(Datastore::Memory),
        folder(),
    );
    oracle::write_schema(&source, SCHEMA);
    let Capture { spool, mut running } = Capture::of(&source, folder.path());
    wait_until("the spool is begun", PATIENCE, || {
        assert!(running.is_running(), "{}", running.stderr_so_far());
        std::fs::metadata(&spool).is_ok_and(|spool| spool.len() > 0)
    });
    running.kill9();
    drop(running.wait());
    let since = head(&source);
    let follow = || apply(&target).arg("--spool").arg(&spool);
    let following = follow().spawn();
    wait_until_expired(&source, &since);
    write(&source, "unseen");
    watch(&source)
        .arg("--spool")
        .arg(&spool)
        .run()
        .expect_code(4);
    rejected_code(following.wait(), 4, "take a new snapshot");
    rejected_code(follow().run(), 4, "take a new snapshot");
    assert!(ids(&target).is_empty());
}

#[test]
fn spool_cut_below_the_position_is_refused() {
    let (server, folder) = (Server::start(Datastore::Memory), folder());
    let (path, file) = (folder.path().join("spool"), folder.path().join("position"));
    let mut records = vec![header(1)];
    records.extend((2..12).map(|n| transaction(n, &[touch(&format!("d{n}"))])));
    records.push(checkpoint(12));
    std::fs::write(&path, lines(&records)).unwrap();
    let program = |until: u64| {
        let program = apply(&server)
            .arg("--spool")
            .arg(&path)
            .arg("--position")
            .arg(&file);
        program.args(["--until", &token(until)])
    };
    program(12).run().expect_success();
    let stood = position(&file);
    assert_eq!(stood["sourceRevision"], token(12));
    let whole = std::fs::read(&path).unwrap();
    // A power loss: lines are missing at the end, or half of one.
    for cut in [
        lines(&records[..8]).len(),
        whole.len() - 10,
        lines(&records[..1]).len(),
    ] {
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(cut as u64)
            .unwrap();
        rejected_code(
            program(20).run(),
            65,
            "does not hold the position's revision",
        );
        assert_eq!(position(&file), stood);
        // Another writer has begun a longer one in its place.
        let other: Vec<_> = (20..60)
            .map(|n| transaction(n, &[touch("wrong")]))
            .collect();
        let mut spool = OpenOptions::new().append(true).open(&path).unwrap();
        spool
            .write_all(format!("\n{}", lines(&other)).as_bytes())
            .unwrap();
        let refused = program(70).run().expect_code(65);
        assert_eq!(position(&file), stood, "{}", refused.stderr);
        std::fs::write(&path, &whole).unwrap();
    }
    assert!(!ids(&server).contains(&"wrong".to_owned()));
    // The offset is a hint only. Twice there: the first one counts, and what follows is done again.
    let mut twice = records.clone();
    twice.extend([
        transaction(13, &[touch("late")]),
        checkpoint(12),
        transaction(14, &[touch("later")]),
        checkpoint(14),
    ]);
    std::fs::write(&path, lines(&twice)).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let offset = stood["spool"]["offset"].as_u64().unwrap();
    for wrong in [offset - 1, offset + 7, offset * 1000, 1] {
        std::fs::write(&file, &text).unwrap();
        change_position(&file, |position| {
            position.spool.as_mut().unwrap().offset = wrong;
        });
        let done = program(14).run().expect_success();
        let told = super::applied(&done.stdout);
        let transactions: u64 = told
            .iter()
            .map(|one| one["transactions"].as_u64().unwrap())
            .sum();
        assert_eq!(transactions, 2, "offset {wrong}");
    }
    assert!(ids(&server).contains(&"later".to_owned()));
}

#[test]
fn only_segments_that_are_wholly_applied_are_pruned() {
    let (server, folder) = (Server::start(Datastore::Memory), folder());
    let (path, file) = (folder.path().join("spool"), folder.path().join("position"));
    let header = |revision| json!({"header": header_of(StreamKind::Changes, Some(token(revision)), Some(SCHEMA))});
    let segment = |number: u32| match number {
        0 => path.clone(),
        _ => folder.path().join(format!("spool.{number:06}")),
    };
    let mut lines = Lines::default();
    let mut fill = |number: u32, first: u64| {
        let mut records = vec![header(first)];
        let one = |n: u64| transaction(n, &[touch(&format!("d{n}"))]);
        records.extend((first + 1..first + 4).map(one));
        std::fs::write(segment(number), lines.add(&records)).unwrap();
    };
    (0..4).for_each(|number| fill(number, 1 + 3 * u64::from(number)));
    let program = || {
        let program = apply(&server)
            .arg("--spool")
            .arg(&path)
            .arg("--position")
            .arg(&file);
        program.arg("--prune")
    };
    let following = program().spawn();
    wait_until("all but the newest segment are gone", PATIENCE, || {
        let last = token(13);
        (0..3).all(|number| !segment(number).exists()) && position(&file)["sourceRevision"] == last
    });
    assert!(segment(3).exists());
    following.signal("TERM");
    following.wait().expect_success();
    assert_eq!(ids(&server).len(), 12);
    // It resumes in what is left.
    fill(4, 13);
    let mut spool = OpenOptions::new().append(true).open(segment(4)).unwrap();
    let last = lines.add([&checkpoint(16)]);
    spool.write_all(last.as_bytes()).unwrap();
    program()
        .args(["--until", &token(16)])
        .run()
        .expect_success();
    assert_eq!(ids(&server).len(), 15);
    assert!(!segment(3).exists() && segment(4).exists());
    // One that is missing in between is no end.
    let records = [header(19), transaction(20, &[touch("more")])];
    std::fs::write(segment(5), lines.add(&records)).unwrap();
    rejected_code(
        program().args(["--until", &token(22)]).run(),
        65,
        "does not follow",
    );
    // Nor is the beginning there for one who has no position.
    std::fs::remove_file(&file).unwrap();
    rejected_code(
        program().args(["--until", &token(22)]).run(),
        65,
        "pruned, and no position",
    );
}
