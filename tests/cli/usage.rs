//! Help, flags, messages: what a person meets before anything is read or written.

use std::path::Path;

use testdata::Sample;

use super::{assert_says, programs, run, with_schema};
use crate::copy::{export, holding, import, stream_of};
use crate::support::oracle::{self, Precision};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::spicedb::{Datastore, Server};

const NAMES: [&str; 6] = [
    "spice-export",
    "spice-import",
    "spice-revision",
    "spice-watch",
    "spice-apply",
    "spice-check",
];

#[test]
fn help_begins_with_examples_and_version_is_the_packages() {
    for name in NAMES {
        for flag in ["--help", "-h"] {
            let help = run(Program::new(name).arg(flag)).expect_success();
            let text = help.text();
            assert!(text.starts_with("Examples:\n  "), "{name} {flag}: {text}");
            let usage = text.find("\nUsage: ").unwrap();
            assert!(text[..usage].contains(name), "the examples are its own");
            for expected in ["--context", "--token-file", "--log-format"] {
                assert!(text.contains(expected), "{name} {flag}: {expected}");
            }
            let has_exit_codes = text.contains("\nExit codes:\n  0   Done");
            assert_eq!(has_exit_codes, flag == "--help", "{name} {flag}: {text}");
            assert_eq!(help.stderr, "");
        }
        for flag in ["--version", "-V"] {
            let version = run(Program::new(name).arg(flag)).expect_success();
            let expected = format!("{name} {}", env!("CARGO_PKG_VERSION"));
            assert!(version.text().starts_with(&expected), "{}", version.text());
        }
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that was left out must be seen")]
fn terminal_without_anything_to_read_gives_help_and_no_hang() {
    let script = Path::new("/usr/bin/script");
    if !script.exists() {
        eprintln!("not tested: script (util-linux) is not installed");
        return;
    }
    for command in [
        "spice-import",
        "spice-import --context nosuch",
        "spice-import --dry-run",
        "spice-revision",
        "spice-revision --target",
    ] {
        let finished = run(Program::at(script).args(["-qec", command, "/dev/null"]));
        let text = finished.text().to_owned();
        assert_eq!(finished.code(), Some(2), "{command}: {text}");
        for expected in [
            "nothing to read: stdin is a terminal",
            "Examples:",
            "Usage: ",
        ] {
            assert!(text.contains(expected), "{command}: {text}");
        }
        assert!(finished.took < super::AT_ONCE, "{command}");
    }
}

/// Before a server is called: "try again" would hide a mistyped name for as long as none answers.
#[test]
fn input_that_cannot_be_opened_is_named_though_no_server_answers() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("old.ndjson");
    for name in ["spice-import", "spice-apply", "spice-check"] {
        for (input, reason) in [(&*missing, "No such file"), (folder.path(), "directory")] {
            let program = Program::new(name).args(["--endpoint", "127.0.0.1:1", "--insecure"]);
            let finished = run(program.arg(input));
            assert_says(&finished, 1, &["cannot open", reason], name);
        }
    }
}

#[test]
fn flags_that_make_no_sense_are_named_with_the_right_form() {
    let cases: [(&str, &[&str], &[&str]); 18] = [
        (
            "spice-export",
            &["--nosuch"],
            &["'--nosuch'", "Usage: spice-export"],
        ),
        (
            "spice-import",
            &["--nosuch"],
            &["'--nosuch'", "Usage: spice-import"],
        ),
        (
            "spice-revision",
            &["--nosuch"],
            &["'--nosuch'", "Usage: spice-revision"],
        ),
        ("spice-export", &["extra"], &["'extra'"]),
        (
            "spice-export",
            &["--settle", "5"],
            &["--settle", "35s or 1m30s"],
        ),
        (
            "spice-export",
            &["--settle", "soon"],
            &["--settle", "35s or 1m30s"],
        ),
        (
            "spice-export",
            &["--settle", "-5s"],
            &["--settle", "negative"],
        ),
        (
            "spice-revision",
            &["--request-timeout", "1"],
            &["--request-timeout", "35s"],
        ),
        ("spice-import", &["--jobs", "0"], &["--jobs", "1..=64"]),
        ("spice-export", &["--zstd=20"], &["--zstd", "1..=19"]),
        ("spice-export", &["--gzip=10"], &["--gzip", "1..=9"]),
        (
            "spice-export",
            &["--gzip", "--zstd"],
            &["--gzip", "--zstd", "cannot be used with"],
        ),
        ("spice-export", &["--at", ""], &["--at", "spice-revision"]),
        (
            "spice-export",
            &["--at", "yesterday"],
            &["--at", "spice-revision"],
        ),
        (
            "spice-export",
            &["--expiry-precision", "ms"],
            &["--expiry-precision", "us"],
        ),
        (
            "spice-import",
            &["--on-conflict", "keep"],
            &["--on-conflict", "fail, skip, touch"],
        ),
        (
            "spice-import",
            &["--partial", "--no-trailer"],
            &["--partial", "--no-trailer"],
        ),
        (
            "spice-revision",
            &["--head", "--mark"],
            &["--head", "--mark"],
        ),
    ];
    for (name, flags, words) in cases {
        let finished = run(Program::new(name).args(flags));
        assert_says(&finished, 2, words, &format!("{flags:?}"));
        let prefix = format!("{name}: error: ");
        assert!(finished.stderr.starts_with(&prefix), "{}", finished.stderr);
        assert!(finished.stdout.is_empty());
    }
}

/// Every line on stderr as an object; each must be one.
#[track_caller]
fn events(finished: &Finished) -> Vec<serde_json::Value> {
    let lines = finished.stderr.lines();
    let events: Vec<serde_json::Value> = lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    for event in &events {
        for field in ["time", "level", "program", "message"] {
            assert!(event[field].is_string(), "{field} of {event}");
        }
        assert_eq!(event["program"], finished.name);
    }
    events
}

#[test]
fn json_messages_have_level_program_message_and_hint() {
    let server = holding(Sample::portable(100), Datastore::Memory);
    let json = ["--log-format", "json", "--verbose"];
    let exported = run(export(&server).args(json)).expect_success();
    let told = events(&exported);
    assert!(told.iter().all(|event| event["level"] != "error"));
    assert!(
        told.last().unwrap()["message"]
            .as_str()
            .unwrap()
            .contains("exported 100")
    );
    let warned = export(&server)
        .args(json)
        .arg("--token")
        .arg(server.token().trim());
    let warned = super::said(warned.run()).expect_success();
    assert!(
        events(&warned)
            .iter()
            .any(|event| event["level"] == "warning" || event["level"] == "warn")
    );
    let failing = [
        (
            import(&server).input(stream_of(Sample::portable(1))),
            2,
            true,
        ),
        (
            import(&server).args(["--on-conflict", "skip"]).input("{"),
            65,
            false,
        ),
        (
            Program::new("spice-export").args(["--context", "nosuch"]),
            2,
            true,
        ),
        (Program::new("spice-export").arg("--nosuch"), 2, false),
        (
            Program::new("spice-export").args(["--endpoint", "127.0.0.1:1"]),
            75,
            true,
        ),
    ];
    for (program, code, hint) in failing {
        let failed = run(program.args(json)).expect_code(code);
        let told = events(&failed);
        let error = told.last().unwrap();
        assert_eq!(error["level"], "error", "{error}");
        assert_eq!(error["hints"].is_array(), hint, "{error}");
    }
    let equals = run(Program::new("spice-revision").args(["--log-format=json", "--settle", "x"]));
    assert!(
        events(&equals.expect_code(2))[0]["message"]
            .as_str()
            .unwrap()
            .contains("--settle")
    );
}

#[test]
fn quiet_says_less_and_verbose_says_more() {
    let server = holding(Sample::portable(100), Datastore::Memory);
    let said = |flag: &[&str]| run(export(&server).args(flag)).expect_success().stderr;
    assert_eq!(said(&["--quiet"]), "");
    let (normal, verbose) = (said(&[]), said(&["--verbose"]));
    assert!(normal.contains("exported 100 relationships"));
    assert!(verbose.contains("connected to") && !normal.contains("connected to"));
    assert!(verbose.lines().count() > normal.lines().count());
    for program in programs() {
        let finished = run(program.args(["-q", "--endpoint", "127.0.0.1:1"]));
        assert_says(&finished, 75, &["error: ", "hint: "], "--quiet");
    }
    // How much of a failed import is on the target must be known in any case.
    let target = Server::start(Datastore::Memory);
    let cut: Vec<u8> = stream_of(Sample::portable(60_000));
    let cut = cut[..cut.len() - 1_000].to_vec();
    let finished = run(import(&target).arg("--quiet").input(cut));
    let there = oracle::dump(&target, Precision::Seconds).len();
    let words = [
        &*format!("{there} relationships of this stream are on the target"),
        "torn",
    ];
    assert_says(&finished, 65, &words, "--quiet");
    let both = run(Program::new("spice-export").args(["--quiet", "--verbose"]));
    assert_says(&both, 2, &["--quiet", "--verbose"], "both");
}

#[test]
fn pipe_from_a_datastore_into_itself_is_refused() {
    for datastore in [Datastore::Memory, Datastore::Postgres, Datastore::MySql] {
        let server = holding(Sample::portable(300), datastore);
        let before = oracle::dump(&server, Precision::Nanoseconds);
        for flags in [
            &["--on-conflict", "touch", "--schema", "write"][..],
            &["--on-conflict", "skip", "--dry-run"],
        ] {
            let pipe = Pipe::from(export(&server)).to(import(&server).args(flags));
            let finished = super::said(pipe.run().pop().unwrap());
            let words = [
                "the target's own datastore",
                "check --context or --endpoint",
            ];
            assert_says(&finished, 2, &words, &format!("{datastore:?}"));
            assert!(finished.stdout.is_empty());
        }
        let after = oracle::dump(&server, Precision::Nanoseconds);
        oracle::assert_same_lines("before", &before, "after", &after);
    }
    // Even without relationships, where nothing else prevents it.
    let empty = with_schema(Datastore::Memory);
    let pipe = Pipe::from(export(&empty)).to(import(&empty));
    assert_says(&pipe.run().pop().unwrap(), 2, &["own datastore"], "empty");
}
