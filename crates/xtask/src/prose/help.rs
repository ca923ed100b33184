//! The help pages, as `pages --help-to` writes them.

use super::Finding;
use super::words::{Paragraph, Words};

/// The widest example, in characters: clap indents it by two and must not wrap it.
const COLUMNS: usize = 76;

/// What breaks the rules in a page: wide lines of its examples, and refused words anywhere.
pub(super) fn check(text: &str, words: &Words) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut paragraph = Paragraph::default();
    let mut in_examples = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            found.extend(paragraph.finish(words));
            in_examples = false;
            continue;
        }
        if in_examples {
            found.extend(Finding::width(number, line, COLUMNS));
        }
        in_examples |= line == "Examples:";
        paragraph.push(number, line);
    }
    found.extend(paragraph.finish(words));
    found.sort_by_key(|finding| finding.line);
    found
}
