//! `scripts/kafka-send` and `scripts/kafka-apply`, as in docs/kafka.md: the changes of a server through a real Kafka broker.
//!
//! A broker takes 3 s to start on an idle machine, and each end some seconds to resume.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::oracle::{self, Precision, Writers};
use crate::support::program::Program;
use crate::support::running::Running;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{Random, figure, folder, repeat, root, wait_until};

/// Long enough for anything here on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
const TOPIC: &str = "spice";

/// Whether Java, the broker's jars or kcat cannot be had, which is printed: a test that needs them is skipped
/// then.
fn lacks_kafka() -> bool {
    let found = Command::new(root().join("tests/servers/kafka"))
        .arg("programs")
        .output()
        .unwrap();
    if !found.status.success() {
        let why = String::from_utf8_lossy(&found.stderr);
        figure(&format!("skipped, there is no Kafka: {}", why.trim()));
    }
    !found.status.success()
}

/// A broker with one topic; it is removed when dropped.
struct Broker {
    state: tempfile::TempDir,
    address: String,
}

impl Broker {
    fn start() -> Self {
        let mut broker = Self {
            state: folder(),
            address: String::new(),
        };
        broker.address = broker.script(&["start"]);
        broker.script(&["topic", TOPIC]);
        broker
    }

    fn script(&self, arguments: &[&str]) -> String {
        let output = Command::new(root().join("tests/servers/kafka"))
            .env("KAFKA_STATE", self.state.path().join("kafka"))
            .args(arguments)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kafka {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn kcat(&self, flags: &[&str], input: &str) -> String {
        let at = ["-b", &self.address, "-t", TOPIC, "-p", "0", "-q"];
        let kcat = Program::at(Path::new("kcat")).args(at).args(flags);
        let finished = kcat.input(input).timeout(PATIENCE).run().expect_success();
        finished.text().to_owned()
    }

    /// All messages of the topic.
    fn messages(&self) -> Vec<String> {
        let all = self.kcat(&["-C", "-e", "-o", "beginning"], "");
        all.lines().map(str::to_owned).collect()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.script(&["remove"]);
    }
}

/// Both servers, the broker between them, and the files of both ends.
struct Ends {
    old: Server,
    new: Server,
    broker: Broker,
    folder: tempfile::TempDir,
    since: String,
}

impl Ends {
    fn new(datastore: Datastore) -> Self {
        let (old, new) = (Server::start(datastore), Server::start(Datastore::Postgres));
        oracle::write_schema(&old, oracle::WRITERS_SCHEMA);
        let since = oracle::head(&old);
        Self {
            old,
            new,
            broker: Broker::start(),
            folder: folder(),
            since,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `scripts/kafka-send` or `kafka-apply` with its arguments.
    fn script(&self, name: &str, context: &str, file: &str, flags: &[&str]) -> Vec<String> {
        let script = root().join(name).to_str().unwrap().to_owned();
        let file = self.file(file).to_str().unwrap().to_owned();
        let address = self.broker.address.as_str();
        let arguments = [script.as_str(), context, address, TOPIC, file.as_str()];
        let all = arguments.iter().chain(flags);
        all.map(|argument| (*argument).to_owned()).collect()
    }

    fn send(&self, flags: &[&str]) -> Vec<String> {
        let all = [
            &["--since", self.since.as_str(), "--settle", "2s"][..],
            flags,
        ]
        .concat();
        self.script(
            "scripts/kafka-send",
            self.old.context(),
            "changes.ndjson",
            &all,
        )
    }

    fn apply(&self, flags: &[&str]) -> Vec<String> {
        self.script("scripts/kafka-apply", self.new.context(), "position", flags)
    }

    fn position(&self) -> String {
        std::fs::read_to_string(self.file("position")).unwrap_or_default()
    }

    /// Waits until the target has come further.
    fn wait_for_progress(&self, what: &str) {
        let before = self.position();
        wait_until(what, PATIENCE, || self.position() != before);
    }

    /// Runs both ends to the end of all writes.
    fn drain(&self) {
        let end = Program::on("spice-revision", &self.old).arg("--mark").run();
        let end = end.expect_success().text().trim().to_owned();
        looped(&self.send(&["--until", &end]))
            .run()
            .expect_success();
        looped(&self.apply(&["--until", &end]))
            .run()
            .expect_success();
    }
}

/// The loop that docs/kafka.md has around both ends.
fn looped(command: &[String]) -> Program {
    Program::at(Path::new("/bin/sh"))
        .args(["-c", "until \"$@\"; do sleep 1; done", "loop"])
        .args(command)
        .timeout(PATIENCE)
}

/// SIGKILL for a script and all that it has started.
fn kill_group(running: Running) {
    let group = format!("-{}", running.pid());
    let killed = Command::new("kill").args(["-9", "--", &group]).status();
    assert!(killed.unwrap().success());
    assert_eq!(running.wait().signal(), Some(9));
}

/// Both ends and the broker are ended in turn while everybody writes; then the sets are equal.
fn survives(datastore: Datastore, rounds: u32) {
    let ends = Ends::new(datastore);
    let writers = match datastore {
        Datastore::Postgres => {
            let flags = ["--writers", "3", "--rate", "10", "--expiry", "us"];
            Writers::until_stopped(&ends.old, &ends.file("journal"), &flags)
        }
        _ => Writers::colliding(&ends.old, ends.folder.path(), &["--groups", "2"]),
    };
    let mut random = Random::new(u64::from(rounds));
    let send = || looped(&ends.send(&[])).timeout(4 * PATIENCE).spawn();
    let apply = || looped(&ends.apply(&[])).timeout(4 * PATIENCE).spawn();
    let (mut sending, mut applying) = (send(), apply());
    ends.wait_for_progress("the first changes arrive");
    for round in 0..rounds {
        // At any moment: this pause is what is tried.
        std::thread::sleep(Duration::from_millis(random.below(1_500) as u64));
        match round % 4 {
            0 => {
                kill_group(sending);
                sending = send();
            }
            1 => {
                kill_group(applying);
                applying = apply();
            }
            2 => {
                ends.broker.script(&["stop", "--kill"]);
                ends.broker.script(&["restart"]);
            }
            _ => {
                ends.broker.script(&["stop"]);
                kill_group(sending);
                kill_group(applying);
                ends.broker.script(&["restart"]);
                (sending, applying) = (send(), apply());
            }
        }
        ends.wait_for_progress("changes arrive again");
    }
    writers.stop();
    kill_group(sending);
    kill_group(applying);
    ends.drain();
    let same = oracle::assert_same_relationships(&ends.old, &ends.new, Precision::Microseconds);
    assert!(same > 50, "{same} relationships");
    let (messages, mut unique) = (ends.broker.messages(), ends.broker.messages());
    unique.sort();
    unique.dedup();
    let spool = std::fs::read_to_string(ends.file("changes.ndjson")).unwrap();
    figure(&format!(
        "{rounds} rounds: {same} relationships equal; {} lines in the spool, {} messages, {} of them once",
        spool.lines().count(),
        messages.len(),
        unique.len()
    ));
    // Every line of the spool is in the topic, whatever is there beside it.
    assert!(
        spool
            .lines()
            .all(|line| unique.binary_search(&line.to_owned()).is_ok())
    );
}

#[test]
fn both_ends_and_the_broker_are_killed_on_postgres() {
    if !lacks_kafka() {
        survives(Datastore::Postgres, repeat(4, 40));
    }
}

#[test]
fn both_ends_are_killed_while_writers_of_memory_collide() {
    // Its revisions have to settle, so each round takes seconds more.
    if repeat(0, 1) == 0 || lacks_kafka() {
        return;
    }
    survives(Datastore::Memory, 20);
}

#[test]
fn topic_with_repeated_and_torn_messages_is_applied_once() {
    if lacks_kafka() {
        return;
    }
    let ends = Ends::new(Datastore::Postgres);
    let names = ["a", "b", "c", "d"];
    for name in names {
        oracle::write(&ends.old, "touch", &format!("item:{name}#holder@user:eve"));
    }
    oracle::write(&ends.old, "delete", "item:a#holder@user:eve");
    ends.drain();
    let sent = ends.broker.messages();
    // A producer that was killed has left half a line, and its last messages arrive late.
    let torn = &sent[sent.len() - 1][..40];
    ends.broker.kcat(&["-P"], torn);
    ends.broker.kcat(&["-P"], &(sent[1..].join("\n") + "\n"));
    oracle::write(&ends.old, "touch", "item:last#holder@user:eve");
    ends.drain();
    oracle::assert_same_relationships(&ends.old, &ends.new, Precision::Microseconds);
    // From the beginning, with no position.
    std::fs::remove_file(ends.file("position")).unwrap();
    oracle::write(&ends.new, "delete", "item:b#holder@user:eve");
    ends.drain();
    oracle::assert_same_relationships(&ends.old, &ends.new, Precision::Microseconds);
    // A topic that holds something else is left alone.
    let foreign = "{\"header\":{}}\n".repeat(30);
    ends.broker.kcat(&["-P"], &foreign);
    let send = ends.send(&[]);
    let refused = Program::at(Path::new(&send[0])).args(&send[1..]).run();
    let refused = refused.expect_code(65);
    assert!(
        refused.stderr.contains("take a new topic"),
        "{}",
        refused.stderr
    );
}
