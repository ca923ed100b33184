//! Changes of the schema.

use super::*;

fn schema_event(revision: u64) -> WatchResponse {
    WatchResponse {
        schema_updated: true,
        ..transaction(revision, &[])
    }
}

#[tokio::test(start_paused = true)]
async fn schema_event_is_read_and_emitted_at_its_revision() {
    let mut rig = Rig::new([Reply::messages([schema_event(2), checkpoint(3)]).silence()]);
    let text = Reply::message(&schema_response("two", 2));
    rig.server.script(READ_SCHEMA, [text]);
    assert!(reached(&rig.until(3).await));
    assert_eq!(rig.emitted(), ["2=two", "3."]);
}

#[tokio::test(start_paused = true)]
async fn schema_that_is_the_same_is_not_emitted() {
    let mut rig = Rig::new([Reply::messages([schema_event(2), checkpoint(3)]).silence()]);
    assert!(reached(&rig.until(3).await));
    assert_eq!(rig.emitted(), ["3."]);
}

#[tokio::test(start_paused = true)]
async fn schema_event_with_changes_is_emitted_before_the_changes() {
    let both = WatchResponse {
        schema_updated: true,
        ..transaction(2, &["a"])
    };
    let mut rig = Rig::new([Reply::messages([both, checkpoint(2)]).silence()]);
    rig.server
        .script(READ_SCHEMA, [Reply::message(&schema_response("two", 2))]);
    assert!(reached(&rig.until(2).await));
    assert_eq!(rig.emitted(), ["1=two", "2+a", "2."]);
}

#[tokio::test(start_paused = true)]
async fn schema_that_cannot_be_read_repeats_the_event() {
    let mut rig = Rig::new([
        Reply::message(&schema_event(2)).silence(),
        Reply::messages([schema_event(2), checkpoint(2)]).silence(),
    ]);
    rig.server.script(
        READ_SCHEMA,
        [
            Reply::error(Code::Unavailable, "down"),
            Reply::message(&schema_response("two", 2)),
        ],
    );
    assert!(reached(&rig.until(2).await));
    assert_eq!(rig.emitted(), ["2=two", "2."]);
    assert_eq!(rig.began(), ["1", "1"]);
}

#[tokio::test(start_paused = true)]
async fn datastore_without_schema_events_has_its_schema_compared() {
    let unsupported = Reply::error(Code::Unknown, "schema watch unsupported");
    let changes = Reply::messages([transaction(2, &["a"]), checkpoint(2)]);
    let mut rig = Rig::new([unsupported, changes.silence()]);
    rig.server
        .script(READ_SCHEMA, [Reply::message(&schema_response("two", 2))]);
    rig.watcher.max_retries = 0;
    assert!(reached(&rig.until(2).await));
    assert_eq!(rig.emitted(), ["1=two", "2+a", "2."]);
    assert!(!rig.watcher.progress.has_schema_events);
}
