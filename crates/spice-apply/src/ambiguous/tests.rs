//! Which writes are remembered, for how long, and what is read again.

use std::time::Duration;

use authzed::v1::{RelationshipUpdate, relationship_update::Operation};
use spice_client::scripted::{Call, Scripted, delete, expiring, relationship, text, touch, update};
use spice_record::ExpiryPrecision;
use tokio::time::{Instant, advance};

use super::{AMBIGUITY_WINDOW, AmbiguousWrites, applied_late, differing};

const SECOND: Duration = Duration::from_secs(1);

fn texts(updates: &[RelationshipUpdate]) -> Vec<String> {
    let mut texts: Vec<String> = updates.iter().map(text).collect();
    texts.sort();
    texts
}

#[tokio::test(start_paused = true)]
async fn a_write_is_due_after_the_window_and_not_before() {
    let mut ambiguous = AmbiguousWrites::default();
    assert!(ambiguous.is_empty() && ambiguous.settled_at().is_none());
    ambiguous.note(&[touch("a")]);
    assert_eq!(
        ambiguous.settled_at(),
        Some(Instant::now() + AMBIGUITY_WINDOW)
    );
    advance(AMBIGUITY_WINDOW - SECOND).await;
    assert!(ambiguous.due().is_empty());
    advance(SECOND).await;
    assert_eq!(texts(&ambiguous.due()), ["T a"]);
}

#[tokio::test(start_paused = true)]
async fn the_window_begins_again_with_each_ambiguous_end() {
    let mut ambiguous = AmbiguousWrites::default();
    ambiguous.note(&[touch("a"), touch("b")]);
    advance(20 * SECOND).await;
    ambiguous.note(&[delete("a")]);
    advance(10 * SECOND).await;
    assert_eq!(texts(&ambiguous.due()), ["T b"]);
    advance(20 * SECOND).await;
    assert_eq!(texts(&ambiguous.due()), ["D a", "T b"]);
}

#[tokio::test(start_paused = true)]
async fn a_later_acknowledged_update_is_what_must_be_there() {
    let mut ambiguous = AmbiguousWrites::default();
    ambiguous.note(&[touch("a")]);
    ambiguous.acknowledged(&[delete("a"), touch("b")]);
    advance(AMBIGUITY_WINDOW).await;
    // It does not end the window, and what was never ambiguous is not remembered.
    assert_eq!(texts(&ambiguous.due()), ["D a"]);
}

#[tokio::test(start_paused = true)]
async fn what_became_ambiguous_again_while_it_was_read_stays() {
    let mut ambiguous = AmbiguousWrites::default();
    ambiguous.note(&[touch("a"), touch("b")]);
    advance(AMBIGUITY_WINDOW).await;
    let due = ambiguous.due();
    let looked = Instant::now();
    ambiguous.note(&[touch("a")]);
    ambiguous.settle_until(&due, looked);
    assert!(!ambiguous.is_empty());
    advance(AMBIGUITY_WINDOW).await;
    assert_eq!(texts(&ambiguous.due()), ["T a"]);
}

#[tokio::test(start_paused = true)]
async fn what_will_never_be_there_is_forgotten_at_once() {
    let mut ambiguous = AmbiguousWrites::default();
    ambiguous.note(&[touch("a")]);
    ambiguous.settle(&[touch("a")]);
    assert!(ambiguous.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_schema_is_due_after_its_window() {
    let mut ambiguous = AmbiguousWrites::default();
    ambiguous.note_schema();
    assert!(!ambiguous.is_empty() && !ambiguous.has_relationships());
    assert!(!ambiguous.schema_is_due());
    advance(AMBIGUITY_WINDOW).await;
    assert!(ambiguous.schema_is_due());
    let looked = Instant::now();
    ambiguous.settle_schema_until(looked);
    assert!(ambiguous.is_empty());
    // Ambiguous again since it was read: it stays.
    ambiguous.note_schema();
    ambiguous.settle_schema_until(looked);
    assert!(!ambiguous.is_empty());
}

#[tokio::test(start_paused = true)]
async fn all_are_settled_when_the_last_one_is() {
    let mut ambiguous = AmbiguousWrites::default();
    ambiguous.note(&[touch("a")]);
    advance(5 * SECOND).await;
    ambiguous.note_schema();
    assert_eq!(
        ambiguous.settled_at(),
        Some(Instant::now() + AMBIGUITY_WINDOW)
    );
}

async fn differing_on(server: &Scripted, updates: &[RelationshipUpdate]) -> Vec<String> {
    let found = differing(server, updates, 0, ExpiryPrecision::Micros).await;
    texts(&found.expect("read"))
}

#[tokio::test(start_paused = true)]
async fn only_what_differs_from_the_last_state_is_written_again() {
    let server = Scripted::new();
    server.put([relationship("there"), relationship("revived")]);
    let updates = [
        touch("there"),
        touch("lost"),
        delete("gone"),
        delete("revived"),
    ];
    assert_eq!(
        differing_on(&server, &updates).await,
        ["D revived", "T lost"]
    );
    assert_eq!(
        server.calls(),
        [Call::Lookup(4)],
        "one look for all of them"
    );
    let late = applied_late(&server, &updates, 0, ExpiryPrecision::Micros).await;
    assert_eq!(texts(&late.expect("read")), ["D revived", "T lost"]);
}

#[tokio::test(start_paused = true)]
async fn another_expiry_differs_and_an_expired_one_is_not_missed() {
    let server = Scripted::new();
    let far = i64::from(u32::MAX);
    server.put([expiring("other", far), expiring("same", far)]);
    let updates = [
        update(Operation::Touch, expiring("other", far - 1)),
        update(Operation::Touch, expiring("same", far)),
        update(Operation::Touch, expiring("expired", 1)),
        update(Operation::Touch, expiring("missing", far)),
    ];
    assert_eq!(
        differing_on(&server, &updates).await,
        ["T missing", "T other"]
    );
}

#[tokio::test(start_paused = true)]
async fn expiries_are_compared_at_the_precision_of_the_target() {
    let server = Scripted::new();
    let far = i64::from(u32::MAX);
    server.put([expiring("a", far)]);
    let mut precise = expiring("a", far);
    if let Some(expiry) = &mut precise.optional_expires_at {
        expiry.nanos = 700_000_000;
    }
    let updates = [update(Operation::Touch, precise)];
    for (precision, expected) in [(ExpiryPrecision::Micros, 1), (ExpiryPrecision::Seconds, 0)] {
        let found = differing(&server, &updates, 0, precision)
            .await
            .expect("read");
        assert_eq!(found.len(), expected, "{precision:?}");
    }
}
