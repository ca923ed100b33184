use std::time::Duration;

use super::{Lag, Policy, Rejects, Unsafe, is_verified, safe_to_cut_over};
use crate::state::{Found, Verdict};
use crate::time::Instant;

fn at(second: u32) -> Instant {
    format!("2026-01-01T01:{:02}:{:02}Z", second / 60, second % 60)
        .parse()
        .unwrap()
}

/// Now is 01:10:00.
const NOW: u32 = 600;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn good() -> Lag {
    Lag {
        is_captured: true,
        is_followed: true,
        is_applied: true,
        heard: Some(seconds(1)),
        behind: Duration::ZERO,
        capture_lag: Some(seconds(1)),
    }
}

fn policy() -> Policy {
    Policy {
        max_lag: "10s".parse().unwrap(),
        max_verify_age: Some("5m".parse().unwrap()),
        grace: Duration::ZERO,
        heartbeat: seconds(30),
        settle: seconds(35),
    }
}

fn verdict(found: Found, second: u32) -> Verdict {
    Verdict {
        found,
        since: at(second),
        what: String::new(),
    }
}

fn judge(lag: &Lag, verdict: Option<&Verdict>) -> Result<(), Unsafe> {
    safe_to_cut_over(lag, verdict, None, &policy(), at(NOW))
}

#[test]
fn each_measure_forbids_it_from_its_bound_on() {
    let equal = verdict(Found::Equal, NOW - 60);
    let with = |change: fn(&mut Lag)| {
        let mut lag = good();
        change(&mut lag);
        judge(&lag, Some(&equal))
    };
    assert_eq!(with(|_| {}), Ok(()));
    let silent = Unsafe::Silent {
        heard: seconds(71),
        heartbeat: seconds(30),
    };
    type Case = (fn(&mut Lag), Result<(), Unsafe>);
    let cases: [Case; 11] = [
        (|lag| lag.is_captured = false, Err(Unsafe::NothingCaptured)),
        (|lag| lag.is_followed = false, Err(Unsafe::NotFollowed)),
        (|lag| lag.is_applied = false, Err(Unsafe::NothingApplied)),
        (|lag| lag.heard = None, Err(Unsafe::SegmentMissing)),
        (|lag| lag.heard = Some(seconds(70)), Ok(())),
        (|lag| lag.heard = Some(seconds(71)), Err(silent)),
        (|lag| lag.behind = seconds(10), Ok(())),
        (
            |lag| lag.behind = seconds(11),
            Err(Unsafe::Behind(seconds(11))),
        ),
        (|lag| lag.capture_lag = None, Ok(())),
        (|lag| lag.capture_lag = Some(seconds(45)), Ok(())),
        (
            |lag| lag.capture_lag = Some(seconds(46)),
            Err(Unsafe::Late(seconds(46))),
        ),
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        assert_eq!(with(change), expected, "case {number}");
    }
}

#[test]
fn only_a_young_equal_verdict_counts() {
    let lag = good();
    assert_eq!(judge(&lag, None), Err(Unsafe::NotVerified));
    let undecided = verdict(Found::Undecided, NOW - 1);
    assert_eq!(judge(&lag, Some(&undecided)), Err(Unsafe::NotVerified));
    let different = verdict(Found::Different, NOW - 1);
    let found = judge(&lag, Some(&different));
    assert_eq!(found, Err(Unsafe::Different(different.clone())));
    assert_eq!(judge(&lag, Some(&verdict(Found::Equal, NOW - 300))), Ok(()));
    let old = verdict(Found::Equal, NOW - 301);
    assert_eq!(
        judge(&lag, Some(&old)),
        Err(Unsafe::VerifiedTooLongAgo(old.since))
    );
    // Without the proof a found difference forbids it all the same.
    let careless = Policy {
        max_verify_age: None,
        ..policy()
    };
    let judge = |verdict| safe_to_cut_over(&lag, verdict, None, &careless, at(NOW));
    assert_eq!(judge(None), Ok(()));
    assert_eq!(
        judge(Some(&different)),
        Err(Unsafe::Different(different.clone()))
    );
}

#[test]
fn grace_lengthens_the_age_and_a_verdict_of_the_future_is_young() {
    let patient = Policy {
        grace: seconds(60),
        ..policy()
    };
    let found = |second| is_verified(Some(at(second)), &patient, at(NOW));
    assert_eq!(found(NOW - 360), Ok(()));
    assert!(found(NOW - 361).is_err());
    assert_eq!(found(NOW + 5), Ok(()));
    assert_eq!(
        is_verified(None, &patient, at(NOW)),
        Err(Unsafe::NotVerified)
    );
}

#[test]
fn refused_updates_count_from_the_verdict_on() {
    let rejects = |second| Rejects {
        file: "rejects".into(),
        at: at(second),
    };
    let equal = verdict(Found::Equal, NOW - 60);
    let judge = |second, verdict| {
        safe_to_cut_over(&good(), verdict, Some(&rejects(second)), &policy(), at(NOW))
    };
    let refused = Err(Unsafe::Refused("rejects".into()));
    assert_eq!(judge(NOW - 61, Some(&equal)), Ok(()));
    assert_eq!(judge(NOW - 60, Some(&equal)), refused);
    assert_eq!(judge(NOW - 499, None), refused);
}

#[test]
fn each_reason_names_its_end_and_what_to_do() {
    let reasons = [
        (Unsafe::NothingCaptured, "captured", None),
        (Unsafe::NotFollowed, "follow is not running", None),
        (Unsafe::NothingApplied, "applied", None),
        (Unsafe::SegmentMissing, "segment", None),
        (
            Unsafe::Different(verdict(Found::Different, 0)),
            "new different",
            Some("run: verify-it"),
        ),
        (
            Unsafe::Silent {
                heard: seconds(90),
                heartbeat: seconds(30),
            },
            "old for 90 s, though it is asked every 30 s",
            None,
        ),
        (
            Unsafe::Behind(seconds(11)),
            "new is 11.000 s behind what was captured (--max-lag 10s)",
            None,
        ),
        (Unsafe::Late(seconds(60)), "--max-lag 10s", None),
        (
            Unsafe::Refused("rejects.ndjson".into()),
            "in rejects.ndjson",
            Some("run: verify-it"),
        ),
        (
            Unsafe::NotVerified,
            "new equal to old",
            Some("--skip-verify"),
        ),
        (
            Unsafe::VerifiedTooLongAgo(at(0)),
            "at 2026-01-01T01:00:00Z, more than 5m ago",
            Some("run: verify-it"),
        ),
    ];
    for (reason, why, remedy) in reasons {
        let described = reason.describe("old", "new", &policy(), "verify-it");
        assert!(described.why.contains(why), "{}", described.why);
        let found = described.remedy.as_deref().unwrap_or_default();
        assert_eq!(found.is_empty(), remedy.is_none(), "{found}");
        assert!(found.contains(remedy.unwrap_or_default()), "{found}");
    }
}
