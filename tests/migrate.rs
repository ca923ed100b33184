//! `spice-migrate` as an operator runs it: plan and copy, each twice, and what prevents it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use testdata::Sample;

use crate::copy::{holding, import, stream_of};
use crate::support::oracle::{self, Precision};
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{folder, repeat};

fn migrate(state: &Path, arguments: &[&str]) -> Program {
    let limit = Duration::from_secs(180);
    let state = state.to_str().unwrap();
    Program::new("spice-migrate")
        .args(["--state", state])
        .args(arguments)
        .timeout(limit)
}

/// The beginning of a plan.
fn plan<'a>(from: &'a Server, to: &'a Server) -> [&'a str; 5] {
    ["plan", "--from", from.context(), "--to", to.context()]
}

#[test]
fn plan_and_copy_move_everything_and_can_be_repeated() {
    let folder = folder();
    let state = folder.path().join("migration");
    let from = holding(Sample::portable(5_000), Datastore::Postgres);
    let to = Server::start(Datastore::MySql);
    let planned = plan(&from, &to);
    for _ in 0..2 {
        let printed = migrate(&state, &planned).run().expect_success();
        assert!(printed.text().contains("cutover"), "{}", printed.text());
    }
    assert_eq!(
        oracle::dump(&to, Precision::Seconds).len(),
        0,
        "plan writes nothing"
    );
    migrate(&state, &["copy"]).run().expect_success();
    oracle::assert_same_relationships(&from, &to, Precision::Seconds);
    let head = oracle::head(&to);
    migrate(&state, &["copy"]).run().expect_success();
    assert_eq!(oracle::head(&to), head, "a finished copy is not made again");
    let spool = std::fs::metadata(state.join("changes.ndjson")).unwrap();
    assert_eq!(spool.permissions().mode() & 0o777, 0o600);
    let folder = std::fs::metadata(&state).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
    let check = migrate(&state, &["check"]).run().expect_code(2);
    assert!(check.stderr.contains("status"), "{}", check.stderr);
}

#[test]
fn printed_commands_can_be_pasted_whatever_the_folder_is_called() {
    let folder = folder();
    let state = folder
        .path()
        .join("it's $(touch pwned) \"here\"; `touch pwned` *");
    let refused = || {
        let program = migrate(&state, &["copy"]).current_folder(folder.path());
        program.run().expect_code(2).stderr
    };
    let said = refused();
    let next = |said: &str| {
        let next = said
            .lines()
            .find_map(|line| line.strip_prefix("spice-migrate: hint: run: "));
        next.unwrap().to_owned()
    };
    let pasted = next(&said).replace("plan --from CONTEXT --to CONTEXT", "copy");
    let run_as_printed = |command: &str| {
        let shell = Program::at(Path::new("sh")).args(["-c", command]);
        shell.current_folder(folder.path()).run()
    };
    let again = run_as_printed(&pasted).expect_code(2);
    assert_eq!(again.stderr, said, "the same command, and nothing else");
    assert!(!folder.path().join("pwned").exists());
    // Others could say what is copied, and from where.
    std::fs::create_dir(&state).unwrap();
    for mode in [0o777, 0o770] {
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(mode)).unwrap();
        let said = refused();
        assert!(said.contains("others can write to"), "{said}");
        let mend = next(&said);
        let (mend, _) = mend.split_once("; then run: ").unwrap();
        run_as_printed(mend).expect_success();
        assert!(refused().contains("there is no plan"));
    }
    let state = folder.path().join("a\u{1b}b");
    let refused = migrate(&state, &["copy"]).run().expect_code(2);
    assert!(
        refused.stderr.contains("control characters"),
        "{}",
        refused.stderr
    );
}

#[test]
fn fenced_procedure_copies_and_checks_and_captures_nothing() {
    let folder = folder();
    let state = folder.path().join("migration");
    let from = holding(Sample::portable(2_000), Datastore::Postgres);
    let to = Server::start(Datastore::Postgres);
    let planned = [&plan(&from, &to)[..], &["--fenced"]].concat();
    migrate(&state, &planned).run().expect_success();
    for _ in 0..2 {
        migrate(&state, &["copy"]).run().expect_success();
        migrate(&state, &["check"]).run().expect_success();
    }
    assert!(!state.join("changes.ndjson").exists());
    let refused = migrate(&state, &["follow"]).run().expect_code(2);
    assert!(refused.stderr.contains("--fenced"), "{}", refused.stderr);
    let other = plan(&from, &to);
    let refused = migrate(&state, &other).run().expect_code(2);
    assert!(refused.stderr.contains("the copy has begun"));
    // What check is for: a write that came through the fence.
    let line = Sample {
        seed: 9,
        ..Sample::portable(3)
    };
    import(&from)
        .args(["--on-conflict", "touch"])
        .input(stream_of(line))
        .run()
        .expect_success();
    let check = migrate(&state, &["check"]).run().expect_code(3);
    assert!(check.stderr.contains("Do not switch"), "{}", check.stderr);
}

#[test]
fn source_without_watch_is_refused_by_plan_unless_fenced() {
    let folder = folder();
    let state = folder.path().join("migration");
    let from = Server::builder(Datastore::Postgres)
        .flag("--datastore-disable-watch-support")
        .start();
    import(&from)
        .input(stream_of(Sample::portable(10)))
        .run()
        .expect_success();
    let to = Server::start(Datastore::Memory);
    let live = plan(&from, &to);
    let refused = migrate(&state, &live).run().expect_code(1);
    assert!(
        refused.stderr.contains("Watch is off"),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains("plan --fenced"),
        "{}",
        refused.stderr
    );
    let fenced = [&plan(&from, &to)[..], &["--fenced"]].concat();
    migrate(&state, &fenced).run().expect_success();
}

/// Linked from anywhere, it finds the programs beside itself.
#[test]
fn programs_are_found_beside_it_through_a_symlink() {
    let folder = folder();
    let link = folder.path().join("moves");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_spice-migrate"), &link).unwrap();
    let (from, to) = (
        holding(Sample::portable(10), Datastore::Memory),
        Server::start(Datastore::Memory),
    );
    let planned = Program::at(&link)
        .current_folder(folder.path())
        .env("PATH", "/usr/bin:/bin")
        .args([&plan(&from, &to)[..], &["--settle", "0s"]].concat())
        .run()
        .expect_success();
    assert!(planned.text().contains("cutover"));
    // Alone in a folder it names what is missing.
    let alone = folder.path().join("spice-migrate");
    std::fs::copy(env!("CARGO_BIN_EXE_spice-migrate"), &alone).unwrap();
    let missing = Program::at(&alone)
        .current_folder(folder.path())
        .env("PATH", "/usr/bin:/bin")
        .arg("copy")
        .run()
        .expect_code(2);
    assert!(
        missing.stderr.contains("there is no spice-revision"),
        "{}",
        missing.stderr
    );
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
        &["plan", "--from", "old", "--to", "new"],
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
        let planned = [&plan(&from, &to)[..], &["--settle", "0s"]].concat();
        migrate(&state, &planned).run().expect_success();
        let running = migrate(&state, &["copy", "--settle", "0s"]).spawn();
        std::thread::sleep(Duration::from_millis(600 + 400 * u64::from(round % 5)));
        running.signal("TERM");
        let stopped = running.wait();
        assert!(
            stopped.signal() == Some(15) || stopped.code() == Some(0),
            "{}",
            stopped.stderr
        );
        migrate(&state, &["copy", "--settle", "0s"])
            .run()
            .expect_success();
        oracle::assert_same_relationships(&from, &to, Precision::Microseconds);
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
    let arguments = plan(&from, &to);
    let refused = migrate(&folder.path().join("m"), &arguments)
        .run()
        .expect_code(2);
    assert!(
        refused.stderr.contains("holds relationships"),
        "{}",
        refused.stderr
    );
}
