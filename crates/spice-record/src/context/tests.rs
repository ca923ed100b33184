//! How deep a context may be, in every kind of line.

use prost::Message as _;

use super::*;
use crate::digest::{ExpiryPrecision, equal_at_precision};
use crate::{DigestSum, Record, RecordReader};

/// A context of as many objects within each other, or of lists in one object, or of both in turn.
fn context(levels: usize, open: [&str; 2], close: [&str; 2]) -> String {
    let inner = levels - 1;
    let opened: String = (0..inner).map(|level| open[level % 2]).collect();
    let closed: String = (0..inner).rev().map(|level| close[level % 2]).collect();
    format!(r#"{{"a":{opened}1{closed}}}"#)
}

/// One of each form.
fn contexts(levels: usize) -> [String; 3] {
    const OBJECT: &str = r#"{"a":"#;
    [
        context(levels, [OBJECT; 2], ["}"; 2]),
        context(levels, ["["; 2], ["]"; 2]),
        context(levels, ["[", OBJECT], ["]", "}"]),
    ]
}

/// StreamWriter of every kind that has a context or metadata.
fn lines(context: &str) -> [String; 5] {
    let relationship = format!(
        r#"{{"resource":{{"objectType":"document","objectId":"d"}},"relation":"viewer","subject":{{"object":{{"objectType":"user","objectId":"u"}}}},"optionalCaveat":{{"caveatName":"c","context":{context}}}}}"#
    );
    let update = format!(r#"{{"operation":"OPERATION_TOUCH","relationship":{relationship}}}"#);
    [
        format!(r#"{{"relationship":{relationship}}}"#),
        format!(r#"{{"update":{update}}}"#),
        format!(r#"{{"transaction":{{"revision":"r","updates":[{update}]}}}}"#),
        format!(r#"{{"transaction":{{"revision":"r","updates":[],"metadata":[{context}]}}}}"#),
        format!(
            r#"{{"check":{{"request":{{"resource":{{"objectType":"document","objectId":"d"}},"permission":"view","subject":{{"object":{{"objectType":"user","objectId":"u"}}}},"context":{context}}},"item":{{"permissionship":"PERMISSIONSHIP_HAS_PERMISSION"}}}}}}"#
        ),
    ]
}

fn read(line: &str) -> Result<Record, String> {
    let line = format!("{line}\n");
    let record = RecordReader::new(line.as_bytes(), "test").next_record();
    let record = record.map_err(|error| error.to_string())?;
    record.ok_or_else(|| "no record".to_owned())
}

/// Runs with a stack of a quarter of that which a thread of tokio has.
fn with_a_small_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(run);
    thread.unwrap().join().unwrap();
}

#[test]
fn the_deepest_context_is_processed_on_a_small_stack() {
    with_a_small_stack(|| {
        for line in [33, 64, MAX_DEPTH]
            .map(contexts)
            .iter()
            .flatten()
            .flat_map(|context| lines(context))
        {
            let record = read(&line).expect(&line);
            assert_eq!(serde_json::to_string(&record).expect(&line), line);
            let Record::Relationship(relationship) = record else {
                continue;
            };
            let bytes = relationship.encode_to_vec();
            let decoded = Relationship::decode(bytes.as_slice()).expect(&line);
            assert!(equal_at_precision(
                &decoded,
                &relationship,
                ExpiryPrecision::Micros
            ));
            let (mut one, mut other) = (DigestSum::default(), DigestSum::default());
            assert_eq!(one.add(&decoded), other.add(&relationship));
            assert_eq!(decoded, relationship);
        }
    });
}

#[test]
fn two_contexts_that_differ_at_the_deepest_level_differ() {
    for context in contexts(MAX_DEPTH) {
        let [line, ..] = lines(&context);
        let other = read(&line.replacen('1', "2", 1)).unwrap();
        let (Record::Relationship(one), Record::Relationship(other)) =
            (read(&line).unwrap(), other)
        else {
            panic!("{line}");
        };
        assert!(!equal_at_precision(&one, &other, ExpiryPrecision::Micros));
    }
}

#[test]
fn a_too_deep_context_is_refused_in_every_kind_of_line() {
    with_a_small_stack(|| {
        for levels in [MAX_DEPTH + 1, 120, 130, 10_000] {
            for line in contexts(levels).iter().flat_map(|context| lines(context)) {
                let error = read(&line).expect_err("too deep");
                assert!(error.contains("nested"), "{error}");
                assert!(error.contains("100 levels"), "{error}");
            }
        }
        for hostile in ["[".repeat(100_000), "{\"a\":".repeat(100_000)] {
            for line in lines(&hostile).iter().chain([&hostile]) {
                let error = read(line).expect_err("no JSON");
                assert!(error.starts_with("test:1:"), "{error}");
            }
        }
    });
}
