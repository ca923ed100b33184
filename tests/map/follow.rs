//! A source is followed through a mapping, live, into a renamed and redacted copy.

use std::path::Path;
use std::time::Duration;

use super::{key, map};
use crate::apply::{apply, mark, position};
use crate::copy::{export, import};
use crate::support::oracle::{self, Precision, Writers};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::running::Running;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{AT_ONCE, Random, folder, repeat, wait_until};
use crate::watch::watch;

/// Whatever is killed, the same pipe resumes, and the copy ends as the mapped export of the source.
#[test]
fn killed_map_watch_or_apply_resumes_at_the_position() {
    let (source, target) = (
        Server::start(Datastore::Postgres),
        Server::start(Datastore::Memory),
    );
    oracle::write_schema(&source, oracle::WRITERS_SCHEMA);
    let folder = folder();
    let key = key(folder.path());
    let flags = [
        "--rename",
        "item=org/thing",
        "--rename",
        "item#holder=keeper",
        "--rename",
        "within=org/within",
        "--redact",
        "user",
        "--redact",
        "item",
        "--key-file",
        &key,
    ];
    // A copy first: what is redacted there is changed and deleted by the changes.
    let writing = ["--rate", "20", "--updates", "8", "--keys", "60"];
    let load = Writers::until_stopped(&source, &folder.path().join("journal"), &writing);
    wait_until("something is there to copy", AT_ONCE, || {
        oracle::dump(&source, Precision::Microseconds).len() > 10
    });
    let copied = folder.path().join("copied");
    let mapped = map(&flags).arg("--output").arg(&copied);
    Pipe::from(export(&source)).to(mapped).expect_success();
    import(&target).arg(&copied).run().expect_success();
    let file = folder.path().join("position");
    let from_copy = Program::new("spice-revision")
        .arg(&copied)
        .run()
        .expect_success();
    let from_copy = from_copy.text().trim().to_owned();
    let pipe = |flags: &[&str], until: &[&str]| {
        let watch =
            watch(&source).args(["--since", &from_copy, "--heartbeat", "1s", "--since-file"]);
        Pipe::from(watch.arg(&file).args(until))
            .to(map(flags))
            .to(apply(&target).arg("--position").arg(&file))
    };
    let (mut random, mut moved) = (Random::new(14), Vec::new());
    for case in 0..repeat(6, 60) {
        let running = pipe(&flags, &[]).spawn();
        running[2].wait_for_output(1);
        // At any moment: this pause is what is tried.
        std::thread::sleep(Duration::from_millis(random.below(900) as u64));
        let killed = (case % 3) as usize;
        running[killed].kill9();
        let ended: Vec<_> = running.into_iter().map(Running::wait).collect();
        assert_eq!(ended[killed].signal(), Some(9), "{}", ended[killed].stderr);
        if killed < 2 {
            assert_eq!(ended[2].code(), Some(75), "{}", ended[2].stderr);
        }
        if killed == 0 {
            assert_eq!(ended[1].code(), Some(75), "{}", ended[1].stderr);
        }
        moved.push(position(&file)["sourceRevision"].clone());
    }
    load.stop();
    moved.dedup();
    assert!(moved.len() > 2, "the position moved: {moved:?}");
    assert_other_mappings_are_refused(&pipe, &flags, &file, &target);
    let until = mark(&source);
    pipe(&flags, &["--until", &until]).expect_success();
    let expected = Pipe::from(export(&source)).to(map(&flags)).expect_success();
    let whole = folder.path().join("whole");
    std::fs::write(&whole, &expected.stdout).unwrap();
    let there = folder.path().join("there");
    let exported = export(&target).arg("--output").arg(&there);
    exported.run().expect_success();
    let compared = Program::new("spice-diff").arg(&there).arg(&whole);
    compared.run().expect_success();
    let held = oracle::dump(&target, Precision::Microseconds);
    assert!(held.len() > 20, "{}", held.len());
    assert_eq!(
        held.len(),
        oracle::dump(&source, Precision::Microseconds).len()
    );
}

/// Another key, another name, nothing redacted: nothing of it is applied.
fn assert_other_mappings_are_refused(
    pipe: &dyn Fn(&[&str], &[&str]) -> Pipe,
    flags: &[&str],
    file: &Path,
    target: &Server,
) {
    let (stood, held) = (
        position(file),
        oracle::dump(target, Precision::Microseconds),
    );
    let folder = folder();
    let other = folder.path().join("other");
    std::fs::copy(flags[flags.len() - 1], &other).unwrap();
    let mut bytes = std::fs::read(&other).unwrap();
    bytes.push(b'\n');
    std::fs::write(&other, bytes).unwrap();
    let mut keyed = flags.to_vec();
    let last = keyed.len() - 1;
    keyed[last] = other.to_str().unwrap();
    let mut named = flags.to_vec();
    named[1] = "item=org/other";
    let renames_alone = flags[..6].to_vec();
    for flags in [keyed, named, renames_alone] {
        let ended = pipe(&flags, &[]).run();
        assert_eq!(ended[2].code(), Some(2), "{}", ended[2].stderr);
        assert!(
            ended[2].stderr.contains("another mapping"),
            "{}",
            ended[2].stderr
        );
    }
    assert_eq!(position(file), stood);
    assert_eq!(oracle::dump(target, Precision::Microseconds), held);
}
