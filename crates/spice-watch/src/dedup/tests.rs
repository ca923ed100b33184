use testserver::{postgres_token, token};

use super::{Delivered, HALF, Kind, PostgresRevision, Revision, Txids};

fn snapshot(xmin: u64, xmax: u64, in_progress: &[u64]) -> PostgresRevision {
    PostgresRevision {
        xmin,
        xmax,
        in_progress: in_progress.to_vec(),
        txid: None,
        timestamp_nanos: None,
    }
}

/// What a transaction that saw this snapshot has written.
fn written(txid: u64, snapshot: PostgresRevision) -> Revision {
    Revision::Postgres(PostgresRevision {
        txid: Some(txid),
        ..snapshot
    })
}

fn after(start: &PostgresRevision) -> Delivered {
    Delivered::before(&postgres_token(start))
}

#[test]
fn a_revision_is_new_once_for_each_kind() {
    for (mut seen, revision) in [
        (Delivered::before(&token(0)), Revision::Integer(1)),
        (
            after(&snapshot(10, 10, &[])),
            written(10, snapshot(10, 10, &[])),
        ),
    ] {
        for kind in [Kind::Transaction, Kind::Schema, Kind::Checkpoint] {
            assert!(!seen.contains(&revision, kind), "{kind:?}");
            assert!(seen.insert(&revision, kind), "{kind:?}");
            assert!(!seen.insert(&revision, kind), "{kind:?}");
        }
    }
}

#[test]
fn the_newest_are_remembered_and_the_oldest_forgotten() {
    let mut seen = Delivered::before(&token(0));
    let mut is_new =
        |number: usize| seen.insert(&Revision::Integer(number as u64 + 1), Kind::Transaction);
    assert!((0..3 * HALF).all(&mut is_new));
    assert!(!(2 * HALF..3 * HALF).any(&mut is_new));
    assert!(is_new(0));
}

#[test]
fn what_the_start_sees_was_delivered_and_what_ran_there_was_not() {
    let mut seen = after(&snapshot(10, 15, &[10, 12]));
    for (txid, is_new) in [
        (9, false),
        (10, true),
        (11, false),
        (12, true),
        (14, false),
        (15, true),
    ] {
        let revision = written(txid, snapshot(10, 10, &[]));
        assert_eq!(seen.insert(&revision, Kind::Transaction), is_new, "{txid}");
    }
}

#[test]
fn checkpoint_that_lacks_what_was_delivered_is_no_resume_point() {
    let mut seen = after(&snapshot(10, 10, &[]));
    // 10 is an import that stays open. 11 touches, and is delivered.
    assert!(seen.insert(&written(11, snapshot(10, 11, &[10])), Kind::Transaction));
    assert!(seen.is_resume_point(&Revision::Postgres(snapshot(10, 12, &[10]))));
    // 12 deletes what 11 has touched, and the import ends: one answer holds both.
    assert!(seen.insert(&written(12, snapshot(10, 12, &[10])), Kind::Transaction));
    assert!(seen.insert(&written(10, snapshot(10, 10, &[])), Kind::Transaction));
    let of_the_import = Revision::Postgres(snapshot(11, 13, &[11]));
    assert!(!seen.is_resume_point(&of_the_import));
    // What comes again from there was delivered.
    assert!(!seen.insert(&written(11, snapshot(10, 11, &[10])), Kind::Transaction));
    assert!(!seen.is_resume_point(&written(11, snapshot(10, 12, &[10]))));
    // The next transaction sees everything.
    assert!(seen.insert(&written(13, snapshot(13, 13, &[])), Kind::Transaction));
    assert!(seen.is_resume_point(&Revision::Postgres(snapshot(14, 14, &[]))));
}

#[test]
fn checkpoint_that_lacks_a_delivered_schema_is_no_resume_point() {
    let mut seen = after(&snapshot(10, 10, &[]));
    assert!(seen.insert(&written(11, snapshot(10, 11, &[10])), Kind::Schema));
    assert!(!seen.is_resume_point(&Revision::Postgres(snapshot(11, 12, &[11]))));
    assert!(seen.is_resume_point(&Revision::Postgres(snapshot(12, 12, &[]))));
}

#[test]
fn checkpoints_of_other_datastores_are_resume_points() {
    let mut seen = Delivered::before(&token(5));
    assert!(seen.insert(&Revision::Integer(9), Kind::Transaction));
    assert!(seen.is_resume_point(&Revision::Integer(7)));
}

#[test]
fn ranges_grow_together() {
    let mut ids = Txids::default();
    for txid in [5, 9, 7, 6, 8, 5, 3] {
        ids.insert(txid);
    }
    assert_eq!(ids.0.into_iter().collect::<Vec<_>>(), [(3, 4), (5, 10)]);
}

/// Of everything that a snapshot may hold, against a plain set.
#[test]
fn ranges_are_the_set_that_a_snapshot_sees() {
    for running in 0..1_u64 << 6 {
        let in_progress: Vec<u64> = (0..6)
            .filter(|n| running >> n & 1 == 1)
            .map(|n| 10 + n)
            .collect();
        let seen = Txids::seen_by(&snapshot(10, 16, &in_progress));
        for txid in 0..20 {
            let is_seen = txid < 16 && !in_progress.contains(&txid);
            assert_eq!(seen.contains(txid), is_seen, "{txid} of {in_progress:?}");
        }
        for other in 0..1_u64 << 6 {
            let others: Vec<u64> = (0..6)
                .filter(|n| other >> n & 1 == 1)
                .map(|n| 10 + n)
                .collect();
            let other_seen = Txids::seen_by(&snapshot(10, 16, &others));
            assert_eq!(
                seen.include(&other_seen),
                running & !other == 0,
                "{running:b} {other:b}"
            );
        }
    }
}
