//! CONTRIBUTING.md names the file of each decision: every path in it must exist.

use std::path::Path;

use super::Finding;

/// The folders that a path begins with.
const FOLDERS: [&str; 4] = ["crates/", "tests/", "scripts/", "docs/"];

/// The paths in code spans that do not exist below `root`.
pub(super) fn check(text: &str, root: &Path) -> Vec<Finding> {
    (1..)
        .zip(text.lines())
        .flat_map(|(number, line)| code_spans(line).map(move |span| (number, span)))
        .filter(|(_, span)| FOLDERS.iter().any(|folder| span.starts_with(folder)))
        .flat_map(|(number, span)| expand(span).into_iter().map(move |path| (number, path)))
        .filter(|(_, path)| !root.join(path).exists())
        .map(|(number, path)| Finding::new(number, format!("there is no {path}")))
        .collect()
}

/// What is between backticks in a line.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn expand(path: &str) -> Vec<String> {
    let braces = path
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    let Some((before, (choices, after))) = braces else {
        return vec![path.to_owned()];
    };
    choices
        .split(',')
        .flat_map(|choice| expand(&format!("{before}{choice}{after}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_expanded() {
        assert_eq!(expand("a/b.rs"), ["a/b.rs"]);
        assert_eq!(expand("a/{b,c/d}.rs"), ["a/b.rs", "a/c/d.rs"]);
        assert_eq!(expand("{a,b}/{c,d}"), ["a/c", "a/d", "b/c", "b/d"]);
        assert_eq!(expand("a/{b"), ["a/{b"]);
    }

    #[test]
    fn missing_path_is_named_with_its_line() {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(root.path().join("docs")).expect("a folder");
        std::fs::write(root.path().join("docs/a.md"), "").expect("a file");
        let text = "Prose of crates/none.\n\n| here | `docs/a.md` |\n| there | `docs/{a,b}.md`, `crates/x` |\n";
        assert_eq!(
            check(text, root.path()),
            [
                Finding::new(4, "there is no docs/b.md"),
                Finding::new(4, "there is no crates/x"),
            ]
        );
    }

    #[test]
    fn commands_and_names_are_no_paths() {
        let text =
            "`cargo run -p xtask -- pages --help-to docs/help`, `main`, `spice_cli::Program`";
        assert_eq!(check(text, Path::new("/nowhere")), []);
    }
}
