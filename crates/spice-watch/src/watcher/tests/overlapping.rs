//! Transactions of PostgreSQL that overlap: it delivers them again, from a snapshot that lacks some of them.

use authzed::zedtoken::PostgresRevision;
use spice_record::Record;
use spice_record::record::Transaction;
use spice_spool::Spool;
use testserver::postgres_token;

use super::*;

/// A revision, with the transaction that made it.
fn revision(txid: u64, xmax: u64, in_progress: &[u64]) -> PostgresRevision {
    PostgresRevision {
        xmin: in_progress.first().copied().unwrap_or(xmax),
        xmax,
        in_progress: in_progress.to_vec(),
        txid: Some(txid),
        timestamp_nanos: None,
    }
}

/// 10 is an import that stays open while 11 and 12 are written.
fn import() -> PostgresRevision {
    revision(10, 11, &[])
}
fn touched() -> PostgresRevision {
    revision(11, 12, &[10])
}
fn deleted() -> PostgresRevision {
    revision(12, 13, &[10])
}
/// Sees everything.
fn last() -> PostgresRevision {
    revision(13, 14, &[])
}

fn written_at(at: &PostgresRevision, ids: &[&str]) -> WatchResponse {
    let token = postgres_token(at);
    WatchResponse {
        changes_through: Some(ZedToken { token }),
        ..transaction(0, ids)
    }
}

fn checkpoint_at(at: &PostgresRevision) -> WatchResponse {
    WatchResponse {
        is_checkpoint: true,
        updates: Vec::new(),
        ..written_at(at, &[])
    }
}

/// What a server has sent when the import ends after its first answer, and the checkpoint of that: the snapshot of
/// the import with 12 added, and without 11.
fn until_the_import_ends() -> Vec<WatchResponse> {
    vec![
        written_at(&touched(), &["a"]),
        checkpoint_at(&touched()),
        written_at(&deleted(), &["b"]),
        written_at(&import(), &["i"]),
        checkpoint_at(&revision(10, 13, &[11])),
    ]
}

fn rig(watches: impl IntoIterator<Item = Reply>, since: &PostgresRevision) -> Rig {
    let mut rig = Rig::new(watches);
    rig.watcher.since = postgres_token(since);
    rig.watcher.progress = Progress::after(&rig.watcher.since);
    rig
}

async fn until(rig: &mut Rig, end: &PostgresRevision) -> Result<Ended, CommandError> {
    let token = postgres_token(end);
    let end = Revision::Postgres(end.clone());
    let following = rig.watcher.follow(Until::at(&end, &token));
    timeout(MINUTE, following).await.expect("it ends")
}

const START: PostgresRevision = PostgresRevision {
    xmin: 10,
    xmax: 10,
    in_progress: Vec::new(),
    txid: None,
    timestamp_nanos: None,
};

#[tokio::test(start_paused = true)]
async fn checkpoint_that_lacks_a_delivered_change_is_not_emitted() {
    let again = [
        written_at(&touched(), &["a"]),
        written_at(&deleted(), &["b"]),
        written_at(&last(), &["d"]),
        checkpoint_at(&last()),
    ];
    let mut rig = rig(
        [
            Reply::messages(until_the_import_ends()).reset(),
            Reply::messages(again).silence(),
        ],
        &START,
    );
    assert!(reached(&until(&mut rig, &last()).await));
    let emitted = [
        "10:12:10 (11)+a",
        "10:12:10 (11).",
        "10:13:10 (12)+b",
        // Without the server's checkpoint, 11:13:11 (10).
        "11:11: (10)+i",
        "14:14: (13)+d",
        "14:14: (13).",
    ];
    assert_eq!(rig.emitted(), emitted);
    assert_eq!(rig.began(), ["10:10:", "11:11: (10)"]);
}

#[tokio::test(start_paused = true)]
async fn next_process_leaves_out_what_its_start_includes() {
    let again = [
        written_at(&touched(), &["a"]),
        written_at(&import(), &["i"]),
        written_at(&last(), &["d"]),
        checkpoint_at(&last()),
    ];
    // It begins where 11 and 10 were delivered.
    let start = revision(12, 13, &[]);
    let mut rig = rig([Reply::messages(again).silence()], &start);
    assert!(reached(&until(&mut rig, &last()).await));
    assert_eq!(rig.emitted(), ["14:14: (13)+d", "14:14: (13)."]);
}

#[tokio::test(start_paused = true)]
async fn end_that_a_server_shows_at_such_a_checkpoint_is_the_end_asked_for() {
    let replies = Reply::messages(until_the_import_ends());
    let mut rig = rig([replies.silence()], &START);
    assert!(reached(&until(&mut rig, &deleted()).await));
    assert_eq!(rig.emitted().last().unwrap(), "10:13:10 (12).");
}

#[tokio::test(start_paused = true)]
async fn spool_that_ends_with_a_late_import_is_continued_without_repetitions() {
    let line = |revision: &PostgresRevision| {
        let transaction = Transaction {
            revision: postgres_token(revision),
            ..Transaction::default()
        };
        serde_json::to_string(&Record::Transaction(Box::new(transaction))).unwrap() + "\n"
    };
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::new(&folder.path().join("spool"));
    let text = [line(&touched()), line(&deleted()), line(&import())].concat();
    std::fs::write(spool.segment(0), text).unwrap();

    let again = [
        written_at(&touched(), &["a"]),
        written_at(&deleted(), &["b"]),
        written_at(&last(), &["d"]),
        checkpoint_at(&last()),
    ];
    let mut rig = rig([Reply::messages(again).silence()], &import());
    rig.watcher.load_spool_tail(Some(&spool)).await.unwrap();
    assert!(reached(&until(&mut rig, &last()).await));
    assert_eq!(rig.emitted(), ["14:14: (13)+d", "14:14: (13)."]);
}
