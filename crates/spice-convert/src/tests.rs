//! What is converted and back is the same; what is incomplete or cannot be held makes no output.

mod damage;
mod lists;
mod validation;

use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};
use spice_cli::{CommandError, Exit};
use spice_foreign::backup::TOKEN_KEY;
use spice_foreign::testing::zed_backup;
use spice_record::record::{Filter, StreamKind};
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
    let filter = Filter {
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

/// What is read back would be taken for all of a server, and `spice-diff` would delete the rest.
#[test]
fn part_is_refused_by_a_format_that_cannot_say_so() {
    let folder = Folder::new();
    let sample = milliseconds(20);
    let header = Header {
        filter: Some(Filter {
            types: vec!["tenant/document".to_owned()],
            resource_prefix: None,
        }),
        mapping: vec!["only tenant/document".to_owned()],
        ..sample.header()
    };
    let mut writer = SnapshotWriter::create(Vec::new(), header, ExpiryPrecision::Micros).unwrap();
    for relationship in sample.iter() {
        writer.write(&relationship).unwrap();
    }
    let sealed = String::from_utf8(writer.finish().unwrap().1).unwrap();
    folder.file("part", &sealed);
    for to in ["yaml", "text"] {
        let flags = format!("--to {to}");
        folder.refused("part", &flags, Exit::Usage, "holds only resources of type");
        let flags = format!("--to {to} --allow-incomplete --strict");
        let exit = folder.convert("part", "out", &flags);
        assert!(matches!(exit, Ok(Exit::Partial)), "{exit:?}");
    }
    // Without its trailer it is still a part.
    let lines: Vec<&str> = sealed.lines().collect();
    folder.file("lines", lines[..lines.len() - 1].join("\n") + "\n");
    for (from, flags) in [("lines", "--no-trailer"), ("part", "--to zedbackup")] {
        folder.converted(from, "out", flags);
        let again = if flags.contains("zedbackup") {
            ""
        } else {
            flags
        };
        if again.is_empty() {
            folder.converted("out", "back", "");
        } else {
            std::fs::rename(folder.path("out"), folder.path("back")).unwrap();
        }
        let header = stream(&folder.path("back")).0;
        assert_eq!(header.filter.unwrap().types, ["tenant/document"], "{flags}");
        assert_eq!(header.mapping, ["only tenant/document"], "{flags}");
    }
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
    std::os::unix::fs::symlink("zed", folder.path("link")).unwrap();
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
    let mut relationship = milliseconds(1).iter().next().unwrap();
    relationship.resource.as_mut().unwrap().object_id = "a b".to_owned();
    let header = Header::new(StreamKind::Snapshot, "test", "2026-11-27T00:00:00Z");
    let mut writer = SnapshotWriter::create(Vec::new(), header, ExpiryPrecision::Micros).unwrap();
    writer.write(&relationship).unwrap();
    folder.file("stream", writer.finish().unwrap().1);
    for to in ["text", "yaml"] {
        let flags = format!("--to {to}");
        folder.refused("stream", &flags, Exit::BadData, ":a b#");
        folder.refused("stream", &flags, Exit::BadData, "cannot be written as");
    }
}
