//! Writes that follow each other closely.

use super::*;
use crate::write_engine::Turn;

const LATENCY: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_millis(500);

/// Two calls of 100 in flight; the second one takes long, or ends so.
fn target(second: End) -> (Scripted, WriteEngine<Scripted>) {
    let server = Scripted::new();
    server.latency(LATENCY);
    server.writes([End::Normal, second]);
    let engine = WriteEngine::new(server.clone(), 0, 2..=2, None);
    (server, engine)
}

fn numbered(from: usize, to: usize) -> Vec<RelationshipUpdate> {
    (from..to).map(|id| touch(&format!("{id:04}"))).collect()
}

/// Writes 300 updates, and 300 others in the next turn of which the first ones need not wait.
async fn two(
    engine: &WriteEngine<Scripted>,
    notes: &Notes,
    first: usize,
) -> [Result<Outcome<RelationshipUpdate>, CommandError>; 2] {
    let mut turn = Turn::default();
    let mut next = turn.next();
    let earlier = async move {
        let written = engine
            .write_in_turn(notes, numbered(0, 300), 300, &mut turn)
            .await;
        if written.is_ok() {
            turn.end();
        }
        written
    };
    let later = engine.write_in_turn(notes, numbered(300, 600), first, &mut next);
    let (earlier, later) = tokio::join!(earlier, later);
    [earlier, later]
}

/// The first update of each call, in the order in which they were acknowledged.
fn order(notes: &Notes) -> Vec<String> {
    lock(&notes.acknowledged)
        .chunks(100)
        .map(|call| call[0].clone())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn first_calls_are_made_beside_the_last_one_of_the_write_before() {
    let (server, engine) = target(End::After(LONG));
    let notes = Notes::default();
    let began = Instant::now();
    let written = two(&engine, &notes, 300).await;
    assert!(written.iter().all(Result::is_ok));
    assert_eq!(
        order(&notes),
        ["T 0000", "T 0200", "T 0300", "T 0400", "T 0500", "T 0100"]
    );
    assert!(
        began.elapsed() <= LONG + 2 * LATENCY,
        "{:?}",
        began.elapsed()
    );
    assert_eq!(server.max_in_flight(), 2, "of both together");
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_is_written_once_the_write_before_has_ended() {
    let (server, engine) = target(End::After(LONG));
    let notes = Notes::default();
    let written = two(&engine, &notes, 100).await;
    assert!(written.iter().all(Result::is_ok));
    assert_eq!(
        order(&notes),
        ["T 0000", "T 0200", "T 0300", "T 0100", "T 0400", "T 0500"]
    );
    assert_eq!(server.max_in_flight(), 2);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_next_write_makes_no_call_more() {
    for first in [0, 100, 300] {
        let (server, engine) = target(End::Fails(unavailable()));
        let notes = Notes::default();
        let [earlier, later] = two(&engine, &notes, first).await;
        assert!(earlier.is_err() && later.is_err(), "{first}");
        let calls = server.calls();
        let is_later =
            |call: &Call| matches!(call, Call::Write(texts) if texts[0].as_str() >= "T 0300");
        assert!(!calls.iter().any(is_later), "{first}");
    }
}

#[tokio::test(start_paused = true)]
async fn write_whose_predecessor_is_dropped_ends() {
    let (server, engine) = target(End::Normal);
    let notes = Notes::default();
    let turn = Turn::default();
    let mut next = turn.next();
    drop(turn);
    let written = engine
        .write_in_turn(&notes, numbered(0, 10), 10, &mut next)
        .await;
    assert!(written.is_err());
    assert!(server.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn failure_of_the_next_write_leaves_one_whose_calls_are_all_in_flight() {
    let server = Scripted::new();
    server.latency(LATENCY);
    // The third call of the first write, and all of the second one's.
    let ends = [End::Normal, End::After(LONG), End::Normal];
    server.writes(ends.into_iter().chain([End::Fails(unavailable())]));
    let engine = WriteEngine::new(server.clone(), 0, 2..=2, None);
    let notes = Notes::default();
    let [earlier, later] = two(&engine, &notes, 300).await;
    assert!(earlier.is_ok());
    let later = later.expect_err("it failed by itself");
    assert_eq!(later.exit, Exit::TryAgain);
    assert_eq!(lock(&notes.acknowledged).len(), 300);
}
