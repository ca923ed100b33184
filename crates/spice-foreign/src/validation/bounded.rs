//! Bounds what the YAML parser holds. It reads a collection in brackets to its end where that may be a key, and
//! keeps a token of about 100 bytes for each part of it, which may be one byte of the input.

use std::cell::Cell;
use std::rc::Rc;
use std::str::Chars;

/// The most of them between two events: about 50 MiB.
const MAX_TOKENS: usize = 500_000;

/// What the parser may have made of the characters since its last event.
#[derive(Default)]
pub(super) struct Tokens {
    count: Cell<usize>,
    is_ignored: Cell<bool>,
}

impl Tokens {
    /// Starts again at 0; whether there were too many.
    pub(super) fn begin_event(&self) -> bool {
        self.is_ignored.set(false);
        self.count.replace(0) > MAX_TOKENS
    }

    /// The next event is known to be of one token.
    pub(super) fn ignore_until_event(&self) {
        self.is_ignored.set(true);
    }
}

/// The characters of an input. It ends early where there may be too many tokens.
pub(super) struct Bounded<'a> {
    chars: Chars<'a>,
    last: char,
    tokens: Rc<Tokens>,
}

impl<'a> Bounded<'a> {
    pub(super) fn new(text: &'a str, tokens: Rc<Tokens>) -> Self {
        Self {
            chars: text.chars(),
            last: '\n',
            tokens,
        }
    }
}

impl Iterator for Bounded<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let next = self.chars.next()?;
        let is_token = match next {
            '[' | ']' | '{' | '}' | ',' | '"' | '\'' | '&' | '*' | '!' | '?' => true,
            '%' => self.last == '\n',
            _ => self.last == ':' && !next.is_alphanumeric(),
        };
        self.last = next;
        if is_token && !self.tokens.is_ignored.get() {
            let count = self.tokens.count.get() + 1;
            self.tokens.count.set(count);
            if count > MAX_TOKENS {
                return None;
            }
        }
        Some(next)
    }
}
