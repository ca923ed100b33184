//! Coalescing: whatever the batches are, the target ends as if every update were applied by itself.

use std::collections::{BTreeMap, HashSet, VecDeque};

use authzed::v1::{Relationship, RelationshipUpdate, relationship_update::Operation};
use futures::FutureExt as _;
use proptest::prelude::*;
use spice_cli::byte_channel::{Held, channel};
use spice_client::lookup::key;
use spice_client::scripted::{delete, relationship, text, touch, update};
use spice_record::digest::key_digest;
use spice_record::record::{SpoolOffset, Transaction};
use spice_record::relationship::Update;

use super::{Batch, TIP};
use crate::input::Step;

/// The steps as they are received.
fn held(steps: Vec<Step>) -> VecDeque<Held<Step>> {
    let (sender, mut receiver) = channel(1 << 20);
    let send = |step| sender.send(step, 1).now_or_never();
    assert!(steps.into_iter().all(|step| send(step) == Some(true)));
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

fn place(revision: u64) -> SpoolOffset {
    SpoolOffset {
        segment: 0,
        offset: revision,
    }
}

fn transaction(revision: u64, updates: Vec<RelationshipUpdate>) -> Transaction {
    Transaction {
        revision: revision.to_string(),
        updates: updates.into_iter().map(Update).collect(),
        ..Transaction::default()
    }
}

fn step(transaction: Transaction) -> Step {
    let place = place(transaction.revision.parse().unwrap_or_default());
    Step::Transaction(Box::new(transaction), place)
}

fn checkpoint(revision: u64) -> Step {
    Step::Checkpoint(revision.to_string(), place(revision))
}

const NO_END: &dyn Fn(&str) -> bool = &|_| false;

fn next(
    waiting: &mut VecDeque<Held<Step>>,
    most: usize,
    no_coalesce: bool,
    is_end: &dyn Fn(&str) -> bool,
) -> Option<Batch> {
    super::next(waiting, most, no_coalesce, false, is_end)
}

fn texts(batch: &Batch) -> Vec<String> {
    batch.updates.iter().map(text).collect()
}

fn revision(batch: &Batch) -> Option<&str> {
    let (revision, place) = batch.revision.as_ref()?;
    assert_eq!(
        place.offset.to_string(),
        *revision,
        "the place belongs to it"
    );
    Some(revision)
}

/// A backlog of transactions, each of which touches its own relationship.
fn backlog(count: u64) -> Vec<Step> {
    let one = |revision: u64| step(transaction(revision, vec![touch(&revision.to_string())]));
    (1..=count).map(one).collect()
}

#[test]
fn at_the_tip_each_revision_is_a_batch() {
    let mut waiting = held(backlog(TIP as u64));
    for expected in 1..=TIP {
        let batch = next(&mut waiting, 1_000, false, NO_END).expect("a batch");
        assert_eq!(revision(&batch), Some(expected.to_string().as_str()));
        assert!(batch.completes && !batch.is_part && batch.transactions == 1);
    }
    assert!(next(&mut waiting, 1_000, false, NO_END).is_none());
}

#[test]
fn a_backlog_is_coalesced_up_to_the_width() {
    let mut waiting = held(backlog(100));
    let batch = next(&mut waiting, 40, false, NO_END).expect("a batch");
    assert_eq!((batch.transactions, batch.updates.len()), (40, 40));
    assert_eq!(revision(&batch), Some("40"));
    assert!(batch.metadata.is_none(), "of no single writer");
}

#[test]
fn no_coalesce_writes_each_revision_of_a_backlog() {
    let mut waiting = held(backlog(100));
    let batch = next(&mut waiting, 1_000, true, NO_END).expect("a batch");
    assert_eq!((batch.transactions, revision(&batch)), (1, Some("1")));
}

#[test]
fn transactions_above_the_width_are_taken_two_at_a_time() {
    let mut steps = vec![step(transaction(
        1,
        (0..50).map(|id| touch(&format!("n{id}"))).collect(),
    ))];
    steps.extend(backlog(60).into_iter().skip(1));
    let mut waiting = held(steps);
    let batch = next(&mut waiting, 10, false, NO_END).expect("a batch");
    assert_eq!((batch.transactions, batch.updates.len()), (2, 51));
}

#[test]
fn last_update_of_a_relationship_wins_at_the_place_of_the_first() {
    let mut steps = vec![
        step(transaction(1, vec![touch("a"), touch("b")])),
        step(transaction(2, vec![delete("a"), touch("c")])),
        step(transaction(3, vec![delete("b")])),
        step(transaction(4, vec![touch("b")])),
    ];
    steps.extend(backlog(60).into_iter().skip(4));
    let mut waiting = held(steps);
    let batch = next(&mut waiting, 6, false, NO_END).expect("a batch");
    assert_eq!(texts(&batch)[..3], ["D a", "T b", "T c"]);
    // What came twice is contended.
    let keys = ["a", "b"].map(|id| key_digest(&relationship(id)).0);
    assert_eq!(batch.contended, HashSet::from(keys));
}

#[test]
fn parts_of_a_revision_are_batches_of_their_own() {
    let part = |number, last, id| {
        step(Transaction {
            part: Some(number),
            last_part: Some(last),
            ..transaction(1, vec![touch(id)])
        })
    };
    let mut steps = vec![part(1, false, "a"), part(2, true, "b")];
    steps.extend(backlog(60).into_iter().skip(1));
    let mut waiting = held(steps);
    let first = next(&mut waiting, 1_000, false, NO_END).expect("a batch");
    assert!(first.is_part && !first.completes && first.transactions == 0);
    let last = next(&mut waiting, 1_000, false, NO_END).expect("a batch");
    assert!(last.is_part && last.completes && last.transactions == 1);
    let rest = next(&mut waiting, 1_000, false, NO_END).expect("a batch");
    assert_eq!((rest.transactions, rest.is_part), (59, false));
}

#[test]
fn a_backlog_ends_before_a_part() {
    let mut steps = backlog(40);
    steps.push(step(Transaction {
        part: Some(1),
        ..transaction(41, vec![touch("x")])
    }));
    let batch = next(&mut held(steps), 1_000, false, NO_END).expect("a batch");
    assert_eq!(revision(&batch), Some("40"));
}

#[test]
fn checkpoints_between_revisions_are_taken_along() {
    let mut steps = Vec::new();
    for one in backlog(40) {
        let Step::Transaction(change, _) = &one else {
            continue;
        };
        let revision = change.revision.parse().unwrap_or_default();
        steps.extend([one, checkpoint(revision)]);
    }
    let mut waiting = held(steps);
    let batch = next(&mut waiting, 1_000, false, NO_END).expect("a batch");
    // The last one is not followed by a transaction: it is a step of its own.
    assert_eq!(batch.checkpoint, Some(("39".to_owned(), place(39))));
    assert!(!batch.ends_at_checkpoint);
    assert_eq!(revision(&batch), Some("40"));
    assert!(matches!(waiting[0].message, Step::Checkpoint(..)));
}

#[test]
fn a_batch_that_ends_at_a_checkpoint_is_marked() {
    let mut steps = backlog(2);
    steps.push(checkpoint(2));
    steps.extend(backlog(60).into_iter().skip(2));
    let batch = next(&mut held(steps), 1, false, NO_END).expect("a batch");
    assert_eq!(
        (revision(&batch), batch.ends_at_checkpoint),
        (Some("2"), true)
    );
    assert_eq!(batch.checkpoint, Some(("2".to_owned(), place(2))));
}

#[test]
fn a_checkpoint_that_is_the_end_is_left() {
    let mut steps = backlog(2);
    steps.insert(1, checkpoint(1));
    steps.extend(backlog(60).into_iter().skip(2));
    let mut waiting = held(steps);
    let batch = next(&mut waiting, 1_000, false, &|revision| revision == "1").expect("a batch");
    assert_eq!(
        (revision(&batch), batch.checkpoint.clone()),
        (Some("1"), None)
    );
    assert!(next(&mut waiting, 1_000, false, NO_END).is_none());
}

#[test]
fn other_steps_are_no_batch_and_stay() {
    let mut waiting = held(vec![Step::End(None)]);
    assert!(next(&mut waiting, 1_000, false, NO_END).is_none());
    assert_eq!(waiting.len(), 1);
    assert!(next(&mut VecDeque::new(), 1_000, false, NO_END).is_none());
}

#[test]
fn updates_without_revisions_are_coalesced() {
    let updates = vec![touch("a"), delete("b"), delete("a")];
    let batch = next(
        &mut held(vec![Step::Updates(updates)]),
        1_000,
        false,
        NO_END,
    );
    let batch = batch.expect("a batch");
    assert_eq!(texts(&batch), ["D a", "D b"]);
    assert!(batch.completes && batch.revision.is_none() && batch.contended.is_empty());
}

#[test]
fn metadata_of_one_writer_is_passed_on_and_of_several_is_not() {
    let metadata = |text: &str| serde_json::from_str(text).expect("metadata");
    for (count, passed) in [(0, false), (1, true), (2, false)] {
        let mut change = transaction(1, vec![touch("a")]);
        change.metadata = (0..count).map(|_| metadata(r#"{"by":"me"}"#)).collect();
        let batch = next(&mut held(vec![step(change)]), 1_000, false, NO_END);
        assert_eq!(
            batch.expect("a batch").metadata.is_some(),
            passed,
            "{count}"
        );
    }
}

#[test]
fn only_touches_and_bare_deletes_are_written() {
    let mut caveated = relationship("a");
    caveated.optional_caveat = Some(authzed::v1::ContextualizedCaveat {
        caveat_name: "c".to_owned(),
        context: None,
    });
    let updates = vec![
        update(Operation::Create, caveated.clone()),
        update(
            Operation::Delete,
            Relationship {
                optional_caveat: caveated.optional_caveat.clone(),
                ..relationship("b")
            },
        ),
    ];
    let batch = next(
        &mut held(vec![step(transaction(1, updates))]),
        9,
        false,
        NO_END,
    );
    let [touched, deleted] = batch.expect("a batch").updates.try_into().expect("two");
    assert_eq!(
        (text(&touched), text(&deleted)),
        ("T a".to_owned(), "D b".to_owned())
    );
    let caveat = |update: RelationshipUpdate| update.relationship.and_then(|it| it.optional_caveat);
    assert!(
        caveat(deleted).is_none(),
        "a name that the schema lacks is refused"
    );
    assert!(
        caveat(touched).is_some_and(|it| it.context.is_some()),
        "a change on MySQL otherwise"
    );
}

type State = BTreeMap<Vec<u8>, Relationship>;

fn apply(state: &mut State, update: &RelationshipUpdate) {
    let Some(relationship) = update.relationship.clone() else {
        return;
    };
    match update.operation() {
        Operation::Delete => state.remove(&key(&relationship)),
        _ => state.insert(key(&relationship), relationship),
    };
}

/// An update of one of five relationships; a touch has one of many states.
fn any_update() -> impl Strategy<Value = RelationshipUpdate> {
    (0..5_u8, any::<bool>(), 1..1_000_i64).prop_map(|(id, is_delete, seconds)| {
        let id = id.to_string();
        match is_delete {
            true => delete(&id),
            false => update(
                Operation::Touch,
                spice_client::scripted::expiring(&id, seconds),
            ),
        }
    })
}

#[derive(Clone, Debug)]
struct Change {
    updates: Vec<RelationshipUpdate>,
    contended: bool,
    parts: usize,
    checkpoint: bool,
}

fn any_change() -> impl Strategy<Value = Change> {
    let updates = prop::collection::vec(any_update(), 0..6);
    (
        updates,
        prop::bool::weighted(0.1),
        0..12_usize,
        any::<bool>(),
    )
        .prop_map(|(updates, contended, parts, checkpoint)| Change {
            updates,
            contended,
            // Most are on one line.
            parts: if parts < 10 { 1 } else { parts - 8 },
            checkpoint,
        })
}

fn steps_of(changes: &[Change]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (revision, change) in (1..).zip(changes) {
        let per_part = change.updates.len().div_ceil(change.parts).max(1);
        let mut parts: Vec<Vec<_>> = change.updates.chunks(per_part).map(<[_]>::to_vec).collect();
        parts.resize_with(parts.len().max(1), Vec::new);
        let count = parts.len();
        for (index, updates) in parts.into_iter().enumerate() {
            let is_cut = count > 1;
            steps.push(step(Transaction {
                contended: change.contended,
                part: is_cut.then_some(index as u64 + 1),
                last_part: is_cut.then_some(index + 1 == count),
                ..transaction(revision, updates)
            }));
        }
        if change.checkpoint {
            steps.push(checkpoint(revision));
        }
    }
    steps
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn batches_end_in_the_state_of_update_after_update(
        changes in prop::collection::vec(any_change(), 0..90),
        most in 1..40_usize,
        no_coalesce in prop::bool::weighted(0.2),
        end in 1..90_usize,
    ) {
        // The state after each revision.
        let mut states = vec![State::new()];
        for change in &changes {
            let mut state = states.last().cloned().unwrap_or_default();
            change.updates.iter().for_each(|update| apply(&mut state, update));
            states.push(state);
        }
        let end = end.to_string();
        let is_end = |revision: &str| revision == end;
        let mut waiting = held(steps_of(&changes));
        let (mut state, mut transactions, mut met_end) = (State::new(), 0, false);
        while !waiting.is_empty() {
            let Some(batch) = next(&mut waiting, most, no_coalesce, &is_end) else {
                let step = waiting.pop_front().map(|step| step.message);
                met_end |= matches!(step, Some(Step::Checkpoint(revision, _)) if revision == end);
                continue;
            };
            let keys: HashSet<_> = batch.updates.iter().filter_map(|it| it.relationship.as_ref()).map(key).collect();
            prop_assert_eq!(keys.len(), batch.updates.len(), "one update of each relationship");
            prop_assert!(batch.updates.len() <= most || batch.transactions <= 2);
            prop_assert!(batch.checkpoint.as_ref().is_none_or(|(revision, _)| *revision != end));
            batch.updates.iter().for_each(|update| apply(&mut state, update));
            transactions += batch.transactions;
            let (revision, _) = batch.revision.expect("changes have revisions");
            let revision: usize = revision.parse().expect("a number");
            if batch.completes {
                prop_assert_eq!(&state, &states[revision], "after revision {}", revision);
            }
        }
        prop_assert_eq!(&state, states.last().expect("a state"));
        prop_assert_eq!(transactions, changes.len() as u64);
        let has_end = end.parse().is_ok_and(|end: usize| changes.get(end - 1).is_some_and(|it| it.checkpoint));
        prop_assert_eq!(met_end, has_end, "the end is a step of its own");
    }

    #[test]
    fn what_changed_twice_or_was_read_is_contended(changes in prop::collection::vec(any_change(), 33..60)) {
        let mut seen: BTreeMap<u128, usize> = BTreeMap::new();
        let mut expected = HashSet::new();
        let mut waiting = held(steps_of(&changes));
        // All of the first batch.
        let count = waiting.len();
        let batch = next(&mut waiting, usize::MAX, false, NO_END).expect("a batch");
        let taken = (batch.transactions.max(1)) as usize;
        prop_assume!(count > TIP && !batch.is_part);
        for change in changes.iter().take(taken) {
            for update in &change.updates {
                let key = update.relationship.as_ref().map(|it| key_digest(it).0).unwrap_or_default();
                let times = seen.entry(key).or_default();
                *times += 1;
                if change.contended || *times > 1 {
                    expected.insert(key);
                }
            }
        }
        prop_assert_eq!(batch.contended, expected);
    }
}

#[test]
fn part_of_a_revision_is_held_back_behind_the_batch_before_it() {
    let many = (1..=40).map(|revision| step(transaction(revision, vec![touch("x")])));
    let part = Transaction {
        part: Some(1),
        ..transaction(41, vec![delete("x")])
    };
    let mut waiting = held(many.chain([step(part)]).collect());
    let mut before = next(&mut waiting, 1_000, false, NO_END).unwrap();
    assert_eq!(
        before.hold_back(&super::Indices::new()),
        1,
        "nothing is before it"
    );
    let mut part = next(&mut waiting, 1_000, false, NO_END).unwrap();
    assert!(part.is_part);
    assert_eq!(part.hold_back(&before.indices), 0);
}

#[test]
fn what_both_batches_hold_comes_last() {
    let batch = |from: u64, ids: [&str; 2]| {
        let steps = (from..from + 40).map(|revision| {
            let one = ids[usize::try_from(revision % 2).unwrap()];
            step(transaction(revision, vec![touch(one)]))
        });
        next(&mut held(steps.collect()), 1_000, false, NO_END).unwrap()
    };
    let before = batch(1, ["a", "b"]);
    let mut after = batch(100, ["b", "c"]);
    assert_eq!(after.hold_back(&before.indices), 1);
    assert_eq!(texts(&after), ["T c", "T b"]);
}
