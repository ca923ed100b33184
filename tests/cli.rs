//! The command line: connections, contexts, messages and exit codes. Every program that is run here
//! is held to it that no preshared key shows.

mod connect;
mod contexts;
mod denied;
mod endpoints;
mod export;
mod numbers;
mod proxies;
mod revision;
mod signals;
mod stdout;
mod strangers;
mod usage;
mod zed;

use testdata::Sample;

use crate::copy::stream_of;
use crate::support::AT_ONCE;
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::spicedb::{Datastore, Server};
use crate::support::state_folder;

/// A preshared key that no server has.
const WRONG: &str = "wrong-preshared-key-4711";

/// The keys of all servers that run now, and the wrong one.
fn secrets() -> Vec<String> {
    let servers = std::fs::read_dir(state_folder())
        .into_iter()
        .flatten()
        .flatten();
    let files = servers.map(|server| server.path().join("token"));
    let tokens = files.filter_map(|file| std::fs::read_to_string(file).ok());
    tokens
        .map(|token| token.trim().to_owned())
        .filter(|token| !token.is_empty())
        .chain([WRONG.to_owned()])
        .collect()
}

/// Fails, without repeating it, if a key is in what anybody can see.
#[track_caller]
fn assert_secret(place: &str, shown: &str) {
    let found = secrets()
        .iter()
        .any(|secret| shown.contains(secret.as_str()));
    assert!(!found, "a preshared key shows in {place}");
}

/// Runs a program to its end; no key may be in its arguments, on stdout or on stderr.
#[track_caller]
fn run(program: Program) -> Finished {
    let running = program.spawn();
    assert_secret("the arguments", &command_line(running.pid()));
    said(running.wait())
}

/// As [`run`], for a program that was given `--token` on purpose.
#[track_caller]
fn said(finished: Finished) -> Finished {
    assert_secret("stdout", &String::from_utf8_lossy(&finished.stdout));
    assert_secret("stderr", &finished.stderr);
    finished
}

/// What `ps` shows of a process.
fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Fails unless the program ended with this code and all of these words on stderr.
#[track_caller]
fn assert_says(finished: &Finished, code: i32, words: &[&str], what: &str) {
    let (name, stderr) = (&finished.name, &finished.stderr);
    assert_eq!(finished.code(), Some(code), "{name}, {what}: {stderr}");
    for word in words {
        assert!(
            stderr.contains(word),
            "{name}, {what}: {word:?} is not in: {stderr}"
        );
    }
}

/// The three programs, each about to ask a server something.
fn programs() -> [Program; 3] {
    [
        Program::new("spice-export").args(["--settle", "0s"]),
        Program::new("spice-import").input(stream_of(Sample::portable(3))),
        Program::new("spice-revision").args(["--head", "--settle", "0s"]),
    ]
}

/// An empty server with the sample's schema.
fn with_schema(datastore: Datastore) -> Server {
    let server = Server::start(datastore);
    crate::support::oracle::write_schema(&server, testdata::SCHEMA);
    server
}
