//! Compares what a page shows with what a command printed.
//!
//! Several programs of a pipe print to one terminal, so the order of lines does not count. Words that
//! differ in every run are equal to each other: those with a digit, and zedtokens. Digests and the
//! numbers of relationships are compared. `...` matches any text in a line, or any other lines.

/// What is not the same in both, a line each.
pub(super) fn differences(shown: &[String], printed: &str) -> Vec<String> {
    let mut printed: Vec<&str> = printed
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let is_part = shown.iter().any(|line| line.trim() == "...");
    let mut found = Vec::new();
    for line in shown
        .iter()
        .filter(|line| !["", "..."].contains(&line.trim()))
    {
        let pattern = masked(line);
        match printed
            .iter()
            .position(|printed| matches(&pattern, &masked(printed)))
        {
            Some(at) => drop(printed.remove(at)),
            None => found.push(format!("shown, but not printed: {line}")),
        }
    }
    if !is_part {
        found.extend(
            printed
                .into_iter()
                .map(|line| format!("printed, but not shown: {line}")),
        );
    }
    found
}

/// Whether a line is like this; `...` in the pattern is any text.
fn matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split("...");
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

/// The line with `#` for each word that differs between runs, and single spaces.
fn masked(line: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_+/=.:-".contains(c);
    let mut words: Vec<&str> = Vec::new();
    let mut rest = line.trim_end();
    while let Some(first) = rest.chars().next() {
        let end = rest
            .find(|c| is_word(c) != is_word(first))
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        words.push(word);
        rest = after;
    }
    let mut masked = String::new();
    for (at, word) in words.iter().enumerate() {
        let near = |at: Option<usize>| {
            at.and_then(|at| words.get(at))
                .is_some_and(|near| is_counted(near))
        };
        let bare = word.trim_matches([':', '.']);
        let is_number = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit());
        let is_count = is_number && (near(at.checked_add(2)) || near(at.checked_sub(2)));
        let is_digest = bare.len() == 32 && bare.bytes().all(|b| b.is_ascii_hexdigit());
        let is_zedtoken = bare.len() > 2 && (bare.starts_with("Gh") || bare.starts_with("Gi"));
        let differs =
            (word.contains(|c: char| c.is_ascii_digit()) && !is_count && !is_digest) || is_zedtoken;
        match (differs, word.trim_start().is_empty()) {
            (true, _) => masked.push('#'),
            (_, true) => masked.push(' '),
            _ => masked.push_str(word),
        }
    }
    masked
}

fn is_counted(word: &str) -> bool {
    ["relationships", "relationship"].contains(&word.trim_matches([':', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn times_tokens_and_ports_are_equal() {
        let shown = lines(&[
            "spice-export: exporting 127.0.0.1:22669 at revision GhAKBENPMHYSCGFlNTU2OTU1",
            "verify     equal since 2026-11-26T10:20:20Z: at Giw... and GiQ..., in 1 round",
            "spice-export: exported 7 relationships in 6.0 s",
        ]);
        let printed = "spice-export: exported 7 relationships in 0.1 s\n\
                       verify     equal since 2026-11-27T11:21:21Z: at GiwKIA== and GiQ1, in 2 round\n\
                       spice-export: exporting 127.0.0.1:1 at revision GhAKBENxMHY=\n";
        assert_eq!(differences(&shown, printed), Vec::<String>::new());
    }

    #[test]
    fn counts_digests_and_words_are_compared() {
        for (shown, printed) in [
            ("7 relationships", "8 relationships"),
            (r#"{"relationships":7}"#, r#"{"relationships":8}"#),
            (
                "digest 103ed5b231b2d9de3475a0ea66c5b2c1",
                "digest 203ed5b231b2d9de3475a0ea66c5b2c1",
            ),
            ("equal", "different"),
            ("equal", ""),
            ("", "equal"),
            ("a...c", "a b"),
            ("...b", "b c"),
        ] {
            assert_ne!(
                differences(&lines(&[shown]), printed),
                Vec::<String>::new(),
                "{shown}"
            );
        }
    }

    #[test]
    fn dots_are_any_text_or_any_lines() {
        let printed = "one\n{\"trailer\":{\"relationships\":7,\"a\":\"b\"}}\nthree\n";
        assert_eq!(
            differences(&lines(&["{\"trailer\":...}}", "..."]), printed),
            Vec::<String>::new()
        );
        assert_eq!(
            differences(&lines(&["{\"trailer\":...}}"]), printed).len(),
            2
        );
    }
}
