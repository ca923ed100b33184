//! `scripts/migrate` as an operator runs it: plan and copy, each twice, and what stands in the way.

use std::path::Path;
use std::time::Duration;

use sample::Sample;

use crate::copy::holding;
use crate::support::judge::{self, Precision};
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{folder, repeat};

fn migrate(state: &Path, arguments: &[&str]) -> Program {
    let limit = Duration::from_secs(180);
    let state = state.to_str().unwrap();
    Program::script("scripts/migrate")
        .args(["--state", state])
        .args(arguments)
        .timeout(limit)
}

fn ends<'a>(from: &'a Server, to: &'a Server) -> [&'a str; 4] {
    ["--from", from.context(), "--to", to.context()]
}

#[test]
fn plan_then_copy_moves_everything_and_a_second_run_changes_nothing() {
    let folder = folder();
    let state = folder.path().join("migration");
    let from = holding(Sample::portable(5_000), Datastore::Postgres);
    let to = Server::start(Datastore::MySql);
    let planned = [&ends(&from, &to)[..], &["plan"]].concat();
    for _ in 0..2 {
        migrate(&state, &planned).run().expect_success();
    }
    assert_eq!(
        judge::dump(&to, Precision::Seconds).len(),
        0,
        "plan writes nothing"
    );
    migrate(&state, &["copy"]).run().expect_success();
    judge::assert_same_relationships(&from, &to, Precision::Seconds);
    let head = judge::head(&to);
    migrate(&state, &["copy"]).run().expect_success();
    assert_eq!(judge::head(&to), head, "a finished copy is not made again");
}

#[test]
fn one_datastore_behind_both_ends_is_refused_by_plan() {
    let folder = folder();
    let server = holding(Sample::portable(10), Datastore::Memory);
    let context = |name| {
        let (endpoint, token_file) = (server.endpoint(), server.token_file());
        format!("[{name}]\nendpoint = {endpoint:?}\ntoken-file = {token_file:?}\ninsecure = true\n")
    };
    let contexts = folder.path().join("contexts.toml");
    std::fs::write(&contexts, context("old") + &context("new")).unwrap();
    let refused = migrate(
        &folder.path().join("m"),
        &["--from", "old", "--to", "new", "plan"],
    )
    .env("SPICE_CONTEXTS", &contexts)
    .run()
    .expect_code(2);
    assert!(
        refused.stderr.contains("same datastore"),
        "{}",
        refused.stderr
    );
}

#[test]
fn copy_that_was_killed_goes_on_with_the_same_command() {
    let from = holding(Sample::rich(60_000), Datastore::Memory);
    for round in 0..repeat(2, 10) {
        let folder = folder();
        let state = folder.path().join("migration");
        let to = Server::start(Datastore::Postgres);
        let planned = [&ends(&from, &to)[..], &["--settle", "0s", "plan"]].concat();
        migrate(&state, &planned).run().expect_success();
        let running = migrate(&state, &["--settle", "0s", "copy"]).spawn();
        std::thread::sleep(Duration::from_millis(600 + 400 * u64::from(round % 5)));
        running.signal("TERM");
        let stopped = running.wait();
        assert!(
            stopped.signal() == Some(15) || stopped.code() == Some(0),
            "{}",
            stopped.stderr
        );
        migrate(&state, &["--settle", "0s", "copy"])
            .run()
            .expect_success();
        judge::assert_same_relationships(&from, &to, Precision::Microseconds);
    }
}

#[test]
fn plan_refuses_a_target_that_holds_other_relationships() {
    let folder = folder();
    let from = holding(Sample::portable(100), Datastore::Memory);
    let to = holding(
        Sample {
            seed: 9,
            ..Sample::portable(100)
        },
        Datastore::Memory,
    );
    let arguments = [&ends(&from, &to)[..], &["plan"]].concat();
    let refused = migrate(&folder.path().join("m"), &arguments)
        .run()
        .expect_code(2);
    assert!(
        refused.stderr.contains("holds relationships"),
        "{}",
        refused.stderr
    );
}
