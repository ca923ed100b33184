//! `spice-export --resume`: what interrupts it, and what must not be resumed.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use testdata::Sample;

use super::history::{delete_all, forgetful, wait_until_expired};
use super::{PATIENCE, SAMPLE, assert_exports, export_by, loaded, seen, source};
use crate::copy::{export, holding};
use crate::support::disk::SmallDisk;
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::running::{Finished, Running};
use crate::support::spicedb::{Datastore, Server};
use crate::support::toxiproxy::Proxy;
use crate::support::{Random, folder, repeat, wait_until};

/// A folder with the files of an export.
struct Backup {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Backup {
    fn new() -> Self {
        let folder = folder();
        let path = folder.path().join("backup.ndjson");
        Self { folder, path }
    }

    fn resume(&self, export: Program) -> Program {
        resuming(export, &self.path)
    }

    fn partial(&self) -> PathBuf {
        self.folder.path().join("backup.ndjson.partial")
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("backup.ndjson.partial.journal")
    }

    fn recorded(&self) -> u64 {
        recorded(&self.journal())
    }

    #[track_caller]
    fn assert_only_the_file(&self) {
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["backup.ndjson"]);
        let mode = std::fs::metadata(&self.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    /// Interrupts an export by SIGTERM when so many relationships are recorded.
    fn interrupt(&self, program: &Running, least: u64) {
        wait_until("relationships are recorded", PATIENCE, || {
            self.journal().exists() && self.recorded() >= least
        });
        program.signal("TERM");
    }
}

fn resuming(export: Program, path: &Path) -> Program {
    export
        .timeout(PATIENCE)
        .args(["--resume", "--output"])
        .arg(path)
}

/// How many relationships a journal names.
fn recorded(journal: &Path) -> u64 {
    let text = std::fs::read_to_string(journal).unwrap_or_default();
    let journal: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    journal["sum"]["relationships"].as_u64().unwrap_or_default()
}

fn digest_of(path: &Path) -> String {
    let program = Program::new("spice-digest").arg("--json").arg(path);
    let digest = program.timeout(PATIENCE).run().expect_success();
    digest.json_lines()[0]["digest"]["total"].to_string()
}

#[track_caller]
fn assert_refused(finished: Finished, code: i32, words: &[&str]) {
    let finished = finished.expect_code(code);
    for word in words {
        assert!(
            finished.stderr.contains(word),
            "{word}: {}",
            finished.stderr
        );
    }
}

/// Kills an export at random until it was killed so often, with other flags each time, while somebody
/// deletes what it has not read yet; then lets it end.
fn killed_at_random(server: &Server, expected: &[String], kills: u32, kilobytes: u64) {
    let backup = Backup::new();
    let proxy = Proxy::to(server.endpoint());
    proxy.bandwidth(kilobytes);
    let mut random = Random::new(u64::from(kills));
    let flags = [
        &["--page-size", "300"][..],
        &["--jobs", "4"],
        &["--jobs", "2"],
    ];
    let (mut before, mut advances) = (0, 0);
    for kill in 0..kills {
        let flags = flags[random.below(flags.len())];
        let program = backup.resume(export_by(&proxy, server)).args(flags).spawn();
        // Every third one comes further first, however slow the machine is.
        let must_advance = kill % 3 == 0;
        wait_until("it reads", PATIENCE, || {
            let stderr = program.stderr_so_far();
            let reads = stderr.contains("exporting ") || stderr.contains("resuming the export of");
            reads && (!must_advance || backup.recorded() > before)
        });
        // At any moment: this pause is what is tried.
        std::thread::sleep(Duration::from_millis(random.below(600) as u64));
        program.kill9();
        let killed = program.wait();
        assert_eq!(killed.signal(), Some(9), "kill {kill}: {}", killed.stderr);
        let now = backup.recorded();
        assert!(now >= before, "{now} after {before}");
        advances += u32::from(now > before);
        before = now;
        if kill == 0 {
            oracle::write(server, "touch", "tenant/document:later#viewer@user:u");
        }
    }
    assert!(
        advances > kills / 5,
        "{advances} of {kills} runs came further"
    );
    proxy.heal();
    let mut finished = backup
        .resume(export_by(&proxy, server))
        .run()
        .expect_success();
    let words = format!("({before} of them before it was resumed)");
    assert!(
        finished.stderr.contains(&words),
        "{words}: {}",
        finished.stderr
    );
    backup.assert_only_the_file();
    finished.stdout = std::fs::read(&backup.path).unwrap();
    assert_exports(&finished, expected);
}

#[test]
fn export_killed_20_times_resumes_at_its_revision() {
    let sample = Sample::rich(SAMPLE);
    let expected = seen(sample);
    let server = source(sample);
    killed_at_random(&server, &expected, repeat(20, 60), 600);
}

#[test]
fn killed_export_of_mysql_and_memory_resumes() {
    for datastore in [Datastore::MySql, Datastore::Memory] {
        let sample = Sample::portable(40_000);
        let server = loaded(sample, datastore);
        let expected = oracle::dump(&server, oracle::Precision::Microseconds);
        killed_at_random(&server, &expected, repeat(5, 20), 400);
    }
}

#[test]
fn terminated_export_keeps_its_progress_in_every_compression() {
    let sample = Sample::rich(60_000);
    let server = source(sample);
    let proxy = Proxy::to(server.endpoint());
    let plain = Backup::new();
    export(&server)
        .arg("--output")
        .arg(&plain.path)
        .run()
        .expect_success();
    let expected = digest_of(&plain.path);
    for flags in [&[][..], &["--zstd"], &["--gzip=1", "--jobs", "3"]] {
        let backup = Backup::new();
        for (signal, number, least) in [("TERM", 15, 1), ("INT", 2, 20_000)] {
            proxy.bandwidth(900);
            let program = backup
                .resume(export_by(&proxy, &server))
                .args(flags)
                .spawn();
            wait_until("relationships are recorded", PATIENCE, || {
                backup.recorded() >= least
            });
            program.signal(signal);
            let finished = program.wait();
            assert_eq!(finished.signal(), Some(number), "{}", finished.stderr);
            let words = format!("interrupted: {} relationships are in", backup.recorded());
            assert!(
                finished.stderr.contains(&words),
                "{words}: {}",
                finished.stderr
            );
            assert!(!backup.path.exists());
        }
        proxy.heal();
        // Without its trailer it is no backup.
        let partial = Program::new("spice-digest").arg(backup.partial());
        partial.run().expect_code(65);
        backup
            .resume(export(&server))
            .args(flags)
            .run()
            .expect_success();
        backup.assert_only_the_file();
        assert_eq!(digest_of(&backup.path), expected, "{flags:?}");
    }
}

#[test]
fn other_flags_servers_and_processes_are_refused() {
    let server = source(Sample::rich(60_000));
    let other = holding(Sample::rich(10), Datastore::Postgres);
    let proxy = Proxy::to(server.endpoint());
    proxy.bandwidth(900);
    let backup = Backup::new();
    let program = backup.resume(export_by(&proxy, &server)).spawn();
    wait_until("a journal", PATIENCE, || backup.journal().exists());
    assert_refused(
        backup.resume(export(&server)).run(),
        2,
        &["another process writes", "backup.ndjson.partial"],
    );
    backup.interrupt(&program, 1);
    program.wait();
    oracle::write(&server, "touch", "tenant/document:later#viewer@user:u");
    let (head, foreign) = (oracle::head(&server), oracle::head(&other));
    let cases: [(&[&str], &str); 7] = [
        (&["--type", "user"], "--type user"),
        (&["--resource-prefix", "x"], "--resource-prefix x"),
        (&["--no-schema"], "--no-schema"),
        (&["--expiry-precision", "s"], "--expiry-precision s"),
        (&["--zstd"], "--zstd"),
        (&["--at", &foreign], "--at "),
        (&["--at", &head], "--at "),
    ];
    for (flags, word) in cases {
        let refused = backup.resume(export(&server)).args(flags).run();
        assert_refused(refused, 2, &[word, "it was begun", "hint: "]);
    }
    let words = ["begun from datastore", "hint: is it the right --context"];
    assert_refused(backup.resume(export(&other)).run(), 2, &words);
    // None of that has changed anything.
    backup.resume(export(&server)).run().expect_success();
    backup.assert_only_the_file();
}

#[test]
fn memory_source_that_was_restarted_is_not_resumed() {
    let sample = Sample::rich(60_000);
    let server = loaded(sample, Datastore::Memory);
    let proxy = Proxy::to(server.endpoint());
    proxy.bandwidth(900);
    let backup = Backup::new();
    let program = backup.resume(export_by(&proxy, &server)).spawn();
    backup.interrupt(&program, 1);
    program.wait();
    server.restart();
    let import = crate::copy::import(&server);
    let import = import.input(crate::copy::stream_of(sample));
    import.timeout(PATIENCE).run().expect_success();
    let words = ["begun from datastore", "another one after each start"];
    assert_refused(backup.resume(export(&server)).run(), 2, &words);
}

#[test]
fn damaged_and_planted_progress_is_refused_by_name() {
    let server = source(Sample::rich(60_000));
    let proxy = Proxy::to(server.endpoint());
    proxy.bandwidth(900);
    let backup = Backup::new();
    let program = backup.resume(export_by(&proxy, &server)).spawn();
    backup.interrupt(&program, 5_000);
    program.wait();
    let intact = std::fs::read(backup.partial()).unwrap();
    let journal = std::fs::read(backup.journal()).unwrap();
    let refused = |code, words: &[&str]| {
        assert_refused(backup.resume(export(&server)).run(), code, words);
    };
    let mut random = Random::new(7);
    for _ in 0..repeat(5, 100) {
        let mut flipped = intact.clone();
        let at = random.below(intact.len());
        flipped[at] ^= 1 << random.below(8);
        std::fs::write(backup.partial(), &flipped).unwrap();
        refused(65, &["backup.ndjson.partial is damaged", "hint: "]);
    }
    std::fs::write(backup.partial(), &intact[..intact.len() - 1]).unwrap();
    refused(65, &["backup.ndjson.partial is damaged", "hint: "]);
    std::fs::write(backup.partial(), &intact).unwrap();
    let mut flipped = journal.clone();
    flipped[random.below(journal.len() - 1)] ^= 1;
    std::fs::write(backup.journal(), &flipped).unwrap();
    refused(65, &["backup.ndjson.partial.journal", "hint: "]);
    std::fs::write(backup.journal(), &journal).unwrap();
    // Others could read the relationships, or have put a link there.
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(backup.partial(), open).unwrap();
    refused(1, &["backup.ndjson.partial", "others can read or write it"]);
    std::fs::remove_file(backup.partial()).unwrap();
    let elsewhere = backup.folder.path().join("elsewhere");
    std::fs::write(&elsewhere, &intact).unwrap();
    symlink(&elsewhere, backup.partial()).unwrap();
    refused(1, &["cannot open", "backup.ndjson.partial"]);
    assert_eq!(std::fs::read(&elsewhere).unwrap(), intact);
    std::fs::remove_file(&elsewhere).unwrap();
    std::fs::remove_file(backup.partial()).unwrap();
    // A torn tail was never promised.
    std::fs::write(
        backup.partial(),
        [&intact[..], b"{\"relationship\":{\"re"].concat(),
    )
    .unwrap();
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(backup.partial(), private).unwrap();
    let finished = backup.resume(export(&server)).run().expect_success();
    let words = "dropping 20 bytes after the last checkpoint";
    assert!(finished.stderr.contains(words), "{}", finished.stderr);
    backup.assert_only_the_file();
    digest_of(&backup.path);
}

#[test]
fn export_at_a_collected_revision_is_not_resumed() {
    for datastore in [Datastore::Postgres, Datastore::MySql] {
        let server = forgetful(datastore, Sample::portable(20_000));
        let proxy = Proxy::to(server.endpoint());
        proxy.bandwidth(300);
        let backup = Backup::new();
        let program = backup.resume(export_by(&proxy, &server)).spawn();
        backup.interrupt(&program, 1);
        program.wait();
        let journal = std::fs::read_to_string(backup.journal()).unwrap();
        let journal: serde_json::Value = serde_json::from_str(&journal).unwrap();
        let revision = journal["revision"].as_str().unwrap();
        if datastore == Datastore::Postgres {
            server.sql("ANALYZE relation_tuple");
        }
        delete_all(&server);
        wait_until_expired(&server, revision);
        let words = [
            "cannot be resumed",
            revision,
            "--datastore-gc-window",
            "to start over at a new revision: rm ",
        ];
        assert_refused(backup.resume(export(&server)).run(), 4, &words);
        // Nor with a window that would cover it again: what it needs is collected. (MariaDB needs minutes.)
        if datastore == Datastore::Postgres {
            wait_until("the rows are collected", PATIENCE, || {
                let left = server.sql("SELECT count(*) FROM relation_tuple");
                left.trim().parse::<u64>().unwrap() == 0
            });
            server.restart_with(&["--datastore-gc-window=24h"]);
            assert_refused(backup.resume(export(&server)).run(), 4, &words);
        }
        assert!(!backup.path.exists() && backup.partial().exists());
        std::fs::remove_file(backup.partial()).unwrap();
        std::fs::remove_file(backup.journal()).unwrap();
        backup.resume(export(&server)).run().expect_success();
        backup.assert_only_the_file();
    }
}

#[test]
fn export_onto_a_full_disk_resumes_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let server = holding(Sample::rich(60_000), Datastore::Memory);
    let complete = Backup::new();
    let once = export(&server).arg("--output").arg(&complete.path);
    once.run().expect_success();
    let expected = digest_of(&complete.path);
    for flags in [&[][..], &["--zstd=1"]] {
        disk.resize("512k");
        let path = disk.path().join("backup.ndjson");
        let full = resuming(export(&server), &path).args(flags).run();
        let words = ["backup.ndjson.partial", "No space left on device", "hint: "];
        assert_refused(full, 1, &words);
        assert!(!path.exists());
        disk.resize("64m");
        resuming(export(&server), &path)
            .args(flags)
            .run()
            .expect_success();
        let left = std::fs::read_dir(disk.path()).unwrap().count();
        assert_eq!(left, 1);
        assert_eq!(digest_of(&path), expected, "{flags:?}");
        std::fs::remove_file(&path).unwrap();
    }
}
