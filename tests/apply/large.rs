//! Large revisions, long backlogs, and the tip.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::{
    Capture, PATIENCE, SCHEMA, applied, apply, apply_by, delete, ends, header, mark, position,
    sealed, spool_of, token, touch, transaction, watch,
};
use crate::support::oracle::{self, Precision};
use crate::support::seal::Lines;
use crate::support::spicedb::{Datastore, Server, rows};
use crate::support::toxiproxy::Proxy;
use crate::support::{figure, folder, repeat, wait_until};

/// The peak of `spice-apply`, whatever it applies.
const LIMIT_KIB: u64 = 100 << 10;

#[test]
fn position_waits_for_the_last_part_of_an_import() {
    let count = repeat(30_000, 300_000);
    let (source, target, folder) = ends(SCHEMA, Datastore::Postgres);
    let capture = Capture::of(&source, folder.path());
    let file = folder.path().join("position");
    let program = || {
        let program = apply(&target).arg("--spool").arg(&capture.spool);
        program.arg("--position").arg(&file).timeout(PATIENCE * 3)
    };
    let follow = program().args(["--max-rps", "3"]).spawn();
    oracle::write(&source, "touch", "document:small#viewer@user:eve");
    wait_until("the small change is on the target", PATIENCE, || {
        rows(&target) == 1
    });
    let relationships: String = (0..count)
        .map(|n| {
            format!(
                "{{\"resource\":\"document:d{n}\",\"relation\":\"viewer\",\"subject\":\"user:eve\"}}\n"
            )
        })
        .collect();
    oracle::load_bulk(&source, &relationships);
    wait_until("a part is on the target", PATIENCE, || {
        rows(&target) > u64::from(count) / 10
    });
    follow.kill9();
    let stood = position(&file)["sourceRevision"].clone();
    let killed = follow.wait();
    assert!(
        rows(&target) < u64::from(count),
        "it was killed in the middle"
    );
    let end = mark(&source);
    let finished = program().args(["--until", &end]).run().expect_success();
    assert_eq!(
        oracle::assert_same_relationships(&source, &target, Precision::Seconds),
        count as usize + 1
    );
    // The parts of both runs were reported, and the position moved with the last only.
    let printed = applied(&finished.stdout);
    let parts: Vec<&Value> = printed.iter().filter(|one| one["split"] == true).collect();
    assert_eq!(parts.len() as u32, count / 2_000);
    let (last, before) = parts.split_last().unwrap();
    assert!(
        before.iter().all(|part| part["sourceRevision"].is_null()),
        "{before:?}"
    );
    assert!(last["sourceRevision"].is_string());
    let updates: u64 = parts
        .iter()
        .map(|part| part["updates"].as_u64().unwrap())
        .sum();
    assert_eq!(updates, u64::from(count));
    let of_large = last["sourceRevision"].clone();
    assert_ne!(stood, of_large);
    assert!(
        applied(&killed.stdout)
            .iter()
            .all(|one| one["sourceRevision"] != of_large)
    );
    let peak = finished.peak_kib.max(killed.peak_kib);
    figure(&format!(
        "one revision of {count}: {} MiB at most",
        peak >> 10
    ));
    assert!(peak <= LIMIT_KIB, "{peak} KiB");
}

#[test]
fn memory_stays_flat_with_any_backlog() {
    let folder = folder();
    for (transactions, updates) in [
        (50, 1_000),
        (repeat(200, 5_000).into(), 1_000),
        (repeat(40_000, 400_000).into(), 1),
    ] {
        let path = folder.path().join(format!("spool-{transactions}"));
        let last = spool_of(&path, transactions, updates);
        let server = Server::start(Datastore::Postgres);
        let program = apply(&server)
            .arg("--spool")
            .arg(&path)
            .args(["--until", &token(last)]);
        let finished = program.timeout(PATIENCE * 20).run().expect_success();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(rows(&server), transactions * updates);
        figure(&format!(
            "{transactions} transactions of {updates}: {} MiB at most, {:.0} updates/s",
            finished.peak_kib >> 10,
            (transactions * updates) as f64 / finished.took.as_secs_f64()
        ));
        assert!(finished.peak_kib <= LIMIT_KIB, "{} KiB", finished.peak_kib);
    }
}

#[test]
fn backlog_is_coalesced_over_a_slow_link() {
    let transactions = u64::from(repeat(40_000, 200_000));
    let folder = folder();
    let path = folder.path().join("spool");
    let last = spool_of(&path, transactions, 1);
    let server = Server::start(Datastore::Postgres);
    let proxy = Proxy::to(server.endpoint());
    proxy.latency(Duration::from_millis(20));
    let file = folder.path().join("position");
    let program = apply_by(&proxy, &server).arg("--spool").arg(&path);
    let program = program
        .args(["--until", &token(last)])
        .arg("--position")
        .arg(&file);
    let finished = program.run().expect_success();
    let seconds = finished.took.as_secs_f64();
    figure(&format!(
        "{transactions} one-update transactions at 40 ms: {:.0} updates/s in {seconds:.1} s",
        transactions as f64 / seconds
    ));
    assert_eq!(rows(&server), transactions);
    let printed = applied(&finished.stdout);
    let told: u64 = printed
        .iter()
        .map(|one| one["transactions"].as_u64().unwrap())
        .sum();
    assert_eq!(told, transactions);
    assert!(printed.iter().any(|one| one["coalesced"] == true));
    assert_eq!(position(&file)["sourceRevision"], token(last));
    // Each call takes 40 ms.
    let calls: u64 = printed
        .iter()
        .map(|one| one["calls"].as_u64().unwrap())
        .sum();
    assert!(calls < transactions / 50, "{calls} calls");
}

/// What updates touch and delete.
fn ids_of(updates: &[Value]) -> Vec<String> {
    let id = |update: &Value| {
        let id = update["relationship"]["resource"]["objectId"].as_str();
        format!("{} {}", update["operation"].as_str().unwrap(), id.unwrap())
    };
    let mut ids: Vec<String> = updates.iter().map(id).collect();
    ids.sort();
    ids
}

/// What the transactions of a target say: the ids that each touched or deleted.
fn revisions_of(server: &Server, since: &str) -> Vec<Vec<String>> {
    let until = mark(server);
    let seen = watch(server).args(["--since", since, "--until", &until, "--settle", "0s"]);
    let seen = seen.run().expect_success().json_lines();
    let transactions = seen
        .iter()
        .filter_map(|line| line["transaction"]["updates"].as_array());
    transactions.map(|updates| ids_of(updates)).collect()
}

fn changes(count: u64) -> Vec<Value> {
    let one = |n: u64| match n % 3 {
        0 => transaction(n, &[touch("x"), touch(&format!("d{n}"))]),
        1 => transaction(n, &[delete("x")]),
        _ => transaction(
            n,
            &[touch(&format!("d{n}")), delete(&format!("d{}", n - 2))],
        ),
    };
    (3..count + 3).map(one).collect()
}

fn expected(changes: &[Value]) -> Vec<Vec<String>> {
    let updates = |change: &Value| ids_of(change["transaction"]["updates"].as_array().unwrap());
    changes.iter().map(updates).collect()
}

#[test]
fn exact_backlog_keeps_one_revision_for_each() {
    let server = Server::start(Datastore::Postgres);
    let since = mark(&server);
    let changes = changes(200);
    let program = apply(&server)
        .arg("--no-coalesce")
        .input(sealed(&changes, 202));
    program.run().expect_success();
    assert_eq!(revisions_of(&server, &since), expected(&changes));
}

#[test]
fn one_source_revision_is_one_target_revision_at_the_tip() {
    let (server, folder) = (Server::start(Datastore::Postgres), folder());
    let since = mark(&server);
    let path = folder.path().join("spool");
    let mut lines = Lines::default();
    std::fs::write(&path, lines.add([&header(1)])).unwrap();
    let follow = apply(&server).arg("--spool").arg(&path).spawn();
    follow.wait_for_stderr("wrote the schema", PATIENCE);
    let mut spool = OpenOptions::new().append(true).open(&path).unwrap();
    let changes = changes(20);
    for (number, change) in changes.iter().enumerate() {
        spool.write_all(lines.add([change]).as_bytes()).unwrap();
        wait_until("it is acknowledged", PATIENCE, || {
            applied(&follow.stdout_so_far()).len() > number
        });
    }
    let printed = applied(&follow.stdout_so_far());
    assert!(
        printed
            .iter()
            .all(|one| one["calls"] == 1 && one["syncPoint"] == true)
    );
    assert_eq!(revisions_of(&server, &since), expected(&changes));
    assert_eq!(token(22), printed.last().unwrap()["sourceRevision"]);
}
