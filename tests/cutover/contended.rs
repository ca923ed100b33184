//! Live migrations while writers collide on the source: they touch, delete and touch again the same
//! relationships within milliseconds, and only the source knows which of them won.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Migration, PATIENCE, fenced, precision, relationship};
use crate::support::oracle::{self, Writers};
use crate::support::spicedb::{Datastore, Server, but_for_dead_mysql_servers};
use crate::support::{figure, repeat, wait_until};
use crate::watch::{Folded, spool_of};

/// How many migrations run at the same time: mostly they wait.
const TOGETHER: u32 = 2;
/// How long the writers continue after the follow has begun.
const COLLIDING: Duration = Duration::from_secs(8);

/// What a migration came to.
struct Moved {
    /// Relationships that whoever replays the changes without what was read has otherwise.
    wrong: usize,
    downtime: f64,
}

/// The stream without the states that were read.
fn uncorrected(spool: &[u8]) -> Vec<u8> {
    let lines = spool.split_inclusive(|byte| *byte == b'\n');
    let plain = lines.filter(|line| {
        let record: Value = serde_json::from_slice(line).unwrap();
        record["transaction"]["contended"] != true
    });
    plain.flatten().copied().collect()
}

/// Prints what the spool has of each relationship that only one end holds.
fn say_what_differs(migration: &Migration, source: &[String], target: &[String]) {
    let spool = spool_of(&migration.file("changes.ndjson"));
    let spool = String::from_utf8_lossy(&spool);
    let only = |some: &[String], others: &[String]| {
        let lines = some.iter().filter(|line| !others.contains(line));
        lines.cloned().collect::<Vec<_>>()
    };
    for line in [only(source, target), only(target, source)].concat() {
        let relationship: Value = serde_json::from_str(&line).unwrap();
        let (_, id) = relationship["resource"]
            .as_str()
            .unwrap()
            .split_once(':')
            .unwrap();
        figure(&format!("at one end only: {line}; in the spool:"));
        for found in spool.lines().filter(|line| line.contains(id)) {
            figure(&format!("  {found}"));
        }
    }
    for checkpoint in spool
        .lines()
        .filter(|line| line.starts_with("{\"checkpoint"))
    {
        figure(checkpoint);
    }
}

/// Verifies while everybody writes.
fn both_ends_agree(migration: &Migration) {
    migration.step(&["verify"]).run().expect_success();
}

fn migrate(from: Datastore) -> Moved {
    let to = Datastore::Memory;
    let mut migration = Migration::between(from, to);
    if from != Datastore::Postgres {
        migration = migration.settling("10s");
    }
    let seed = migration.from.context().to_owned();
    let flags = ["--groups", "2", "--seed", &seed];
    let writers = Writers::colliding(&migration.from, migration.folder.path(), &flags);
    migration.plan_and_copy();
    let following = migration.follow();
    // So long after the first of it has settled.
    let settling = if from == Datastore::Postgres { 0 } else { 10 };
    std::thread::sleep(COLLIDING + Duration::from_secs(settling));
    both_ends_agree(&migration);
    let mut cutover = migration.cutover(&[]);
    let summary = writers.stop();
    fenced(&mut cutover);
    let cutover = cutover.wait();
    let precision = precision(from, to);
    let (source, target) = (
        oracle::dump(&migration.from, precision),
        oracle::dump(&migration.to, precision),
    );
    if cutover.code() != Some(0) {
        say_what_differs(&migration, &source, &target);
    }
    let cutover = cutover.expect_success();
    following.wait().expect_success();
    oracle::assert_same_lines("the source", &source, "the target", &target);
    assert!(cutover.stderr.contains("equal: "), "{}", cutover.stderr);

    let since = migration.saved().start.unwrap().revision;
    let copied = oracle::dump_at(&migration.from, &since, precision);
    let spool = spool_of(&migration.file("changes.ndjson"));
    let plain = Folded::onto(&copied, &uncorrected(&spool)).relationships;
    let right = Folded::onto(&source, &[]).relationships;
    let wrong = plain
        .iter()
        .filter(|(key, line)| right.get(*key) != Some(*line));
    let missing = right.keys().filter(|key| !plain.contains_key(*key));
    let wrong = wrong.count() + missing.count();
    let downtime = super::downtime(&cutover);
    figure(&format!(
        "{from:?}: {} relationships, {summary}, {wrong} of them wrong without what was read, write \
         downtime {downtime} s",
        source.len()
    ));
    Moved { wrong, downtime }
}

/// So many migrations, a few at a time; more where so far nothing collided that matters on such a source.
fn all_are_equal(from: Datastore) -> Vec<Moved> {
    let (rounds, begun) = (repeat(5, 50), AtomicU32::new(0));
    let all: Mutex<Vec<Moved>> = Mutex::new(Vec::new());
    let needs_more =
        || from != Datastore::Postgres && all.lock().unwrap().iter().all(|moved| moved.wrong == 0);
    let one_after_the_other = || {
        loop {
            let begun = begun.fetch_add(1, Ordering::Relaxed);
            if begun >= rounds && (begun >= 4 * rounds || !needs_more()) {
                break;
            }
            let one = || {
                let moved = migrate(from);
                all.lock().unwrap().push(moved);
            };
            match from {
                Datastore::MySql => but_for_dead_mysql_servers(one),
                _ => one(),
            }
        }
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..TOGETHER {
            scope.spawn(one_after_the_other);
        }
    });
    let all = all.into_inner().unwrap();
    let would_fail = all.iter().filter(|moved| moved.wrong > 0).count();
    let wrong: usize = all.iter().map(|moved| moved.wrong).sum();
    let mut downtimes: Vec<f64> = all.iter().map(|moved| moved.downtime).collect();
    downtimes.sort_by(f64::total_cmp);
    figure(&format!(
        "{from:?}: {} migrations equal in {:.0} s; without what was read {would_fail} would not be, by {wrong} \
         relationships; write downtime: median {} s, worst {} s",
        all.len(),
        began.elapsed().as_secs_f64(),
        downtimes[downtimes.len() / 2],
        downtimes[downtimes.len() - 1]
    ));
    all
}

/// Replaying alone would have been wrong: else this shows nothing.
fn read_what_collided(all: &[Moved]) {
    assert!(all.iter().any(|moved| moved.wrong > 0), "nothing collided");
}

#[test]
fn colliding_writers_of_postgres_leave_both_ends_equal() {
    let all = all_are_equal(Datastore::Postgres);
    assert!(
        all.iter().all(|moved| moved.wrong == 0),
        "it needs no reads"
    );
}

#[test]
fn colliding_writers_of_mysql_leave_both_ends_equal() {
    read_what_collided(&all_are_equal(Datastore::MySql));
}

#[test]
fn colliding_writers_of_memory_leave_both_ends_equal() {
    read_what_collided(&all_are_equal(Datastore::Memory));
}

#[test]
fn contended_relationships_are_restored_before_the_switch() {
    let migration = Migration::between(Datastore::Memory, Datastore::Memory).settling("15s");
    migration.plan_and_copy();
    let following = migration.follow();
    let contended: Vec<String> = (0..20).map(|n| relationship(&format!("c{n}"))).collect();
    let write = |server: &Server, operation: &str| {
        let line = |one: &String| one.replacen('{', &format!(r#"{{"op":"{operation}","#), 1) + "\n";
        let lines: String = contended.iter().map(line).collect();
        oracle::load(server, &lines);
    };
    for operation in ["touch", "delete", "touch"] {
        write(&migration.from, operation);
    }
    let precision = precision(Datastore::Memory, Datastore::Memory);
    let source = oracle::dump(&migration.from, precision);
    wait_until("the target holds all", PATIENCE, || {
        oracle::dump(&migration.to, precision) == source
    });
    // What is read once more a settle time later may be there again before that.
    write(&migration.to, "delete");
    let mut cutover = migration.cutover(&[]);
    fenced(&mut cutover);
    let cutover = cutover.wait().expect_success();
    following.wait().expect_success();
    assert!(cutover.stderr.contains("equal: "), "{}", cutover.stderr);
    let target = oracle::dump(&migration.to, precision);
    oracle::assert_same_lines("the source", &source, "the target", &target);
}
