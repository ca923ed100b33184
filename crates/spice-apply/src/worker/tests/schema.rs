//! A schema that the target does not take yet holds the position back.

use std::time::Duration;

use spice_cli::{Exit, Shutdown};
use spice_client::scripted::{Call, End, deadline, schema_refused};
use spice_record::digest::digest_text;
use tokio::time::timeout;

use super::{Source, World, schema_change, send, transaction};
use crate::input::Step;

fn blocked() -> End {
    End::Fails(schema_refused("delete_relation"))
}

fn schema_writes(world: &World) -> usize {
    let calls = world.server.calls();
    let writes = calls
        .iter()
        .filter(|call| matches!(call, Call::WriteSchema(_)));
    writes.count()
}

#[tokio::test(start_paused = true)]
async fn position_waits_for_a_pending_schema_and_follows_it() {
    let world = World::without(Source::Ordered, &[2]);
    let (mut worker, sender) = world.worker();
    world.server.schema_writes(vec![blocked(); 4]);
    send(&sender, transaction(world.source, 1));
    send(&sender, schema_change(world.source, 2, "newer"));
    send(&sender, transaction(world.source, 3));
    let (shutdown, _signal) = Shutdown::simulated();
    let run = worker.run(&shutdown);
    tokio::pin!(run);
    assert!(timeout(Duration::from_secs(5), &mut run).await.is_err());
    assert_eq!(world.saved_number(), 1, "the schema of 2 is missing");
    assert_eq!(schema_writes(&world), 3, "at once, and every 2 s");
    assert!(timeout(Duration::from_secs(5), &mut run).await.is_err());
    assert_eq!(world.server.schema().as_deref(), Some("newer"));
    assert_eq!(world.saved_number(), 3);
    let position = world.position().expect("a position");
    assert_eq!(position.schema, Some(digest_text("newer")));
}

#[tokio::test(start_paused = true)]
async fn a_pending_schema_is_written_once_a_transaction_unblocks_it() {
    let world = World::without(Source::Ordered, &[1]);
    let (mut worker, sender) = world.worker();
    world.server.schema_writes([blocked()]);
    world.server.latency(Duration::from_millis(250));
    send(&sender, schema_change(world.source, 1, "newer"));
    send(&sender, transaction(world.source, 2));
    let (shutdown, _signal) = Shutdown::simulated();
    assert!(
        timeout(Duration::from_secs(1), worker.run(&shutdown))
            .await
            .is_err()
    );
    assert_eq!(world.server.schema().as_deref(), Some("newer"));
}

#[tokio::test(start_paused = true)]
async fn a_schema_that_is_never_taken_ends_the_apply_before_it() {
    let world = World::without(Source::Ordered, &[2]);
    let (mut worker, sender) = world.worker();
    world.server.schema_writes(vec![blocked(); 100]);
    send(&sender, transaction(world.source, 1));
    send(&sender, schema_change(world.source, 2, "newer"));
    send(&sender, transaction(world.source, 3));
    send(&sender, Step::End(Some(world.source.revision(3))));
    let (shutdown, _signal) = Shutdown::simulated();
    let failure = worker.run(&shutdown).await.expect_err("never taken");
    assert_eq!((failure.exit, world.saved_number()), (Exit::Failed, 1));
}

#[tokio::test(start_paused = true)]
async fn the_schema_of_a_new_stream_is_written_first() {
    let world = World::new(Source::Ordered);
    let (mut worker, sender) = world.worker_after(&world.header(Some("first")));
    world.feed(&sender, 0, 2);
    let (shutdown, _signal) = Shutdown::simulated();
    worker.run(&shutdown).await.expect("applied");
    assert_eq!(
        world.server.calls()[0],
        Call::WriteSchema("first".to_owned())
    );
    assert_eq!(
        world.position().expect("saved").schema,
        Some(digest_text("first"))
    );
    // A process that resumes in the middle of a spool does not go back to it.
    world.server.set_schema("newer");
    let (mut worker, sender) = world.worker_after(&world.header(Some("first")));
    world.feed(&sender, 2, 4);
    worker.run(&shutdown).await.expect("applied");
    assert_eq!(world.server.schema().as_deref(), Some("newer"));
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_schema_write_is_read_again_after_its_window() {
    let world = World::without(Source::Ordered, &[1]);
    let (mut worker, sender) = world.worker();
    world.server.schema_writes([End::Fails(deadline())]);
    send(&sender, schema_change(world.source, 1, "newer"));
    let (shutdown, _signal) = Shutdown::simulated();
    let run = worker.run(&shutdown);
    tokio::pin!(run);
    assert!(timeout(Duration::from_secs(20), &mut run).await.is_err());
    assert_eq!(world.saved_number(), 0);
    // The write that was given up was one of an older text, and is applied late.
    world.server.set_schema("late");
    assert!(timeout(Duration::from_secs(20), &mut run).await.is_err());
    assert_eq!(world.server.schema().as_deref(), Some("newer"));
    assert_eq!(world.saved_number(), 1);
}
