//! What is taken early, what the settled stream need not write again, and what is kept for the next process.

use spice_client::scripted::{delete, text, token_of, touch};

use super::*;

fn revision(number: u64) -> String {
    token_of("sourcedb", &number.to_string())
}

fn updates(some: &[RelationshipUpdate]) -> Vec<Update> {
    some.iter().cloned().map(Update).collect()
}

fn texts(updates: &[Update]) -> Vec<String> {
    updates.iter().map(|Update(update)| text(update)).collect()
}

/// After everything through 100 has settled.
fn early() -> EarlyChanges {
    let mut early = EarlyChanges::default();
    early.settled(&revision(100));
    early
}

/// How many of these are written early, and acknowledged.
fn take(early: &mut EarlyChanges, number: u64, some: &[RelationshipUpdate]) -> usize {
    let taken = early.take(&revision(number), updates(some));
    early.acknowledged(&taken, [].iter());
    taken.len()
}

/// What is to be written of a settled transaction.
fn divide(early: &mut EarlyChanges, number: u64, some: &[RelationshipUpdate]) -> Vec<String> {
    texts(
        &early
            .divide(&revision(number), false, updates(some))
            .to_write,
    )
}

fn read_at_source(
    early: &mut EarlyChanges,
    number: u64,
    some: &[RelationshipUpdate],
) -> Vec<String> {
    texts(
        &early
            .divide(&revision(number), true, updates(some))
            .to_write,
    )
}

#[test]
fn what_was_written_early_is_not_written_again_and_confirmed_once() {
    let mut early = early();
    assert_eq!(take(&mut early, 101, &[touch("a"), delete("b")]), 2);
    assert_eq!(early.newest(), Some(revision(101).as_str()));
    assert_eq!(
        divide(&mut early, 101, &[touch("a"), delete("b"), touch("c")]),
        [text(&touch("c"))],
        "only what the live Watch lacked"
    );
    assert!(early.is_empty());
    let again = divide(&mut early, 102, &[touch("a")]);
    assert_eq!(again, [text(&touch("a"))]);
}

#[test]
fn what_is_left_out_for_a_refused_update_comes_back() {
    let mut early = early();
    early.take(&revision(110), updates(&[touch("a"), touch("b")]));
    for (number, update) in [(104, touch("a")), (105, delete("a"))] {
        assert!(divide(&mut early, number, &[update]).is_empty());
    }
    // Another one of the same relationship changes nothing about that.
    let waiting = early.take(&revision(112), updates(&[touch("a")]));
    let left_out = early.forget(&[touch("a"), touch("b")]);
    let left_out: Vec<_> = left_out
        .iter()
        .map(|one| (one.revision.clone(), text(&one.update)))
        .collect();
    assert_eq!(left_out, [(revision(105), text(&delete("a")))]);
    assert_eq!(waiting.len(), 1);
    // Of what was acknowledged nothing comes back.
    take(&mut early, 120, &[touch("c")]);
    divide(&mut early, 115, &[delete("c")]);
    assert!(early.forget(&[touch("c")]).is_empty());
}

#[test]
fn what_is_not_acknowledged_confirms_nothing() {
    let mut early = early();
    early.take(&revision(110), updates(&[touch("a"), touch("b")]));
    assert_eq!(
        divide(&mut early, 110, &[touch("a"), touch("b")]),
        [text(&touch("a")), text(&touch("b"))]
    );
    assert!(early.is_empty());
    // The acknowledgement of an update that another one has replaced.
    early.take(&revision(120), updates(&[touch("a")]));
    early.take(&revision(121), updates(&[delete("a")]));
    early.acknowledged(&[touch("a")], [].iter());
    assert_eq!(
        divide(&mut early, 121, &[delete("a")]),
        [text(&delete("a"))]
    );
}

/// A relationship that changes to and fro: the last update is not there with the first.
#[test]
fn acknowledgement_is_of_nothing_that_waits() {
    let mut early = early();
    let first = early.take(&revision(109), updates(&[touch("a"), touch("b")]));
    let mut waiting = early.take(&revision(110), updates(&[delete("a")]));
    waiting.extend(early.take(&revision(111), updates(&[touch("a")])));
    early.acknowledged(&first, waiting.iter());
    assert!(divide(&mut early, 109, &[touch("b")]).is_empty());
    assert_eq!(divide(&mut early, 111, &[touch("a")]), [text(&touch("a"))]);
}

#[test]
fn only_what_has_settled_must_have_come() {
    let mut early = early();
    take(&mut early, 110, &[touch("a")]);
    take(&mut early, 120, &[touch("b")]);
    assert!(early.is_confirmed_through(&revision(109)));
    assert!(!early.is_confirmed_through(&revision(110)));
    divide(&mut early, 110, &[touch("a")]);
    assert!(early.is_confirmed_through(&revision(119)));
    assert!(!early.is_confirmed_through(&revision(120)));
}

#[test]
fn what_is_refused_comes_with_the_settled_stream() {
    let mut early = early();
    let taken = early.take(&revision(110), updates(&[touch("a"), touch("b")]));
    early.acknowledged(&taken, [].iter());
    early.forget(&[touch("a")]);
    assert_eq!(
        divide(&mut early, 110, &[touch("a"), touch("b")]),
        [text(&touch("a"))]
    );
}

#[test]
fn late_revision_never_wins_over_a_later_early_one() {
    let mut early = early();
    take(&mut early, 110, &[delete("a")]);
    // 105 became visible late: the live Watch has never delivered it.
    assert!(divide(&mut early, 105, &[touch("a")]).is_empty());
    assert!(divide(&mut early, 110, &[delete("a")]).is_empty());
    assert!(early.is_empty());
}

#[test]
fn earlier_live_revision_is_not_written_over_a_later_one() {
    let mut early = early();
    take(&mut early, 110, &[delete("a")]);
    assert_eq!(take(&mut early, 105, &[touch("a"), touch("b")]), 1);
    assert_eq!(take(&mut early, 111, &[touch("a")]), 1);
}

#[test]
fn what_has_settled_before_it_comes_is_not_written_early() {
    let mut early = early();
    assert_eq!(take(&mut early, 100, &[touch("a")]), 0);
    early.settled(&revision(120));
    assert_eq!(take(&mut early, 119, &[touch("a")]), 0);
    assert_eq!(take(&mut early, 121, &[touch("a")]), 1);
    let mut unknown = EarlyChanges::default();
    assert_eq!(take(&mut unknown, 121, &[touch("a")]), 0);
}

#[test]
fn other_update_at_the_same_revision_is_written() {
    let mut early = early();
    take(&mut early, 101, &[touch("a")]);
    assert_eq!(
        divide(&mut early, 101, &[delete("a")]),
        [text(&delete("a"))]
    );
    assert!(early.is_empty());
}

#[test]
fn state_read_at_the_source_wins_unless_something_later_is_there() {
    let mut early = early();
    take(&mut early, 101, &[touch("a")]);
    take(&mut early, 103, &[touch("b")]);
    divide(&mut early, 101, &[touch("a")]);
    // The round ends at 102; a's transactions had overtaken each other.
    let states = [delete("a"), delete("b")];
    assert_eq!(
        read_at_source(&mut early, 102, &states),
        [text(&delete("a"))]
    );
    assert!(divide(&mut early, 103, &[touch("b")]).is_empty());
    // Identical to an event that has not come yet, it is still no event.
    take(&mut early, 105, &[touch("c")]);
    let states = [touch("c")];
    assert_eq!(
        read_at_source(&mut early, 105, &states),
        [text(&touch("c"))]
    );
}

#[test]
fn there_is_room_for_so_many_and_known_ones_are_still_taken() {
    let mut early = early();
    let many: Vec<_> = (0..=MOST).map(|id| touch(&id.to_string())).collect();
    assert_eq!(take(&mut early, 101, &many), MOST);
    assert_eq!(take(&mut early, 102, &[touch("0"), touch("other")]), 1);
    assert_eq!(divide(&mut early, 101, &many).len(), 1);
}

#[test]
fn what_is_kept_is_taken_once_and_at_its_position_only() {
    let folder = tempfile::tempdir().unwrap();
    let position = folder.path().join("position");
    let file = KeptFile::beside(&position);
    let save = || {
        let mut early = early();
        take(&mut early, 101, &[touch("a"), delete("b")]);
        file.save(&revision(100), &early);
        early
    };
    let saved = save();
    let taken = file.take(&revision(100));
    assert_eq!(taken.unconfirmed, saved.unconfirmed);
    assert!(file.take(&revision(100)).is_empty(), "once");
    save();
    assert!(file.take(&revision(99)).is_empty(), "another position");
    let mut pending = early();
    pending.take(&revision(101), updates(&[touch("a")]));
    file.save(&revision(100), &pending);
    assert!(file.take(&revision(100)).is_empty(), "in flight");
    // Cut or altered anywhere, it counts for nothing.
    let path = folder.path().join("position.early");
    save();
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(file.take(&revision(100)).is_empty(), "cut at {at}");
        let mut altered = whole.clone();
        altered[at] ^= 1;
        std::fs::write(&path, &altered).unwrap();
        assert!(file.take(&revision(100)).is_empty(), "altered at {at}");
    }
    file.save(&revision(100), &early());
    assert!(!path.exists());
}
