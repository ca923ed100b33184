//! Takes tokens one by one, and reports what is there instead.

use super::Parser;
use crate::error::{Position, SyntaxError};
use crate::lexer::Kind;
use crate::names::is_keyword;
use crate::tree::Name;

impl<'a> Parser<'a> {
    /// A name that may have prefixes.
    pub(super) fn path(&mut self, what: &str) -> Result<Name, SyntaxError> {
        let mut name = self.identifier(what)?;
        while self.try_sign("/")? {
            let part = self.identifier(what)?;
            name.text.push('/');
            name.text.push_str(&part.text);
            name.span.end = part.span.end;
        }
        Ok(name)
    }

    pub(super) fn identifier(&mut self, what: &str) -> Result<Name, SyntaxError> {
        let word = self.word();
        if word.is_empty() || is_keyword(word, |flag| self.flags.contains(flag)) {
            return Err(self.expected(what));
        }
        let name = Name {
            text: word.to_owned(),
            span: self.token.span,
        };
        self.advance()?;
        Ok(name)
    }

    /// The word that is looked at; empty where it is none.
    pub(super) fn word(&self) -> &'a str {
        match self.token.kind {
            Kind::Word => &self.text[self.token.span.start..self.token.span.end],
            _ => "",
        }
    }

    pub(super) fn advance(&mut self) -> Result<(), SyntaxError> {
        self.previous_end = self.token.span.end;
        self.token = self.lexer.next()?;
        Ok(())
    }

    pub(super) fn skip_ends(&mut self) -> Result<(), SyntaxError> {
        while matches!(self.token.kind, Kind::LineBreak | Kind::Sign(";")) {
            self.advance()?;
        }
        Ok(())
    }

    pub(super) fn sign(&mut self, sign: &'static str) -> Result<(), SyntaxError> {
        match self.try_sign(sign)? {
            true => Ok(()),
            false => Err(self.expected(sign)),
        }
    }

    pub(super) fn try_sign(&mut self, sign: &'static str) -> Result<bool, SyntaxError> {
        let is_there = self.token.kind == Kind::Sign(sign);
        if is_there {
            self.advance()?;
        }
        Ok(is_there)
    }

    /// A word that a flag makes a keyword.
    pub(super) fn try_keyword(&mut self, word: &str) -> Result<bool, SyntaxError> {
        let is_there = self.word() == word && is_keyword(word, |flag| self.flags.contains(flag));
        if is_there {
            self.advance()?;
        }
        Ok(is_there)
    }

    pub(super) fn expected(&self, what: &str) -> SyntaxError {
        let span = self.token.span;
        let found = match self.token.kind {
            Kind::End => "the end of the text".to_owned(),
            Kind::LineBreak => "the end of the line".to_owned(),
            Kind::Text => "a string".to_owned(),
            Kind::Sign(sign) => sign.to_owned(),
            Kind::Word => {
                let word = &self.text[span.start..span.end];
                let is_reserved = is_keyword(word, |flag| self.flags.contains(flag));
                let kind = if is_reserved { "the keyword " } else { "" };
                format!("{kind}{word}")
            }
        };
        self.error(format!("expected {what}, found {found}"))
    }

    pub(super) fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError {
            position: Position::of(self.text, self.token.span.start),
            message: message.into(),
        }
    }
}
