//! Damaged changes: what is on the target is what the stream had before the damage, and no more.

use std::collections::BTreeSet;
use std::path::Path;

use fuzz::{Edit, Kind, damage};
use serde_json::{Value, json};

use super::in_parallel;
use crate::apply::{apply, checkpoint, header, ids, position, token, touch, trailer, transaction};
use crate::support::program::Program;
use crate::support::seal::lines;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{figure, folder, repeat};

/// The ids that are there after so many transactions of a round.
fn expected(round: usize, through: u64) -> impl Iterator<Item = String> {
    (2..=through).map(move |revision| format!("r{round}-{revision}"))
}

/// Transactions through revision 7, one in parts, and checkpoints.
fn records(round: usize) -> Vec<Value> {
    let id = |revision: u64| format!("r{round}-{revision}");
    let mut records = vec![header(1)];
    for revision in 2..=7 {
        let updates = [touch(&id(revision))];
        let whole = transaction(revision, &updates);
        if revision == 4 {
            let mut first = transaction(revision, &[]);
            first["transaction"]["part"] = json!(1);
            let mut last = whole;
            last["transaction"]["part"] = json!(2);
            last["transaction"]["lastPart"] = json!(true);
            records.extend([first, last]);
        } else {
            records.push(whole);
        }
        records.push(checkpoint(revision));
    }
    records
}

/// Applies a damaged stream; returns the revision of the position, `None` without one.
fn applied(program: Program, file: &Path) -> (Option<i32>, Option<u64>) {
    let finished = program.arg("--position").arg(file).run();
    assert!(
        finished.stderr.len() < 4_096,
        "{} bytes of messages",
        finished.stderr.len()
    );
    let applied_through = file.exists().then(|| {
        let applied_through = position(file)["sourceRevision"].clone();
        let number = (1..=7).find(|revision| applied_through == json!(token(*revision)));
        number.expect("a revision of the stream")
    });
    (finished.code(), applied_through)
}

#[test]
fn damaged_changes_are_applied_up_to_the_damage_and_no_further() {
    let server = Server::start(Datastore::Memory);
    let folder = folder();
    let rounds = repeat(150, 1_500) as usize;
    let there = std::sync::Mutex::new(BTreeSet::new());
    in_parallel(rounds, |round| {
        let mut rng = fastrand::Rng::with_seed(round as u64);
        let mut records = records(round);
        records.push(trailer(7));
        let sound = lines(&records);
        let edit = match rng.u8(..4) {
            0 => Edit::DeleteLine(rng.u16(1..)),
            1 => Edit::SwapLines(rng.u16(..), rng.u16(..)),
            _ => Edit::Flip(rng.u32(..)),
        };
        let damaged = damage(sound.as_bytes(), std::slice::from_ref(&edit));
        let is_sound = Kind::Changes.read(damaged.as_slice()).is_ok();
        let file = folder.path().join(format!("position-{round}"));
        let (code, applied_through) = applied(apply(&server).input(damaged), &file);
        let codes: &[i32] = if is_sound { &[0] } else { &[65, 75, 2] };
        assert!(
            code.is_some_and(|code| codes.contains(&code)),
            "{round}: {edit:?}: {code:?}"
        );
        if is_sound {
            assert_eq!(applied_through, Some(7), "{round}: {edit:?}");
        }
        let ids = expected(round, applied_through.unwrap_or(1));
        there.lock().unwrap().extend(ids);
    });
    let there = there.into_inner().unwrap();
    let found: BTreeSet<String> = ids(&server).into_iter().collect();
    // A transaction may be on the target whose position was not yet saved; it is that of a line before
    // the damage, and never half of one.
    let more: Vec<&String> = found.difference(&there).collect();
    assert!(
        there.is_subset(&found) && more.len() < rounds / 2,
        "{more:?}"
    );
    figure(&format!(
        "{rounds} damaged change streams: none applied beyond its damage"
    ));
}

#[test]
fn damaged_spools_are_applied_up_to_the_damage_and_no_further() {
    let server = Server::start(Datastore::Memory);
    let folder = folder();
    let rounds = repeat(40, 400) as usize;
    in_parallel(rounds, |round| {
        let mut rng = fastrand::Rng::with_seed(round as u64);
        let sound = lines(&records(round));
        // Not in the last line: its end may yet be written.
        let last = sound.trim_end().rfind('\n').unwrap();
        let edit = Edit::Flip(rng.u32(..u32::try_from(last * 8).unwrap()));
        let damaged = damage(sound.as_bytes(), std::slice::from_ref(&edit));
        let spool = folder.path().join(format!("spool-{round}"));
        std::fs::write(&spool, &damaged).unwrap();
        let program = apply(&server)
            .arg("--spool")
            .arg(&spool)
            .args(["--until", &token(7)]);
        let file = folder.path().join(format!("position-{round}"));
        let (code, applied_through) = applied(program, &file);
        assert!(
            code == Some(65) || (code == Some(0) && applied_through == Some(7)),
            "{round}: {edit:?}: {code:?}, {applied_through:?}"
        );
    });
}

#[test]
fn filtered_changes_are_taken_with_partial_and_refused_without() {
    let server = Server::start(Datastore::Memory);
    let mut records = records(0);
    records.push(trailer(7));
    let sound = lines(&records);
    // Without two transactions; and with one that a filter has changed.
    let kept: Vec<&str> = sound.split_inclusive('\n').collect();
    let dropped = [&kept[..1], &kept[3..]].concat().concat();
    let jq = |filter: &str| {
        Program::at("jq".as_ref())
            .args(["-c", filter])
            .input(sound.clone())
            .run()
            .expect_success()
            .stdout
    };
    let changed = jq(
        "if .transaction then .transaction.updates |= map(select(.relationship.resource.objectId \
         != \"r0-3\")) else . end",
    );
    let unsealed = jq(
        "if .transaction then .transaction |= (del(.checksum) | .updates |= \
         map(select(.relationship.resource.objectId != \"r0-3\"))) else . end",
    );
    let refused = apply(&server).input(dropped.clone()).run().expect_code(65);
    assert!(refused.stderr.contains("--partial"), "{}", refused.stderr);
    let refused = apply(&server).input(unsealed.clone()).run().expect_code(65);
    assert!(refused.stderr.contains("--partial"), "{}", refused.stderr);
    let partial = |input: Vec<u8>| apply(&server).arg("--partial").input(input).run();
    partial(dropped.into_bytes()).expect_success();
    assert!(!ids(&server).contains(&"r0-2".to_owned()));
    // A line that has a checksum must be as it was written.
    partial(changed).expect_code(65);
    partial(unsealed).expect_success();
    let all: Vec<String> = expected(0, 7).collect();
    assert_eq!(ids(&server), all);
}
