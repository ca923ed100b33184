use std::sync::{Arc, Mutex};

use authzed::v1::ExportBulkRelationshipsRequest;
use authzed::{Code, JsonObject};
use spice_cli::byte_channel::Receiver;
use spice_record::record::APPLIED_KEY;
use testserver::{
    EXPORT, READ_SCHEMA, Reply, Server, WATCH, checkpoint, page, schema_response, token, token_of,
    transaction, written,
};

use super::*;

mod filter;
mod overlapping;
mod schema;
mod silence;
mod skip_applied;

const MINUTE: Duration = Duration::from_secs(60);

/// A watcher of a scripted server, what it emits, and the cursors that its Watches began at.
pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) watcher: Watcher,
    pub(crate) events: Receiver<Event>,
    cursors: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    /// Of a server that has every revision, with these answers to its Watches in turn. It is at
    /// revision 1.
    pub(crate) fn new(watches: impl IntoIterator<Item = Reply>) -> Self {
        Self::with_room(watches, 1 << 20)
    }

    fn with_room(watches: impl IntoIterator<Item = Reply>, bytes: usize) -> Self {
        let server = Server::new();
        server.script(EXPORT, [Reply::message(&page(&["a"], "c"))]);
        server.script(READ_SCHEMA, [Reply::message(&schema_response("one", 1))]);
        let cursors = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&cursors);
        let mut watches = watches
            .into_iter()
            .collect::<std::collections::VecDeque<_>>();
        server.on(WATCH, move |request: WatchRequest| {
            let cursor = request.optional_start_cursor.unwrap().token;
            seen.lock().unwrap().push(cursor);
            watches.pop_front().unwrap_or_else(Reply::silent)
        });
        let (emitter, events) = Emitter::to_test(bytes);
        let watcher = Watcher {
            client: server.client(),
            max_retries: 10,
            filter: None,
            skip_applied: None,
            quiet: None,
            emitter,
            drains: DrainTracker::default(),
            since: token(1),
            schema: Some("one".to_owned()),
            heartbeat: None,
            progress: Progress::after(&token(1)),
            contended: None,
            contended_stats: ContendedStats::default(),
            next_head: None,
            kind: DatastoreKind::Postgres,
        };
        Self {
            server,
            watcher,
            events,
            cursors,
        }
    }

    /// Follows to a checkpoint at or after this revision.
    pub(crate) async fn until(&mut self, revision: u64) -> Result<Ended, CommandError> {
        let last = Revision::Integer(revision);
        let following = self.watcher.follow(Until::Sees(&last, "t"));
        timeout(1_000 * MINUTE, following).await.expect("it ends")
    }

    /// What was emitted since this was asked last, in short: `2+a,b` is a transaction, `3.` a
    /// checkpoint, `4=text` a schema.
    pub(crate) fn emitted(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            all.push(shorthand(&event.message));
        }
        all
    }

    /// The revisions that its Watches began after.
    fn began(&self) -> Vec<String> {
        self.cursors
            .lock()
            .unwrap()
            .iter()
            .map(|t| number(t))
            .collect()
    }
}

fn number(token: &str) -> String {
    revision_of(token).to_string()
}

fn shorthand(event: &Event) -> String {
    match event {
        Event::Transaction {
            revision,
            updates,
            contended,
            ..
        } => {
            let ids = updates.iter().filter_map(|u| u.relationship.as_ref());
            let ids = ids.filter_map(|r| r.resource.as_ref());
            let ids: Vec<&str> = ids.map(|r| r.object_id.as_str()).collect();
            let sign = if *contended { "!" } else { "+" };
            format!("{}{sign}{}", number(revision), ids.join(","))
        }
        Event::Schema(change) => format!("{}={}", number(&change.revision), change.text),
        Event::Checkpoint(checkpoint) => format!("{}.", number(&checkpoint.revision)),
        Event::Header(_) | Event::End(_) => "?".to_owned(),
    }
}

fn reached(outcome: &Result<Ended, CommandError>) -> bool {
    matches!(outcome, Ok(Ended::Until))
}

#[tokio::test(start_paused = true)]
async fn stream_is_emitted_in_order_up_to_the_revision_asked_for() {
    let mut rig = Rig::new([Reply::messages([
        transaction(2, &["a", "b"]),
        checkpoint(2),
        transaction(3, &["c"]),
        checkpoint(4),
        transaction(5, &["late"]),
    ])
    .silence()]);
    assert!(reached(&rig.until(4).await));
    assert_eq!(rig.emitted(), ["2+a,b", "2.", "3+c", "4."]);
    assert_eq!(number(&rig.watcher.since), "4");
}

#[tokio::test(start_paused = true)]
async fn transient_errors_resume_at_the_last_emitted_revision() {
    type Ends = fn(Reply) -> Reply;
    let broken: [(&str, Ends); 6] = [
        ("reset", |reply| reply.reset()),
        ("disconnect", |reply| reply.disconnect()),
        ("unavailable", |reply| reply.fail(Code::Unavailable, "gone")),
        ("too slow", |reply| {
            reply.fail(Code::ResourceExhausted, "watch disconnected")
        }),
        ("database", |reply| {
            reply.fail(Code::Unknown, "unexpected EOF")
        }),
        ("the end", |reply| reply),
    ];
    for (what, ends) in broken {
        let first = ends(Reply::message(&transaction(2, &["a"])).then(&transaction(3, &["b"])));
        let second = Reply::messages([transaction(4, &["c"]), checkpoint(4)]).silence();
        let mut rig = Rig::new([first, second]);
        assert!(reached(&rig.until(4).await), "{what}");
        assert_eq!(rig.emitted(), ["2+a", "3+b", "4+c", "4."], "{what}");
        assert_eq!(rig.began(), ["1", "3"], "{what}");
        assert!(rig.server.connections() >= 2, "{what}: a new connection");
    }
}

#[tokio::test(start_paused = true)]
async fn checkpoint_moves_the_revision_to_resume_at() {
    let mut rig = Rig::new([
        Reply::message(&transaction(2, &["a"]))
            .then(&checkpoint(9))
            .reset(),
        Reply::message(&checkpoint(10)).silence(),
    ]);
    assert!(reached(&rig.until(10).await));
    assert_eq!(rig.began(), ["1", "9"]);
    assert_eq!(rig.emitted(), ["2+a", "9.", "10."]);
}

#[tokio::test(start_paused = true)]
async fn repeated_revisions_are_emitted_once() {
    let again = [
        transaction(2, &["a"]),
        checkpoint(2),
        transaction(3, &["b"]),
    ];
    let mut rig = Rig::new([
        Reply::messages(again.clone()).reset(),
        Reply::messages(again).then(&checkpoint(3)).silence(),
    ]);
    assert!(reached(&rig.until(3).await));
    assert_eq!(rig.emitted(), ["2+a", "2.", "3+b", "3."]);
}

#[tokio::test(start_paused = true)]
async fn same_revision_with_a_schema_hash_is_a_repetition() {
    let plain = transaction(2, &["a"]);
    let mut spelt = plain.clone();
    spelt.changes_through = Some(ZedToken {
        token: testserver::token_with_schema(2),
    });
    assert_ne!(spelt, plain);
    let mut rig = Rig::new([Reply::messages([plain, spelt, checkpoint(3)]).silence()]);
    assert!(reached(&rig.until(3).await));
    assert_eq!(rig.emitted(), ["2+a", "3."]);
}

#[tokio::test(start_paused = true)]
async fn retries_are_bounded_and_end_with_exit_75() {
    let mut rig = Rig::new((0..100).map(|_| Reply::error(Code::Unavailable, "down")));
    rig.watcher.max_retries = 3;
    let failure = rig.until(9).await.unwrap_err();
    assert_eq!(failure.exit, Exit::TryAgain);
    assert!(failure.message().contains("after 3 retries"), "{failure:?}");
    assert_eq!(rig.server.calls(WATCH), 4);
}

#[tokio::test(start_paused = true)]
async fn progress_resets_the_count_of_retries() {
    let broken = (2..12).map(|n| Reply::message(&transaction(n, &["a"])).reset());
    let last = Reply::message(&checkpoint(12)).silence();
    let mut rig = Rig::new(broken.chain([last]));
    rig.watcher.max_retries = 1;
    assert!(reached(&rig.until(12).await));
}

#[tokio::test(start_paused = true)]
async fn repetitions_are_no_progress_and_end_some_time() {
    let broken = (0..100).map(|_| Reply::message(&transaction(2, &["a"])).reset());
    let mut rig = Rig::new(broken);
    rig.watcher.max_retries = 2;
    let failure = rig.until(9).await.unwrap_err();
    assert_eq!(failure.exit, Exit::TryAgain);
    assert_eq!(rig.emitted(), ["2+a"]);
}

#[tokio::test(start_paused = true)]
async fn permanent_errors_are_not_retried() {
    for (code, text, exit) in [
        (Code::PermissionDenied, "no", Exit::Denied),
        (Code::Unauthenticated, "who", Exit::Denied),
        (Code::Unimplemented, "no Watch", Exit::Failed),
    ] {
        let mut rig = Rig::new([Reply::error(code, text)]);
        let failure = rig.until(9).await.unwrap_err();
        assert_eq!(failure.exit, exit, "{text}");
        assert_eq!(rig.server.calls(WATCH), 1, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn source_without_watch_gets_a_hint_with_the_flag() {
    let disabled = Reply::error(Code::FailedPrecondition, "watch is currently disabled");
    let failure = Rig::new([disabled]).until(9).await.unwrap_err();
    let hints = failure.hint_text();
    assert!(
        hints.contains("--datastore-disable-watch-support"),
        "{hints}"
    );
    assert!(hints.contains("track_commit_timestamp=on"), "{hints}");
}

#[tokio::test(start_paused = true)]
async fn quiet_ends_a_stream_that_brings_no_change() {
    let reply = Reply::message(&transaction(2, &["a"])).pause(5 * MINUTE);
    let mut rig = Rig::new([reply.then(&checkpoint(3)).silence()]);
    rig.watcher.quiet = Some(4 * MINUTE);
    let began = Instant::now();
    let ended = rig.watcher.follow(Until::None).await;
    assert!(matches!(ended, Ok(Ended::Quiet)));
    assert_eq!(began.elapsed().as_secs(), 240);
    assert_eq!(rig.emitted(), ["2+a"]);
}

#[tokio::test(start_paused = true)]
async fn checkpoints_do_not_extend_the_quiet_time() {
    let busy = (2..100).fold(Reply::empty(), |reply, n| {
        reply.pause(MINUTE / 2).then(&checkpoint(n))
    });
    let mut rig = Rig::new([busy.silence()]);
    rig.watcher.quiet = Some(4 * MINUTE);
    let began = Instant::now();
    assert!(matches!(
        rig.watcher.follow(Until::None).await,
        Ok(Ended::Quiet)
    ));
    assert_eq!(began.elapsed().as_secs(), 240);
}

#[tokio::test(start_paused = true)]
async fn number_bound_leaves_what_is_above_it_to_the_next_stream() {
    let reply = Reply::messages([transaction(3, &["a"]), transaction(6, &["b"])]);
    let mut rig = Rig::new([reply.silence()]);
    let (last, spelt) = (Revision::Integer(5), token(5));
    let ended = rig.watcher.follow(Until::Number(&last, &spelt)).await;
    assert!(reached(&ended));
    assert_eq!(rig.emitted(), ["3+a", "5."]);
    assert_eq!(number(&rig.watcher.since), "5");
}

#[test]
fn bound_of_a_postgres_revision_is_not_a_number() {
    let number = Revision::Integer(7);
    assert!(matches!(Until::at(&number, "t"), Until::Number(..)));
    let postgres = token_of("CLgGELoGKNiTu5Lru7b1GA==", "aaaaaaaa");
    let postgres = revision_of(&postgres);
    assert_eq!(postgres.form(), "postgres");
    assert!(matches!(Until::at(&postgres, "t"), Until::Sees(..)));
}

#[tokio::test(start_paused = true)]
async fn response_without_a_revision_fails() {
    let mut nameless = transaction(2, &["a"]);
    nameless.changes_through = None;
    let failure = Rig::new([Reply::message(&nameless)]).until(9).await;
    assert_eq!(failure.unwrap_err().exit, Exit::Failed);
}

#[tokio::test(start_paused = true)]
async fn slow_reader_ends_the_watch_and_resumes_it_later() {
    let first = Reply::messages([transaction(2, &["a"]), transaction(3, &["b"])]);
    let second = Reply::messages([transaction(3, &["b"]), checkpoint(3)]);
    let mut rig = Rig::with_room([first.silence(), second.silence()], 700);
    let last = Revision::Integer(3);
    let mut seen = Vec::new();
    {
        let following = rig.watcher.follow(Until::Sees(&last, "t"));
        tokio::pin!(following);
        loop {
            tokio::select! {
                ended = &mut following => {
                    assert!(reached(&ended));
                    break;
                }
                () = sleep(Duration::from_secs(1)) => {
                    let event = rig.events.recv().await.unwrap();
                    seen.push(shorthand(&event.message));
                }
            }
        }
    }
    seen.extend(rig.emitted());
    assert_eq!(seen, ["2+a", "3+b", "3."]);
    assert!(
        rig.server.calls(WATCH) >= 2,
        "it was ended while the reader was slow"
    );
}

#[tokio::test(start_paused = true)]
async fn cursor_and_kinds_are_part_of_the_request() {
    let mut rig = Rig::new([]);
    let request = rig.watcher.request();
    assert!(request.optional_object_types.is_empty());
    assert!(request.optional_relationship_filters.is_empty());
    assert_eq!(request.optional_start_cursor.unwrap().token, token(1));
    assert_eq!(request.optional_update_kinds.len(), 3);
    rig.watcher.progress.has_schema_events = false;
    assert_eq!(rig.watcher.request().optional_update_kinds.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn history_is_checked_at_exactly_the_revision_to_resume_at() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let mut rig = Rig::new([
        Reply::message(&transaction(2, &["a"])).reset(),
        Reply::message(&checkpoint(3)).silence(),
    ]);
    rig.server
        .on(EXPORT, move |request: ExportBulkRelationshipsRequest| {
            seen.lock()
                .unwrap()
                .push((request.consistency, request.optional_limit));
            Reply::empty()
        });
    assert!(reached(&rig.until(3).await));
    let at = |revision: u64| {
        let exact = authzed::v1::Consistency::at_exact(token(revision));
        (Some(exact), 1)
    };
    assert_eq!(*asked.lock().unwrap(), [at(1), at(1), at(2), at(2)]);
}

#[tokio::test(start_paused = true)]
async fn lag_is_measured_from_the_marker_that_a_checkpoint_sees() {
    let mut rig = Rig::new([Reply::empty()
        .pause(Duration::from_secs(3))
        .then(&checkpoint(7))
        .silence()]);
    rig.server
        .script(testserver::WRITE, [Reply::message(&written(5))]);
    let client = rig.server.client();
    rig.watcher.heartbeat = Some(Heartbeat::start(client, MINUTE));
    assert!(reached(&rig.until(7).await));
    let Ok(event) = rig.events.try_recv() else {
        panic!("nothing was emitted");
    };
    let Event::Checkpoint(checkpoint) = event.message else {
        panic!("not a checkpoint");
    };
    let lag = checkpoint.lag.unwrap();
    assert!((2.9..3.1).contains(&lag), "{lag}");
}
