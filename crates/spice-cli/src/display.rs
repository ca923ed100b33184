//! Text that people read: escaped, so that no name or message controls a terminal or forges a line, and
//! bounded.
//!
//! Names and messages come from files and servers. Every table, message and log line goes through here;
//! records on stdout are data and do not.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::{self, Write};

use spice_record::printable::is_printable;

/// The longest message of an error, warning or log line, as it is printed.
pub const MESSAGE_BYTES: usize = 1_300;
/// All hints together: commands to paste, so they are seldom cut. Message, hints and what is around them
/// are less than 3 KiB.
pub const HINT_BYTES: usize = 1_300;
/// The longest name in a table.
const CELL_BYTES: usize = 300;

/// Whether a character must not reach a terminal: it controls the terminal, changes the direction of
/// text, breaks a line or is invisible.
#[must_use]
pub fn is_hostile(character: char) -> bool {
    !is_printable(character)
}

/// Escapes every hostile character, newlines and tabs too: the result is one line.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_hostile(character) {
            true => out.extend(escaped(character)),
            false => out.push(character),
        }
    }
    Cow::Owned(out)
}

/// Escapes a message. It keeps its lines, but those after the first are indented: none of them looks
/// like a line of a program.
#[must_use]
pub fn escape_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.trim_end().chars() {
        match character {
            '\n' => out.push_str("\n  "),
            '\t' => out.push(character),
            _ if is_hostile(character) => out.extend(escaped(character)),
            _ => out.push(character),
        }
    }
    out
}

/// Escapes a JSON text, as JSON: its values stay what they are.
#[must_use]
pub fn escape_json(json: &str) -> Cow<'_, str> {
    // The serializer has escaped what is below a space.
    if !json.chars().any(is_hostile) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_hostile(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// A name in a table: one line, escaped, bounded.
#[must_use]
pub fn cell(text: &str) -> String {
    let text = bounded(CELL_BYTES, format_args!("{text}"));
    escape(&text).into_owned()
}

/// The first of many on one line, and how many more there are.
#[must_use]
pub fn few(names: impl ExactSizeIterator<Item = String>) -> String {
    const NAMED: usize = 5;
    let more = names.len().saturating_sub(NAMED);
    let mut named: Vec<String> = names.take(NAMED).collect();
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    named.join(", ")
}

/// Formats at most `limit` bytes, as counted after escaping. What is too long loses its middle, and the
/// number of bytes that were left out is named. Nothing longer than the limit is built on the way.
#[must_use]
pub fn bounded(limit: usize, text: fmt::Arguments<'_>) -> String {
    let mut bounded = Bounded::new(limit);
    let _ = bounded.write_fmt(text);
    bounded.finish()
}

/// The start and the end of a text.
struct Bounded {
    head: String,
    head_left: usize,
    tail: VecDeque<char>,
    tail_cost: usize,
    tail_limit: usize,
    left_out: usize,
}

impl Bounded {
    fn new(limit: usize) -> Self {
        /// ` ... (18446744073709551615 bytes left out) ... `
        const MARK: usize = 47;
        let limit = limit.saturating_sub(MARK);
        let tail_limit = limit / 4;
        Self {
            head: String::new(),
            head_left: limit - tail_limit,
            tail: VecDeque::new(),
            tail_cost: 0,
            tail_limit,
            left_out: 0,
        }
    }

    fn push(&mut self, character: char) {
        let cost = cost(character);
        if cost <= self.head_left {
            self.head_left -= cost;
            self.head.push(character);
            return;
        }
        self.head_left = 0;
        self.tail.push_back(character);
        self.tail_cost += cost;
        while self.tail_cost > self.tail_limit
            && let Some(first) = self.tail.pop_front()
        {
            self.tail_cost -= self::cost(first);
            self.left_out += first.len_utf8();
        }
    }

    fn finish(mut self) -> String {
        if self.left_out > 0 {
            let _ = write!(self.head, " ... ({} bytes left out) ... ", self.left_out);
        }
        self.head.extend(self.tail);
        self.head
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        // Of what is very long only the end counts, once the head is full.
        if self.head_left == 0 && text.len() > self.tail_limit {
            let mut skip = text.len() - self.tail_limit;
            while !text.is_char_boundary(skip) {
                skip += 1;
            }
            self.left_out += skip + self.tail.drain(..).map(char::len_utf8).sum::<usize>();
            self.tail_cost = 0;
            rest = &text[skip..];
        }
        let mut characters = rest.char_indices();
        while let Some((_, character)) = characters.next() {
            self.push(character);
            let rest = characters.as_str();
            if self.head_left == 0 && rest.len() > 2 * self.tail_limit {
                return self.write_str(rest);
            }
        }
        Ok(())
    }
}

/// The most bytes that a character takes in a message or in a JSON text.
fn cost(character: char) -> usize {
    match character {
        '\n' => 3,
        '"' | '\\' | '\t' => 2,
        _ if is_hostile(character) => 12,
        _ => character.len_utf8(),
    }
}

fn escaped(character: char) -> impl Iterator<Item = char> {
    character.escape_default()
}

#[cfg(test)]
mod tests {
    use super::{MESSAGE_BYTES, bounded, cell, escape, escape_json, escape_lines, is_hostile};

    const SAMPLE: &str =
        "x\u{1b}]0;PWNED\u{7}\u{1b}[31m\n\rspice-digest: ok\u{9b}31m\u{202e}\u{2028}\u{7f}\ttab";

    #[test]
    fn hostile_characters_are_escaped() {
        assert_eq!(
            escape(SAMPLE),
            "x\\u{1b}]0;PWNED\\u{7}\\u{1b}[31m\\n\\rspice-digest: ok\\u{9b}31m\\u{202e}\\u{2028}\\u{7f}\\ttab"
        );
        let kinds = [
            '\0',
            '\u{1b}',
            '\r',
            '\n',
            '\u{7f}',
            '\u{80}',
            '\u{9f}',
            '\u{61c}',
            '\u{200b}',
            '\u{200c}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}',
            '\u{feff}',
            '\u{e0041}',
        ];
        for kind in kinds {
            assert!(is_hostile(kind), "{kind:?}");
            let text = format!("a{kind}b");
            for shown in [escape(&text).into_owned(), cell(&text)] {
                assert!(!shown.chars().any(is_hostile), "{shown:?}");
            }
            let json = serde_json::to_string(&text).unwrap();
            let shown = escape_json(&json).into_owned();
            assert!(!shown.chars().any(is_hostile), "{shown:?}");
            let read: String = serde_json::from_str(&shown).unwrap();
            assert_eq!(read, text, "the value stays");
        }
        assert_eq!(escape("tenant/document#äöü 🦀"), "tenant/document#äöü 🦀");
    }

    #[test]
    fn message_keeps_its_lines_and_none_looks_like_one_of_ours() {
        assert_eq!(
            escape_lines("a\u{1b}]0;x\u{7}\u{9b}2J\r\nspice-check: the same\n"),
            "a\\u{1b}]0;x\\u{7}\\u{9b}2J\\r\n  spice-check: the same"
        );
        assert_eq!(escape_lines("äöü 🦀\t#viewer"), "äöü 🦀\t#viewer");
    }

    #[test]
    fn long_text_keeps_start_and_end_and_counts_what_is_left_out() {
        for (piece, count) in [
            ("A", 60 << 20),
            ("é", 1 << 20),
            ("\u{202e}", 100_000),
            ("\n", 5_000),
        ] {
            let text = format!("start{}end", piece.repeat(count));
            let shown = bounded(MESSAGE_BYTES, format_args!("{text}"));
            for printed in [
                escape_lines(&shown),
                escape_json(&serde_json::to_string(&shown).unwrap()).into_owned(),
            ] {
                assert!(
                    printed.len() <= MESSAGE_BYTES + 2,
                    "{piece:?}: {}",
                    printed.len()
                );
                assert!(
                    printed.len() > MESSAGE_BYTES / 8,
                    "{piece:?}: {}",
                    printed.len()
                );
            }
            let (before, after) = shown.split_once(" ... (").unwrap();
            assert!(before.starts_with("start"));
            let (number, after) = after.split_once(" bytes left out) ... ").unwrap();
            assert!(after.ends_with("end"), "{piece:?}");
            let left: usize = number.parse().unwrap();
            assert_eq!(before.len() + left + after.len(), text.len(), "{piece:?}");
        }
        // What fits is not touched, however it comes.
        let text = "word ".repeat(200);
        assert_eq!(
            bounded(MESSAGE_BYTES, format_args!("{text}{}", 1)),
            format!("{text}1")
        );
        let debug = format!("{text:?}");
        assert_eq!(bounded(MESSAGE_BYTES, format_args!("{text:?}")), debug);
    }
}
