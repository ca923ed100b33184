//! One fault at a time: it is named, with why and remedy, before anything is written.

use testdata::Sample;

use super::{Expected, Pair, assert_unchanged_since, expect_only, has, look, mark, unchanged};
use crate::copy::holding;
use crate::support::free_port;
use crate::support::oracle;
use crate::support::spicedb::{Datastore, Server, lacks_spanner};

/// A target in memory with a flag, and what that makes of a healthy pair.
#[test]
fn target_with_small_limits_is_named_with_each_flag() {
    let old = holding(Sample::portable(2_000), Datastore::Memory);
    let rows: [(&str, i32, Expected<'_>); 3] = [
        (
            "--write-relationships-max-updates-per-call=100",
            3,
            ("warns", "target", "limits", "takes 100 updates in a write"),
        ),
        (
            "--max-bulk-export-relationships-limit=500",
            3,
            (
                "warns",
                "target",
                "limits",
                "allows 500 relationships in a page",
            ),
        ),
        (
            "--max-relationship-context-size=20",
            1,
            ("fails", "both", "limits", "takes 20 in a write"),
        ),
    ];
    let mut pair = Pair::of(old, Server::start(Datastore::Memory));
    for (flag, code, expected) in rows {
        pair.new = Server::builder(Datastore::Memory).flag(flag).start();
        pair.connect(None, None);
        let found = pair.unchanged(|| pair.check(&[], code));
        expect_only(&found, &[expected]);
    }
    // A bulk import is not measured by the last one.
    let found = pair.check(&["--for", "copy"], 3);
    expect_only(
        &found,
        &[("warns", "both", "limits", "takes 20 in a write")],
    );
}

#[test]
fn source_with_small_pages_is_read_all_the_same() {
    let old = Server::builder(Datastore::Memory)
        .flag("--max-bulk-export-relationships-limit=10")
        .start();
    oracle::write_schema(&old, testdata::SCHEMA);
    let viewer = |id| oracle::line("touch", &format!("tenant/document:d{id}#owner@user:eve"));
    oracle::load(&old, &(0..40).map(viewer).collect::<String>());
    let pair = Pair::of(old, Server::start(Datastore::Memory));
    let found = pair.unchanged(|| pair.check(&[], 3));
    expect_only(
        &found,
        &[(
            "warns",
            "source",
            "limits",
            "allows 10 relationships in a page",
        )],
    );
    assert!(has(
        &found,
        (
            "ok",
            "source",
            "history",
            "40 relationships (all were counted)"
        )
    ));
}

#[test]
fn filled_target_fails_unless_a_policy_is_given() {
    let sample = Sample::portable(50);
    let pair = Pair::of(
        holding(sample, Datastore::Memory),
        holding(sample, Datastore::Memory),
    );
    let found = pair.unchanged(|| pair.check(&[], 1));
    expect_only(
        &found,
        &[("fails", "target", "target", "holds 50 relationships")],
    );
    let found = pair.unchanged(|| pair.check(&["--on-conflict", "skip"], 3));
    expect_only(
        &found,
        &[("warns", "target", "target", "holds 50 relationships")],
    );
}

#[test]
fn target_with_another_schema_fails() {
    let pair = Pair::in_memory();
    oracle::write_schema(&pair.new, "definition user {}\n\ndefinition other {}");
    let found = pair.unchanged(|| pair.check(&[], 1));
    expect_only(&found, &[("fails", "target", "schema", "is not that of")]);
}

#[test]
fn source_without_a_schema_fails() {
    let pair = Pair::of(
        Server::start(Datastore::Memory),
        Server::start(Datastore::Memory),
    );
    let found = pair.unchanged(|| pair.check(&[], 1));
    expect_only(&found, &[("fails", "source", "schema", "has no schema")]);
}

#[test]
fn one_datastore_behind_both_ends_fails() {
    let server = holding(Sample::portable(50), Datastore::Memory);
    let pair = Pair::of(server, Server::start(Datastore::Memory));
    let text = std::fs::read_to_string(pair.contexts()).unwrap();
    let old = text.split("[new]").next().unwrap();
    // The same server under another name.
    let new = old
        .replace("[old]", "[new]")
        .replace("127.0.0.1", "localhost");
    std::fs::write(pair.contexts(), format!("{old}{new}")).unwrap();
    let found = pair.unchanged(|| pair.check(&[], 1));
    // And no finding that proposes to empty the target.
    expect_only(
        &found,
        &[("fails", "both", "same-datastore", "are the same datastore")],
    );
}

#[test]
fn read_only_target_fails_and_source_is_a_warning() {
    let pair = Pair::of(
        holding(Sample::portable(100), Datastore::Postgres),
        Server::start(Datastore::Postgres),
    );
    // A server that takes no writes takes no markers either: it is watched around that.
    let before = [&pair.old, &pair.new].map(mark);
    pair.new.restart_with(&["--datastore-readonly"]);
    let found = pair.look(&[], 1);
    expect_only(
        &found,
        &[("fails", "target", "read-only", "takes no writes")],
    );
    pair.new.restart_with(&[]);
    pair.old.restart_with(&["--datastore-readonly"]);
    let found = pair.look(&[], 3);
    expect_only(
        &found,
        &[("warns", "source", "read-only", "takes no writes")],
    );
    // Nothing is written to the source of a copy.
    expect_only(&pair.look(&["--for", "copy"], 0), &[]);
    pair.old.restart_with(&[]);
    assert_unchanged_since(&pair.old, &before[0]);
    assert_unchanged_since(&pair.new, &before[1]);
}

#[test]
fn database_that_was_made_read_only_is_noticed() {
    let pair = Pair::of(
        holding(Sample::portable(100), Datastore::Memory),
        Server::start(Datastore::Postgres),
    );
    let before = mark(&pair.new);
    let database = pair.new.sql("SELECT current_database()");
    let database = database.trim();
    let set = |value: &str| {
        pair.new.sql(&format!(
            "SET TRANSACTION READ WRITE; ALTER DATABASE \"{database}\" SET default_transaction_read_only = {value}"
        ));
        pair.new.restart();
    };
    set("on");
    let found = unchanged(&pair.old, || pair.look(&[], 1));
    assert!(
        has(&found, ("fails", "target", "read-only", "takes no writes")),
        "{found:#?}"
    );
    set("off");
    assert_unchanged_since(&pair.new, &before);
}

#[test]
fn source_without_watch_fails_live_and_not_a_copy() {
    let old = Server::builder(Datastore::Postgres)
        .flag("--datastore-disable-watch-support")
        .start();
    oracle::write_schema(&old, testdata::SCHEMA);
    let pair = Pair::of(old, Server::start(Datastore::Memory));
    let before = mark(&pair.old);
    unchanged(&pair.new, || {
        let found = pair.look(&[], 1);
        expect_only(
            &found,
            &[("fails", "source", "watch", "does not offer Watch")],
        );
        expect_only(&pair.look(&["--for", "copy"], 0), &[]);
    });
    // With Watch it shows what was written without.
    pair.old.restart_with(&[]);
    assert_unchanged_since(&pair.old, &before);
}

#[test]
fn history_that_is_too_short_fails() {
    let pair = Pair::in_memory();
    let found = pair.unchanged(|| pair.check(&["--gc-window", "30s"], 1));
    expect_only(
        &found,
        &[(
            "fails",
            "source",
            "history",
            "for 30 s (as given by --gc-window)",
        )],
    );
    let found = pair.unchanged(|| pair.check(&["--gc-window", "100s"], 3));
    expect_only(
        &found,
        &[("warns", "source", "history", "as given by --gc-window")],
    );
    expect_only(&pair.check(&["--gc-window", "1h"], 0), &[]);
}

#[test]
fn large_source_needs_more_history_than_it_has() {
    let old = holding(Sample::portable(60_000), Datastore::Memory);
    let pair = Pair::of(old, Server::start(Datastore::Memory));
    let flags = ["--sample", "1ms", "--relationships", "10000000000"];
    let found = pair.unchanged(|| pair.check(&flags, 1));
    let expected = (
        "fails",
        "source",
        "history",
        "10000000000 relationships (as given by",
    );
    expect_only(&found, &[expected]);
}

#[test]
fn target_on_mysql_truncates_expiries() {
    let pair = Pair::of(
        holding(Sample::portable(100), Datastore::Memory),
        Server::start(Datastore::MySql),
    );
    oracle::write_schema(&pair.new, testdata::SCHEMA);
    let found = pair.unchanged(|| pair.look(&[], 3));
    expect_only(
        &found,
        &[("warns", "target", "expiry", "keeps an expiry to the second")],
    );
    // Its Watch is left with care.
    let found = unchanged(&pair.new, || look(&pair.contexts(), &["--from", "new"], 0));
    assert!(
        has(&found, ("ok", "source", "datastore", "MySQL")),
        "{found:#?}"
    );
}

#[test]
fn unreachable_end_is_undecided() {
    let pair = Pair::in_memory();
    let nowhere = format!("127.0.0.1:{}", free_port());
    pair.connect(None, Some(&nowhere));
    let found = pair.unchanged(|| pair.check(&[], 75));
    expect_only(
        &found,
        &[("fails", "target", "contact", "cannot be reached")],
    );
    assert_eq!(found.last().unwrap()["preflight"]["verdict"], "undecided");
    assert!(
        has(&found, ("ok", "source", "rights", "")),
        "the other end is looked at"
    );
}

#[test]
fn wrong_key_and_wrong_tls_fail() {
    let pair = Pair::in_memory();
    let text = std::fs::read_to_string(pair.contexts()).unwrap();
    let swapped = |from: &str, to: &str| {
        std::fs::write(pair.contexts(), text.replace(from, to)).unwrap();
    };
    let (old, new) = (pair.old.token_file(), pair.new.token_file());
    swapped(old.to_str().unwrap(), new.to_str().unwrap());
    let found = pair.unchanged(|| pair.check(&[], 1));
    expect_only(
        &found,
        &[("fails", "source", "contact", "does not know the token")],
    );
    let key = pair.new.token();
    assert!(
        !format!("{found:?}").contains(key.trim()),
        "no secret is printed"
    );
    swapped("insecure = true", "insecure = false");
    let found = pair.unchanged(|| pair.check(&[], 1));
    expect_only(
        &found,
        &[
            ("fails", "source", "contact", "do not agree about TLS"),
            ("fails", "target", "contact", "do not agree about TLS"),
        ],
    );
}

#[test]
fn certificate_that_nobody_verifies_is_a_warning() {
    let old = Server::builder(Datastore::Memory).tls().start();
    oracle::write_schema(&old, testdata::SCHEMA);
    let pair = Pair::of(old, Server::start(Datastore::Memory));
    let text = std::fs::read_to_string(pair.contexts()).unwrap();
    let text = text.replacen("insecure = true", "no-verify-ca = true", 1);
    std::fs::write(pair.contexts(), text).unwrap();
    let found = pair.unchanged(|| pair.check(&[], 3));
    expect_only(&found, &[("warns", "source", "contact", "is not verified")]);
}

#[test]
fn contexts_that_make_no_sense_are_usage() {
    let pair = Pair::in_memory();
    for flags in [
        &["--from", "old", "--to", "old"][..],
        &["--from", "nosuch"],
        &[],
        &["--to", "new", "--mark"],
    ] {
        let finished = super::run(&pair.contexts(), flags);
        assert_eq!(finished.code(), Some(2), "{flags:?}: {}", finished.stderr);
        assert_eq!(finished.text(), "", "{flags:?}");
    }
}

#[test]
fn spanner_is_not_followed_and_copied_to() {
    if lacks_spanner() {
        return;
    }
    let spanner = holding(Sample::portable(50), Datastore::Spanner);
    let pair = Pair::of(spanner, Server::start(Datastore::Memory));
    let found = unchanged(&pair.new, || pair.look(&[], 1));
    expect_only(
        &found,
        &[(
            "fails",
            "source",
            "watch",
            "Spanner, which cannot be followed",
        )],
    );
    expect_only(&pair.look(&["--for", "copy"], 0), &[]);
    let before = oracle::dump(&pair.old, oracle::Precision::Nanoseconds);
    let found = look(
        &pair.contexts(),
        &["--to", "old", "--on-conflict", "skip"],
        3,
    );
    expect_only(
        &found,
        &[("warns", "target", "target", "holds 50 relationships")],
    );
    assert_eq!(
        oracle::dump(&pair.old, oracle::Precision::Nanoseconds),
        before
    );
}
