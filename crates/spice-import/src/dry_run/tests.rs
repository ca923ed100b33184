//! What a dry run finds, and how it ends.

use spice_cli::Exit;
use spice_cli::progress::Progress;
use spice_client::scripted::{Call, Scripted, expiring, relationship};
use spice_record::{Digest, ExpiryPrecision};
use tokio::sync::mpsc;

use super::{DryRun, Found, Occupied, Plan, look_for};
use crate::OnConflict;
use crate::chunk::{Chunk, Row};
use crate::input::{Step, Totals};

fn target(server: &Scripted) -> Occupied<Scripted> {
    Occupied {
        server: server.clone(),
        endpoint: "simulated:50051".to_owned(),
        max_retries: 0,
        precision: ExpiryPrecision::Micros,
    }
}

fn chunk(relationships: impl IntoIterator<Item = authzed::v1::Relationship>) -> Chunk {
    let rows: Vec<Row> = (1..)
        .zip(relationships)
        .map(|(line, relationship)| Row { line, relationship })
        .collect();
    Chunk::from_rows(&rows)
}

#[test]
fn plan_reports_what_becomes_of_each_kind() {
    let mut found = Found {
        equal: 5,
        different: 2,
        absent: 3,
        refused: 0,
    };
    let text = Plan(&found, OnConflict::Touch).to_string();
    assert_eq!(
        text,
        "the target holds 5 equal and 2 different, which would be touched; 3 are absent and would be loaded"
    );
    found.refused = 1;
    let text = Plan(&found, OnConflict::Skip).to_string();
    assert!(
        text.contains("2 different, which would be skipped"),
        "{text}"
    );
    assert!(text.ends_with("; 1 would be refused"), "{text}");
}

#[test]
fn exit_is_3_where_an_import_would_leave_something_out() {
    let found = |different, refused| Found {
        different,
        refused,
        ..Found::default()
    };
    let (fail, skip, touch) = (OnConflict::Fail, OnConflict::Skip, OnConflict::Touch);
    assert_eq!(found(0, 0).exit(skip), Exit::Done);
    assert_eq!(found(1, 0).exit(skip), Exit::Partial);
    assert_eq!(found(1, 0).exit(touch), Exit::Done);
    for policy in [fail, skip, touch] {
        assert_eq!(found(0, 1).exit(policy), Exit::Partial);
    }
}

#[tokio::test]
async fn rows_are_counted_by_what_the_target_holds() {
    let server = Scripted::new();
    let far = i64::from(u32::MAX);
    server.put([relationship("equal"), expiring("different", far)]);
    let rows = ["equal", "different", "absent"].map(relationship);
    let found = look_for(&target(&server), &chunk(rows.clone()), OnConflict::Touch).await;
    let expected = Found {
        equal: 1,
        different: 1,
        absent: 1,
        refused: 0,
    };
    assert_eq!(found.expect("read"), expected);
    let failure = look_for(&target(&server), &chunk(rows), OnConflict::Fail).await;
    let failure = failure.expect_err("a conflict");
    assert!(
        failure
            .message()
            .starts_with("line 2: conflict of item:different")
    );
    assert!(
        server
            .calls()
            .iter()
            .all(|call| matches!(call, Call::Lookup(_))),
        "nothing is written"
    );
}

#[tokio::test]
async fn ids_that_the_target_refuses_are_found_one_by_one() {
    let server = Scripted::new();
    let rows = (0..50).map(|id| {
        relationship(&match id {
            7 | 31 => format!("bad!{id}"),
            _ => id.to_string(),
        })
    });
    let found = look_for(&target(&server), &chunk(rows), OnConflict::Skip)
        .await
        .expect("read");
    assert_eq!((found.refused, found.absent), (2, 48));
}

#[tokio::test]
async fn a_target_without_expiry_would_refuse_rows_that_have_one() {
    let server = Scripted::new();
    server.drops_expiries();
    let rows = [relationship("a"), expiring("b", 9)];
    let found = look_for(&target(&server), &chunk(rows), OnConflict::Skip)
        .await
        .expect("read");
    assert_eq!((found.refused, found.absent), (1, 1));
}

fn totals() -> Totals {
    Totals {
        relationships: 2,
        digest: Digest(0),
        precision: ExpiryPrecision::Micros,
        verified: true,
        below_micros: 0,
        below_seconds: 0,
    }
}

async fn run(server: Option<&Scripted>, steps: Vec<Step>) -> Result<Exit, spice_cli::CommandError> {
    let progress = Progress::start("relationships read", true);
    let dry_run = DryRun::new(server.map(target), OnConflict::Skip, &progress);
    let (sender, receiver) = mpsc::channel(9);
    let mut steps = steps.into_iter();
    let first = steps.next().expect("a step");
    for step in steps {
        assert!(sender.try_send(step).is_ok());
    }
    drop(sender);
    dry_run.run(first, receiver).await
}

#[tokio::test]
async fn a_dry_run_reads_to_the_end() {
    let chunk = || Step::Chunk(chunk([relationship("a")]));
    let server = Scripted::new();
    server.put([expiring("a", i64::from(u32::MAX))]);
    let steps = || vec![chunk(), chunk(), Step::End(totals())];
    assert_eq!(
        run(Some(&server), steps()).await.expect("read"),
        Exit::Partial
    );
    assert_eq!(
        run(None, steps()).await.expect("read"),
        Exit::Done,
        "only the stream is checked"
    );
    let failure = run(None, vec![chunk()]).await.expect_err("no end");
    assert_eq!(failure.exit, Exit::Failed);
}
