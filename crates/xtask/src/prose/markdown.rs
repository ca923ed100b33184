//! Markdown: which lines are prose, how wide they are, which words they hold.

use super::Finding;
use super::words::{Paragraph, Words};

/// The widest line of prose, in characters.
const COLUMNS: usize = 80;

/// What breaks the rules in a page.
///
/// Code is fenced, indented by four spaces after a blank line, or in a comment for tests/docs.rs.
pub(super) fn check(text: &str, words: &Words) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut paragraph = Paragraph::default();
    let mut fence: Option<&str> = None;
    let mut may_be_code = true;
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim_start();
        if let Some(open) = fence {
            if trimmed.starts_with(open) {
                fence = None;
            }
            continue;
        }
        if let Some(close) = code_begins(trimmed) {
            found.extend(paragraph.finish(words));
            fence = (!trimmed[1..].contains(close)).then_some(close);
            continue;
        }
        if trimmed.is_empty() {
            found.extend(paragraph.finish(words));
            may_be_code = true;
            continue;
        }
        if may_be_code && line.starts_with("    ") {
            continue;
        }
        may_be_code = false;
        if trimmed.starts_with('|') || trimmed.starts_with('#') || is_item(trimmed) {
            found.extend(paragraph.finish(words));
        }
        if !trimmed.starts_with('|') && !is_only_a_link(trimmed) {
            found.extend(Finding::width(number, line, COLUMNS));
        }
        paragraph.push(number, line);
    }
    found.extend(paragraph.finish(words));
    found.sort_by_key(|finding| finding.line);
    found
}

/// What ends the code that begins with a line, if one does: a fence, or a comment that says what a test does.
pub(super) fn code_begins(line: &str) -> Option<&'static str> {
    let all = [("```", "```"), ("~~~", "~~~"), ("<!-- test", "-->")];
    all.into_iter()
        .find(|(open, _)| line.starts_with(open))
        .map(|(_, close)| close)
}

/// The text of a list's item without its marker; nothing if the line begins none.
fn item(line: &str) -> Option<&str> {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let marker = match digits {
        0 => line.strip_prefix(['-', '*', '+']),
        _ => line[digits..].strip_prefix(['.', ')']),
    };
    marker?.strip_prefix(' ')
}

fn is_item(line: &str) -> bool {
    item(line).is_some()
}

/// Whether a line cannot be wrapped, because it holds nothing but a link or an address.
fn is_only_a_link(line: &str) -> bool {
    let line = item(line).unwrap_or(line).trim_end();
    let line = line.trim_end_matches(['.', ',', ';', ':']);
    let target = match line.strip_prefix('[') {
        // [text](target), or [name]: target
        Some(link) => link
            .split_once("](")
            .filter(|(text, _)| !text.contains(']'))
            .and_then(|(_, target)| target.strip_suffix(')'))
            .or_else(|| link.split_once("]: ").map(|(_, target)| target)),
        None => line.contains("://").then_some(line),
    };
    target.is_some_and(|target| !target.trim().contains(char::is_whitespace))
}
