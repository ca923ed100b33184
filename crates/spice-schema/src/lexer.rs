//! Tokens, comments, and the end of a caveat's expression.
//!
//! A line break ends a statement after a word, a closing brace or parenthesis, or a star. Elsewhere it means
//! nothing. That is SpiceDB's rule (v1.56).

use crate::error::{Position, SyntaxError};
use crate::tree::Span;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name or a keyword.
    Word,
    /// A string literal.
    Text,
    /// Any of the signs below.
    Sign(&'static str),
    /// A line break that ends a statement.
    LineBreak,
    /// The end of the text.
    End,
}

/// The longer ones first.
const SIGNS: [&str; 21] = [
    "...", "->", "{", "}", "(", ")", "|", "+", "-", "&", "/", "=", ":", ";", "#", "*", ".", ",",
    "<", ">", "@",
];

#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
}

/// Reads a text token by token.
pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    ends_statement: bool,
    comments: Vec<Span>,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            ends_statement: false,
            comments: Vec::new(),
        }
    }

    /// Those that were passed, in their order; not those within caveats.
    pub(crate) fn into_comments(self) -> Vec<Span> {
        self.comments
    }

    /// # Errors
    ///
    /// A character that begins no token, or a comment or string that does not end.
    pub(crate) fn next(&mut self) -> Result<Token, SyntaxError> {
        loop {
            let (start, rest) = (self.at, self.rest());
            let Some(first) = rest.chars().next() else {
                return Ok(self.token(Kind::End, 0));
            };
            match first {
                ' ' | '\t' => self.at += 1,
                '\n' | '\r' => {
                    let token = self.token(Kind::LineBreak, 1);
                    if std::mem::take(&mut self.ends_statement) {
                        return Ok(token);
                    }
                }
                '/' if rest.starts_with("//") || rest.starts_with("/*") => {
                    self.at += self.comment()?;
                    let end = self.at;
                    self.comments.push(Span { start, end });
                }
                '"' | '\'' => {
                    let length = self.string(false)?;
                    self.ends_statement = false;
                    return Ok(self.token(Kind::Text, length));
                }
                _ if is_word(first) => {
                    self.ends_statement = true;
                    return Ok(self.token(Kind::Word, word_length(rest)));
                }
                _ => {
                    let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) else {
                        return Err(self.error(format!("unexpected character {first:?}")));
                    };
                    self.ends_statement = matches!(sign, "}" | ")" | "*");
                    return Ok(self.token(Kind::Sign(sign), sign.len()));
                }
            }
        }
    }

    /// Passes the expression of a caveat, whose opening brace was the last token, and its closing brace.
    ///
    /// # Errors
    ///
    /// It does not end, or a string or comment in it does not.
    pub(crate) fn skip_expression(&mut self) -> Result<Span, SyntaxError> {
        let opened = self.at;
        let mut depth = 1_usize;
        loop {
            let (start, rest) = (self.at, self.rest());
            let Some(first) = rest.chars().next() else {
                self.at = opened;
                return Err(self.error("the expression of this caveat does not end: no }"));
            };
            self.at += match first {
                '"' | '\'' => self.string(false)?,
                '/' if rest.starts_with("//") || rest.starts_with("/*") => self.comment()?,
                _ if is_word(first) => {
                    let length = word_length(rest);
                    let (word, behind) = rest.split_at(length);
                    if behind.starts_with(['"', '\'']) {
                        self.at += length;
                        self.string(is_raw(word))?
                    } else {
                        length
                    }
                }
                _ => first.len_utf8(),
            };
            match first {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.ends_statement = true;
                return Ok(Span {
                    start: opened,
                    end: start,
                });
            }
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn token(&mut self, kind: Kind, length: usize) -> Token {
        let start = self.at;
        self.at += length;
        let end = self.at;
        Token {
            kind,
            span: Span { start, end },
        }
    }

    fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError {
            position: Position::of(self.text, self.at),
            message: message.into(),
        }
    }

    /// The length of the comment here.
    fn comment(&self) -> Result<usize, SyntaxError> {
        let rest = self.rest();
        if rest.starts_with("//") {
            return Ok(rest.find(['\n', '\r']).unwrap_or(rest.len()));
        }
        let end = rest[2..].find("*/");
        end.map(|end| end + 4)
            .ok_or_else(|| self.error("this comment does not end: no */"))
    }

    /// The length of the string here, of any form that CEL has: one or three quotes of either kind, with
    /// escapes or, if it is raw, without.
    fn string(&self, is_raw: bool) -> Result<usize, SyntaxError> {
        const FORMS: [&str; 4] = ["\"\"\"", "'''", "\"", "'"];
        let rest = self.rest();
        let quotes = FORMS.into_iter().find(|form| rest.starts_with(form));
        let quotes = quotes.unwrap_or("\"");
        let mut at = quotes.len();
        while let Some(first) = rest[at..].chars().next() {
            if rest[at..].starts_with(quotes) {
                return Ok(at + quotes.len());
            }
            if quotes.len() == 1 && matches!(first, '\n' | '\r') {
                break;
            }
            at += first.len_utf8();
            if first == '\\' && !is_raw {
                // What is escaped ends nothing.
                at += rest[at..].chars().next().map_or(0, char::len_utf8);
            }
        }
        Err(self.error(format!("this string does not end: no {quotes}")))
    }
}

fn is_word(first: char) -> bool {
    first == '_' || first.is_alphanumeric()
}

fn word_length(rest: &str) -> usize {
    rest.find(|c| !is_word(c)).unwrap_or(rest.len())
}

/// Whether the word before a string makes it raw.
fn is_raw(word: &str) -> bool {
    matches!(word, "r" | "R") || (word.len() == 2 && word.eq_ignore_ascii_case("br"))
}
