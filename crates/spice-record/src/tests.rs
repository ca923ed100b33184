//! What must hold for every relationship that SpiceDB accepts.

use std::io::BufReader;

use authzed::v1::{ContextualizedCaveat, ObjectReference, Relationship, SubjectReference};
use proptest::prelude::*;
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Timestamp, Value};

use crate::checks::Comparison;
use crate::digest::{StoredSum, equal_at_precision};
use crate::record::StreamKind;
use crate::{
    DigestSum, ExpiryPrecision, Header, Integrity, ReadError, Record, RecordReader, SnapshotReader,
    SnapshotWriter,
};

fn object() -> impl Strategy<Value = ObjectReference> {
    // The patterns of the API's validation.
    let object_type = "([a-z][a-z0-9_]{1,20}[a-z0-9]/)?[a-z][a-z0-9_]{1,20}[a-z0-9]";
    let object_id = "[a-zA-Z0-9/_|\\-=+]{1,40}|\\*";
    (object_type, object_id).prop_map(|(object_type, object_id)| ObjectReference {
        object_type,
        object_id,
    })
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Kind::NullValue(0)),
        any::<bool>().prop_map(Kind::BoolValue),
        (proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO)
            .prop_map(Kind::NumberValue),
        (-20_i64..20).prop_map(|n| Kind::NumberValue(n as f64)),
        any::<i64>().prop_map(|n| Kind::NumberValue(n as f64)),
        any::<String>().prop_map(Kind::StringValue),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        let inner = inner.prop_map(|kind| Value { kind: Some(kind) });
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6)
                .prop_map(|values| Kind::ListValue(ListValue { values })),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|fields| Kind::StructValue(Struct { fields })),
        ]
    })
    .prop_map(|kind| Value { kind: Some(kind) })
}

fn caveat() -> impl Strategy<Value = ContextualizedCaveat> {
    let context = prop::collection::btree_map(any::<String>(), value(), 0..4)
        .prop_map(|fields| authzed::JsonObject(Struct { fields }));
    (
        "[a-zA-Z0-9_][a-zA-Z0-9/_|-]{0,30}",
        prop::option::of(context),
    )
        .prop_map(|(caveat_name, context)| ContextualizedCaveat {
            caveat_name,
            context,
        })
}

fn expiry() -> impl Strategy<Value = Timestamp> {
    // All that a protobuf timestamp may say: the years 1 to 9999.
    (-62_135_596_800_i64..=253_402_300_799, 0..1_000_000_000)
        .prop_map(|(seconds, nanos)| Timestamp { seconds, nanos })
}

fn relationship() -> impl Strategy<Value = Relationship> {
    let relation = "[a-z][a-z0-9_]{1,20}[a-z0-9]";
    let subject =
        (object(), prop::option::of(relation)).prop_map(|(object, relation)| SubjectReference {
            object: Some(object),
            optional_relation: relation.unwrap_or_default(),
        });
    (
        object(),
        relation,
        subject,
        prop::option::of(caveat()),
        prop::option::of(expiry()),
    )
        .prop_map(
            |(resource, relation, subject, optional_caveat, optional_expires_at)| Relationship {
                resource: Some(resource),
                relation,
                subject: Some(subject),
                optional_caveat,
                optional_expires_at,
            },
        )
}

fn header() -> Header {
    Header {
        revision: Some("token".to_owned()),
        schema: Some("definition user {}\n".to_owned()),
        ..Header::new(StreamKind::Snapshot, "test", "2026-01-01T00:00:00Z")
    }
}

fn written(relationships: &[Relationship]) -> Vec<u8> {
    let mut writer = SnapshotWriter::create(Vec::new(), header(), ExpiryPrecision::Micros)
        .expect("a Vec takes all");
    for relationship in relationships {
        writer.write(relationship).expect("JSON can say it");
    }
    writer.finish().expect("a Vec takes all").1
}

/// Reads through a buffer of `capacity` bytes, so that lines are cut at every place.
fn read(stream: &[u8], capacity: usize) -> Result<Vec<Relationship>, ReadError> {
    let records = RecordReader::new(BufReader::with_capacity(capacity, stream), "test");
    let mut reader = SnapshotReader::open(records, Integrity::Verified)?;
    let mut relationships = Vec::new();
    while let Some(relationship) = reader.next_relationship()? {
        relationships.push(relationship);
    }
    Ok(relationships)
}

/// SpiceDB makes no difference between a caveat without a context and one with an empty context.
fn without_empty_context(mut relationship: Relationship) -> Relationship {
    if let Some(caveat) = &mut relationship.optional_caveat
        && caveat
            .context
            .as_ref()
            .is_some_and(|context| context.fields.is_empty())
    {
        caveat.context = None;
    }
    relationship
}

fn digest(relationships: &[Relationship]) -> crate::Digest {
    let mut sum = DigestSum::default();
    relationships.iter().for_each(|relationship| {
        sum.add(relationship);
    });
    sum.exact()
}

proptest! {
    #[test]
    fn contexts_are_decoded_as_prost_does(caveat in caveat()) {
        let Some(context) = caveat.context else {
            return Ok(());
        };
        let bytes = context.encode_to_vec();
        prop_assert_eq!(Struct::decode(bytes.as_slice()), Ok(context.0.clone()));
        prop_assert_eq!(authzed::JsonObject::decode(bytes.as_slice()), Ok(context));
    }

    #[test]
    fn relationships_survive_writing_and_reading(
        relationships in prop::collection::vec(relationship(), 0..8),
        capacity in 1_usize..200,
    ) {
        let stream = written(&relationships);
        let back = read(&stream, capacity).expect("what was written is complete");
        let expected: Vec<_> = relationships.into_iter().map(without_empty_context).collect();
        prop_assert_eq!(back, expected);
    }

    #[test]
    fn digest_does_not_depend_on_the_order(
        relationships in prop::collection::vec(relationship(), 0..8),
        turn in 0_usize..8,
    ) {
        let mut turned = relationships.clone();
        turned.reverse();
        turned.rotate_left(turn.min(relationships.len()));
        prop_assert_eq!(digest(&relationships), digest(&turned));
    }

    #[test]
    fn digests_of_different_relationships_differ(a in relationship(), b in relationship()) {
        let (a, b) = ([a], [b]);
        prop_assert_eq!(digest(&a) == digest(&b), written(&a) == written(&b));
    }

    #[test]
    fn digest_sees_every_field(original in relationship(), field in 0..8, other in object()) {
        let mut changed = original.clone();
        let resource = changed.resource.as_mut().expect("drawn");
        let subject = changed.subject.as_mut().expect("drawn");
        match field {
            0 => resource.object_id.push('x'),
            1 => resource.object_type.push('x'),
            2 => changed.relation.push('x'),
            3 => subject.object = Some(ObjectReference { object_id: "x".repeat(50), ..other }),
            4 => subject.optional_relation.push('x'),
            5 => match &mut changed.optional_caveat {
                Some(caveat) => caveat.caveat_name.push('x'),
                None => changed.optional_caveat = Some(ContextualizedCaveat::default()),
            },
            6 => {
                let caveat = changed.optional_caveat.get_or_insert_default();
                let fields = &mut caveat.context.get_or_insert_default().fields;
                fields.insert("x".repeat(500), Value { kind: Some(Kind::BoolValue(true)) });
            }
            _ => match &mut changed.optional_expires_at {
                Some(expiry) => expiry.seconds ^= 1,
                None => changed.optional_expires_at = Some(Timestamp::default()),
            },
        }
        prop_assert!(!equal_at_precision(&original, &changed, ExpiryPrecision::Seconds) || field == 7);
        prop_assert_ne!(digest(&[original]), digest(&[changed]));
    }

    #[test]
    fn expiry_counts_to_the_precision(original in relationship(), expiry in expiry()) {
        let with = |nanos| {
            let expiry = Timestamp { nanos, ..expiry };
            Relationship { optional_expires_at: Some(expiry), ..original.clone() }
        };
        let (fine, micros) = (with(expiry.nanos), with(expiry.nanos - expiry.nanos % 1_000));
        let seconds = with(0);
        let sum = |relationship: &Relationship| {
            let mut sum = DigestSum::default();
            sum.add(relationship);
            sum
        };
        let at = |r: &Relationship, precision| sum(r).digest(precision);
        prop_assert_eq!(at(&fine, ExpiryPrecision::Micros), at(&micros, ExpiryPrecision::Micros));
        prop_assert_eq!(at(&fine, ExpiryPrecision::Seconds), at(&seconds, ExpiryPrecision::Seconds));
        prop_assert_eq!(sum(&fine).exact() == sum(&micros).exact(), expiry.nanos % 1_000 == 0);
    }

    #[test]
    fn stream_that_is_resumed_is_the_same_stream(
        relationships in prop::collection::vec(relationship(), 0..8),
        until in 0_usize..8,
    ) {
        let (before, after) = relationships.split_at(until.min(relationships.len()));
        let precision = ExpiryPrecision::Micros;
        let mut first = SnapshotWriter::create(Vec::new(), header(), precision).expect("a header");
        for relationship in before {
            first.write(relationship).expect("a relationship");
        }
        let (header, stored) = (first.header(), first.sum().stored());
        let text = serde_json::to_string(&stored).expect("JSON");
        let stored: StoredSum = serde_json::from_str(&text).expect("a sum");
        let out = std::mem::take(first.output());
        let mut second = SnapshotWriter::resume(out, header, stored.into(), precision);
        for relationship in after {
            second.write(relationship).expect("a relationship");
        }
        let resumed = second.finish().expect("a trailer").1;
        prop_assert_eq!(resumed, written(&relationships));
    }

    #[test]
    fn any_bytes_are_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&bytes, 16).is_err());
    }
}

#[test]
fn nanoseconds_are_sealed_although_the_digest_leaves_them_out() {
    let expiry = Timestamp {
        seconds: 4_000_000_000,
        nanos: 123_456_789,
    };
    let relationship = Relationship {
        resource: Some(ObjectReference {
            object_type: "d".to_owned(),
            object_id: "1".to_owned(),
        }),
        relation: "viewer".to_owned(),
        subject: Some(SubjectReference {
            object: Some(ObjectReference {
                object_type: "u".to_owned(),
                object_id: "1".to_owned(),
            }),
            optional_relation: String::new(),
        }),
        optional_caveat: None,
        optional_expires_at: Some(expiry),
    };
    let stream = String::from_utf8(written(&[relationship])).expect("JSON is UTF-8");
    assert!(stream.contains("exactDigest"));
    let altered = stream.replace("123456789Z", "123456788Z");
    assert_ne!(stream, altered);
    assert!(read(altered.as_bytes(), 64).is_err());
    // Without the field the plain digest has to be exact, and is not.
    let field = stream
        .split("\"exactDigest\":")
        .nth(1)
        .and_then(|rest| rest.get(..35))
        .expect("there");
    let without = stream.replace(&format!("\"exactDigest\":{field}"), "");
    assert!(read(without.as_bytes(), 64).is_err());
}

#[test]
fn snake_case_is_read_as_proto_json_demands() {
    let line = r#"{"relationship":{"resource":{"object_type":"d","object_id":"1"},"relation":"r","subject":{"object":{"object_type":"u","object_id":"2"},"optional_relation":"m"},"optional_caveat":{"caveat_name":"c","context":{"a":1}},"optional_expires_at":"2030-01-01T00:00:00+02:00"}}"#;
    let stream = format!("{line}\n");
    let records = RecordReader::new(stream.as_bytes(), "test");
    let mut reader = SnapshotReader::open(records, Integrity::Unchecked).expect("unsealed");
    let relationship = reader.next_relationship().expect("valid").expect("one");
    assert_eq!(relationship.optional_caveat.expect("kept").caveat_name, "c");
    assert_eq!(
        relationship.optional_expires_at.expect("kept").seconds,
        1_893_448_800
    );
    assert_eq!(relationship.subject.expect("kept").optional_relation, "m");
}

#[test]
fn unknown_fields_of_a_relationship_are_refused_and_located() {
    let line = r#"{"relationship":{"resource":{"objectType":"d","objectId":"1"},"relation":"r","subject":{"object":{"objectType":"u","objectId":"2"}}}}"#;
    let with = |place: &str, field: &str| line.replacen(place, &format!("{place}{field},"), 1);
    let caveat = r#""optionalCaveats":{"caveatName":"c"}"#;
    for altered in [
        with(r#"{"relationship":{"#, caveat),
        with(r#""resource":{"#, r#""id":"1""#),
        with(r#""subject":{"#, r#""relation":"m""#),
        with(
            r#"{"relationship":{"#,
            r#""optionalCaveat":{"caveatName":"c","contexts":{}}"#,
        ),
    ] {
        let stream = format!("{altered}\n");
        let records = RecordReader::new(stream.as_bytes(), "test");
        let refused = SnapshotReader::open(records, Integrity::Unchecked).map(|_| ());
        let message = refused.expect_err(&altered).to_string();
        assert!(message.contains("unknown field"), "{message}");
        assert!(message.contains("test:1:"), "{message}");
    }
}

#[test]
fn the_last_second_of_the_year_9999_is_an_expiry_like_any_other() {
    let expiry = Timestamp {
        seconds: 253_402_300_799,
        nanos: 0,
    };
    let line = r#"{"relationship":{"resource":{"objectType":"d","objectId":"1"},"relation":"r","subject":{"object":{"objectType":"u","objectId":"2"}},"optionalExpiresAt":"9999-12-31T23:59:59Z"}}"#;
    let stream = format!("{line}\n");
    let records = RecordReader::new(stream.as_bytes(), "test");
    let mut reader = SnapshotReader::open(records, Integrity::Unchecked).expect("unsealed");
    let relationship = reader.next_relationship().expect("valid").expect("one");
    assert_eq!(relationship.optional_expires_at, Some(expiry));
    let mut written = Vec::new();
    crate::snapshot::write_relationship(&mut written, &relationship).expect("JSON can say it");
    assert_eq!(String::from_utf8(written).expect("JSON is UTF-8"), stream);
}

#[test]
fn check_round_trips_and_is_compared_by_its_answers() {
    let request = r#"{"resource":{"objectType":"d","objectId":"1"},"permission":"view","subject":{"object":{"objectType":"u","objectId":"2"}},"context":{"used":0.5}}"#;
    let conditional = r#""item":{"permissionship":"PERMISSIONSHIP_CONDITIONAL_PERMISSION","partialCaveatInfo":{"missingRequiredContext":["a","b"]}}"#;
    let (error, another) = (
        r#""error":{"code":9,"message":"here"}"#,
        r#""error":{"code":9,"message":"there"}"#,
    );
    let no = r#""item":{"permissionship":"PERMISSIONSHIP_NO_PERMISSION"}"#;
    let read = |answer: &str, other: &str| {
        let line =
            format!(r#"{{"check":{{"request":{request},{answer},"otherServer":{{{other}}}}}}}"#);
        let record: Record = serde_json::from_str(&line).expect(&line);
        assert_eq!(serde_json::to_string(&record).expect("JSON"), line);
        let Record::Check(check) = record else {
            panic!("{line}");
        };
        let other = check.other_server.expect(&line);
        assert_eq!(check.answer.compare(&other), other.compare(&check.answer));
        check.answer.compare(&other)
    };
    assert_eq!(read(conditional, conditional), Comparison::Alike);
    let comparison = read(error, another);
    assert_eq!(comparison, Comparison::Alike, "of an error the code counts");
    let deep = r#""error":{"code":8,"message":"deep","reason":"MAXIMUM_DEPTH_EXCEEDED"}"#;
    assert_eq!(read(conditional, deep), Comparison::Inconclusive);
    assert_eq!(read(deep, deep), Comparison::Alike);
    let fewer = conditional.replace(r#"["a","b"]"#, r#"["a"]"#);
    for (one, other) in [(conditional, no), (no, error), (conditional, &fewer)] {
        assert_eq!(read(one, other), Comparison::Different, "{one} {other}");
    }
    let inconclusive = format!(
        r#"{{"check":{{"request":{request},{no},"otherServer":{{{deep}}},"inconclusive":true}}}}"#
    );
    let record: Record = serde_json::from_str(&inconclusive).expect(&inconclusive);
    assert_eq!(serde_json::to_string(&record).expect("JSON"), inconclusive);
    let misspelt =
        format!(r#"{{"check":{{"request":{request},{no}}}}}"#).replace("context", "contxt");
    serde_json::from_str::<Record>(&misspelt)
        .expect_err("a question without its context is another one");
}
