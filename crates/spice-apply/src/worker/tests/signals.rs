//! What a signal leaves behind.

use std::time::Duration;

use spice_cli::shutdown::SIGTERM;
use spice_cli::{Exit, Shutdown};
use spice_client::scripted::End;
use tokio::time::{Instant, sleep};

use super::{Ended, Source, World, send, transaction};
use crate::GRACE;

/// Runs a worker on three revisions, the second call of which takes so long; the signal comes after 50 ms.
async fn interrupted(call: End, patient: bool) -> (World, Ended, Duration) {
    let world = World::new(Source::Ordered);
    let (mut worker, sender) = world.worker();
    world.server.writes([End::Normal, call]);
    for number in 1..=3 {
        send(&sender, transaction(world.source, number));
    }
    let (shutdown, signal) = Shutdown::simulated();
    let started = Instant::now();
    let signal = async {
        sleep(Duration::from_millis(50)).await;
        signal(SIGTERM, patient);
        // The sender lives until the end.
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = worker.run(&shutdown) => ended.expect("a signal is no error"),
        () = signal => unreachable!("pending"),
    };
    (world, ended, started.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_call_in_flight_is_awaited_for_the_grace_after_sigterm() {
    let (world, ended, _) = interrupted(End::After(Duration::from_millis(500)), false).await;
    assert_eq!((ended, world.saved_number()), (Ended::Signal(SIGTERM), 2));
    assert!(
        world
            .position()
            .is_some_and(|position| position.ambiguous_until.is_none())
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_beyond_the_grace_is_dropped_and_noted_as_ambiguous() {
    let (world, ended, took) = interrupted(End::Hangs, false).await;
    assert_eq!((ended, world.saved_number()), (Ended::Signal(SIGTERM), 1));
    assert!(
        world
            .position()
            .is_some_and(|position| position.ambiguous_until.is_some())
    );
    assert_eq!(took, Duration::from_millis(50) + GRACE);
}

#[tokio::test(start_paused = true)]
async fn after_a_patient_signal_the_call_is_awaited() {
    let (world, ended, _) = interrupted(End::After(Duration::from_secs(20)), true).await;
    assert_eq!((ended, world.saved_number()), (Ended::Signal(SIGTERM), 2));
    world.expect_state(2, "no further call was made");
}

#[tokio::test(start_paused = true)]
async fn a_forced_end_notes_the_call_in_flight() {
    let world = World::new(Source::Ordered);
    let (worker, _sender) = world.worker();
    let on_forced_end = worker.on_forced_end();
    assert!(on_forced_end().is_none_or(|exit| exit != Exit::Done));
    assert!(
        world
            .position()
            .is_some_and(|position| position.ambiguous_until.is_some())
    );
}
