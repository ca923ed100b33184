//! When both ends can be compared, and when the position is saved.

use std::time::Duration;

use spice_cli::{Shutdown, lock};
use spice_client::scripted::{Call, relationship, touch};
use spice_record::record::{Applied, Transaction};
use spice_record::relationship::Update;
use tokio::time::{Instant, timeout};

use super::{MOST, Source, World, checkpoint, place, send, transaction};
use crate::input::Step;

/// Runs the worker for so long, while nothing more comes.
async fn idle(world: &World, steps: Vec<Step>, time: Duration) -> Vec<Applied> {
    let (mut worker, sender) = world.worker();
    for step in steps {
        send(&sender, step);
    }
    let (shutdown, _signal) = Shutdown::simulated();
    assert!(
        timeout(time, worker.run(&shutdown)).await.is_err(),
        "it waits"
    );
    drop(sender);
    lock(&world.reports).clone()
}

#[tokio::test(start_paused = true)]
async fn the_position_is_saved_within_100_ms() {
    for (millis, saved) in [(99, 0), (101, 1)] {
        let world = World::new(Source::Ordered);
        idle(
            &world,
            vec![transaction(world.source, 1)],
            Duration::from_millis(millis),
        )
        .await;
        assert_eq!(world.saved_number(), saved, "after {millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_position_file_it_waits_for_the_stream() {
    let world = World::new(Source::Ordered);
    let (mut worker, sender) = world.worker();
    worker.store = None;
    send(&sender, transaction(world.source, 1));
    let (shutdown, _signal) = Shutdown::simulated();
    // The clock only moves on while it waits.
    let idle = timeout(Duration::from_secs(60), worker.run(&shutdown));
    assert!(idle.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn one_call_alone_is_a_sync_point_at_its_own_revision() {
    let world = World::new(Source::Ordered);
    let reports = idle(
        &world,
        vec![transaction(world.source, 1)],
        Duration::from_secs(60),
    )
    .await;
    assert_eq!(reports.len(), 1, "no head is read while nothing moves");
    assert!(reports[0].sync_point && !reports[0].split && !reports[0].coalesced);
    assert_eq!(reports[0].source_revision, Some(world.source.revision(1)));
    let token = spice_client::scripted::token(1_001);
    assert_eq!(reports[0].target_revision, Some(token));
    assert!(!world.server.calls().contains(&Call::Head));
}

/// A revision that takes several calls.
fn large(world: &World, number: u64) -> Step {
    let updates = (0..1_500).map(|id| touch(&format!("large{id}")));
    let change = Transaction {
        revision: world.source.revision(number),
        updates: updates
            .chain([touch(&format!("own{number:03}"))])
            .map(Update)
            .collect(),
        ..Transaction::default()
    };
    Step::Transaction(Box::new(change), place(number))
}

#[tokio::test(start_paused = true)]
async fn several_calls_are_a_sync_point_once_the_head_is_read() {
    let world = World::new(Source::Ordered);
    let reports = idle(&world, vec![large(&world, 1)], Duration::from_secs(7)).await;
    assert_eq!(
        (reports.len(), reports[0].calls, reports[0].split),
        (1, 16, true)
    );
    assert!(!reports[0].sync_point && reports[0].target_revision.is_none());
    assert_eq!(world.server.relationships().len(), 1_501);
    let world = World::new(Source::Ordered);
    let reports = idle(&world, vec![large(&world, 1)], Duration::from_secs(9)).await;
    assert!(
        reports.len() == 2 && reports[1].sync_point,
        "after 8 s: {reports:?}"
    );
    assert_eq!(reports[1].source_revision, Some(world.source.revision(1)));
    assert_eq!(
        reports[1].target_revision,
        Some(spice_client::scripted::token(1_016))
    );
    assert!(world.position().is_some_and(|position| position.sync_point));
}

/// A backlog of transactions of so many updates, with a checkpoint behind every 23rd, and calls that take so long: the
/// longest time without a sync point in 40 s, and how many there were.
async fn sync_points_of_a_backlog(
    source: Source,
    updates: usize,
    call: Duration,
) -> (Duration, usize) {
    let world = World {
        jobs: 1,
        is_exact: false,
        ..World::new(source)
    };
    world.server.latency(call);
    let (mut worker, sender) = world.worker();
    // What it saves is compared with another stream.
    worker.store = None;
    for number in 1..=MOST {
        let updates = (0..updates).map(|id| Update(touch(&format!("backlog{number}_{id}"))));
        let change = Transaction {
            revision: world.source.revision(number),
            updates: updates.collect(),
            ..Transaction::default()
        };
        send(&sender, Step::Transaction(Box::new(change), place(number)));
        if number.is_multiple_of(23) {
            send(&sender, checkpoint(world.source, number));
        }
    }
    let count = || {
        lock(&world.reports)
            .iter()
            .filter(|one| one.sync_point)
            .count()
    };
    let observe = async {
        let (mut last, mut longest, mut seen) = (Instant::now(), Duration::ZERO, 0);
        for _ in 0..400 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            longest = longest.max(last.elapsed());
            if count() > seen {
                (last, seen) = (Instant::now(), count());
            }
        }
        (longest, seen)
    };
    let (shutdown, _signal) = Shutdown::simulated();
    tokio::select! {
        ended = worker.run(&shutdown) => panic!("the backlog ended: {ended:?}"),
        found = observe => found,
    }
}

#[tokio::test(start_paused = true)]
async fn backlog_is_interrupted_for_a_sync_point_in_time_and_no_earlier() {
    // With 300 updates and 1.9 s a call two revisions take longer than that: then there is one behind every two.
    for (updates, millis, within, counts) in [
        (300, 300, 10, 4..=8),
        (300, 900, 10, 4..=8),
        (300, 1_900, 14, 2..=4),
        (100, 1_300, 10, 4..=8),
    ] {
        let call = Duration::from_millis(millis);
        let (longest, count) = sync_points_of_a_backlog(Source::Ordered, updates, call).await;
        let what = format!("{updates} updates, {millis} ms: {longest:?}, {count}");
        assert!(longest < Duration::from_secs(within), "{what}");
        assert!(counts.contains(&count), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn backlog_of_a_colliding_source_is_interrupted_at_a_checkpoint() {
    for millis in [200, 300] {
        let call = Duration::from_millis(millis);
        let (longest, count) = sync_points_of_a_backlog(Source::Colliding, 300, call).await;
        let what = format!("{millis} ms: {longest:?}, {count}");
        assert!(longest < Duration::from_secs(15), "{what}");
        assert!((3..=8).contains(&count), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn checkpoints_alone_are_a_sync_point_every_8_s() {
    let world = World::without(Source::Ordered, &Vec::from_iter(1..=20));
    let (mut worker, sender) = world.worker();
    let (shutdown, _signal) = Shutdown::simulated();
    let feed = async {
        for number in 1..=20 {
            send(&sender, checkpoint(Source::Ordered, number));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        ended = worker.run(&shutdown) => panic!("it waits: {ended:?}"),
        () = feed => {}
    }
    let reports = lock(&world.reports).clone();
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert!(
        reports
            .iter()
            .all(|report| report.sync_point && report.updates == 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_colliding_source_is_saved_at_checkpoints_only() {
    let world = World::new(Source::Colliding);
    let steps = vec![
        transaction(world.source, 1),
        checkpoint(world.source, 1),
        transaction(world.source, 2),
    ];
    let reports = idle(&world, steps, Duration::from_secs(30)).await;
    assert_eq!(world.server.relationships().len(), super::state_at(2).len());
    // What corrects the second one may follow it.
    assert_eq!(world.saved_number(), 1);
    assert!(
        reports
            .iter()
            .all(|it| it.source_revision.is_none() && !it.sync_point)
    );
}

#[tokio::test(start_paused = true)]
async fn what_may_be_applied_already_is_no_sync_point() {
    let world = World::new(Source::Ordered);
    let (worker, _sender) = world.worker();
    drop(worker);
    let (mut worker, sender) = world.worker();
    let header = world.header(None);
    let store = crate::resume::PositionStore::new(world.saved.clone(), world.position());
    // The spool reached to the third revision when this process began.
    let resumed = worker.resume_from(Some(store), world.position(), Some(&header), Some(place(3)));
    resumed.expect("resumed");
    for number in 1..=3 {
        send(&sender, transaction(world.source, number));
    }
    let (shutdown, _signal) = Shutdown::simulated();
    assert!(
        timeout(Duration::from_secs(1), worker.run(&shutdown))
            .await
            .is_err()
    );
    let reports = lock(&world.reports).clone();
    let sync_points: Vec<bool> = reports.iter().map(|it| it.sync_point).collect();
    assert_eq!(sync_points, [false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn contended_relationships_are_read_before_an_end_is_announced() {
    let world = World::new(Source::Colliding);
    let (mut worker, sender) = world.worker();
    let until = authzed::zedtoken::decode(&world.source.revision(12)).expect("a token");
    worker.until = Some(until.revision);
    for number in 1..=11 {
        send(&sender, transaction(world.source, number));
    }
    send(&sender, checkpoint(world.source, 11));
    let (shutdown, _signal) = Shutdown::simulated();
    assert!(
        timeout(Duration::from_secs(1), worker.run(&shutdown))
            .await
            .is_err()
    );
    // Another program spoils one that changed more than once.
    world.server.put([relationship("changing1")]);
    send(&sender, transaction(world.source, 12));
    send(&sender, checkpoint(world.source, 12));
    worker.run(&shutdown).await.expect("ended");
    world.expect_state(12, "it was written again");
}
