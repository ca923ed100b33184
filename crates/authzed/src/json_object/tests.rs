use prost::encoding::{encode_key, encode_varint};

use super::*;

fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 8);
    encode_key(number, WireType::LengthDelimited, &mut bytes);
    encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

/// The container of a level.
#[derive(Clone, Copy, Debug)]
enum Level {
    Object,
    List,
}

fn nested(levels: usize, kind: impl Fn(usize) -> Level) -> Struct {
    let mut value = Value {
        kind: Some(Kind::NumberValue(1.0)),
    };
    let object = |value| Struct {
        fields: [("a".to_owned(), value)].into(),
    };
    for level in (2..=levels).rev() {
        value = Value {
            kind: Some(match kind(level) {
                Level::Object => Kind::StructValue(object(value)),
                Level::List => Kind::ListValue(ListValue {
                    values: vec![value],
                }),
            }),
        };
    }
    object(value)
}

/// Runs with a stack of a quarter of that which a thread of tokio has.
fn with_a_small_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(run);
    thread.unwrap().join().unwrap();
}

#[test]
fn the_depth_limit_of_objects_holds_on_a_small_stack() {
    with_a_small_stack(|| {
        let kinds: [fn(usize) -> Level; 3] = [
            |_| Level::Object,
            |_| Level::List,
            |level| {
                if level % 2 == 0 {
                    Level::List
                } else {
                    Level::Object
                }
            },
        ];
        for kind in kinds {
            let deepest = JsonObject(nested(MAX_DEPTH, kind));
            let decoded = JsonObject::decode(deepest.encode_to_vec().as_slice());
            assert_eq!(decoded.unwrap(), deepest);
            let deeper = nested(MAX_DEPTH + 1, kind).encode_to_vec();
            let refused = JsonObject::decode(deeper.as_slice()).unwrap_err();
            assert!(refused.to_string().contains("nested too deep"), "{refused}");
        }
    });
}

#[test]
fn hostile_nesting_is_refused_on_a_small_stack() {
    with_a_small_stack(|| {
        // Built from the inside; the lengths grow with the depth.
        let mut lists = Vec::new();
        for _ in 0..10_000 {
            lists = field(1, &field(6, &lists));
        }
        let object = field(1, &field(2, &field(6, &lists)));
        assert!(JsonObject::decode(object.as_slice()).is_err());
        // Groups are not known anywhere: field 9, wire type 3, without an end and with one.
        let open = [0x4b_u8].repeat(10_000);
        let closed = [open.clone(), [0x4c_u8].repeat(10_000)].concat();
        for groups in [open, closed] {
            for bytes in [
                groups.clone(),
                field(1, &groups),
                field(1, &field(2, &groups)),
                field(1, &field(2, &field(5, &groups))),
                field(1, &field(2, &field(6, &groups))),
            ] {
                assert!(JsonObject::decode(bytes.as_slice()).is_err());
            }
        }
    });
}

#[test]
fn objects_in_parts_are_merged_as_prost_does() {
    let number = |n: f64| {
        Value {
            kind: Some(Kind::NumberValue(n)),
        }
        .encode_to_vec()
    };
    let entry = |key: &str, value: &[u8]| [field(1, key.as_bytes()), field(2, value)].concat();
    let object = |entries: &[u8]| field(5, &field(1, entries));
    let cases = [
        // The last one of a key counts, and parts of a value are one.
        [
            field(1, &entry("a", &number(1.0))),
            field(1, &entry("a", &number(2.0))),
        ]
        .concat(),
        field(
            1,
            &[entry("a", &number(1.0)), field(2, &number(3.0))].concat(),
        ),
        field(
            1,
            &entry(
                "a",
                &[
                    object(&entry("b", &number(1.0))),
                    object(&entry("c", &number(2.0))),
                ]
                .concat(),
            ),
        ),
        field(
            1,
            &entry(
                "a",
                &[
                    field(6, &field(1, &number(1.0))),
                    field(6, &field(1, &number(2.0))),
                ]
                .concat(),
            ),
        ),
        // Another kind takes the place of the one before.
        field(
            1,
            &entry(
                "a",
                &[object(&entry("b", &number(1.0))), number(2.0)].concat(),
            ),
        ),
        // No key, no value, and fields that nobody knows.
        field(1, b""),
        [field(1, &entry("a", b"")), field(9, b"new")].concat(),
        field(
            1,
            &[
                field(9, b"new"),
                entry("a", &[field(9, b"new"), number(1.0)].concat()),
            ]
            .concat(),
        ),
    ];
    for bytes in cases {
        let expected = Struct::decode(bytes.as_slice()).unwrap();
        assert_eq!(JsonObject::decode(bytes.as_slice()).unwrap().0, expected);
        let in_pieces = bytes[..3.min(bytes.len())].chain(&bytes[3.min(bytes.len())..]);
        assert_eq!(JsonObject::decode(in_pieces).unwrap().0, expected);
    }
}

#[test]
fn what_prost_refuses_is_refused() {
    for bytes in [
        field(1, &field(1, b"\xff")),
        field(1, &field(2, &field(3, b"\xff"))),
        field(1, &field(2, &field(2, b"12345678"))),
        field(1, &field(2, b"\x11\0\0")),
        field(1, b"\x12\x05\x08"),
        b"\x0a\x05\x08".to_vec(),
        b"\x08\x05".to_vec(),
    ] {
        assert!(Struct::decode(bytes.as_slice()).is_err(), "{bytes:?}");
        assert!(JsonObject::decode(bytes.as_slice()).is_err(), "{bytes:?}");
    }
}
