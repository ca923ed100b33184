//! The loop against a scripted target, with the clock paused: what is saved, when, and what a process
//! that resumes there leaves out.

mod crash;
mod early;
mod schema;
mod signals;
mod sync_points;

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use authzed::DatastoreKind;
use authzed::v1::{Relationship, RelationshipUpdate, relationship_update::Operation};
use clap::Parser as _;
use futures::FutureExt as _;
use spice_cli::byte_channel::{Sender, channel};
use spice_cli::progress::Progress;
use spice_cli::{CommandError, Exit, Shutdown, lock};
use spice_client::lookup::key;
use spice_client::scripted::{Scripted, delete, expiring, relationship, token_of, touch, update};
use spice_client::write_engine::WriteEngine;
use spice_record::Header;
use spice_record::record::{Applied, Position, SchemaChange, SpoolOffset, StreamKind, Transaction};
use spice_record::relationship::Update;

use super::{Ended, Worker};
use crate::Apply;
use crate::input::Step;
use crate::resume::{PositionSink, PositionStore};
use crate::write::Target;

/// A source whose revisions are in the order of their effects, as CockroachDB's; or not, as MySQL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Ordered,
    Colliding,
}

impl Source {
    fn revision(self, number: u64) -> String {
        match self {
            Self::Ordered => {
                let nanos = 1_795_415_107_142_000_000 + number;
                token_of("sourcedb", &format!("{nanos}.0000000000"))
            }
            Self::Colliding => token_of("sourcedb", &(1_000 + number).to_string()),
        }
    }

    /// The number of a revision, up to `most`.
    fn number(self, revision: &str, most: u64) -> u64 {
        let found = (0..=most).find(|number| self.revision(*number) == revision);
        found.expect("a revision of this source")
    }
}

/// The most revisions of a stream.
const MOST: u64 = 500;

fn place(number: u64) -> SpoolOffset {
    SpoolOffset {
        segment: 0,
        offset: number,
    }
}

/// The updates of a revision: one of its own, and some of relationships that change again and again, all the
/// time or for a while.
fn updates(number: u64) -> Vec<RelationshipUpdate> {
    let changing = format!("changing{}", number % 5);
    let expiry = i64::from(u32::MAX) - i64::try_from(number).unwrap_or_default();
    let mut updates = vec![
        touch(&format!("own{number:03}")),
        match number % 3 {
            0 => delete(&changing),
            _ => update(Operation::Touch, expiring(&changing, expiry)),
        },
        update(
            Operation::Touch,
            expiring(&format!("for a while{}", number / 10), expiry),
        ),
    ];
    if number.is_multiple_of(7) {
        updates.push(delete("never there"));
    }
    updates
}

/// The relationships after a revision, in the order of the server's.
fn state_at(number: u64) -> Vec<Relationship> {
    let mut state = BTreeMap::new();
    for update in (1..=number).flat_map(updates) {
        let relationship = update.relationship.clone().unwrap_or_default();
        match update.operation() {
            Operation::Touch => state.insert(key(&relationship), relationship),
            _ => state.remove(&key(&relationship)),
        };
    }
    state.into_values().collect()
}

fn transaction(source: Source, number: u64) -> Step {
    let change = Transaction {
        revision: source.revision(number),
        updates: updates(number).into_iter().map(Update).collect(),
        ..Transaction::default()
    };
    Step::Transaction(Box::new(change), place(number))
}

fn checkpoint(source: Source, number: u64) -> Step {
    Step::Checkpoint(source.revision(number), place(number))
}

fn schema_change(source: Source, number: u64, text: &str) -> Step {
    let change = SchemaChange {
        revision: source.revision(number),
        text: text.to_owned(),
        ..SchemaChange::default()
    };
    Step::Schema(Box::new(change), place(number))
}

type Check = Arc<dyn Fn(&Position) + Send + Sync>;

/// Where positions are saved. Each is checked as it is saved.
#[derive(Clone)]
struct Saved {
    positions: Arc<Mutex<Vec<Position>>>,
    check: Check,
}

impl PositionSink for Saved {
    fn save(&self, position: &Position) -> Result<(), CommandError> {
        (self.check)(position);
        lock(&self.positions).push(position.clone());
        Ok(())
    }
}

/// A target, the positions and the reports of all processes that write to it.
struct World {
    source: Source,
    server: Scripted,
    saved: Saved,
    reports: Arc<Mutex<Vec<Applied>>>,
    flags: Vec<&'static str>,
    jobs: usize,
    /// The schema changes after the first revision: that is written by itself.
    schema_changes: bool,
    /// At each sync point the target is exactly as the source was there: nothing is replayed.
    is_exact: bool,
    /// The last revision that a process before may have applied.
    replays_through: Cell<Option<u64>>,
}

impl World {
    fn new(source: Source) -> Self {
        Self::without(source, &[])
    }

    /// With a stream that has no transaction at these revisions.
    fn without(source: Source, revisions: &[u64]) -> Self {
        let revisions = revisions.to_vec();
        let server = Scripted::new();
        let there = server.clone();
        // Nothing is saved before it is on the target.
        let check = move |position: &Position| {
            let number = source.number(&position.source_revision, MOST);
            let there: HashSet<Vec<u8>> = there.relationships().iter().map(key).collect();
            for own in (1..=number).filter(|number| !revisions.contains(number)) {
                let own = relationship(&format!("own{own:03}"));
                assert!(
                    there.contains(&key(&own)),
                    "saved {number} before {own:?} was acknowledged"
                );
            }
        };
        Self {
            source,
            server,
            saved: Saved {
                positions: Arc::default(),
                check: Arc::new(check),
            },
            reports: Arc::default(),
            flags: Vec::new(),
            jobs: 1,
            schema_changes: false,
            is_exact: false,
            replays_through: Cell::new(None),
        }
    }

    fn position(&self) -> Option<Position> {
        lock(&self.saved.positions).last().cloned()
    }

    /// The number of the revision that was saved last; 0 for the start.
    fn saved_number(&self) -> u64 {
        let position = self.position().expect("a position");
        self.source.number(&position.source_revision, MOST)
    }

    fn header(&self, schema: Option<&str>) -> Header {
        Header {
            revision: Some(self.source.revision(0)),
            schema: schema.map(str::to_owned),
            ..Header::new(StreamKind::Changes, "test", "2026-11-26T05:00:00Z")
        }
    }

    /// A process that begins or resumes, and the end of the channel that feeds it.
    fn worker(&self) -> (Worker<Scripted>, Sender<Step>) {
        self.worker_after(&self.header(None))
    }

    fn worker_after(&self, header: &Header) -> (Worker<Scripted>, Sender<Step>) {
        let args = ["spice-apply"].iter().chain(&self.flags);
        let args = Apply::try_parse_from(args).expect("flags");
        let (sender, receiver) = channel(1 << 20);
        let engine = WriteEngine::new(self.server.clone(), 8, self.jobs..=self.jobs, None);
        let mut worker = Worker::new(
            &args,
            Target::new(engine, None, true),
            receiver,
            spice_client::scripted::token(1_000),
            DatastoreKind::Postgres,
            Progress::start("updates", true),
        );
        let reports = Arc::clone(&self.reports);
        let exact = self.is_exact.then(|| (self.source, self.server.clone()));
        worker.report = Box::new(move |applied| {
            if let (Some((source, server)), Some(revision)) = (&exact, &applied.source_revision)
                && applied.sync_point
            {
                let number = source.number(revision, MOST);
                assert_eq!(
                    server.relationships(),
                    state_at(number),
                    "sync point {number}"
                );
            }
            lock(&reports).push(applied);
            Ok(())
        });
        let position = self.position();
        let store = PositionStore::new(self.saved.clone(), position.clone());
        let replays_through = self.replays_through.get();
        let replay_until = replays_through.map(|number| place(number + 1));
        let resumed = worker.resume_from(Some(store), position, Some(header), replay_until);
        resumed.expect("resumed");
        (worker, sender)
    }

    /// Feeds the transactions after a revision, through another one, and the end.
    fn feed(&self, sender: &Sender<Step>, after: u64, through: u64) {
        for number in after + 1..=through {
            send(sender, transaction(self.source, number));
            if self.source == Source::Colliding && number.is_multiple_of(3) {
                send(sender, checkpoint(self.source, number));
            }
            if self.schema_changes && number == 1 {
                send(sender, schema_change(self.source, 1, "changed"));
            }
        }
        send(sender, Step::End(Some(self.source.revision(through))));
    }

    /// One process from the saved position to the end, or to a crash.
    async fn run(
        &self,
        through: u64,
        crash: Option<Duration>,
    ) -> Option<Result<Ended, CommandError>> {
        let after = self.position().map_or(0, |_| self.saved_number());
        let (mut worker, sender) = self.worker();
        self.feed(&sender, after, through);
        let (shutdown, _signal) = Shutdown::simulated();
        match crash {
            Some(after) => tokio::time::timeout(after, worker.run(&shutdown))
                .await
                .ok(),
            None => Some(worker.run(&shutdown).await),
        }
    }

    fn expect_state(&self, number: u64, of: &str) {
        assert_eq!(self.server.relationships(), state_at(number), "{of}");
    }
}

fn send(sender: &Sender<Step>, step: Step) {
    let sent = tokio::task::unconstrained(sender.send(step, 1));
    assert_eq!(sent.now_or_never(), Some(true));
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_applied_to_its_end_and_the_end_is_saved() {
    for source in [Source::Ordered, Source::Colliding] {
        for count in [1, 2, 31, 60] {
            let world = World::new(source);
            let ended = world.run(count, None).await.expect("no crash");
            assert_eq!(ended.expect("applied"), Ended::Done);
            world.expect_state(count, &format!("{source:?} {count}"));
            assert_eq!(world.saved_number(), count);
            assert!(world.position().is_some_and(|position| position.sync_point));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_a_stream_begins_is_saved_before_anything_is_written() {
    let world = World::new(Source::Ordered);
    let (_worker, _sender) = world.worker();
    let position = world.position().expect("saved at once");
    assert_eq!(position.start, Some(world.source.revision(0)));
    assert_eq!(position.source.as_deref(), Some("sourcedb"));
    assert_eq!(position.target.as_deref(), Some("scripted"));
    assert!(world.server.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_for_good_is_not_saved() {
    let world = World::new(Source::Ordered);
    let (mut worker, sender) = world.worker();
    world.feed(&sender, 0, 5);
    let is_third = |update: &RelationshipUpdate| {
        let third = touch("own003");
        (*update == third).then(|| spice_client::scripted::refused("INVALID_SUBJECT_TYPE"))
    };
    world.server.refuses(is_third);
    let (shutdown, _signal) = Shutdown::simulated();
    let failure = worker.run(&shutdown).await.expect_err("refused");
    assert_eq!(failure.exit, Exit::Failed);
    assert_eq!(
        world.saved_number(),
        2,
        "what was acknowledged, and no more"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_cut_keeps_what_came_before() {
    let world = World::new(Source::Ordered);
    let (mut worker, sender) = world.worker();
    send(&sender, transaction(world.source, 1));
    send(&sender, transaction(world.source, 2));
    send(&sender, Step::Cut(CommandError::new(Exit::TryAgain, "cut")));
    let (shutdown, _signal) = Shutdown::simulated();
    let failure = worker.run(&shutdown).await.expect_err("cut");
    assert_eq!((failure.exit, world.saved_number()), (Exit::TryAgain, 2));
    world.expect_state(2, "before the cut");
}

#[tokio::test(start_paused = true)]
async fn until_ends_at_its_checkpoint_and_an_early_end_is_an_error() {
    let world = World::new(Source::Ordered);
    let until = |number| {
        let token = world.source.revision(number);
        Some(authzed::zedtoken::decode(&token).expect("a token").revision)
    };
    let (mut worker, sender) = world.worker();
    worker.until = until(2);
    for number in 1..=3 {
        send(&sender, transaction(world.source, number));
        send(&sender, checkpoint(world.source, number));
    }
    let (shutdown, _signal) = Shutdown::simulated();
    assert_eq!(worker.run(&shutdown).await.expect("reached"), Ended::Done);
    assert_eq!(world.saved_number(), 2);
    world.expect_state(2, "nothing after --until");
    let (mut worker, sender) = world.worker();
    worker.until = until(9);
    world.feed(&sender, 2, 5);
    let failure = worker.run(&shutdown).await.expect_err("too early");
    assert_eq!((failure.exit, world.saved_number()), (Exit::TryAgain, 5));
}

#[tokio::test(start_paused = true)]
async fn a_reading_thread_that_ends_without_an_end_is_an_error() {
    let world = World::new(Source::Ordered);
    let (mut worker, sender) = world.worker();
    drop(sender);
    let (shutdown, _signal) = Shutdown::simulated();
    assert_eq!(
        worker.run(&shutdown).await.expect_err("ended").exit,
        Exit::Failed
    );
}
