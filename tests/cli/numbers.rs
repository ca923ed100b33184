//! Numbers, durations and sizes that nobody means: refused as usage, or taken, and never a panic.

use std::path::Path;
use std::time::Duration;

use clap::CommandFactory as _;
use testdata::Sample;

use super::with_schema;
use crate::copy::{export, stream_of};
use crate::support::folder;
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::spicedb::Datastore;

/// What a flag of numbers, durations or sizes may be given.
const VALUES: &[&str] = &[
    "0",
    "1",
    "-1",
    "64",
    "65535",
    "65536",
    "1000000",
    "1000000001",
    "2147483647",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e9",
    "NaN",
    "inf",
    "0s",
    "1ns",
    "-1s",
    "87600h",
    "87601h",
    "600000000000s",
    "9223372036854775807s",
    "9223372036854775807h",
    "2562047788015215h30m8s",
    "1B",
    "1PiB",
    "1048576GiB",
    "17179869183GiB",
    "16777215TiB",
    "99999999999999999999k",
    "",
];

fn commands() -> [clap::Command; 11] {
    [
        spice_export::Export::command(),
        spice_import::Import::command(),
        spice_revision::Revision::command(),
        spice_watch::Watch::command(),
        spice_apply::Apply::command(),
        spice_digest::Digest::command(),
        spice_diff::Diff::command(),
        spice_convert::Convert::command(),
        spice_map::Map::command(),
        spice_check::Check::command(),
        spice_preflight::Preflight::command(),
    ]
}

/// Whether the parser takes a value; a panic fails the test.
fn takes(command: &clap::Command, flag: &str, value: &str) -> bool {
    let given = format!("--{flag}={value}");
    let name = command.get_name().to_owned();
    let parsed = command
        .clone()
        .try_get_matches_from([name.clone(), given.clone()]);
    match parsed {
        Ok(_) => true,
        Err(error) => {
            // Something else is missing, or does not go together with it: then the value was fine.
            let kinds = [
                clap::error::ErrorKind::MissingRequiredArgument,
                clap::error::ErrorKind::ArgumentConflict,
            ];
            kinds.contains(&error.kind())
        }
    }
}

#[test]
fn absurd_values_of_every_flag_never_panic() {
    let server = with_schema(Datastore::Memory);
    let since = oracle::head(&server);
    let folder = folder();
    let snapshot = folder.path().join("snapshot");
    let exported = export(&server).run().expect_success().stdout;
    std::fs::write(&snapshot, exported).unwrap();
    let mut tried = 0;
    for command in commands() {
        for argument in command.get_arguments() {
            let Some(flag) = argument.get_long() else {
                continue;
            };
            // A flag that takes any word is no number.
            if !argument.get_action().takes_values() || takes(&command, flag, "no number") {
                continue;
            }
            let mut taken: Vec<&str> = VALUES.to_vec();
            taken.retain(|value| takes(&command, flag, value));
            // The parser has seen all; the least and the most go further.
            if taken.len() > 4 {
                taken.drain(2..taken.len() - 2);
            }
            for value in taken {
                let given = format!("--{flag}={value}");
                let program = program(
                    command.get_name(),
                    flag,
                    server.context(),
                    &since,
                    &snapshot,
                );
                runs_or_refuses(
                    program.arg(&given),
                    &format!("{} {given}", command.get_name()),
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 40, "{tried}");
    for (name, flag) in [
        ("spice-apply", "--max-rps=1000000001"),
        ("spice-export", "--request-timeout=600000000000s"),
        ("spice-export", "--request-timeout=0s"),
        ("spice-watch", "--until-quiet=9223372036854775807s"),
    ] {
        let finished = Program::new(name).arg(flag).run().expect_code(2);
        assert!(
            finished.stderr.contains("invalid value"),
            "{}",
            finished.stderr
        );
    }
}

/// Each does its work with the flag, as far as it gets in a moment.
fn program(name: &str, flag: &str, context: &str, since: &str, snapshot: &Path) -> Program {
    let settled = |program: Program| match flag {
        "settle" => program,
        _ => program.args(["--settle", "0s"]),
    };
    let program = Program::new(name).timeout(Duration::from_secs(20));
    let update = r#"{"update":{"operation":"OPERATION_TOUCH","relationship":{"resource":{"objectType":"tenant/document","objectId":"a"},"relation":"viewer","subject":{"object":{"objectType":"user","objectId":"b"}}}}}"#;
    match name {
        "spice-digest" | "spice-convert" => program.arg(snapshot),
        "spice-map" => program.args(["--rename", "tenant/=org/"]).arg(snapshot),
        "spice-diff" => program.arg(snapshot).arg(snapshot),
        "spice-export" => settled(program.args(["--context", context])),
        "spice-import" => {
            let program = program.args(["--context", context, "--on-conflict", "touch"]);
            program.input(stream_of(Sample::portable(3)))
        }
        "spice-revision" => settled(program.args(["--context", context, "--head"])),
        "spice-watch" => {
            let program = program.args(["--context", context, "--since", since]);
            let program = match flag {
                "spool-segment" => program.arg("--spool").arg(snapshot.with_extension("spool")),
                _ => program,
            };
            settled(program)
        }
        "spice-apply" => {
            let program = program.args(["--context", context, "--no-trailer"]);
            program.input(format!("{update}\n"))
        }
        "spice-preflight" => program.args(["--from", context]),
        _ => program
            .args(["--context", context, "--at", since])
            .arg(snapshot),
    }
}

fn runs_or_refuses(program: Program, what: &str) {
    let mut running = program.spawn();
    let began = std::time::Instant::now();
    while running.is_running() && began.elapsed() < Duration::from_millis(500) {
        std::thread::sleep(Duration::from_millis(5));
    }
    running.signal("TERM");
    let finished = running.wait();
    let text = &finished.stderr;
    assert_ne!(finished.code(), Some(101), "{what}: {text}");
    assert_ne!(finished.signal(), Some(6), "{what}: {text}");
    assert!(!text.contains("panicked"), "{what}: {text}");
}
