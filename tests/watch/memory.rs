//! Memory that is bounded by the largest revision, not by how much is followed.

use super::{Folded, PATIENCE, WATCHING, churn, import_held, mark, source_with, watch};
use crate::support::folder;
use crate::support::oracle;
use crate::support::running::Running;
use crate::support::spicedb::Datastore;
use crate::support::wait_until;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Whether a text is among the last lines of a large file so many times.
fn ends_with(path: &Path, text: &str, times: usize) -> bool {
    let mut file = std::fs::File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(length.saturating_sub(4 << 20)))
        .unwrap();
    file.read_to_end(&mut end).unwrap();
    String::from_utf8_lossy(&end).matches(text).count() >= times
}

fn peak(running: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .trim()
        .parse()
        .unwrap()
}

#[test]
#[expect(clippy::print_stderr, reason = "the figures are looked at")]
fn import_of_300_000_and_its_updates_take_bounded_memory() {
    // Its one import takes as long as the machine is busy.
    let patient = "--streaming-api-response-delay-timeout=10m";
    let server = source_with(Datastore::Postgres, &[patient]);
    let folder = folder();
    let spool = folder.path().join("changes.ndjson");
    let since = oracle::head(&server);
    let watching = watch(&server)
        .args(["--since", &since, "--spool"])
        .arg(&spool)
        .timeout(PATIENCE * 10)
        .spawn();
    watching.wait_for_stderr(WATCHING, PATIENCE);
    let empty = peak(&watching);
    import_held(&server, "import-", 300_000, || ());
    wait_until("the import is written", PATIENCE * 5, || {
        ends_with(&spool, "lastPart", 1)
    });
    let import = peak(&watching);
    // Without statistics PostgreSQL takes seconds for a deletion.
    server.sql("ANALYZE relation_tuple");
    let after = oracle::head(&server);
    // Another one from there on, which has no large revision to hide behind.
    let second = folder.path().join("second.ndjson");
    let small = watch(&server)
        .args(["--since", &after])
        .output_file(&second)
        .timeout(PATIENCE * 10)
        .spawn();
    churn(&server, 200);
    let end = mark(&server);
    let drain = || {
        watch(&server)
            .timeout(PATIENCE * 10)
            .args(["--until", &end])
    };
    for path in [&spool, &second] {
        wait_until("the updates are written", PATIENCE * 5, || {
            // It is touched, and deleted.
            ends_with(path, "update-99-999\"", 2)
        });
    }
    let (both, small_peak) = (peak(&watching), peak(&small));
    watching.signal("TERM");
    watching.wait().expect_success();
    small.terminate();
    eprintln!(
        "peak RSS of spice-watch: {empty} KiB idle, {import} KiB after an import of 300,000, {both} KiB after \
         200,000 more updates; without the import {small_peak} KiB"
    );
    drain().arg("--spool").arg(&spool).run().expect_success();
    let stream = std::fs::read(&spool).unwrap();
    let folded = Folded::of(&stream);
    assert_eq!(folded.updates, 500_000);
    folded.assert_is(&server);
    let parts = String::from_utf8(stream)
        .unwrap()
        .matches("\"part\":")
        .count();
    assert!(parts >= 30, "{parts} parts");
    assert_eq!(
        Folded::of(&std::fs::read(&second).unwrap()).updates,
        200_000
    );
    assert!(import < 400 << 10, "of the import: {import} KiB");
    assert!(
        both < import + (30 << 10),
        "of the updates: {import}, then {both} KiB"
    );
    assert!(
        small_peak < 100 << 10,
        "of the updates alone: {small_peak} KiB"
    );
}
