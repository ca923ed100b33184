//! Of a damaged snapshot nothing is written, its schema included.

use fuzz::{Edit, Kind, damage};
use testdata::Sample;

use super::in_parallel;
use crate::copy::{export, import, stream_of};
use crate::support::spicedb::{Datastore, Server};
use crate::support::{figure, repeat};

/// A damage: mostly one bit or byte, else a line or the end.
fn edit(rng: &mut fastrand::Rng) -> Edit {
    let place = rng.u32(..);
    match rng.u8(..8) {
        0 => Edit::Cut(place),
        1 => Edit::DeleteLine(rng.u16(..)),
        2 => Edit::RepeatLine(rng.u16(..), rng.u16(..)),
        3 => Edit::Remove(place),
        4 => Edit::Insert(place, rng.u8(..)),
        // In the header, where the schema is.
        5 => Edit::Flip(rng.u32(..8 * 3_000)),
        _ => Edit::Flip(place),
    }
}

/// Whether nothing at all was written to a new server.
fn has_no_schema(server: &Server) -> bool {
    let exported = export(server).run().expect_code(1);
    exported.stderr.contains("has no schema")
}

#[test]
fn streams_damaged_at_random_leave_a_target_as_it_was() {
    let server = Server::start(Datastore::Memory);
    let streams = [1, 30, 3_000].map(|count| stream_of(Sample::rich(count)));
    let rounds = repeat(100, 1_000) as usize;
    let refused = std::sync::atomic::AtomicUsize::new(0);
    in_parallel(rounds, |round| {
        let mut rng = fastrand::Rng::with_seed(round as u64);
        let sound = &streams[round % streams.len()];
        let edit = edit(&mut rng);
        let damaged = damage(sound, std::slice::from_ref(&edit));
        // Another spelling of the same is no damage.
        if Kind::Snapshot.read(damaged.as_slice()).is_ok() {
            return;
        }
        let finished = import(&server).input(damaged).run();
        assert_eq!(
            finished.code(),
            Some(65),
            "{round}: {edit:?}: {}",
            finished.stderr
        );
        refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    let refused = refused.into_inner();
    figure(&format!(
        "{refused} of {rounds} streams were damaged: the target is as it was"
    ));
    assert!(refused * 10 > rounds * 8, "{refused} of {rounds}");
    assert!(has_no_schema(&server));
    // And it takes a sound one.
    import(&server)
        .input(streams[1].clone())
        .run()
        .expect_success();
}

#[test]
fn altered_schema_is_refused_before_the_first_transaction() {
    let server = Server::start(Datastore::Memory);
    // More than one transaction.
    let stream = stream_of(Sample::portable(60_000));
    let text = b"definition user";
    let place = stream.windows(text.len()).position(|at| at == text);
    let mut altered = stream.clone();
    altered[place.unwrap() + text.len() - 1] = b's';
    let finished = import(&server).input(altered).run().expect_code(65);
    assert!(
        finished.stderr.contains("header altered"),
        "{}",
        finished.stderr
    );
    assert!(has_no_schema(&server));
}
