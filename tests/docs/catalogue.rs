//! docs/errors.md against the messages in the code: what it lists exists, and what ends with a code of which a
//! script decides what to do is listed.

use std::fs;
use std::path::PathBuf;

use super::tables::joined;
use crate::support::root;

/// Messages that the code does not hold: they are from the kernel, from SpiceDB, or name answers.
const OF_OTHERS: [&str; 4] = [
    "Too many levels of symbolic links",
    "exceeded maximum allowed caveat size",
    "maximum changes byte size of ... exceeded",
    "...: yes there, no on ...",
];

/// The code of the programs, a file each, without comments and tests; continued literals are one line.
fn sources() -> Vec<(PathBuf, String)> {
    let files = xtask::sources::files(&root().join("crates")).unwrap();
    let code = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next();
        let lines = text.unwrap_or_default().lines();
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        let code: Vec<&str> = lines.filter(is_code).collect();
        let code = joined(&code.join("\n"));
        (path, code)
    };
    files.into_iter().map(code).collect()
}

/// A literal at the beginning of the text, after its quote, with `\0` for what is filled in.
fn literal(text: &str) -> String {
    let mut found = String::new();
    let mut depth = 0_usize;
    let mut escaped = false;
    for c in text.chars() {
        match c {
            _ if escaped => {
                escaped = false;
                found.push(c);
            }
            '\\' => escaped = true,
            '"' => break,
            '{' => {
                depth += 1;
                found.push('\0');
            }
            '}' => depth = depth.saturating_sub(1),
            '`' => {}
            _ if depth == 0 => found.push(c),
            _ => {}
        }
    }
    found
}

/// All literals of a file, one after the other.
fn literals(code: &str) -> String {
    let code = code
        .replace("'\"'", "")
        .replace("b'\"'", "")
        .replace(r#"'\"'"#, "");
    let mut all = String::new();
    let mut rest = code.as_str();
    while let Some((_, after)) = rest.split_once('"') {
        all.push_str(&literal(after));
        all.push('\n');
        let mut escaped = false;
        let end = after.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        rest = end.map_or("", |end| &after[end + 1..]);
    }
    all
}

/// The parts of a text that are the same in each message: without numbers, capital letters and dots.
fn fixed(text: &str) -> Vec<String> {
    let words = text.split_whitespace().flat_map(|word| {
        let bare = word.trim_matches([':', ',', ';', '.']);
        let differs = word.starts_with("...")
            || ["A", "B", "N"].contains(&bare)
            || bare.parse::<f64>().is_ok();
        if differs { vec!["\0"] } else { vec![word] }
    });
    let joined: Vec<&str> = words.collect();
    let parts = joined.join(" ").replace("...", "\0");
    let parts = parts
        .split('\0')
        .map(|part| part.trim_matches([' ', ':', ',', '\'']).to_owned());
    parts.filter(|part| part.len() >= 4).collect()
}

/// Whether the code holds a part, possibly put together from up to this many pieces.
fn is_in(code: &str, part: &str, pieces: usize) -> bool {
    code.contains(part)
        || (pieces > 1
            && part.match_indices(' ').any(|(at, _)| {
                let (first, rest) = (&part[..at], &part[at + 1..]);
                first.len() >= 4
                    && rest.len() >= 4
                    && code.contains(first)
                    && is_in(code, rest, pieces - 1)
            }))
}

#[test]
fn messages_of_the_catalogue_are_in_the_code() {
    let code: String = sources().iter().map(|(_, code)| literals(code)).collect();
    let page = fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let listed = page
        .split("**`")
        .skip(1)
        .filter_map(|rest| rest.split('`').next());
    let listed: Vec<String> = listed
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert!(listed.len() >= 70, "{}", listed.len());
    let is_missing = |text: &&String| {
        !OF_OTHERS.contains(&text.as_str()) && !fixed(text).iter().all(|part| is_in(&code, part, 3))
    };
    let missing: Vec<&String> = listed.iter().filter(is_missing).collect();
    assert!(
        missing.is_empty(),
        "docs/errors.md lists what no program prints: {missing:#?}"
    );
}

#[test]
fn messages_that_scripts_react_to_are_in_the_catalogue() {
    let pages = ["errors.md", "cutover.md"]
        .map(|name| fs::read_to_string(root().join("docs").join(name)).unwrap());
    let pages = pages.join("\n").replace('`', "");
    let pages = pages.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut missing = Vec::new();
    let mut count = 0;
    for (path, code) in sources() {
        for made in code.split("CommandError::new(").skip(1) {
            let made = made.trim_start();
            let kinds = [
                "Exit::HistoryLost,",
                "Exit::BadData,",
                "Exit::TryAgain,",
                "Exit::Denied,",
            ];
            let Some(rest) = kinds.iter().find_map(|kind| made.strip_prefix(kind)) else {
                continue;
            };
            let rest = rest.trim_start();
            let rest = rest.strip_prefix("format!(").unwrap_or(rest).trim_start();
            let Some(text) = rest.strip_prefix('"').map(literal) else {
                continue;
            };
            count += 1;
            let parts = text
                .split('\0')
                .map(|part| part.trim_matches([' ', ':', ',']));
            let longest = parts.max_by_key(|part| part.len()).unwrap_or_default();
            if !pages.contains(longest) {
                missing.push(format!("{}: {}", path.display(), text.replace('\0', "...")));
            }
        }
    }
    assert!(count >= 45, "{count}");
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:#?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_found_without_what_is_filled_in() {
        assert_eq!(literals(r#"f("a {b} \"c\"", '"', "d")"#), "a \0 \"c\"\nd\n");
        assert_eq!(
            fixed("waiting 35 s for the head of ... to settle"),
            ["waiting", "s for the head of", "to settle"]
        );
        assert!(is_in(
            "cannot \0 the spool\nappend to\n",
            "cannot append to the spool",
            3
        ));
        assert!(!is_in(
            "cannot \0 the spool\n",
            "cannot append to the spool",
            3
        ));
    }
}
