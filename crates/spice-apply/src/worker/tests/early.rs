//! Changes that are written before they have settled: the target comes to the same state, no sync point
//! describes a target that is ahead, and what was written is not written again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use authzed::v1::relationship_update::Operation;
use proptest::prelude::*;
use spice_cli::byte_channel::{Sender, channel};
use spice_cli::shutdown::SIGTERM;
use spice_cli::{Exit, Shutdown};
use spice_client::scripted::touch;
use spice_record::record::Transaction;
use spice_record::relationship::Update;

use super::{Ended, Scripted, Source, Step, Worker, World, checkpoint, send, transaction, updates};
use crate::early::{EarlyStep, KeptFile};

const SOURCE: Source = Source::Colliding;

fn early(number: u64) -> EarlyStep {
    let updates = updates(number).into_iter().map(Update).collect();
    EarlyStep::Updates(SOURCE.revision(number), updates)
}

/// A live Watch that has begun, of a source with the target's schema.
fn live(worker: &mut Worker<Scripted>) -> Sender<EarlyStep> {
    let (sender, receiver) = channel(1 << 20);
    worker.follow_early(receiver);
    let schema = worker
        .tracker
        .position()
        .and_then(|position| position.schema);
    send_early(&sender, EarlyStep::Schema(schema));
    sender
}

fn send_early(sender: &Sender<EarlyStep>, step: EarlyStep) {
    use futures::FutureExt as _;

    let sent = tokio::task::unconstrained(sender.send(step, 1));
    assert_eq!(sent.now_or_never(), Some(true));
}

fn exact() -> World {
    World {
        is_exact: true,
        ..World::new(SOURCE)
    }
}

/// Updates that were sent to the target.
fn written(world: &World) -> usize {
    world.server.sizes().iter().sum()
}

fn reached_early(world: &World) -> Vec<u64> {
    let reports = super::lock(&world.reports);
    let early = reports
        .iter()
        .filter_map(|applied| applied.early_revision.as_deref());
    early
        .map(|token| SOURCE.number(token, super::MOST))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_written_early_is_there_at_once_and_not_written_again() {
    let world = exact();
    let (mut worker, sender) = world.worker();
    let early_sender = live(&mut worker);
    for number in 1..=60 {
        send_early(&early_sender, early(number));
    }
    send_early(&early_sender, EarlyStep::Through(SOURCE.revision(60)));
    let (shutdown, signal) = Shutdown::simulated();
    let running = worker.run(&shutdown);
    tokio::pin!(running);
    let soon = tokio::time::timeout(Duration::from_secs(1), &mut running).await;
    assert!(soon.is_err(), "it continues: {soon:?}");
    world.expect_state(60, "early");
    assert_eq!(reached_early(&world), [60]);
    let position = world.position().expect("a position");
    assert_eq!(position.source_revision, SOURCE.revision(0));
    assert_eq!(position.early_until, Some(SOURCE.revision(60)));
    let before = written(&world);
    world.feed_settled(&sender, 0, 60);
    let soon = tokio::time::timeout(Duration::from_secs(20), &mut running).await;
    assert!(soon.is_err(), "it continues: {soon:?}");
    assert_eq!(written(&world), before, "nothing again");
    assert_eq!(world.saved_number(), 60);
    let position = world.position().expect("a position");
    assert_eq!((position.early_until, position.sync_point), (None, true));
    signal(SIGTERM, true);
    assert_eq!(running.await.expect("stopped"), Ended::Signal(SIGTERM));
}

#[tokio::test(start_paused = true)]
async fn change_that_never_settles_is_an_error() {
    let world = exact();
    let (mut worker, sender) = world.worker();
    let early_sender = live(&mut worker);
    send_early(
        &early_sender,
        EarlyStep::Updates(SOURCE.revision(2), vec![Update(touch("never"))]),
    );
    let (shutdown, _signal) = Shutdown::simulated();
    let running = worker.run(&shutdown);
    tokio::pin!(running);
    let soon = tokio::time::timeout(Duration::from_secs(1), &mut running).await;
    assert!(soon.is_err(), "{soon:?}");
    world.feed_settled(&sender, 0, 3);
    let ended = tokio::time::timeout(Duration::from_secs(60), running).await;
    let failure = ended
        .expect("ended")
        .expect_err("the target is ahead for ever");
    assert_eq!(failure.exit, Exit::Failed);
    assert!(failure.message().contains("never came"), "{failure:?}");
    // That is not forgotten.
    let position = world.position().expect("a position");
    let failure = crate::resume::check_early(&position).expect_err("known");
    assert_eq!(failure.exit, Exit::Failed);
}

/// The position passes what was written early while more is there: a process that is killed then has lost nothing.
#[tokio::test(start_paused = true)]
async fn position_that_has_passed_early_changes_is_sound_while_more_wait() {
    let world = exact();
    let (mut worker, sender) = world.worker();
    let early_sender = live(&mut worker);
    send_early(&early_sender, early(3));
    let (shutdown, _signal) = Shutdown::simulated();
    {
        let running = worker.run(&shutdown);
        tokio::pin!(running);
        let soon = Duration::from_secs(1);
        assert!(tokio::time::timeout(soon, &mut running).await.is_err());
    }
    world.feed_settled(&sender, 0, 6);
    worker.receive_waiting();
    send_early(&early_sender, early(9));
    worker.receive_waiting();
    for _ in 0..8 {
        worker.step(&shutdown).await.expect("no error");
        worker.tracker.note_unsaved();
        worker.save().expect("saved");
        let position = world.position().expect("a position");
        assert!(
            crate::resume::check_early(&position).is_ok(),
            "{position:?}"
        );
        if world.saved_number() < 9 && position.early_until.is_none() {
            let there = world.server.relationships();
            assert!(!there.contains(&super::relationship("own009")));
        }
    }
    assert_eq!(world.saved_number(), 6);
}

#[tokio::test(start_paused = true)]
async fn what_the_target_refuses_early_is_written_in_its_place() {
    let world = World::new(SOURCE);
    let (mut worker, sender) = world.worker();
    let early_sender = live(&mut worker);
    let is_refused = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let refuses = std::sync::Arc::clone(&is_refused);
    world.server.refuses(move |update| {
        let is_second = *update == touch("own002") && refuses.load(Ordering::Relaxed);
        is_second.then(|| spice_client::scripted::refused("INVALID_SUBJECT_TYPE"))
    });
    for number in 1..=3 {
        send_early(&early_sender, early(number));
    }
    let (shutdown, signal) = Shutdown::simulated();
    let running = worker.run(&shutdown);
    tokio::pin!(running);
    let soon = tokio::time::timeout(Duration::from_secs(1), &mut running).await;
    assert!(soon.is_err(), "no error: {soon:?}");
    let there = world.server.relationships();
    assert!(there.len() > 2 && !there.contains(&super::relationship("own002")));
    is_refused.store(false, Ordering::Relaxed);
    world.feed_settled(&sender, 0, 3);
    let soon = tokio::time::timeout(Duration::from_secs(20), &mut running).await;
    assert!(soon.is_err(), "it continues: {soon:?}");
    world.expect_state(3, "once it has settled");
    signal(SIGTERM, true);
    running.await.expect("stopped");
}

/// A revocation is left out for a later grant, which the target refuses, now and in its place.
#[tokio::test(start_paused = true)]
async fn what_was_left_out_for_a_refused_update_is_written() {
    for equal_comes_too in [false, true] {
        let world = World::without(SOURCE, &[1, 2]);
        world.server.put([super::relationship("x")]);
        world.server.latency(Duration::from_millis(10));
        let grant = super::update(Operation::Touch, super::expiring("x", 4_000_000_000));
        let refused = grant.clone();
        world.server.refuses(move |update| {
            (*update == refused).then(|| spice_client::scripted::refused("INVALID_SUBJECT_TYPE"))
        });
        let (mut worker, sender) = world.worker();
        let early_sender = live(&mut worker);
        let step = |number, update| {
            let change = Transaction {
                revision: SOURCE.revision(number),
                updates: vec![Update(update)],
                ..Transaction::default()
            };
            Step::Transaction(Box::new(change), super::place(number))
        };
        let updates = vec![Update(grant.clone())];
        send_early(
            &early_sender,
            EarlyStep::Updates(SOURCE.revision(2), updates),
        );
        worker.receive_waiting();
        send(&sender, step(1, spice_client::scripted::delete("x")));
        if equal_comes_too {
            send(&sender, step(2, grant.clone()));
        }
        worker.receive_waiting();
        let (shutdown, _signal) = Shutdown::simulated();
        let soon = Duration::from_secs(2);
        let ended = tokio::time::timeout(soon, worker.run(&shutdown)).await;
        assert_eq!(ended.is_ok(), equal_comes_too, "{ended:?}");
        assert!(world.server.relationships().is_empty(), "{equal_comes_too}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_early_while_the_target_lacks_the_schema() {
    let world = exact();
    let (mut worker, sender) = world.worker();
    let early_sender = live(&mut worker);
    let newer = spice_record::digest::digest_text("newer");
    let (shutdown, _signal) = Shutdown::simulated();
    let running = worker.run(&shutdown);
    tokio::pin!(running);
    let wait = Duration::from_secs(1);
    for step in [EarlyStep::Schema(Some(newer)), early(2)] {
        send_early(&early_sender, step);
        assert!(tokio::time::timeout(wait, &mut running).await.is_err());
    }
    assert_eq!(written(&world), 0);
    // Here it comes, in its place.
    send(&sender, transaction(SOURCE, 1));
    send(&sender, super::schema_change(SOURCE, 1, "newer"));
    assert!(tokio::time::timeout(wait, &mut running).await.is_err());
    send_early(&early_sender, early(2));
    assert!(tokio::time::timeout(wait, &mut running).await.is_err());
    world.expect_state(2, "early again");
}

#[tokio::test(start_paused = true)]
async fn process_that_resumes_knows_what_was_written_early() {
    let world = exact();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("position");
    let deliveries: Vec<Delivered> = [Delivered::Early; 60]
        .into_iter()
        .chain([Delivered::Pause; 4])
        .collect();
    process(&world, &file, &deliveries, 0, Stop::Asked).await;
    world.expect_state(60, "early");
    let before = written(&world);
    let (mut worker, sender) = world.worker_keeping(&file);
    world.feed(&sender, 0, 61);
    let (shutdown, _signal) = Shutdown::simulated();
    assert_eq!(worker.run(&shutdown).await.expect("applied"), Ended::Done);
    world.expect_state(61, "at the end");
    assert_eq!(written(&world) - before, updates(61).len());
    let position = world.position().expect("a position");
    assert!(position.sync_point && position.early_until.is_none());
}

impl World {
    /// The settled stream, which does not end.
    fn feed_settled(&self, sender: &Sender<Step>, after: u64, through: u64) {
        for number in after + 1..=through {
            send(sender, transaction(SOURCE, number));
            if number.is_multiple_of(3) {
                send(sender, checkpoint(SOURCE, number));
            }
        }
    }
}

/// How a process ends before the last one.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Killed,
    Asked,
}

/// What is delivered of each revision, one after the other.
#[derive(Clone, Copy, Debug)]
enum Delivered {
    Early,
    Settled,
    Pause,
}

fn deliveries() -> impl Strategy<Value = Vec<Delivered>> {
    let one = prop_oneof![
        5 => Just(Delivered::Early),
        3 => Just(Delivered::Settled),
        2 => Just(Delivered::Pause),
    ];
    proptest::collection::vec(one, 0..80)
}

/// One process after another: each begins at the position, gets some of both streams, and is stopped.
async fn process(
    world: &World,
    file: &std::path::Path,
    deliveries: &[Delivered],
    missed: u64,
    stop: Stop,
) {
    let after = world.position().map_or(0, |_| world.saved_number());
    let (mut worker, sender) = world.worker_keeping(file);
    let early_sender = live(&mut worker);
    let (shutdown, signal) = Shutdown::simulated();
    let (mut live, mut settled) = (after, after);
    let running = worker.run(&shutdown);
    tokio::pin!(running);
    for delivered in deliveries {
        match delivered {
            Delivered::Early if live < 60 => {
                live = live.max(settled) + 1;
                if missed == 0 || !live.is_multiple_of(missed) {
                    send_early(&early_sender, early(live));
                }
            }
            Delivered::Settled if settled < live => {
                settled += 1;
                send(&sender, transaction(SOURCE, settled));
                if settled.is_multiple_of(3) {
                    send(&sender, checkpoint(SOURCE, settled));
                }
            }
            _ => {
                let pause = Duration::from_millis(25);
                let ended = tokio::time::timeout(pause, &mut running).await;
                assert!(ended.is_err(), "{ended:?}");
            }
        }
    }
    world
        .replays_through
        .set(world.replays_through.get().max(Some(settled)));
    if matches!(stop, Stop::Asked) {
        signal(SIGTERM, true);
        let ended = running.await.expect("stopped");
        assert_eq!(ended, Ended::Signal(SIGTERM));
    }
}

fn deliver(
    processes: &[(Vec<Delivered>, u64, Stop)],
    latency: u64,
    last: u64,
) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let world = exact();
        world.server.latency(Duration::from_millis(latency));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("position");
        for (deliveries, missed, stop) in processes {
            process(&world, &file, deliveries, *missed, *stop).await;
        }
        // The last one gets what has settled, to the end.
        let after = world.position().map_or(0, |_| world.saved_number());
        let (mut worker, sender) = world.worker_keeping(&file);
        world.feed(&sender, after, last);
        let (shutdown, _signal) = Shutdown::simulated();
        let ended = worker.run(&shutdown).await.expect("applied");
        assert_eq!(ended, Ended::Done);
        world.expect_state(last, "at the end");
        let position = world.position().expect("a position");
        assert!(position.sync_point && position.early_until.is_none());
    });
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_early_and_settled_changes_ends_in_the_same_state(
        processes in proptest::collection::vec(
            (deliveries(), 0..5_u64, prop_oneof![Just(Stop::Killed), Just(Stop::Asked)]),
            1..4,
        ),
        latency in prop_oneof![Just(0_u64), 1..40_u64],
        last in 60..63_u64,
    ) {
        deliver(&processes, latency, last)?;
    }
}

impl World {
    /// A process that keeps what is unconfirmed beside this position.
    fn worker_keeping(&self, position: &std::path::Path) -> (Worker<Scripted>, Sender<Step>) {
        let (mut worker, sender) = self.worker();
        let at = worker
            .tracker
            .position()
            .expect("a position")
            .source_revision
            .clone();
        worker.early = super::super::Early::new(Some(KeptFile::beside(position)));
        worker.early.resume_from(&at);
        (worker, sender)
    }
}
