//! The Avro schema of a backup: which objects a file holds, and in which order their fields are.

use serde_json::Value;

use crate::avro::Fields;

const RELATIONSHIP: &str = "com.authzed.spicedb.backup.relationship_v1";
const SCHEMA: &str = "com.authzed.spicedb.backup.schema_v1";

/// The fields of a relationship. The last one was added in December 2025.
const RELATIONSHIP_FIELDS: [(&str, &str); 9] = [
    ("object_type", "string"),
    ("object_id", "string"),
    ("relation", "string"),
    ("subject_object_type", "string"),
    ("subject_object_id", "string"),
    ("subject_relation", "string"),
    ("caveat_name", "string"),
    ("caveat_context", "bytes"),
    ("expiration", "long timestamp-millis"),
];
const SCHEMA_FIELDS: [(&str, &str); 1] = [("schema_text", "string")];

/// The schema that zed writes, which it finds its own types by.
pub(crate) const WRITTEN: &str = concat!(
    r#"[{"name":"com.authzed.spicedb.backup.relationship_v1","type":"record","fields":["#,
    r#"{"name":"object_type","type":"string"},{"name":"object_id","type":"string"},"#,
    r#"{"name":"relation","type":"string"},{"name":"subject_object_type","type":"string"},"#,
    r#"{"name":"subject_object_id","type":"string"},{"name":"subject_relation","type":"string"},"#,
    r#"{"name":"caveat_name","type":"string"},{"name":"caveat_context","type":"bytes"},"#,
    r#"{"name":"expiration","type":{"type":"long","logicalType":"timestamp-millis"}}]},"#,
    r#"{"name":"com.authzed.spicedb.backup.schema_v1","type":"record","fields":["#,
    r#"{"name":"schema_text","type":"string"}]}]"#,
);

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Relationship,
    Schema,
}

/// The number of each kind in the union, as objects are written.
pub(super) const WRITTEN_RELATIONSHIP: i64 = 0;
pub(super) const WRITTEN_SCHEMA: i64 = 1;

/// Which kinds a file holds, in the order of the union.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    kinds: [Kind; 2],
    pub(super) has_expiration: bool,
}

impl Layout {
    /// # Errors
    ///
    /// What was found instead, for the message.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let schema: Value = serde_json::from_slice(json)
            .map_err(|error| format!("an Avro file without a schema: {error}"))?;
        let other = || {
            format!(
                "an Avro file, but no backup of zed: it holds {}",
                name(&schema)
            )
        };
        let Value::Array(branches) = &schema else {
            return Err(other());
        };
        let [one, two] = branches.as_slice() else {
            return Err(other());
        };
        let mut has_expiration = true;
        let mut kind = |branch: &Value| {
            let record = Record::of(branch)?;
            let old = &RELATIONSHIP_FIELDS[..RELATIONSHIP_FIELDS.len() - 1];
            match record.name.as_str() {
                RELATIONSHIP if record.has(&RELATIONSHIP_FIELDS) => Some(Kind::Relationship),
                RELATIONSHIP if record.has(old) => {
                    has_expiration = false;
                    Some(Kind::Relationship)
                }
                SCHEMA if record.has(&SCHEMA_FIELDS) => Some(Kind::Schema),
                _ => None,
            }
        };
        match (kind(one), kind(two)) {
            (Some(one), Some(two)) if one != two => Ok(Self {
                kinds: [one, two],
                has_expiration,
            }),
            _ => Err(other()),
        }
    }

    /// Of which kind the next object is.
    pub(super) fn kind(self, fields: &mut Fields<'_>) -> Result<Kind, String> {
        let branch = fields.long()?;
        let kind = usize::try_from(branch).ok();
        let kind = kind.and_then(|branch| self.kinds.get(branch));
        kind.copied()
            .ok_or_else(|| format!("an object of the kind {branch}, of 0 and 1"))
    }
}

/// A record of a schema: its full name, and its fields with their types.
struct Record {
    name: String,
    fields: Vec<(String, String)>,
}

impl Record {
    /// `None` for what is no record, or has attributes that may change how it is read.
    fn of(schema: &Value) -> Option<Self> {
        let record = schema.as_object()?;
        let is_known = |key: &str| matches!(key, "name" | "namespace" | "type" | "fields" | "doc");
        if record.get("type")? != "record" || !record.keys().all(|key| is_known(key)) {
            return None;
        }
        let name = record.get("name")?.as_str()?;
        let name = match record.get("namespace") {
            Some(namespace) if !name.contains('.') => format!("{}.{name}", namespace.as_str()?),
            _ => name.to_owned(),
        };
        let mut fields = Vec::new();
        for field in record.get("fields")?.as_array()? {
            let field = field.as_object()?;
            let is_known = |key: &str| matches!(key, "name" | "type" | "doc");
            if !field.keys().all(|key| is_known(key)) {
                return None;
            }
            let name = field.get("name")?.as_str()?;
            fields.push((name.to_owned(), type_name(field.get("type")?)?));
        }
        Some(Self { name, fields })
    }

    fn has(&self, expected: &[(&str, &str)]) -> bool {
        let found = self
            .fields
            .iter()
            .map(|(name, of)| (name.as_str(), of.as_str()));
        found.eq(expected.iter().copied())
    }
}

/// `string`, or `long timestamp-millis`.
fn type_name(of: &Value) -> Option<String> {
    let Value::Object(of) = of else {
        return of.as_str().map(str::to_owned);
    };
    let name = of.get("type")?.as_str()?;
    match (of.get("logicalType"), of.len()) {
        (None, 1) => Some(name.to_owned()),
        (Some(logical), 2) => Some(format!("{name} {}", logical.as_str()?)),
        _ => None,
    }
}

/// What a schema is of, for a message: the records of a union, with their fields.
fn name(schema: &Value) -> String {
    let branches = schema
        .as_array()
        .map_or(std::slice::from_ref(schema), Vec::as_slice);
    let names = branches.iter().map(|branch| match Record::of(branch) {
        Some(Record { name, fields }) => {
            let fields: Vec<String> = fields
                .into_iter()
                .map(|(field, of)| format!("{field} {of}"))
                .collect();
            format!("{name} {{{}}}", fields.join(", "))
        }
        None => branch.to_string(),
    });
    let names: Vec<String> = names.collect();
    match names.len() {
        0 => "nothing".to_owned(),
        _ => names.join(" and "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swapped() -> String {
        let Ok(Value::Array(mut branches)) = serde_json::from_str(WRITTEN) else {
            panic!("no union");
        };
        branches.reverse();
        Value::Array(branches).to_string()
    }

    #[test]
    fn layouts_of_zed_are_known() {
        let relationship_first = Layout {
            kinds: [Kind::Relationship, Kind::Schema],
            has_expiration: true,
        };
        assert_eq!(Layout::parse(WRITTEN.as_bytes()), Ok(relationship_first));
        let old = WRITTEN.replace(
            r#",{"name":"expiration","type":{"type":"long","logicalType":"timestamp-millis"}}"#,
            "",
        );
        let without = Layout {
            has_expiration: false,
            ..relationship_first
        };
        assert_eq!(Layout::parse(old.as_bytes()), Ok(without));
        let spelt = WRITTEN
            .replace(
                r#""name":"com.authzed.spicedb.backup.schema_v1""#,
                r#""name":"schema_v1","namespace":"com.authzed.spicedb.backup","doc":"a schema""#,
            )
            .replace(r#""type":"string""#, r#""type":{"type":"string"}"#);
        assert_eq!(Layout::parse(spelt.as_bytes()), Ok(relationship_first));
        let schema_first = Layout::parse(swapped().as_bytes()).unwrap();
        assert_eq!(schema_first.kinds, [Kind::Schema, Kind::Relationship]);
    }

    #[test]
    fn other_schemas_are_named() {
        for (schema, named) in [
            (String::new(), "without a schema"),
            ("\"string\"".to_owned(), "holds \"string\""),
            ("[]".to_owned(), "holds nothing"),
            (
                r#"{"type":"record","name":"a.User","fields":[{"name":"id","type":"long"}]}"#
                    .to_owned(),
                "holds a.User {id long}",
            ),
            (
                WRITTEN.replace("relationship_v1", "relationship_v2"),
                "relationship_v2 {object_type string",
            ),
            (
                WRITTEN.replace("timestamp-millis", "timestamp-micros"),
                "expiration long timestamp-micros",
            ),
            (WRITTEN.replace("object_id", "id"), "subject_id string"),
            (
                WRITTEN.replace("\"bytes\"", "\"string\""),
                "caveat_context string",
            ),
            (
                WRITTEN.replacen(
                    "\"type\":\"string\"",
                    "\"type\":\"string\",\"default\":\"\"",
                    1,
                ),
                "\"default\"",
            ),
            (
                WRITTEN.replace("schema_v1", "relationship_v1"),
                "no backup of zed",
            ),
            (
                format!("{},\"null\"]", &WRITTEN[..WRITTEN.len() - 1]),
                "and \"null\"",
            ),
        ] {
            let message = Layout::parse(schema.as_bytes()).expect_err(&schema);
            assert!(message.contains(named), "{named}: {message}");
        }
    }

    #[test]
    fn kind_that_the_union_lacks_is_refused() {
        let layout = Layout::parse(WRITTEN.as_bytes()).unwrap();
        assert_eq!(layout.kind(&mut Fields(&[2])), Ok(Kind::Schema));
        for bytes in [&[4][..], &[1], &[0xff; 12], &[]] {
            assert!(layout.kind(&mut Fields(bytes)).is_err(), "{bytes:?}");
        }
    }
}
