use spice_cli::Exit;
use spice_record::Header;
use spice_record::record::{Filter, StreamKind};

use super::{REVISION, assert_refused, header, map, read, relationship, sealed, shown, snapshot};

const SCHEMA: &str = "\
definition crm/user {}

caveat crm/at_work(now timestamp) {
\tnow > timestamp('2026-01-01T00:00:00Z')
}

definition crm/team {
\trelation member: crm/user | crm/team#member
}

definition crm/doc {
\trelation viewer: crm/user | crm/user:* | crm/team#member | crm/user with crm/at_work
\tpermission view = viewer
}
";

fn stream() -> String {
    snapshot(
        SCHEMA,
        &[
            "crm/team:eng#member@crm/user:ann",
            "crm/team:eng#member@crm/team:core#member",
            "crm/doc:a1#viewer@crm/user:*",
            "crm/doc:a2#viewer@crm/team:eng#member",
            "crm/doc:b1#viewer@crm/user:bob[crm/at_work]",
        ],
    )
}

#[test]
fn schema_and_relationships_get_the_same_names() {
    let flags = [
        "--rename",
        "crm/=sales/",
        "--rename",
        "crm/doc#viewer=reader",
        "--rename",
        "crm/at_work=c",
    ];
    let (written, counts) = map(&flags, &stream()).unwrap();
    let (header, _) = read(&written);
    let expected = SCHEMA.replace("crm/at_work", "c").replace("crm/", "sales/");
    let expected = expected.replace("viewer", "reader");
    assert_eq!(header.schema.as_deref(), Some(&*expected));
    assert_eq!(
        shown(&written),
        [
            "sales/team:eng#member@sales/user:ann",
            "sales/team:eng#member@sales/team:core#member",
            "sales/doc:a1#reader@sales/user:*",
            "sales/doc:a2#reader@sales/team:eng#member",
            "sales/doc:b1#reader@sales/user:bob[c]",
        ]
    );
    assert_eq!((counts.read, counts.dropped), (5, 0));
    assert_eq!(header.revision.as_deref(), Some(REVISION));
    assert!(
        header.producer.starts_with("spice-map "),
        "{}",
        header.producer
    );
    assert_eq!(header.filter, None);
    let mapping = [
        "rename crm/=sales/",
        "rename crm/at_work=c",
        "rename crm/doc#viewer=reader",
    ];
    assert_eq!(header.mapping, mapping);
    // The order of flags does not matter, and a second mapping is added.
    let turned = [flags[4], flags[5], flags[0], flags[1], flags[2], flags[3]];
    assert_eq!(read(&map(&turned, &stream()).unwrap().0).0.mapping, mapping);
    let (twice, _) = map(&["--rename", "sales/=crm/"], &written).unwrap();
    let twice = read(&twice).0.mapping;
    assert_eq!(twice[..3], mapping);
    assert_eq!(twice[3..], ["rename sales/=crm/"]);
}

#[test]
fn dropped_parts_take_their_relationships_with_them() {
    let (written, counts) =
        map(&["--drop", "crm/at_work", "--drop-references"], &stream()).unwrap();
    assert_eq!((counts.read, counts.dropped), (5, 1));
    assert!(
        !written.contains("crm/user:bob") && !read(&written).0.schema.unwrap().contains("at_work")
    );
    let (written, _) = map(&["--drop", "crm/team", "--drop-references"], &stream()).unwrap();
    assert_eq!(
        shown(&written),
        [
            "crm/doc:a1#viewer@crm/user:*",
            "crm/doc:b1#viewer@crm/user:bob[crm/at_work]"
        ]
    );
    let (written, _) = map(
        &["--drop", "crm/team#member", "--drop-references"],
        &stream(),
    )
    .unwrap();
    assert_eq!(shown(&written).len(), 2);
    let (written, _) = map(&["--drop", "crm/doc#view"], &stream()).unwrap();
    assert_eq!(shown(&written).len(), 5);
    assert_refused(
        &["--drop", "crm/team"],
        &stream(),
        Exit::Usage,
        "line 12, column 43: relation crm/doc#viewer refers to crm/team",
    );
}

#[test]
fn chosen_types_keep_what_their_schema_needs() {
    let (written, counts) = map(&["--only-type", "crm/team"], &stream()).unwrap();
    let (header, _) = read(&written);
    let schema = header.schema.unwrap();
    assert!(schema.contains("definition crm/user {}") && schema.contains("definition crm/team"));
    assert!(
        !schema.contains("crm/doc") && !schema.contains("at_work"),
        "{schema}"
    );
    assert_eq!((counts.read, counts.dropped), (5, 3));
    assert!(
        shown(&written)
            .iter()
            .all(|text| text.starts_with("crm/team:eng"))
    );
    assert_eq!(header.filter.unwrap().types, ["crm/team"]);
    let (written, _) = map(
        &["--only-type", "crm/doc,crm/team", "--rename", "crm/=x_y/"],
        &stream(),
    )
    .unwrap();
    assert_eq!(
        read(&written).0.filter.unwrap().types,
        ["x_y/doc", "x_y/team"]
    );
    assert_eq!(shown(&written).len(), 5);
}

#[test]
fn resources_are_chosen_by_the_beginning_of_their_ids() {
    let flags = [
        "--only-resource-prefix",
        "crm/doc:a",
        "--only-type",
        "crm/team",
    ];
    let (written, _) = map(&flags, &stream()).unwrap();
    assert_eq!(shown(&written).len(), 4);
    let (header, _) = read(&written);
    // The order of the flags does not matter. One type is chosen by its prefix, the other is not.
    let filter = header.filter.unwrap();
    assert_eq!(filter.types, ["crm/doc", "crm/team"]);
    assert_eq!(filter.resource_prefix, None);
    assert_eq!(header.mapping, ["only crm/doc:a", "only crm/team"]);
    let flags = [
        "--only-resource-prefix",
        "crm/doc:a1",
        "--only-resource-prefix",
        "crm/doc:b",
    ];
    let (written, _) = map(&flags, &stream()).unwrap();
    assert_eq!(shown(&written).len(), 2);
    assert_eq!(read(&written).0.filter.unwrap().resource_prefix, None);
}

#[test]
fn filter_of_the_input_stays_true() {
    let filtered = |types: &[&str], prefix: Option<&str>| {
        let header = Header {
            filter: Some(Filter {
                types: types.iter().map(|&name| name.to_owned()).collect(),
                resource_prefix: prefix.map(str::to_owned),
            }),
            ..header(StreamKind::Snapshot, SCHEMA)
        };
        sealed(header, [relationship("crm/doc:a1#viewer@crm/user:*")])
    };
    let after = |flags: &[&str], input: &str| read(&map(flags, input).unwrap().0).0.filter;
    let both = filtered(&["crm/doc", "crm/team"], Some("a"));
    let found = after(&["--rename", "crm/=x_y/"], &both).unwrap();
    assert_eq!(found.types, ["x_y/doc", "x_y/team"]);
    assert_eq!(found.resource_prefix.as_deref(), Some("a"));
    let found = after(&["--only-type", "crm/doc"], &both).unwrap();
    assert_eq!(found.types, ["crm/doc"]);
    // It would claim to hold all of these, and the input has none.
    for flags in [
        ["--only-type", "crm/user"],
        ["--only-resource-prefix", "crm/user:a"],
        ["--only-resource-prefix", "crm/doc:b"],
    ] {
        assert_refused(
            &flags,
            &both,
            Exit::Usage,
            "and so nothing of what is chosen of crm/",
        );
    }
    let secret = filtered(&["crm/doc"], Some("anne"));
    let flags = [
        "--only-resource-prefix",
        "crm/doc:bob",
        "--redact",
        "crm/doc",
        "--key-file",
        "KEY",
    ];
    let failure = map(&flags, &secret).unwrap_err();
    assert!(!format!("{failure:?}").contains("anne"), "{failure:?}");
    for (chosen, prefix) in [("crm/doc:a1", "a1"), ("crm/doc:a", "a")] {
        let found = after(&["--only-resource-prefix", chosen], &both).unwrap();
        assert_eq!(found.types, ["crm/doc"]);
        assert_eq!(found.resource_prefix.as_deref(), Some(prefix), "{chosen}");
    }
    let found = after(&["--drop", "crm/team", "--drop-references"], &both).unwrap();
    assert_eq!(found.types, ["crm/doc"]);
    let prefix = filtered(&[], Some("a"));
    let found = after(&["--redact", "crm/doc", "--key-file", "KEY"], &prefix).unwrap();
    assert_eq!(found, Filter::default());
}

#[test]
fn what_collides_is_refused_before_anything_is_written() {
    for (flags, part) in [
        (
            &["--rename", "crm/user=crm/team"][..],
            "both be called crm/team",
        ),
        (
            &["--rename", "crm/doc#view=viewer"],
            "both be called viewer",
        ),
        (
            &["--rename", "crm/user=user", "--rename", "crm/user=person"],
            "already gets another name",
        ),
        (
            &["--rename", "crm/user=nil"],
            "accepts no such name: nil is a keyword",
        ),
        (&["--rename", "crm/user=u"], "has 3 to 64 lower-case"),
        (&["--rename", "crm/doc#view=viewer"], "another new name"),
    ] {
        assert_refused(flags, &stream(), Exit::Usage, part);
    }
}

/// Lines are those of the schema that was read, also where a part of it is dropped.
#[test]
fn problem_is_named_at_its_line_of_the_input() {
    let dropped = ["--drop", "crm/at_work", "--drop-references"];
    let flags = [&dropped[..], &["--rename", "crm/team=crm/user"]].concat();
    assert_refused(
        &flags,
        &stream(),
        Exit::Usage,
        "line 7, column 12: crm/user and crm/team",
    );
}

#[test]
fn names_that_the_schema_does_not_have_are_refused() {
    for flags in [
        &["--rename", "sales/=crm/"][..],
        &["--rename", "crm/users=crm/people"],
        &["--rename", "crm/doc#seen=viewed"],
        &["--drop", "crm/users"],
        &["--drop", "crm/doc#seen"],
        &["--only-type", "crm/docs"],
        &["--only-resource-prefix", "crm/docs:a"],
        &["--redact", "user", "--key-file", "KEY"],
    ] {
        assert_refused(
            flags,
            &stream(),
            Exit::Usage,
            "the stream's schema does not have \"",
        );
    }
    let hints = [
        (
            &["--redact", "user", "--key-file", "KEY"][..],
            "\"user\" (--redact) names are those of the input; it has: definitions crm/user, crm/team, \
             crm/doc",
        ),
        (
            &["--drop", "crm/at_home"],
            "it has: definitions crm/user, crm/team, crm/doc; caveats crm/at_work",
        ),
        (
            &["--drop", "crm/doc#seen"],
            "it has: in crm/doc view, viewer",
        ),
    ];
    for (flags, part) in hints {
        assert_refused(flags, &stream(), Exit::Usage, part);
    }
}

/// What an id of a type that is misspelled would be: in clear, behind a trailer that vouches for it.
#[test]
fn names_that_a_stream_without_a_schema_never_has_are_refused() {
    let input = snapshot(
        "",
        &["doc:a#viewer@user:ann[named]", "group:b#member@user:bob"],
    );
    for (flags, name) in [
        (
            &["--redact", "usre", "--key-file", "KEY"][..],
            "\"usre\" (--redact)",
        ),
        // A caveat has no ids.
        (
            &["--redact", "named", "--key-file", "KEY"],
            "\"named\" (--redact)",
        ),
        (&["--drop", "usr"], "\"usr\" (--drop)"),
        (&["--drop", "doc#member"], "\"doc#member\" (--drop)"),
        (&["--only-type", "doc,docs"], "\"docs\" (--only-type)"),
        (
            &["--only-resource-prefix", "docs:a"],
            "\"docs\" (--only-resource-prefix)",
        ),
        (&["--rename", "usr=person"], "\"usr\" (--rename)"),
        (
            &["--rename", "doc#reader=seer"],
            "\"doc#reader\" (--rename)",
        ),
    ] {
        let part = format!("no schema and no relationship of the stream has {name}");
        assert_refused(flags, &input, Exit::Usage, &part);
    }
    for flags in [
        &["--redact", "user", "--redact", "doc", "--key-file", "KEY"][..],
        &["--drop", "named"],
        &["--only-type", "user"],
        &["--rename", "doc#viewer=reader", "--rename", "crm/=sales/"],
    ] {
        map(flags, &input).unwrap();
    }
    // Nothing is in it, and so nothing in clear.
    map(&["--drop", "usr"], &snapshot("", &[])).unwrap();
}

#[test]
fn hint_of_a_refused_drop_is_one_that_helps() {
    let flags = ["--drop", "crm/doc#viewer"];
    let hint = "leave out what refers to it as well: --drop crm/doc#view";
    assert_refused(&flags, &stream(), Exit::Usage, hint);
    let with_references = [&flags[..], &["--drop-references"]].concat();
    assert_refused(&with_references, &stream(), Exit::Usage, hint);
    map(
        &[&flags[..], &["--drop", "crm/doc#view"]].concat(),
        &stream(),
    )
    .unwrap();
    let flags = ["--drop", "crm/at_work"];
    assert_refused(
        &flags,
        &stream(),
        Exit::Usage,
        "--drop-references removes it",
    );
    map(&[&flags[..], &["--drop-references"]].concat(), &stream()).unwrap();
    let flags = ["--drop", "crm/user", "--drop", "crm/team"];
    let refused = map(&flags, &stream()).map(|_| ());
    let hints = refused.unwrap_err().hint_text();
    assert!(
        hints.contains("--drop crm/doc#view") && hints.contains("--drop-references"),
        "{hints}"
    );
}

#[test]
fn flags_that_change_nothing_or_contradict_each_other_are_refused() {
    for (flags, part) in [
        (&[][..], "nothing to change"),
        (
            &["--only-type", "crm/doc", "--drop", "crm/doc"],
            "both kept and dropped",
        ),
        (
            &[
                "--only-type",
                "crm/doc",
                "--only-resource-prefix",
                "crm/doc:a",
            ],
            "--only-resource-prefix",
        ),
        (&["--redact", "crm/user"], "--key-file"),
        (&["--key-file", "KEY"], "--redact"),
        (&["--drop-references"], "--drop"),
        (&["--rename", "crm/user"], "OLD=NEW"),
        (
            &["--redact", "", "--key-file", "KEY"],
            "the name of a definition",
        ),
        (&["--only-type", "crm/doc,"], "the name of a definition"),
        (
            &["--only-resource-prefix", "crm/doc:%"],
            "an id has letters of ASCII",
        ),
    ] {
        assert_refused(flags, &stream(), Exit::Usage, part);
    }
}

#[test]
fn schema_that_is_not_understood_is_refused_with_its_place() {
    let broken = snapshot("definition crm/user {}\nsomething else\n", &[]);
    assert_refused(
        &["--rename", "crm/=sales/"],
        &broken,
        Exit::BadData,
        "line 2, column 1",
    );
}

#[test]
fn stream_that_is_not_complete_leaves_no_output() {
    let flags = ["--rename", "tenant/=org/"];
    let sound = testdata::snapshot(20);
    let (written, _) = map(&flags, &sound).unwrap();
    assert_eq!(read(&written).1.len(), 20);
    assert!(
        !written
            .replace("rename tenant/=org/", "")
            .contains("tenant/")
    );
    for (fault, stream) in testdata::faulty_trailers(&sound) {
        let failure = map(&flags, &stream).map(|_| ()).expect_err(fault);
        assert_eq!(failure.exit, Exit::BadData, "{fault}");
    }
    assert_refused(&flags, "", Exit::BadData, "empty input");
    assert_refused(
        &flags,
        "{\"checkpoint\":{\"revision\":\"a\"}}\n",
        Exit::BadData,
        "a header",
    );
}

#[test]
fn precision_of_the_trailer_is_kept() {
    let writer = spice_record::SnapshotWriter::create(
        Vec::new(),
        header(StreamKind::Snapshot, SCHEMA),
        spice_record::ExpiryPrecision::Seconds,
    );
    let input = String::from_utf8(writer.unwrap().finish().unwrap().1).unwrap();
    let (written, _) = map(&["--rename", "crm/=sales/"], &input).unwrap();
    assert!(written.contains("\"expiryPrecision\":\"s\""), "{written}");
}

#[test]
fn stream_without_a_schema_is_mapped_and_collisions_are_found_as_they_come() {
    let lines = [
        "crm/doc:a#viewer@crm/user:ann",
        "sales/doc:a#viewer@crm/user:ann",
    ];
    let one = snapshot("", &lines[..1]);
    let (written, _) = map(&["--rename", "crm/=sales/"], &one).unwrap();
    assert_eq!(shown(&written), ["sales/doc:a#viewer@sales/user:ann"]);
    assert_eq!(read(&written).0.schema, None);
    let both = snapshot("", &lines);
    assert_refused(
        &["--rename", "crm/=sales/"],
        &both,
        Exit::BadData,
        "crm/doc and sales/doc",
    );
    assert_refused(
        &["--rename", "crm/=sales/"],
        &both,
        Exit::BadData,
        "give one of the two another new name",
    );
    let relations = snapshot("", &["doc:a#viewer@user:ann", "doc:a#reader@user:ann"]);
    let flags = ["--rename", "doc#viewer=reader"];
    assert_refused(&flags, &relations, Exit::BadData, "viewer and reader");
}

#[test]
fn name_that_only_relationships_have_is_not_merged_with_a_renamed_one() {
    // The schema does not have crm/reader, nor reader in crm/doc. What has these names grants nothing yet.
    let lines = [
        "crm/doc:a#reader@crm/user:ann",
        "crm/reader:a#member@crm/user:ann",
    ];
    for schema in [SCHEMA, ""] {
        for (flag, line, part) in [
            ("crm/doc#viewer=reader", lines[0], "viewer and reader"),
            ("crm/team=crm/reader", lines[1], "crm/team and crm/reader"),
        ] {
            let input = snapshot(schema, &[line]);
            assert_refused(&["--rename", flag], &input, Exit::BadData, part);
        }
    }
    let prefix = snapshot(SCHEMA, &["sales/doc:a#viewer@crm/user:ann"]);
    let flags = ["--rename", "crm/=sales/"];
    assert_refused(&flags, &prefix, Exit::BadData, "crm/doc and sales/doc");
    // A relation that gets another name itself leaves its own.
    let both = snapshot("", &lines[..1]);
    let flags = ["doc#viewer=reader", "doc#reader=viewer"].map(|flag| format!("crm/{flag}"));
    let flags = ["--rename", &flags[0], "--rename", &flags[1]];
    let failure = map(&flags, &both).unwrap_err();
    assert!(failure.message().contains("viewer"), "{failure:?}");
    let both = snapshot("", &[lines[0], "crm/doc:b#viewer@crm/user:ann"]);
    let (written, _) = map(&flags, &both).unwrap();
    let swapped = [
        "crm/doc:a#viewer@crm/user:ann",
        "crm/doc:b#reader@crm/user:ann",
    ];
    assert_eq!(shown(&written), swapped);
}

#[test]
fn what_is_left_out_collides_with_nothing() {
    let schema = format!("{SCHEMA}definition doc {{\n\trelation viewer: crm/user\n}}\n");
    let lines = [
        "crm/doc:a#viewer@crm/user:ann",
        "doc:a#viewer@crm/user:ann",
        "doc:a#viewer@crm/user:bob",
    ];
    for (schema, flags) in [
        (&*schema, ["--drop", "doc"]),
        ("", ["--drop", "doc"]),
        (&*schema, ["--only-type", "crm/doc"]),
        ("", ["--only-type", "crm/doc"]),
    ] {
        let flags = [&flags[..], &["--rename", "crm/doc=doc"]].concat();
        let (written, counts) = map(&flags, &snapshot(schema, &lines)).unwrap();
        assert_eq!(shown(&written), ["doc:a#viewer@crm/user:ann"], "{flags:?}");
        assert_eq!(counts.dropped, 2);
    }
}

#[test]
fn name_that_no_definition_can_have_is_refused_without_a_schema() {
    let input = snapshot("", &["doc:a#viewer@user:ann[late]"]);
    for flag in ["doc=A", "user=a"] {
        let refused = "SpiceDB accepts no such name";
        assert_refused(&["--rename", flag], &input, Exit::Usage, refused);
        assert_refused(&["--rename", flag], &input, Exit::Usage, "3 to 64");
    }
    let (written, _) = map(&["--rename", "late=L"], &input).unwrap();
    assert_eq!(shown(&written), ["doc:a#viewer@user:ann[L]"]);
}
