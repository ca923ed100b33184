//! A schema is written, awaited, or pending while relationships block it.

use std::time::Duration;

use spice_cli::{CommandError, Exit};
use spice_client::scripted::{Call, End, Scripted, deadline, refused, schema_refused, unreachable};
use spice_client::write_engine::WriteEngine;
use tokio::time::{Instant, sleep};

use super::{PendingSchema, SchemaPolicy, bring};
use crate::write::Target;

fn target(server: &Scripted) -> Target<Scripted> {
    Target::new(WriteEngine::new(server.clone(), 3, 1..=1, None), None, true)
}

async fn bring_to(
    target: &Target<Scripted>,
    policy: SchemaPolicy,
) -> Result<Option<PendingSchema>, CommandError> {
    bring(target, policy, "new", "R".to_owned(), None).await
}

#[tokio::test(start_paused = true)]
async fn a_schema_that_the_target_has_is_not_written() {
    for policy in [SchemaPolicy::Apply, SchemaPolicy::Check, SchemaPolicy::Stop] {
        let server = Scripted::new();
        server.set_schema("new");
        let brought = bring_to(&target(&server), policy).await.expect("brought");
        assert!(brought.is_none() && server.calls().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn apply_writes_a_schema_that_differs() {
    let server = Scripted::new();
    server.set_schema("old");
    bring_to(&target(&server), SchemaPolicy::Apply)
        .await
        .expect("written");
    assert_eq!(server.schema().as_deref(), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn check_waits_for_another_program_to_write_it() {
    let server = Scripted::new();
    server.set_schema("old");
    let other = server.clone();
    let write = async move {
        sleep(Duration::from_secs(9)).await;
        other.set_schema("new");
    };
    let target = target(&server);
    let (brought, ()) = tokio::join!(bring_to(&target, SchemaPolicy::Check), write);
    assert!(brought.expect("there in time").is_none());
}

#[tokio::test(start_paused = true)]
async fn check_gives_up_after_ten_seconds_with_exit_75() {
    let server = Scripted::new();
    let started = Instant::now();
    let failure = bring_to(&target(&server), SchemaPolicy::Check)
        .await
        .expect_err("too late");
    assert_eq!(failure.exit, Exit::TryAgain);
    let waited = started.elapsed().as_secs();
    assert!((10..=11).contains(&waited), "{waited} s");
    assert!(server.calls().is_empty(), "nothing was written");
}

#[tokio::test(start_paused = true)]
async fn stop_ends_at_once() {
    let failure = bring_to(&target(&Scripted::new()), SchemaPolicy::Stop).await;
    let failure = failure.expect_err("it differs");
    assert_eq!(failure.exit, Exit::Failed);
    assert!(
        failure.message().ends_with("(--schema stop)"),
        "{}",
        failure.message()
    );
}

#[tokio::test(start_paused = true)]
async fn a_schema_that_relationships_block_is_pending() {
    for operation in super::BLOCKED_BY_RELATIONSHIPS {
        let server = Scripted::new();
        server.schema_writes([End::Fails(schema_refused(operation))]);
        let pending = bring_to(&target(&server), SchemaPolicy::Apply)
            .await
            .expect("pending");
        let pending = pending.expect("pending");
        assert!(
            pending
                .describe()
                .starts_with("the target does not take the schema of revision R")
        );
        assert_eq!(pending.never_taken().exit, Exit::Failed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pending_schema_is_retried_after_200_ms_or_2_s_when_idle() {
    let server = Scripted::new();
    server.schema_writes([End::Fails(schema_refused("delete_relation"))]);
    let pending = bring_to(&target(&server), SchemaPolicy::Apply)
        .await
        .expect("pending");
    let pending = pending.expect("pending");
    assert_eq!(
        pending.due_when_idle(),
        Instant::now() + Duration::from_secs(2)
    );
    assert!(!pending.is_due());
    sleep(Duration::from_millis(200)).await;
    assert!(pending.is_due());
}

#[tokio::test(start_paused = true)]
async fn any_other_refusal_of_a_schema_ends_the_apply() {
    for error in [
        refused("SCHEMA_PARSE_ERROR"),
        schema_refused("change_parameter_type"),
    ] {
        let server = Scripted::new();
        server.schema_writes([End::Fails(error)]);
        let failure = bring_to(&target(&server), SchemaPolicy::Apply)
            .await
            .expect_err("refused");
        assert_eq!(failure.exit, Exit::Failed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_of_a_schema_is_repeated_and_its_ambiguous_end_noted() {
    let server = Scripted::new();
    server.schema_writes([End::Fails(unreachable())]);
    let target = target(&server);
    bring_to(&target, SchemaPolicy::Apply)
        .await
        .expect("written");
    assert!(target.ambiguous().is_empty(), "nothing was sent");
    server.set_schema("old");
    server.schema_writes([End::Fails(deadline())]);
    bring_to(&target, SchemaPolicy::Apply)
        .await
        .expect("written");
    assert!(!target.ambiguous().is_empty());
    assert!(server.calls().contains(&Call::Reconnect));
}
