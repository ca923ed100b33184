//! Hands the commit to `--version`. Compiles what has to run before `main`.
//!
//! The commit is, in this order: `$SPICE_PIPES_COMMIT`, which a packager sets; that of the checkout; that
//! of an archive that git made, which has written it into `commit.txt`. Elsewhere there is none.

use std::fs;
use std::path::Path;
use std::process::Command;

/// As many digits of a commit as are shown.
const DIGITS: usize = 9;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=commit.txt");
    println!("cargo::rerun-if-env-changed=SPICE_PIPES_COMMIT");
    let commit = from_environment()
        .or_else(from_checkout)
        .or_else(from_archive)
        .map_or_else(String::new, |commit| format!(" ({commit})"));
    println!("cargo::rustc-env=SPICE_PIPES_COMMIT={commit}");
    println!("cargo::rerun-if-changed=src/stdout.c");
    // Nothing refers to it, so a linker would leave it out.
    cc::Build::new()
        .file("src/stdout.c")
        .link_lib_modifier("+whole-archive")
        .compile("spice_cli_stdout");
}

fn from_environment() -> Option<String> {
    commit(&std::env::var("SPICE_PIPES_COMMIT").ok()?)
}

/// Only of our own checkout: the folders of an archive may be in somebody else's.
fn from_checkout() -> Option<String> {
    if !Path::new("../../.git").exists() {
        return None;
    }
    // In a linked worktree it is elsewhere. A path that does not exist would compile everything each time.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    commit(&git(&["rev-parse", "HEAD"])?)
}

/// Git replaces the text of that file in `git archive`: see .gitattributes.
fn from_archive() -> Option<String> {
    commit(&fs::read_to_string("commit.txt").ok()?)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// What is shown of a commit, if this is one.
fn commit(text: &str) -> Option<String> {
    let digits = text.trim();
    let is_commit = digits.len() >= DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_commit.then(|| digits[..DIGITS].to_owned())
}
