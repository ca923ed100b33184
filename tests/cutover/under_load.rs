//! Cutovers under 4 writers, with bulk imports in flight: every acknowledged write is on the target,
//! none extra, and the write downtime stays small.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Migration, downtime, fenced, precision, relationship};
use crate::support::oracle::{self, Writers};
use crate::support::spicedb::{Datastore, but_for_dead_mysql_servers};
use crate::support::{figure, repeat};

/// In a soak the machine is meant to bear the load, so it must have come to this many updates a
/// second, and the write downtime is what is promised. `make test` runs other tests beside these.
pub(super) fn least_rate() -> f64 {
    f64::from(repeat(150, 1_000))
}

/// How much longer than promised the write downtime may be.
fn slack() -> f64 {
    f64::from(repeat(60, 1))
}

/// One of these tests at a time: what they measure is each other otherwise.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Load {
    from: Datastore,
    to: Datastore,
    flags: &'static [&'static str],
    settle: Option<&'static str>,
    /// The target's database has statistics, as one has that was followed for minutes.
    is_warm: bool,
}

/// What a migration under load came to.
#[derive(Debug)]
struct Measured {
    /// Seconds without writes.
    downtime: f64,
    /// Updates a second of the writers.
    rate: f64,
    /// Updates a second that the target took after the fence.
    target_rate: f64,
    /// Seconds in which it took what was left behind the fence.
    backlog: f64,
}

/// How many updates a second an apply wrote from an instant on, from its first record to its last, and in how many
/// seconds. With one record, or none, there was nothing to wait for.
fn rate_since(applied: &str, since: jiff::Timestamp) -> (f64, f64) {
    let records = applied.lines().filter_map(|line| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let at = record["applied"]["at"].as_str()?;
        let at: jiff::Timestamp = at.parse().unwrap();
        Some((at, record["applied"]["updates"].as_f64()?))
    });
    let records: Vec<(jiff::Timestamp, f64)> = records.filter(|one| one.0 >= since).collect();
    if records.len() < 2 {
        return (f64::INFINITY, 0.0);
    }
    let (first, last) = (&records[0], &records[records.len() - 1]);
    let updates: f64 = records[1..].iter().map(|one| one.1).sum();
    let seconds = last.0.duration_since(first.0).as_secs_f64();
    (updates / seconds, seconds)
}

/// One migration under load.
///
/// The journal names what must be on the target, as the independent client reads it there: so it does
/// not matter what the source answers.
fn migrate(load: &Load) -> Measured {
    let migration = Migration::between(load.from, load.to);
    let migration = match load.settle {
        Some(settle) => migration.settling(settle),
        None => migration,
    };
    let journal = migration.folder.path().join("journal");
    let began = Instant::now();
    let writers = Writers::until_stopped(&migration.from, &journal, load.flags);
    migration.plan_and_copy();
    let following = migration.follow();
    let imported: Vec<String> = std::thread::scope(|scope| {
        let one = |number: u32| {
            let from = &migration.from;
            scope.spawn(move || {
                let name = |n: u32| relationship(&format!("bulk{number}-{n}"));
                let lines: Vec<String> = (0..3_000).map(name).collect();
                oracle::load_bulk_slowly(from, &lines, Duration::from_millis(500));
                lines
            })
        };
        let imports: Vec<_> = (0..2).map(one).collect();
        imports
            .into_iter()
            .flat_map(|import| import.join().unwrap())
            .collect()
    });
    if load.is_warm {
        // As autovacuum does within a minute. Without statistics PostgreSQL scans the table for each update.
        migration.to.sql("ANALYZE relation_tuple");
    }
    let mut cutover = migration.cutover(&[]);
    let rate = began.elapsed();
    let summary = writers.stop();
    let rate = summary["updates"].as_f64().unwrap() / rate.as_secs_f64();
    let since = jiff::Timestamp::now();
    fenced(&mut cutover);
    let cutover = cutover.wait().expect_success();
    assert!(cutover.stderr.contains("equal: "), "{}", cutover.stderr);
    following.wait().expect_success();

    let precision = precision(load.from, load.to);
    let mut expected = oracle::expected(&journal, precision);
    expected.extend(imported);
    expected.sort();
    let there = oracle::dump(&migration.to, precision);
    oracle::assert_same_lines("the journal", &expected, "the target", &there);
    let told = cutover
        .stderr
        .lines()
        .find(|line| line.contains("write downtime"));
    figure(told.unwrap());
    let downtime = downtime(&cutover);
    let applied = std::fs::read_to_string(migration.file("applied.ndjson")).unwrap();
    let (target_rate, backlog) = rate_since(&applied, since);
    figure(&format!(
        "{:?} to {:?}: write downtime {downtime} s at {rate:.0} updates a second, the target took {target_rate:.0}, \
         {} relationships",
        load.from,
        load.to,
        there.len()
    ));
    Measured {
        downtime,
        rate,
        target_rate,
        backlog,
    }
}

/// Repeats it until `rounds` were under enough load; sorted by write downtime.
fn migrate_often(load: &Load, rounds: u32) -> Vec<Measured> {
    let _alone = alone();
    let mut all = Vec::new();
    let mut slow = 0;
    while all.len() < rounds as usize {
        let measured = migrate(load);
        if measured.rate >= least_rate() {
            all.push(measured);
        } else {
            slow += 1;
            assert!(
                slow < 3.max(rounds),
                "the writers were too slow: {measured:?}"
            );
        }
    }
    all.sort_by(|left, right| left.downtime.total_cmp(&right.downtime));
    all
}

/// From PostgreSQL nothing has to settle: what is not drained in a second or so was not followed. The imports may
/// have committed just before the fence, and how fast the target takes 6,000 updates is its own affair.
fn is_short(all: &[Measured], most_at_median: f64) {
    let (median, worst) = (all[all.len() / 2].downtime, all[all.len() - 1].downtime);
    let beside = |one: &Measured| one.downtime - one.backlog;
    let mut all_beside: Vec<f64> = all.iter().map(beside).collect();
    all_beside.sort_by(f64::total_cmp);
    let median_beside = all_beside[all.len() / 2];
    figure(&format!(
        "write downtime: median {median} s, worst {worst} s; median beside the backlog {median_beside:.3} s"
    ));
    assert!(worst <= 3.0 * slack(), "{all:?}");
    assert!(median_beside <= most_at_median * slack(), "{all:?}");
}

const POSTGRES_TO_POSTGRES: Load = Load {
    from: Datastore::Postgres,
    to: Datastore::Postgres,
    flags: &["--rate", "6", "--updates", "120", "--expiry", "us"],
    settle: None,
    is_warm: true,
};

#[test]
fn postgres_to_postgres_under_load_loses_nothing() {
    is_short(&migrate_often(&POSTGRES_TO_POSTGRES, repeat(3, 20)), 0.5);
}

#[test]
fn postgres_without_statistics_under_load_loses_nothing() {
    let load = Load {
        is_warm: false,
        ..POSTGRES_TO_POSTGRES
    };
    is_short(&migrate_often(&load, repeat(1, 5)), 1.0);
}

#[test]
fn postgres_to_mysql_under_load_loses_nothing() {
    let load = Load {
        from: Datastore::Postgres,
        to: Datastore::MySql,
        flags: &["--rate", "8", "--updates", "75"],
        settle: None,
        is_warm: false,
    };
    is_short(&migrate_often(&load, repeat(1, 5)), 1.0);
}

/// Behind a settle time of 5 s, so many seconds of writes are left to be applied after the fence.
fn is_as_short_as_the_target_allows(all: &[Measured]) {
    for one in all {
        let most = 2.0 + 5.0 * one.rate / one.target_rate;
        assert!(
            one.downtime <= most * slack(),
            "more than {most} s: {one:?}"
        );
    }
}

#[test]
fn mysql_to_memory_under_load_drains_what_had_to_settle() {
    but_for_dead_mysql_servers(|| {
        let load = Load {
            from: Datastore::MySql,
            to: Datastore::Memory,
            flags: &["--rate", "8", "--updates", "100"],
            settle: Some("5s"),
            is_warm: false,
        };
        is_as_short_as_the_target_allows(&migrate_often(&load, repeat(1, 5)));
    });
}

/// Few and large transactions: under many a memory datastore has no stable snapshots
/// (docs/reliability.md).
#[test]
fn memory_to_postgres_under_load_drains_what_had_to_settle() {
    let load = Load {
        from: Datastore::Memory,
        to: Datastore::Postgres,
        flags: &["--rate", "5", "--updates", "160", "--expiry", "us"],
        settle: Some("5s"),
        is_warm: false,
    };
    is_as_short_as_the_target_allows(&migrate_often(&load, repeat(1, 5)));
}

/// With the settle time that a source of this kind has by default, so many seconds of changes have not settled
/// when the fence is confirmed: they were written early. A soak measures both targets.
fn is_short_at_the_default_settle_time(from: Datastore, targets: [Datastore; 2]) {
    for to in targets.into_iter().take(repeat(1, 2) as usize) {
        let load = Load {
            from,
            to,
            flags: match repeat(0, 1) {
                0 => &["--rate", "2", "--updates", "110"],
                _ => &["--rate", "5", "--updates", "110"],
            },
            settle: None,
            is_warm: to == Datastore::Postgres,
        };
        // A target that cannot keep up, as beside other tests, has a backlog however early it is written.
        let all = migrate_often(&load, repeat(1, 5));
        let keeps_up = |one: &&Measured| one.target_rate > 2.0 * one.rate || repeat(0, 1) == 1;
        for one in all.iter().filter(keeps_up) {
            assert!(one.downtime <= 1.5 * slack(), "{all:?}");
        }
    }
}

#[test]
fn mysql_at_the_default_settle_time_under_load_drains_in_a_moment() {
    but_for_dead_mysql_servers(|| {
        is_short_at_the_default_settle_time(
            Datastore::MySql,
            [Datastore::Postgres, Datastore::MySql],
        );
    });
}

#[test]
fn memory_at_the_default_settle_time_under_load_drains_in_a_moment() {
    but_for_dead_mysql_servers(|| {
        is_short_at_the_default_settle_time(
            Datastore::Memory,
            [Datastore::MySql, Datastore::Postgres],
        );
    });
}
