//! The schema language of SpiceDB: a parser that keeps the text, and changes of that text.
//!
//! A change replaces names and removes parts. Everything else, comments and layout included, stays byte
//! for byte as it was. What the parser does not understand it refuses, with line and column.
//!
//! | module | holds |
//! |---|---|
//! | [`lexer`] | tokens, comments, and the end of a caveat's expression |
//! | [`parser`] | declarations, type references, permissions, caveats |
//! | [`tree`] | what the parser gives: names and references with their places |
//! | [`resolve`] | the members of a definition, those of its partials included |
//! | [`rename`] | other names for definitions, caveats, relations and permissions |
//! | [`removal`], [`remove`] | a schema without some of its definitions, caveats, relations and permissions |
//! | [`closure`] | a schema with what some definitions need, and nothing else |
//! | [`layout`], [`edit`] | which text belongs to a declaration; replacing and removing text |
//! | [`names`] | which names SpiceDB accepts |
//! | [`error`] | why a text or a change is refused, and where |
//!
//! The language is that of SpiceDB v1.30 to v1.57, its `use` flags included. The expression of a caveat is
//! CEL. It is not parsed: strings, comments and braces are followed to its end, and it is kept as it is.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod closure;
mod edit;
mod error;
mod layout;
mod lexer;
pub mod names;
mod parser;
mod removal;
mod remove;
mod rename;
mod resolve;
#[cfg(test)]
mod tests;
pub mod tree;

pub use error::{Position, Problem, Refused, Remedy, SyntaxError};
pub use removal::{Removal, Removed};
pub use rename::Renames;

use crate::tree::{Caveat, Definition, Use};

/// A schema: its text, and what is where in it.
#[derive(Clone, Debug)]
pub struct Schema {
    text: String,
    uses: Vec<Use>,
    definitions: Vec<Definition>,
    partials: Vec<Definition>,
    caveats: Vec<Caveat>,
    comments: Vec<tree::Span>,
}

impl Schema {
    /// Parses a text.
    ///
    /// # Errors
    ///
    /// The first place that is not understood.
    pub fn parse(text: impl Into<String>) -> Result<Self, SyntaxError> {
        parser::parse(text.into())
    }

    /// The text, as it was parsed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The `use` flags, in their order.
    #[must_use]
    pub fn uses(&self) -> &[Use] {
        &self.uses
    }

    /// The definitions, in their order.
    #[must_use]
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// The partials, in their order.
    #[must_use]
    pub fn partials(&self) -> &[Definition] {
        &self.partials
    }

    /// The caveats, in their order.
    #[must_use]
    pub fn caveats(&self) -> &[Caveat] {
        &self.caveats
    }

    /// The definition of this name.
    #[must_use]
    pub fn definition(&self, name: &str) -> Option<&Definition> {
        self.definitions
            .iter()
            .find(|found| found.name.text == name)
    }

    /// The caveat of this name.
    #[must_use]
    pub fn caveat(&self, name: &str) -> Option<&Caveat> {
        self.caveats.iter().find(|found| found.name.text == name)
    }

    /// Whether a definition has a relation or permission of this name, of its own or from a partial.
    ///
    /// # Errors
    ///
    /// Declarations that contradict each other, as [`Schema::rename`] finds them.
    pub fn has_member(&self, definition: &str, member: &str) -> Result<bool, Refused> {
        let resolved = resolve::Resolved::of(self)?;
        Ok(resolved.member(definition, member).is_some())
    }

    /// The relations and permissions of a definition, sorted, those of its partials included.
    ///
    /// # Errors
    ///
    /// As [`Schema::has_member`].
    pub fn members(&self, definition: &str) -> Result<Vec<&str>, Refused> {
        let resolved = resolve::Resolved::of(self)?;
        let members = resolved.members(definition).into_iter();
        let members = members.flat_map(|members| members.values());
        let mut names: Vec<&str> = members
            .map(|found| found.declared.name().text.as_str())
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Where a place in the text is.
    #[must_use]
    pub fn position(&self, offset: usize) -> Position {
        Position::of(&self.text, offset)
    }
}
