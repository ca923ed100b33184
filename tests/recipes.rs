//! `scripts/copy`, `follow`, `cutover` and `repair`: the pipes that an operator reads and edits.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::oracle::{self, Precision, Writers};
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::spicedb::{Datastore, Server, rows};
use crate::support::{folder, root, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);

/// Two servers, and the files of the recipes: a spool and a position.
struct Ends {
    old: Server,
    new: Server,
    folder: tempfile::TempDir,
}

impl Ends {
    /// Two PostgreSQL servers; the old one has the writers' schema.
    fn new() -> Self {
        let ends = Self {
            old: Server::start(Datastore::Postgres),
            new: Server::start(Datastore::Postgres),
            folder: folder(),
        };
        oracle::write_schema(&ends.old, oracle::WRITERS_SCHEMA);
        ends
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A recipe with as many of context, context, spool and position as it takes.
    fn recipe(&self, name: &str, arguments: usize) -> Program {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let all = [
            self.old.context().to_owned(),
            self.new.context().to_owned(),
            text(self.file("spool")),
            text(self.file("position")),
        ];
        Program::script(&format!("scripts/{name}"))
            .args(&all[..arguments])
            .timeout(PATIENCE)
    }

    fn copy(&self) -> Program {
        self.recipe("copy", 3)
    }

    fn follow(&self) -> Program {
        self.recipe("follow", 4)
    }

    fn cutover(&self, answer: &str) -> Finished {
        self.recipe("cutover", 4).input(answer).run()
    }

    fn repair(&self) -> Finished {
        self.recipe("repair", 2).run()
    }

    fn assert_equal(&self) -> usize {
        oracle::assert_same_relationships(&self.old, &self.new, Precision::Microseconds)
    }
}

#[test]
fn copy_follow_and_cutover_move_a_written_source() {
    let ends = Ends::new();
    let journal = ends.file("journal");
    let flags = ["--seconds", "6", "--rate", "20", "--expiry", "us"];
    let writers = Writers::start(&ends.old, &journal, &flags);
    wait_until("they write", PATIENCE, || rows(&ends.old) > 100);
    ends.copy().run().expect_success();
    let following = ends.follow().spawn();
    wait_until("it follows", PATIENCE, || ends.file("position").exists());
    // Stopped and resumed while everybody writes.
    following.signal("TERM");
    let stopped = following.wait();
    // It ends what has not ended within a second.
    assert!(
        [Some(0), Some(143)].contains(&stopped.code()),
        "{}",
        stopped.stderr
    );
    let following = ends.follow().spawn();
    writers.finish();
    let refused = ends.cutover("wait\n").expect_code(2);
    assert!(refused.stderr.contains("not fenced"), "{}", refused.stderr);
    following.signal("TERM");
    following.wait().expect_success();
    oracle::write(&ends.old, "touch", "item:last#holder@user:last");
    let switched = ends.cutover("fenced\n").expect_success();
    assert!(switched.stderr.contains("SWITCH"), "{}", switched.stderr);
    assert!(ends.assert_equal() > 100);
    let mut expected = oracle::expected(&journal, Precision::Microseconds);
    expected.push(r#"{"relation":"holder","resource":"item:last","subject":"user:last"}"#.into());
    expected.sort();
    let there = oracle::dump(&ends.new, Precision::Microseconds);
    oracle::assert_same_lines("the journal", &expected, "the target", &there);
}

#[test]
fn killed_copy_is_resumed_at_its_revision() {
    let ends = Ends::new();
    let names: Vec<String> = (0..60_000)
        .map(|n| format!(r#"{{"relation":"holder","resource":"item:i{n}","subject":"user:u"}}"#))
        .collect();
    oracle::load_bulk(&ends.old, &(names.join("\n") + "\n"));
    let copying = ends.copy().spawn();
    wait_until("it loads", PATIENCE, || rows(&ends.new) > 0);
    copying.kill9();
    copying.wait();
    // It is not at the revision of the copy: following brings it over.
    oracle::write(&ends.old, "delete", "item:i7#holder@user:u");
    oracle::write(&ends.old, "touch", "item:later#holder@user:u");
    ends.copy().run().expect_success();
    assert_eq!(rows(&ends.new), 60_000);
    ends.cutover("fenced\n").expect_success();
    assert_eq!(ends.assert_equal(), 60_000);
}

#[test]
fn cutover_names_a_difference_and_repair_removes_it() {
    let ends = Ends::new();
    let write = |server, operation, name| {
        oracle::write(server, operation, &format!("item:{name}#holder@user:u"))
    };
    for name in ["a", "b", "c"] {
        write(&ends.old, "touch", name);
    }
    ends.copy().run().expect_success();
    // Behind the back of the recipes.
    write(&ends.new, "delete", "a");
    write(&ends.new, "touch", "extra");
    let differs = ends.cutover("fenced\n").expect_code(3);
    assert!(
        differs.stderr.contains("do NOT switch"),
        "{}",
        differs.stderr
    );
    assert!(!differs.stderr.contains("SWITCH"), "{}", differs.stderr);
    ends.repair().expect_success();
    assert_eq!(ends.assert_equal(), 3);
    let before = oracle::head(&ends.new);
    ends.repair().expect_success();
    let applied = Program::on("spice-watch", &ends.new)
        .args(["--since", &before, "--until-quiet", "2s"])
        .run();
    assert!(!applied.expect_success().text().contains("{\"transaction\""));
    ends.cutover("fenced\n").expect_success();
}

#[test]
fn recipes_fail_with_the_program_that_fails() {
    let ends = Ends::new();
    oracle::write(&ends.old, "touch", "item:a#holder@user:u");
    for recipe in ["copy", "follow", "cutover", "repair"] {
        let usage = Program::script(&format!("scripts/{recipe}")).run();
        assert!(usage.expect_code(2).stderr.contains("scripts/"), "{recipe}");
    }
    // Nothing was copied: there is no spool to follow, and no position to verify.
    ends.follow().run().expect_code(2);
    let cutover = ends.cutover("fenced\n");
    assert_ne!(cutover.code(), Some(0));
    assert!(!cutover.stderr.contains("SWITCH"), "{}", cutover.stderr);
    ends.new.stop();
    let unreachable = ends.copy().run();
    assert_eq!(unreachable.code(), Some(75), "{}", unreachable.stderr);
    ends.repair().expect_code(75);
}

#[test]
fn recipes_stay_short() {
    for recipe in ["copy", "follow", "cutover", "repair"] {
        let text = std::fs::read_to_string(root().join("scripts").join(recipe)).unwrap();
        assert!(text.lines().count() <= 40, "{recipe}");
    }
}
