//! A change is written at once.

use std::time::{Duration, Instant};

use super::{PATIENCE, WATCHING, client, item, source_with, wait_for_stdout, watch};
use crate::support::oracle;
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::running::Running;
use crate::support::spicedb::{Datastore, Server};
use crate::support::wait_until;
use authzed::v1::{RelationshipUpdate, WriteRelationshipsRequest, relationship_update::Operation};

/// The median time from the acknowledgement of a write to its arrival at the end of a pipe, of 20.
fn median(server: &Server, end: &Running, run: &str) -> Duration {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(client(server));
    let mut all: Vec<Duration> = (0..20)
        .map(|number| {
            let name = format!("{run}-{number}-");
            let update = RelationshipUpdate {
                operation: Operation::Touch.into(),
                relationship: Some(item(&name)),
            };
            let request = WriteRelationshipsRequest {
                updates: vec![update],
                ..WriteRelationshipsRequest::default()
            };
            runtime
                .block_on(client.write_relationships(request))
                .unwrap();
            let began = Instant::now();
            wait_for_stdout(end, &name);
            let took = began.elapsed();
            // Not in step with the server's poll.
            std::thread::sleep(Duration::from_millis(37 * number % 400));
            took
        })
        .collect();
    all.sort();
    all[10]
}

#[expect(clippy::print_stderr, reason = "the figure is looked at")]
fn told_within(limit: Duration, server: &Server, filtered: bool) {
    let since = oracle::head(server);
    let watching = watch(server).args(["--since", &since, "--settle", "0s"]);
    let mut all = if filtered {
        let jq = Program::at("jq".as_ref()).args(["-c", "--unbuffered", "select(.transaction)"]);
        Pipe::from(watching).to(jq.timeout(PATIENCE)).spawn()
    } else {
        vec![watching.spawn()]
    };
    all[0].wait_for_stderr(WATCHING, PATIENCE);
    let median = median(
        server,
        all.last().unwrap(),
        if filtered { "filtered" } else { "plain" },
    );
    eprintln!("a single change is written after {median:?} (median of 20), limit {limit:?}");
    assert!(median <= limit, "{median:?}");
    wait_until("it runs", PATIENCE, || {
        all.iter_mut().all(Running::is_running)
    });
}

fn has_jq() -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|folder| folder.join("jq").exists())
}

#[test]
fn single_change_on_postgres_is_written_at_once() {
    let often = source_with(Datastore::Postgres, &[]);
    told_within(Duration::from_millis(300), &often, false);
    if has_jq() {
        told_within(Duration::from_millis(300), &often, true);
    }
    let server = Server::start(Datastore::Postgres);
    oracle::write_schema(&server, oracle::WRITERS_SCHEMA);
    told_within(Duration::from_millis(1_200), &server, has_jq());
}

#[test]
fn single_change_in_memory_is_written_at_once() {
    let server = source_with(Datastore::Memory, &[]);
    told_within(Duration::from_millis(200), &server, false);
    if has_jq() {
        told_within(Duration::from_millis(200), &server, true);
    }
}
