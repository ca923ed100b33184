//! Why a text or a change is refused, and where.

use std::fmt;

/// A place in a text. Both numbers count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Position {
    /// The place of a byte in a text.
    #[must_use]
    pub fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A text that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {message}")]
pub struct SyntaxError {
    /// Where.
    pub position: Position,
    /// What was expected, and what is there.
    pub message: String,
}

/// Why a change is refused, at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where in the text that was to be changed.
    pub position: Position,
    /// What would be wrong.
    pub message: String,
    /// What would fix it.
    pub remedy: Remedy,
}

/// What would fix a problem.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// The message shows it, or there is none.
    #[default]
    Unknown,
    /// A new name that keeps this rule.
    Rule(&'static str),
    /// Another new name for one of two that would have the same.
    OtherName,
    /// Removing this relation or permission, which refers to what is removed, as well.
    Remove {
        /// The definition that has it.
        definition: String,
        /// Its name.
        member: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.position, self.message)
    }
}

/// A change that would not leave a sound schema of the same meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// At least one, in the order of the text.
    pub problems: Vec<Problem>,
}

/// How many problems a message names.
const NAMED: usize = 5;
/// How many problems are collected.
pub(crate) const MAX_PROBLEMS: usize = 100;

impl Refused {
    pub(crate) fn one(position: Position, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            problems: vec![Problem {
                position,
                message,
                remedy: Remedy::Unknown,
            }],
        }
    }

    /// Sorts them; `Ok` where there are none.
    pub(crate) fn unless_empty(mut problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort();
        problems.dedup();
        Err(Self { problems })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for problem in self.problems.iter().take(NAMED) {
            write!(f, "{between}{problem}")?;
            between = "; ";
        }
        match self.problems.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for Refused {}
