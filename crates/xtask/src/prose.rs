//! The rules of docs/style.md that a program can check: the width of lines, and refused words.
//!
//! Markdown has at most 80 columns a line; tables, code, and lines with only a link are exempt. An
//! example in a help page has at most 76, so that clap never wraps it and it can be pasted. The
//! refused words are listed in docs/style.md; they are refused in comments and texts of Rust code as
//! well. Every path in CONTRIBUTING.md must exist, and every link of a page lead to a file and a heading.

mod help;
mod links;
mod markdown;
mod paths;
mod rust;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use words::Words;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fail where a line breaks a rule, instead of only listing these lines
    #[arg(long)]
    check: bool,
    /// The folder of the repository
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    root: PathBuf,
}

/// A line that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// Counted from 1.
    line: usize,
    what: String,
}

impl Finding {
    fn new(line: usize, what: impl Into<String>) -> Self {
        Self {
            line,
            what: what.into(),
        }
    }

    /// A line of `columns` characters where at most `limit` are allowed; nothing if it fits.
    fn width(line: usize, text: &str, limit: usize) -> Option<Self> {
        let columns = text.chars().count();
        (columns > limit).then(|| Self::new(line, format!("{columns} columns, at most {limit}")))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let style = args.root.join("docs/style.md");
    let words = Words::parse(&read(&style)?)
        .with_context(|| format!("the list of words in {}", style.display()))?;
    let pages = report(&files(&args.root, "md")?, |path, text| {
        let mut found = markdown::check(text, &words);
        found.extend(links::check(path, text));
        found
    })?;
    let help = report(&files(&args.root.join("docs/help"), "txt")?, |_, text| {
        help::check(text, &words)
    })?;
    let paths = report(&[args.root.join("CONTRIBUTING.md")], |_, text| {
        paths::check(text, &args.root)
    })?;
    let mut sources = files(&args.root.join("crates"), "rs")?;
    sources.extend(files(&args.root.join("tests"), "rs")?);
    // Generated from the API's messages, and lists of refused words.
    sources.retain(|path| {
        let is = |part: &str| path.iter().any(|found| found == part);
        !is("generated") && !is("prose")
    });
    let code = report(&sources, |_, text| rust::check(text, &words))?;
    let found = pages + help + paths + code;
    if args.check && found > 0 {
        bail!("prose breaks the rules of docs/style.md, or names missing files, {found} times");
    }
    Ok(())
}

/// Prints the findings of each file, and returns how many there are.
fn report(paths: &[PathBuf], check: impl Fn(&Path, &str) -> Vec<Finding>) -> Result<usize> {
    let mut out = io::stdout().lock();
    let mut count = 0;
    for path in paths {
        for finding in check(path, &read(path)?) {
            let path = path.strip_prefix(".").unwrap_or(path);
            writeln!(out, "{}:{finding}", path.display())?;
            count += 1;
        }
    }
    Ok(count)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The files with this extension below a folder, sorted; without build output and hidden folders.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            found.extend(files(&path, extension)?);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
