//! Internal errors: of a value that the database cannot hold, or of the database.

use std::time::Duration;

use authzed::v1::RelationshipUpdate;
use spice_cli::Exit;
use tokio::time::Instant;

use super::{Notes, refuse, touches, write};
use crate::scripted::{Call, End, Scripted, internal, touch};
use crate::write_engine::WriteEngine;

fn markers(server: &Scripted) -> usize {
    let calls = server.calls();
    calls.iter().filter(|call| **call == Call::Marker).count()
}

#[tokio::test(start_paused = true)]
async fn internal_error_is_the_rows_fault_if_markers_are_taken() {
    let (server, notes) = (Scripted::new(), Notes::default());
    refuse(&server, &["0002"], &internal());
    let engine = WriteEngine::new(server.clone(), 10, 1..=1, None);
    let outcome = engine.write(&notes, touches(4), true).await;
    assert_eq!(outcome.expect("written").refused, 1);
    assert_eq!(server.relationships().len(), 3);
    assert_eq!(*super::lock(&notes.refused), ["T 0002"]);
    // Seven attempts at all, one while it is searched, three at the row.
    assert_eq!(markers(&server), 7 + 1 + 3);
}

#[tokio::test(start_paused = true)]
async fn with_few_retries_no_row_is_blamed() {
    for retries in [0, 1, 5] {
        let (server, notes) = (Scripted::new(), Notes::default());
        refuse(&server, &["0000"], &internal());
        let engine = WriteEngine::new(server, retries, 1..=1, None);
        let failure = engine.write(&notes, touches(1), true).await;
        assert_eq!(failure.expect_err("given up").exit, Exit::TryAgain);
        assert!(super::lock(&notes.refused).is_empty(), "{retries}");
    }
}

#[tokio::test(start_paused = true)]
async fn internal_error_is_the_servers_fault_if_markers_fail() {
    let (server, notes) = (Scripted::new(), Notes::default());
    server.writes(vec![End::Fails(internal()); 3]);
    server.markers(vec![Err(internal()); 3]);
    let outcome = write(&server, &notes, touches(4)).await.expect("written");
    assert_eq!((outcome.refused, outcome.calls), (0, 1));
    assert!(super::lock(&notes.refused).is_empty());
}

/// Writes each by itself with the default retries; returns how many were refused, and how long that took.
async fn write_each(
    engine: &WriteEngine<Scripted>,
    updates: Vec<RelationshipUpdate>,
) -> (u64, Duration) {
    let (notes, began, mut refused) = (Notes::default(), Instant::now(), 0);
    for update in updates {
        let written = engine.write(&notes, vec![update], true).await;
        refused += written.expect("written").refused as u64;
    }
    (refused, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn sessions_that_end_again_and_again_are_no_rows_fault() {
    let server = Scripted::new();
    let engine = WriteEngine::new(server.clone(), 10, 1..=1, None);
    for failures in 1..=6 {
        server.writes(vec![End::Fails(internal()); failures]);
        let update = touch(&failures.to_string());
        assert_eq!(write_each(&engine, vec![update]).await.0, 0, "{failures}");
    }
    assert_eq!(server.relationships().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn once_a_row_was_blamed_each_other_one_costs_three_attempts() {
    let server = Scripted::new();
    let engine = WriteEngine::new(server.clone(), 10, 1..=1, None);
    refuse(&server, &["0000", "0001", "0002", "0003"], &internal());
    let (refused, first) = write_each(&engine, touches(1)).await;
    assert!(refused == 1 && first > Duration::from_secs(5), "{first:?}");
    let (refused, others) = write_each(&engine, touches(4).split_off(1)).await;
    assert_eq!((refused, markers(&server)), (3, 7 + 3 * 3));
    assert!(others < Duration::from_secs(2), "{others:?}");
    // One that passes was the server's: the next ones may also be.
    server.writes([End::Fails(internal())]);
    assert_eq!(write_each(&engine, vec![touch("good")]).await.0, 0);
    let (refused, again) = write_each(&engine, touches(1)).await;
    assert!(refused == 1 && again > Duration::from_secs(5), "{again:?}");
    // And after a minute without any.
    tokio::time::sleep(Duration::from_secs(61)).await;
    let (refused, later) = write_each(&engine, touches(1)).await;
    assert!(refused == 1 && later > Duration::from_secs(5), "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn what_other_calls_suffer_blames_no_row() {
    // Slow attempts at a row of one call, while sessions end under the row of another.
    let server = Scripted::new();
    server.latency(Duration::from_secs(3));
    let engine = WriteEngine::new(server.clone(), 10, 1..=1, None);
    server.writes(vec![End::Fails(internal()); 6]);
    assert_eq!(write_each(&engine, vec![touch("slow")]).await.0, 0);
    server.latency(Duration::ZERO);
    server.writes(vec![End::Fails(internal()); 6]);
    assert_eq!(write_each(&engine, vec![touch("quick")]).await.0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_bad_rows_among_good_ones_take_a_quarter_of_an_hour_at_most() {
    let server = Scripted::new();
    let bad: Vec<String> = (0..1_000).map(|id| format!("{:04}", 10 * id)).collect();
    let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
    refuse(&server, &bad, &internal());
    let engine = WriteEngine::new(server.clone(), 10, 1..=1, None);
    let (notes, began) = (Notes::default(), Instant::now());
    let outcome = engine.write(&notes, touches(10_000), false).await;
    assert_eq!(outcome.expect("written").refused, 1_000);
    assert_eq!(server.relationships().len(), 9_000);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(900), "{took:?}");
}
