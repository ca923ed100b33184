//! What people feed is named for what it is, with the next step, by every program that reads a stream.

use std::io::Write as _;

use super::{convert, milliseconds};
use crate::copy::stream_of;
use crate::support::program::Program;
use crate::support::{figure, folder};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn utf16(text: &str, bytes_of: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes_of).collect()
}

/// Each input, what has to be in the message, and whether `spice-convert` takes it.
fn inputs() -> Vec<(Vec<u8>, &'static str, bool)> {
    const HEADER: &str = "{\"header\":{\"format\":\"spice-stream/1\"}}\n";
    const TEXT: &str = "document:readme#viewer@user:anne\n";
    let mut tar = vec![0; 1_024];
    tar[..6].copy_from_slice(b"a.json");
    tar[257..262].copy_from_slice(b"ustar");
    let mut inputs: Vec<(Vec<u8>, &str, bool)> = [
        (
            "\u{feff}{\"header\":{}}\n",
            "byte order mark: remove it with tail -c +4",
        ),
        ("[{\"relationship\":{}}]\n", "a JSON array"),
        ("\n[\n  {\"relationship\":{}}\n]\n", "a JSON array"),
        (
            "{\n  \"header\": {}\n}\n",
            "jq -c . prints one object a line",
        ),
        (
            "{\"resource\":{\"objectType\":\"document\"}}\n",
            "jq -c '{relationship: .}'",
        ),
        (
            "{\"result\":{\"relationships\":[]}}\n",
            "answers of SpiceDB's API",
        ),
        (
            "definition user {}\n",
            "a schema: write it with zed schema write",
        ),
        (
            "--\n-- PostgreSQL database dump\n--\n",
            "SQL, such as pg_dump",
        ),
        (
            "INSERT INTO relation_tuple VALUES ('a');\n",
            "SQL, such as pg_dump",
        ),
        (
            "resource_type,resource_id,relation\ndocument,a,viewer\n",
            "a table, such as CSV",
        ),
        (
            "<html><body>502 Bad Gateway</body></html>\n",
            "error page of a proxy",
        ),
    ]
    .map(|(text, named)| (text.as_bytes().to_vec(), named, false))
    .into();
    inputs.extend([
        (b"\xfd7zXZ\0\0\x04".to_vec(), "xz -dc", false),
        (b"BZh91AY&SY".to_vec(), "bzip2 -dc", false),
        (b"PK\x03\x04\x14\0".to_vec(), "unzip -p", false),
        (b"7z\xbc\xaf\x27\x1c\0\x04".to_vec(), "7z x", false),
        (b"\x04\x22\x4d\x18\x64\x40".to_vec(), "lz4 -dc", false),
        (b"PAR1\x15\x04\x15\x10".to_vec(), "Parquet", false),
        (b"PGDMP\x01\x0e\0".to_vec(), "an archive of pg_dump", false),
        (b"SQLite format 3\0\x10\0".to_vec(), "SQLite", false),
        (gzip(&gzip(HEADER.as_bytes())), "gzip -dc", false),
        (gzip(&tar), "tar -xOf", false),
        (tar, "tar -xOf", false),
        (utf16(HEADER, u16::to_le_bytes), "iconv -f UTF-16LE", false),
        (utf16(HEADER, u16::to_be_bytes), "iconv -f UTF-16BE", false),
        (utf16(TEXT, u16::to_le_bytes), "iconv -f UTF-16LE", false),
        (
            utf16(&format!("\u{feff}{TEXT}"), u16::to_be_bytes),
            "iconv -f UTF-16 ",
            false,
        ),
        (
            TEXT.as_bytes().to_vec(),
            "relationships as text: spice-convert",
            true,
        ),
        (
            b"schema: |-\n  definition user {}\nrelationships: \"\"\n".to_vec(),
            "YAML, such as",
            true,
        ),
    ]);
    inputs
}

#[test]
fn wrong_formats_are_named_by_every_program() {
    let folder = folder();
    let stream = folder.path().join("stream");
    std::fs::write(&stream, stream_of(milliseconds(3))).unwrap();
    let backup = folder.path().join("backup");
    let flags = ["--to", "zedbackup", "--output", backup.to_str().unwrap()];
    convert(&stream).args(flags).run().expect_success();
    let mut inputs = inputs();
    let avro = "an Avro file, such as zed backup writes: spice-convert FILE";
    inputs.push((std::fs::read(backup).unwrap(), avro, true));
    assert!(inputs.len() >= 24, "{}", inputs.len());
    let file = folder.path().join("file");
    let mut count = 0;
    for (bytes, named, is_taken) in inputs {
        std::fs::write(&file, bytes).unwrap();
        for (name, flags) in [
            ("spice-import", &["--dry-run"][..]),
            ("spice-map", &["--rename", "old/=new/"]),
            ("spice-digest", &[]),
            ("spice-convert", &[]),
        ] {
            let program = Program::new(name).args(flags);
            if name == "spice-convert" && is_taken {
                program.arg(&file).run().expect_success();
                continue;
            }
            // By its name and by a pipe.
            for program in [
                program.arg(&file),
                Program::new(name).args(flags).input_file(&file),
            ] {
                let finished = program.run().expect_code(65);
                assert!(
                    finished.stderr.contains(named),
                    "{name} {named}: {}",
                    finished.stderr
                );
                assert!(finished.stdout.is_empty(), "{name} {named}");
                count += 1;
            }
        }
    }
    figure(&format!("{count} refusals"));
}
