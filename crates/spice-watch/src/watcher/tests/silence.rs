//! Lost history, silence and dead connections.

use super::*;

#[tokio::test(start_paused = true)]
async fn lost_history_is_detected_before_the_watch_opens() {
    let mut rig = Rig::new([Reply::message(&transaction(9, &["a"])).silence()]);
    let expired = Reply::error(Code::OutOfRange, "the specified zedtoken has expired");
    rig.server.script(EXPORT, [expired]);
    let failure = rig.until(9).await.unwrap_err();
    assert_eq!(failure.exit, Exit::HistoryLost);
    assert!(failure.message().contains(&token(1)), "{failure:?}");
    assert!(rig.emitted().is_empty());
    assert_eq!(rig.server.calls(WATCH), 0);
}

#[tokio::test(start_paused = true)]
async fn history_lost_while_the_watch_opens_emits_nothing() {
    let mut rig = Rig::new([Reply::message(&transaction(9, &["a"])).silence()]);
    let expired = Reply::error(Code::OutOfRange, "the specified zedtoken has expired");
    rig.server.script(EXPORT, [Reply::empty(), expired]);
    let failure = rig.until(9).await.unwrap_err();
    assert_eq!(failure.exit, Exit::HistoryLost);
    assert!(rig.emitted().is_empty());
}

#[tokio::test(start_paused = true)]
async fn history_lost_during_silence_is_found_within_seconds() {
    let mut rig = Rig::new([Reply::silent()]);
    let expired = Reply::error(Code::OutOfRange, "expired");
    rig.server
        .script(EXPORT, [Reply::empty(), Reply::empty(), expired]);
    let began = Instant::now();
    let failure = rig.until(9).await.unwrap_err();
    assert_eq!(failure.exit, Exit::HistoryLost);
    assert_eq!(began.elapsed().as_secs(), 20, "the second check of silence");
}

#[tokio::test(start_paused = true)]
async fn silence_alone_neither_ends_nor_reopens_a_watch() {
    let reply = Reply::empty().pause(90 * MINUTE).then(&checkpoint(2));
    let mut rig = Rig::new([reply.silence()]);
    assert!(reached(&rig.until(2).await));
    assert_eq!(rig.server.calls(WATCH), 1);
    assert!(rig.server.calls(EXPORT) > 500, "one check each 10 s");
}

#[tokio::test(start_paused = true)]
async fn unanswered_check_means_that_the_connection_is_dead() {
    let second = Reply::message(&checkpoint(2)).silence();
    let mut rig = Rig::new([Reply::silent(), second]);
    rig.server
        .script(EXPORT, [Reply::empty(), Reply::silent(), Reply::empty()]);
    let began = Instant::now();
    assert!(reached(&rig.until(2).await));
    assert_eq!(
        began.elapsed().as_secs(),
        25,
        "10 s of silence, 15 s without an answer"
    );
    assert_eq!(rig.server.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn slow_connections_get_twice_the_time_at_each_attempt() {
    let silent = (0..3).map(|_| Reply::silent());
    let mut rig = Rig::new(silent.chain([Reply::message(&checkpoint(2)).silence()]));
    let attempt = [Reply::empty(), Reply::silent()];
    let attempts = attempt.iter().cycle().take(6).cloned();
    rig.server.script(EXPORT, attempts.chain([Reply::empty()]));
    let began = Instant::now();
    assert!(reached(&rig.until(2).await));
    assert_eq!(began.elapsed().as_secs(), 3 * 10 + 15 + 30 + 60);
}
