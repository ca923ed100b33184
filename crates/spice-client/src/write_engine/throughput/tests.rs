//! What is counted as a round, with the clock paused.

use std::time::Duration;

use tokio::time::advance;

use super::super::controller::{Bounds, Setting};
use super::Throughput;

fn throughput(in_flight: usize) -> Throughput {
    let [first, most] = Setting::between(100..=800, &(1..=in_flight));
    let bounds = Bounds {
        first,
        most,
        least: 10,
        together: 8_000,
        slow: Duration::from_millis(250),
        is_bulk: false,
    };
    Throughput::new(bounds, "updates")
}

/// Calls one after the other, as large as the setting asks; each takes so long.
async fn calls(throughput: &mut Throughput, count: usize, milliseconds: u64) {
    for _ in 0..count {
        let call = throughput.begin();
        let size = throughput.setting().size;
        advance(Duration::from_millis(milliseconds)).await;
        throughput.end(call, size);
    }
}

#[tokio::test(start_paused = true)]
async fn first_round_has_three_calls_and_takes_250_ms() {
    let mut one = throughput(1);
    calls(&mut one, 2, 100).await;
    assert_eq!(one.setting().size, 100);
    calls(&mut one, 1, 100).await;
    assert_eq!(one.setting().size, 200, "another size is tried");
    let mut short = throughput(1);
    calls(&mut short, 249, 1).await;
    assert_eq!(short.setting().size, 100);
    calls(&mut short, 1, 1).await;
    assert_eq!(short.setting().size, 200);
}

#[tokio::test(start_paused = true)]
async fn round_that_shows_a_clear_difference_takes_50_ms_and_any_other_250() {
    for (milliseconds, expected) in [(1, 50), (2, 125)] {
        let mut one = throughput(1);
        calls(&mut one, 250, 1).await;
        // Twice as many in a call.
        calls(&mut one, expected - 1, milliseconds).await;
        assert_eq!(one.setting().size, 200);
        calls(&mut one, 1, milliseconds).await;
        assert_ne!(one.setting().size, 200, "{milliseconds} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn time_without_a_call_in_flight_is_not_counted() {
    let mut waiting = throughput(1);
    calls(&mut waiting, 3, 100).await;
    // The larger calls are as fast as the others were, but their input comes slowly.
    for _ in 0..3 {
        advance(Duration::from_secs(5)).await;
        calls(&mut waiting, 1, 100).await;
    }
    assert_eq!(waiting.setting().size, 400, "it paid");
}

#[tokio::test(start_paused = true)]
async fn call_of_an_earlier_setting_is_left_out() {
    let mut one = throughput(1);
    let old = one.begin();
    one.limit(50);
    advance(Duration::from_secs(1)).await;
    one.end(old, 100);
    calls(&mut one, 2, 100).await;
    assert_eq!(one.setting().size, 50, "two calls are no round");
}

#[tokio::test(start_paused = true)]
async fn batch_fills_the_calls_in_flight_for_about_a_second() {
    let mut one = throughput(1);
    assert_eq!(one.batch(), 400, "four calls");
    calls(&mut one, 3, 200).await;
    assert_eq!((one.setting().size, one.batch()), (200, 500), "a second");
    let mut slow = throughput(1);
    calls(&mut slow, 3, 800).await;
    assert_eq!((slow.setting().size, slow.batch()), (50, 125));
}
