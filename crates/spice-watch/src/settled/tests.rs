use std::collections::VecDeque;

use authzed::Code;
use authzed::v1::consistency::Requirement;
use authzed::v1::{
    ExportBulkRelationshipsRequest, ReadSchemaRequest, WatchRequest, relationship_update::Operation,
};
use serde_json::json;
use spice_record::Record;
use spice_record::record::Transaction;
use testserver::{
    EXPORT, READ_SCHEMA, Reply, WATCH, checkpoint, page, schema_response, token, transaction,
};

use super::*;
use crate::watcher::tests::Rig;
use spice_cli::Exit;

const SECOND: Duration = Duration::from_secs(1);
const SETTLE: Duration = Duration::from_secs(30);

/// A rig of a MySQL source with this head, and these Watches.
fn mysql(head: u64, watches: impl IntoIterator<Item = Reply>) -> Rig {
    let mut rig = Rig::new(watches);
    rig.watcher.kind = authzed::DatastoreKind::MySql;
    rig.watcher.contended = Some(Contended::new(SETTLE, false, Instant::now()));
    rig.server
        .script(READ_SCHEMA, [Reply::message(&schema_response("one", head))]);
    rig
}

/// Follows for a time, then stops.
async fn follow_for(rig: &mut Rig, time: Duration) -> Option<Result<Ended, CommandError>> {
    let following = rig.watcher.follow_settled(SETTLE);
    tokio::time::timeout(time, following).await.ok()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_watched_before_a_head_has_settled() {
    let changes = Reply::messages([transaction(2, &["a"]), checkpoint(9)]);
    let mut rig = mysql(5, [changes.silence()]);
    assert!(follow_for(&mut rig, SETTLE - SECOND).await.is_none());
    assert_eq!(rig.server.calls(WATCH), 0);
    assert!(rig.emitted().is_empty());
}

#[tokio::test(start_paused = true)]
async fn pause_of_the_source_lets_no_head_settle() {
    // What it has answered by then counts a third of the settle time.
    for (time, watches) in [(SETTLE + SETTLE / 2, 0), (2 * SETTLE, 1)] {
        let changes = Reply::messages([transaction(2, &["a"]), checkpoint(9)]);
        let mut rig = mysql(5, [changes.silence()]);
        let mut looks = 0;
        rig.server.on(READ_SCHEMA, move |_: ReadSchemaRequest| {
            looks += 1;
            let head = schema_response("one", 5);
            match looks {
                2 => Reply::empty().pause(SETTLE).then(&head),
                _ => Reply::message(&head),
            }
        });
        assert!(follow_for(&mut rig, time).await.is_none());
        assert_eq!(rig.server.calls(WATCH), watches, "{time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn round_ends_at_the_settled_head_and_not_behind_it() {
    let changes = [
        transaction(2, &["a"]),
        transaction(5, &["b"]),
        transaction(6, &["young"]),
    ];
    let mut rig = mysql(5, [Reply::messages(changes).silence()]);
    assert!(follow_for(&mut rig, SETTLE + 5 * SECOND).await.is_none());
    assert_eq!(rig.emitted(), ["2+a", "5+b", "5."]);
    assert_eq!(rig.watcher.since, token(5));
}

#[tokio::test(start_paused = true)]
async fn next_round_begins_at_the_end_of_the_last_one() {
    let mut heads = [5, 5, 9].into_iter();
    let mut rig = mysql(5, []);
    let mut head = 5;
    rig.server.on(READ_SCHEMA, move |_: ReadSchemaRequest| {
        head = heads.next().unwrap_or(9).max(head);
        Reply::message(&schema_response("one", head))
    });
    let mut watches: VecDeque<Reply> = [
        Reply::messages([transaction(3, &["a"]), checkpoint(9)]).silence(),
        Reply::messages([transaction(7, &["b"]), checkpoint(9)]).silence(),
    ]
    .into();
    let cursors = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&cursors);
    rig.server.on(WATCH, move |request: WatchRequest| {
        seen.lock()
            .unwrap()
            .push(request.optional_start_cursor.unwrap().token);
        watches.pop_front().unwrap_or_else(Reply::silent)
    });
    assert!(follow_for(&mut rig, 3 * SETTLE).await.is_none());
    assert_eq!(*cursors.lock().unwrap(), [token(1), token(5)]);
    assert_eq!(rig.emitted(), ["3+a", "5.", "7+b", "9."]);
}

#[tokio::test(start_paused = true)]
async fn contended_relationship_is_read_at_the_end_of_the_round() {
    // Changed twice: a TOUCH that the server no longer has.
    let changes = [
        transaction(2, &["a"]),
        transaction(4, &["a", "b"]),
        checkpoint(9),
    ];
    let mut rig = mysql(5, [Reply::messages(changes).silence()]);
    rig.server.on(
        EXPORT,
        |request: ExportBulkRelationshipsRequest| match request.optional_relationship_filter {
            Some(_) => Reply::empty(),
            None => Reply::message(&page(&["x"], "c")),
        },
    );
    assert!(follow_for(&mut rig, SETTLE + 5 * SECOND).await.is_none());
    assert_eq!(rig.emitted(), ["2+a", "4+a,b", "5!a", "5."]);
}

#[tokio::test(start_paused = true)]
async fn contended_relationship_equal_to_the_stream_is_not_corrected() {
    let changes = [
        transaction(2, &["a"]),
        transaction(4, &["a"]),
        checkpoint(9),
    ];
    let mut rig = mysql(5, [Reply::messages(changes).silence()]);
    rig.server
        .script(EXPORT, [Reply::message(&page(&["a"], "c"))]);
    assert!(follow_for(&mut rig, SETTLE + 5 * SECOND).await.is_none());
    assert_eq!(rig.emitted(), ["2+a", "4+a", "5."]);
}

#[tokio::test(start_paused = true)]
async fn failing_head_is_asked_again_and_then_given_up() {
    let mut rig = mysql(5, []);
    rig.watcher.max_retries = 3;
    rig.server
        .script(READ_SCHEMA, [Reply::error(Code::Unavailable, "down")]);
    let ended = follow_for(&mut rig, 100 * SETTLE).await;
    let failure = ended.expect("it ends").unwrap_err();
    assert_eq!(failure.exit, Exit::TryAgain);
    assert_eq!(rig.server.calls(READ_SCHEMA), 4);
}

#[tokio::test(start_paused = true)]
async fn history_lost_between_rounds_is_found() {
    let mut rig = mysql(1, []);
    rig.server
        .script(EXPORT, [Reply::error(Code::OutOfRange, "expired")]);
    let ended = follow_for(&mut rig, 100 * SETTLE).await;
    assert_eq!(ended.expect("it ends").unwrap_err().exit, Exit::HistoryLost);
    assert_eq!(rig.server.calls(WATCH), 0);
}

#[tokio::test(start_paused = true)]
async fn quiet_counts_the_settle_time_as_well() {
    let mut rig = mysql(1, []);
    rig.watcher.quiet = Some(60 * SECOND);
    let began = Instant::now();
    let ended = follow_for(&mut rig, 100 * SETTLE).await;
    assert!(matches!(ended, Some(Ok(Ended::Quiet))));
    assert!(began.elapsed() >= 90 * SECOND, "{:?}", began.elapsed());
    assert!(began.elapsed() < 95 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn interrupted_round_is_closed_with_a_read_and_a_checkpoint() {
    let changes = [transaction(2, &["a"]), transaction(3, &["a"])];
    let mut rig = mysql(5, [Reply::messages(changes).silence()]);
    rig.server.on(
        EXPORT,
        |request: ExportBulkRelationshipsRequest| match request.optional_relationship_filter {
            Some(_) => Reply::empty(),
            None => Reply::message(&page(&["x"], "c")),
        },
    );
    assert!(follow_for(&mut rig, SETTLE + 5 * SECOND).await.is_none());
    assert_eq!(rig.emitted(), ["2+a", "3+a"], "the round is open");
    assert!(rig.watcher.needs_checkpoint());
    rig.watcher.close_round().await.unwrap();
    assert_eq!(rig.emitted(), ["3!a", "3."]);
    assert!(!rig.watcher.needs_checkpoint());
    rig.watcher.close_round().await.unwrap();
    assert!(rig.emitted().is_empty(), "nothing is open");
}

#[tokio::test(start_paused = true)]
async fn unknown_past_reads_each_relationship_that_changes() {
    let changes = [transaction(2, &["a"]), checkpoint(9)];
    let mut rig = mysql(5, [Reply::messages(changes).silence()]);
    rig.server.on(
        EXPORT,
        |request: ExportBulkRelationshipsRequest| match request.optional_relationship_filter {
            Some(_) => Reply::empty(),
            None => Reply::message(&page(&["x"], "c")),
        },
    );
    rig.watcher.load_spool_tail(None).await.unwrap();
    assert!(follow_for(&mut rig, SETTLE + 5 * SECOND).await.is_none());
    assert_eq!(rig.emitted(), ["2+a", "5!a", "5."]);
}

/// A TOUCH that a later DELETE overtook: the snapshot of its revision lacks it, and no second event shows that.
#[tokio::test(start_paused = true)]
async fn state_read_wrongly_before_a_stop_is_read_again_from_the_spool() {
    let mut touched = transaction(2, &["a"]).updates;
    let line = |updates: &[RelationshipUpdate], contended| {
        let record = Record::Transaction(Box::new(Transaction {
            revision: token(2),
            updates: updates.iter().cloned().map(Update).collect(),
            contended,
            ..Transaction::default()
        }));
        serde_json::to_string(&record).unwrap() + "\n"
    };
    let seen = |revision, minute: u32| {
        let at = format!("2026-11-25T00:{minute:02}:00Z");
        json!({"checkpoint": {"revision": token(revision), "at": at}}).to_string() + "\n"
    };
    let touch = line(&touched, false);
    touched[0].set_operation(Operation::Delete);
    let text = [seen(1, 0), touch, line(&touched, true), seen(2, 3)].concat();
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::new(&folder.path().join("spool"));
    std::fs::write(spool.segment(0), text).unwrap();

    let mut rig = mysql(5, [Reply::messages([checkpoint(9)]).silence()]);
    rig.watcher.contended = Some(Contended::new(SETTLE, true, Instant::now()));
    rig.watcher.since = token(2);
    rig.server
        .script(EXPORT, [Reply::message(&page(&["a"], "c"))]);
    rig.watcher.load_spool_tail(Some(&spool)).await.unwrap();
    assert!(follow_for(&mut rig, SETTLE + 5 * SECOND).await.is_none());
    assert_eq!(rig.emitted(), ["5!a", "5."]);
}

/// A memory source whose head moves, whose relationship `a` was touched twice through 5, and which shows it at
/// the revisions that `holds` accepts.
fn memory(holds: impl Fn(&str) -> bool + Send + 'static) -> Rig {
    let changes = [
        transaction(2, &["a"]),
        transaction(4, &["a"]),
        checkpoint(9),
    ];
    let mut rig = mysql(5, [Reply::messages(changes).silence()]);
    rig.watcher.contended = Some(Contended::new(SETTLE, true, Instant::now()));
    let mut looks = 0;
    rig.server.on(READ_SCHEMA, move |_: ReadSchemaRequest| {
        looks += 1;
        Reply::message(&schema_response("one", if looks > 1 { 9 } else { 5 }))
    });
    rig.server
        .on(EXPORT, move |request: ExportBulkRelationshipsRequest| {
            let at = request.consistency.and_then(|one| one.requirement);
            let at = match at {
                Some(Requirement::AtExactSnapshot(at)) => at.token,
                _ => String::new(),
            };
            match holds(&at) {
                true => Reply::message(&page(&["a"], "c")),
                false => Reply::empty(),
            }
        });
    rig
}

/// The transaction at 4 was committed after 5: for ever the snapshot of 5 lacks it, and that of 9 does not.
#[tokio::test(start_paused = true)]
async fn snapshot_that_lacks_an_overtaken_transaction_corrects_nothing() {
    let mut rig = memory(|at| at == token(9));
    assert!(follow_for(&mut rig, SETTLE + SECOND).await.is_none());
    assert_eq!(rig.emitted(), ["2+a", "4+a", "5."]);
}

#[tokio::test(start_paused = true)]
async fn state_that_a_later_snapshot_shows_as_well_is_corrected() {
    let mut rig = memory(|_| false);
    assert!(follow_for(&mut rig, SETTLE + SECOND).await.is_none());
    assert_eq!(rig.emitted(), ["2+a", "4+a", "5!a", "5."]);
}

#[tokio::test(start_paused = true)]
async fn failing_read_of_contended_relationships_names_the_revision() {
    let changes = [
        transaction(2, &["a"]),
        transaction(3, &["a"]),
        checkpoint(9),
    ];
    let mut rig = mysql(5, [Reply::messages(changes).silence()]);
    rig.watcher.max_retries = 0;
    rig.server.on(
        EXPORT,
        |request: ExportBulkRelationshipsRequest| match request.optional_relationship_filter {
            Some(_) => Reply::error(Code::PermissionDenied, "no"),
            None => Reply::message(&page(&["x"], "c")),
        },
    );
    let ended = follow_for(&mut rig, 100 * SETTLE).await;
    let failure = ended.expect("it ends").unwrap_err();
    assert!(failure.message().contains(&token(5)), "{failure:?}");
    assert_eq!(failure.exit, Exit::Denied);
}

#[test]
fn statistics_are_counted_until_they_are_logged() {
    let mut stats = ContendedStats::default();
    stats.count(3, 1);
    assert!(stats.logged_at.is_some(), "the first at once");
    stats.count(2, 2);
    assert_eq!((stats.read, stats.corrected), (2, 2));
    stats.log();
    assert_eq!((stats.read, stats.corrected), (0, 0));
}
