//! A process that is killed anywhere, or whose calls fail in any way, leaves nothing out.

use std::time::Duration;

use spice_client::scripted::{End, deadline, internal, unavailable, unreachable};

use super::{Ended, Source, World};

#[tokio::test(start_paused = true)]
async fn a_process_killed_at_any_time_resumes_without_a_gap() {
    for source in [Source::Ordered, Source::Colliding] {
        for millis in (0..460).step_by(7) {
            let mut world = World::new(source);
            // Else it is one batch.
            world.flags = vec!["--no-coalesce"];
            world.server.latency(Duration::from_millis(10));
            let crash = Some(Duration::from_millis(millis));
            let first = world.run(40, crash).await;
            // Saved every 100 ms, and checked at each save: see World::new.
            let resumed_at = world.saved_number();
            let ended = world.run(40, None).await.expect("no crash");
            assert_eq!(ended.expect("applied"), Ended::Done);
            world.expect_state(
                40,
                &format!("{source:?}, killed after {millis} ms at {resumed_at}"),
            );
            assert!(first.is_none() || resumed_at == 40);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_killed_again_and_again_comes_to_the_end() {
    let mut world = World::new(Source::Ordered);
    world.flags = vec!["--no-coalesce"];
    world.server.latency(Duration::from_millis(10));
    let mut runs = 0;
    while world
        .run(60, Some(Duration::from_millis(150)))
        .await
        .is_none()
    {
        runs += 1;
        assert!(runs < 60, "no progress: saved {}", world.saved_number());
    }
    assert!(runs > 1);
    world.expect_state(60, "after all");
}

/// The ends of some calls: few enough fail that none does nine times in a row.
fn script(next: &mut impl FnMut() -> usize) -> Vec<End> {
    let ends = [
        End::Normal,
        End::Fails(unavailable()),
        End::Fails(unreachable()),
        End::AppliedAfter(Duration::ZERO, deadline()),
        // After their repetition, and after later updates of the same relationships.
        End::AppliedAfter(Duration::from_millis(300), unavailable()),
        End::AppliedAfter(Duration::from_secs(12), deadline()),
        End::AppliedAfter(Duration::from_secs(29), deadline()),
        End::After(Duration::from_millis(400)),
        End::Fails(internal()),
    ];
    let script = (0..30).map(|_| match next() % 3 {
        0 => ends[next() % ends.len()].clone(),
        _ => End::Normal,
    });
    script.collect()
}

/// Some calls take so long that other ones overtake them.
fn slow_calls(next: &mut impl FnMut() -> usize) -> Vec<End> {
    let script = (0..400).map(|_| match next() % 5 {
        0 => End::After(Duration::from_millis(400)),
        _ => End::Normal,
    });
    script.collect()
}

fn random(mut seed: u64) -> impl FnMut() -> usize {
    move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 33).unwrap_or_default()
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_end_in_any_way_leave_the_right_state() {
    let mut next = random(88_172_645_463_325_252);
    for case in 0..250 {
        let source = [Source::Ordered, Source::Colliding][case % 2];
        let mut world = World::new(source);
        world.jobs = 1 + case % 3;
        world.flags = [vec![], vec!["--no-coalesce"]][case / 2 % 2].clone();
        let script = script(&mut next);
        world.server.writes(script.clone());
        let count = 3 + (next() % 45) as u64;
        let ended = world.run(count, None).await.expect("no crash");
        assert_eq!(ended.expect("applied"), Ended::Done, "case {case}");
        let of = format!("case {case}: {count} revisions, {script:?}");
        world.expect_state(count, &of);
        // Nothing can be applied late any more.
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.expect_state(count, &of);
        assert_eq!(world.saved_number(), count);
    }
}

/// Calls of one update, which is known after the first revision, and so small batches.
fn backlog(source: Source, jobs: usize) -> World {
    let mut world = World::new(source);
    world.jobs = jobs;
    world.server.max_updates(1);
    world.schema_changes = true;
    world.server.latency(Duration::from_millis(10));
    world
}

#[tokio::test(start_paused = true)]
async fn batches_that_overlap_leave_the_right_state_however_calls_end() {
    let mut next = random(72_520_202_607_201_122);
    for case in 0..80 {
        let source = [Source::Ordered, Source::Colliding][case % 2];
        let mut world = backlog(source, 1 + case % 4);
        world.is_exact = true;
        // After a call whose end is unknown no batches overlap for a while: half of the cases have slow calls only.
        let script = match case / 4 % 2 {
            0 => script(&mut next),
            _ => slow_calls(&mut next),
        };
        world.server.writes(script.clone());
        let count = 100 + (next() % 200) as u64;
        let ended = world.run(count, None).await.expect("no crash");
        assert_eq!(ended.expect("applied"), Ended::Done, "case {case}");
        let of = format!("case {case}: {count} revisions, {script:?}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.expect_state(count, &of);
        assert_eq!(world.saved_number(), count);
    }
}

#[tokio::test(start_paused = true)]
async fn process_killed_while_batches_overlap_resumes_without_a_gap() {
    for source in [Source::Ordered, Source::Colliding] {
        for millis in (100..1_600).step_by(70) {
            let world = backlog(source, 4);
            let crash = Some(Duration::from_millis(millis));
            // Saved only what was acknowledged, and checked at each save: see World::new.
            world.run(300, crash).await;
            let ended = world.run(300, None).await.expect("no crash");
            assert_eq!(ended.expect("applied"), Ended::Done);
            world.expect_state(300, &format!("{source:?}, killed after {millis} ms"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_saved_while_a_write_before_it_is_ambiguous() {
    let world = World::new(Source::Ordered);
    let (mut worker, sender) = world.worker();
    world
        .server
        .writes([End::AppliedAfter(Duration::from_secs(9), deadline())]);
    for number in 1..=4 {
        super::send(&sender, super::transaction(world.source, number));
    }
    let (shutdown, _signal) = spice_cli::Shutdown::simulated();
    let run = worker.run(&shutdown);
    tokio::pin!(run);
    let mut wait = async |seconds| {
        let idle = tokio::time::timeout(Duration::from_secs(seconds), &mut run).await;
        assert!(idle.is_err(), "it waits for more");
    };
    wait(29).await;
    assert_eq!(world.saved_number(), 0, "who resumes has to replay it");
    let noted = world.position().expect("a position").ambiguous_until;
    assert!(noted.is_some(), "and to wait for it");
    // The window is over: it was read, written again, and everything is saved.
    wait(3).await;
    assert_eq!(world.saved_number(), 4);
    assert!(
        world
            .position()
            .expect("a position")
            .ambiguous_until
            .is_none()
    );
    world.expect_state(4, "the late write was undone");
}
