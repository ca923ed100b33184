//! Moving a source that is being written: `spice-migrate` from plan to the switch, and back.

mod answers;
mod contended;
mod early;
mod fence;
mod gateway;
mod printed;
mod resync;
mod reverse;
mod screen;
mod spanner;
mod state;
mod tenant;
mod under_load;
mod verify;
mod versions;

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use spice_migrate::phase::Switch;
use spice_migrate::state::State;
use spice_migrate::store::Store;

use crate::support::gateway::Gateway;
use crate::support::oracle::{self, Precision, Writers};
use crate::support::program::Program;
use crate::support::running::{Finished, Running};
use crate::support::spicedb::{Datastore, Server};
use crate::support::wait_until;

const PATIENCE: Duration = Duration::from_secs(300);
/// A follow lasts as long as the test, which a soak on a busy machine makes long.
const FOLLOWING: Duration = Duration::from_secs(1_800);

/// A migration between two servers of its own, with its state folder.
struct Migration {
    from: Server,
    to: Server,
    folder: tempfile::TempDir,
    settle: Vec<&'static str>,
}

impl Migration {
    /// Two new servers; the source holds the writers' schema.
    fn between(from: Datastore, to: Datastore) -> Self {
        Self::with_schema(Server::start(from), Server::start(to))
    }

    /// These two servers. The first gets a schema.
    fn with_schema(from: Server, to: Server) -> Self {
        let migration = Self::of(from, to);
        let journal = migration.folder.path().join("nobody");
        let flags = ["--write-schema", "--seconds", "0"];
        Writers::start(&migration.from, &journal, &flags).finish();
        migration
    }

    /// These two servers, as they are.
    fn of(from: Server, to: Server) -> Self {
        Self {
            from,
            to,
            folder: crate::support::folder(),
            settle: Vec::new(),
        }
    }

    /// With this settle time, of a source whose revisions become visible out of order.
    fn settling(mut self, settle: &'static str) -> Self {
        self.settle = vec!["--settle", settle];
        self
    }

    /// With a gateway in front of each end.
    fn behind(&self, from: &Gateway, to: &Gateway) {
        let mut contexts = String::new();
        for (server, gateway) in [(&self.from, from), (&self.to, to)] {
            contexts += &format!(
                "[{}]\nendpoint = \"{}\"\ntoken-file = \"{}\"\ninsecure = true\n",
                server.context(),
                gateway.endpoint(),
                server.token_file().display()
            );
        }
        let path = self.contexts();
        std::fs::write(&path, contexts).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }

    fn contexts(&self) -> PathBuf {
        self.folder.path().join("contexts.toml")
    }

    /// A step, to be run or started.
    fn step(&self, arguments: &[&str]) -> Program {
        let step = Program::new("spice-migrate")
            .arg("--state")
            .arg(self.state())
            .args(arguments)
            .timeout(PATIENCE);
        match self.contexts() {
            contexts if contexts.exists() => step.env("SPICE_CONTEXTS", contexts),
            _ => step,
        }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("migration")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.state().join(name)
    }

    fn plan(&self) -> Finished {
        let ends = [
            "plan",
            "--from",
            self.from.context(),
            "--to",
            self.to.context(),
        ];
        self.step(&[&ends[..], &self.settle].concat())
            .run()
            .expect_success()
    }

    fn plan_and_copy(&self) {
        self.plan();
        self.step(&["copy"]).run().expect_success();
    }

    /// Starts to follow, and waits until that has come to a position.
    fn follow(&self) -> Running {
        let following = self.step(&["follow"]).timeout(FOLLOWING).spawn();
        wait_until("follow comes to a position", PATIENCE, || {
            self.file("position").exists() && self.status()["running"] == true
        });
        following
    }

    /// Starts a cutover and waits until it asks for the fence. It does not measure how busy the machine is.
    fn cutover(&self, flags: &[&str]) -> Running {
        let running = self
            .step(&[&["cutover", "--skip-verify", "--max-lag", "60s"], flags].concat())
            .input_later()
            .spawn();
        running.wait_for_stderr("type: fenced", PATIENCE);
        running
    }

    /// A cutover with nobody writing.
    fn cut_over(&self) -> Finished {
        self.step(&["cutover", "--skip-verify", "--max-lag", "60s"])
            .input("fenced\n")
            .run()
            .expect_success()
    }

    /// What is known of it.
    fn saved(&self) -> State {
        let state = Store::new(&self.state()).load();
        state.unwrap().expect("something was planned")
    }

    /// Changes what is known of it.
    fn change(&self, change: impl FnOnce(&mut State)) {
        Store::new(&self.state()).update(change).unwrap();
    }

    /// The newest result of verify.
    fn verdict(&self) -> String {
        let verdict = self.saved().verdict;
        verdict
            .map(|verdict| verdict.to_string())
            .unwrap_or_default()
    }

    fn is_fenced(&self) -> bool {
        self.saved().phase.fenced_at().is_some()
    }

    fn switch(&self) -> Option<Switch> {
        let state = Store::new(&self.state()).load().unwrap();
        state.and_then(|state| state.phase.switch().cloned())
    }

    fn status(&self) -> Value {
        let finished = self.step(&["status", "--json", "--skip-verify"]).run();
        finished.json_lines()[0]["status"].clone()
    }
}

/// Confirms that the fence is closed.
fn fenced(cutover: &mut Running) {
    cutover.take_stdin().write_all(b"fenced\n").unwrap();
}

/// Seconds without writes, as cutover measured them.
fn downtime(cutover: &Finished) -> f64 {
    let text = cutover
        .stderr
        .split("write downtime ")
        .nth(1)
        .expect("a downtime");
    text.split(' ').next().unwrap().parse().unwrap()
}

/// A relationship that no writer owns, as the oracle takes and prints it.
fn relationship(id: &str) -> String {
    format!(r#"{{"relation":"holder","resource":"item:{id}","subject":"user:somebody"}}"#)
}

/// Writes one relationship of the writers' schema.
fn touch(server: &Server, id: &str) {
    oracle::load(
        server,
        &(relationship(id).replacen('{', r#"{"op":"touch","#, 1) + "\n"),
    );
}

fn delete(server: &Server, id: &str) {
    oracle::load(
        server,
        &(relationship(id).replacen('{', r#"{"op":"delete","#, 1) + "\n"),
    );
}

/// How many transactions a spool holds.
pub(crate) fn transactions(spool: &Path) -> usize {
    let text = std::fs::read_to_string(spool).unwrap_or_default();
    text.lines()
        .filter(|line| line.starts_with(r#"{"transaction""#))
        .count()
}

/// What both can hold of an expiry.
fn precision(from: Datastore, to: Datastore) -> Precision {
    if [from, to].contains(&Datastore::MySql) {
        Precision::Seconds
    } else {
        Precision::Microseconds
    }
}

/// The processes that a process has started and that live.
fn children(parent: u32) -> Vec<u32> {
    let tasks = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(tasks).unwrap_or_default();
    text.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// Whether a process runs: one that nobody has waited for has ended.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !"ZX".contains(state))
}
