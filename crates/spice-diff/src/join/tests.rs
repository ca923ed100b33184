use std::collections::{BTreeMap, BTreeSet};

use authzed::v1::{ContextualizedCaveat, ObjectReference, Relationship, SubjectReference};
use proptest::prelude::*;
use prost::Message as _;
use spice_record::ExpiryPrecision;
use spice_record::digest::key_digest;

use super::{Difference, Row, Side, Table};
use crate::spill::Folder;

/// What a relationship holds beside its key: an expiry in nanoseconds, a caveat with a number in its
/// context or none.
type State = (Option<i32>, Option<(bool, Option<u8>)>);

fn any_state() -> impl Strategy<Value = State> {
    let caveat = (any::<bool>(), prop::option::of(0..2_u8));
    (prop::option::of(0..3_000_i32), prop::option::of(caveat))
}

fn caveat((first, number): (bool, Option<u8>)) -> ContextualizedCaveat {
    let value = |number: u8| prost_types::Value {
        kind: Some(prost_types::value::Kind::NumberValue(f64::from(number))),
    };
    let field = |number| ("number".to_owned(), value(number));
    ContextualizedCaveat {
        caveat_name: if first { "first" } else { "second" }.to_owned(),
        context: number.map(|number| {
            authzed::JsonObject(prost_types::Struct {
                fields: [field(number)].into(),
            })
        }),
    }
}

/// A relationship that differs from others by `id` alone.
fn relationship(id: u16, (expiry, condition): State) -> Relationship {
    let object = |object_type: &str, object_id: String| {
        Some(ObjectReference {
            object_type: object_type.to_owned(),
            object_id,
        })
    };
    Relationship {
        resource: object(
            "document",
            format!("{id}{}", "x".repeat(usize::from(id % 300))),
        ),
        relation: "viewer".to_owned(),
        subject: Some(SubjectReference {
            object: object("user", "u".to_owned()),
            optional_relation: String::new(),
        }),
        optional_caveat: condition.map(caveat),
        optional_expires_at: expiry.map(|nanos| prost_types::Timestamp { seconds: 1, nanos }),
    }
}

fn row(side: Side, relationship: &Relationship) -> Row {
    Row {
        side,
        key: key_digest(relationship).0,
        message: relationship.encode_to_vec().into_boxed_slice(),
    }
}

/// What the table reports, as lines.
fn differences(rows: Vec<Row>, memory: usize, precision: ExpiryPrecision) -> BTreeSet<String> {
    let mut table = Table::new(memory, Folder::new(&std::env::temp_dir()));
    for row in rows {
        table.add(row).unwrap();
    }
    let mut reported = BTreeSet::new();
    table
        .finish(precision, &mut |difference| {
            assert!(reported.insert(line(&difference)), "reported twice");
            Ok(())
        })
        .unwrap();
    reported
}

fn line(difference: &Difference) -> String {
    format!("{difference:?}")
}

type Set = BTreeMap<u16, State>;

/// The same by comparing two maps.
fn naive(a: &Set, b: &Set, precision: ExpiryPrecision) -> BTreeSet<String> {
    let cut = |(expiry, caveat): &State| (expiry.map(|nanos| precision.cut(nanos)), *caveat);
    let missing_or_changed = b.iter().filter_map(|(id, state)| {
        let relationship = relationship(*id, *state);
        match a.get(id) {
            None => Some(Difference::Missing(relationship)),
            Some(other) if cut(other) != cut(state) => Some(Difference::Changed(relationship)),
            Some(_) => None,
        }
    });
    let extra = a.iter().filter(|(id, _)| !b.contains_key(id));
    let extra = extra.map(|(id, state)| Difference::Extra(relationship(*id, *state)));
    missing_or_changed
        .chain(extra)
        .map(|one| line(&one))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn join_equals_a_naive_comparison_at_any_memory_limit(
        a in prop::collection::btree_map(0..600_u16, any_state(), 0..120),
        b in prop::collection::btree_map(0..600_u16, any_state(), 0..120),
        memory in prop::sample::select(vec![1_usize, 2_000, 20_000, 1 << 20]),
        precision in prop::sample::select(vec![ExpiryPrecision::Micros, ExpiryPrecision::Seconds]),
        shuffle in any::<u64>(),
    ) {
        let rows_of = |side, set: &Set| -> Vec<Row> {
            set.iter().map(|(id, state)| row(side, &relationship(*id, *state))).collect()
        };
        let mut rows = rows_of(Side::A, &a);
        rows.extend(rows_of(Side::B, &b));
        rows.sort_by_key(|row| (row.key as u64).wrapping_mul(shuffle | 1) ^ (row.side as u64));
        prop_assert_eq!(differences(rows, memory, precision), naive(&a, &b, precision));
    }
}

#[test]
fn duplicate_relationship_is_reported_with_its_side() {
    for memory in [1 << 20, 1] {
        let mut table = Table::new(memory, Folder::new(&std::env::temp_dir()));
        let one = relationship(1, (None, None));
        let other = relationship(1, (Some(7), None));
        for relationship in [&one, &other] {
            table.add(row(Side::A, relationship)).unwrap();
        }
        let mut reported = Vec::new();
        let finished = table.finish(ExpiryPrecision::Micros, &mut |difference| {
            reported.push(difference);
            Ok(())
        });
        finished.unwrap();
        assert!(
            matches!(reported.first(), Some(Difference::Duplicate(Side::A, _))),
            "{reported:?}"
        );
    }
    let failure = super::duplicate_error(Side::B, &relationship(1, (None, None)));
    assert_eq!(failure.exit, spice_cli::Exit::BadData);
    assert!(
        failure.message().contains("B holds"),
        "{}",
        failure.message()
    );
}
