//! What `verify --check-sample` makes of two ends that hold the same and answer differently, or not at all.

use super::{Migration, PATIENCE};
use crate::support::oracle::{self, Writers};
use crate::support::spicedb::{Datastore, Server};
use crate::support::{repeat, wait_until};

impl Migration {
    /// Verifies with this many checks; its stderr.
    fn verified(&self, checks: &str, code: i32) -> String {
        let verify = self.step(&["verify", "--check-sample", checks]);
        verify.run().expect_code(code).stderr
    }

    /// A cutover reports why it is not safe, and stops nothing.
    fn not_safe_because(&self, what: &str) {
        let cutover = self.step(&["cutover"]).input("fenced\n").run();
        let cutover = cutover.expect_code(1);
        assert!(cutover.stderr.contains(what), "{}", cutover.stderr);
        assert!(!self.is_fenced());
    }
}

/// Relationships that expire soon are left out of a comparison of what both ends hold.
const EXPIRING: &str = "use expiration

definition user {}

definition document {
	relation owner: user
	relation viewer: user with expiration
	permission view = viewer + owner
}
";

/// Longer than a verification that asks four times, shorter than what it leaves out: 90 s.
const LIFE: jiff::SignedDuration = jiff::SignedDuration::from_secs(80);

/// Viewers of 40 documents until then, and an owner for good. Returns the expiry.
fn grant_for_a_while(server: &Server) -> jiff::Timestamp {
    let expiry = jiff::Timestamp::now() + LIFE;
    let line = |n: u32| {
        let of = format!(r#""resource":"document:d{n}","relation":"viewer","subject":"user:u{n}""#);
        format!(r#"{{"op":"touch",{of},"expires":"{expiry}"}}"#)
    };
    let owner = r#"{"op":"touch","resource":"document:d0","relation":"owner","subject":"user:u0"}"#;
    let lines = (0..40).map(line).chain([owner.to_owned()]);
    oracle::load(server, &(lines.collect::<Vec<_>>().join("\n") + "\n"));
    expiry
}

#[test]
fn target_with_equal_data_and_other_answers_is_found() {
    let migration = Migration::between(Datastore::Postgres, Datastore::Postgres);
    oracle::write_schema(&migration.from, EXPIRING);
    migration.plan_and_copy();
    let following = migration.follow();
    // Each question needs another pair of revisions: an idle server makes one in ten seconds.
    let flags = [
        "--writers",
        "1",
        "--rate",
        "2",
        "--updates",
        "1",
        "--keys",
        "20",
        "--resource",
        "document",
        "--relation",
        "owner",
        "--caveat",
        "",
        "--expiry",
        "none",
    ];
    let journal = migration.folder.path().join("journal");
    let writers = Writers::until_stopped(&migration.from, &journal, &flags);
    let revoke = || {
        let line = |n: u32| {
            let of =
                format!(r#""resource":"document:d{n}","relation":"viewer","subject":"user:u{n}""#);
            format!(r#"{{"op":"delete",{of}}}"#)
        };
        wait_until("the target holds what will be removed", PATIENCE, || {
            oracle::lookup(&migration.to, "document:d39#viewer@user:u39").is_some()
        });
        let lines: Vec<String> = (0..40).map(line).collect();
        oracle::load(&migration.to, &(lines.join("\n") + "\n"));
    };
    grant_for_a_while(&migration.from);
    revoke();
    let found = migration.verified("100", 3);
    assert!(found.contains("answers differently"), "{found}");
    assert!(found.contains(": yes there, no on "), "{found}");
    let checks = std::fs::read_to_string(migration.file("checks.ndjson")).unwrap();
    assert!(checks.contains(r#""otherServer":{"item":"#), "{checks}");
    assert!(migration.verdict().starts_with("different since "));
    migration.not_safe_because("answers");
    // A verify without --check-sample does not open the gate.
    let expiry = grant_for_a_while(&migration.from);
    revoke();
    let found = migration.step(&["verify"]).run().expect_code(3).stderr;
    assert!(found.contains("answers differently"), "{found}");
    assert!(migration.verdict().starts_with("different since "));
    wait_until("all has expired", PATIENCE, || {
        jiff::Timestamp::now() > expiry
    });
    let alike = migration.step(&["verify"]).run().expect_success().stderr;
    assert!(alike.contains("equal answers"), "{alike}");
    assert_eq!(migration.saved().sample, None);
    writers.stop();
    following.signal("TERM");
    following.wait();
}

#[test]
fn smaller_maximum_depth_of_the_target_is_undecided() {
    let migration = Migration::between(Datastore::Postgres, Datastore::Postgres);
    let nested = "definition user {}\n\ndefinition nest {\n\trelation inner: nest | user\n\
                  \tpermission inside = inner + inner->inside\n}\n";
    oracle::write_schema(&migration.from, nested);
    let line = |n: u32| {
        let subject = if n % 10 == 9 {
            "user:u".to_owned()
        } else {
            format!("nest:n{}", n + 1)
        };
        format!(r#"{{"resource":"nest:n{n}","relation":"inner","subject":"{subject}"}}"#)
    };
    let lines: Vec<String> = (0..50).map(line).collect();
    oracle::load_bulk(&migration.from, &(lines.join("\n") + "\n"));
    migration.plan_and_copy();
    // Nobody thinks of such a flag when a server is replaced.
    migration.to.restart_with(&["--dispatch-max-depth", "5"]);
    let following = migration.follow();
    let found = migration.verified("200", 1);
    assert!(found.contains("too little can be compared"), "{found}");
    assert!(found.contains("--dispatch-max-depth"), "{found}");
    assert!(!found.contains("answers differently"), "{found}");
    let checks = std::fs::read_to_string(migration.file("checks.ndjson")).unwrap();
    let deep = r#""reason":"MAXIMUM_DEPTH_EXCEEDED"}},"inconclusive":true}}"#;
    assert!(checks.contains(deep), "{checks}");
    let verdict = migration.verdict();
    assert!(verdict.starts_with("undecided since ") && verdict.contains("inconclusive"));
    migration.not_safe_because("has not proved");
    // Whoever decides to skip the answers can.
    migration.step(&["verify"]).run().expect_success();
    migration.to.restart_with(&[]);
    let alike = migration.verified("200", 0);
    assert!(alike.contains("equal answers"), "{alike}");
    assert!(!migration.file("checks.ndjson").exists());
    following.signal("TERM");
    following.wait();
}

/// Teams that contain each other: what a server answers depends on which branch it comes to first.
const CYCLIC: &str = "definition user {}

definition team {
	relation parent: team
	relation direct: user
	permission member = direct + parent->member
}

definition doc {
	relation owner: team
	relation banned: user
	permission view = owner->member - banned
	permission edit = owner->member & banned
}
";

/// Most questions about these are too deep for any server, some for a server now and then.
fn load_cycles(server: &Server) {
    let mut random = crate::support::Random::new(7);
    let mut lines = std::collections::BTreeSet::new();
    let line = |resource: String, relation: &str, subject: String| {
        format!(r#"{{"resource":"{resource}","relation":"{relation}","subject":"{subject}"}}"#)
    };
    for n in 0..60 {
        let (team, doc) = (format!("team:t{n}"), format!("doc:d{n}"));
        for _ in 0..=random.below(2) {
            let parent = format!("team:t{}", random.below(60));
            lines.insert(line(team.clone(), "parent", parent));
        }
        lines.insert(line(team, "direct", format!("user:u{}", random.below(20))));
        let owner = format!("team:t{}", random.below(60));
        lines.insert(line(doc.clone(), "owner", owner));
        lines.insert(line(doc, "banned", format!("user:u{}", random.below(20))));
    }
    let lines: Vec<String> = lines.into_iter().collect();
    oracle::load_bulk(server, &(lines.join("\n") + "\n"));
}

#[test]
fn equal_servers_with_cyclic_data_are_never_found_different() {
    let migration = Migration::between(Datastore::Postgres, Datastore::Memory);
    oracle::write_schema(&migration.from, CYCLIC);
    load_cycles(&migration.from);
    migration.plan_and_copy();
    let following = migration.follow();
    for _ in 0..repeat(4, 50) {
        let verified = migration.verified("200", 0);
        assert!(verified.contains("proven equal"), "{verified}");
        assert!(verified.contains(" too deep"), "{verified}");
        assert!(migration.verdict().starts_with("equal since "));
    }
    following.signal("TERM");
    following.wait();
}
