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

#[tokio::test(start_paused = true)]
async fn calls_that_end_in_any_way_leave_the_right_state() {
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
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap_or_default()
    };
    for case in 0..250 {
        let source = [Source::Ordered, Source::Colliding][case % 2];
        let mut world = World::new(source);
        world.jobs = 1 + case % 3;
        world.flags = [vec![], vec!["--no-coalesce"]][case / 2 % 2].clone();
        // Few enough of them that no call fails nine times in a row.
        let script = (0..30).map(|_| match next() % 3 {
            0 => ends[next() % ends.len()].clone(),
            _ => End::Normal,
        });
        let script: Vec<End> = script.collect();
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
