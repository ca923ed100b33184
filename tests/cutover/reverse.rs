//! The way back: what is written to the new end comes to the old one, and nothing travels twice.

use super::{Migration, PATIENCE, delete, precision, relationship, touch, transactions};
use crate::support::oracle::{self, Precision, Writers};
use crate::support::spicedb::{Datastore, Server, but_for_dead_mysql_servers};
use crate::support::wait_until;

fn there_and_back(from: Datastore, to: Datastore, settle: &'static str) {
    let migration = Migration::between(from, to);
    there_and_back_by(migration, settle, precision(from, to));
}

fn there_and_back_by(migration: Migration, settle: &'static str, precision: Precision) {
    let migration = migration.settling(settle);
    for id in ["kept", "revoked", "revoked later"] {
        touch(&migration.from, &id.replace(' ', "_"));
    }
    migration.plan_and_copy();
    let follow = migration.follow();
    touch(&migration.from, "followed");
    delete(&migration.from, "revoked");
    migration.cut_over();
    follow.wait().expect_success();
    let spool = migration.file("changes.ndjson");
    let there = transactions(&spool);
    assert!(there >= 2, "something has travelled there");

    let reverse = migration.step(&["reverse", "--settle", settle]).spawn();
    let journal = migration.folder.path().join("journal");
    let flags = [
        "--writers",
        "2",
        "--rate",
        "10",
        "--updates",
        "20",
        "--seconds",
        "4",
    ];
    let writers = Writers::start(&migration.to, &journal, &flags);
    delete(&migration.to, "revoked_later");
    touch(&migration.to, "written_to_new");
    let written = writers.finish()["transactions"].as_u64().unwrap() + 2;
    let expected = {
        let mut expected = oracle::expected(&journal, precision);
        expected.extend(["kept", "followed", "written_to_new"].map(relationship));
        expected.sort();
        expected
    };
    wait_until("all of it is on the old end", PATIENCE, || {
        oracle::dump(&migration.from, precision) == expected
    });
    // The way back has its proof.
    let verified = migration
        .step(&["verify", "--reverse"])
        .run()
        .expect_success();
    assert!(
        verified.stderr.contains("proven equal"),
        "{}",
        verified.stderr
    );
    migration
        .step(&["status", "--reverse"])
        .run()
        .expect_success();
    migration.step(&["abort"]).run().expect_success();
    reverse.wait().expect_success();
    let new = oracle::dump(&migration.to, precision);
    oracle::assert_same_lines("the journal", &expected, "the new end", &new);
    let old = oracle::dump(&migration.from, precision);
    oracle::assert_same_lines("the journal", &expected, "the old end", &old);

    // What came from the old end is not in the spool of the way back, and what went back has not
    // come again: one transaction in it for each that was written to the new end.
    let back = transactions(&migration.file("reverse/changes.ndjson"));
    assert!(back as u64 <= written, "{back} transactions for {written}");
    assert!(back > 0);
    let text = std::fs::read_to_string(migration.file("reverse/changes.ndjson")).unwrap();
    for id in ["kept", "followed", "\"revoked\""] {
        assert!(!text.contains(id), "{id} has travelled back");
    }
    assert_eq!(transactions(&spool), there, "nothing has come there again");
    let marked = Marked::of(&migration);
    assert_eq!(
        marked.of_others, 0,
        "reverse wrote everything that the old end got since"
    );
}

/// The transactions that the old end delivers since the switch.
struct Marked {
    of_others: usize,
}

impl Marked {
    fn of(migration: &Migration) -> Self {
        let end = migration.switch().unwrap().second;
        let mark = crate::support::program::Program::new("spice-revision")
            .args(["--context", migration.from.context(), "--mark"])
            .run()
            .expect_success();
        let watched = crate::support::program::Program::new("spice-watch")
            .args(["--context", migration.from.context(), "--settle", "0s"])
            .args(["--since", &end, "--until", mark.text().trim()])
            .run()
            .expect_success();
        let lines = watched.json_lines();
        let changes = lines.iter().filter_map(|line| line.get("transaction"));
        // States that were read at the end are nobody's.
        let of_others = changes.filter(|change| {
            let metadata = change["metadata"].to_string();
            !metadata.contains("spicePipes") && change["contended"] != true
        });
        Self {
            of_others: of_others.count(),
        }
    }
}

#[test]
fn reverse_to_postgres_writes_once_and_revives_nothing() {
    there_and_back(Datastore::Postgres, Datastore::Postgres, "0s");
}

#[test]
fn reverse_to_memory_and_mysql_writes_once_and_revives_nothing() {
    but_for_dead_mysql_servers(|| there_and_back(Datastore::Memory, Datastore::MySql, "2s"));
}

/// Nothing shows of which of the two a revision is. The start of the way back is a revision of the new end.
#[test]
fn reverse_between_servers_without_a_datastore_id_writes_once_and_revives_nothing() {
    let server = || {
        Server::builder(Datastore::Memory)
            .version("v1.45.4")
            .flag("--enable-experimental-relationship-expiration")
            .start()
    };
    let migration = Migration::with_schema(server(), server());
    there_and_back_by(migration, "500ms", Precision::Microseconds);
}

/// To the new end, and back to the old one with the same proofs.
#[test]
fn cutover_of_the_way_back_is_proven_as_that_of_the_way_there() {
    let migration = Migration::between(Datastore::Postgres, Datastore::Postgres);
    for id in ["kept", "revoked"] {
        touch(&migration.from, id);
    }
    migration.plan_and_copy();
    let follow = migration.follow();
    migration.cut_over();
    follow.wait().expect_success();
    let early = migration
        .step(&["cutover", "--reverse"])
        .input("fenced\n")
        .run();
    let early = early.expect_code(2);
    assert!(
        early.stderr.contains("there is no plan"),
        "{}",
        early.stderr
    );

    let reverse = migration.step(&["reverse", "--heartbeat", "1s"]).spawn();
    let state = migration.file("reverse/state.json");
    wait_until("the way back is planned", PATIENCE, || state.exists());
    touch(&migration.to, "written-to-new");
    delete(&migration.to, "revoked");
    let unproven = || {
        migration
            .step(&["cutover", "--reverse"])
            .input("fenced\n")
            .run()
    };
    wait_until("it is followed", PATIENCE, || {
        let refused = unproven().expect_code(1);
        assert!(
            refused.stderr.contains("Nothing was stopped"),
            "{}",
            refused.stderr
        );
        refused.stderr.contains("verify has not proved")
    });
    migration
        .step(&["verify", "--reverse"])
        .run()
        .expect_success();
    let back = unproven().expect_success();
    let order = format!(
        "SWITCH READS AND WRITES TO {} NOW",
        migration.from.context()
    );
    for said in [order.as_str(), "equal: "] {
        assert!(back.stderr.contains(said), "{}", back.stderr);
    }
    reverse.wait().expect_success();
    let there = oracle::dump(&migration.from, Precision::Microseconds);
    let expected = ["kept", "written-to-new"].map(relationship);
    oracle::assert_same_lines("what was written", &expected, "the old end", &there);
    oracle::assert_same_relationships(&migration.from, &migration.to, Precision::Microseconds);
    // Nothing of it is undone.
    let again = migration.step(&["reverse"]).run().expect_code(2);
    assert!(again.stderr.contains("was ordered"), "{}", again.stderr);
    let way_on = "migration/reverse reverse";
    assert!(again.stderr.contains(way_on), "{}", again.stderr);
    // The first cutover orders nothing and compares nothing any more: its target is stale.
    touch(&migration.from, "later");
    let stale = migration.step(&["cutover"]).input("fenced\n").run();
    let stale = stale.expect_code(2);
    assert!(stale.stderr.contains("is stale"), "{}", stale.stderr);
    assert!(!stale.stderr.contains("SWITCH"), "{}", stale.stderr);
}
