//! Spanner, on Google's emulator: copied from and to, followed to, and never followed.
//!
//! The emulator takes about 1,000 rows a second, so samples are small; and it refuses transactions that
//! overlap ("Invalid transaction ID"), so one writer writes to it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use testdata::Sample;

use crate::copy::{copy, export, holding, import, round, stream_of, summary};
use crate::support::oracle::{self, Precision, Writers};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server, lacks_spanner};
use crate::support::{folder, wait_until};

/// Long enough for anything here on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A sample with nanoseconds of expiry, and all of Unicode.
fn exact(relationships: u64) -> Sample {
    Sample {
        expiry_step: 1,
        ..Sample::rich(relationships)
    }
}

fn revision(server: &Server, flags: &[&str]) -> Program {
    Program::new("spice-revision")
        .args(["--context", server.context()])
        .args(flags)
}

/// What `spice-revision` prints of a server's newest revision.
fn said_of(server: &Server) -> Value {
    let head = revision(server, &["--head", "--settle", "0s", "--json"]);
    head.run().expect_success().json_lines()[0]["revision"].clone()
}

fn head(server: &Server) -> String {
    said_of(server)["token"].as_str().unwrap().to_owned()
}

fn mark(server: &Server) -> String {
    let marked = revision(server, &["--mark"]).run().expect_success();
    marked.text().trim().to_owned()
}

/// How many differences `spice-diff` finds between two files.
fn differences(first: &Path, second: &Path) -> usize {
    let diff = Program::new("spice-diff").arg("--exit-zero");
    let diff = diff.args([first, second]).run().expect_success();
    let updates = diff.json_lines();
    updates
        .iter()
        .filter(|line| line.get("update").is_some())
        .count()
}

#[test]
fn memory_to_spanner_to_memory_keeps_everything() {
    if lacks_spanner() {
        return;
    }
    let route = [Datastore::Memory, Datastore::Spanner, Datastore::Memory];
    round(exact(1_000), &route, Precision::Nanoseconds, &[]);
}

#[test]
fn import_into_spanner_touches_what_differs() {
    if lacks_spanner() {
        return;
    }
    let sample = exact(400);
    let (source, target) = (
        holding(sample, Datastore::Memory),
        holding(sample, Datastore::Spanner),
    );
    // One is without its expiry there, one has another, one is missing.
    let dumped = oracle::dump(&target, Precision::Nanoseconds);
    let mut expiring = dumped.iter().filter(|line| {
        line.contains("\"expires\"")
            && line.contains(r#""subject":"user:"#)
            && !line.contains("caveat")
    });
    let mut changes = String::new();
    for (op, expires) in [
        ("touch", None),
        ("touch", Some("2031-02-03T04:05:06.000000789Z")),
        ("delete", None),
    ] {
        let mut line: Value = serde_json::from_str(expiring.next().unwrap()).unwrap();
        line["op"] = op.into();
        match expires {
            Some(expires) => line["expires"] = expires.into(),
            None => drop(line.as_object_mut().unwrap().remove("expires")),
        }
        changes += &format!("{line}\n");
    }
    oracle::load(&target, &changes);
    let folder = folder();
    let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
    let save = |server: &Server, path: &Path| {
        export(server).output_file(path).run().expect_success();
    };
    save(&source, &old);
    save(&target, &new);
    assert_eq!(differences(&new, &old), 3);
    let again = import(&target).args(["--on-conflict", "touch"]);
    let again = again.input(stream_of(sample)).run().expect_success();
    let counts = summary(&again);
    assert_eq!(
        ["loaded", "present", "touched"].map(|name| counts[name].as_u64().unwrap()),
        [1, 397, 2]
    );
    oracle::assert_same_relationships(&source, &target, Precision::Nanoseconds);
    save(&target, &new);
    assert_eq!(differences(&new, &old), 0);
    let digest = |path: &Path| {
        let digest = Program::new("spice-digest").arg(path).run();
        digest.expect_success().text().to_owned()
    };
    assert_eq!(digest(&old), digest(&new));
}

#[test]
fn diff_piped_into_apply_repairs_spanner() {
    if lacks_spanner() {
        return;
    }
    let source = holding(exact(300), Datastore::Memory);
    let other = Sample {
        seed: 2,
        ..exact(200)
    };
    let target = holding(other, Datastore::Spanner);
    let folder = folder();
    let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
    export(&source).output_file(&old).run().expect_success();
    export(&target).output_file(&new).run().expect_success();
    let diff = Program::new("spice-diff").arg("--exit-zero");
    let apply = Program::new("spice-apply").args(["--context", target.context()]);
    Pipe::from(diff.args([&new, &old]))
        .to(apply)
        .timeout(PATIENCE)
        .expect_success();
    oracle::assert_same_relationships(&source, &target, Precision::Nanoseconds);
}

/// Writers touch, delete and give other expiries while the changes travel to Spanner.
fn followed_from(datastore: Datastore) {
    let source = Server::start(datastore);
    let target = Server::start(Datastore::Spanner);
    let folder = folder();
    let writers = |prefix: &str| {
        let flags = [
            "--write-schema",
            "--writers",
            "2",
            "--rate",
            "5",
            "--updates",
            "10",
            "--keys",
            "40",
        ];
        let more = [
            "--expiry",
            "us",
            "--prefix",
            prefix,
            "--bulk-deletes",
            "0.1",
        ];
        let journal = folder.path().join(format!("journal-{prefix}"));
        let writers = Writers::until_stopped(&source, &journal, &[&flags[..], &more].concat());
        wait_until("forty transactions", PATIENCE, || {
            std::fs::read_to_string(&journal).is_ok_and(|journal| journal.lines().count() >= 40)
        });
        writers.stop();
    };
    writers("before");
    copy(&source, &target, &[]);
    let since = head(&source);
    let watch =
        Program::new("spice-watch").args(["--context", source.context(), "--since", &since]);
    let apply = Program::new("spice-apply").args(["--context", target.context()]);
    let (spool, position) = (
        folder.path().join("changes"),
        folder.path().join("position"),
    );
    let watching = watch.args(["--settle", "2s", "--spool"]).arg(&spool);
    let watching = watching.timeout(PATIENCE).spawn();
    wait_until("the spool has a header", PATIENCE, || {
        std::fs::metadata(&spool).is_ok_and(|spool| spool.len() > 0)
    });
    writers("since");
    // What changes nothing but an expiry.
    let dumped = oracle::dump(&source, Precision::Microseconds);
    let mut expiring: Value = dumped
        .iter()
        .find(|line| line.contains("\"expires\""))
        .map(|line| serde_json::from_str(line).unwrap())
        .unwrap();
    expiring["expires"] = json!("2033-03-03T03:03:03.123456Z");
    expiring["op"] = json!("touch");
    oracle::load(&source, &format!("{expiring}\n"));
    let end = mark(&source);
    watching.signal("TERM");
    watching.wait().expect_success();
    let drain = Program::new("spice-watch").args(["--context", source.context(), "--until", &end]);
    drain
        .arg("--spool")
        .arg(&spool)
        .timeout(PATIENCE)
        .run()
        .expect_success();
    let applied = apply
        .args(["--until", &end, "--spool"])
        .arg(&spool)
        .arg("--position")
        .arg(&position)
        .timeout(PATIENCE)
        .run()
        .expect_success();
    let updates: u64 = applied
        .json_lines()
        .iter()
        .filter_map(|line| line["applied"]["updates"].as_u64())
        .sum();
    assert!(updates > 50, "{updates} updates");
    let same = oracle::assert_same_relationships(&source, &target, Precision::Microseconds);
    assert!(same > 20, "{same} relationships");
    let there = oracle::dump(&target, Precision::Microseconds);
    assert!(there.iter().any(|line| line.contains("2033-03-03")));
}

#[test]
fn changes_of_memory_reach_spanner() {
    if !lacks_spanner() {
        followed_from(Datastore::Memory);
    }
}

#[test]
fn changes_of_postgres_reach_spanner() {
    if !lacks_spanner() {
        followed_from(Datastore::Postgres);
    }
}

#[test]
fn watch_of_spanner_is_refused_and_nothing_is_begun() {
    if lacks_spanner() {
        return;
    }
    let server = holding(Sample::portable(5), Datastore::Spanner);
    let folder = folder();
    let spool = folder.path().join("changes");
    let since = head(&server);
    let watch = |flags: &[&str]| {
        let watch = Program::new("spice-watch").args(["--context", server.context()]);
        watch.args(["--since", &since]).args(flags)
    };
    for flags in [
        &[][..],
        &["--settle", "0s"],
        &["--until", &since],
        &["--until-quiet", "1s"],
        &["--datastore", "spanner"],
        &["--spool", spool.to_str().unwrap()],
    ] {
        let refused = watch(flags).run().expect_code(1);
        assert!(refused.stdout.is_empty());
        let mut lines = refused.stderr.lines();
        let reason = lines.next().unwrap();
        assert!(
            reason.contains("is on Spanner, which cannot be followed"),
            "{reason}"
        );
        let hint = lines.next().unwrap();
        for word in [
            "stop all writes",
            "spice-export | spice-import",
            "spice-diff",
            "plan --fenced",
        ] {
            assert!(hint.contains(word), "{hint}");
        }
        assert_eq!(lines.next(), None);
    }
    assert!(!spool.exists());
    // The flag cannot talk it into being followed.
    let refused = watch(&["--datastore", "memory"]).run().expect_code(2);
    assert!(
        refused
            .stderr
            .contains("but its revisions are those of Spanner"),
        "{}",
        refused.stderr
    );
}

#[test]
fn spanner_snapshots_under_writers_are_stable_at_once() {
    if lacks_spanner() {
        return;
    }
    let server = Server::start(Datastore::Spanner);
    let folder = folder();
    let flags = ["--write-schema", "--writers", "1", "--updates", "5"];
    let writers = Writers::until_stopped(&server, &folder.path().join("journal"), &flags);
    wait_until("they write", PATIENCE, || {
        std::fs::metadata(writers.journal()).is_ok_and(|journal| journal.len() > 10_000)
    });
    let export = |flags: &[&str]| {
        let export = Program::new("spice-export").args(["--context", server.context()]);
        export.args(flags).run().expect_success()
    };
    let taken: Vec<_> = (0..6).map(|_| export(&[])).collect();
    writers.stop();
    for first in taken {
        assert!(!first.stderr.contains("settle"), "{}", first.stderr);
        let header = &first.json_lines()[0]["header"]["revision"];
        let again = export(&["--at", header.as_str().unwrap()]);
        let [first, again] = [first, again].map(|export| {
            let lines = export.json_lines();
            let trailer = &lines.last().unwrap()["trailer"];
            (trailer["relationships"].clone(), trailer["digest"].clone())
        });
        assert_eq!(first, again);
    }
}

#[test]
fn heads_tell_memory_from_spanner_also_under_writes() {
    let tells = |datastore: Datastore, kind: &str, count: &str| {
        let server = Server::start(datastore);
        assert_eq!(said_of(&server)["datastore"], kind, "without a schema");
        let folder = folder();
        // Two reads of the head between two writes, now and then.
        let flags = [
            "--write-schema",
            "--writers",
            count,
            "--updates",
            "2",
            "--rate",
            "10",
        ];
        let writers = Writers::until_stopped(&server, &folder.path().join("journal"), &flags);
        wait_until("they write", PATIENCE, || {
            std::fs::metadata(writers.journal()).is_ok_and(|journal| journal.len() > 10_000)
        });
        for _ in 0..20 {
            let said = said_of(&server);
            assert_eq!(said["datastore"], kind, "{said}");
            assert_eq!(said["settles"], kind == "memory");
        }
        writers.stop();
        assert_eq!(said_of(&server)["datastore"], kind, "idle");
    };
    tells(Datastore::Memory, "memory", "4");
    if !lacks_spanner() {
        tells(Datastore::Spanner, "spanner", "1");
    }
}
