use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::value::Kind as Value;
use prost_types::{Struct, Timestamp};

use super::*;
use crate::JsonObject;
use crate::v1::{
    ContextualizedCaveat, ExportBulkRelationshipsResponse, ObjectReference, RelationshipUpdate,
    SubjectReference, WatchResponse,
};

fn relationship() -> Relationship {
    let object = |kind: &str, id: &str| {
        Some(ObjectReference {
            object_type: kind.to_owned(),
            object_id: id.to_owned(),
        })
    };
    let value = prost_types::Value {
        kind: Some(Value::NumberValue(3.0)),
    };
    Relationship {
        resource: object("document", "readme"),
        relation: "viewer".to_owned(),
        subject: Some(SubjectReference {
            object: object("user", "eve"),
            optional_relation: "member".to_owned(),
        }),
        optional_caveat: Some(ContextualizedCaveat {
            caveat_name: "limited".to_owned(),
            context: Some(JsonObject(Struct {
                fields: [("max".to_owned(), value)].into(),
            })),
        }),
        optional_expires_at: Some(Timestamp {
            seconds: 1_900_000_000,
            nanos: 5,
        }),
    }
}

fn refuse<A: Answer>(bytes: &[u8]) -> Result<A, Fault> {
    AnswerDecoder::new(1 << 20, UnknownFields::default()).examine(bytes)
}

/// A field of a number that nobody uses.
fn unknown_field() -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(77, WireType::LengthDelimited, &mut bytes);
    encode_varint(3, &mut bytes);
    bytes.extend_from_slice(b"new");
    bytes
}

fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut bytes);
    encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

#[test]
fn a_known_message_is_taken_as_it_is() {
    let page = ExportBulkRelationshipsResponse {
        relationships: vec![relationship(); 3],
        ..Default::default()
    };
    assert_eq!(refuse(&page.encode_to_vec()).ok(), Some(page));
}

#[test]
fn an_unknown_field_is_refused_at_every_depth() {
    // The message, and the path to the field: numbers of the fields on the way.
    let encoded = relationship().encode_to_vec();
    let places: [(&[u32], &str); 7] = [
        (&[], "ExportBulkRelationshipsResponse"),
        (&[2], "Relationship"),
        (&[2, 1], "ObjectReference"),
        (&[2, 3], "SubjectReference"),
        (&[2, 3, 1], "ObjectReference"),
        (&[2, 4], "ContextualizedCaveat"),
        (&[2, 5], "Timestamp"),
    ];
    for (place, name) in places {
        let mut bytes = unknown_field();
        for number in place.iter().rev() {
            // A message that comes in two parts is merged.
            bytes = match number {
                2 => field(2, &[encoded.clone(), bytes].concat()),
                number => field(*number, &bytes),
            };
        }
        let fault = refuse::<ExportBulkRelationshipsResponse>(&bytes).unwrap_err();
        assert_eq!(fault.kind, Kind::UnknownField, "{place:?}");
        let message = fault.to_string();
        assert!(
            message.contains(&format!("field 77 of {name}")),
            "{message}"
        );
        if !place.is_empty() {
            assert!(
                message.contains("document:readme#viewer@user:eve#member"),
                "{message}"
            );
        }
    }
}

#[test]
fn an_unknown_field_of_an_update_is_refused() {
    let update = RelationshipUpdate {
        operation: 2,
        relationship: Some(relationship()),
    };
    let bytes = field(1, &[update.encode_to_vec(), unknown_field()].concat());
    let fault = refuse::<WatchResponse>(&bytes).unwrap_err();
    assert!(
        fault.to_string().contains("field 77 of RelationshipUpdate"),
        "{fault}"
    );
}

#[test]
fn unknown_fields_are_counted_where_they_are_ignored() {
    let unknown = UnknownFields {
        ignored: true,
        ..UnknownFields::default()
    };
    let one = [relationship().encode_to_vec(), unknown_field()].concat();
    let bytes = [field(2, &one), field(2, &one)].concat();
    let decoder = AnswerDecoder::<ExportBulkRelationshipsResponse>::new(1 << 20, unknown.clone());
    let page = decoder.examine(&bytes).unwrap();
    assert_eq!(page.relationships, [relationship(), relationship()]);
    assert_eq!(unknown.count.load(Ordering::Relaxed), 2);
}

#[test]
fn an_encoding_that_is_less_tight_is_no_unknown_field() {
    // The relation twice, the last one counts; an empty optional relation that is written out.
    let subject = [
        relationship().subject.unwrap().encode_to_vec(),
        field(2, b""),
    ]
    .concat();
    let loose = [
        field(2, b"editor"),
        relationship().encode_to_vec(),
        field(3, &subject),
    ]
    .concat();
    let page: ExportBulkRelationshipsResponse = refuse(&field(2, &loose)).unwrap();
    assert_eq!(page.relationships[0].relation, "viewer");
}

#[test]
fn an_unknown_field_of_another_answer_is_left_alone() {
    assert!(refuse::<v1::ReadSchemaResponse>(&unknown_field()).is_ok());
}

#[test]
fn a_small_message_that_grows_large_is_not_decoded() {
    // Two bytes each, and more than 200 in memory.
    let bytes = field(2, b"").repeat(400_000);
    let fault = refuse::<ExportBulkRelationshipsResponse>(&bytes).unwrap_err();
    assert_eq!(fault.kind, Kind::AnswerTooLarge);
    let values = field(
        4,
        &field(
            2,
            &field(1, &field(2, &field(6, &field(1, b"").repeat(400_000)))),
        ),
    );
    let fault = refuse::<ExportBulkRelationshipsResponse>(&field(2, &values)).unwrap_err();
    assert_eq!(fault.kind, Kind::AnswerTooLarge);
}

#[test]
fn an_expiry_that_is_no_time_names_its_relationship() {
    for (seconds, nanos) in [
        (0, -1),
        (0, 1_000_000_000),
        (253_402_300_800, 0),
        (i64::MIN, 0),
    ] {
        let page = ExportBulkRelationshipsResponse {
            relationships: vec![Relationship {
                optional_expires_at: Some(Timestamp { seconds, nanos }),
                ..relationship()
            }],
            ..Default::default()
        };
        let fault = refuse::<ExportBulkRelationshipsResponse>(&page.encode_to_vec()).unwrap_err();
        assert_eq!(fault.kind, Kind::Malformed);
        assert!(
            fault.to_string().contains("document:readme#viewer"),
            "{fault}"
        );
    }
}

#[test]
fn garbage_is_malformed() {
    for bytes in [&b"\xff\xff\xff"[..], b"\x12\x05abc", b"\x0b\x0b\x0b"] {
        let fault = refuse::<ExportBulkRelationshipsResponse>(bytes).unwrap_err();
        assert_eq!(fault.kind, Kind::Malformed, "{bytes:?}");
    }
}

#[test]
fn a_token_is_one_printable_word() {
    let of = |token: &str| {
        check_token(&ZedToken {
            token: token.to_owned(),
        })
        .is_ok()
    };
    assert!(of("Gh8KEzE3OTU0MTUxMDcxNDI1MDIxMjcSCDhkYjFiNWNl"));
    assert!(
        !of("")
            && !of("garbage")
            && !of("two words")
            && !of("a\u{1b}[0m")
            && !of(&"x".repeat(70_000))
    );
}

/// As many objects within each other, or lists but for the outermost one.
fn nested(levels: usize, is_list: bool) -> Vec<u8> {
    let mut value = field(3, b"x");
    for _ in 1..levels {
        value = if is_list {
            field(6, &field(1, &value))
        } else {
            field(5, &field(1, &field(2, &value)))
        };
    }
    field(1, &[field(1, b"a"), field(2, &value)].concat())
}

#[test]
fn a_too_deep_context_is_refused_and_its_relationship_named() {
    let plain = Relationship {
        optional_caveat: None,
        ..relationship()
    };
    let with = |context: &[u8]| {
        let caveat = field(4, &[field(1, b"limited"), field(2, context)].concat());
        [plain.encode_to_vec(), caveat].concat()
    };
    for is_list in [false, true] {
        for levels in [33, 64, MAX_DEPTH] {
            let deep = field(2, &with(&nested(levels, is_list)));
            let page: ExportBulkRelationshipsResponse = refuse(&deep).unwrap();
            assert_eq!(page.encoded_len(), deep.len());
            let update = [field(2, &with(&nested(levels, is_list))), vec![8, 2]].concat();
            assert!(refuse::<WatchResponse>(&field(1, &update)).is_ok());
        }
        for levels in [MAX_DEPTH + 1, 10_000] {
            let deep = with(&nested(levels, is_list));
            let other = field(2, &plain.encode_to_vec());
            let page = [other.clone(), field(2, &deep), other].concat();
            let fault = refuse::<ExportBulkRelationshipsResponse>(&page).unwrap_err();
            assert_eq!(fault.kind, Kind::Malformed);
            let expected = "document:readme#viewer@user:eve#member: a context or metadata nested more than 100";
            assert!(fault.to_string().starts_with(expected), "{fault}");
            let update = field(1, &field(2, &deep));
            let fault = refuse::<WatchResponse>(&update).unwrap_err();
            assert!(fault.to_string().starts_with(expected), "{fault}");
        }
    }
}

#[test]
fn hostile_nesting_of_an_answer_is_refused_without_a_crash() {
    // As small as the stack of a thread may be, a quarter of that of tokio's threads.
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(|| {
        let groups = [[0x4b_u8].repeat(10_000), [0x4c_u8].repeat(10_000)].concat();
        let in_context = field(2, &field(4, &field(2, &field(1, &field(2, &groups)))));
        for bytes in [groups.clone(), field(2, &groups), in_context] {
            assert!(refuse::<ExportBulkRelationshipsResponse>(&bytes).is_err());
        }
        // Messages of an answer whose messages nest without a context: traces of a check.
        let mut traces = Vec::new();
        for _ in 0..10_000 {
            traces = field(7, &field(1, &traces));
        }
        let trace = field(2, &field(2, &field(3, &field(2, &traces))));
        drop(refuse::<v1::CheckBulkPermissionsResponse>(&trace));
        // Large enough that its memory is estimated first.
        let mut padded = field(2, &field(4, &field(2, &nested(10_000, false))));
        padded.extend(field(2, &field(2, &vec![b'x'; ESTIMATED_FROM])));
        assert!(refuse::<ExportBulkRelationshipsResponse>(&padded).is_err());
    });
    thread.unwrap().join().unwrap();
}
