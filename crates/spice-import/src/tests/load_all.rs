//! Chunk after chunk: order, signals, failures, and true stats.

use std::time::Duration;

use spice_cli::progress::Progress;
use spice_cli::shutdown::SIGTERM;
use spice_cli::{CommandError, Exit, Shutdown};
use spice_client::scripted::{End, Scripted, refused, relationship};
use spice_record::{Digest, ExpiryPrecision};
use tokio::sync::mpsc;

use crate::chunk::{Chunk, Row};
use crate::input::{Step, Totals};
use crate::load::Loader;
use crate::rejects::Rejects;
use crate::stats::Stats;
use crate::{Ended, GRACE, OnConflict, load_all};

/// Ten rows, the first of them on this line.
fn chunk(first: u64) -> Step {
    let row = |line: u64| Row {
        line,
        relationship: relationship(&format!("row{line}")),
    };
    Step::Chunk(Chunk::from_rows(
        &(first..first + 10).map(row).collect::<Vec<_>>(),
    ))
}

fn end() -> Step {
    Step::End(Totals {
        relationships: 30,
        digest: Digest(0),
        precision: ExpiryPrecision::Micros,
        verified: true,
        below_micros: 0,
        below_seconds: 0,
    })
}

/// Loads steps; the signal comes after 100 ms.
async fn run(
    server: &Scripted,
    jobs: usize,
    steps: Vec<Step>,
    signal: Option<bool>,
) -> (Stats, Result<Ended, CommandError>) {
    let progress = Progress::start("relationships read", true);
    let precision = ExpiryPrecision::Micros;
    let rejects = Rejects::default();
    let loader = Loader::new(
        server.clone(),
        3,
        OnConflict::Fail,
        precision,
        rejects,
        &(jobs..=jobs),
    );
    let loader = match jobs {
        1 => loader,
        _ => loader.grown(&(jobs..=jobs)),
    };
    let (sender, receiver) = mpsc::channel(9);
    let mut steps = steps.into_iter();
    let first = steps.next().expect("a step");
    for step in steps {
        assert!(sender.try_send(step).is_ok());
    }
    let (shutdown, send) = Shutdown::simulated();
    let loading = load_all(&loader, first, receiver, &progress, &shutdown);
    let signals = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Some(patient) = signal {
            send(SIGTERM, patient);
        }
        std::future::pending::<()>().await;
    };
    // The reader of the stream is still there.
    let loaded = tokio::select! {
        loaded = loading => loaded,
        () = signals => unreachable!("pending"),
    };
    drop(sender);
    loaded
}

fn three() -> Vec<Step> {
    vec![chunk(1), chunk(11), chunk(21), end()]
}

#[tokio::test(start_paused = true)]
async fn all_chunks_are_loaded_so_many_at_a_time() {
    for jobs in [1, 2, 3] {
        let server = Scripted::new();
        server.latency(Duration::from_millis(10));
        let (stats, ended) = run(&server, jobs, three(), None).await;
        assert!(matches!(ended, Ok(Ended::Complete(_))));
        assert_eq!((stats.loaded, server.max_in_flight()), (30, jobs));
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_no_chunk_is_started_and_those_in_flight_end() {
    let server = Scripted::new();
    server.latency(Duration::from_millis(10));
    server.refuses(|update| {
        let is_first = *update
            == spice_client::scripted::update(
                authzed::v1::relationship_update::Operation::Create,
                relationship("row1"),
            );
        is_first.then(|| refused("UNKNOWN_CAVEAT"))
    });
    server.imports([End::Normal, End::After(Duration::from_secs(1))]);
    let (stats, ended) = run(&server, 2, three(), None).await;
    assert_eq!(ended.map(|_| ()).expect_err("refused").exit, Exit::Failed);
    assert_eq!(stats.loaded, 10, "the second; the third was not started");
    assert_eq!(server.relationships().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_stream_ends_with_what_came_before_it() {
    let server = Scripted::new();
    let damaged = CommandError::new(Exit::BadData, "damaged");
    let (stats, ended) = run(&server, 1, vec![chunk(1), Step::Failed(damaged)], None).await;
    assert_eq!(ended.map(|_| ()).expect_err("damaged").exit, Exit::BadData);
    assert_eq!(stats.loaded, 10);
}

#[tokio::test(start_paused = true)]
async fn after_a_signal_what_is_in_flight_is_brought_to_its_end() {
    let server = Scripted::new();
    server.imports([End::After(Duration::from_millis(100) + GRACE / 2)]);
    let (stats, ended) = run(&server, 1, three(), Some(false)).await;
    assert!(matches!(ended, Ok(Ended::Signal(SIGTERM))));
    assert_eq!((stats.loaded, stats.unknown), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn what_outlasts_the_grace_is_reported_as_unknown() {
    let server = Scripted::new();
    server.imports([End::Hangs]);
    let (stats, ended) = run(&server, 1, three(), Some(false)).await;
    assert!(matches!(ended, Ok(Ended::Signal(SIGTERM))));
    assert_eq!((stats.loaded, stats.unknown), (0, 10));
}

#[tokio::test(start_paused = true)]
async fn after_a_patient_signal_it_is_awaited() {
    let server = Scripted::new();
    server.imports([End::After(Duration::from_secs(20))]);
    let (stats, ended) = run(&server, 1, three(), Some(true)).await;
    assert!(matches!(ended, Ok(Ended::Signal(SIGTERM))));
    assert_eq!((stats.loaded, stats.unknown), (10, 0));
}

/// What is there already is looked up in large parts: a look-up costs the same for few and for many.
#[tokio::test(start_paused = true)]
async fn rows_that_are_there_are_looked_up_in_large_parts() {
    let server = Scripted::new();
    let row = |line: u64| Row {
        line,
        relationship: relationship(&format!("row{line:05}")),
    };
    let rows: Vec<Row> = (1..=10_000).map(row).collect();
    server.put(rows[..5_000].iter().map(|row| row.relationship.clone()));
    let steps = vec![Step::Chunk(Chunk::from_rows(&rows)), end()];
    let (stats, ended) = run(&server, 1, steps, None).await;
    assert!(matches!(ended, Ok(Ended::Complete(_))));
    assert_eq!((stats.present, stats.loaded), (5_000, 5_000));
    // The first finds that it is there; the rest at once; what of that is absent.
    assert_eq!(server.sizes(), [1_000, 9_000, 5_000]);
}
