//! Which text belongs to a declaration: the comments above it, what ends it, its line.

use crate::tree::Span;

/// What goes with a statement or declaration when it is removed. `comments` are all of the text.
///
/// Comments above it belong to it, up to a blank line. If it has its lines for itself, they go, with the
/// comment at the end of its last line and blank lines that would be left twice.
pub(crate) fn extent(text: &str, comments: &[Span], span: Span) -> Span {
    let start = first_comment(text, comments, span.start);
    let mut end = span.end + blanks(&text[span.end..]);
    let has_end = text[end..].starts_with(';');
    if has_end {
        end += 1;
        end += blanks(&text[end..]);
    }
    if !begins_line(text, start) {
        // What is before it on its line may need the line break.
        let end = if has_end { end } else { span.end };
        return Span { start, end };
    }
    let behind = end_of_comment(text, comments, end);
    let behind = behind + blanks(&text[behind..]);
    let Some(line_break) = line_break(&text[behind..]) else {
        return Span { start, end };
    };
    let start = line_start(text, start);
    let mut end = behind + line_break;
    let before = &text[..start];
    let is_after_gap = before.trim_end_matches([' ', '\t', '\r', '\n']).len();
    let lines = before[is_after_gap..].matches('\n').count();
    if before.trim().is_empty() || before[..is_after_gap].ends_with('{') || lines > 1 {
        end += blank_lines(&text[end..]);
    }
    Span { start, end }
}

/// Where the comments begin that belong to what begins here.
fn first_comment(text: &str, comments: &[Span], mut start: usize) -> usize {
    let mut above = comments.partition_point(|comment| comment.end <= start);
    while above > 0 {
        above -= 1;
        let comment = comments[above];
        let between = &text[comment.end..start];
        let is_adjacent = between.trim().is_empty() && between.matches('\n').count() <= 1;
        if !is_adjacent || !begins_line(text, comment.start) {
            break;
        }
        start = comment.start;
    }
    start
}

/// The end of the comment that begins here, if it is the last on its line.
fn end_of_comment(text: &str, comments: &[Span], at: usize) -> usize {
    let found = comments.binary_search_by_key(&at, |comment| comment.start);
    let Ok(found) = found.map(|index| comments[index]) else {
        return at;
    };
    let is_of_line = !text[found.start..found.end].contains('\n');
    let behind = &text[found.end + blanks(&text[found.end..])..];
    match is_of_line && line_break(behind).is_some() {
        true => found.end,
        false => at,
    }
}

fn blanks(text: &str) -> usize {
    text.len() - text.trim_start_matches([' ', '\t']).len()
}

/// The length of the line break here; 0 at the end of the text.
fn line_break(text: &str) -> Option<usize> {
    match text.as_bytes() {
        [] => Some(0),
        [b'\r', b'\n', ..] => Some(2),
        [b'\n' | b'\r', ..] => Some(1),
        _ => None,
    }
}

fn blank_lines(text: &str) -> usize {
    let mut at = 0;
    loop {
        let line = at + blanks(&text[at..]);
        match line_break(&text[line..]) {
            Some(length) if length > 0 => at = line + length,
            _ => return at,
        }
    }
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind(['\n', '\r']).map_or(0, |found| found + 1)
}

fn begins_line(text: &str, at: usize) -> bool {
    let line = &text[line_start(text, at)..at];
    blanks(line) == line.len()
}
