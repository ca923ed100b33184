//! What breaks on the way: connections, servers, programs, readers, history, disks.
//!
//! Every test names the fault, the place and what is expected. What arrived is compared as a set, by
//! the independent oracle; that the fault was really met is also asserted.

mod export;
mod gateway;
mod history;
mod import;
mod killed;
mod memory;
mod resume;
mod settle;
mod signals;
mod slow;
mod watch;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use testdata::Sample;

use crate::copy::{import, stream_of, summary};
use crate::support::oracle::{self, Precision};
use crate::support::program::Program;
use crate::support::running::{Finished, Running};
use crate::support::spicedb::{Datastore, Server, rows};
use crate::support::toxiproxy::Proxy;
use crate::support::{Random, wait_until};

/// Three transactions.
const SAMPLE: u64 = 110_000;

/// Long enough for anything here on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// `spice-export` by way of a proxy, from a server on which nobody writes.
fn export_by(proxy: &Proxy, server: &Server) -> Program {
    Program::through(&proxy.endpoint(), "spice-export", server)
        .args(["--settle", "0s"])
        .timeout(PATIENCE)
}

/// `spice-import` by way of a proxy.
fn import_by(proxy: &Proxy, server: &Server) -> Program {
    Program::through(&proxy.endpoint(), "spice-import", server).timeout(PATIENCE)
}

/// A PostgreSQL source. Without statistics PostgreSQL reads small pages of a fresh load a hundred
/// times slower.
fn source(sample: Sample) -> Server {
    let server = loaded(sample, Datastore::Postgres);
    server.sql("ANALYZE relation_tuple");
    server
}

/// A new server that holds a sample, however long it takes to load.
fn loaded(sample: Sample, datastore: Datastore) -> Server {
    let server = Server::start(datastore);
    let import = import(&server).input(stream_of(sample));
    import.timeout(PATIENCE).run().expect_success();
    server
}

/// What the oracle sees of so many relationships of [`Sample::rich`] that were loaded without any
/// fault; looked at once for all tests.
fn seen(sample: Sample) -> Vec<String> {
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| std::process::id().to_string());
    let name = format!("seen-{run}-{}", sample.relationships);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Each test is a process of its own: the first one looks, and the others wait for it.
    let mut file = File::options()
        .create(true)
        .append(true)
        .read(true)
        .open(path)
        .unwrap();
    file.lock().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    if text.is_empty() {
        let server = loaded(sample, Datastore::Postgres);
        let seen = oracle::dump(&server, Precision::Microseconds);
        assert_eq!(seen.len() as u64, sample.relationships);
        text = seen.join("\n");
        file.write_all(text.as_bytes()).unwrap();
    }
    text.lines().map(str::to_owned).collect()
}

#[track_caller]
fn assert_holds(server: &Server, expected: &[String]) {
    let there = oracle::dump(server, Precision::Microseconds);
    oracle::assert_same_lines("expected", expected, server.context(), &there);
}

/// Fails unless a finished export is complete: every line once, sealed, and exactly what the source
/// holds when it is loaded into another server.
#[track_caller]
fn assert_exports(finished: &Finished, expected: &[String]) {
    let mut lines: Vec<&str> = finished.text().lines().collect();
    assert!(
        lines
            .last()
            .is_some_and(|line| line.starts_with(r#"{"trailer":"#)),
        "the stream has a trailer"
    );
    assert_eq!(lines.len(), expected.len() + 2, "lines of the stream");
    lines.sort_unstable();
    let duplicate = lines.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(duplicate, None, "no line comes twice");
    let target = Server::start(Datastore::Memory);
    let imported = import(&target)
        .input(finished.stdout.clone())
        .timeout(PATIENCE)
        .run()
        .expect_success();
    assert_eq!(summary(&imported)["loaded"], expected.len());
    assert_holds(&target, expected);
}

/// Fails unless an import that ended well has accounted for everything without skipping.
#[track_caller]
fn assert_accounted(finished: &Finished, sample: Sample) {
    let imported = summary(finished);
    let count = |name: &str| imported[name].as_u64().expect("a count");
    assert_eq!(imported["relationships"], sample.relationships);
    assert_eq!(
        count("loaded") + count("present") + count("touched"),
        sample.relationships,
        "{imported}"
    );
    assert_eq!(imported["verified"], true);
}

/// Cuts all connections at random moments until the program has noticed it so many times, each time
/// by the message `notice`, or it has ended; returns how often it was. The pauses are drawn up to each of
/// `longest` in turn.
fn cut_until_noticed(
    program: &mut Running,
    proxy: &Proxy,
    times: u32,
    notice: &str,
    longest: &[Duration],
) -> u32 {
    let mut random = Random::new(u64::from(times));
    let heard = |program: &Running| program.stderr_so_far().matches(notice).count();
    let (mut noticed, mut before, mut is_counted) = (0, heard(program), true);
    for longest in longest.iter().cycle() {
        let longest = usize::try_from(longest.as_millis()).unwrap();
        // At any moment: this pause is what is tried.
        std::thread::sleep(Duration::from_millis(random.below(longest) as u64));
        let now = heard(program);
        // The last one, late.
        noticed += u32::from(!is_counted && now > before);
        before = now;
        if noticed == times {
            break;
        }
        proxy.cut();
        let began = Instant::now();
        // A cut while nothing is under way is not noticed.
        while heard(program) == before && began.elapsed() < Duration::from_secs(1) {
            if !program.is_running() {
                return noticed;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        is_counted = heard(program) > before;
        noticed += u32::from(is_counted);
        if noticed == times {
            break;
        }
    }
    noticed
}

/// So many KB a second of what the program sends.
fn slow_way_there(proxy: &Proxy, kilobytes: u64) {
    proxy.toxic(
        "bandwidth",
        "upstream",
        &serde_json::json!({ "rate": kilobytes }),
    );
}

/// Waits until a PostgreSQL target holds the first transactions of an import.
fn wait_for_rows(server: &Server, least: u64) {
    let what = format!("{} holds {least} relationships", server.context());
    wait_until(&what, PATIENCE, || rows(server) >= least);
}

/// Whether a transaction that writes is open on a PostgreSQL server.
fn writes(server: &Server) -> bool {
    let open = server.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()",
    );
    open.trim() != "0"
}
