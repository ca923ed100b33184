//! Replaces and removes parts of a text; the rest stays as it is.

use crate::tree::Span;

#[derive(Debug, Default)]
pub(crate) struct Edits(Vec<(Span, String)>);

impl Edits {
    pub(crate) fn replace(&mut self, span: Span, text: &str) {
        self.0.push((span, text.to_owned()));
    }

    pub(crate) fn remove(&mut self, span: Span) {
        self.0.push((span, String::new()));
    }

    /// Of two that overlap the one that begins first counts.
    pub(crate) fn apply(mut self, text: &str) -> String {
        self.0.sort();
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for (span, new) in self.0 {
            if span.start < at {
                continue;
            }
            out.push_str(&text[at..span.start]);
            out.push_str(&new);
            at = span.end;
        }
        out.push_str(&text[at..]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_replaced_and_the_rest_stays() {
        let mut edits = Edits::default();
        edits.remove(Span { start: 4, end: 6 });
        edits.replace(Span { start: 0, end: 1 }, "longer");
        // Within what is removed.
        edits.replace(Span { start: 5, end: 6 }, "x");
        assert_eq!(edits.apply("abcdefg"), "longerbcdg");
    }
}
