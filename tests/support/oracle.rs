//! The independent oracle, `tests/oracle`: SpiceDB's own Python client, sharing no code with the
//! suite. It dumps what a server holds, and makes the situations that tests need.

use super::root;
use super::spicedb::Server;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// To what an expiry is compared: PostgreSQL keeps microseconds, MySQL seconds, memory
/// everything.
#[derive(Clone, Copy, Debug)]
pub enum Precision {
    Nanoseconds,
    Microseconds,
    Seconds,
}

impl Precision {
    fn flag(self) -> &'static str {
        match self {
            Self::Nanoseconds => "--expiry-precision=ns",
            Self::Microseconds => "--expiry-precision=us",
            Self::Seconds => "--expiry-precision=s",
        }
    }
}

/// The schema that the writers need: `item:ID#holder@user:ID`, with caveat and expiry.
pub const WRITERS_SCHEMA: &str = include_str!("../data/writers.zed");

/// A line for [`load`]: `create`, `touch` or `delete` of a relationship, given as
/// `document:readme#viewer@user:eve`.
pub fn line(operation: &str, relationship: &str) -> String {
    let (resource, rest) = relationship.split_once('#').expect("a relation");
    let (relation, subject) = rest.split_once('@').expect("a subject");
    let canonical =
        json!({ "resource": resource, "relation": relation, "subject": subject }).to_string();
    line_of(operation, &canonical)
}

/// The same of a relationship in its canonical form, as [`dump`] gives it.
pub fn line_of(operation: &str, canonical: &str) -> String {
    canonical.replacen('{', &format!(r#"{{"op":"{operation}","#), 1) + "\n"
}

/// Writes one relationship; returns the zedtoken.
pub fn write(server: &Server, operation: &str, relationship: &str) -> String {
    load(server, &line(operation, relationship))
}

/// One oracle for each thread, which answers until the thread ends: its start costs a third of a second.
struct Oracle {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// How it has answered.
struct Answer {
    code: i64,
    stdout: String,
    stderr: String,
}

thread_local! {
    static ORACLE: RefCell<Oracle> = RefCell::new(Oracle::start());
}

impl Oracle {
    fn start() -> Self {
        let mut child = oracle()
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the oracle can be started");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(stdout),
            child,
        }
    }

    fn ask(&mut self, arguments: &[String]) -> Answer {
        let stdin = self.stdin.as_mut().expect("stdin is a pipe");
        writeln!(stdin, "{}", json!(arguments)).expect("the oracle reads");
        let mut line = String::new();
        self.stdout
            .read_line(&mut line)
            .expect("the oracle answers");
        let answer: Value = serde_json::from_str(&line).expect("the oracle answers");
        let text = |name: &str| answer[name].as_str().expect("a text").to_owned();
        Answer {
            code: answer["code"].as_i64().expect("an exit code"),
            stdout: text("stdout"),
            stderr: text("stderr"),
        }
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        drop(self.stdin.take());
        drop(self.child.wait());
    }
}

fn oracle() -> Command {
    Command::new(root().join("tests/oracle/run"))
}

/// The flags that connect it to a server.
fn flags_of(server: &Server) -> Vec<String> {
    let path = |path: &Path| path.to_str().expect("the path is UTF-8").to_owned();
    let mut flags = vec!["--endpoint".to_owned(), server.endpoint().to_owned()];
    flags.extend(["--token-file".to_owned(), path(&server.token_file())]);
    if let Some(certificate) = server.certificate() {
        flags.extend(["--ca".to_owned(), path(&certificate)]);
    }
    flags
}

fn oracle_of(server: &Server) -> Command {
    let mut command = oracle();
    command.args(flags_of(server));
    command
}

fn ask<A: AsRef<OsStr>>(flags: Vec<String>, arguments: &[A]) -> Answer {
    let text = |argument: &A| argument.as_ref().to_str().expect("UTF-8").to_owned();
    let all: Vec<String> = flags
        .into_iter()
        .chain(arguments.iter().map(text))
        .collect();
    ORACLE.with_borrow_mut(|oracle| oracle.ask(&all))
}

/// What it prints of a server; panics with its stderr when it fails.
#[track_caller]
fn answer_of<A: AsRef<OsStr>>(server: &Server, arguments: &[A]) -> String {
    let answer = ask(flags_of(server), arguments);
    assert_eq!(answer.code, 0, "the oracle failed: {}", answer.stderr);
    answer.stdout
}

fn lines(text: &str) -> Vec<String> {
    text.split_terminator('\n').map(str::to_owned).collect()
}

/// A file for a command's input, deleted when dropped.
fn file_with(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    file.write_all(text.as_bytes())
        .expect("a temporary file can be written");
    file
}

/// All relationships of the newest state, one canonical line each, sorted.
pub fn dump(server: &Server, precision: Precision) -> Vec<String> {
    lines(&answer_of(server, &["dump", precision.flag()]))
}

/// All relationships at exactly a revision.
pub fn dump_at(server: &Server, zedtoken: &str, precision: Precision) -> Vec<String> {
    lines(&answer_of(
        server,
        &["dump", precision.flag(), "--at", zedtoken],
    ))
}

/// One relationship, given as `document:readme#viewer@user:eve`, in its canonical form.
pub fn lookup(server: &Server, relationship: &str) -> Option<String> {
    let answer = ask(flags_of(server), &["lookup", relationship]);
    match answer.code {
        0 => Some(answer.stdout.trim_end().to_owned()),
        1 => None,
        _ => panic!("the oracle failed: {}", answer.stderr),
    }
}

/// Writes lines of canonical relationships, each with an `"op"` (`create`, `touch` or `delete`), in
/// calls of at most 1000 updates; returns the last zedtoken.
pub fn load(server: &Server, updates: &str) -> String {
    let file = file_with(updates);
    let answer = answer_of(server, &[OsStr::new("load"), file.path().as_ref()]);
    answer.trim().to_owned()
}

/// As [`load`], for a server that may fail; whether it took them.
pub fn try_load(server: &Server, updates: &str) -> bool {
    let file = file_with(updates);
    let answer = ask(
        flags_of(server),
        &[OsStr::new("load"), file.path().as_ref()],
    );
    answer.code == 0
}

/// Imports lines of canonical relationships in one transaction.
pub fn load_bulk(server: &Server, relationships: &str) {
    let file = file_with(relationships);
    let bulk = ["load", "--bulk"].map(OsStr::new);
    answer_of(server, &[bulk[0], bulk[1], file.path().as_ref()]);
}

/// Imports them in one transaction that stays open meanwhile: a third of them, a pause, and so on.
pub fn load_bulk_slowly(server: &Server, relationships: &[String], pause: std::time::Duration) {
    let mut child = oracle_of(server)
        .args(["load", "--bulk", "--batch=500", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the oracle can be started");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    for third in relationships.chunks(relationships.len() / 3 + 1) {
        let text = third.join("\n") + "\n";
        stdin.write_all(text.as_bytes()).expect("the oracle reads");
        std::thread::sleep(pause);
    }
    drop(stdin);
    let output = child
        .wait_with_output()
        .expect("the oracle can be waited for");
    assert!(
        output.status.success(),
        "the import ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Writes a schema; returns the zedtoken.
pub fn write_schema(server: &Server, schema: &str) -> String {
    let file = file_with(schema);
    let answer = answer_of(server, &[OsStr::new("schema-write"), file.path().as_ref()]);
    answer.trim().to_owned()
}

pub fn read_schema(server: &Server) -> String {
    answer_of(server, &["schema-read"])
}

/// The zedtoken of the newest revision.
pub fn head(server: &Server) -> String {
    answer_of(server, &["head"]).trim().to_owned()
}

/// Fails with the first differences unless both servers hold the same relationships; returns how
/// many.
#[track_caller]
pub fn assert_same_relationships(first: &Server, second: &Server, precision: Precision) -> usize {
    let (left, right) = (dump(first, precision), dump(second, precision));
    assert_same_lines(first.context(), &left, second.context(), &right);
    left.len()
}

/// Fails with the first differences unless both lists hold the same lines.
#[track_caller]
pub fn assert_same_lines(left_name: &str, left: &[String], right_name: &str, right: &[String]) {
    if left == right {
        return;
    }
    let (left_set, right_set): (BTreeSet<_>, BTreeSet<_>) =
        (left.iter().collect(), right.iter().collect());
    let show = |name: &str, only: Vec<&&String>| {
        let shown: String = only
            .iter()
            .take(5)
            .map(|line| format!("    {line}\n"))
            .collect();
        format!("  only in {name}: {}\n{shown}", only.len())
    };
    panic!(
        "{left_name} holds {} relationships, {right_name} {}:\n{}{}",
        left.len(),
        right.len(),
        show(left_name, left_set.difference(&right_set).collect()),
        show(right_name, right_set.difference(&left_set).collect()),
    );
}

/// Concurrent writers that run until they are waited for; see `tests/oracle/run writers --help` for
/// their flags.
pub struct Writers {
    process: Child,
    journal: PathBuf,
    /// Once this file is there they end.
    stop: PathBuf,
}

impl Writers {
    /// Starts them; `journal` will hold every acknowledged transaction. Without flags: 4 writers
    /// for 5 s, with relationships of the schema that `--write-schema` writes.
    pub fn start(server: &Server, journal: &Path, flags: &[&str]) -> Self {
        let mut stop = journal.as_os_str().to_owned();
        stop.push(".stop");
        let stop = PathBuf::from(stop);
        let mut command = oracle_of(server);
        command
            .arg("writers")
            .arg("--journal")
            .arg(journal)
            .arg("--stop-file")
            .arg(&stop)
            .args(flags);
        Self::spawn(command, journal, stop)
    }

    /// As [`Writers::start`], but they write until [`Writers::stop`]: for a test that waits for what they
    /// bring about, which takes as long as the machine is busy.
    pub fn until_stopped(server: &Server, journal: &Path, flags: &[&str]) -> Self {
        Self::start(server, journal, &[flags, &["--seconds", "3600"]].concat())
    }

    /// Starts writers that collide, until they are stopped by a file in `folder`: nobody but the server
    /// knows what is left, and there is no journal.
    pub fn colliding(server: &Server, folder: &Path, flags: &[&str]) -> Self {
        let stop = folder.join("stop");
        let mut command = oracle_of(server);
        command
            .arg("collide")
            .args(["--seconds", "3600", "--stop-file"])
            .arg(&stop)
            .args(flags);
        Self::spawn(command, &stop, stop.clone())
    }

    fn spawn(mut command: Command, journal: &Path, stop: PathBuf) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self {
            process: command.spawn().expect("the oracle can be started"),
            journal: journal.to_owned(),
            stop,
        }
    }

    /// Asks them to end, and waits as [`Writers::finish`] does.
    pub fn stop(self) -> Value {
        std::fs::write(&self.stop, "").unwrap();
        self.finish()
    }

    /// Waits for their end; panics unless every write was acknowledged. Returns their summary.
    pub fn finish(self) -> Value {
        let output = self
            .process
            .wait_with_output()
            .expect("the writers can be waited for");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "the writers ended with {}:\n{stderr}",
            output.status
        );
        serde_json::from_slice(&output.stdout).expect("a summary")
    }

    /// Waits for their end and accepts writes that were not acknowledged; [`expected`] leaves those
    /// out.
    pub fn finish_anyhow(self) {
        drop(self.process.wait_with_output());
    }

    pub fn journal(&self) -> &Path {
        &self.journal
    }
}

/// What a server must hold of the writers' relationships after a journal, as [`dump`] would print
/// it. Relationships whose last write was not acknowledged are left out.
pub fn expected(journal: &Path, precision: Precision) -> Vec<String> {
    let journal = journal.to_str().expect("the path is UTF-8");
    let answer = ask(
        Vec::new(),
        &["expected", precision.flag(), "--journal", journal],
    );
    assert!(matches!(answer.code, 0 | 1), "{}", answer.stderr);
    lines(&answer.stdout)
}
