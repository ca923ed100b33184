//! Transactions of PostgreSQL that overlap: it delivers them again, from a snapshot that lacks some of them.

use authzed::zedtoken::PostgresRevision;
use spice_record::record::{StreamKind, Transaction};
use spice_record::{Header, Record};
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

/// A spool in segments, of these lines.
struct Spooled {
    folder: tempfile::TempDir,
    segments: u64,
}

impl Spooled {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            segments: 0,
        }
    }

    fn spool(&self) -> Spool {
        Spool::new(&self.folder.path().join("spool"))
    }

    fn segment(mut self, start: &PostgresRevision, lines: &[String]) -> Self {
        let header = Header {
            revision: Some(postgres_token(start)),
            ..Header::new(StreamKind::Changes, "test", "2026-11-24T00:00:00Z")
        }
        .sealed();
        let header = serde_json::to_string(&Record::Header(Box::new(header))).unwrap() + "\n";
        let text = header + &lines.concat();
        std::fs::write(self.spool().segment(self.segments), text).unwrap();
        self.segments += 1;
        self
    }

    /// What is emitted when it is continued at the revision of the import, of a server that begins where it is
    /// asked to; and where that is.
    async fn continued(&self) -> (Vec<String>, Vec<String>) {
        let all = [
            (touched(), "a"),
            (deleted(), "b"),
            (import(), "i"),
            (last(), "d"),
        ];
        let replies = |cursor: &PostgresRevision| {
            let cursor = Revision::Postgres(cursor.clone());
            let is_new =
                |at: &PostgresRevision| cursor.sees(&Revision::Postgres(at.clone())) == Some(false);
            let new = all.iter().filter(|(at, _)| is_new(at));
            let new = new.map(|(at, id)| written_at(at, &[*id]));
            Reply::messages(new.chain([checkpoint_at(&last())])).silence()
        };
        let mut rig = rig([], &import());
        rig.watcher
            .load_spool_tail(Some(&self.spool()))
            .await
            .unwrap();
        let since = rig.watcher.since.clone();
        let Revision::Postgres(cursor) = revision_of(&since) else {
            unreachable!()
        };
        let reply = replies(&cursor);
        let mut reply = Some(reply);
        let began = Arc::clone(&rig.cursors);
        rig.server.on(WATCH, move |request: WatchRequest| {
            let cursor = request.optional_start_cursor.unwrap().token;
            began.lock().unwrap().push(cursor);
            reply.take().unwrap_or_else(Reply::silent)
        });
        assert!(reached(&until(&mut rig, &last()).await));
        (rig.emitted(), rig.began())
    }
}

fn line(at: &PostgresRevision) -> String {
    let transaction = Transaction {
        revision: postgres_token(at),
        ..Transaction::default()
    };
    serde_json::to_string(&Record::Transaction(Box::new(transaction))).unwrap() + "\n"
}

fn checkpoint_line(at: &PostgresRevision, minute: u32) -> String {
    let at_time = format!("2026-11-25T00:{minute:02}:00Z");
    let checkpoint = Checkpoint {
        revision: postgres_token(at),
        at: Some(at_time),
        ..Checkpoint::default()
    };
    serde_json::to_string(&Record::Checkpoint(Box::new(checkpoint))).unwrap() + "\n"
}

#[tokio::test(start_paused = true)]
async fn spool_that_ends_with_a_late_import_is_continued_at_its_last_checkpoint() {
    // However long ago it was.
    let lines = [
        line(&touched()),
        checkpoint_line(&touched(), 1),
        line(&deleted()),
        checkpoint_line(&deleted(), 30),
        line(&import()),
    ];
    for known in [4, 2, 0] {
        let mut left = lines.to_vec();
        if known < 4 {
            left.remove(3);
        }
        if known < 2 {
            left.remove(1);
        }
        let (emitted, began) = Spooled::new().segment(&START, &left).continued().await;
        assert_eq!(emitted, ["14:14: (13)+d", "14:14: (13)."], "{known}");
        let checkpoint = match known {
            4 => "10:13:10 (12)",
            2 => "10:12:10 (11)",
            _ => "10:10:",
        };
        assert_eq!(began, [checkpoint]);
    }
}

#[tokio::test(start_paused = true)]
async fn pruned_spool_without_a_checkpoint_repeats_all_that_its_end_does_not_see() {
    let spooled = Spooled::new().segment(&START, &[line(&touched())]);
    let spooled = spooled.segment(&touched(), &[line(&deleted()), line(&import())]);
    std::fs::remove_file(spooled.spool().segment(0)).unwrap();
    let (emitted, began) = spooled.continued().await;
    let repeated = ["10:12:10 (11)+a", "10:13:10 (12)+b"];
    assert_eq!(emitted[..2], repeated);
    assert_eq!(emitted[2..], ["14:14: (13)+d", "14:14: (13)."]);
    assert_eq!(began, ["11:11: (10)"]);
}
