//! A realistic schema, and any number of relationships that use everything SpiceDB has: wildcards,
//! userset subjects, caveats with nested context, expiry, every character that an id may have,
//! prefixed definitions. Drawn from a seed: the same options give the same relationships.

#![forbid(unsafe_code)]

use authzed::v1::{ContextualizedCaveat, ObjectReference, Relationship, SubjectReference};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Timestamp, Value};
use spice_record::record::StreamKind;
use spice_record::{ExpiryPrecision, Header, Record, SnapshotWriter, Trailer};

/// The schema of the relationships.
pub const SCHEMA: &str = include_str!("schema.zed");

/// Variants of a stream whose trailer proves nothing, each with the name of its fault. Every reader has
/// to refuse all of them. The trailer of the variants with a wrong digest has its own checksum.
///
/// # Panics
///
/// Where `stream` is not a complete stream.
#[must_use]
#[allow(clippy::unwrap_used, reason = "for tests")]
pub fn faulty_trailers(stream: &str) -> Vec<(&'static str, String)> {
    let (rest, last) = stream.trim_end().rsplit_once('\n').unwrap();
    let Record::Trailer(trailer) = serde_json::from_str(last).unwrap() else {
        panic!("no trailer");
    };
    let trailer = *trailer;
    let other = Some(spice_record::Digest(7));
    let mut variants = vec![
        (
            "checksum missing",
            Trailer {
                checksum: None,
                ..trailer.clone()
            },
        ),
        (
            "checksum wrong",
            Trailer {
                checksum: other,
                ..trailer.clone()
            },
        ),
        (
            "header digest missing",
            Trailer {
                header: None,
                ..trailer.clone()
            }
            .sealed(),
        ),
        (
            "header digest wrong",
            Trailer {
                header: other,
                ..trailer.clone()
            }
            .sealed(),
        ),
        (
            "digest missing",
            Trailer {
                digest: None,
                ..trailer.clone()
            }
            .sealed(),
        ),
        (
            "digest wrong",
            Trailer {
                digest: other,
                ..trailer.clone()
            }
            .sealed(),
        ),
    ];
    if let Some(count) = trailer.relationships {
        variants.push((
            "exactDigest wrong",
            Trailer {
                exact_digest: other,
                ..trailer.clone()
            }
            .sealed(),
        ));
        variants.push((
            "count wrong",
            Trailer {
                relationships: Some(count + 1),
                ..trailer
            }
            .sealed(),
        ));
    }
    let lines = variants.into_iter().map(|(fault, trailer)| {
        let line = serde_json::to_string(&Record::Trailer(Box::new(trailer))).unwrap();
        (fault, format!("{rest}\n{line}\n"))
    });
    lines
        .chain([("trailer missing", format!("{rest}\n"))])
        .collect()
}

/// A complete snapshot stream of `count` relationships that every datastore keeps.
///
/// # Panics
///
/// Never: it is written to memory.
#[must_use]
#[allow(clippy::unwrap_used, reason = "for tests")]
pub fn snapshot(count: u64) -> String {
    let sample = Sample::portable(count);
    let out = Vec::new();
    let mut writer = SnapshotWriter::create(out, sample.header(), ExpiryPrecision::Micros).unwrap();
    for relationship in sample.iter() {
        writer.write(&relationship).unwrap();
    }
    String::from_utf8(writer.finish().unwrap().1).unwrap()
}

/// What to draw.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// How many.
    pub relationships: u64,
    /// Other seeds give other relationships, most of which have other keys.
    pub seed: u64,
    /// The smallest part of a second in an expiry, in nanoseconds: 1 (memory), 1,000 (PostgreSQL) or
    /// 1,000,000,000 (MySQL).
    pub expiry_step: i32,
    /// Only characters of latin1 in caveat contexts: all that SpiceDB's MySQL tables hold on MariaDB.
    /// A migration converts them to latin1, and MariaDB's JSON is text.
    pub latin1: bool,
}

impl Sample {
    /// Relationships that every datastore keeps unchanged.
    #[must_use]
    pub fn portable(relationships: u64) -> Self {
        Self {
            relationships,
            seed: 1,
            expiry_step: 1_000_000_000,
            latin1: true,
        }
    }

    /// Relationships that memory and PostgreSQL keep unchanged, with all of Unicode.
    #[must_use]
    pub fn rich(relationships: u64) -> Self {
        Self {
            expiry_step: 1_000,
            latin1: false,
            ..Self::portable(relationships)
        }
    }

    /// The header of a stream of these relationships. It has no revision: no server made them.
    #[must_use]
    pub fn header(&self) -> Header {
        Header {
            schema: Some(SCHEMA.to_owned()),
            ..Header::new(
                StreamKind::Snapshot,
                "sample",
                jiff::Timestamp::UNIX_EPOCH.to_string(),
            )
        }
    }

    /// The relationships; no two have the same key.
    pub fn iter(self) -> impl Iterator<Item = Relationship> {
        (0..self.relationships).map(move |index| self.relationship(index))
    }

    /// Five relationships share a resource; their subjects differ in the last digit of their number.
    fn relationship(&self, index: u64) -> Relationship {
        let mut draw = Draw(index ^ self.seed.rotate_left(40));
        let resource = index / 5 + self.seed * 1_000_000_000;
        let subject = draw.below(2_000_000) * 10 + index % 5;
        let kind = draw.below(100);
        let user = |id: String| subject_of("user", id, "");
        let group = |draw: &mut Draw| {
            subject_of(
                "tenant/group",
                id("team", draw.below(500) * 10 + index % 5),
                "member",
            )
        };
        let (object_type, relation, subject, caveat, expires) = match resource % 10 {
            0 | 1 => {
                let expires = kind < 20;
                (
                    "tenant/group",
                    "member",
                    user(id("u", subject)),
                    None,
                    expires,
                )
            }
            2 => match kind {
                0..30 => (
                    "tenant/folder",
                    "parent",
                    subject_of("tenant/folder", id("f", subject), ""),
                    None,
                    false,
                ),
                30..50 => ("tenant/folder", "viewer", group(&mut draw), None, false),
                50..70 => (
                    "tenant/folder",
                    "viewer",
                    user(id("u", subject)),
                    Some(on_network(&mut draw)),
                    false,
                ),
                _ => (
                    "tenant/folder",
                    "viewer",
                    user(id("u", subject)),
                    None,
                    false,
                ),
            },
            _ => match (kind, index % 5) {
                (0..20, 0) => (
                    "tenant/document",
                    "viewer",
                    user("*".to_owned()),
                    None,
                    false,
                ),
                (0..15, _) => ("tenant/document", "viewer", group(&mut draw), None, false),
                (15..25, _) => (
                    "tenant/document",
                    "viewer",
                    user(id("u", subject)),
                    Some(on_network(&mut draw)),
                    false,
                ),
                (25..32, _) => (
                    "tenant/document",
                    "viewer",
                    user(id("u", subject)),
                    Some(self.attributes(&mut draw)),
                    false,
                ),
                (32..45, _) => (
                    "tenant/document",
                    "viewer",
                    user(id("u", subject)),
                    None,
                    true,
                ),
                (45..50, _) => (
                    "tenant/document",
                    "viewer",
                    group(&mut draw),
                    Some(on_network(&mut draw)),
                    true,
                ),
                (50..60, _) => (
                    "tenant/document",
                    "banned",
                    user(id("u", subject)),
                    None,
                    false,
                ),
                (60..75, _) => (
                    "tenant/document",
                    "folder",
                    subject_of("tenant/folder", id("f", subject), ""),
                    None,
                    false,
                ),
                (75..90, _) => (
                    "tenant/document",
                    "owner",
                    user(id("u", subject)),
                    None,
                    false,
                ),
                _ => (
                    "tenant/document",
                    "viewer",
                    user(id("u", subject)),
                    None,
                    false,
                ),
            },
        };
        let short = object_type
            .trim_start_matches("tenant/")
            .get(..1)
            .unwrap_or_default();
        Relationship {
            resource: Some(ObjectReference {
                object_type: object_type.to_owned(),
                object_id: id(short, scramble(resource)),
            }),
            relation: relation.to_owned(),
            subject: Some(subject),
            optional_caveat: caveat,
            optional_expires_at: expires.then(|| self.expiry(&mut draw)),
        }
    }

    /// Between 2100 and 2133, so that nothing expires under a test.
    fn expiry(&self, draw: &mut Draw) -> Timestamp {
        const YEAR_2100: i64 = 4_102_444_800;
        let nanos = i32::try_from(draw.below(1_000_000_000)).unwrap_or_default();
        Timestamp {
            seconds: YEAR_2100 + i64::try_from(draw.below(1 << 30)).unwrap_or_default(),
            nanos: nanos - nanos % self.expiry_step,
        }
    }

    fn attributes(&self, draw: &mut Draw) -> ContextualizedCaveat {
        let text = if self.latin1 {
            "naïve café\t\"\\\u{7}"
        } else {
            "naïve 漢字 🦀\u{10ffff}\t\"\\\u{7}"
        };
        let nested = object([
            ("text", Kind::StringValue(text.to_owned())),
            (
                "number",
                Kind::NumberValue(draw.below(1_000_000) as f64 / 128.0 - 1_000.0),
            ),
            ("tiny", Kind::NumberValue(1.5e-300)),
            ("nothing", Kind::NullValue(0)),
            ("empty", Kind::StructValue(Struct::default())),
            (
                "list",
                list([
                    Kind::BoolValue(true),
                    Kind::StringValue(String::new()),
                    list([]),
                ]),
            ),
        ]);
        let context = object([
            (
                "wanted",
                Kind::StructValue(object([("deep", Kind::StructValue(nested))])),
            ),
            (
                "tags",
                list([
                    Kind::StringValue("internal".to_owned()),
                    Kind::StringValue("a b".to_owned()),
                ]),
            ),
            ("level", Kind::NumberValue(draw.below(10) as f64)),
            (
                "ratio",
                Kind::NumberValue(0.1 + draw.below(1_000) as f64 / 3.0),
            ),
            ("strict", Kind::BoolValue(draw.below(2) == 0)),
        ]);
        ContextualizedCaveat {
            caveat_name: "attributes".to_owned(),
            context: Some(context.into()),
        }
    }
}

fn on_network(draw: &mut Draw) -> ContextualizedCaveat {
    let cidr = format!("10.{}.0.0/16", draw.below(256));
    let context = match draw.below(4) {
        0 => None,
        _ => Some(object([("cidr", Kind::StringValue(cidr))]).into()),
    };
    ContextualizedCaveat {
        caveat_name: "on_network".to_owned(),
        context,
    }
}

fn object<const N: usize>(fields: [(&str, Kind); N]) -> Struct {
    let field = |(key, kind): (&str, Kind)| (key.to_owned(), Value { kind: Some(kind) });
    Struct {
        fields: fields.into_iter().map(field).collect(),
    }
}

fn list<const N: usize>(kinds: [Kind; N]) -> Kind {
    let values = kinds
        .into_iter()
        .map(|kind| Value { kind: Some(kind) })
        .collect();
    Kind::ListValue(ListValue { values })
}

fn subject_of(object_type: &str, object_id: String, relation: &str) -> SubjectReference {
    SubjectReference {
        object: Some(ObjectReference {
            object_type: object_type.to_owned(),
            object_id,
        }),
        optional_relation: relation.to_owned(),
    }
}

/// An id for a number: mostly plain, sometimes with each of the special characters.
fn id(prefix: &str, number: u64) -> String {
    match number % 50 {
        0 => format!("{prefix}/{number}|x_y-z=+"),
        1 => format!("={number}+{prefix}"),
        2 => format!("{}_{number}", prefix.to_uppercase()),
        // Byte order puts capitals first, an ICU collation puts them among the others.
        3 => format!("{}{number:010}", prefix.to_uppercase()),
        _ => format!("{prefix}{number:010}"),
    }
}

/// One to one on the lower 40 bits: resources do not come in the order of their ids.
fn scramble(number: u64) -> u64 {
    (number.wrapping_mul(0x9e_37_79_b9_7f) ^ 0x55_5555_5555) & 0xff_ffff_ffff
}

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
