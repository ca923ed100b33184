//! What is written is read back, and what is wrong is named.

use proptest::prelude::*;
use spice_record::digest::equal_at_precision;
use spice_record::{DigestSum, ExpiryPrecision};
use testdata::Sample;

use super::*;

fn written(relationship: &Relationship) -> String {
    let mut text = String::new();
    write(relationship, &mut text).expect("it can be written");
    text
}

fn read(text: &str) -> Relationship {
    parse(text).unwrap_or_else(|message| panic!("{text}: {message}"))
}

#[test]
fn every_kind_of_relationship_is_read_back() {
    for sample in [Sample::rich(2_000), Sample::portable(2_000)] {
        let sample = Sample {
            expiry_step: 1,
            ..sample
        };
        for relationship in sample.iter() {
            let text = written(&relationship);
            let found = read(&text);
            let sum = |relationship| DigestSum::default().add(relationship);
            assert_eq!(sum(&found), sum(&relationship), "{text}");
            assert!(text.chars().all(is_printable), "{text}");
            assert_eq!(written(&found), text);
        }
    }
}

#[test]
fn notation_is_that_of_spicedb() {
    for text in [
        "document:readme#viewer@user:anne",
        "document:readme#viewer@user:*",
        "tenant/document:a/b|c_d-e=f+#viewer@tenant/group:eng#member",
        "document:readme#viewer@user:anne[on_network]",
        "document:readme#viewer@user:anne[tenant/on_network:{\"a\":[1,\"]\",{}],\"b\":\"[expiration:x]\"}]",
        "document:readme#viewer@user:anne[expiration:2027-01-01T00:00:00.123456789Z]",
        "document:readme#viewer@user:anne[expiration:0001-01-01T00:00:00Z]",
        "document:readme#viewer@user:anne[c:{\"a\":\"]\"}][expiration:9999-12-31T23:59:59Z]",
        "document:readme#viewer@user:anne[expiration:{\"a\":1}]",
        "document:readme#viewer@user:anne[expiration]",
    ] {
        assert_eq!(written(&read(text)), text);
    }
    for (text, same) in [
        (
            "document:readme#viewer@user:anne#...",
            "document:readme#viewer@user:anne",
        ),
        (
            "document:readme#viewer@user:anne[c:{}]",
            "document:readme#viewer@user:anne[c]",
        ),
        (
            "document:readme#viewer@user:anne[c:{ \"a\" : 1.0 }]",
            "document:readme#viewer@user:anne[c:{\"a\":1}]",
        ),
        (
            "document:readme#viewer@user:anne[expiration:2027-01-01T01:00:00+01:00]",
            "document:readme#viewer@user:anne[expiration:2027-01-01T00:00:00Z]",
        ),
    ] {
        assert_eq!(written(&read(text)), same);
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (text, named) in [
        ("", "expected resource:id"),
        ("document:readme viewer user:anne", "expected resource:id"),
        ("document:readme#viewer user:anne", "expected resource:id"),
        ("document#viewer@user:anne", "expected type:id"),
        ("document:#viewer@user:anne", "resource id \"\""),
        ("document:*#viewer@user:anne", "resource id \"*\""),
        ("document:a b#viewer@user:anne", "resource id"),
        ("document:a:b#viewer@user:anne", "resource id"),
        ("Document:a#viewer@user:anne", "resource type"),
        ("a//b:a#viewer@user:anne", "resource type"),
        ("document:a#@user:anne", "relation \"\""),
        ("document:a#...@user:anne", "relation"),
        ("document:a#viewer@user:anne@x", "subject id"),
        ("document:a#viewer@user:anne\u{e9}", "subject id"),
        ("document:a#viewer@user:anne#", "subject relation \"\""),
        ("document:a#viewer@user:anne#a/b", "subject relation"),
        ("document:a#viewer@user:anne[", "[caveat]"),
        ("document:a#viewer@user:anne[]", "caveat \"\""),
        ("document:a#viewer@user:anne[c", "[caveat]"),
        ("document:a#viewer@user:anne[c]x", "[expiration:TIME]"),
        ("document:a#viewer@user:anne[c][d]", "[expiration:TIME]"),
        ("document:a#viewer@user:anne[c:1]", "JSON object"),
        ("document:a#viewer@user:anne[c:{\"a\":1]", "caveat context"),
        ("document:a#viewer@user:anne[c:{\"a\":1,\"a\":2}]", "twice"),
        ("document:a#viewer@user:anne[c:{}{}]", "[caveat]"),
        (
            "document:a#viewer@user:anne[expiration:2027-01-01]",
            "RFC 3339",
        ),
        ("document:a#viewer@user:anne[expiration:]", "RFC 3339"),
        (
            "document:a#viewer@user:anne[expiration:2027-01-01T00:00:00Z][c]",
            "RFC 3339",
        ),
    ] {
        let message = parse(text).expect_err(text);
        assert!(message.contains(named), "{text}: {message}");
    }
}

#[test]
fn names_that_cannot_be_read_back_are_not_written() {
    let good = read("document:readme#viewer@user:anne#member[c]");
    let mut text = String::new();
    for bad in ["", "a\nb", "a#b", "a@b", "a[b", "\u{202e}", "a b"] {
        let mut one = good.clone();
        one.resource.get_or_insert_default().object_id = bad.to_owned();
        assert!(write(&one, &mut text).is_err(), "{bad:?}");
        let mut one = good.clone();
        one.relation = bad.to_owned();
        assert!(write(&one, &mut text).is_err(), "{bad:?}");
        let mut one = good.clone();
        one.optional_caveat.get_or_insert_default().caveat_name = bad.to_owned();
        assert!(write(&one, &mut text).is_err(), "{bad:?}");
    }
    assert!(write(&Relationship::default(), &mut text).is_err());
    let mut never = good;
    never.optional_expires_at = Some(authzed::Timestamp {
        seconds: i64::MAX,
        nanos: 0,
    });
    assert!(write(&never, &mut text).is_err());
}

#[test]
fn lines_are_read_with_their_numbers() {
    let text = "// ours\r\n\r\n  document:a#viewer@user:b \r\ndocument:a#viewer@user:c\n\nx\n";
    let mut lines = TextReader::new(text.as_bytes(), "file");
    assert!(lines.next_relationship().unwrap().is_some());
    assert_eq!(lines.line(), 3);
    assert!(lines.next_relationship().unwrap().is_some());
    let error = lines.next_relationship().unwrap_err().to_string();
    assert!(error.starts_with("file:6:1: expected"), "{error}");
}

#[test]
fn text_without_a_relationship_is_refused() {
    for text in ["", "\n\r\n", "// ours\n"] {
        let mut lines = TextReader::new(text.as_bytes(), "file");
        let error = lines.next_relationship().unwrap_err().to_string();
        assert_eq!(error, "file: no relationship in it");
    }
    let mut lines = TextReader::new(&b"document:a#viewer@user:b\n// ours\n"[..], "file");
    assert!(lines.next_relationship().unwrap().is_some());
    for _ in 0..2 {
        assert_eq!(lines.next_relationship().unwrap(), None);
    }
}

#[test]
fn last_line_without_its_end_is_refused() {
    let text = "document:a#viewer@user:b\ndocument:a#viewer@user:anne";
    for cut in text.len() - 4..=text.len() {
        let mut lines = TextReader::new(&text.as_bytes()[..cut], "file");
        lines.next_relationship().unwrap();
        let error = lines.next_relationship().unwrap_err();
        assert!(matches!(error, ReadError::Torn { line: 2, .. }), "{error}");
    }
}

#[test]
fn long_lines_and_large_contexts_are_refused() {
    let values = "1,".repeat(60_000);
    let id = "a".repeat(MAX_NAME_BYTES + 1);
    for (text, named) in [
        (format!("document:{}", "a".repeat(5 << 20)), "4 MiB"),
        (
            format!("document:a#viewer@user:b[c:{{\"a\":[{values}1]}}]\n"),
            "values",
        ),
        (format!("document:{id}#viewer@user:b\n"), "resource id"),
        (
            format!("document:a#viewer@user:b[c:{{\"a\":{}", "[".repeat(1_000)) + "\n",
            "caveat context",
        ),
    ] {
        let mut lines = TextReader::new(text.as_bytes(), "file");
        let error = lines.next_relationship().unwrap_err().to_string();
        assert!(
            error.contains(named),
            "{named}: {}",
            &error[..error.len().min(300)]
        );
    }
}

proptest! {
    #[test]
    fn any_text_is_refused_or_read_back(text in ".*") {
        if let Ok(relationship) = parse(&text) {
            let again = read(&written(&relationship));
            let precision = ExpiryPrecision::Micros;
            prop_assert!(equal_at_precision(&again, &relationship, precision));
        }
    }

    #[test]
    fn any_context_is_read_back(key in ".*", value in ".*", number in proptest::num::f64::NORMAL) {
        let json = serde_json::json!({ key: [value, number] }).to_string();
        let relationship = read(&format!("document:a#viewer@user:b[c:{json}]"));
        let text = written(&relationship);
        prop_assert!(text.chars().all(is_printable));
        prop_assert_eq!(read(&text), relationship);
    }
}
