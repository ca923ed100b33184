use std::collections::HashMap;

use clap::Parser as _;
use proptest::prelude::*;
use spice_cli::Exit;
use spice_record::record::StreamKind;

use super::{assert_refused, header, map, private_key, read, relationship, sealed, snapshot};
use crate::Map;
use crate::mapper::Mapper;
use crate::plan::Plan;
use crate::schema::Unknown;

const SCHEMA: &str = "\
definition user {}
definition group {
 relation member: user | user:* | group#member | user with named
}
definition doc {
 relation viewer: user | user:* | group#member
}
caveat named(name string, from ipaddress, level int) { level > 1 }
";

const USERS: [&str; 4] = ["--redact", "user", "--key-file", "KEY"];

#[test]
fn ids_of_the_type_are_replaced_and_others_stay() {
    let input = snapshot(
        SCHEMA,
        &[
            "group:eng#member@user:ann",
            "doc:readme#viewer@user:ann",
            "doc:readme#viewer@user:bob",
            "doc:readme#viewer@user:*",
            "doc:readme#viewer@group:eng#member",
        ],
    );
    let (written, _) = map(&USERS, &input).unwrap();
    let subjects: Vec<String> = read(&written)
        .1
        .into_iter()
        .map(|found| found.subject.unwrap().object.unwrap().object_id)
        .collect();
    assert_eq!(subjects[0], subjects[1]);
    assert_ne!(subjects[1], subjects[2]);
    assert_eq!(subjects[3..], ["*", "eng"]);
    assert_eq!(subjects[0].len(), 32);
    assert!(written.contains("\"readme\"") && !written.contains("ann") && !written.contains("bob"));
    let mapping = &read(&written).0.mapping;
    let is_listed = |what: &str| mapping.iter().any(|line| line.starts_with(what));
    assert!(is_listed("redact user, key "), "{mapping:?}");
    assert!(is_listed("redact contexts, key "), "{mapping:?}");
    let flags = ["--redact", "group", "--key-file", "KEY"];
    let (written, _) = map(&flags, &input).unwrap();
    assert!(
        written.contains("\"ann\"") && !written.contains("\"eng\""),
        "{written}"
    );
    // By the old name of the type: what is renamed as well gets the same ids.
    let renamed = [
        "--redact",
        "user",
        "--key-file",
        "KEY",
        "--rename",
        "user=person",
    ];
    let (person, _) = map(&renamed, &input).unwrap();
    assert!(person.contains(&subjects[0]));
}

#[test]
fn prefix_of_a_redacted_type_is_not_shown() {
    let input = snapshot(
        SCHEMA,
        &[
            "group:engineers#member@user:ann",
            "group:sales#member@user:ann",
        ],
    );
    let flags = [
        "--redact",
        "group",
        "--key-file",
        "KEY",
        "--only-resource-prefix",
        "group:engin",
    ];
    let (written, counts) = map(&flags, &input).unwrap();
    assert_eq!(counts.dropped, 1);
    assert!(!written.contains("engin"), "{written}");
    let others = [
        "--redact",
        "group",
        "--key-file",
        "KEY",
        "--only-resource-prefix",
        "group:sales",
    ];
    let (others, _) = map(&others, &input).unwrap();
    assert_ne!(read(&written).0.mapping, read(&others).0.mapping);
}

/// A caveat context that names ann.
fn with_context() -> String {
    let mut relationship = relationship("group:eng#member@user:ann[named]");
    let context = r#"{"name":"ann","from":"10.0.0.1","level":3}"#;
    let context: spice_record::relationship::StructJson = serde_json::from_str(context).unwrap();
    relationship.optional_caveat.as_mut().unwrap().context = Some(context.0);
    sealed(header(StreamKind::Snapshot, SCHEMA), [relationship])
}

#[test]
fn contexts_are_redacted_or_counted() {
    let (written, counts) = map(&USERS, &with_context()).unwrap();
    assert_eq!(counts.with_context, 0);
    assert!(
        !written.contains("\"ann\"") && !written.contains("10.0.0.1"),
        "{written}"
    );
    assert!(written.contains("\"level\":3"), "{written}");
    let flags = [&USERS[..], &["--keep-contexts"]].concat();
    let (written, counts) = map(&flags, &with_context()).unwrap();
    assert_eq!(counts.with_context, 1);
    assert!(written.contains("\"ann\""));
}

#[test]
fn definition_that_comes_later_is_reported_as_not_redacted() {
    let folder = tempfile::tempdir().unwrap();
    let key = private_key(folder.path());
    let flags = ["spice-map", "--redact", "user", "--key-file", &key];
    let plan = Plan::of(&Map::try_parse_from(flags).unwrap()).unwrap();
    let mut mapper = Mapper::new(plan);
    let person = format!("{SCHEMA}definition person {{}}\n");
    let reported = |mapper: &Mapper, text: &str| {
        let schema = mapper.plan().map_schema(text, Unknown::Ignore).unwrap();
        mapper.not_redacted(&schema)
    };
    assert_eq!(reported(&mapper, &person), None, "it is the first");
    mapper.schema(SCHEMA, Unknown::Refuse).unwrap();
    assert_eq!(reported(&mapper, SCHEMA), None);
    assert_eq!(reported(&mapper, &person).as_deref(), Some("person"));
}

/// A run before this one has chosen by the beginning of an id, and its header names that.
#[test]
fn prefix_of_an_earlier_mapping_is_not_shown() {
    let lines = ["group:annex#member@user:ann", "group:eng#member@user:bob"];
    let input = snapshot(SCHEMA, &lines);
    let (part, _) = map(&["--only-resource-prefix", "group:ann"], &input).unwrap();
    assert!(read(&part).0.mapping.contains(&"only group:ann".to_owned()));
    let redacted = |types: &[&str]| {
        let types = types.iter().flat_map(|&name| ["--redact", name]);
        let flags: Vec<&str> = types.chain(["--key-file", "KEY"]).collect();
        map(&flags, &part).unwrap().0
    };
    let written = redacted(&["user", "group"]);
    assert!(!written.contains("ann"), "{written}");
    let mapping = read(&written).0.mapping;
    assert_eq!(mapping.len(), 4, "{mapping:?}");
    // As if both had been done at once.
    let flags = [
        &USERS[..],
        &["--redact", "group", "--only-resource-prefix", "group:ann"],
    ]
    .concat();
    let (at_once, _) = map(&flags, &input).unwrap();
    let mut sorted = mapping.clone();
    sorted.sort();
    assert_eq!(sorted, read(&at_once).0.mapping);
}

#[test]
fn error_about_a_line_does_not_quote_an_id() {
    let begin = snapshot(SCHEMA, &[]);
    let begin = begin.lines().next().unwrap();
    for line in [
        r#"{"relationship":{"resource":{"objectType":"group","objectId":"eng"},"relation":"member","subject":"user:ann"}}"#,
        r#"{"relationship":{"resource":{"objectType":"group","objectId":"eng"},"ann":"member"}}"#,
        r#"{"ann":{}}"#,
        r#"{"relationship":{"resource":{"objectType":"group","objectId":"eng"},"relation":"member","subject":{"object":{"objectType":"user","objectId":"bob"}},"optionalExpiresAt":"ann"}}"#,
    ] {
        let input = format!("{begin}\n{line}\n");
        let failure = map(&USERS, &input).map(|_| ()).unwrap_err();
        assert_eq!(failure.exit, Exit::BadData);
        let message = failure.message();
        assert!(
            !message.contains("ann") && !message.contains("bob"),
            "{message}"
        );
        assert!(
            message.contains(":2:") && message.contains("ids are redacted"),
            "{message}"
        );
    }
    // Without redaction it helps.
    let input = format!("{begin}\n{{\"ann\":{{}}}}\n");
    assert_refused(&["--rename", "user=person"], &input, Exit::BadData, "ann");
}

/// Ids that no other text of a stream holds by accident.
fn id() -> impl Strategy<Value = String> {
    "Q[A-Z|/_=+-]{7,20}Q"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_id_is_left_and_equal_ids_stay_equal(
        drawn in prop::collection::vec((id(), id(), 0_usize..3), 1..20),
        doubled in any::<prop::sample::Index>(),
    ) {
        let mut drawn = drawn;
        let again = drawn[doubled.index(drawn.len())].clone();
        drawn.push((again.1, again.0, again.2));
        let relationships = drawn.iter().map(|(resource, subject, form)| {
            relationship(&match form {
                0 => format!("doc:{resource}#viewer@user:{subject}"),
                1 => format!("group:{resource}#member@user:*"),
                _ => format!("group:{resource}#member@group:{subject}#member"),
            })
        });
        let before: Vec<_> = relationships.collect();
        let input = sealed(header(StreamKind::Snapshot, SCHEMA), before.clone());
        let flags = [
            "--redact", "user", "--redact", "group", "--redact", "doc", "--key-file", "KEY",
            "--rename", "group=team",
        ];
        let (written, counts) = map(&flags, &input).unwrap();
        prop_assert_eq!((counts.read, counts.dropped), (before.len() as u64, 0));
        let after = read(&written).1;
        let mut there: HashMap<(String, String), String> = HashMap::new();
        let mut back: HashMap<String, (String, String)> = HashMap::new();
        for (before, after) in before.iter().zip(&after) {
            let objects = |found: &authzed::v1::Relationship| {
                let subject = found.subject.clone().unwrap().object.unwrap();
                [found.resource.clone().unwrap(), subject]
            };
            for (old, new) in objects(before).into_iter().zip(objects(after)) {
                let (old, new) = ((old.object_type, old.object_id), new.object_id);
                if old.1 == "*" {
                    prop_assert_eq!(new, "*");
                    continue;
                }
                prop_assert!(!written.contains(&old.1), "{:?}", old);
                prop_assert_eq!(there.entry(old.clone()).or_insert_with(|| new.clone()), &new);
                prop_assert_eq!(back.entry(new.clone()).or_insert_with(|| old.clone()), &old);
                prop_assert!(new.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
            }
        }
    }
}
