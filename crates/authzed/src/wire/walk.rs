//! Walks the wire format of a message beside the descriptors of the messages that we know.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::{Label, Type};

use crate::generated::FILE_DESCRIPTOR_SET;
use crate::json_object::MAX_DEPTH;
use crate::v1::{ObjectReference, Relationship};

/// Deeper messages are not decoded either: an object takes three, and a context is nested in four others;
/// prost stops at 100 of any other kind.
const DEEPEST: usize = 3 * MAX_DEPTH + 10;
/// What a message takes in a list or a map, at most: an update of a relationship takes 232 bytes, an
/// entry of a caveat's context about 150.
const ELEMENT: usize = 256;
/// What a string takes besides its bytes.
const STRING: usize = 16;

const RELATIONSHIP: &str = "authzed.api.v1.Relationship";
const NESTED: [&str; 2] = ["google.protobuf.Struct", "google.protobuf.ListValue"];

/// A message as we know it.
struct Shape {
    name: String,
    fields: HashMap<u32, Field>,
}

struct Field {
    repeated: bool,
    /// The place of its shape, where it is a message.
    message: Option<usize>,
}

struct Shapes {
    all: Vec<Shape>,
    places: HashMap<String, usize>,
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(shapes);

fn shapes() -> Shapes {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
    let mut messages = Vec::new();
    for file in files.file {
        let package = file.package().to_owned();
        messages.extend(
            file.message_type
                .into_iter()
                .map(|one| (package.clone(), one)),
        );
    }
    let mut named = Vec::new();
    while let Some((parent, mut message)) = messages.pop() {
        let name = format!("{parent}.{}", message.name());
        let nested = std::mem::take(&mut message.nested_type);
        messages.extend(nested.into_iter().map(|one| (name.clone(), one)));
        named.push((name, message.field));
    }
    let places: HashMap<String, usize> = named
        .iter()
        .enumerate()
        .map(|(place, (name, _))| (name.clone(), place))
        .collect();
    let all = named.into_iter().map(|(name, fields)| Shape {
        name,
        fields: fields
            .into_iter()
            .map(|field| {
                let number = u32::try_from(field.number()).unwrap_or_default();
                let message = (field.r#type() == Type::Message)
                    .then(|| places.get(field.type_name().trim_start_matches('.')))
                    .flatten();
                let field = Field {
                    repeated: field.label() == Label::Repeated,
                    message: message.copied(),
                };
                (number, field)
            })
            .collect(),
    });
    Shapes {
        all: all.collect(),
        places: places.clone(),
    }
}

/// The first unknown field of a message, and how many there are.
#[derive(Debug)]
pub(super) struct Unknown {
    message: &'static str,
    field: u32,
    /// The relationship around it.
    relationship: Option<Relationship>,
    pub(super) count: u64,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(relationship) = &self.relationship {
            write!(f, "{}: ", shown(relationship))?;
        }
        let (field, message) = (self.field, self.message);
        let message = message.rsplit('.').next().unwrap_or(message);
        write!(f, "field {field} of {message} is not known to this version")?;
        match self.count {
            ..=1 => Ok(()),
            count => write!(f, " ({count} such fields in this message)"),
        }
    }
}

/// The unknown fields of a message; `None` where there is none.
pub(super) fn unknown(name: &str, bytes: &[u8]) -> Option<Unknown> {
    let mut walk = Walk::default();
    walk.begin(name, bytes);
    walk.unknown
}

/// An estimate of the memory that a message takes when it is decoded; stops soon after `enough`.
pub(super) fn memory(name: &str, bytes: &[u8], enough: usize) -> usize {
    let mut walk = Walk {
        enough: Some(enough),
        ..Walk::default()
    };
    walk.begin(name, bytes);
    walk.memory
}

/// What holds an object that is nested deeper than [`MAX_DEPTH`], where there is one: a relationship by
/// its name, for a message.
pub(super) fn too_deep(name: &str, bytes: &[u8]) -> Option<String> {
    let mut walk = Walk::default();
    walk.begin(name, bytes);
    walk.too_deep
}

#[derive(Default)]
struct Walk {
    memory: usize,
    enough: Option<usize>,
    unknown: Option<Unknown>,
    /// Objects and lists around what is walked.
    levels: usize,
    too_deep: Option<String>,
}

impl Walk {
    fn begin(&mut self, name: &str, bytes: &[u8]) {
        if let Some(place) = SHAPES.places.get(name) {
            // What is malformed is for the decoder to say.
            let _ = self.message(*place, bytes, None, 0);
        }
    }

    fn message<'a>(
        &mut self,
        place: usize,
        mut bytes: &'a [u8],
        around: Option<&'a [u8]>,
        depth: usize,
    ) -> Option<()> {
        let shape = SHAPES.all.get(place).filter(|_| depth < DEEPEST)?;
        let around = if shape.name == RELATIONSHIP {
            Some(bytes)
        } else {
            around
        };
        let is_level = NESTED.contains(&shape.name.as_str());
        self.levels += usize::from(is_level);
        if self.levels > MAX_DEPTH {
            self.too_deep = Some(around.map_or_else(|| "metadata".to_owned(), name_of));
            return None;
        }
        while !bytes.is_empty() {
            if self.enough.is_some_and(|enough| self.memory > enough) {
                return None;
            }
            let (number, wire) = decode_key(&mut bytes).ok()?;
            let field = shape.fields.get(&number);
            if field.is_none() {
                self.note(&shape.name, number, around);
            }
            if wire != WireType::LengthDelimited {
                skip_field(wire, number, &mut bytes, DecodeContext::default()).ok()?;
                continue;
            }
            let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
            let (content, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            match field {
                Some(Field {
                    repeated,
                    message: Some(place),
                }) => {
                    self.memory += if *repeated { ELEMENT } else { 0 };
                    self.message(*place, content, around, depth + 1)?;
                }
                Some(Field { repeated, .. }) => {
                    self.memory += length + if *repeated { 2 * STRING + 8 } else { STRING };
                }
                None => {}
            }
        }
        self.levels -= usize::from(is_level);
        Some(())
    }

    fn note(&mut self, message: &'static str, field: u32, around: Option<&[u8]>) {
        let unknown = self.unknown.get_or_insert_with(|| Unknown {
            message,
            field,
            relationship: around.and_then(without_caveat),
            count: 0,
        });
        unknown.count += 1;
    }
}

/// A relationship without its caveat, which may be what cannot be decoded.
fn without_caveat(mut bytes: &[u8]) -> Option<Relationship> {
    const CAVEAT: u32 = 4;
    let mut kept = Vec::with_capacity(bytes.len().min(1 << 10));
    while !bytes.is_empty() {
        let start = bytes;
        let (number, wire) = decode_key(&mut bytes).ok()?;
        skip_field(wire, number, &mut bytes, DecodeContext::default()).ok()?;
        if number != CAVEAT {
            kept.extend_from_slice(&start[..start.len() - bytes.len()]);
        }
    }
    Relationship::decode(kept.as_slice()).ok()
}

fn name_of(relationship: &[u8]) -> String {
    without_caveat(relationship).map_or_else(
        || "a relationship".to_owned(),
        |relationship| shown(&relationship),
    )
}

/// The most characters of a relationship in a message.
const LONGEST: usize = 400;

/// A relationship for a message, as `document:readme#viewer@user:eve`, cut where it is very long.
pub(crate) fn shown(relationship: &Relationship) -> String {
    let object = |object: Option<&ObjectReference>| match object {
        Some(object) => format!("{}:{}", object.object_type, object.object_id),
        None => "?".to_owned(),
    };
    let subject = relationship.subject.as_ref();
    let mut text = format!(
        "{}#{}@{}",
        object(relationship.resource.as_ref()),
        relationship.relation,
        object(subject.and_then(|subject| subject.object.as_ref())),
    );
    if let Some(subject) = subject.filter(|subject| !subject.optional_relation.is_empty()) {
        text.push('#');
        text.push_str(&subject.optional_relation);
    }
    if text.chars().count() > LONGEST {
        text = text.chars().take(LONGEST).collect();
        text.push('…');
    }
    text
}
