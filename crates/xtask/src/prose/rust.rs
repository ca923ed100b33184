//! Rust: the prose in comments and in texts for people. Names in code are not prose.

use super::Finding;
use super::words::{Paragraph, Words};

/// The refused words in comments and string literals. A literal without a space is a name.
pub(super) fn check(text: &str, words: &Words) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut comment = Paragraph::default();
    let mut rest = Scanner { text, line: 1 };
    while let Some(token) = rest.next_token() {
        match token {
            Token::Comment(line, comment_text) => comment.push(line, comment_text),
            Token::Literal(line, literal) => {
                found.extend(comment.finish(words));
                if literal.trim().contains(' ') {
                    let mut paragraph = Paragraph::default();
                    for (number, part) in (line..).zip(literal.lines()) {
                        paragraph.push(number, part.trim_end_matches('\\'));
                    }
                    found.extend(paragraph.finish(words));
                }
            }
            Token::Code => found.extend(comment.finish(words)),
        }
    }
    found.extend(comment.finish(words));
    found.sort_by_key(|finding| finding.line);
    found
}

enum Token<'a> {
    /// A comment's text to the end of its line, and the line.
    Comment(usize, &'a str),
    /// What is between the quotes, and the line on which it begins.
    Literal(usize, &'a str),
    /// One character of code, not white space.
    Code,
}

/// Splits source text into comments, literals and code.
struct Scanner<'a> {
    text: &'a str,
    line: usize,
}

impl<'a> Scanner<'a> {
    fn next_token(&mut self) -> Option<Token<'a>> {
        let blank = self.text.len() - self.text.trim_start().len();
        self.take(blank);
        let (text, line) = (self.text, self.line);
        if text.is_empty() {
            return None;
        }
        if let Some(comment) = text.strip_prefix("//") {
            let comment = comment.split('\n').next().unwrap_or_default();
            self.take(2 + comment.len());
            return Some(Token::Comment(line, comment.trim_start_matches(['/', '!'])));
        }
        if let Some((prefix, hashes)) = raw_string(text) {
            let begin = prefix + hashes + 1;
            let end = format!("\"{}", "#".repeat(hashes));
            let length = text[begin..].find(&end).unwrap_or(text.len() - begin);
            self.take((begin + length + end.len()).min(text.len()));
            return Some(Token::Literal(line, &text[begin..begin + length]));
        }
        if let Some(literal) = text.strip_prefix('"') {
            let length = quoted(literal);
            self.take((length + 2).min(text.len()));
            return Some(Token::Literal(line, &literal[..length]));
        }
        // A name, so that a quote behind it is no prefix of it; or a character literal such as '"'.
        let name = text
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(text.len());
        let length = match name {
            0 => character(text).unwrap_or_else(|| text.chars().next().map_or(1, char::len_utf8)),
            name => name,
        };
        self.take(length);
        Some(Token::Code)
    }

    fn take(&mut self, bytes: usize) {
        let (taken, rest) = self.text.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.text = rest;
    }
}

/// Of `r"`, `br#"`, ...: how long the prefix is, and how many hashes follow it.
fn raw_string(text: &str) -> Option<(usize, usize)> {
    let prefix = ["r", "br", "cr"].into_iter().find(|prefix| {
        let rest = text.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
    })?;
    let rest = &text[prefix.len()..];
    Some((
        prefix.len(),
        rest.len() - rest.trim_start_matches('#').len(),
    ))
}

/// How many bytes are before the quote that ends a literal.
fn quoted(literal: &str) -> usize {
    let mut escaped = false;
    literal
        .char_indices()
        .find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        })
        .map_or(literal.len(), |(at, _)| at)
}

/// How many bytes a character literal takes; `None` for a lifetime and for other code.
fn character(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let first = match inner.strip_prefix('\\') {
        Some(escape) => 1 + escape.chars().next()?.len_utf8(),
        None => inner.chars().next()?.len_utf8(),
    };
    let end = match inner.get(first..)? {
        rest if rest.starts_with('\'') => first,
        rest if inner.starts_with("\\u{") || inner.starts_with("\\x") => first + rest.find('\'')?,
        _ => return None,
    };
    Some(1 + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        let words = Words::parse("```words\nwhole -> complete\ngoes on -> resumes\n```\n");
        let found = check(text, &words.expect("a list"));
        found.into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn comments_and_texts_are_prose() {
        assert_eq!(found("/// The whole of it.\nfn a() {}\n"), [1]);
        assert_eq!(found("let a = 1; // the whole\n"), [1]);
        assert_eq!(found("say(\"the stream goes on\");\n"), [1]);
        assert_eq!(found("say(r#\"the \"whole\" stream\"#);\n"), [1]);
        assert_eq!(found("//! It goes\n//! on.\n"), [1]);
        assert_eq!(
            found("\n\nsay(\n    \"one line and the stream \\\n     goes on\");\n"),
            [5]
        );
    }

    #[test]
    fn names_and_code_are_not() {
        for code in [
            "fn whole() { self.whole }",
            "json[\"whole\"]",
            "/// The `whole` of it.",
            "let whole = '\"'; let b = '\\''; let c: &'static str = b;",
            "fn a<'a>(whole: &'a str) {}",
            "let a = '\\u{2028}'; let whole = 1;",
            "parse::<whole>(br\"x\")",
        ] {
            assert_eq!(found(code), [] as [usize; 0], "{code}");
        }
    }

    #[test]
    fn a_comment_ends_at_code() {
        assert_eq!(found("// It goes\nlet a = 1;\n// on.\n"), [] as [usize; 0]);
        assert_eq!(found("let a = \"// whole\"; // whole\n"), [1, 1]);
    }
}
