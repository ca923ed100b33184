//! Conflict policies.

use std::collections::HashMap;

use spice_cli::lock;
use spice_client::lookup::key;
use spice_client::scripted::{Call, Scripted, expiring, relationship};
use spice_record::ExpiryPrecision;

use super::{load, loader, rows};
use crate::OnConflict;
use crate::chunk::Row;
use crate::conflict::{Sorted, sort};

const FAR: i64 = u32::MAX as i64;

fn sorted(rows: &[Row], there: &[Row], policy: OnConflict) -> Result<Sorted, String> {
    let there: HashMap<_, _> = there
        .iter()
        .map(|row| (key(&row.relationship), row.relationship.clone()))
        .collect();
    sort(rows, there, policy, ExpiryPrecision::Micros)
        .map_err(|failure| failure.message().to_owned())
}

fn lines(rows: &[Row]) -> Vec<u64> {
    rows.iter().map(|row| row.line).collect()
}

#[test]
fn equal_rows_are_present_and_others_absent_whatever_the_policy() {
    let there = rows([relationship("a")]);
    let all = rows(["c", "a", "b"].map(relationship));
    for policy in [OnConflict::Fail, OnConflict::Skip, OnConflict::Touch] {
        let sorted = sorted(&all, &there, policy).expect("no conflict");
        assert_eq!((sorted.present, lines(&sorted.absent)), (1, vec![1, 3]));
        assert!(sorted.skipped.is_empty() && sorted.touch.is_empty());
    }
}

#[test]
fn a_row_that_differs_fails_is_skipped_or_touched() {
    let there = rows([expiring("a", FAR)]);
    let all = rows([relationship("b"), expiring("a", FAR - 1)]);
    let failure = sorted(&all, &there, OnConflict::Fail).expect_err("a conflict");
    assert!(
        failure.starts_with("line 2: conflict of item:a"),
        "{failure}"
    );
    let skipped = sorted(&all, &there, OnConflict::Skip).expect("skipped");
    assert_eq!((skipped.skipped.len(), skipped.skipped[0].0.line), (1, 2));
    let touched = sorted(&all, &there, OnConflict::Touch).expect("touched");
    assert_eq!(lines(&touched.touch_unchanged), [2], "both have an expiry");
    assert!(touched.touch.is_empty());
}

#[test]
fn touches_that_give_or_take_an_expiry_are_verified() {
    let there = rows([expiring("loses", FAR), relationship("gets")]);
    let all = rows([relationship("loses"), expiring("gets", FAR)]);
    let sorted = sorted(&all, &there, OnConflict::Touch).expect("touched");
    assert_eq!(
        (lines(&sorted.touch), sorted.touch_unchanged.len()),
        (vec![1, 2], 0)
    );
}

#[test]
fn a_duplicate_relationship_in_the_stream_counts_once() {
    // The second is equal: present. With another expiry it is a conflict of the two lines.
    let all = rows([relationship("a"), relationship("a"), expiring("a", FAR)]);
    let failure = sorted(&all, &[], OnConflict::Fail).expect_err("a conflict");
    assert!(failure.contains("line 1 has"), "{failure}");
    let skipped = sorted(&all, &[], OnConflict::Skip).expect("skipped");
    assert_eq!(
        (
            skipped.present,
            lines(&skipped.absent),
            skipped.skipped.len()
        ),
        (1, vec![1], 1)
    );
    // The last one wins, and replaces the others.
    let touched = sorted(&all, &[], OnConflict::Touch).expect("touched");
    assert_eq!((touched.present, lines(&touched.touch)), (2, vec![3]));
    assert!(touched.absent.is_empty());
}

#[test]
fn each_row_is_in_exactly_one_place() {
    for seed in 0_u64..500 {
        let bits = seed.wrapping_mul(0xD134_2543_DE82_EF95);
        let state = |shift: u64, id: u64| match (bits >> (shift + 2 * id)) & 3 {
            0 => None,
            1 => Some(relationship(&id.to_string())),
            more => Some(expiring(
                &id.to_string(),
                FAR - i64::try_from(more).unwrap_or(0),
            )),
        };
        let there = rows((0..6).filter_map(|id| state(0, id)));
        // Some come twice.
        let all = rows((0..12).filter_map(|id| state(12 + id, id % 6)));
        for policy in [OnConflict::Skip, OnConflict::Touch] {
            let sorted = sorted(&all, &there, policy).expect("no failure");
            let written = sorted.absent.len() + sorted.touch.len() + sorted.touch_unchanged.len();
            let total = sorted.present + (sorted.skipped.len() + written) as u64;
            assert_eq!(
                total,
                all.len() as u64,
                "seed {seed} {policy:?}: {sorted:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn policies_leave_what_they_promise_on_the_target() {
    for policy in [OnConflict::Skip, OnConflict::Touch] {
        let server = Scripted::new();
        server.put([relationship("equal"), expiring("different", FAR)]);
        let all = rows(["equal", "different", "new"].map(relationship));
        let (stats, result) = load(&loader(&server, policy), &all).await;
        result.expect("loaded");
        let counts = (stats.loaded, stats.present, stats.touched, stats.skipped);
        let has_expiry = server
            .relationships()
            .iter()
            .any(|it| it.optional_expires_at.is_some());
        match policy {
            OnConflict::Skip => assert_eq!((counts, has_expiry), ((1, 1, 0, 1), true)),
            _ => assert_eq!((counts, has_expiry), ((1, 1, 1, 0), false)),
        }
    }
    let server = Scripted::new();
    server.put([expiring("different", FAR)]);
    let all = rows(["new", "different"].map(relationship));
    let (stats, result) = load(&loader(&server, OnConflict::Fail), &all).await;
    assert!(result.is_err() && stats.total() == 0);
    assert_eq!(server.relationships().len(), 1, "nothing was loaded");
}

#[tokio::test(start_paused = true)]
async fn skipped_touches_are_written_again_by_an_import() {
    let server = Scripted::new();
    server.skips_touches(true);
    server.put((0..450).map(|id| expiring(&format!("row{id}"), FAR)));
    let all = rows((0..450).map(|id| relationship(&format!("row{id}"))));
    let (stats, result) = load(&loader(&server, OnConflict::Touch), &all).await;
    result.expect("loaded");
    assert_eq!(
        (stats.touched, stats.total()),
        (450, 450),
        "each counts once"
    );
    assert!(
        server
            .relationships()
            .iter()
            .all(|it| it.optional_expires_at.is_none())
    );
    assert_eq!(server.relationships().len(), 450);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_cannot_be_looked_for_is_bisected() {
    let server = Scripted::new();
    server.put([relationship("row1")]);
    let all = rows(["row0", "row1", "bad!", "row2"].map(relationship));
    server.refuses(|update| {
        let is_bad = spice_client::scripted::text(update).contains('!');
        is_bad.then(|| spice_client::scripted::refused("INVALID_ARGUMENT"))
    });
    let (loader, folder) = super::collecting(&server, OnConflict::Skip);
    let (stats, result) = load(&loader, &all).await;
    result.expect("loaded");
    assert_eq!((stats.loaded, stats.present, stats.rejected), (2, 1, 1));
    assert_eq!(super::rejected(&folder), ["bad!"]);
    lock(&loader.rejects).finish().expect("synced");
}

#[tokio::test(start_paused = true)]
async fn an_expiry_is_refused_by_a_target_that_would_drop_it() {
    let server = Scripted::new();
    server.drops_expiries();
    let all = rows([relationship("a"), expiring("b", FAR), relationship("c")]);
    let (loader, folder) = super::collecting(&server, OnConflict::Fail);
    let (stats, result) = load(&loader, &all).await;
    result.expect("loaded");
    assert_eq!((stats.loaded, stats.rejected), (2, 1));
    assert_eq!(super::rejected(&folder), ["b"]);
    let sent: usize = server.sizes().iter().sum();
    assert_eq!(sent, 2, "it is never sent");
    assert!(
        server
            .calls()
            .iter()
            .all(|call| matches!(call, Call::Import(_)))
    );
}
