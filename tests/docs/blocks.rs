//! The code blocks of a Markdown page, and the comments that say how a test runs them.
//!
//! All code is fenced and has a language. `sh` is run as written, `console` holds `$ command` lines with
//! their output, everything else is not run. An HTML comment before a fence changes that:
//!
//! | comment | the next block |
//! |---|---|
//! | `<!-- test: exit N -->` | ends with this code |
//! | `<!-- test: input TEXT -->` | gets this line on stdin |
//! | `<!-- test: background -->` | keeps running until `stop` or the end of the page |
//! | `<!-- test: skip REASON -->` | is not run |
//! | `<!-- test: run by FILE -->` | and all others of the page are run by another test, which names the page |
//!
//! A comment whose first line is `<!-- test` is a block that readers do not see.

/// The languages of blocks that are not run.
const QUIET: [&str; 8] = [
    "text", "json", "toml", "yaml", "ini", "crontab", "words", "rust",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `sh`.
    Shell,
    /// `console`.
    Console,
    /// In a comment.
    Hidden,
}

/// How a block is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct How {
    pub(super) exit: u8,
    pub(super) input: Option<String>,
    pub(super) background: bool,
    /// The reason why not.
    pub(super) skip: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Of its first line, counted from 1.
    pub(super) line: usize,
    pub(super) kind: Kind,
    pub(super) text: String,
    pub(super) how: How,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) blocks: Vec<Block>,
    /// The file of another test that runs all blocks.
    pub(super) run_by: Option<String>,
}

/// What the lines that are read belong to.
enum Within {
    Prose,
    /// The mark that ends the fence, its indentation, and the block; none is kept of quiet languages.
    Fence(&'static str, usize, Option<Block>),
    Comment(Block),
}

/// Reads the blocks of a page. Returns the lines that are not as they should be, with what is wrong.
pub(super) fn parse(text: &str) -> Result<Page, Vec<String>> {
    let mut page = Page::default();
    let mut wrong = Vec::new();
    let mut within = Within::Prose;
    let mut how: Option<How> = None;
    let mut after_blank = true;
    let mut in_list = false;
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim_start();
        within = match within {
            Within::Fence(mark, indent, block) => {
                if trimmed.trim_end() == mark {
                    page.blocks.extend(block);
                    Within::Prose
                } else {
                    Within::Fence(
                        mark,
                        indent,
                        block.map(|block| with_line(block, outdent(line, indent))),
                    )
                }
            }
            Within::Comment(block) => {
                if trimmed.trim_end() == "-->" {
                    page.blocks.push(block);
                    Within::Prose
                } else {
                    Within::Comment(with_line(block, line))
                }
            }
            Within::Prose => {
                let blank = after_blank;
                after_blank = trimmed.is_empty();
                if let Some(mark) = ["```", "~~~"]
                    .into_iter()
                    .find(|mark| trimmed.starts_with(mark))
                {
                    let language = trimmed[mark.len()..].trim();
                    let kind = match language {
                        "sh" => Some(Kind::Shell),
                        "console" => Some(Kind::Console),
                        _ => None,
                    };
                    if kind.is_none() && !QUIET.contains(&language) {
                        wrong.push(format!("{number}: a fence of the language '{language}'"));
                    }
                    if kind.is_none() && how.is_some() {
                        wrong.push(format!("{number}: nothing of this block is run"));
                    }
                    let how = how.take().unwrap_or_default();
                    let block = kind.map(|kind| Block {
                        line: number + 1,
                        kind,
                        text: String::new(),
                        how,
                    });
                    Within::Fence(mark, line.len() - trimmed.len(), block)
                } else if trimmed.trim_end() == "<!-- test" {
                    let how = how.take().unwrap_or_default();
                    Within::Comment(Block {
                        line: number + 1,
                        kind: Kind::Hidden,
                        text: String::new(),
                        how,
                    })
                } else if let Some(rest) = trimmed.strip_prefix("<!-- test: ") {
                    let directive = rest.trim_end().strip_suffix("-->").map(str::trim);
                    let next = how.get_or_insert_with(How::default);
                    match directive.and_then(|directive| directive.strip_prefix("run by ")) {
                        Some(file) => {
                            page.run_by = Some(file.to_owned());
                            how = None;
                        }
                        None if directive.is_some_and(|directive| next.take(directive)) => {}
                        None => {
                            wrong.push(format!("{number}: not a direction to a test: {trimmed}"));
                        }
                    }
                    Within::Prose
                } else {
                    if blank && !in_list && line.starts_with("    ") && !trimmed.is_empty() {
                        wrong.push(format!("{number}: code without a fence and a language"));
                    }
                    if !trimmed.is_empty() {
                        in_list = is_item(trimmed) || (in_list && line.starts_with(' '));
                        if how.take().is_some() {
                            wrong.push(format!("{number}: no block follows the comment"));
                        }
                    }
                    Within::Prose
                }
            }
        };
    }
    if !matches!(within, Within::Prose) {
        wrong.push("the last block has no end".to_owned());
    }
    if wrong.is_empty() {
        Ok(page)
    } else {
        Err(wrong)
    }
}

impl How {
    /// Adds a direction of a comment; whether there is such a one.
    fn take(&mut self, directive: &str) -> bool {
        let (word, rest) = directive.split_once(' ').unwrap_or((directive, ""));
        match (word, rest) {
            ("background", "") => self.background = true,
            ("exit", code) if code.parse::<u8>().is_ok() => {
                self.exit = code.parse().unwrap_or_default();
            }
            ("input", text) if !text.is_empty() => self.input = Some(text.to_owned()),
            ("skip", reason) if !reason.is_empty() => self.skip = Some(reason.to_owned()),
            _ => return false,
        }
        true
    }
}

fn with_line(mut block: Block, line: &str) -> Block {
    block.text.push_str(line);
    block.text.push('\n');
    block
}

/// A line of a fence that is indented, in a list for example.
fn outdent(line: &str, indent: usize) -> &str {
    let spaces = line.len() - line.trim_start().len();
    &line[spaces.min(indent)..]
}

fn is_item(line: &str) -> bool {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let rest = &line[digits..];
    match digits {
        0 => ["- ", "* ", "+ "].iter().any(|mark| rest.starts_with(mark)),
        _ => rest.starts_with(". ") || rest.starts_with(") "),
    }
}

/// A command of a `console` block and the lines that it prints.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) command: String,
    pub(super) output: Vec<String>,
}

/// The commands of a `console` block. `> ` continues a command.
pub(super) fn shown(block: &Block) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    for line in block.text.lines() {
        match (
            line.strip_prefix("$ "),
            line.strip_prefix("> "),
            all.last_mut(),
        ) {
            (Some(command), _, _) => all.push(Shown {
                command: format!("{command}\n"),
                output: Vec::new(),
            }),
            (_, Some(rest), Some(last)) if last.output.is_empty() => {
                last.command.push_str(rest);
                last.command.push('\n');
            }
            (_, _, Some(last)) => last.output.push(line.to_owned()),
            (_, _, None) => all.push(Shown {
                command: String::new(),
                output: vec![line.to_owned()],
            }),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str) -> Vec<(usize, Kind, String)> {
        let page = parse(text).unwrap();
        page.blocks
            .into_iter()
            .map(|block| (block.line, block.kind, block.text))
            .collect()
    }

    #[test]
    fn fences_are_found_by_their_language() {
        let text = "Text\n\n```sh\na\n  b\n```\n\n```json\n{}\n```\n\n```console\n$ c\nd\n```\n";
        let expected = [
            (4, Kind::Shell, "a\n  b\n".to_owned()),
            (13, Kind::Console, "$ c\nd\n".to_owned()),
        ];
        assert_eq!(blocks(text), expected);
    }

    #[test]
    fn fence_in_a_list_is_outdented() {
        assert_eq!(
            blocks("1. one\n\n   ```sh\n   a\n     b\n   ```\n"),
            [(4, Kind::Shell, "a\n  b\n".to_owned())]
        );
    }

    #[test]
    fn hidden_block_is_between_the_lines_of_a_comment() {
        assert_eq!(
            blocks("<!-- test\na\n```\n-->\n"),
            [(2, Kind::Hidden, "a\n```\n".to_owned())]
        );
    }

    #[test]
    fn comments_direct_the_next_block_only() {
        let text =
            "<!-- test: exit 3 -->\n<!-- test: input yes -->\n\n```sh\na\n```\n\n```sh\nb\n```\n";
        let page = parse(text).unwrap();
        let how = How {
            exit: 3,
            input: Some("yes".to_owned()),
            ..How::default()
        };
        assert_eq!(
            [&page.blocks[0].how, &page.blocks[1].how],
            [&how, &How::default()]
        );
        assert!(
            parse("<!-- test: background -->\n```sh\na\n```\n")
                .unwrap()
                .blocks[0]
                .how
                .background
        );
        let skipped = parse("<!-- test: skip needs a cluster -->\n```sh\na\n```\n").unwrap();
        assert_eq!(
            skipped.blocks[0].how.skip.as_deref(),
            Some("needs a cluster")
        );
        let page = parse("<!-- test: run by tests/kafka.rs -->\n\nText\n").unwrap();
        assert_eq!(page.run_by.as_deref(), Some("tests/kafka.rs"));
    }

    #[test]
    fn what_would_not_be_run_by_mistake_is_named_by_line() {
        for (text, line) in [
            ("Text\n\n```\na\n```\n", "3:"),
            ("```bash\na\n```\n", "1:"),
            ("Text\n\n    spice-export\n", "3:"),
            ("<!-- test: exit x -->\n```sh\na\n```\n", "1:"),
            ("<!-- test: never -->\n```sh\na\n```\n", "1:"),
            ("<!-- test: skip -->\n```sh\na\n```\n", "1:"),
            ("<!-- test: exit 1 -->\nText\n", "2:"),
            ("<!-- test: exit 1 -->\n```text\na\n```\n", "2:"),
            ("```sh\na\n", "the last"),
            ("<!-- test\na\n", "the last"),
        ] {
            let wrong = parse(text).unwrap_err();
            assert!(wrong[0].starts_with(line), "{text:?}: {wrong:?}");
        }
        parse("- item\n\n    more of it\n").unwrap();
        parse("a\n    b\n").unwrap();
    }

    #[test]
    fn console_block_holds_commands_and_their_output() {
        let page = parse("```console\n$ a |\n>   b\nc\n\nd\n$ e\n```\n").unwrap();
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let expected = [
            Shown {
                command: "a |\n  b\n".to_owned(),
                output: lines(&["c", "", "d"]),
            },
            Shown {
                command: "e\n".to_owned(),
                output: Vec::new(),
            },
        ];
        assert_eq!(shown(&page.blocks[0]), expected);
    }
}
