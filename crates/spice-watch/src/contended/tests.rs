use authzed::v1::{
    ContextualizedCaveat, ObjectReference, Relationship, RelationshipUpdate, SubjectReference,
    relationship_update::Operation,
};
use prost_types::{Struct, Timestamp, Value, value::Kind};
use spice_client::lookup::{ByKey, key};
use tokio::time::{Duration, Instant};

use super::{Contended, LONGEST, MOST};

const SETTLE: Duration = Duration::from_secs(5);

fn relationship(id: &str) -> Relationship {
    let object = |object_type: &str, object_id: &str| ObjectReference {
        object_type: object_type.to_owned(),
        object_id: object_id.to_owned(),
    };
    Relationship {
        resource: Some(object("item", id)),
        relation: "holder".to_owned(),
        subject: Some(SubjectReference {
            object: Some(object("user", "eve")),
            optional_relation: String::new(),
        }),
        ..Relationship::default()
    }
}

fn limited(id: &str, limit: f64) -> Relationship {
    let kind = Some(Kind::NumberValue(limit));
    let fields = [("limit".to_owned(), Value { kind })].into();
    Relationship {
        optional_caveat: Some(ContextualizedCaveat {
            caveat_name: "within".to_owned(),
            context: Some(Struct { fields }.into()),
        }),
        ..relationship(id)
    }
}

fn expiring(id: &str, seconds: i64, nanos: i32) -> Relationship {
    Relationship {
        optional_expires_at: Some(Timestamp { seconds, nanos }),
        ..relationship(id)
    }
}

fn update(operation: Operation, relationship: Relationship) -> RelationshipUpdate {
    RelationshipUpdate {
        operation: operation.into(),
        relationship: Some(relationship),
    }
}

fn touch(relationship: Relationship) -> RelationshipUpdate {
    update(Operation::Touch, relationship)
}

fn delete(id: &str) -> RelationshipUpdate {
    update(Operation::Delete, relationship(id))
}

/// A source, of which some was followed already.
struct Source {
    contended: Contended,
    began: Instant,
    there: ByKey<Relationship>,
}

impl Source {
    fn new(must_reread: bool) -> Self {
        let began = Instant::now();
        Self {
            contended: Contended::new(SETTLE, must_reread, began),
            began,
            there: ByKey::new(),
        }
    }

    fn holds(mut self, relationships: &[Relationship]) -> Self {
        let keyed = relationships.iter().map(|one| (key(one), one.clone()));
        self.there = keyed.collect();
        self
    }

    /// A round whose end was seen as head after so many seconds: how many are read, and what is written.
    fn round(
        &mut self,
        seconds: u64,
        revisions: &[Vec<RelationshipUpdate>],
    ) -> (usize, Vec<RelationshipUpdate>) {
        self.contended
            .begin(self.began + Duration::from_secs(seconds));
        for updates in revisions {
            self.contended.track(updates);
        }
        self.end()
    }

    fn end(&mut self) -> (usize, Vec<RelationshipUpdate>) {
        let due = self.contended.due(true);
        let now = jiff::Timestamp::now();
        let (wrong, _) = self.contended.compare(&due, &self.there, now);
        self.contended.checkpoint(true);
        (due.len(), wrong)
    }
}

#[test]
fn a_touch_at_90_that_a_delete_at_87_removed_is_deleted() {
    let mut source = Source::new(false);
    let revisions = [vec![delete("ch407")], vec![touch(relationship("ch407"))]];
    assert_eq!(source.round(0, &revisions), (1, vec![delete("ch407")]));
    assert_eq!(source.round(1, &[]), (0, vec![]), "once");
}

#[test]
fn only_changes_within_the_window_of_each_other_are_read() {
    for (apart, read) in [(1, 1), (9, 1), (30, 0)] {
        let mut source = Source::new(false);
        source.round(0, &[vec![delete("a")]]);
        // In between others change, so that revisions settle.
        for seconds in 1..apart {
            let other = touch(relationship(&format!("other{seconds}")));
            assert_eq!(source.round(seconds, &[vec![other]]).0, 0);
        }
        let found = source.round(apart, &[vec![touch(relationship("a"))]]);
        assert_eq!(found.0, read, "{apart} s apart");
    }
}

#[test]
fn a_pair_around_a_long_silence_of_the_source_is_read() {
    // Nothing settled in between: the second may have begun right after the first.
    let mut source = Source::new(false);
    source.round(0, &[vec![delete("a")]]);
    let found = source.round(3_600, &[vec![touch(relationship("a"))]]);
    assert_eq!(found, (1, vec![delete("a")]));
}

#[test]
fn what_a_later_revision_confirmed_is_read_again_however_many_there_are() {
    let all: Vec<Relationship> = (0..=MOST).map(|n| relationship(&n.to_string())).collect();
    let updates: Vec<RelationshipUpdate> = all.iter().cloned().map(touch).collect();
    let Source {
        mut contended,
        began,
        there: complete,
    } = Source::new(true).holds(&all);
    contended.begin(began);
    contended.track(&updates);
    contended.track(&updates);
    let now = jiff::Timestamp::now();
    let mut there = complete.clone();
    there.remove(&key(&all[7]));
    let mut due = contended.due(true);
    let doubtful = contended.doubtful(&due, &there, now);
    assert_eq!(doubtful, [updates[7].clone()]);
    super::confirm(&doubtful, &mut complete.clone(), &mut there, now);
    // Nothing has room any more when it comes.
    due.sort_by_key(|update| *update == updates[7]);
    assert_eq!(contended.compare(&due, &there, now), (Vec::new(), 0));
    contended.checkpoint(true);
    contended.begin(began + SETTLE);
    assert!(contended.due(true).contains(&updates[7]));
}

#[test]
fn only_states_that_differ_from_the_stream_are_corrected() {
    let swapped = limited("a", 1.0);
    let mut source = Source::new(false).holds(&[swapped.clone(), relationship("b")]);
    let revisions = [
        vec![touch(swapped.clone()), touch(limited("b", 3.0))],
        vec![touch(limited("a", 2.0)), touch(relationship("b"))],
    ];
    assert_eq!(source.round(0, &revisions), (2, vec![touch(swapped)]));
}

#[test]
fn expired_equals_absent_and_nanoseconds_are_compared() {
    let precise = expiring("b", 32_503_680_000, 123_456_789);
    let mut source = Source::new(false).holds(std::slice::from_ref(&precise));
    let revisions = [
        vec![delete("a"), delete("b"), delete("c")],
        vec![
            touch(expiring("a", 1_000, 0)),
            touch(expiring("b", 32_503_680_000, 123_456_000)),
            touch(expiring("c", 32_503_680_000, 0)),
        ],
    ];
    let (read, mut wrong) = source.round(0, &revisions);
    wrong.sort_by_key(|update| update.operation);
    assert_eq!((read, wrong), (3, vec![touch(precise), delete("c")]));
}

#[test]
fn with_an_unknown_past_all_changes_of_the_window_are_read() {
    let mut source = Source::new(false);
    source.contended.past_is_unknown(source.began);
    let mut read = |seconds: u64| {
        let one = touch(relationship(&format!("new{seconds}")));
        source.round(seconds, &[vec![one]])
    };
    // The DELETE at 87 came before the start.
    assert_eq!(read(0), (1, vec![delete("new0")]));
    assert_eq!(read(9).0, 1);
    assert_eq!(read(11).0, 1, "it may have begun at 9 s");
    assert_eq!(read(12).0, 0);
}

#[test]
fn all_contended_relationships_are_corrected_at_the_end() {
    for is_past_known in [true, false] {
        let mut source = Source::new(false).holds(&[relationship("a"), relationship("b")]);
        if !is_past_known {
            source.contended.past_is_unknown(source.began);
        }
        let changes = [vec![delete("a")], vec![touch(relationship("a"))]];
        source.contended.track(&changes.concat());
        source.contended.track(&[touch(relationship("b"))]);
        source
            .contended
            .begin_last(source.began + Duration::from_secs(1));
        // The other one was seen to change once.
        assert_eq!(source.end().1, [touch(relationship("a"))]);
    }
}

#[test]
fn memory_is_read_again_after_a_settle_time_and_at_the_end() {
    let mut source = Source::new(true).holds(&[relationship("a")]);
    let revisions = [vec![delete("a")], vec![touch(relationship("a"))]];
    assert_eq!(source.round(0, &revisions), (1, vec![]));
    // The snapshot lacked a transaction that was overtaken.
    source.there.clear();
    assert_eq!(source.round(4, &[]), (0, vec![]));
    assert_eq!(source.round(5, &[]), (1, vec![delete("a")]));
    assert_eq!(source.round(20, &[]), (0, vec![]), "twice is enough");
    source.round(21, &revisions);
    source
        .contended
        .begin_last(source.began + Duration::from_secs(22));
    assert_eq!(source.end().0, 1, "at once at the end");
}

#[test]
fn states_in_the_stream_count_when_it_is_resumed() {
    let mut source = Source::new(false);
    source.contended.track(&[delete("a")]);
    source.contended.track(&[touch(relationship("a"))]);
    source.contended.track_read(&[delete("a"), delete("other")]);
    assert_eq!(source.round(0, &[]), (1, vec![]));
}

/// A TOUCH was read at a revision whose snapshot lacked it, and the stream was stopped before the second read.
#[test]
fn state_read_wrongly_before_a_resume_is_read_again() {
    let mut source = Source::new(true).holds(&[relationship("a")]);
    source.contended.track(&[touch(relationship("a"))]);
    source.contended.track_read(&[delete("a")]);
    source
        .contended
        .begin_last(source.began + Duration::from_secs(1));
    assert_eq!(source.end(), (1, vec![touch(relationship("a"))]));
}

#[test]
fn what_is_left_out_counts_as_a_change_and_is_not_read_itself() {
    let mut source = Source::new(false);
    source.contended.track_skipped(&[delete("a")]);
    source.contended.track_skipped(&[touch(relationship("a"))]);
    assert_eq!(source.round(0, &[]).0, 0);
    assert_eq!(source.round(1, &[vec![touch(relationship("a"))]]).0, 1);
}

#[test]
fn rounds_are_cut_when_they_are_long_or_much_has_to_be_read() {
    let mut contended = Contended::new(SETTLE, false, Instant::now());
    let updates = |count: usize| -> Vec<RelationshipUpdate> {
        let ids = (0..count).map(|n| touch(relationship(&n.to_string())));
        ids.collect()
    };
    contended.track(&updates(MOST));
    assert!(!contended.is_long());
    contended.track(&updates(MOST));
    assert!(contended.is_full() && contended.is_long());
    let due = contended.due(false);
    contended.compare(&due, &ByKey::new(), jiff::Timestamp::now());
    assert!(!contended.is_full() && !contended.is_long());
    contended.track(&updates(LONGEST));
    assert!(contended.is_long());
    contended.checkpoint(false);
    assert!(!contended.needs_checkpoint());
}
