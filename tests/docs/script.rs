//! The blocks of a page as one script for bash.

use std::fmt::Write as _;

use super::blocks::{Block, Kind, Page, shown};

/// A command whose output is compared.
pub(super) struct Compared {
    pub(super) line: usize,
    /// The file in the folder of the test that has the output.
    pub(super) file: String,
    pub(super) shown: Vec<String>,
}

/// The script, and what to compare after it has ended with 0.
pub(super) fn script(name: &str, page: &Page) -> (String, Vec<Compared>) {
    let mut script = format!("docs_page={name}\n. \"$DOCS/prelude.sh\"\n");
    let mut compared = Vec::new();
    let run = page.blocks.iter().filter(|block| block.how.skip.is_none());
    for block in run {
        if block.kind != Kind::Console {
            add(&mut script, block, block.line, &block.text, "", true);
            continue;
        }
        let commands = shown(block);
        let count = commands.len();
        for (at, command) in (1..).zip(commands) {
            let file = format!("out.{}", compared.len());
            let output = format!(" >\"$DOCS/{file}\" 2>&1");
            add(
                &mut script,
                block,
                block.line,
                &command.command,
                &output,
                at == count,
            );
            compared.push(Compared {
                line: block.line,
                file,
                shown: command.output,
            });
        }
    }
    (script, compared)
}

/// Adds commands. What the comments direct is meant for the last command of a block.
fn add(script: &mut String, block: &Block, line: usize, text: &str, output: &str, is_last: bool) {
    let how = &block.how;
    let input = match &how.input {
        Some(input) if is_last => format!(" <<'DOCS_INPUT'\n{input}\nDOCS_INPUT"),
        _ => String::new(),
    };
    let exit = if is_last { how.exit } else { 0 };
    let added = if how.background {
        writeln!(
            script,
            "docs_line={line}\nset -m\n(trap - EXIT\n{text}){output} &\ndocs_jobs+=\" $!\"\nset +m"
        )
    } else if exit == 0 {
        writeln!(script, "docs_line={line}\n{{\n{text}}}{output}{input}")
    } else {
        writeln!(
            script,
            "docs_line={line}\nset +e\n(trap - EXIT\nset -e\n{text}){output}{input}\ndocs_expect {exit} $?\nset -e"
        )
    };
    added.expect("a string can be written to");
}

#[cfg(test)]
mod tests {
    use super::super::blocks::parse;
    use super::*;
    use std::process::Command;

    /// Runs the blocks of a page; its exit code and output.
    fn run(text: &str) -> (Option<i32>, String) {
        let folder = tempfile::tempdir().unwrap();
        let (script, _) = script("page.md", &parse(text).unwrap());
        std::fs::write(folder.path().join("prelude.sh"), include_str!("prelude.sh")).unwrap();
        let mut bash = Command::new("bash");
        let bash = bash
            .args(["-c", &script])
            .env("DOCS", folder.path())
            .current_dir(folder.path());
        let output = bash.output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), text)
    }

    #[test]
    fn blocks_share_a_shell_and_the_first_failure_ends_it() {
        assert_eq!(
            run("```sh\na=1\n```\n\n```sh\necho $a\n```\n"),
            (Some(0), "1\n".to_owned())
        );
        let (code, text) = run("```sh\ntrue\n```\n\n```sh\nfalse | true\necho no\n```\n");
        assert_eq!(code, Some(1));
        assert!(
            text.contains("page.md:6: exit 1") && !text.contains("no\n"),
            "{text}"
        );
        assert_eq!(run("```sh\necho $unset\n```\n").0, Some(1));
    }

    #[test]
    fn directions_are_followed() {
        assert_eq!(
            run("<!-- test: exit 3 -->\n```sh\n(exit 3)\n```\n").0,
            Some(0)
        );
        assert_eq!(
            run("<!-- test: exit 3 -->\n```sh\n(exit 4)\n```\n").0,
            Some(1)
        );
        assert_eq!(run("<!-- test: exit 3 -->\n```sh\ntrue\n```\n").0, Some(1));
        assert_eq!(
            run("<!-- test: exit 3 -->\n```sh\n(exit 3)\ntrue\n```\n").0,
            Some(0)
        );
        assert_eq!(
            run("<!-- test: input yes -->\n```sh\ncat\n```\n").1,
            "yes\n"
        );
        assert_eq!(
            run("<!-- test: skip why -->\n```sh\nfalse\n```\n").0,
            Some(0)
        );
        assert_eq!(
            run("<!-- test: background -->\n```sh\nsleep 600 | cat\n```\n").0,
            Some(0)
        );
        assert_eq!(run("```console\n$ echo a; exit 1\na\n```\n").0, Some(1));
    }
}
