//! What an apply does with refused and ambiguous updates.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use authzed::v1::{RelationshipUpdate, relationship_update::Operation};
use spice_cli::{CommandError, Exit, lock};
use spice_client::scripted::{
    Call, End, Scripted, deadline, delete, expiring, refused, relationship, text, touch,
    unreachable,
};
use spice_client::write_engine::WriteEngine;
use spice_record::record::Position;

use super::Target;
use crate::rejects::Rejects;
use crate::resume::{PositionSink, PositionStore};

#[derive(Clone, Default)]
struct Saved(Arc<Mutex<Vec<Position>>>);

impl PositionSink for Saved {
    fn save(&self, position: &Position) -> Result<(), CommandError> {
        lock(&self.0).push(position.clone());
        Ok(())
    }
}

fn target(server: &Scripted, is_followed: bool) -> Target<Scripted> {
    Target::new(
        WriteEngine::new(server.clone(), 5, 2..=2, None),
        None,
        is_followed,
    )
}

fn refuse(server: &Scripted, which: &'static str, reason: &'static str) {
    server.refuses(move |update| (text(update) == which).then(|| refused(reason)));
}

async fn write(
    target: &Target<Scripted>,
    updates: Vec<RelationshipUpdate>,
) -> Result<u64, CommandError> {
    let written = target.write(updates, true, None, "revision R").await;
    written.map(|written| written.calls)
}

#[tokio::test(start_paused = true)]
async fn a_delete_unknown_to_the_schema_succeeds_when_following() {
    for reason in super::NOTHING_THERE {
        let server = Scripted::new();
        refuse(&server, "D b", reason);
        let updates = vec![touch("a"), delete("b"), touch("c")];
        write(&target(&server, true), updates.clone())
            .await
            .expect("done");
        assert_eq!(server.relationships().len(), 2, "{reason}");
        // Made by hand, a misspelt name would leave the grant.
        let failure = write(&target(&server, false), updates)
            .await
            .expect_err(reason);
        assert!(
            failure
                .message()
                .starts_with("revision R: the target refuses item:b#viewer@user:u")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_touch_that_the_schema_cannot_hold_ends_the_apply() {
    let server = Scripted::new();
    refuse(&server, "T b", "UNKNOWN_DEFINITION");
    let failure = write(&target(&server, true), vec![touch("a"), touch("b")]).await;
    let failure = failure.expect_err("refused");
    assert_eq!(failure.exit, Exit::Failed);
    assert!(
        failure.message().contains("item:b#viewer@user:u"),
        "{}",
        failure.message()
    );
}

#[tokio::test(start_paused = true)]
async fn another_refusal_of_a_delete_is_not_taken_for_done() {
    let server = Scripted::new();
    refuse(&server, "D b", "UNKNOWN_CAVEAT");
    write(&target(&server, true), vec![delete("b")])
        .await
        .expect_err("refused");
}

#[tokio::test(start_paused = true)]
async fn rejects_collect_what_is_refused_and_the_rest_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rejects");
    let server = Scripted::new();
    refuse(&server, "T b", "INVALID_SUBJECT_TYPE");
    let rejects = Rejects::open(&path, &[]).expect("opened");
    let target = Target::new(
        WriteEngine::new(server.clone(), 5, 1..=1, None),
        Some(rejects),
        true,
    );
    write(&target, vec![touch("a"), touch("b"), touch("c")])
        .await
        .expect("written");
    target.sync_rejects().expect("synced");
    assert_eq!((target.rejected(), server.relationships().len()), (1, 2));
    let text = std::fs::read_to_string(&path).expect("the file");
    assert!(
        text.contains(r#""objectId":"b""#) && text.lines().count() == 1,
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_write_is_stored_and_retried_after_a_reconnect() {
    let server = Scripted::new();
    let target = target(&server, true);
    let saved = Saved::default();
    let store = PositionStore::new(saved.clone(), Some(Position::default()));
    target.store_ambiguous_in(Arc::new(store));
    server.writes([End::AppliedAfter(Duration::from_secs(10), deadline())]);
    write(&target, vec![touch("a")]).await.expect("written");
    assert!(!target.ambiguous().is_empty());
    assert!(lock(&saved.0)[0].ambiguous_until.is_some());
    let kinds = server.calls();
    assert_eq!(kinds[1], Call::Reconnect);
    assert!(matches!(kinds[2], Call::Write(_)));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_is_not_ambiguous() {
    let server = Scripted::new();
    server.writes([End::Fails(unreachable())]);
    let target = target(&server, true);
    write(&target, vec![touch("a")]).await.expect("written");
    assert!(target.ambiguous().is_empty() && !server.calls().contains(&Call::Reconnect));
}

#[tokio::test(start_paused = true)]
async fn a_refused_update_is_no_longer_ambiguous() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Scripted::new();
    server.writes([End::Fails(deadline())]);
    refuse(&server, "T b", "INVALID_SUBJECT_TYPE");
    let rejects = Rejects::open(&folder.path().join("rejects"), &[]).expect("opened");
    let target = Target::new(
        WriteEngine::new(server.clone(), 5, 1..=1, None),
        Some(rejects),
        true,
    );
    write(&target, vec![touch("b")]).await.expect("rejected");
    assert!(target.ambiguous().is_empty());
}

#[tokio::test(start_paused = true)]
async fn during_a_rewrite_the_deleted_state_is_what_must_be_there() {
    let server = Scripted::new();
    server.skips_touches(true);
    server.put([expiring("a", i64::from(u32::MAX))]);
    let target = target(&server, true);
    target.ambiguous().note(&[touch("a")]);
    // The TOUCH is skipped, the DELETE done, and writing it again fails.
    let read_only = authzed::Error::simulated_kind(authzed::Kind::ReadOnly, "service read-only");
    server.writes([End::Normal, End::Normal, End::Fails(read_only)]);
    let failure = write(&target, vec![touch("a")])
        .await
        .expect_err("read-only");
    assert!(
        failure
            .message()
            .starts_with("deleted, to write them with another expiry")
    );
    tokio::time::advance(Duration::from_secs(30)).await;
    let due = target.ambiguous().due();
    assert_eq!(due[0].operation(), Operation::Delete);
    assert!(server.relationships().is_empty());
}

#[tokio::test(start_paused = true)]
async fn head_is_read_again_after_a_passing_failure() {
    let server = Scripted::new();
    let target = target(&server, true);
    server.put([relationship("a")]);
    assert_eq!(
        target.head().await.expect("read"),
        spice_client::scripted::token(1_000)
    );
    assert_eq!(target.batch(), 400, "four calls, one at a time");
}
