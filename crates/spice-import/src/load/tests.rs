//! One chunk against a scripted target: bulk import, bisection, conflicts, what is too slow.

mod failures;
mod reconciled;

use std::path::Path;

use authzed::v1::Relationship;
use spice_cli::CommandError;
use spice_client::scripted::{Call, Scripted, already_exists, relationship, text};
use spice_record::ExpiryPrecision;

use super::Loader;
use crate::OnConflict;
use crate::chunk::{Chunk, Row};
use crate::rejects::Rejects;
use crate::stats::Stats;

/// How often a call is repeated.
const RETRIES: usize = 3;

/// A loader whose refused rows go to a file, which lives as long as the folder.
fn collecting(server: &Scripted, policy: OnConflict) -> (Loader<Scripted>, tempfile::TempDir) {
    collecting_after(RETRIES, server, policy)
}

fn collecting_after(
    max_retries: usize,
    server: &Scripted,
    policy: OnConflict,
) -> (Loader<Scripted>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rejects");
    let rejects = Rejects::open(Some(&path), Path::new("-"), "skip").expect("opened");
    (loader_with(max_retries, server, policy, rejects), folder)
}

fn loader(server: &Scripted, policy: OnConflict) -> Loader<Scripted> {
    loader_with(RETRIES, server, policy, Rejects::default())
}

fn loader_with(
    max_retries: usize,
    server: &Scripted,
    policy: OnConflict,
    rejects: Rejects,
) -> Loader<Scripted> {
    Loader::new(
        server.clone(),
        max_retries,
        policy,
        ExpiryPrecision::Micros,
        rejects,
        &(1..=1),
    )
}

fn rows(relationships: impl IntoIterator<Item = Relationship>) -> Vec<Row> {
    let numbered = (1..).zip(relationships);
    let row = |(line, relationship)| Row { line, relationship };
    numbered.map(row).collect()
}

fn many(count: usize) -> Vec<Row> {
    rows((0..count).map(|id| relationship(&format!("row{id:05}"))))
}

async fn load(loader: &Loader<Scripted>, rows: &[Row]) -> (Stats, Result<(), CommandError>) {
    loader.load(Chunk::from_rows(rows)).await
}

/// The ids in the file of what was refused.
fn rejected(folder: &tempfile::TempDir) -> Vec<String> {
    let text = std::fs::read_to_string(folder.path().join("rejects")).expect("the file");
    let id = |line: &str| {
        let rest = line
            .split_once(r#""objectId":""#)
            .map_or("", |(_, rest)| rest);
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    text.lines().map(id).collect()
}

/// Refuses every call with one of these ids.
fn refuse(server: &Scripted, ids: &[&str], error: &authzed::Error) {
    let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    let error = error.clone();
    server.refuses(move |update| {
        let id = text(update).split_off(2);
        ids.contains(&id).then(|| error.clone())
    });
}

#[tokio::test(start_paused = true)]
async fn a_chunk_is_one_transaction() {
    let server = Scripted::new();
    let (stats, result) = load(&loader(&server, OnConflict::Fail), &many(3_000)).await;
    result.expect("loaded");
    assert_eq!((stats.loaded, stats.total()), (3_000, 3_000));
    assert_eq!(server.calls(), [Call::Import(3_000)]);
}

#[tokio::test(start_paused = true)]
async fn refused_rows_are_found_by_halving_and_named_in_their_order() {
    let server = Scripted::new();
    let error = spice_client::scripted::refused("MAX_RELATIONSHIP_CONTEXT_SIZE");
    refuse(&server, &["row00100", "row00007", "row00255"], &error);
    let (loader, folder) = collecting(&server, OnConflict::Fail);
    let (stats, result) = load(&loader, &many(256)).await;
    result.expect("loaded");
    assert_eq!((stats.loaded, stats.rejected), (253, 3));
    assert_eq!(rejected(&folder), ["row00007", "row00100", "row00255"]);
    assert_eq!(server.relationships().len(), 253);
    let calls = server.sizes().len();
    assert!(calls <= 3 * 2 * 8 + 1, "{calls} calls");
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_refused_shape_are_rejected_without_a_call_each() {
    let server = Scripted::new();
    server.refuses(|update| {
        text(update)
            .contains("bad")
            .then(|| spice_client::scripted::refused("INVALID_SUBJECT_TYPE"))
    });
    let mut rows = many(64);
    for (index, row) in rows
        .iter_mut()
        .enumerate()
        .filter(|(index, _)| index % 4 == 1)
    {
        row.relationship = relationship(&format!("bad{index}"));
        row.relationship.relation = "owner".to_owned();
    }
    let (loader, folder) = collecting(&server, OnConflict::Fail);
    let (stats, result) = load(&loader, &rows).await;
    result.expect("loaded");
    assert_eq!(
        (stats.loaded, stats.rejected, rejected(&folder).len()),
        (48, 16, 16)
    );
    let calls = server.sizes().len();
    assert!(
        calls <= 24,
        "the first one settles its shape: {calls} calls"
    );
}

#[tokio::test(start_paused = true)]
async fn without_rejects_the_first_refused_row_ends_the_import() {
    let server = Scripted::new();
    let error = spice_client::scripted::refused("UNKNOWN_CAVEAT");
    refuse(&server, &["row00005", "row00050"], &error);
    let (stats, result) = load(&loader(&server, OnConflict::Fail), &many(64)).await;
    let failure = result.expect_err("refused");
    assert!(
        failure
            .message()
            .starts_with("line 6: the target refuses item:row00005")
    );
    assert_eq!(
        stats.loaded as usize,
        server.relationships().len(),
        "the stats are true"
    );
}

#[tokio::test(start_paused = true)]
async fn any_mix_of_refused_and_present_rows_is_accounted_for() {
    for seed in 0_u64..120 {
        let server = Scripted::new();
        let kind = |id: u64| (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (id % 60)) & 3;
        let count = 5 + seed % 40;
        let name = |id: u64| match kind(id) {
            0 => format!("bad{id:03}"),
            _ => format!("row{id:03}"),
        };
        let all = rows((0..count).map(|id| relationship(&name(id))));
        server.put(
            (0..count)
                .filter(|id| kind(*id) == 1)
                .map(|id| relationship(&name(id))),
        );
        server.refuses(|update| {
            text(update)
                .contains("bad")
                .then(|| spice_client::scripted::refused("MAX_RELATIONSHIP_CONTEXT_SIZE"))
        });
        let (loader, folder) = collecting(&server, OnConflict::Fail);
        let (stats, result) = load(&loader, &all).await;
        result.expect("loaded");
        let of = |wanted: u64| (0..count).filter(|id| kind(*id) == wanted).count() as u64;
        assert_eq!(stats.rejected, of(0), "seed {seed}");
        assert_eq!(
            (stats.present, stats.total()),
            (of(1), count),
            "seed {seed}"
        );
        assert_eq!(server.relationships().len() as u64, count - of(0));
        assert!(rejected(&folder).is_sorted(), "in the order of the stream");
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_conflicting_row_is_touched_and_others_created() {
    let server = Scripted::new();
    // Expired, and not collected yet: no look-up shows it.
    server.put([spice_client::scripted::expiring("row00002", 1)]);
    let (stats, result) = load(&loader(&server, OnConflict::Fail), &many(5)).await;
    result.expect("loaded");
    assert_eq!((stats.loaded, stats.touched, stats.total()), (4, 1, 5));
    assert!(
        server
            .relationships()
            .iter()
            .all(|it| it.optional_expires_at.is_none())
    );
    let single = server
        .calls()
        .iter()
        .any(|call| *call == Call::Write(vec!["T row00002".to_owned()]));
    assert!(single, "only that one is touched: {:?}", server.calls());
    assert!(matches!(
        already_exists().kind(),
        authzed::Kind::AlreadyExists
    ));
}
