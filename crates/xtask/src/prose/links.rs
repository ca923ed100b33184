//! Links of Markdown pages to files and headings of the repository: each must lead somewhere.
//!
//! Addresses on the web are not followed. Headings have the anchors that GitHub gives them.

use std::fs;
use std::path::Path;

use super::Finding;
use super::markdown::code_begins;

/// The links of a page that lead nowhere. `page` is its path.
pub(super) fn check(page: &Path, text: &str) -> Vec<Finding> {
    let folder = page.parent().unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for (line, text) in prose(text) {
        for target in targets(&without_code(text)) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match path {
                "" => page.to_owned(),
                _ => folder.join(path),
            };
            if !path.exists() {
                found.push(Finding::new(
                    line,
                    format!("a link to {target}, which does not exist"),
                ));
            } else if !anchor.is_empty() {
                let there = fs::read_to_string(&path).unwrap_or_default();
                if !anchors(&there).contains(&anchor.to_owned()) {
                    found.push(Finding::new(
                        line,
                        format!("a link to {target}, which has no such heading"),
                    ));
                }
            }
        }
    }
    found
}

/// The lines that are no code, counted from 1.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut within: Option<&str> = None;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim_start();
        if let Some(close) = within {
            within = (!trimmed.starts_with(close)).then_some(close);
        } else if let Some(close) = code_begins(trimmed) {
            within = (!trimmed[1..].contains(close)).then_some(close);
        } else {
            lines.push((number, line));
        }
    }
    lines
}

/// A line without what is between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// Where the links of a line lead: `[text](target)`, also of pictures, and `[name]: target`.
fn targets(line: &str) -> Vec<&str> {
    let inline = line
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let named = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]: "))
        .map(|(_, target)| target);
    inline
        .chain(named)
        .filter_map(|target| target.split_whitespace().next())
        .collect()
}

/// The anchors of a page's headings.
fn anchors(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        // Of a link, its text.
        let title = title.split("](").next().unwrap_or_default();
        let kept = title
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        let anchor: String = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let before = all.iter().filter(|other| **other == anchor).count();
        all.push(if before == 0 {
            anchor
        } else {
            format!("{anchor}-{before}")
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_have_the_anchors_of_github() {
        let text = "# At 3 a.m.: what now?\n\n```sh\n# no heading\n```\n\n## `spice-map`\n\n## Twice\n\n## Twice\n";
        assert_eq!(
            anchors(text),
            ["at-3-am-what-now", "spice-map", "twice", "twice-1"]
        );
    }

    #[test]
    fn links_that_lead_nowhere_are_named_with_their_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let page = folder.path().join("a.md");
        let text = "# A b\n\n[x](a.md#a-b) ![y](none.svg)\n`[z](none.md)` [w](https://none.example/x)\n\n\
                    [v](#c)\n\n[named]: none.md\n\n```sh\n[u](none.md)\n```\n<!-- test\n[t](none.md)\n-->\n";
        fs::write(&page, text).expect("a file");
        let found: Vec<String> = check(&page, text).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "3: a link to none.svg, which does not exist",
                "6: a link to #c, which has no such heading",
                "8: a link to none.md, which does not exist",
            ]
        );
    }
}
