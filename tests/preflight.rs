//! `spice-preflight` against real servers: each fault is named before anything is written, and a healthy
//! pair passes.
//!
//! That nothing was written is shown by a Watch of each end, from a marker before to one after. In memory the
//! head shows more: it is another one after each transaction, an empty one included.

mod faults;
mod plan;
mod rights;
mod versions;

use std::path::{Path, PathBuf};

use serde_json::Value;
use testdata::Sample;

use crate::copy::holding;
use crate::support::folder;
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::spicedb::{Datastore, Server};

/// Two contexts, `old` and `new`, and the servers behind them.
struct Pair {
    old: Server,
    new: Server,
    folder: tempfile::TempDir,
}

/// A finding: severity, end, check, and a part of what was found.
type Expected<'a> = (&'a str, &'a str, &'a str, &'a str);

impl Pair {
    fn of(old: Server, new: Server) -> Self {
        let pair = Self {
            old,
            new,
            folder: folder(),
        };
        pair.connect(None, None);
        pair
    }

    /// A source that holds a sample, and an empty target; both in memory.
    fn in_memory() -> Self {
        Self::of(
            holding(Sample::portable(200), Datastore::Memory),
            Server::start(Datastore::Memory),
        )
    }

    /// Writes the contexts; an endpoint is that of a gateway in front of the server.
    fn connect(&self, old: Option<&str>, new: Option<&str>) {
        let context = |name: &str, server: &Server, endpoint: Option<&str>| {
            let endpoint = endpoint.unwrap_or(server.endpoint());
            let token_file = server.token_file();
            format!(
                "[{name}]\nendpoint = {endpoint:?}\ntoken-file = {token_file:?}\ninsecure = true\n"
            )
        };
        let text = context("old", &self.old, old) + &context("new", &self.new, new);
        std::fs::write(self.contexts(), text).unwrap();
    }

    fn contexts(&self) -> PathBuf {
        self.folder.path().join("contexts.toml")
    }

    /// Looks at both ends, which are in memory: neither has another head afterwards.
    #[track_caller]
    fn check(&self, flags: &[&str], code: i32) -> Vec<Value> {
        let before = self.heads();
        let found = self.look(flags, code);
        assert_eq!(self.heads(), before, "nothing was written");
        found
    }

    /// Looks at both ends.
    #[track_caller]
    fn look(&self, flags: &[&str], code: i32) -> Vec<Value> {
        let ends = ["--from", "old", "--to", "new"];
        look(&self.contexts(), &[&ends[..], flags].concat(), code)
    }

    /// Runs `check`, and proves by the Watch of both ends that nothing was written meanwhile.
    #[track_caller]
    fn unchanged<T>(&self, check: impl FnOnce() -> T) -> T {
        unchanged(&self.old, || unchanged(&self.new, check))
    }

    /// The heads; of a datastore other than memory they move by themselves.
    fn heads(&self) -> [String; 2] {
        [&self.old, &self.new].map(head)
    }
}

/// The newest revision, also of a server without a schema.
fn head(server: &Server) -> String {
    let head = Program::on("spice-revision", server).args(["--head", "--settle", "0s"]);
    head.run().expect_success().text().trim().to_owned()
}

/// Runs it with these contexts; the findings.
#[track_caller]
fn look(contexts: &Path, flags: &[&str], code: i32) -> Vec<Value> {
    let finished = run(contexts, &[flags, &["--json"]].concat());
    let lines = String::from_utf8_lossy(&finished.stdout).into_owned();
    assert_eq!(finished.code(), Some(code), "{lines}\n{}", finished.stderr);
    finished.json_lines()
}

fn run(contexts: &Path, flags: &[&str]) -> Finished {
    let sample: &[&str] = match flags.contains(&"--sample") {
        true => &[],
        false => &["--sample", "200ms"],
    };
    Program::new("spice-preflight")
        .env("SPICE_CONTEXTS", contexts)
        .args(sample)
        .args(flags)
        .run()
}

/// Whether there is such a finding.
fn has(found: &[Value], expected: Expected<'_>) -> bool {
    let (severity, end, check, part) = expected;
    found.iter().any(|line| {
        let finding = &line["finding"];
        finding["severity"] == severity
            && finding["end"] == end
            && finding["check"] == check
            && finding["found"]
                .as_str()
                .is_some_and(|text| text.contains(part))
            && (severity == "ok" || (finding["why"].is_string() && finding["remedy"].is_string()))
    })
}

/// Fails unless these are the findings that are not `ok`.
#[track_caller]
fn expect_only(found: &[Value], expected: &[Expected<'_>]) {
    for one in expected {
        assert!(has(found, *one), "{one:?} is not in {found:#?}");
    }
    let to_act_on = found.iter().filter(|line| {
        let severity = &line["finding"]["severity"];
        severity == "fails" || severity == "warns"
    });
    assert_eq!(to_act_on.count(), expected.len(), "{found:#?}");
}

/// Runs `check` between two markers, and fails if the Watch delivers anything but checkpoints in between.
#[track_caller]
fn unchanged<T>(server: &Server, check: impl FnOnce() -> T) -> T {
    let before = mark(server);
    let result = check();
    assert_unchanged_since(server, &before);
    result
}

/// Writes a marker.
#[track_caller]
fn mark(server: &Server) -> String {
    let marked = Program::on("spice-revision", server).arg("--mark").run();
    marked.expect_success().text().trim().to_owned()
}

/// Fails if the Watch delivers anything but checkpoints after a marker.
#[track_caller]
fn assert_unchanged_since(server: &Server, before: &str) {
    let after = mark(server);
    let watched = Program::on("spice-watch", server)
        .args(["--since", before, "--until", &after, "--settle", "0s"])
        .run()
        .expect_success();
    for line in watched.json_lines() {
        // A MySQL target without a schema is reported as having an empty one.
        let schema = line["schema"]["text"].as_str().unwrap_or_default();
        let is_change = line.get("transaction").is_some() || !schema.is_empty();
        assert!(!is_change, "{}: {line}", server.context());
    }
}

#[test]
fn healthy_pair_passes_and_nothing_is_written() {
    let pair = Pair::in_memory();
    for steps in ["copy", "live", "all"] {
        let found = pair.unchanged(|| pair.check(&["--for", steps], 0));
        expect_only(&found, &[]);
        let verdict = &found.last().unwrap()["preflight"];
        assert_eq!(
            (&verdict["verdict"], &verdict["for"]),
            (&"ok".into(), &steps.into())
        );
        for check in ["contact", "rights", "datastore", "limits", "clock"] {
            for end in ["source", "target"] {
                assert!(
                    has(&found, ("ok", end, check, "")),
                    "{end} {check}: {found:#?}"
                );
            }
        }
        assert!(has(
            &found,
            ("ok", "both", "same-datastore", "two datastores")
        ));
        assert!(has(&found, ("ok", "both", "zedtokens", "fully_consistent")));
        assert!(has(
            &found,
            ("ok", "target", "schema", "has no schema, and parses")
        ));
        assert!(has(&found, ("ok", "source", "fields", "all fields")));
        assert!(has(
            &found,
            (
                "ok",
                "source",
                "history",
                "200 relationships (all were counted)"
            )
        ));
        assert_eq!(
            has(&found, ("ok", "source", "watch", "Watch")),
            steps != "copy"
        );
    }
}

#[test]
fn healthy_pair_on_postgres_passes_and_the_watch_shows_no_write() {
    let old = holding(Sample::portable(2_000), Datastore::Postgres);
    let new = Server::start(Datastore::Postgres);
    oracle::write_schema(&new, testdata::SCHEMA);
    let pair = Pair::of(old, new);
    let found = pair.unchanged(|| pair.look(&["--for", "all"], 0));
    expect_only(&found, &[]);
    assert!(has(&found, ("ok", "target", "schema", "has the schema")));
    assert!(has(&found, ("ok", "source", "datastore", "v1.56")));
    assert!(oracle::dump(&pair.new, oracle::Precision::Microseconds).is_empty());
}

#[test]
fn healthy_pair_on_mysql_passes_and_the_watch_shows_no_write() {
    let pair = Pair::of(
        holding(Sample::portable(500), Datastore::MySql),
        Server::start(Datastore::MySql),
    );
    let found = pair.unchanged(|| pair.look(&["--for", "all"], 0));
    expect_only(&found, &[]);
    let settles = ("ok", "source", "datastore", "settles for 35 s");
    assert!(has(&found, settles), "{found:#?}");
    let found = pair.unchanged(|| pair.look(&["--settle", "5s"], 0));
    assert!(has(
        &found,
        ("ok", "source", "datastore", "settles for 5 s")
    ));
    assert!(oracle::dump(&pair.new, oracle::Precision::Seconds).is_empty());
}

#[test]
fn list_for_people_has_the_verdict_at_its_end() {
    let pair = Pair::in_memory();
    let finished = run(&pair.contexts(), &["--from", "old", "--to", "new"]).expect_success();
    let text = finished.text();
    assert!(
        text.starts_with("Preflight: old -> new, for live\n"),
        "{text}"
    );
    let last = text.lines().last().unwrap();
    assert!(
        last.starts_with("Verdict: all is well (0 fail, 0 warn, "),
        "{text}"
    );
    assert!(last.ends_with("Nothing was written."), "{text}");
}

#[test]
fn one_end_alone_is_looked_at() {
    let pair = Pair::in_memory();
    let source = look(&pair.contexts(), &["--from", "old"], 0);
    assert!(source.iter().all(|line| line["finding"]["end"] != "target"));
    let target = look(&pair.contexts(), &["--to", "new"], 0);
    assert!(has(
        &target,
        ("ok", "target", "target", "holds no relationships")
    ));
    // A source that is looked at as a target is filled.
    let filled = look(&pair.contexts(), &["--to", "old"], 1);
    expect_only(
        &filled,
        &[("fails", "target", "target", "holds 200 relationships")],
    );
}

#[test]
fn marker_is_written_only_on_request_and_followed() {
    let pair = Pair::of(
        holding(Sample::portable(100), Datastore::Postgres),
        Server::start(Datastore::Memory),
    );
    let before = head(&pair.new);
    // An empty transaction is no change.
    let found = unchanged(&pair.old, || pair.look(&["--mark"], 0));
    assert_eq!(head(&pair.new), before, "a marker is the source's");
    assert!(
        has(&found, ("ok", "source", "marker", "delivered it after")),
        "{found:#?}"
    );
    assert!(
        has(&found, ("ok", "source", "clock", "is that of this machine")),
        "{found:#?}"
    );
    assert_eq!(found.last().unwrap()["preflight"]["marked"], true);
}
