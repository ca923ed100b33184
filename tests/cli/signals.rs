//! SIGTERM, SIGHUP and SIGINT in every state: ended within a second, as in the table of exit codes.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use testdata::Sample;

use super::{run, with_schema};
use crate::copy::{holding, stream_of};
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::running::Running;
use crate::support::spicedb::Datastore;
use crate::support::{AT_ONCE, folder, wait_until};

/// TERM comes last: what it means differs.
const SIGNALS: [(&str, i32); 3] = [("HUP", 1), ("INT", 2), ("TERM", 15)];

/// How a program ends of SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Polite {
    Well,
    Killed,
}
use Polite::{Killed, Well};

/// A program that blocks somewhere, made again for each signal, and its message at that point.
struct State<'a> {
    what: &'a str,
    polite: Polite,
    program: &'a dyn Fn() -> Program,
    says: &'a str,
}

fn state<'a>(what: &'a str, polite: Polite, program: &'a dyn Fn() -> Program) -> State<'a> {
    State {
        what,
        polite,
        program,
        says: "",
    }
}

fn ends_within_a_second(states: &[State<'_>]) {
    for State {
        what,
        polite,
        program,
        says,
    } in states
    {
        for (name, number) in SIGNALS {
            let mut running = program().spawn();
            if says.is_empty() {
                running.wait_until_blocked();
            } else {
                running.wait_for_stderr(says, AT_ONCE);
            }
            assert!(
                running.is_running(),
                "{what}: ended by itself: {}",
                running.stderr_so_far()
            );
            let expected = match (*polite, name) {
                (Well, "TERM") => None,
                _ => Some(number),
            };
            assert_ends(running, name, expected, what);
        }
    }
}

/// `signal`: that of which it dies; none for exit code 0.
#[track_caller]
pub(super) fn assert_ends(running: Running, name: &str, signal: Option<i32>, what: &str) {
    let began = Instant::now();
    running.signal(name);
    let finished = running.wait();
    let took = began.elapsed();
    let text = &finished.stderr;
    assert_eq!(finished.signal(), signal, "{what}, {name}: {text}");
    if signal.is_none() {
        assert_eq!(finished.code(), Some(0), "{what}, {name}: {text}");
    }
    assert!(took < AT_ONCE, "{what}, {name}: {took:?}");
}

fn fifo(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let made = Command::new("mkfifo")
        .args(["-m", "600"])
        .arg(&path)
        .status();
    assert!(made.unwrap().success());
    path
}

/// A zedtoken of the right form, of no server.
const TOKEN: &str = "GhUKEzE3NjQwMDAwMDAwMDAwMDAwMDA=";

#[test]
fn signal_ends_what_waits_before_the_first_request() {
    let folder = folder();
    let [pipe, other] = ["pipe", "other"].map(|name| fifo(folder.path(), name));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = silent.local_addr().unwrap().to_string();
    let to = |name: &str| Program::new(name).args(["--endpoint", &endpoint]);
    let bare = |name: &str| to(name).arg("--insecure");
    let watch = || bare("spice-watch").args(["--since", TOKEN]);
    let spooling = || watch().arg("--spool").arg(folder.path().join("spool"));
    let command = ["--token-command", "sleep 600"];
    let key = |program: Program| {
        let program = program.arg("--client-certificate-path").arg(&pipe);
        program.arg("--client-key-path").arg(&pipe)
    };
    ends_within_a_second(&[
        state("export, token command", Killed, &|| {
            bare("spice-export").args(command)
        }),
        state("import, token command", Killed, &|| {
            bare("spice-import").args(command).input("")
        }),
        state("revision, token command", Killed, &|| {
            bare("spice-revision").arg("--mark").args(command)
        }),
        state("check, token command", Killed, &|| {
            bare("spice-check").args(command).input("")
        }),
        state("watch, token command", Killed, &|| watch().args(command)),
        state("watch into a spool, token command", Well, &|| {
            spooling().args(command)
        }),
        state("apply, token command", Killed, &|| {
            bare("spice-apply").args(command).input("")
        }),
        state("export, token file", Killed, &|| {
            bare("spice-export").arg("--token-file").arg(&pipe)
        }),
        state("apply, token file", Killed, &|| {
            bare("spice-apply").arg("--token-file").arg(&pipe)
        }),
        state("export, certificate", Killed, &|| {
            to("spice-export").arg("--certificate-path").arg(&pipe)
        }),
        state("export, client certificate", Killed, &|| {
            key(to("spice-export"))
        }),
        state("watch into a spool, client certificate", Well, &|| {
            key(to("spice-watch").args(["--since", TOKEN, "--spool", "/nosuch"]))
        }),
        state("revision, contexts", Killed, &|| {
            let program = Program::new("spice-revision").args(["--head", "--context", "a"]);
            program.env("SPICE_CONTEXTS", &pipe)
        }),
        state("preflight, contexts", Killed, &|| {
            let program = Program::new("spice-preflight").args(["--from", "a", "--to", "b"]);
            program.env("SPICE_CONTEXTS", &pipe)
        }),
        state("export, output", Killed, &|| {
            bare("spice-export").arg("--output").arg(&pipe)
        }),
        state("export, silent server", Killed, &|| bare("spice-export")),
        state("apply, silent server", Killed, &|| {
            bare("spice-apply").input("")
        }),
        state("digest, file", Killed, &|| {
            Program::new("spice-digest").arg(&pipe)
        }),
        state("revision, file", Killed, &|| {
            Program::new("spice-revision").arg(&pipe)
        }),
        state("diff, A", Killed, &|| {
            Program::new("spice-diff").arg(&pipe).arg(&other)
        }),
        state("diff, --keys-from", Killed, &|| {
            let program = Program::new("spice-diff").args(["/dev/null", "/dev/null"]);
            program.arg("--keys-from").arg(&pipe)
        }),
        state("import, file", Killed, &|| {
            Program::new("spice-import").arg("--dry-run").arg(&pipe)
        }),
        state("digest, stdin", Killed, &|| {
            Program::new("spice-digest").input_later()
        }),
        state("revision, stdin", Killed, &|| {
            Program::new("spice-revision").input_later()
        }),
        state("convert, stdin", Killed, &|| {
            Program::new("spice-convert").input_later()
        }),
        state("map, stdin", Killed, &|| {
            let program = Program::new("spice-map").args(["--rename", "tenant/=org/"]);
            program.input_later()
        }),
        state("import, stdin", Killed, &|| {
            Program::new("spice-import").arg("--dry-run").input_later()
        }),
    ]);
}

#[test]
fn signal_ends_what_waits_between_requests() {
    let server = with_schema(Datastore::Memory);
    let folder = folder();
    let pipe = fifo(folder.path(), "pipe");
    let since = oracle::head(&server);
    let to = |name: &str| Program::new(name).args(["--context", server.context()]);
    let watch = || to("spice-watch").args(["--since", &since]);
    let spooling = || watch().arg("--spool").arg(folder.path().join("spool"));
    let full = || {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut other = writer.try_clone().unwrap();
        other.write_all(&[b'\n'; 64 << 10]).unwrap();
        // The reader stays, and reads nothing.
        std::mem::forget(reader);
        writer
    };
    let update = r#"{"update":{"operation":"OPERATION_TOUCH","relationship":{"resource":{"objectType":"tenant/document","objectId":"a"},"relation":"viewer","subject":{"object":{"objectType":"user","objectId":"b"}}}}}"#;
    ends_within_a_second(&[
        State {
            says: "waiting 35 s",
            ..state("export, settling", Killed, &|| to("spice-export"))
        },
        State {
            says: "waiting 35 s",
            ..state("revision, settling", Killed, &|| {
                to("spice-revision").arg("--head")
            })
        },
        state("import, stdin", Killed, &|| {
            to("spice-import").input_later()
        }),
        state("check, stdin", Killed, &|| to("spice-check").input_later()),
        state("apply, stdin", Killed, &|| to("spice-apply").input_later()),
        state("apply, spool that is not there", Well, &|| {
            to("spice-apply")
                .arg("--spool")
                .arg(folder.path().join("none"))
        }),
        state("import, rejects", Killed, &|| {
            let stream = stream_of(Sample::portable(3));
            to("spice-import").arg("--rejects").arg(&pipe).input(stream)
        }),
        state("apply, rejects", Killed, &|| {
            let program = to("spice-apply")
                .arg("--no-trailer")
                .input(format!("{update}\n"));
            program.arg("--rejects").arg(&pipe)
        }),
        state("watch, since", Killed, &|| {
            to("spice-watch").arg("--since-file").arg(&pipe)
        }),
        state("watch into a spool, since", Well, &|| {
            let spool = folder.path().join("other");
            to("spice-watch")
                .arg("--since-file")
                .arg(&pipe)
                .arg("--spool")
                .arg(spool)
        }),
        State {
            says: "reading 35 s behind",
            ..state("watch into a spool", Well, &spooling)
        },
        state("revision, full stdout", Killed, &|| {
            to("spice-revision").arg("--mark").stdout_to(full())
        }),
        state("digest, full stdout", Killed, &|| {
            let stream = stream_of(Sample::portable(3));
            Program::new("spice-digest").input(stream).stdout_to(full())
        }),
        state("convert, full stdout", Killed, &|| {
            let stream = stream_of(Sample::portable(3));
            let program = Program::new("spice-convert").args(["--to", "text"]);
            program.input(stream).stdout_to(full())
        }),
        state("import, full stdout", Killed, &|| {
            let stream = stream_of(Sample::portable(3));
            let program = to("spice-import").args(["--on-conflict", "skip"]);
            program.input(stream).stdout_to(full())
        }),
        state("apply, full stdout", Killed, &|| {
            let program = to("spice-apply").arg("--no-trailer");
            program.input(format!("{update}\n")).stdout_to(full())
        }),
        state("export, full stdout", Killed, &|| {
            to("spice-export")
                .args(["--settle", "0s"])
                .stdout_to(full())
        }),
        state("watch, full stdout", Killed, &|| watch().stdout_to(full())),
    ]);
    let text = run(to("spice-watch")
        .args(["--since", &since, "--spool"])
        .arg(&pipe));
    assert_eq!(text.code(), Some(1), "a spool is a file: {}", text.stderr);
    let text = run(to("spice-apply").input("").arg("--position").arg(&pipe));
    assert_eq!(
        text.code(),
        Some(1),
        "a position is a file: {}",
        text.stderr
    );
}

#[test]
fn signal_ends_what_tries_again() {
    let server = with_schema(Datastore::Memory);
    let since = oracle::head(&server);
    let folder = folder();
    let spool = |name: &str| folder.path().join(name);
    let start = |name: &str| {
        let watching = Program::new("spice-watch")
            .args(["--context", server.context(), "--since", &since])
            .args(["--settle", "0s", "--max-retries", "1000", "--spool"])
            .arg(spool(name));
        watching.spawn()
    };
    let watching: Vec<_> = SIGNALS.iter().map(|(name, _)| start(name)).collect();
    for watch in &watching {
        watch.wait_for_stderr("watching", Duration::from_secs(20));
    }
    for watch in &watching {
        watch.wait_until_blocked();
    }
    server.kill9();
    for ((name, number), watch) in SIGNALS.into_iter().zip(watching) {
        watch.wait_for_stderr("again in", Duration::from_secs(20));
        let signal = (name != "TERM").then_some(number);
        assert_ends(watch, name, signal, "retrying");
    }
}

#[test]
fn hangup_leaves_no_partial_file_and_is_ignored_under_nohup() {
    let server = holding(Sample::rich(2_000), Datastore::Memory);
    let folder = folder();
    let output = folder.path().join("backup");
    let exporting = || {
        let program = Program::new("spice-export").args(["--context", server.context()]);
        program.arg("--output").arg(&output).spawn()
    };
    let files = || std::fs::read_dir(folder.path()).unwrap().count();
    let running = exporting();
    wait_until("a partial file", AT_ONCE, || files() == 1);
    running.wait_for_stderr("waiting 35 s", AT_ONCE);
    assert_ends(running, "HUP", Some(1), "export to a file");
    assert_eq!(files(), 0);
    let nohup = Program::at(Path::new("nohup")).args(["spice-digest", "-"]);
    let mut ignoring = nohup.input_later().spawn();
    ignoring.wait_until_blocked();
    ignoring.signal("HUP");
    ignoring.wait_until_blocked();
    assert!(ignoring.is_running());
    let stream = stream_of(Sample::portable(3));
    ignoring.take_stdin().write_all(&stream).unwrap();
    ignoring.wait().expect_success();
}

#[test]
fn token_command_does_not_outlive_its_program() {
    let folder = folder();
    let pid = folder.path().join("pid");
    let command = format!("echo $$ >{}; sleep 600", pid.display());
    let program = Program::new("spice-revision").args(["--mark", "--endpoint", "localhost:1"]);
    let running = program
        .args(["--insecure", "--token-command", &command])
        .spawn();
    wait_until("it runs", AT_ONCE, || {
        std::fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n'))
    });
    let process = std::fs::read_to_string(&pid).unwrap();
    assert_ends(running, "TERM", Some(15), "token command");
    let status = format!("/proc/{}/stat", process.trim());
    wait_until("the command is gone", AT_ONCE, || {
        std::fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z "))
    });
}
