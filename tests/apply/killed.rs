//! `kill -9` of apply, signals, and a target that goes away, all under load.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::ambiguous_writes::Holding;
use super::{Capture, PATIENCE, applied, apply, apply_by, ends, mark, position, watch};
use crate::support::oracle::{self, Precision, Writers};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::running::Running;
use crate::support::spicedb::{Datastore, Server, rows};
use crate::support::toxiproxy::Proxy;
use crate::support::{AT_ONCE, Random, figure, folder, repeat, wait_for, wait_until};

/// 4 writers, each with 20 transactions a second, until they are stopped.
fn load(source: &Server, folder: &Path) -> Writers {
    let flags = ["--rate", "20", "--updates", "8", "--keys", "60"];
    Writers::until_stopped(source, &folder.join("journal"), &flags)
}

/// A relationship of the writers, and its state: caveat, context and expiry.
fn entry(key: [&Value; 2], state: [&Value; 3]) -> (String, String) {
    let [caveat, context, expires] = state;
    let limit = context["limit"].as_f64();
    let expires = expires
        .as_str()
        .map(|text| text.chars().take(19).collect::<String>());
    (
        format!("{key:?}"),
        format!("{caveat} {limit:?} {expires:?}"),
    )
}

/// Fails unless every relationship on the target has the state that the spool's changes gave it up to
/// the position, or a later one. Gives back whether there were changes behind the position.
fn assert_not_ahead(spool: &Path, file: &Path, target: &Server) -> bool {
    let stands = position(file);
    let offset = stands["spool"]["offset"]
        .as_u64()
        .map(|offset| usize::try_from(offset).unwrap());
    let there: HashMap<String, String> = oracle::dump(target, Precision::Seconds)
        .iter()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let name = |key: &str| {
                let text = line[key].as_str().unwrap();
                Value::from(text.split_once(':').unwrap().1)
            };
            entry(
                [&name("resource"), &name("subject")],
                [&line["caveat"], &line["context"], &line["expires"]],
            )
        })
        .collect();
    let text = std::fs::read_to_string(spool).unwrap();
    let mut allowed: HashMap<String, Vec<Option<String>>> = HashMap::new();
    let (mut at, mut behind) = (0, false);
    for line in text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
    {
        let record: Value = serde_json::from_str(line).unwrap();
        // Everything through the record at the position's offset is on the target.
        let is_there = offset.is_some_and(|offset| at <= offset);
        if Some(at) == offset {
            let (_, record) = record.as_object().unwrap().iter().next().unwrap();
            assert_eq!(record["revision"], stands["sourceRevision"]);
        }
        at += line.len();
        for update in record["transaction"]["updates"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let relationship = &update["relationship"];
            let caveat = &relationship["optionalCaveat"];
            let (key, state) = entry(
                [
                    &relationship["resource"]["objectId"],
                    &relationship["subject"]["object"]["objectId"],
                ],
                [
                    &caveat["caveatName"],
                    &caveat["context"],
                    &relationship["optionalExpiresAt"],
                ],
            );
            let deleted = update["operation"] == "OPERATION_DELETE";
            let states = allowed.entry(key).or_insert_with(|| vec![None]);
            if is_there {
                states.clear();
            }
            behind |= !is_there;
            states.push((!deleted).then_some(state));
        }
    }
    for (key, states) in &allowed {
        let is = there.get(key).cloned();
        assert!(
            states.contains(&is),
            "{key}: {is:?}, the position allows {states:?}"
        );
    }
    behind
}

#[test]
fn killed_behind_a_spool_is_never_behind_its_position() {
    let cases = repeat(4, 50);
    let (source, target, folder) = ends(oracle::WRITERS_SCHEMA, Datastore::Postgres);
    let capture = Capture::of(&source, folder.path());
    let load = load(&source, folder.path());
    let file = folder.path().join("position");
    let mut random = Random::new(3);
    let mut behind = 0;
    for case in 0..cases {
        let flags: &[&str] = match case % 3 {
            0 => &["--no-coalesce"],
            1 => &["--jobs", "8"],
            // Slow, so that there is a backlog.
            _ => &["--jobs", "2", "--max-rps", "15"],
        };
        let program = apply(&target)
            .arg("--spool")
            .arg(&capture.spool)
            .args(flags);
        let program = program.arg("--position").arg(&file).spawn();
        program.wait_for_output(1);
        // At any moment: this pause is what is tried.
        std::thread::sleep(Duration::from_millis(random.below(900) as u64));
        program.kill9();
        let killed = program.wait();
        assert_eq!(killed.signal(), Some(9), "case {case}: {}", killed.stderr);
        behind += u32::from(assert_not_ahead(&capture.spool, &file, &target));
    }
    load.stop();
    assert!(behind > 0, "there was something left to do at the kills");
    let until = mark(&source);
    let program = apply(&target)
        .arg("--spool")
        .arg(&capture.spool)
        .arg("--position")
        .arg(&file);
    program.args(["--until", &until]).run().expect_success();
    assert!(oracle::assert_same_relationships(&source, &target, Precision::Microseconds) > 20);
}

#[test]
fn killed_watch_or_apply_in_a_pipe_resumes_at_the_position() {
    let cases = repeat(3, 50);
    let (source, target, folder) = ends(oracle::WRITERS_SCHEMA, Datastore::Memory);
    let since = super::head(&source);
    let load = load(&source, folder.path());
    let file = folder.path().join("position");
    let pipe = |flags: &[&str]| {
        let watch = watch(&source).args(["--since", &since, "--heartbeat", "1s", "--since-file"]);
        let apply = apply(&target).arg("--position").arg(&file);
        Pipe::from(watch.arg(&file).args(flags)).to(apply)
    };
    let mut random = Random::new(4);
    let mut moved = Vec::new();
    for case in 0..cases {
        let running = pipe(&[]).spawn();
        running[1].wait_for_output(1);
        // At any moment: this pause is what is tried.
        std::thread::sleep(Duration::from_millis(random.below(900) as u64));
        running[(case % 2) as usize].kill9();
        let ended: Vec<_> = running.into_iter().map(Running::wait).collect();
        match case % 2 {
            0 => assert_eq!(ended[1].code(), Some(75), "{}", ended[1].stderr),
            _ => assert_eq!(ended[1].signal(), Some(9)),
        }
        moved.push(position(&file)["sourceRevision"].clone());
    }
    load.stop();
    moved.dedup();
    assert!(moved.len() > 1, "the position moved");
    let until = mark(&source);
    pipe(&["--until", &until]).expect_success();
    assert!(oracle::assert_same_relationships(&source, &target, Precision::Microseconds) > 20);
}

#[test]
fn target_restarted_cut_and_stalled_under_load_ends_equal() {
    let (source, target, folder) = ends(oracle::WRITERS_SCHEMA, Datastore::Postgres);
    let proxy = Proxy::to(target.endpoint());
    let capture = Capture::of(&source, folder.path());
    let load = load(&source, folder.path());
    let file = folder.path().join("position");
    let follow = apply_by(&proxy, &target).arg("--spool").arg(&capture.spool);
    let mut follow = follow
        .arg("--position")
        .arg(&file)
        .args(["--max-retries", "30"])
        .timeout(PATIENCE * 10)
        .spawn();
    let mut noticed = 0;
    let retries = |text: &str| text.matches("writing again in").count();
    for round in 0..repeat(1, 6) {
        for fault in 0..5 {
            let before = retries(&follow.stderr_so_far());
            follow.wait_for_output(follow.stdout_so_far().len() + 1);
            match fault {
                0 => {
                    target.kill9();
                    target.restart();
                }
                1 => target.restart(),
                2 => {
                    // Its database: every session of it ends.
                    wait_until("it meets a write", PATIENCE, || {
                        target.sql(
                            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                             WHERE datname = current_database() AND pid <> pg_backend_pid()",
                        );
                        retries(&follow.stderr_so_far()) > before
                    });
                }
                3 => wait_until("a cut meets a write", PATIENCE, || {
                    proxy.cut();
                    retries(&follow.stderr_so_far()) > before
                }),
                _ => {
                    proxy.stall();
                    // Some transactions, of which the first at least is under way.
                    let length = || std::fs::metadata(&capture.spool).unwrap().len();
                    let least = length() + 20_000;
                    wait_until("the source is written", PATIENCE, || length() > least);
                    proxy.heal();
                    proxy.cut();
                }
            }
            assert!(
                follow.is_running(),
                "round {round}: {}",
                follow.stderr_so_far()
            );
            let seen = follow.stdout_so_far().len();
            let follows = |follow: &Running| follow.stdout_so_far().len() > seen + 2_000;
            wait_for(PATIENCE, || follows(&follow) || !follow.is_running());
            assert!(
                follows(&follow),
                "round {round}, fault {fault}: it does not follow again\n{}\nspice-watch: {}",
                follow.stderr_so_far(),
                capture.running.stderr_so_far()
            );
            // A graceful end may fall between two calls.
            noticed += usize::from(retries(&follow.stderr_so_far()) > before);
        }
    }
    figure(&format!("{noticed} faults met a write"));
    assert!(noticed >= 2, "{}", follow.stderr_so_far());
    load.stop();
    follow.signal("TERM");
    follow.wait().expect_success();
    let until = mark(&source);
    let program = apply(&target)
        .arg("--spool")
        .arg(&capture.spool)
        .arg("--position")
        .arg(&file);
    program.args(["--until", &until]).run().expect_success();
    assert!(oracle::assert_same_relationships(&source, &target, Precision::Microseconds) > 20);
    assert_eq!(rows(&source), rows(&target));
}

#[test]
fn sigterm_ends_at_once_and_nothing_is_applied_again() {
    // On a busy machine a call may take longer than its end waits for it, but not every time.
    assert!((0..3).any(|_| is_stopped_between_calls()));
}

/// Whether no call was dropped, so that each transaction must have been applied once.
fn is_stopped_between_calls() -> bool {
    let (source, target, folder) = ends(oracle::WRITERS_SCHEMA, Datastore::Postgres);
    let capture = Capture::of(&source, folder.path());
    let load = load(&source, folder.path());
    let file = folder.path().join("position");
    let program = || {
        let program = apply(&target).arg("--spool").arg(&capture.spool);
        program.arg("--position").arg(&file)
    };
    let mut transactions = 0;
    let mut count = |stdout: &[u8]| {
        let told = applied(stdout);
        transactions += told
            .iter()
            .map(|one| one["transactions"].as_u64().unwrap())
            .sum::<u64>();
    };
    for signal in ["TERM", "INT", "TERM", "INT"] {
        let running = program().spawn();
        running.wait_for_output(2_000);
        let began = Instant::now();
        running.signal(signal);
        let ended = running.wait();
        figure(&format!("SIG{signal}: {:?}", began.elapsed()));
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        match signal {
            "TERM" => assert_eq!(ended.code(), Some(0), "{}", ended.stderr),
            _ => assert_eq!(ended.signal(), Some(2), "{}", ended.stderr),
        }
        if position(&file)["ambiguousUntil"].is_string() {
            load.stop();
            return false;
        }
        count(&ended.stdout);
    }
    load.stop();
    let until = mark(&source);
    let ended = program().args(["--until", &until]).run().expect_success();
    count(&ended.stdout);
    let spool = std::fs::read_to_string(&capture.spool).unwrap();
    let captured = spool
        .lines()
        .filter(|line| line.starts_with(r#"{"transaction""#))
        .count();
    assert_eq!(transactions, captured as u64, "each was applied once");
    oracle::assert_same_relationships(&source, &target, Precision::Microseconds);
    true
}

#[test]
fn sigterm_during_a_stalled_write_records_it_as_ambiguous() {
    let (target, folder) = (Server::start(Datastore::Postgres), folder());
    let proxy = Holding::to(target.endpoint());
    let path = folder.path().join("spool");
    let file = folder.path().join("position");
    let first = [
        super::header(1),
        super::transaction(2, &[super::touch("a")]),
    ];
    std::fs::write(&path, super::lines(&first)).unwrap();
    let program = Program::through(&proxy.endpoint(), "spice-apply", &target)
        .arg("--spool")
        .arg(&path)
        .arg("--position")
        .arg(&file);
    let running = program.spawn();
    wait_until("the first is there", PATIENCE, || {
        file.exists() && position(&file)["sourceRevision"] == super::token(2)
    });
    proxy.hold();
    let second = super::transaction(3, &[super::touch("b")]);
    std::fs::write(&path, super::lines(first.iter().chain([&second]))).unwrap();
    wait_until("the second is under way", PATIENCE, || proxy.held() > 100);
    let began = Instant::now();
    running.signal("TERM");
    running.wait().expect_success();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(position(&file)["sourceRevision"], super::token(2));
    assert!(position(&file)["ambiguousUntil"].is_string());
}
