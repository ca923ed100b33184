//! Names what an input is that is no stream, by its first bytes.
//!
//! People feed what they have: the archive of a backup, the file of `zed backup`, a schema, a list of
//! relationships as text. "expected value at column 1" helps none of them.

/// Enough of the beginning for each of the forms.
const BEGINNING: usize = 256;

/// Formats with a fixed beginning, and what to do with each. gzip and zstd come here only from within
/// compressed data, or from where none is taken, such as a spool.
const SIGNATURES: [(&[u8], &str); 10] = [
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
    (b"PK\x03\x04", "a zip archive: unpack it with unzip -p"),
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
        b"Obj\x01",
        "an Avro file, such as zed backup writes: restore it with zed into a SpiceDB, and export that",
    ),
    (
        b"[",
        "a JSON array: this takes one object a line, as jq -c '.[]' prints them",
    ),
];

/// Names it, and what to do with it; `None` for what may be a stream.
pub(crate) fn name(input: &[u8]) -> Option<&'static str> {
    let start = &input[..input.len().min(BEGINNING)];
    if let Some((_, name)) = SIGNATURES
        .iter()
        .find(|(magic, _)| start.starts_with(magic))
    {
        return Some(name);
    }
    // UTF-16 without its mark: every second byte is 0.
    if matches!(start, [b'{', 0, ..] | [0, b'{', ..]) {
        return Some("UTF-16: convert it with iconv -f UTF-16LE (or UTF-16BE) -t UTF-8");
    }
    let text = std::str::from_utf8(start).unwrap_or_default().trim_start();
    let first = text.lines().next().unwrap_or_default().trim_end();
    if is_relationship(first) {
        return Some("relationships as text: this takes them as JSON, one a line");
    }
    let is_schema = ["definition ", "caveat ", "use ", "/**", "//"];
    if is_schema.iter().any(|word| text.starts_with(word)) {
        return Some("a schema: write it with zed schema write");
    }
    let yaml = ["---", "schema:", "relationships:", "schemaFile:"];
    if yaml.iter().any(|word| first.starts_with(word)) {
        return Some(
            "YAML, such as the playground and zed validate use: this takes JSON, one object a line",
        );
    }
    None
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
    has_type(resource) && is_name(relation) && has_type(subject)
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn what_people_feed_is_named() {
        for (input, named) in [
            (&b"\x1f\x8b\x08\0"[..], "gzip -dc"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd -dc"),
            (b"BZh91AY", "bzip2 -dc"),
            (b"\xfd7zXZ\0\0", "xz -dc"),
            (b"\xef\xbb\xbf{\"header\":{}}", "byte order mark"),
            (b"\xff\xfe{\0", "UTF-16"),
            (b"{\0\"\0h\0", "UTF-16"),
            (b"\0{\0\"", "UTF-16"),
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
            (b"/** a person */\ndefinition user {}\n", "a schema"),
            (b"PK\x03\x04", "zip"),
        ] {
            let found = name(input).unwrap_or("nothing");
            assert!(found.contains(named), "{input:?}: {found}");
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
        ] {
            assert_eq!(name(input), None, "{input:?}");
        }
    }
}
