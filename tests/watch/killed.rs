//! Programs, servers and disks that end while a spool is written.

use std::path::Path;
use std::time::Duration;

use super::{Folded, PATIENCE, WATCHING, mark, source, spool_of, watch, write, writers};
use crate::support::disk::SmallDisk;
use crate::support::oracle::{self, Writers};
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server, but_for_dead_mysql_servers};
use crate::support::{Random, folder, repeat, wait_until};

fn capture(server: &Server, since: &str, spool: &Path) -> Program {
    watch(server)
        .args(["--since", since, "--settle", "1s", "--spool"])
        .arg(spool)
}

/// Drains a spool, which must then lead to what the server holds.
#[track_caller]
fn assert_drains(server: &Server, spool: &Path) -> Folded {
    let end = mark(server);
    let drain = watch(server).args(["--until", &end, "--spool"]).arg(spool);
    drain.run().expect_success();
    let folded = Folded::of(&spool_of(spool));
    folded.assert_is(server);
    folded
}

/// Kills it at random under load, and begins again with the same command; segments are small.
fn killed_on(datastore: Datastore) {
    let server = source(datastore);
    let folder = folder();
    let spool = folder.path().join("changes.ndjson");
    let since = oracle::head(&server);
    let times = repeat(4, 50);
    // Behind the tip nothing is written within the settle time, 1 s here: it must live longer, now and then.
    let (least, more) = match datastore {
        Datastore::Postgres => (500_u32, 1_200_u32),
        _ => (1_200, 2_500),
    };
    let writers = writers(&server, folder.path(), &[]);
    let mut random = Random::new(u64::from(times));
    let mut lengths = Vec::new();
    for _ in 0..times {
        let watching = capture(&server, &since, &spool)
            .args(["--spool-segment", "50k"])
            .spawn();
        watching.wait_for_stderr(WATCHING, PATIENCE);
        // At any moment: this pause is what is tried.
        let life = u64::from(least) + random.below(more as usize) as u64;
        std::thread::sleep(Duration::from_millis(life));
        watching.kill9();
        assert_eq!(watching.wait().signal(), Some(9));
        lengths.push(spool_of(&spool).len());
    }
    // One that lives for as long as the machine needs for two segments.
    let watching = capture(&server, &since, &spool)
        .args(["--spool-segment", "50k"])
        .spawn();
    wait_until("it continued", PATIENCE, || {
        spool_of(&spool).len() > lengths[0] + (60 << 10)
    });
    watching.kill9();
    watching.wait();
    writers.stop();
    assert_drains(&server, &spool);
    let segments = std::fs::read_dir(folder.path()).unwrap().flatten();
    let names = segments.map(|entry| entry.file_name().into_string().unwrap());
    let segments = names.filter(|name| name.contains(".ndjson.0")).count();
    assert!(segments > 1, "{segments} segments");
}

#[test]
fn killed_watch_of_postgres_resumes_with_the_same_command() {
    killed_on(Datastore::Postgres);
}

#[test]
fn killed_watch_of_mysql_resumes_with_the_same_command() {
    but_for_dead_mysql_servers(|| {
        killed_on(Datastore::MySql);
    });
}

/// What a snapshot of memory lacked is read again after a settle time, also where that was in another process. That
/// is rare, and shown by the unit tests of `settled`: without it 360 restarts here ended right as well.
#[test]
fn watch_of_memory_stopped_while_writers_collide_corrects_what_it_read() {
    let server = source(Datastore::Memory);
    let folder = folder();
    let spool = folder.path().join("changes.ndjson");

    let since = oracle::head(&server);
    let flags = [
        "--write-schema",
        "--groups",
        "1",
        "--pause",
        "80",
        "--later",
        "1",
    ];
    let writers = Writers::colliding(&server, folder.path(), &flags);
    let times = repeat(12, 60);
    let mut random = Random::new(u64::from(times));
    for _ in 0..times {
        let watching = capture(&server, &since, &spool).spawn();
        watching.wait_for_stderr(WATCHING, PATIENCE);
        // At any moment: this pause is what is tried.
        std::thread::sleep(Duration::from_millis(1_200 + random.below(1_500) as u64));
        watching.signal("TERM");
        watching.wait().expect_success();
    }
    writers.stop();
    assert_drains(&server, &spool);
}

#[test]
fn full_disk_of_the_spool_ends_1_and_resumes_with_space() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let server = source(Datastore::Postgres);
    let spool = disk.path().join("changes.ndjson");
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![0; 300 << 10]).unwrap();
    let folder = folder();
    let since = oracle::head(&server);
    let capturing = capture(&server, &since, &spool).spawn();
    capturing.wait_for_stderr(WATCHING, PATIENCE);
    let flags = ["--rate", "15", "--updates", "30"];
    let writers = writers(&server, folder.path(), &flags);
    let finished = capturing.wait().expect_code(1);
    assert!(
        finished.stderr.contains("No space left on device")
            && finished.stderr.contains("free space"),
        "{}",
        finished.stderr
    );
    writers.stop();
    // Whatever there is may be torn at its end, but nowhere else.
    let left = std::fs::read(&spool).unwrap();
    let whole = left.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let before = Folded::of(&left[..whole]);
    assert!(before.updates > 0);
    // Still no room: the same again, and nothing is lost.
    let again = capture(&server, &since, &spool).run().expect_code(1);
    assert!(again.stderr.contains("No space left"), "{}", again.stderr);
    std::fs::remove_file(&filler).unwrap();
    let after = assert_drains(&server, &spool);
    assert!(after.updates > before.updates);
    assert!(
        spool_of(&spool).starts_with(&left[..whole]),
        "only appended to"
    );
}

#[test]
fn source_restarted_killed_and_cut_off_is_followed() {
    for datastore in [Datastore::Postgres, Datastore::MySql] {
        let server = source(datastore);
        let folder = folder();
        let spool = folder.path().join("changes.ndjson");
        let since = oracle::head(&server);
        let capturing = capture(&server, &since, &spool).spawn();
        capturing.wait_for_stderr(WATCHING, PATIENCE);
        let again = |capturing: &crate::support::running::Running| {
            capturing.stderr_so_far().matches("again in").count()
        };
        let noticed = |before| {
            wait_until("it is noticed", PATIENCE, || again(&capturing) > before);
        };
        write(&server, "touch", "before");
        server.restart();
        noticed(0);
        write(&server, "touch", "restarted");
        wait_until("it follows again", PATIENCE, || {
            String::from_utf8_lossy(&spool_of(&spool)).contains("restarted")
        });
        let before = again(&capturing);
        server.kill9();
        server.restart();
        noticed(before);
        write(&server, "touch", "killed");
        let before = again(&capturing);
        if datastore == Datastore::Postgres {
            // No connection of SpiceDB to its database lives for long.
            wait_until("it is noticed", PATIENCE, || {
                server.sql(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                );
                again(&capturing) > before
            });
        }
        wait_until("the server takes writes", PATIENCE, || is_written(&server));
        capturing.signal("TERM");
        let finished = capturing.wait().expect_success();
        assert!(
            !finished.stderr.contains("spice-watch: error"),
            "{}",
            finished.stderr
        );
        let folded = assert_drains(&server, &spool);
        assert_eq!(folded.relationships.len(), 4);
    }
}

/// After its connections were ended a server fails for a moment.
fn is_written(server: &Server) -> bool {
    let mark = Program::new("spice-revision").args(["--context", server.context(), "--mark"]);
    if mark.run().code() != Some(0) {
        return false;
    }
    // Another connection may be one of those that were ended.
    oracle::try_load(server, &super::line("touch", "after"))
}
