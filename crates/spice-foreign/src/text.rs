//! A relationship as text: `resource:id#relation@subject:id#relation[caveat:{"a":1}][expiration:TIME]`.
//!
//! The notation of SpiceDB's validation files and of its messages (read in the source of v1.56.0). What
//! follows the subject's id may be missing. A subject relation of `...` is none. The context is a JSON
//! object. An empty one is not written: SpiceDB's parser refuses it, and it is the same as none.

use std::fmt::Write as _;
use std::io::{BufRead, Read as _};

use authzed::v1::{ContextualizedCaveat, ObjectReference, Relationship, SubjectReference};
use spice_record::ReadError;
use spice_record::printable::is_printable;
use spice_record::read::{MAX_RELATIONSHIP_BYTES, check_line};
use spice_record::relationship::{ELLIPSIS, MAX_NAME_BYTES, StructJson, instant, parse_timestamp};

use crate::read_error;

const FORM: &str = "expected resource:id#relation@subject:id";
const EXPIRATION: &str = "[expiration:";

/// Reads a relationship.
///
/// # Errors
///
/// What is wrong with the text, for the message.
pub fn parse(text: &str) -> Result<Relationship, String> {
    let (resource, rest) = text.split_once('#').ok_or(FORM)?;
    let (relation, rest) = rest.split_once('@').ok_or(FORM)?;
    let (subject, mut traits) = rest.split_at(rest.find('[').unwrap_or(rest.len()));
    let (subject, subject_relation) = match subject.split_once('#') {
        Some((subject, ELLIPSIS)) => (subject, ""),
        Some((subject, relation)) => (subject, check_name("subject relation", relation)?),
        None => (subject, ""),
    };
    let mut caveat = None;
    if !traits.is_empty() && !is_expiration(traits) {
        let (found, rest) = parse_caveat(traits)?;
        (caveat, traits) = (Some(found), rest);
    }
    let mut expiry = None;
    if !traits.is_empty() {
        let time = traits.strip_prefix(EXPIRATION);
        let time = time.and_then(|time| time.strip_suffix(']'));
        let time = time.ok_or_else(|| format!("expected [expiration:TIME], got {traits:?}"))?;
        expiry = Some(parse_timestamp(time).ok_or_else(|| {
            format!("expected an RFC 3339 time such as 2027-01-01T00:00:00Z, got {time:?}")
        })?);
    }
    let relationship = Relationship {
        resource: Some(parse_object(resource)?),
        relation: relation.to_owned(),
        subject: Some(SubjectReference {
            object: Some(parse_object(subject)?),
            optional_relation: subject_relation.to_owned(),
        }),
        optional_caveat: caveat,
        optional_expires_at: expiry,
    };
    check_names(&relationship)?;
    Ok(relationship)
}

/// Whether a bracket holds a time. A caveat may have that name.
fn is_expiration(text: &str) -> bool {
    let time = text.strip_prefix(EXPIRATION);
    time.is_some_and(|time| !time.starts_with('{'))
}

fn parse_object(text: &str) -> Result<ObjectReference, String> {
    let (object_type, object_id) = text
        .split_once(':')
        .ok_or_else(|| format!("expected type:id, got {text:?}"))?;
    Ok(ObjectReference {
        object_type: object_type.to_owned(),
        object_id: object_id.to_owned(),
    })
}

/// `[name]` or `[name:{...}]`, and what follows it.
fn parse_caveat(text: &str) -> Result<(ContextualizedCaveat, &str), String> {
    let open = || format!("expected [caveat] or [caveat:{{...}}], got {text:?}");
    let inner = text.strip_prefix('[').ok_or_else(open)?;
    let end = inner.find([':', ']']).ok_or_else(open)?;
    let (name, rest) = inner.split_at(end);
    let (context, rest) = match rest.strip_prefix(':') {
        None => (None, rest),
        Some(json) => {
            let mut values = serde_json::Deserializer::from_str(json).into_iter::<StructJson>();
            let context = match values.next() {
                Some(Ok(StructJson(context))) => context,
                Some(Err(error)) => return Err(format!("caveat context: {error}")),
                None => return Err(open()),
            };
            (Some(context), &json[values.byte_offset()..])
        }
    };
    let rest = rest.strip_prefix(']').ok_or_else(open)?;
    let caveat = ContextualizedCaveat {
        caveat_name: name.to_owned(),
        context,
    };
    Ok((caveat, rest))
}

/// Appends a relationship, as one line without its end.
///
/// # Errors
///
/// What the notation cannot express, for the message: names that SpiceDB refuses, numbers that JSON lacks, an
/// expiry outside the years 1 to 9999.
pub fn write(relationship: &Relationship, out: &mut String) -> Result<(), String> {
    check_names(relationship)?;
    if let (Some(resource), Some(subject)) = (&relationship.resource, &relationship.subject)
        && let Some(object) = &subject.object
    {
        let (resource_type, resource_id) = (&resource.object_type, &resource.object_id);
        let (subject_type, subject_id) = (&object.object_type, &object.object_id);
        let relation = &relationship.relation;
        let _ = write!(
            out,
            "{resource_type}:{resource_id}#{relation}@{subject_type}:{subject_id}"
        );
        if !subject.optional_relation.is_empty() {
            let _ = write!(out, "#{}", subject.optional_relation);
        }
    }
    if let Some(caveat) = &relationship.optional_caveat {
        let _ = write!(out, "[{}", caveat.caveat_name);
        if let Some(context) = caveat.context.as_ref().filter(|c| !c.fields.is_empty()) {
            let json = serde_json::to_string(&StructJson(context.clone()));
            let json = json.map_err(|error| error.to_string())?;
            out.push(':');
            push_printable(&json, out);
        }
        out.push(']');
    }
    if let Some(expiry) = &relationship.optional_expires_at {
        let time = instant(expiry).ok_or("an expiry outside the years 1 to 9999")?;
        let _ = write!(out, "{EXPIRATION}{time}Z]");
    }
    Ok(())
}

/// Appends JSON with what YAML and terminals do not take as escapes. Its values stay what they are.
fn push_printable(json: &str, out: &mut String) {
    for character in json.chars() {
        if is_printable(character) {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
}

/// Whether SpiceDB accepts the names and ids of a relationship.
///
/// # Errors
///
/// The first that it does not, for the message.
pub fn check_names(relationship: &Relationship) -> Result<(), String> {
    let (Some(resource), Some(subject)) = (&relationship.resource, &relationship.subject) else {
        return Err("no resource or no subject".to_owned());
    };
    let object = subject.object.as_ref().ok_or("no subject")?;
    check_type("resource type", &resource.object_type)?;
    check_id("resource id", &resource.object_id)?;
    check_name("relation", &relationship.relation)?;
    check_type("subject type", &object.object_type)?;
    if object.object_id != "*" {
        check_id("subject id", &object.object_id)?;
    }
    if !subject.optional_relation.is_empty() {
        check_name("subject relation", &subject.optional_relation)?;
    }
    if let Some(caveat) = &relationship.optional_caveat {
        check_type("caveat", &caveat.caveat_name)?;
    }
    Ok(())
}

/// The characters of an id are those that SpiceDB takes. Any other could not be read back.
fn check_id(what: &str, id: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/_|-=+".contains(&byte);
    match !id.is_empty() && id.len() <= MAX_NAME_BYTES && id.bytes().all(is_allowed) {
        true => Ok(()),
        false => Err(format!(
            "{what} {id:?}: expected letters, digits and / _ | - = +"
        )),
    }
}

/// A definition or a caveat, with or without prefixes.
fn check_type<'a>(what: &str, name: &'a str) -> Result<&'a str, String> {
    match name.len() <= MAX_NAME_BYTES && name.split('/').all(is_name) {
        true => Ok(name),
        false => Err(not_a_name(what, name)),
    }
}

fn check_name<'a>(what: &str, name: &'a str) -> Result<&'a str, String> {
    match name.len() <= MAX_NAME_BYTES && is_name(name) {
        true => Ok(name),
        false => Err(not_a_name(what, name)),
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn not_a_name(what: &str, name: &str) -> String {
    format!("{what} {name:?}: expected a letter of a to z, then letters, digits and _")
}

/// Reads relationships line by line; blank lines and those that begin with `//` are skipped.
pub struct TextReader<R> {
    input: R,
    name: String,
    line: u64,
    has_found: bool,
    buffer: Vec<u8>,
}

impl<R: BufRead> TextReader<R> {
    /// Reads from `input`, called `name` in errors.
    pub fn new(input: R, name: impl Into<String>) -> Self {
        Self {
            input,
            name: name.into(),
            line: 0,
            has_found: false,
            buffer: Vec::new(),
        }
    }

    /// The number of the line read last, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The next relationship; `None` at the end of the input.
    ///
    /// # Errors
    ///
    /// [`ReadError::Line`] for a line that is no relationship or is too long, [`ReadError::Torn`] for a last
    /// line without a newline: a name that was cut is another name. [`ReadError::Stream`] for an input without
    /// any: its producer may have died, and none is a set that deletes everything.
    pub fn next_relationship(&mut self) -> Result<Option<Relationship>, ReadError> {
        loop {
            self.buffer.clear();
            let most = MAX_RELATIONSHIP_BYTES as u64 + 1;
            let mut limited = self.input.by_ref().take(most);
            limited
                .read_until(b'\n', &mut self.buffer)
                .map_err(|error| read_error(&self.name, error))?;
            if self.buffer.is_empty() && !self.has_found {
                return Err(ReadError::Stream {
                    name: self.name.clone(),
                    message: "no relationship in it".to_owned(),
                });
            }
            if self.buffer.is_empty() {
                return Ok(None);
            }
            self.line += 1;
            if self.buffer.len() > MAX_RELATIONSHIP_BYTES {
                return Err(self.fault("a line longer than 4 MiB"));
            }
            if !self.buffer.ends_with(b"\n") {
                return Err(ReadError::Torn {
                    name: self.name.clone(),
                    line: self.line,
                    bytes: self.buffer.len(),
                });
            }
            let Ok(line) = std::str::from_utf8(&self.buffer) else {
                return Err(self.fault("not UTF-8"));
            };
            match parse_line(line) {
                Ok(Some(relationship)) => {
                    self.has_found = true;
                    return Ok(Some(relationship));
                }
                Ok(None) => {}
                Err(message) => return Err(self.fault(message)),
            }
        }
    }

    fn fault(&self, message: impl Into<String>) -> ReadError {
        ReadError::Line {
            name: self.name.clone(),
            line: self.line,
            column: 1,
            message: message.into(),
        }
    }
}

/// The relationship on a line; `None` for a blank line or a comment.
///
/// # Errors
///
/// As [`parse`], and for a context of too many values.
pub fn parse_line(line: &str) -> Result<Option<Relationship>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with("//") {
        return Ok(None);
    }
    check_line(line.as_bytes())?;
    parse(line).map(Some)
}

#[cfg(test)]
mod tests;
