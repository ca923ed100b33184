//! Validation files: YAML with the keys `schema` or `schemaFile`, `relationships`, `assertions` and
//! `validation` (read in SpiceDB's source, v1.56.0).
//!
//! The parser's events are read, not a tree of values: an alias is one event wherever it is, so nothing is
//! expanded. Assertions and expected relations are skipped; a stream cannot hold them.

mod bounded;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::rc::Rc;

use authzed::v1::Relationship;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use spice_record::printable::is_printable;

use self::bounded::{Bounded, Tokens};
use crate::text::write;

/// The longest file: it is held in memory, and its longest value once more.
pub const MAX_BYTES: usize = 128 << 20;

/// The most anchors, and the deepest nesting: the parser keeps something of each.
const MAX_ANCHORS: usize = 10_000;
const MAX_DEPTH: usize = 1_000;

/// The keys that are read, and those that are skipped.
const KEYS: &[&str] = &[
    "schema",
    "schemaFile",
    "relationships",
    "assertions",
    "validation",
];

/// A file that was cut looks so.
const NO_RELATIONSHIPS: &str =
    "no relationships in it: it may be cut; a file that has none has relationships: \"\"";

/// What a validation file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidationFile {
    /// The schema's text.
    pub schema: Option<String>,
    /// The path of a file with the schema, relative to the folder of this one.
    pub schema_file: Option<String>,
    /// Relationships as text, one a line.
    pub relationships: String,
    /// The keys with a value that was skipped.
    pub skipped: Vec<&'static str>,
}

impl ValidationFile {
    /// Reads a file of one document.
    ///
    /// # Errors
    ///
    /// What is wrong and on which line, for the message: no YAML, an unknown key (a misspelt one would lose
    /// what it holds), a key that occurs twice, a value that is no text, a second document, or no
    /// `relationships`: a file that was cut looks so. One without any has an empty text.
    pub fn read(yaml: &str) -> Result<Self, String> {
        // Lines are found again by their numbers.
        if yaml
            .split('\n')
            .any(|line| line.trim_end_matches('\r').contains('\r'))
        {
            return Err("a carriage return within a line".to_owned());
        }
        let mut events = Events::new(yaml);
        let mut file = Self::default();
        let mut seen = BTreeSet::new();
        let mut relationships = None;
        events.begin()?;
        while let Some(key) = events.key()? {
            let line = events.line;
            let known = KEYS.iter().find(|known| **known == key);
            let key = *known.ok_or_else(|| match key.as_str() {
                "validation_tuples" | "namespace_configs" => {
                    format!("line {line}: {key:?} is of an old form: use schema and relationships")
                }
                _ => format!(
                    "line {line}: unknown key {key:?}, beside {}",
                    KEYS.join(", ")
                ),
            })?;
            if !seen.insert(key) {
                return Err(format!("line {line}: a second {key}"));
            }
            match key {
                "schema" => file.schema = events.text(key)?,
                "schemaFile" => file.schema_file = events.text(key)?,
                "relationships" => relationships = events.text(key)?,
                _ if events.skip()? => file.skipped.push(key),
                _ => {}
            }
        }
        events.end()?;
        if file.schema.is_some() && file.schema_file.is_some() {
            return Err("both schema and schemaFile".to_owned());
        }
        file.relationships = relationships.ok_or(NO_RELATIONSHIPS)?;
        Ok(file)
    }
}

type Parsed<'a> = Result<(Event<'a>, Span), ScanError>;

/// The events of one document, which is a mapping.
struct Events<'a> {
    parser: Box<dyn Iterator<Item = Parsed<'a>> + 'a>,
    tokens: Rc<Tokens>,
    yaml: &'a str,
    /// Of the event read last, from 1.
    line: usize,
    /// What an alias may name: texts only.
    anchors: BTreeMap<usize, Option<String>>,
}

impl<'a> Events<'a> {
    fn new(yaml: &'a str) -> Self {
        let tokens = Rc::new(Tokens::default());
        let input = Bounded::new(yaml, Rc::clone(&tokens));
        Self {
            parser: Box::new(Parser::new_from_iter(input)),
            tokens,
            yaml,
            line: 0,
            anchors: BTreeMap::new(),
        }
    }

    fn next(&mut self) -> Result<Event<'a>, String> {
        let next = self.parser.next();
        if self.tokens.begin_event() {
            return Err(format!(
                "behind line {}: a value of too many parts: write relationships as text",
                self.line
            ));
        }
        match next {
            Some(Ok((event, span))) => {
                self.line = span.start.line();
                Ok(event)
            }
            Some(Err(error)) => Err(format!("no YAML: {error}")),
            None => Err("no YAML: it ends too early".to_owned()),
        }
    }

    fn begin(&mut self) -> Result<(), String> {
        loop {
            match self.next()? {
                Event::StreamStart | Event::DocumentStart(..) => {}
                Event::MappingStart(..) => return Ok(()),
                Event::StreamEnd => return Err("no document".to_owned()),
                _ => return Err(format!("line {}: expected keys and values", self.line)),
            }
        }
    }

    /// The next key; `None` at the end of the mapping.
    fn key(&mut self) -> Result<Option<String>, String> {
        match self.next()? {
            Event::MappingEnd => Ok(None),
            Event::Scalar(key, ..) => Ok(Some(key.into_owned())),
            _ => Err(format!("line {}: a key that is no text", self.line)),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        loop {
            match self.next()? {
                Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(()),
                _ => return Err(format!("line {}: more than one document", self.line)),
            }
        }
    }

    /// The value of a key: a text, or nothing.
    fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        if is_block(self.yaml, self.line, key) {
            self.tokens.ignore_until_event();
        }
        match self.next()? {
            Event::Scalar(value, style, anchor, tag) => {
                let text = text_of(&value, style, tag.as_deref());
                let text =
                    text.map_err(|tag| format!("line {}: {key} is tagged {tag}", self.line))?;
                self.keep(anchor, &text)?;
                Ok(text)
            }
            Event::Alias(anchor) => {
                let text = self.anchors.get(&anchor).cloned();
                text.ok_or_else(|| format!("line {}: an alias of no text", self.line))
            }
            _ => Err(format!("line {}: {key} is no text", self.line)),
        }
    }

    /// Skips a value; whether there was any.
    fn skip(&mut self) -> Result<bool, String> {
        let (mut depth, mut found) = (0_usize, false);
        loop {
            match self.next()? {
                Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                    self.check_anchor(anchor)?;
                    depth += 1;
                    if depth > MAX_DEPTH {
                        let line = self.line;
                        return Err(format!("line {line}: nested more than {MAX_DEPTH} deep"));
                    }
                }
                Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
                Event::Scalar(value, style, anchor, tag) => {
                    match text_of(&value, style, tag.as_deref()) {
                        Ok(text) => {
                            self.keep(anchor, &text)?;
                            // The keys of a form that is otherwise empty hold nothing.
                            found |= text.is_some_and(|text| !EMPTY_KEYS.contains(&text.as_str()));
                        }
                        Err(_) => {
                            self.check_anchor(anchor)?;
                            found = true;
                        }
                    }
                }
                Event::Alias(_) => found = true,
                _ => {}
            }
            if depth == 0 {
                return Ok(found);
            }
        }
    }

    fn keep(&mut self, anchor: usize, value: &Option<String>) -> Result<(), String> {
        self.check_anchor(anchor)?;
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(())
    }

    /// Anchors have numbers, from 1.
    fn check_anchor(&self, anchor: usize) -> Result<(), String> {
        match anchor > MAX_ANCHORS {
            true => Err(format!(
                "line {}: more than {MAX_ANCHORS} anchors",
                self.line
            )),
            false => Ok(()),
        }
    }
}

/// Whether the value of a key, which is on this line, is a block: the parser reads it as one token.
fn is_block(yaml: &str, line: usize, key: &str) -> bool {
    let line = yaml.split('\n').nth(line.saturating_sub(1));
    let value = line.and_then(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let value = value.map(str::trim).unwrap_or_default();
    let rest = value.strip_prefix(['|', '>']);
    rest.is_some_and(|rest| {
        rest.len() <= 2 && rest.bytes().all(|byte| b"+-123456789".contains(&byte))
    })
}

const EMPTY_KEYS: [&str; 3] = ["assertTrue", "assertFalse", "assertCaveated"];

/// `Ok(None)` for what YAML takes as null.
///
/// # Errors
///
/// A tag that makes something else of the text, as `!!binary` does.
fn text_of(value: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Option<String>, String> {
    let is_null = match style {
        ScalarStyle::Plain => matches!(value, "" | "~" | "null" | "Null" | "NULL"),
        // A block of which the lines are missing.
        ScalarStyle::Literal | ScalarStyle::Folded => value.trim().is_empty(),
        _ => false,
    };
    match tag {
        None if is_null => Ok(None),
        Some(tag) if !tag.is_yaml_core_schema() || tag.suffix != "str" => Err(tag.to_string()),
        _ => Ok(Some(value.to_owned())),
    }
}

/// Writes a validation file.
pub struct ValidationWriter<W> {
    out: W,
    line: String,
    relationships: u64,
    bytes: usize,
}

impl<W: Write> ValidationWriter<W> {
    /// Writes the schema.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn create(mut out: W, schema: Option<&str>) -> io::Result<Self> {
        out.write_all(b"---\n")?;
        if let Some(schema) = schema {
            out.write_all(scalar("schema", schema).as_bytes())?;
        }
        Ok(Self {
            out,
            line: String::new(),
            relationships: 0,
            bytes: schema.map_or(0, str::len),
        })
    }

    /// Whether the file became longer than what is read of one.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        self.bytes > MAX_BYTES
    }

    /// Writes one relationship.
    ///
    /// # Errors
    ///
    /// Those of `out`, and [`io::ErrorKind::InvalidData`] for what the notation cannot express.
    pub fn write(&mut self, relationship: &Relationship) -> io::Result<()> {
        self.line.clear();
        if self.relationships == 0 {
            self.line.push_str("relationships: |-\n");
        }
        self.line.push_str("  ");
        write(relationship, &mut self.line)
            .map_err(|message| io::Error::new(io::ErrorKind::InvalidData, message))?;
        self.line.push('\n');
        self.relationships += 1;
        self.bytes += self.line.len();
        self.out.write_all(self.line.as_bytes())
    }

    /// Ends the file, flushes, and gives back the output.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<W> {
        if self.relationships == 0 {
            self.out.write_all(b"relationships: \"\"\n")?;
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

/// A key with a text: as a block where that keeps every character, else quoted.
fn scalar(key: &str, text: &str) -> String {
    let keeps = |character: char| is_printable(character) || matches!(character, '\n' | '\t');
    if !text.chars().all(keeps) || text.trim().is_empty() {
        return format!("{key}: {}\n", quoted(text));
    }
    let chomping = match text.strip_suffix('\n') {
        None => "-",
        Some(rest) if rest.ends_with('\n') => "+",
        Some(_) => "",
    };
    // The indentation is guessed from the first line, unless that begins with blanks or is empty.
    let indentation = match text.starts_with([' ', '\t', '\n']) {
        true => "2",
        false => "",
    };
    let mut out = format!("{key}: |{indentation}{chomping}\n");
    for line in text.split_inclusive('\n') {
        if line != "\n" {
            out.push_str("  ");
        }
        out.push_str(line);
    }
    if !text.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// Double-quoted, with escapes that every version of YAML knows.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if is_printable(character) => out.push(character),
            _ => out.push_str(&format!("\\U{:08x}", u32::from(character))),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
