//! One tenant moved: within the filter both ends are equal, and outside of it nothing is touched on either.

use std::time::Instant;

use super::{Migration, PATIENCE, delete, downtime, fenced, relationship, touch};
use crate::support::oracle::{self, Precision, Writers};
use crate::support::running::Finished;
use crate::support::spicedb::{Datastore, Server, but_for_dead_mysql_servers};
use crate::support::{figure, repeat, wait_until};
use crate::watch::filter::split;

/// `_` is no wildcard.
const PART: [&str; 4] = ["--type", "item", "--resource-prefix", "a_"];
const PREFIX: &str = "a_";

impl Migration {
    /// Two servers with the writers' schema, of which the target holds relationships of others.
    fn into_shared(from: Datastore, to: Datastore) -> Self {
        let migration = Self::between(from, to);
        oracle::write_schema(&migration.to, oracle::WRITERS_SCHEMA);
        let theirs = ["ab-1", "b-1", "a", "A_1", "theirs-1", "theirs-2"];
        let lines = theirs.map(|id| relationship(id) + "\n");
        oracle::load_bulk(&migration.to, &lines.concat());
        migration
    }

    fn plan_part(&self, part: &[&str]) -> Finished {
        let (from, to) = (self.from.context(), self.to.context());
        let plan = ["plan", "--from", from, "--to", to];
        let flags = [&plan[..], part, &self.settle].concat();
        self.step(&flags).run()
    }

    fn holds(&self, server: &Server, id: &str) -> bool {
        dump(server).contains(&relationship(id))
    }

    /// Within the filter both hold the same; gives what the target holds outside of it.
    #[track_caller]
    fn others_of_equal_parts(&self) -> Vec<String> {
        let [source, _] = split(dump(&self.from), PREFIX);
        let [target, others] = split(dump(&self.to), PREFIX);
        oracle::assert_same_lines("the source", &source, "the target", &target);
        others
    }
}

fn dump(server: &Server) -> Vec<String> {
    oracle::dump(server, Precision::Seconds)
}

/// Three tenants are written, each by two writers that delete as well; one of them moves while the others
/// are written all the time, also behind its fence.
fn one_of_three(from: Datastore, to: Datastore, settle: Option<&'static str>) {
    let migration = Migration::into_shared(from, to);
    let migration = match settle {
        Some(settle) => migration.settling(settle),
        None => migration,
    };
    let before = dump(&migration.to);
    let began = Instant::now();
    let journal = |prefix: &str| migration.folder.path().join(prefix);
    let writers = |prefix: &'static str| {
        let flags = ["--writers", "2", "--rate", "10", "--updates", "40"];
        let own = ["--prefix", prefix, "--seed", prefix, "--keys", "200"];
        let flags = [&flags[..], &own].concat();
        Writers::until_stopped(&migration.from, &journal(prefix), &flags)
    };
    let (ours, others) = (writers(PREFIX), ["ab", "b-"].map(writers));
    wait_until("they write", PATIENCE, || {
        let prefixes = [PREFIX, "ab", "b-"];
        prefixes.iter().all(|prefix| {
            std::fs::read_to_string(journal(prefix)).is_ok_and(|text| text.lines().count() > 5)
        })
    });
    migration.plan_part(&PART).expect_success();
    migration.step(&["copy"]).run().expect_success();
    let following = migration.follow();
    let verified = migration.step(&["verify"]).run().expect_success();
    assert!(
        verified.stderr.contains("proven equal"),
        "{}",
        verified.stderr
    );
    let cutover = migration.step(&["cutover", "--max-lag", "60s"]);
    let mut cutover = cutover.input_later().spawn();
    cutover.wait_for_stderr("type: fenced", PATIENCE);
    let summary = ours.stop();
    let ours = summary["updates"].as_f64().unwrap();
    let took = began.elapsed().as_secs_f64();
    fenced(&mut cutover);
    let cutover = cutover.wait().expect_success();
    assert!(cutover.stderr.contains("equal: "), "{}", cutover.stderr);
    following.wait().expect_success();
    let theirs: f64 = others
        .into_iter()
        .map(|writers| writers.stop()["updates"].as_f64().unwrap())
        .sum();
    let theirs = theirs / began.elapsed().as_secs_f64();

    let [part, others] = split(dump(&migration.to), PREFIX);
    let expected = oracle::expected(&journal(PREFIX), Precision::Seconds);
    oracle::assert_same_lines("the journal", &expected, "the target", &part);
    oracle::assert_same_lines("before", &before, "after", &others);
    migration.others_of_equal_parts();
    let rate = ours / took + theirs;
    figure(&format!(
        "one tenant of three, {from:?} to {to:?}: {} relationships moved at {rate:.0} updates a second, {:.0} of them \
         its own; write downtime {} s; {} relationships of others unchanged",
        part.len(),
        ours / took,
        downtime(&cutover),
        others.len()
    ));
    assert!(
        rate >= f64::from(repeat(150, 500)),
        "{rate} updates a second"
    );
}

#[test]
fn tenant_of_three_moves_live_on_postgres() {
    one_of_three(Datastore::Postgres, Datastore::Postgres, None);
}

#[test]
fn tenant_of_three_moves_live_from_mysql_to_postgres() {
    but_for_dead_mysql_servers(|| {
        one_of_three(Datastore::MySql, Datastore::Postgres, Some("5s"));
    });
}

#[test]
fn resync_and_reverse_stay_within_the_filter() {
    let migration = Migration::into_shared(Datastore::Postgres, Datastore::Postgres);
    for id in ["a_1", "a_2", "a_3", "b-2", "ab-2"] {
        touch(&migration.from, id);
    }
    let before = dump(&migration.to);
    migration.plan_part(&PART).expect_success();
    migration.step(&["copy"]).run().expect_success();
    oracle::assert_same_lines(
        "before",
        &before,
        "after",
        &migration.others_of_equal_parts(),
    );

    // A copy that drifts within the filter; what is outside of it only looks like drift.
    delete(&migration.to, "a_1");
    touch(&migration.to, "a_extra");
    migration.step(&["resync"]).run().expect_success();
    oracle::assert_same_lines(
        "before",
        &before,
        "after",
        &migration.others_of_equal_parts(),
    );

    let following = migration.follow();
    for id in ["a_4", "b-3"] {
        touch(&migration.from, id);
    }
    wait_until("it is followed", PATIENCE, || {
        migration.holds(&migration.to, "a_4")
    });
    let refused = migration.step(&["verify", "--check-sample", "10"]).run();
    let refused = refused.expect_code(2);
    assert!(
        refused.stderr.contains("--check-sample"),
        "{}",
        refused.stderr
    );
    migration.step(&["verify"]).run().expect_success();
    // Writes of others behind the fence are no leak.
    touch(&migration.from, "b-4");
    migration.cut_over();
    following.wait().expect_success();

    let reverse = migration.step(&["reverse"]).spawn();
    let here = dump(&migration.from);
    for id in ["a_5", "theirs-3"] {
        touch(&migration.to, id);
    }
    delete(&migration.to, "a_2");
    wait_until("it came back", PATIENCE, || {
        migration.holds(&migration.from, "a_5") && !migration.holds(&migration.from, "a_2")
    });
    let verify = migration.step(&["verify", "--reverse"]).run();
    verify.expect_success();
    migration.step(&["abort"]).run().expect_success();
    reverse.wait().expect_success();
    let (old, now) = (split(here, PREFIX), split(dump(&migration.from), PREFIX));
    oracle::assert_same_lines("before", &old[1], "after", &now[1]);
    let others = migration.others_of_equal_parts();
    assert_eq!(others.len(), before.len() + 1, "theirs-3 stays where it is");
}

#[test]
fn leak_within_the_filter_is_found_behind_the_fence() {
    let migration = Migration::into_shared(Datastore::Postgres, Datastore::Postgres);
    touch(&migration.from, "a_1");
    migration.plan_part(&PART).expect_success();
    migration.step(&["copy"]).run().expect_success();
    let following = migration.follow();
    let journal = migration.folder.path().join("journal");
    let flags = ["--rate", "20", "--updates", "2", "--prefix", "a_leak"];
    let leaking = Writers::until_stopped(&migration.from, &journal, &flags);
    wait_until("it leaks", PATIENCE, || {
        std::fs::read_to_string(&journal).is_ok_and(|text| text.lines().count() > 5)
    });
    let mut cutover = migration.cutover(&[]);
    fenced(&mut cutover);
    let cutover = cutover.wait().expect_code(1);
    leaking.stop();
    assert!(
        cutover.stderr.contains("fence does not hold"),
        "{}",
        cutover.stderr
    );
    assert!(migration.switch().is_none());
    drop(following);
}

#[test]
fn part_that_cannot_move_is_refused_by_plan() {
    let migration = Migration::into_shared(Datastore::Memory, Datastore::Memory);
    touch(&migration.from, "a_1");
    let before = dump(&migration.to);
    let refused = |part: &[&str], message: &str| {
        let plan = migration.plan_part(part);
        assert!(matches!(plan.code(), Some(1 | 2)), "{}", plan.stderr);
        assert!(plan.stderr.contains(message), "{}", plan.stderr);
        assert!(!migration.file("state.json").exists());
    };
    // A name that is misspelled would be an empty copy, proven equal.
    refused(
        &["--resource-prefix", "a-"],
        "holds no relationships of resources",
    );
    refused(&["--type", "items"], "--type items: the schema of ");
    refused(
        &["--type", "user"],
        "holds no relationships of resources of type user",
    );
    refused(&["--resource-prefix", "a%"], "an id has letters of ASCII");
    refused(&["--resource-prefix", ""], "an empty prefix");
    // Everything of the source, into a target that is shared.
    refused(&[], "relationships which are not from this migration");
    touch(&migration.to, "a_theirs");
    refused(
        &PART,
        r#"holds 1 relationships of resources of type item with ids that begin with "a_""#,
    );
    delete(&migration.to, "a_theirs");
    oracle::write_schema(
        &migration.to,
        &(oracle::WRITERS_SCHEMA.to_owned() + "\ndefinition other {}\n"),
    );
    refused(&PART, "is not that of");
    oracle::write_schema(&migration.to, oracle::WRITERS_SCHEMA);
    let planned = migration.plan_part(&PART).expect_success();
    assert!(
        planned.text().contains("only resources of type item"),
        "{}",
        planned.text()
    );
    // Nothing has begun: another part is another plan.
    touch(&migration.from, "b-1");
    migration
        .plan_part(&["--resource-prefix", "b-9"])
        .expect_code(2);
    migration.plan_part(&PART).expect_success();
    oracle::assert_same_lines("before", &before, "after", &dump(&migration.to));
    migration
        .step(&["copy", "--settle", "1s"])
        .run()
        .expect_success();
    let other = migration
        .plan_part(&["--resource-prefix", "b-"])
        .expect_code(2);
    assert!(
        other.stderr.contains("the copy has begun"),
        "{}",
        other.stderr
    );
    assert_eq!(dump(&migration.to).len(), before.len() + 1);
}
