//! The refused words, and the search for them.

use anyhow::{Context as _, Result, ensure};

use super::Finding;

/// The words and phrases that docs/style.md refuses, each with its replacement.
#[derive(Debug)]
pub(super) struct Words(Vec<(String, String)>);

impl Words {
    /// Reads the fenced block ```` ```words ````: `word -> replacement` on each line.
    pub(super) fn parse(style: &str) -> Result<Self> {
        let list: Vec<_> = style
            .lines()
            .skip_while(|line| *line != "```words")
            .skip(1)
            .take_while(|line| *line != "```")
            .map(|line| {
                let (word, replacement) = line
                    .split_once("->")
                    .with_context(|| format!("no -> in {line:?}"))?;
                let word = word.trim().to_ascii_lowercase();
                ensure!(!word.is_empty(), "no word in {line:?}");
                Ok((word, replacement.trim().to_owned()))
            })
            .collect::<Result<_>>()?;
        ensure!(!list.is_empty(), "no block ```words with a line in it");
        Ok(Self(list))
    }

    /// Every occurrence in a paragraph, in the order of the text.
    fn search(&self, text: &str) -> Vec<(usize, String)> {
        let text = text.to_ascii_lowercase();
        let mut found: Vec<_> = self
            .0
            .iter()
            .flat_map(|(word, replacement)| {
                text.match_indices(word.as_str())
                    .filter(|(at, _)| is_alone(&text, *at, word))
                    .map(move |(at, _)| (at, format!("\"{word}\": write {replacement}")))
            })
            .collect();
        found.sort();
        found
    }
}

/// Whether no letter, digit or hyphen continues the word at its ends.
fn is_alone(text: &str, at: usize, word: &str) -> bool {
    let joins = |inner: Option<char>, outer: Option<char>| {
        let letter = |of: Option<char>| {
            of.is_some_and(|found| found.is_alphanumeric() || matches!(found, '_' | '-'))
        };
        letter(inner) && letter(outer)
    };
    let (before, after) = (&text[..at], &text[at + word.len()..]);
    !joins(word.chars().next(), before.chars().next_back())
        && !joins(word.chars().next_back(), after.chars().next())
}

/// Lines that belong together: a phrase is found across a line break.
#[derive(Debug, Default)]
pub(super) struct Paragraph {
    text: String,
    /// Where in the text each line begins, and its number.
    starts: Vec<(usize, usize)>,
}

impl Paragraph {
    pub(super) fn push(&mut self, number: usize, line: &str) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.starts.push((self.text.len(), number));
        self.text.push_str(line.trim());
    }

    /// The refused words in the lines so far; forgets these lines.
    pub(super) fn finish(&mut self, words: &Words) -> Vec<Finding> {
        let Self { text, starts } = std::mem::take(self);
        let line = |at: usize| {
            let following = starts.partition_point(|(start, _)| *start <= at);
            starts[following.saturating_sub(1)].1
        };
        words
            .search(&without_code(&text))
            .into_iter()
            .map(|(at, what)| Finding::new(line(at), what))
            .collect()
    }
}

/// The text with its code spans and link targets blanked, each byte in its place.
fn without_code(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['`', ']']) {
        let (plain, marked) = rest.split_at(at);
        kept.push_str(plain);
        let length = span(marked).unwrap_or(1);
        let (hidden, following) = marked.split_at(length);
        kept.extend(std::iter::repeat_n('\u{0}', hidden.len()));
        rest = following;
    }
    kept.push_str(rest);
    kept
}

/// How many bytes a code span or a link target takes that begins here; nothing if none ends.
fn span(text: &str) -> Option<usize> {
    if let Some(target) = text.strip_prefix("](") {
        return Some(2 + target.find(')')? + 1);
    }
    let ticks = text.bytes().take_while(|byte| *byte == b'`').count();
    if ticks == 0 {
        return None;
    }
    let (fence, inner) = text.split_at(ticks);
    let mut from = 0;
    loop {
        let at = from + inner[from..].find(fence)?;
        let end = at + ticks;
        if !inner[end..].starts_with('`') {
            return Some(ticks + end);
        }
        from = end
            + inner[end..]
                .bytes()
                .take_while(|byte| *byte == b'`')
                .count();
    }
}
