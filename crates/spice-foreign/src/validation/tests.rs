//! Every schema and relationship is read back; what no validation file holds is named.

use proptest::prelude::*;
use testdata::Sample;

use super::*;

fn read(yaml: &str) -> ValidationFile {
    ValidationFile::read(yaml).unwrap_or_else(|message| panic!("{yaml}\n{message}"))
}

fn written(schema: Option<&str>, relationships: impl Iterator<Item = Relationship>) -> String {
    let mut writer = ValidationWriter::create(Vec::new(), schema).unwrap();
    for relationship in relationships {
        writer.write(&relationship).unwrap();
    }
    String::from_utf8(writer.finish().unwrap()).unwrap()
}

#[test]
fn what_is_written_is_read_back() {
    for count in [0, 1, 500] {
        let sample = Sample::rich(count);
        let yaml = written(Some(testdata::SCHEMA), sample.iter());
        let file = read(&yaml);
        assert_eq!(file.schema.as_deref(), Some(testdata::SCHEMA), "{yaml}");
        let lines = file.relationships.lines();
        let found: Vec<Relationship> = lines
            .map(|line| crate::text::parse(line).unwrap())
            .collect();
        let mut texts = [String::new(), String::new()];
        for (text, all) in texts.iter_mut().zip([found, sample.iter().collect()]) {
            for one in &all {
                write(one, text).unwrap();
                text.push('\n');
            }
        }
        assert_eq!(texts[0], texts[1]);
    }
    assert_eq!(
        read(&written(None, std::iter::empty())),
        ValidationFile::default()
    );
}

#[test]
fn schemas_with_every_kind_of_white_space_are_read_back() {
    for schema in [
        "definition user {}",
        "definition user {}\n",
        "definition user {}\n\n\n",
        "\n\n  definition user {}\n",
        "  /* a */\n\n\tdefinition user {}\n   \n",
        "\tdefinition user {}",
        "a: b # c\n--- \n...\n- d\n",
        "definition user {}\r\n// \u{85} \u{2028} \u{feff}\n",
        "// \u{7f}\u{1}\u{1f980}\n",
        "// naïve \"漢字\" \\n 🦀\n",
        " ",
        "\n",
        "%YAML",
        "...",
    ] {
        let yaml = written(Some(schema), std::iter::empty());
        assert_eq!(read(&yaml).schema.as_deref(), Some(schema), "{yaml}");
    }
}

#[test]
fn forms_that_people_write_are_read() {
    let relationships = "document:a#viewer@user:b\n// ours\n\ndocument:a#viewer@user:c";
    for yaml in [
        "schema: |-\n  definition user {}\nrelationships: |-\n  document:a#viewer@user:b\n  // ours\n\n  document:a#viewer@user:c\n",
        "---\n# ours\nrelationships: >-\n  document:a#viewer@user:b\n\n  // ours\n\n\n  document:a#viewer@user:c\nschema: definition user {}\n...\n",
        "{\"schema\": \"definition user {}\", \"relationships\": \"document:a#viewer@user:b\\n// ours\\n\\ndocument:a#viewer@user:c\"}",
        "schema: |-\r\n  definition user {}\r\nrelationships: |-\r\n  document:a#viewer@user:b\r\n  // ours\r\n\r\n  document:a#viewer@user:c\r\n",
        "assertions:\n  assertTrue: [&s 'definition user {}']\nschema: *s\nvalidation: null\nrelationships: |-\n  document:a#viewer@user:b\n  // ours\n\n  document:a#viewer@user:c\n",
    ] {
        let file = read(yaml);
        assert_eq!(file.schema.as_deref(), Some("definition user {}"), "{yaml}");
        assert_eq!(file.relationships, relationships, "{yaml}");
    }
    let file = read(
        "schemaFile: \"./a.zed\"\nrelationships: ''\nassertions:\n  assertTrue: []\n  assertFalse: []\nvalidation: null\n",
    );
    assert_eq!(file.schema_file.as_deref(), Some("./a.zed"));
    assert_eq!((file.schema, file.skipped.len()), (None, 0));
    let file = read("assertions: !!binary YQ==\nschema: a\nrelationships: ''\n");
    assert_eq!((file.schema.as_deref(), file.skipped.len()), (Some("a"), 1));
    let file = read("schema: !!str 1\nrelationships: !!str\n");
    assert_eq!(file.schema.as_deref(), Some("1"));
    let file = read(
        "schema: a\nrelationships: ''\nassertions:\n  assertTrue:\n    - a\nvalidation:\n  a#b: [c]\n",
    );
    assert_eq!(file.skipped, ["assertions", "validation"]);
}

#[test]
fn what_is_no_validation_file_is_named() {
    for (yaml, named) in [
        ("", "no document"),
        ("schema: a\n", "no relationships in it"),
        ("schema: a\nrelationships:\n", "no relationships in it"),
        ("schema: a\nrelationships: ~\n", "no relationships in it"),
        ("schema: a\nrelationships: |-\n", "no relationships in it"),
        (
            "relationships: >\n\n\nschema: a\n",
            "no relationships in it",
        ),
        (
            "schema: |\n  a\n  relationships: |\n  b:c#d@e:f\n",
            "no relationships in it",
        ),
        ("# only a comment\n", "no document"),
        ("- a\n", "keys and values"),
        ("a\n", "keys and values"),
        ("schema: a\n---\nschema: b\n", "more than one document"),
        ("schema: a\n---\n", "more than one document"),
        ("relationship: a\n", "line 1: unknown key \"relationship\""),
        ("schema: a\n<<: *a\n", "unknown key \"<<\""),
        ("schema: a\nschema: b\n", "line 2: a second schema"),
        ("schema: a\nschemaFile: b\n", "both schema and schemaFile"),
        ("schema: [a]\n", "schema is no text"),
        ("relationships:\n  - a\n", "relationships is no text"),
        ("validation_tuples:\n  - a\n", "of an old form"),
        ("? [a]\n: b\n", "a key that is no text"),
        ("schema: *a\n", "no YAML"),
        ("assertions: &a [b]\nschema: *a\n", "an alias of no text"),
        (
            "schema: !!binary YQ==\n",
            "line 1: schema is tagged tag:yaml.org,2002:!binary",
        ),
        ("schema: !own a\n", "schema is tagged !own"),
        (
            "assertions: [&a !!binary YQ==]\nschema: *a\n",
            "an alias of no text",
        ),
        ("schema: \"a\n", "no YAML"),
        ("schema: a\n b: c: d\n", "no YAML"),
    ] {
        let message = ValidationFile::read(yaml).expect_err(yaml);
        assert!(message.contains(named), "{yaml:?}: {message}");
    }
}

#[test]
fn aliases_and_nesting_take_no_more_than_the_file() {
    let mut bomb = String::from("a0: &a0 [x]\n");
    for level in 1..60 {
        let names = vec![format!("*a{}", level - 1); 10].join(",");
        bomb += &format!("  a{level}: &a{level} [{names}]\n");
    }
    let bomb = format!("schema: a\nrelationships: ''\nassertions:\n  {bomb}");
    assert_eq!(read(&bomb).skipped, ["assertions"]);
    let many: String = (0..20_000)
        .map(|number| format!("- &a{number} b\n"))
        .collect();
    let parts = "a,".repeat(600_000);
    for (value, named) in [
        ("[".repeat(100_000), "no YAML"),
        ("{a: ".repeat(100_000), "no YAML"),
        ("- ".repeat(100_000), "nested more than 1000"),
        (format!("[{parts}]"), "too many parts"),
        (format!("[{}]", "'a'".repeat(600_000)), "too many parts"),
        (many, "10000 anchors"),
    ] {
        for key in ["assertions", "validation"] {
            let message = ValidationFile::read(&format!("{key}:\n{value}\n")).unwrap_err();
            assert!(message.contains(named), "{named}: {message}");
        }
    }
    let tags: String = (0..600_000)
        .map(|number| format!("%TAG !a{number}! b\n"))
        .collect();
    for yaml in [
        format!("{tags}---\nschema: a\n"),
        format!("{{schema: a, assertions: [{parts}]}}\n"),
        format!("relationships: |\n  a\nassertions:\n  [{parts}]\n"),
        format!("relationships:\n  [{parts}]\n"),
    ] {
        let message = ValidationFile::read(&yaml).unwrap_err();
        assert!(message.contains("too many parts"), "{message}");
    }
    let message = ValidationFile::read("schema: a\r# b\n").unwrap_err();
    assert!(message.contains("carriage return"), "{message}");
    // A block is one part.
    let line = "  document:a#viewer@user:b[c:{\"a\":[1,2,3]}]\n";
    for block in ["|", "|-", ">-", "|2+"] {
        let yaml = format!("relationships: {block}\n{}", line.repeat(100_000));
        let lines = read(&yaml).relationships;
        assert!(lines.len() > 4_000_000, "{block}: {}", lines.len());
    }
}

proptest! {
    #[test]
    fn any_schema_is_read_back(schema in "(?s)[ -~\t\n\r]{0,20}.*") {
        let yaml = written(Some(&schema), std::iter::empty());
        prop_assert_eq!(read(&yaml).schema, Some(schema));
    }

    #[test]
    fn any_text_is_refused_or_read(yaml in "(?s).*") {
        let _ = ValidationFile::read(&yaml);
    }
}
