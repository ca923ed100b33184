//! TOUCHes that a server skips.

use std::time::Duration;

use authzed::v1::{RelationshipUpdate, relationship_update::Operation};
use spice_cli::lock;

use super::{Notes, engine, touches, write};
use crate::scripted::{Call, Scripted, expiring, refused, relationship, text, touch, update};
use crate::server::Layout;

/// Three relationships with an expiry on a server that skips TOUCHes which take it away.
fn skipping() -> (Scripted, Vec<RelationshipUpdate>) {
    let server = Scripted::new();
    server.skips_touches(true);
    server.put(["a", "b", "c"].map(|id| expiring(id, i64::from(u32::MAX))));
    (server, ["a", "b", "c"].map(touch).to_vec())
}

#[tokio::test(start_paused = true)]
async fn skipped_touches_are_read_back_deleted_and_written_again() {
    let ((server, items), notes) = (skipping(), Notes::default());
    let engine = engine(&server);
    let outcome = engine.write(&notes, items, true).await.expect("written");
    assert!(
        server.relationships()[0].optional_expires_at.is_some(),
        "skipped"
    );
    let outcome = engine
        .verify_touches(&notes, Layout::Scattered, outcome)
        .await
        .expect("verified");
    assert_eq!(outcome.calls, 3);
    let expiries = server
        .relationships()
        .into_iter()
        .map(|it| it.optional_expires_at);
    assert_eq!(expiries.collect::<Vec<_>>(), [None, None, None]);
    let acknowledged = lock(&notes.acknowledged);
    assert_eq!(acknowledged[3..5], ["delete of T a", "delete of T b"]);
    assert_eq!(
        acknowledged[6..],
        ["rewrite of T a", "rewrite of T b", "rewrite of T c"]
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_back_from_a_server_that_skips_nothing() {
    let (server, notes) = (Scripted::new(), Notes::default());
    let engine = engine(&server);
    let outcome = engine
        .write(&notes, touches(3), true)
        .await
        .expect("written");
    engine
        .verify_touches(&notes, Layout::Few, outcome)
        .await
        .expect("verified");
    assert_eq!(server.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn creates_replace_skippable_touches_once_known() {
    let (server, _) = skipping();
    let notes = Notes {
        tries_create: true,
        ..Notes::default()
    };
    let engine = engine(&server);
    engine
        .write(&notes, vec![touch("new")], true)
        .await
        .expect("written");
    let outcome = engine
        .write(&notes, vec![touch("newer")], true)
        .await
        .expect("written");
    let expected = [
        Call::Write(vec!["T new".to_owned()]),
        Call::Write(vec!["C newer".to_owned()]),
    ];
    assert_eq!(server.calls(), expected);
    assert!(
        outcome.unconfirmed.is_empty(),
        "a CREATE is done or refused"
    );
    // One that is there is touched at once, and has to be read back.
    let outcome = engine
        .write(&notes, vec![touch("a")], true)
        .await
        .expect("written");
    assert_eq!(
        server.calls()[2..],
        ["C a", "T a"].map(|it| Call::Write(vec![it.to_owned()]))
    );
    assert_eq!(outcome.unconfirmed.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_skipped_and_then_refused_is_not_an_error() {
    let ((server, items), notes) = (skipping(), Notes::default());
    let engine = engine(&server);
    let outcome = engine.write(&notes, items, true).await.expect("written");
    server.refuses(|update| {
        let is_touch = update.operation() == Operation::Touch;
        (is_touch && text(update) == "T b").then(|| refused("INVALID_SUBJECT_TYPE"))
    });
    engine
        .verify_touches(&notes, Layout::Scattered, outcome)
        .await
        .expect("verified");
    assert_eq!(*lock(&notes.refused), ["rewrite of T b"]);
    assert_eq!(server.relationships().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_touch_that_stays_skipped_is_an_error() {
    let ((server, items), notes) = (skipping(), Notes::default());
    let engine = engine(&server);
    let outcome = engine.write(&notes, items, true).await.expect("written");
    // Somebody else writes it again and again.
    let (other, again) = (server.clone(), expiring("b", i64::from(u32::MAX)));
    let spoil = async move {
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            other.put([again.clone()]);
        }
    };
    server.latency(Duration::from_millis(3));
    let verify = engine.verify_touches(&notes, Layout::Scattered, outcome);
    let failure = tokio::select! {
        verified = verify => verified.expect_err("not as written"),
        () = spoil => return,
    };
    assert!(
        failure
            .message()
            .starts_with("1 relationships have another expiry")
    );
}

#[tokio::test(start_paused = true)]
async fn deletes_and_expiring_touches_are_confirmed_on_mysql() {
    let ((server, _), notes) = (skipping(), Notes::default());
    let items = vec![
        update(Operation::Delete, relationship("a")),
        update(Operation::Touch, expiring("b", i64::from(u32::MAX))),
    ];
    let outcome = write(&server, &notes, items).await.expect("written");
    assert!(outcome.unconfirmed.is_empty());
}
