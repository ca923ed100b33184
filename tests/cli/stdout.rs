//! A stdout that takes nothing, that nobody reads any more, or that is not there.

use std::path::Path;
use std::time::Instant;

use testdata::Sample;

use super::signals::assert_ends;
use super::{run, with_schema};
use crate::copy::{export, import, stream_of};
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{AT_ONCE, folder};

/// An idle source, of which a watch has nothing to say but its header.
fn idle() -> (Server, String) {
    let server = with_schema(Datastore::Memory);
    let since = oracle::head(&server);
    (server, since)
}

#[test]
fn idle_watch_notices_that_its_reader_has_left() {
    let (server, since) = idle();
    let watch =
        || Program::new("spice-watch").args(["--context", server.context(), "--since", &since]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let finished = watch().stdout_to(full.unwrap()).timeout(AT_ONCE).run();
    assert_eq!(finished.code(), Some(1), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("cannot write to stdout"),
        "{}",
        finished.stderr
    );
    let (reader, writer) = std::io::pipe().unwrap();
    let watching = watch().stdout_to(writer).spawn();
    watching.wait_for_stderr("reading 35 s behind", AT_ONCE);
    watching.wait_until_blocked();
    let began = Instant::now();
    drop(reader);
    let finished = watching.wait();
    assert_eq!(finished.signal(), Some(13), "{}", finished.stderr);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert!(!finished.stderr.contains("error"), "{}", finished.stderr);
    // A spool has no reader.
    let folder = folder();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let spooling = watch().arg("--spool").arg(folder.path().join("spool"));
    let mut spooling = spooling.stdout_to(writer).spawn();
    spooling.wait_for_stderr("reading 35 s behind", AT_ONCE);
    spooling.wait_until_blocked();
    assert!(spooling.is_running());
    assert_ends(spooling, "TERM", None, "a spool without a stdout");
}

#[test]
fn closed_stdout_is_an_error_before_anything_is_done() {
    let (server, since) = idle();
    let context = format!("--context {}", server.context());
    let folder = folder();
    let stream = folder.path().join("stream");
    std::fs::write(&stream, stream_of(Sample::portable(3))).unwrap();
    let stream = stream.display();
    let closed = |command: &str| {
        run(Program::at(Path::new("sh")).args(["-c", &format!("exec {command} >&-")]))
    };
    for command in [
        format!("spice-export {context} --settle 0s"),
        format!("spice-import {context} {stream}"),
        format!("spice-revision {context} --mark"),
        format!("spice-revision {stream}"),
        format!("spice-watch {context} --since {since}"),
        format!("spice-apply {context} {stream}"),
        format!("spice-digest {stream}"),
        format!("spice-diff {stream} {stream}"),
        format!("spice-convert {stream}"),
        format!("spice-map --rename tenant/=org/ {stream}"),
        format!("spice-check {context} --sample 0"),
        format!("spice-preflight --from {}", server.context()),
    ] {
        let finished = closed(&command);
        assert_eq!(finished.code(), Some(1), "{command}: {}", finished.stderr);
        assert!(
            finished.stderr.contains("stdout: it is closed"),
            "{command}"
        );
    }
    assert!(oracle::dump(&server, oracle::Precision::Nanoseconds).is_empty());
    // Thrown away on purpose, and not needed.
    let to_null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null");
    run(export(&server).stdout_to(to_null.unwrap())).expect_success();
    let output = folder.path().join("output");
    closed(&format!(
        "spice-export {context} --settle 0s -o {}",
        output.display()
    ))
    .expect_success();
    assert!(output.exists());
    import(&server)
        .args(["--dry-run"])
        .input(stream_of(Sample::portable(3)))
        .run()
        .expect_success();
}
