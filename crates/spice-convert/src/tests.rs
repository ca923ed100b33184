//! What is converted and back is the same; what is incomplete or cannot be held makes no output.

mod damage;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};
use spice_cli::{CommandError, Exit};
use spice_foreign::backup::TOKEN_KEY;
use spice_foreign::testing::zed_backup;
use spice_record::{Integrity, RecordReader, SnapshotReader, SnapshotWriter};
use testdata::Sample;

use super::*;

#[test]
fn flags_are_consistent() {
    Convert::command().debug_assert();
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Converts a file to another, with flags.
    fn convert(&self, from: &str, to: &str, flags: &str) -> Result<Exit, CommandError> {
        let (from, to) = (self.path(from), self.path(to));
        let mut arguments = vec!["spice-convert", from.to_str().unwrap()];
        arguments.extend(["--output", to.to_str().unwrap()]);
        arguments.extend(flags.split_whitespace());
        let convert = Convert::try_parse_from(arguments).unwrap();
        convert.check()?;
        convert.convert(&Progress::start("converted", true))
    }

    #[track_caller]
    fn converted(&self, from: &str, to: &str, flags: &str) {
        let exit = self.convert(from, to, flags);
        assert!(matches!(exit, Ok(Exit::Done)), "{from} {to}: {exit:?}");
    }

    /// Fails with this code and this text, and leaves no output.
    #[track_caller]
    fn refused(&self, from: &str, flags: &str, exit: Exit, named: &str) {
        let failure = self.convert(from, "refused", flags).expect_err(named);
        let text = format!("{}\n{}", failure.message(), failure.hint_text());
        assert!(text.contains(named), "{from} {flags}: {text}");
        assert_eq!(failure.exit, exit, "{text}");
        assert!(!self.path("refused").exists(), "{from} {flags}");
    }
}

/// Header, relationships and whether a trailer proved them.
fn stream(path: &Path) -> (Header, Vec<String>) {
    let bytes = std::fs::read(path).unwrap();
    let records = RecordReader::new(bytes.as_slice(), "stream");
    let mut stream = SnapshotReader::open(records, Integrity::Verified).unwrap();
    let mut found = Vec::new();
    while let Some(relationship) = stream.next_relationship().unwrap() {
        let mut line = Vec::new();
        spice_record::snapshot::write_relationship(&mut line, &relationship).unwrap();
        found.push(String::from_utf8(line).unwrap());
    }
    assert!(stream.is_verified());
    (stream.header().unwrap().clone(), found)
}

const TOKEN: &str = "GhUKEzE3OTU0MTUxMDcxNDI1MDIxMjc=";

fn sealed(sample: Sample) -> Vec<u8> {
    let header = Header {
        revision: Some(TOKEN.to_owned()),
        ..sample.header()
    };
    let mut writer = SnapshotWriter::create(Vec::new(), header, ExpiryPrecision::Micros).unwrap();
    for relationship in sample.iter() {
        writer.write(&relationship).unwrap();
    }
    writer.finish().unwrap().1
}

/// Whose expiries every format holds.
fn milliseconds(count: u64) -> Sample {
    Sample {
        expiry_step: 1_000_000,
        ..Sample::rich(count)
    }
}

#[test]
fn every_format_is_converted_and_back() {
    let folder = Folder::new();
    folder.file("stream", sealed(milliseconds(2_000)));
    let expected = stream(&folder.path("stream"));
    for (format, flags) in [
        ("zedbackup", "--codec null"),
        ("zedbackup", "--codec deflate"),
        ("zedbackup", "--codec snappy"),
        ("zedbackup", "--codec zstandard"),
        ("zedbackup", ""),
        ("yaml", ""),
        ("yaml", "--zstd"),
        ("yaml", "--gzip"),
        ("text", "--zstd=1"),
        ("text", ""),
        ("stream", "--zstd"),
    ] {
        folder.converted(
            "stream",
            "other",
            &format!("--to {format} {flags} --strict"),
        );
        folder.converted("other", "back", "--strict");
        let (header, relationships) = stream(&folder.path("back"));
        assert_eq!(relationships, expected.1, "{format}");
        let is_proven = matches!(format, "zedbackup" | "stream");
        let revision = header.revision.as_deref();
        assert_eq!(revision, is_proven.then_some(TOKEN), "{format}");
        let schema = header.schema.as_deref();
        assert_eq!(schema, (format != "text").then_some(testdata::SCHEMA));
        assert!(header.producer.starts_with("spice-convert "));
        if is_proven {
            assert_eq!(header.created_at, expected.0.created_at);
        }
        // Back again, it is the same file.
        folder.converted("back", "again", &format!("--to {format} {flags} --strict"));
        if !is_proven {
            assert_eq!(folder.read("again"), folder.read("other"), "{format}");
        }
        // Named, it is the same.
        folder.converted("other", "named", &format!("--from {format} --strict"));
        assert_eq!(stream(&folder.path("named")).1, relationships);
    }
}

#[test]
fn part_of_a_source_stays_one() {
    let folder = Folder::new();
    let filter = spice_record::record::Filter {
        types: vec!["tenant/document".to_owned()],
        resource_prefix: None,
    };
    let header = Header {
        filter: Some(filter.clone()),
        ..milliseconds(0).header()
    };
    let writer = SnapshotWriter::create(Vec::new(), header, ExpiryPrecision::Micros).unwrap();
    folder.file("stream", writer.finish().unwrap().1);
    folder.converted("stream", "backup", "--to zedbackup");
    folder.converted("backup", "back", "");
    assert_eq!(stream(&folder.path("back")).0.filter, Some(filter));
}

#[test]
fn what_a_backup_cannot_hold_is_counted() {
    let folder = Folder::new();
    folder.file("stream", sealed(Sample::rich(2_000)));
    folder.converted("stream", "backup", "--to zedbackup");
    let exit = folder.convert("stream", "strict", "--to zedbackup --strict");
    assert!(matches!(exit, Ok(Exit::Partial)), "{exit:?}");
    assert_eq!(folder.read("backup"), folder.read("strict"));
}

#[test]
fn incomplete_input_makes_no_output() {
    let folder = Folder::new();
    let complete = sealed(milliseconds(300));
    let cut = &complete[..complete.len() / 2];
    let end = cut.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    folder.file("cut", &cut[..end]);
    folder.file("torn", cut);
    folder.file("empty", "");
    folder.file("blank", "\n\n");
    folder.file("stream", &complete);
    folder.converted("stream", "backup", "--to zedbackup");
    let backup = folder.read("backup");
    folder.file("cut-backup", &backup[..backup.len() - 20]);
    folder.file(
        "torn-text",
        "document:a#viewer@user:b\ndocument:a#viewer@user:c",
    );
    folder.file("torn-yaml", "relationships: |-\n  document:a#viewer@user:b");
    for to in ["stream", "zedbackup", "yaml", "text"] {
        let to = format!("--to {to}");
        folder.refused("cut", &to, Exit::BadData, "cut: the input ends");
        folder.refused("torn", &to, Exit::BadData, "torn");
        folder.refused("empty", &to, Exit::BadData, "empty input");
        for from in ["stream", "zedbackup", "yaml", "text"] {
            let from = format!("{to} --from {from}");
            folder.refused("empty", &from, Exit::BadData, "empty input");
            // A text has no schema, which is noticed first.
            if from != "--to zedbackup --from text" {
                folder.refused("blank", &from, Exit::BadData, "");
            }
        }
        folder.refused("cut-backup", &to, Exit::BadData, "cut: it ends");
    }
    for to in ["stream", "yaml", "text"] {
        let to = format!("--to {to}");
        folder.refused("torn-text", &to, Exit::BadData, "echo >>FILE");
        folder.refused("torn-yaml", &to, Exit::BadData, "echo >>FILE");
    }
}

#[test]
fn repeated_relationship_is_refused_with_both_places() {
    let folder = Folder::new();
    let text = "// ours\ndocument:a#viewer@user:b\n\ndocument:a#viewer@user:b[c]\n";
    folder.file("text", text);
    folder.file(
        "yaml",
        "relationships: |-\n  document:a#viewer@user:b\n  document:a#viewer@user:b#...\n",
    );
    let line = |id: &str| {
        format!(
            r#"{{"relationship":{{"resource":{{"objectType":"document","objectId":"{id}"}},"relation":"viewer","subject":{{"object":{{"objectType":"user","objectId":"b"}}}}}}}}"#
        ) + "\n"
    };
    folder.file("lines", [line("a"), line("b"), line("a")].concat());
    let places = "line 4 repeats the relationship of line 2";
    folder.refused("text", "", Exit::BadData, places);
    let places = "line 2 of its relationships repeats the relationship of line 1";
    folder.refused("yaml", "--to text", Exit::BadData, places);
    let places = "line 3 repeats the relationship of line 1";
    folder.refused("lines", "--no-trailer", Exit::BadData, places);
}

#[test]
fn lines_made_by_hand_become_a_stream() {
    let folder = Folder::new();
    let complete = String::from_utf8(sealed(milliseconds(50))).unwrap();
    let lines: Vec<&str> = complete.lines().collect();
    let inner = lines[1..lines.len() - 1].join("\n") + "\n";
    folder.file("lines", &inner);
    folder.file("schema", "definition user {}\n");
    folder.refused(
        "lines",
        "",
        Exit::BadData,
        "spice-convert --no-trailer seals it",
    );
    folder.converted("lines", "sealed", "--no-trailer");
    let (header, relationships) = stream(&folder.path("sealed"));
    assert_eq!(relationships.concat(), inner);
    assert_eq!((header.revision, header.schema), (None, None));
    let flags = format!(
        "--no-trailer --schema-file {}",
        folder.path("schema").display()
    );
    folder.converted("lines", "sealed", &flags);
    let schema = stream(&folder.path("sealed")).0.schema;
    assert_eq!(schema.as_deref(), Some("definition user {}\n"));
    // With its header, but filtered: no snapshot of that revision.
    folder.file("filtered", format!("{}\n{}\n", lines[0], lines[1]));
    folder.converted("filtered", "sealed", "--no-trailer");
    let (header, relationships) = stream(&folder.path("sealed"));
    assert_eq!(relationships.len(), 1);
    assert_eq!(header.revision, None);
    assert_eq!(header.schema.as_deref(), Some(testdata::SCHEMA));
}

#[test]
fn backup_that_zed_has_not_finished_is_refused() {
    let folder = Folder::new();
    let path = folder.file("zed", zeds(milliseconds(250), None));
    folder.converted("zed", "out", "");
    assert_eq!(stream(&folder.path("out")).1.len(), 250);
    assert_eq!(
        stream(&folder.path("out")).0.revision.as_deref(),
        Some(TOKEN)
    );
    let lock = folder.file("zed.lock", "cursor");
    let named = lock.to_str().unwrap();
    folder.refused("zed", "", Exit::BadData, named);
    folder.converted("zed", "out", "--allow-incomplete");
    // zed puts it beside the name that it was given.
    symlink("zed", folder.path("link")).unwrap();
    folder.refused("link", "", Exit::BadData, "zed.lock");
    std::fs::remove_file(lock).unwrap();
    folder.converted("link", "out", "");
    // One that begins to write again while it is read.
    let options = Options {
        path,
        from: None,
        no_trailer: false,
        allow_incomplete: false,
        ignore_unknown_fields: false,
        schema_file: None,
    };
    let (mut source, _) = Source::open(&options).unwrap();
    folder.file("zed.lock", "cursor");
    let mut last = source.next();
    while matches!(last, Ok(Some(_))) {
        last = source.next();
    }
    assert_eq!(last.unwrap_err().exit, Exit::BadData);
}

/// A backup of zed, with a key more in its metadata or not.
fn zeds(sample: Sample, key: Option<&str>) -> Vec<u8> {
    let relationships: Vec<_> = sample.iter().collect();
    let mut metadata = vec![(TOKEN_KEY, TOKEN)];
    metadata.extend(key.map(|key| (key, "value")));
    let codec = Codec::Snappy;
    zed_backup(testdata::SCHEMA, &relationships, codec, &metadata).0
}

#[test]
fn metadata_that_are_not_known_are_refused() {
    let folder = Folder::new();
    folder.file("zed", zeds(milliseconds(1), Some("com.authzed.new")));
    folder.refused("zed", "", Exit::BadData, "com.authzed.new");
    folder.converted("zed", "out", "--ignore-unknown-fields");
}

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

#[test]
fn flags_that_contradict_the_input_are_usage() {
    let folder = Folder::new();
    folder.file("text", "document:a#viewer@user:b\n");
    folder.file("stream", sealed(milliseconds(3)));
    for (from, flags, named) in [
        ("text", "--no-trailer", "taken for text"),
        ("text", "--to zedbackup", "no schema"),
        ("stream", "--to zedbackup --zstd", "--codec zstandard"),
        ("stream", "--to zedbackup --gzip", "--codec zstandard"),
        ("stream", "--codec null", "--to zedbackup"),
    ] {
        folder.refused(from, flags, Exit::Usage, named);
    }
}

#[test]
fn what_is_no_such_format_is_named() {
    let folder = Folder::new();
    folder.file("gzip", b"\x1f\x8b\x08\0\0\0\0\0");
    folder.file(
        "avro",
        b"Obj\x01\x02\x16avro.schema\x10\"string\"\0aaaaaaaaaaaaaaaa",
    );
    folder.file("stream", sealed(milliseconds(3)));
    folder.file("text", "document:a#viewer@user:b\ndocument:b#viewer\n");
    folder.file("yaml", "schema: a\nrelationship: b\n");
    folder.file("schema", "definition user {}\n");
    folder.file("spaces", "document:a viewer user:b\n");
    folder.file("noise", b"\x07\x93\x1b[31m\0\xff\n");
    for (from, flags, named) in [
        ("gzip", "", "damaged: unexpected end of file"),
        ("avro", "", "holds \"string\""),
        ("spaces", "", "it begins with \"document:a viewer user:b\""),
        ("spaces", "--from text", "spaces:1:1: expected resource:id"),
        ("noise", "", "neither a stream, a backup, YAML nor text"),
        ("schema", "", "a schema"),
        ("text", "", "text:2:1: expected resource:id"),
        ("yaml", "", "line 2: unknown key \"relationship\""),
        ("stream", "--from zedbackup", "no Avro container file"),
        ("stream", "--from yaml", "unknown key \"header\""),
        ("stream", "--from text", "stream:1:1:"),
        ("text", "--from stream", "spice-convert FILE"),
        ("avro", "--from stream", "spice-convert FILE"),
        ("yaml", "--from stream", "spice-convert FILE"),
    ] {
        folder.refused(from, flags, Exit::BadData, named);
    }
}

#[test]
fn names_that_text_cannot_hold_are_refused_by_place() {
    let folder = Folder::new();
    let line = r#"{"relationship":{"resource":{"objectType":"document","objectId":"a b"},"relation":"viewer","subject":{"object":{"objectType":"user","objectId":"b"}}}}"#;
    folder.file("lines", format!("{line}\n"));
    for to in ["text", "yaml"] {
        let flags = format!("--no-trailer --to {to}");
        let named = "line 1: document:a b#viewer@user:b cannot be written as";
        folder.refused("lines", &flags, Exit::BadData, named);
    }
}
