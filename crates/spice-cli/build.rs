//! Hands the commit to `--version`; a build outside a checkout goes without. Compiles what has to run before
//! `main`.

use std::path::Path;
use std::process::Command;

fn main() {
    let git = Path::new("../../.git");
    println!("cargo::rerun-if-changed=build.rs");
    if git.exists() {
        println!("cargo::rerun-if-changed=../../.git/logs/HEAD");
    }
    let commit = Command::new("git")
        .args(["rev-parse", "--short=9", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success() && git.exists())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(String::new, |commit| format!(" ({})", commit.trim()));
    println!("cargo::rustc-env=SPICE_PIPES_COMMIT={commit}");
    println!("cargo::rerun-if-changed=src/stdout.c");
    // Nothing refers to it, so a linker would leave it out.
    cc::Build::new()
        .file("src/stdout.c")
        .link_lib_modifier("+whole-archive")
        .compile("spice_cli_stdout");
}
