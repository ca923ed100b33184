//! The size of calls and how many are in flight, from write to write, and calls that fail late.

use std::time::Duration;

use spice_cli::Exit;

use super::{Notes, engine, touches};
use crate::scripted::{End, Scripted, deadline, internal, unavailable};
use crate::write_engine::WriteEngine;

/// A slow target on Spanner answers UNKNOWN or INTERNAL, and no row is at fault.
#[tokio::test(start_paused = true)]
async fn call_that_fails_late_is_halved_whatever_its_error() {
    for error in [unavailable(), deadline(), internal()] {
        let (server, notes) = (Scripted::new(), Notes::default());
        // Slow enough that none is made larger again.
        server.latency(Duration::from_secs(2));
        server.writes([
            End::FailsAfter(Duration::from_secs(20), error.clone()),
            End::FailsAfter(Duration::from_secs(20), error),
        ]);
        let engine = engine(&server);
        let outcome = engine
            .write(&notes, touches(800), true)
            .await
            .expect("written");
        assert_eq!(server.sizes(), [800, 400, 200, 200, 200, 200]);
        assert_eq!((outcome.refused, server.relationships().len()), (0, 800));
    }
}

#[tokio::test(start_paused = true)]
async fn target_that_never_takes_any_ends_75_with_the_smallest_call() {
    let (server, notes) = (Scripted::new(), Notes::default());
    let slow = End::FailsAfter(Duration::from_secs(20), unavailable());
    server.writes(vec![slow; 99]);
    let failure = engine(&server)
        .write(&notes, touches(1_000), true)
        .await
        .expect_err("never written");
    assert_eq!(failure.exit, Exit::TryAgain);
    let smallest = *server.sizes().last().expect("a call");
    assert!(smallest < 16, "{smallest}");
    let named = format!("a call of size {smallest}");
    assert!(failure.message().contains(&named), "{}", failure.message());
}

/// Writes batches as large as the engine wants them.
async fn writes_batches(engine: &WriteEngine<Scripted>, batches: usize) {
    let notes = Notes::default();
    for _ in 0..batches {
        let batch = touches(engine.batch());
        engine.write(&notes, batch, false).await.expect("written");
    }
}

#[tokio::test(start_paused = true)]
async fn target_far_away_gets_more_calls_in_flight() {
    let server = Scripted::new();
    server.latency(Duration::from_millis(150));
    let engine = WriteEngine::new(server.clone(), 3, 1..=16, None);
    writes_batches(&engine, 20).await;
    assert!(engine.setting().in_flight >= 8, "{:?}", engine.setting());
    assert!(server.max_in_flight() <= 16);
}

/// Of updates that do not divide the size of a call, of heavy ones, and of a transaction that is no single call.
#[tokio::test(start_paused = true)]
async fn any_backlog_leads_to_more_calls_in_flight() {
    let heavy = |count: usize| {
        let mut updates = touches(count);
        for update in &mut updates {
            let relationship = update.relationship.as_mut().expect("one");
            relationship.relation = "r".repeat(40 << 10);
        }
        updates
    };
    for (updates, is_transaction) in [
        (touches(101), false),
        (heavy(100), false),
        (touches(1_500), true),
    ] {
        let (server, notes) = (Scripted::new(), Notes::default());
        server.latency(Duration::from_millis(40));
        let engine = WriteEngine::new(server.clone(), 3, 4..=8, None);
        for _ in 0..3 {
            engine
                .write(&notes, updates.clone(), is_transaction)
                .await
                .expect("written");
        }
        assert!(engine.setting().in_flight >= 4, "{} updates", updates.len());
    }
}

/// Batches are small where a target is slow, and are measured all the same.
#[tokio::test(start_paused = true)]
async fn target_that_becomes_fast_is_made_use_of() {
    let server = Scripted::new();
    server.latency(Duration::from_secs(2));
    let engine = WriteEngine::new(server.clone(), 3, 4..=4, None);
    writes_batches(&engine, 10).await;
    let slow = engine.setting().size;
    assert!(slow < 100, "{slow}");
    server.latency(Duration::from_millis(20));
    writes_batches(&engine, 60).await;
    let fast = engine.setting().size;
    assert!(fast >= 400, "{fast}");
}

/// A server that was away for a moment takes as much as before.
#[tokio::test(start_paused = true)]
async fn call_sizes_recover_from_a_late_failure() {
    let (server, notes) = (Scripted::new(), Notes::default());
    server.writes([End::FailsAfter(Duration::from_secs(20), unavailable())]);
    let engine = engine(&server);
    engine
        .write(&notes, touches(20), true)
        .await
        .expect("written");
    assert_eq!(server.sizes()[..2], [20, 10]);
    for _ in 0..10 {
        engine
            .write(&notes, touches(500), true)
            .await
            .expect("written");
    }
    assert_eq!(server.sizes().last(), Some(&500), "{:?}", server.sizes());
}
