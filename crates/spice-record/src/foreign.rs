//! Recognizes what an input is that is no stream, by its first bytes.
//!
//! People feed what they have: the archive of a backup, the file of `zed backup`, a schema, a list of
//! relationships as text. "expected value at column 1" helps none of them.

/// Enough of the beginning for each of the forms.
const BEGINNING: usize = 4 << 10;

/// A format of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An Avro object container file, the form of `zed backup`.
    Avro,
    /// YAML, the form of validation files.
    Yaml,
    /// A relationship a line, as SpiceDB writes it.
    Text,
    /// Something that holds no relationships, or holds them packed.
    Other,
}

/// What an input is, and what to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its format.
    pub format: Format,
    /// Its name, and the next step.
    pub name: &'static str,
}

/// Formats with a fixed beginning, and what to do with each. gzip and zstd come here only from within
/// compressed data, or from where none is taken, such as a spool.
const SIGNATURES: [(&[u8], &str); 14] = [
    (
        b"\x1f\x8b",
        "gzip in the place of its text: unpack it with gzip -dc",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "zstd in the place of its text: unpack it with zstd -dc",
    ),
    (b"BZh", "bzip2: unpack it with bzip2 -dc"),
    (b"\xfd7zXZ\0", "xz: unpack it with xz -dc"),
    (b"\x04\x22\x4d\x18", "lz4: unpack it with lz4 -dc"),
    (b"PK\x03\x04", "a zip archive: unpack it with unzip -p"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it with 7z x"),
    (
        b"\xef\xbb\xbf",
        "UTF-8 with a byte order mark: remove it with tail -c +4",
    ),
    (
        b"\xff\xfe",
        "UTF-16: convert it with iconv -f UTF-16 -t UTF-8",
    ),
    (
        b"\xfe\xff",
        "UTF-16: convert it with iconv -f UTF-16 -t UTF-8",
    ),
    (
        b"PGDMP",
        "an archive of pg_dump: spice-export reads a server",
    ),
    (
        b"SQLite format 3\0",
        "a database of SQLite: write its rows as one JSON object a line",
    ),
    (b"PAR1", "Parquet: write its rows as one JSON object a line"),
    (
        b"<",
        "XML or HTML, such as the error page of a proxy: look into it",
    ),
];

/// Where the archive of tar has its magic.
const TAR: (usize, &[u8]) = (257, b"ustar");

/// The beginning of an Avro object container file.
pub const AVRO_MAGIC: [u8; 4] = *b"Obj\x01";

/// Recognizes the beginning of an input; `None` for what may be a stream.
#[must_use]
pub fn recognize(input: &[u8]) -> Option<Foreign> {
    let start = &input[..input.len().min(BEGINNING)];
    let found = |format, name| Some(Foreign { format, name });
    if start.starts_with(&AVRO_MAGIC) {
        return found(
            Format::Avro,
            "an Avro file, such as zed backup writes: spice-convert FILE makes a stream of it",
        );
    }
    if let Some((_, name)) = SIGNATURES
        .iter()
        .find(|(magic, _)| start.starts_with(magic))
    {
        return found(Format::Other, name);
    }
    if start
        .get(TAR.0..)
        .is_some_and(|rest| rest.starts_with(TAR.1))
    {
        return found(Format::Other, "a tar archive: unpack it with tar -xOf");
    }
    // UTF-16 without its mark: every second byte is 0.
    match start {
        [b'{', 0, ..] | [1..=0x7f, 0, 1..=0x7f, 0, ..] => {
            return found(
                Format::Other,
                "UTF-16: convert it with iconv -f UTF-16LE -t UTF-8",
            );
        }
        [0, b'{', ..] | [0, 1..=0x7f, 0, 1..=0x7f, ..] => {
            return found(
                Format::Other,
                "UTF-16: convert it with iconv -f UTF-16BE -t UTF-8",
            );
        }
        _ => {}
    }
    let text = text_of(start).trim_start();
    if let Some(name) = name_of_json(text) {
        return found(Format::Other, name);
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    // Text and schema both begin with comments of this form.
    let line = lines.clone().find(|line| !line.starts_with("//"));
    if line.is_some_and(is_relationship) {
        return found(
            Format::Text,
            "relationships as text: spice-convert FILE makes a stream of them",
        );
    }
    let is_schema = ["definition ", "caveat ", "use ", "/**", "//"];
    if is_schema.iter().any(|word| text.starts_with(word)) {
        return found(Format::Other, "a schema: write it with zed schema write");
    }
    if is_sql(text) {
        return found(
            Format::Other,
            "SQL, such as pg_dump and mysqldump write: spice-export reads a server",
        );
    }
    let line = lines.find(|line| !line.starts_with('#'));
    if line.is_some_and(is_yaml) {
        return found(
            Format::Yaml,
            "YAML, such as the playground and zed validate use: spice-convert FILE makes a stream of it",
        );
    }
    if text
        .split_once('\n')
        .is_some_and(|(line, _)| is_table(line))
    {
        return found(
            Format::Other,
            "a table, such as CSV: write its rows as one JSON object a line, for spice-convert --no-trailer",
        );
    }
    None
}

/// What JSON is that is no record.
fn name_of_json(text: &str) -> Option<&'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let rest = rest.trim_start();
        let is_array = rest.is_empty() || rest.starts_with(['{', '[', ']', '"']);
        return is_array
            .then_some("a JSON array: this takes one object a line, as jq -c '.[]' prints them");
    }
    let rest = text.strip_prefix('{')?;
    if rest.starts_with(['\n', '\r']) {
        return Some("JSON over several lines: jq -c . prints one object a line");
    }
    let key = rest.trim_start().strip_prefix('"')?.split_once('"')?.0;
    match key {
        "resource" => Some(
            "relationships without their key: for spice-convert --no-trailer, jq -c '{relationship: .}' adds it",
        ),
        "result" | "relationships" | "afterResultCursor" | "readAt" => {
            Some("answers of SpiceDB's API: spice-export reads a server")
        }
        _ => None,
    }
}

/// Comments and statements that a dump begins with.
fn is_sql(text: &str) -> bool {
    const WORDS: [&str; 9] = [
        "begin", "copy", "create", "drop", "insert", "select", "set", "start", "use",
    ];
    let line = text.lines().next().unwrap_or_default().trim_end();
    let first = line.split([' ', ';']).next().unwrap_or_default();
    let is_word = WORDS.iter().any(|word| first.eq_ignore_ascii_case(word));
    line == "--"
        || line.starts_with("-- ")
        || line.starts_with("/*!")
        || (is_word && !line.contains(':'))
}

/// The head of a table, or a row: three columns at least.
fn is_table(line: &str) -> bool {
    let begins = |c: char| c.is_ascii_alphanumeric() || c == '"' || c == '\'';
    let columns = |separator: char| line.split(separator).count();
    line.starts_with(begins)
        && [',', ';', '\t']
            .into_iter()
            .any(|separator| columns(separator) >= 3)
}

/// The part of the beginning that is UTF-8: its end may be within a character.
fn text_of(start: &[u8]) -> &str {
    match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => "",
    }
}

/// The first line of a document that holds the keys of a validation file.
fn is_yaml(line: &str) -> bool {
    const KEYS: [&str; 5] = [
        "schema",
        "schemaFile",
        "relationships",
        "assertions",
        "validation",
    ];
    let is_key = |key: &&str| {
        let line = line.trim_start_matches(['"', '\'']);
        let rest = line.strip_prefix(*key);
        rest.is_some_and(|rest| rest.trim_start_matches(['"', '\'', ' ']).starts_with(':'))
    };
    line.starts_with("---") || line.starts_with("%YAML") || KEYS.iter().any(is_key)
}

/// `doc:readme#viewer@user:anne`, with caveat and expiry or not.
fn is_relationship(line: &str) -> bool {
    let Some((resource, subject)) = line.split_once('@') else {
        return false;
    };
    let Some((resource, relation)) = resource.split_once('#') else {
        return false;
    };
    let is_name = |name: &str| {
        let mut bytes = name.bytes();
        bytes.next().is_some_and(|first| first.is_ascii_lowercase())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'/'))
    };
    let has_type = |object: &str| {
        object
            .split_once(':')
            .is_some_and(|(kind, _)| is_name(kind))
    };
    // The text of a YAML string is behind a space or a quote.
    let is_value = |object: &str| {
        object
            .split_once(':')
            .is_some_and(|(_, value)| value.starts_with([' ', '"', '\'', '\t']))
    };
    has_type(resource) && !is_value(resource) && is_name(relation) && has_type(subject)
}

#[cfg(test)]
mod tests {
    use super::{Format, recognize};

    #[test]
    fn what_people_feed_is_named() {
        for (input, named) in [
            (&b"\x1f\x8b\x08\0"[..], "gzip -dc"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd -dc"),
            (b"BZh91AY", "bzip2 -dc"),
            (b"\xfd7zXZ\0\0", "xz -dc"),
            (b"\xef\xbb\xbf{\"header\":{}}", "byte order mark"),
            (b"\xff\xfe{\0", "UTF-16"),
            (b"{\0\"\0h\0", "UTF-16LE"),
            (b"\0{\0\"", "UTF-16BE"),
            (b"d\0o\0c\0:\0", "UTF-16LE"),
            (b"\0-\0-\0-\0\n", "UTF-16BE"),
            (b"\x04\x22\x4d\x18d", "lz4 -dc"),
            (b"7z\xbc\xaf\x27\x1c\0", "7z x"),
            (b"PGDMP\x01\x0e", "pg_dump"),
            (b"SQLite format 3\0\x10", "SQLite"),
            (b"PAR1\x15\x04", "Parquet"),
            (b"<!DOCTYPE html>\n", "HTML"),
            (b"--\n-- PostgreSQL database dump\n--\n", "SQL"),
            (b"-- MySQL dump 10.13\n", "SQL"),
            (b"/*!40101 SET NAMES utf8 */;\n", "SQL"),
            (b"INSERT INTO relation_tuple VALUES (1);\n", "SQL"),
            (b"COPY public.relation_tuple (a) FROM stdin;\n", "SQL"),
            (b"resource_type,resource_id,relation\n", "CSV"),
            (b"\"resource_type\";\"resource_id\";\"relation\"\r\n", "CSV"),
            (b"document\treadme\tviewer\tuser\tanne\n", "CSV"),
            (b"\n [ {\"header\":{}}]", "JSON array"),
            (b"{\n  \"header\": {\n", "several lines"),
            (
                b"{\"resource\":{\"objectType\":\"a\"}}\n",
                "jq -c '{relationship: .}'",
            ),
            (b"{\"result\":{\"relationships\":[]}}\n", "SpiceDB's API"),
            (b"{\"afterResultCursor\":{}}\n", "SpiceDB's API"),
            (b"Obj\x01\x04\x14avro.codec", "Avro"),
            (b"[{\"header\":{}}]", "JSON array"),
            (b"---\nschema: |-\n", "YAML"),
            (b"schema: |-\n  definition user {}\n", "YAML"),
            (b"doc:readme#viewer@user:anne\n", "relationships as text"),
            (
                b"org/doc:a|b#viewer@group:x#member[caveat:{}]\n",
                "relationships as text",
            ),
            (b"definition user {}\n", "a schema"),
            (b"use expiration\n\ndefinition user {}\n", "a schema"),
            (b"/** a person */\ndefinition user {}\n", "a schema"),
            (b"PK\x03\x04", "zip"),
        ] {
            let found = recognize(input).map_or("nothing", |found| found.name);
            assert!(found.contains(named), "{input:?}: {found}");
        }
        let mut tar = [0; 512];
        tar[..10].copy_from_slice(b"old.ndjson");
        tar[257..262].copy_from_slice(b"ustar");
        assert!(recognize(&tar).is_some_and(|found| found.name.contains("tar -x")));
    }

    #[test]
    fn what_can_be_converted_is_known_behind_comments() {
        let long = format!("doc:readme#viewer@user:{}\u{e9}", "x".repeat(4_072));
        for (input, format) in [
            (
                "// ours\n\n// more\ndoc:readme#viewer@user:anne\n",
                Format::Text,
            ),
            ("\r\n  doc:readme#viewer@user:anne\r\n", Format::Text),
            ("// ours\ndefinition user {}\n", Format::Other),
            ("# ours\n\n---\n", Format::Yaml),
            ("%YAML 1.2\n---\n", Format::Yaml),
            ("\"schema\": |-\n", Format::Yaml),
            ("validation: null\n", Format::Yaml),
            ("schemaFile : a.zed\n", Format::Yaml),
            ("relationships: 'doc:1#viewer@user:a'\n", Format::Yaml),
            ("relationships: doc:1#viewer@user:a\n", Format::Yaml),
            (long.as_str(), Format::Text),
        ] {
            let found = recognize(input.as_bytes()).map(|found| found.format);
            assert_eq!(found, Some(format), "{input:?}");
        }
    }

    #[test]
    fn what_may_be_a_stream_is_not() {
        for input in [
            &b"{\"header\":{}}"[..],
            b"  {\"relationship\":{}}",
            b"\n",
            b"",
            b"{",
            b"a: b",
            b"mail me@home:1",
            b"\0\0\0",
            b"# only a comment\n",
            b"schemas: 1\n",
            b"\xff doc:readme#viewer@user:anne\n",
            b"{\"",
            b"{\"head",
            b"{\"relationship\":{\"resource\":{}}}\n",
            b"[context]\nendpoint = \"a\"\n",
            b"a, b, c",
            b"selection: 1\n",
        ] {
            assert_eq!(recognize(input), None, "{input:?}");
        }
    }
}
