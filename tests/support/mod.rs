//! What the tests are built on: real SpiceDB servers, the suite's programs joined by real pipes, a
//! proxy that breaks connections, and an independent oracle of what a server holds. Everything here
//! panics when the bench itself fails.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests: not every test uses all, and a broken bench may panic"
)]

pub mod disk;
pub mod gateway;
pub mod oracle;
pub mod pipe;
pub mod program;
pub mod refusing;
pub mod relay;
pub mod running;
pub mod seal;
pub mod spicedb;
pub mod toxiproxy;
pub mod zed;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The repository's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A new folder for one test, deleted when dropped.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// What waits for nobody ends within this. The programs need less than a second; the rest is for a busy machine.
/// What they must not wait for takes longer: a settle time, the timeout of a request, all retries.
pub const AT_ONCE: Duration = Duration::from_secs(20);

/// Waits until `check` holds, looking every few milliseconds; panics with `what` after `limit`.
pub fn wait_until(what: &str, limit: Duration, check: impl FnMut() -> bool) {
    assert!(wait_for(limit, check), "waited {limit:?} in vain: {what}");
}

/// Whether that came about within so long.
pub fn wait_for(limit: Duration, mut check: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !check() {
        if began.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Runs a command of the bench and returns its stdout; panics with its stderr when it fails.
fn output_of(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("the command can be started");
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8(output.stdout).expect("the command prints UTF-8")
}

/// `tests/servers/spicedb` with the state folder that all servers of the tests share.
fn spicedb_script() -> Command {
    let mut command = Command::new(root().join("tests/servers/spicedb"));
    command.env("SPICEDB_STATE", state_folder());
    command
}

/// Where the servers of the tests keep their state: `$SPICEDB_STATE`, else `target/test-servers`.
pub fn state_folder() -> PathBuf {
    let folder = std::env::var_os("SPICEDB_STATE")
        .map_or_else(|| root().join("target/test-servers"), PathBuf::from);
    std::path::absolute(folder).expect("the folder's path can be made absolute")
}

/// The contexts file that names every server of the tests; the programs find it in
/// `SPICE_CONTEXTS`.
pub fn contexts() -> PathBuf {
    state_folder().join("contexts.toml")
}

/// A loopback port that nothing else will use while this process lives.
pub fn free_port() -> u16 {
    output_of(spicedb_script().arg("freeport"))
        .trim()
        .parse()
        .expect("freeport prints a port")
}

/// How often a test repeats something: `short` in `make test`, `long` in `make soak`.
pub fn repeat(short: u32, long: u32) -> u32 {
    if std::env::var_os("SPICE_SOAK").is_some() {
        long
    } else {
        short
    }
}

/// Prints what was measured; `cargo test -- --nocapture` shows it.
pub fn figure(text: &str) {
    eprintln!("{text}");
}

/// Drawn from a seed (SplitMix64), so that a failure can be run again.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }
}
