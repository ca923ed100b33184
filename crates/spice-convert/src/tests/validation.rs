//! Validation files: the schema that they hold or name, sections that a stream has no place for, missing lines.

use std::os::unix::fs::symlink;

use spice_cli::Exit;

use super::{Folder, stream};

#[test]
fn schema_beside_a_validation_file_is_read() {
    let folder = Folder::new();
    let with = |named: &str| format!("schemaFile: {named}\nrelationships: ''\n");
    folder.file("schema.zed", "definition user {}\n");
    for (file, named) in [("a", "schema.zed"), ("b", "./schema.zed")] {
        folder.file(file, with(named));
        folder.converted(file, "out", "");
        let schema = stream(&folder.path("out")).0.schema;
        assert_eq!(schema.as_deref(), Some("definition user {}\n"));
    }
    std::fs::create_dir(folder.path("inner")).unwrap();
    symlink(folder.path("schema.zed"), folder.path("inner/link.zed")).unwrap();
    folder.file("a", with("inner/link.zed"));
    folder.converted("a", "out", "");
    symlink("/etc/passwd", folder.path("out-of-it")).unwrap();
    symlink("/dev/zero", folder.path("device")).unwrap();
    folder.file("empty.zed", " \n");
    folder.file("binary.zed", b"\xff\n");
    folder.file("long.zed", "a".repeat(5 << 20));
    for (named, found) in [
        ("../schema.zed", "no file in or below its folder"),
        ("/etc/hostname", "no file in or below its folder"),
        ("inner/../schema.zed", "no file in or below its folder"),
        ("out-of-it", "no file in or below its folder"),
        ("device", "no file in or below its folder"),
        ("inner", "no file in or below its folder"),
        ("empty.zed", "no schema in it"),
        ("binary.zed", "UTF-8"),
        ("long.zed", "more than 4 MiB"),
    ] {
        folder.file("a", with(named));
        folder.refused("a", "", Exit::BadData, found);
    }
    // What the hint names is pasted into a shell.
    folder.file("a", with("'../b; rm -rf x'"));
    let hint = "--schema-file '../b; rm -rf x'";
    folder.refused("a", "", Exit::BadData, hint);
    folder.file("a", with("missing.zed"));
    folder.refused("a", "", Exit::Failed, "missing.zed");
    let flags = format!("--schema-file {}", folder.path("schema.zed").display());
    folder.converted("a", "out", &flags);
    let long = format!("schema: '{}'\nrelationships: ''\n", "a".repeat(5 << 20));
    folder.file("b", long);
    folder.refused("b", "", Exit::BadData, "more than 4 MiB");
    folder.file("b", "schema: definition a {}\nrelationships: ''\n");
    folder.refused("b", &flags, Exit::Usage, "a schema of its own");
}

#[test]
fn sections_that_a_stream_cannot_hold_are_reported() {
    let folder = Folder::new();
    folder.file(
        "yaml",
        "schema: definition a {}\nrelationships: ''\nassertions:\n  assertTrue: [b]\n",
    );
    folder.converted("yaml", "out", "");
    let exit = folder.convert("yaml", "out", "--strict");
    assert!(matches!(exit, Ok(Exit::Partial)), "{exit:?}");
}

/// What is left of a file that was cut, or lost a line, is no snapshot without relationships.
#[test]
fn validation_file_of_which_a_line_is_missing_is_refused() {
    let folder = Folder::new();
    let complete = "schema: |-\n  definition user {}\n  definition document {\n    relation owner: user\n  }\n\
                 relationships: |-\n  document:a#owner@user:b\n";
    folder.file("complete", complete);
    folder.converted("complete", "out", "");
    let lines: Vec<&str> = complete.split_inclusive('\n').collect();
    for missing in 0..lines.len() {
        let cut = lines[..missing].concat();
        let rest = lines[missing + 1..].concat();
        for (name, text) in [("cut", cut.clone()), ("without a line", cut + &rest)] {
            // Without a declaration, or with two on one line, it is another valid file.
            let is_valid = name == "without a line" && matches!(missing, 1 | 3);
            if text.is_empty() || is_valid {
                continue;
            }
            folder.file("part", text);
            let failure = folder.convert("part", "out", "").unwrap_err();
            assert_eq!(
                failure.exit,
                Exit::BadData,
                "{name}, {missing}: {failure:?}"
            );
        }
    }
    folder.file("text", "document:a#viewer@user:b\n");
    let flags = format!("--schema-file {}", folder.path("text").display());
    folder.refused(
        "text",
        &flags,
        Exit::BadData,
        "the schema is not understood",
    );
}
