//! Failures of the transaction, not of its rows.

use authzed::{Code, Error, Kind};
use spice_cli::Exit;
use spice_client::scripted::{Call, End, Scripted, deadline, internal, unavailable, unreachable};
use tokio::time::{Duration, Instant};

use super::{collecting, load, loader, many, rejected};
use crate::OnConflict;

fn stream_timeout() -> Error {
    let message = "operation took longer than allowed 30s to complete";
    Error::simulated(Code::DeadlineExceeded, None, &[], message)
}

/// A connection that a proxy breaks: no code of the server's.
fn broken() -> Error {
    Error::simulated_kind(Kind::Unavailable, "the connection broke")
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_repeated() {
    let server = Scripted::new();
    server.imports([End::Fails(unreachable()), End::Fails(unavailable())]);
    let (stats, result) = load(&loader(&server, OnConflict::Fail), &many(10)).await;
    result.expect("loaded");
    assert_eq!((stats.loaded, server.sizes()), (10, vec![10, 10, 10]));
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_import_that_was_applied_counts_as_present() {
    let server = Scripted::new();
    server.imports([End::AppliedAfter(Duration::ZERO, deadline())]);
    let (stats, result) = load(&loader(&server, OnConflict::Fail), &many(10)).await;
    result.expect("loaded");
    assert_eq!((stats.loaded, stats.present), (0, 10));
}

#[tokio::test(start_paused = true)]
async fn rows_without_a_known_end_are_reported_as_unknown() {
    for (error, unknown) in [(unavailable(), 10), (unreachable(), 0)] {
        let server = Scripted::new();
        server.imports(vec![End::Fails(error); 9]);
        let (stats, result) = load(&loader(&server, OnConflict::Fail), &many(10)).await;
        let failure = result.expect_err("spent");
        assert_eq!((failure.exit, stats.unknown), (Exit::TryAgain, unknown));
        assert!(
            failure.message().starts_with("lines 1 to 10: "),
            "{}",
            failure.message()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_is_halved_and_so_is_what_comes_after_it() {
    let server = Scripted::new();
    let loader = loader(&server, OnConflict::Fail);
    server.imports([End::Fails(stream_timeout())]);
    // Slow enough that none is made larger again.
    server.latency(Duration::from_secs(9));
    let (stats, result) = load(&loader, &many(1_000)).await;
    result.expect("loaded");
    assert_eq!(
        (stats.loaded, server.sizes()),
        (1_000, vec![1_000, 500, 500])
    );
    server.clear();
    load(&loader, &many(600)).await.1.expect("loaded");
    assert_eq!(server.sizes()[3..], [300, 300], "learned");
}

#[tokio::test(start_paused = true)]
async fn a_slow_failure_of_many_rows_is_too_slow_whatever_its_error() {
    // So few are not too many: the target was away.
    for (rows, seconds, halved) in [(501, 16, true), (15, 16, false), (501, 14, false)] {
        let server = Scripted::new();
        server.latency(Duration::from_secs(seconds));
        server.imports([End::Fails(unavailable())]);
        let (_, result) = load(&loader(&server, OnConflict::Fail), &many(rows)).await;
        result.expect("loaded");
        assert_eq!(server.sizes()[1] < rows, halved, "{rows} rows, {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn target_that_never_takes_a_row_in_time_ends_with_75() {
    let server = Scripted::new();
    server.imports(vec![End::Fails(stream_timeout()); 99]);
    let (stats, result) = load(&loader(&server, OnConflict::Fail), &many(1_000)).await;
    let failure = result.expect_err("never loaded");
    assert_eq!((failure.exit, stats.total()), (Exit::TryAgain, 0));
    let smallest = *server.sizes().last().expect("an import");
    assert!(smallest < 16, "{smallest}");
    let named = format!("lines 1 to {smallest}");
    assert!(failure.message().contains(&named), "{}", failure.message());
}

#[tokio::test(start_paused = true)]
async fn rows_under_which_the_connection_breaks_are_halved() {
    let server = Scripted::new();
    server.imports(vec![End::Fails(broken()); 3]);
    let (stats, result) = load(&loader(&server, OnConflict::Fail), &many(8)).await;
    result.expect("loaded");
    assert_eq!(server.sizes(), [8, 8, 8, 4, 4]);
    assert_eq!(stats.loaded, 8);
}

#[tokio::test(start_paused = true)]
async fn one_row_under_which_the_connection_breaks_is_refused() {
    let server = Scripted::new();
    server.imports(vec![End::Fails(broken()); 4]);
    let (loader, folder) = collecting(&server, OnConflict::Fail);
    let (stats, result) = load(&loader, &many(1)).await;
    result.expect("rejected");
    assert_eq!((stats.rejected, stats.unknown), (1, 0));
    assert_eq!(rejected(&folder), ["row00000"]);
    assert!(
        server.calls().contains(&Call::Reconnect),
        "another connection is good"
    );
}

#[tokio::test(start_paused = true)]
async fn an_internal_error_is_blamed_on_rows_after_seven_attempts() {
    let server = Scripted::new();
    super::refuse(&server, &["row00003"], &internal());
    let (loader, folder) = super::collecting_after(10, &server, OnConflict::Fail);
    let (stats, result) = load(&loader, &many(8)).await;
    result.expect("loaded");
    assert_eq!((stats.loaded, stats.rejected), (7, 1));
    assert_eq!(rejected(&folder), ["row00003"]);
    // While it is bisected no repetition costs a delay.
    let sizes = [vec![8; 7], vec![4, 2, 2], vec![1; 4], vec![4]].concat();
    assert_eq!(server.sizes(), sizes);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_down_is_not_blamed_on_rows() {
    let server = Scripted::new();
    server.imports(vec![End::Fails(internal()); 3]);
    server.markers(vec![Err(internal()); 3]);
    let (stats, result) = load(&loader(&server, OnConflict::Fail), &many(8)).await;
    result.expect("loaded");
    assert_eq!((stats.loaded, stats.rejected), (8, 0));
}

#[tokio::test(start_paused = true)]
async fn a_count_that_is_not_of_complete_messages_is_a_lost_row() {
    for count in [0, 9, 11] {
        let server = Scripted::new();
        server.import_counts([count]);
        let (stats, result) = load(&loader(&server, OnConflict::Fail), &many(10)).await;
        let failure = result.expect_err("a lost row");
        assert!(
            failure.message().contains(&format!("has loaded {count}")),
            "{}",
            failure.message()
        );
        assert_eq!((failure.exit, stats.loaded), (Exit::Failed, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_ended_in_time_and_the_rest_is_loaded_by_the_next() {
    let server = Scripted::new();
    server.message_time(Duration::from_secs(8));
    let started = Instant::now();
    let rows = many(40_000);
    let (stats, result) = load(&loader(&server, OnConflict::Fail), &rows).await;
    result.expect("loaded");
    assert_eq!(
        (stats.loaded, server.relationships().len()),
        (40_000, 40_000)
    );
    assert!(server.sizes().len() > 1, "{:?}", server.sizes());
    assert_eq!(
        server.sizes().iter().sum::<usize>(),
        40_000,
        "each row once"
    );
    assert!(started.elapsed() > Duration::from_secs(24));
}
