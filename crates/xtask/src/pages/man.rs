//! Man pages: what clap_mangen makes of a program, and what it leaves out: examples, exit codes, other pages.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::Command;
use clap_mangen::Man;
use jiff::Timestamp;
use spice_cli::EXIT_CODES;

/// Writes the page of a program, and of each of its steps. `all` are the names of the suite.
pub(super) fn write(program: Command, all: &[String], folder: &Path) -> Result<()> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let date = date()?;
    for step in program.get_subcommands() {
        let own = [program.get_name().to_owned()];
        page(step, &own, &date, folder)?;
    }
    page(&program, all, &date, folder)
}

/// `$SOURCE_DATE_EPOCH`, in seconds, makes the pages of one commit equal; else today.
fn date() -> Result<String> {
    let now = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => Timestamp::from_second(seconds.parse().context("$SOURCE_DATE_EPOCH")?)?,
        Err(_) => Timestamp::now(),
    };
    Ok(now.strftime("%Y-%m-%d").to_string())
}

fn page(command: &Command, others: &[String], date: &str, folder: &Path) -> Result<()> {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name());
    // The exit codes have a section of their own.
    let man = Man::new(command.clone().after_long_help(None::<&str>))
        .date(date)
        .source(format!("spice-pipes {}", env!("CARGO_PKG_VERSION")))
        .manual("spice-pipes");
    let mut text = Vec::new();
    man.render(&mut text)?;
    let mut text = String::from_utf8(text)?;
    if let Some(examples) = command.get_before_help() {
        let options = text.find("\n.SH OPTIONS\n").context("no options")? + 1;
        text.insert_str(options, &verbatim("EXAMPLES", &examples.to_string()));
    }
    text += ".SH \"EXIT STATUS\"\n";
    for line in EXIT_CODES.lines().skip(1) {
        let (code, meaning) = line.trim().split_once(' ').context("no exit code")?;
        text += &format!(".TP\n\\fB{code}\\fR\n{}\n", escape(meaning.trim()));
    }
    text += ".SH \"SEE ALSO\"\n";
    let others: Vec<String> = others
        .iter()
        .filter(|other| *other != name)
        .map(|other| format!("\\fB{}\\fR(1)", escape(other)))
        .collect();
    text += &(others.join(",\n") + "\n");
    fs::write(folder.join(man.get_filename()), text)?;
    Ok(())
}

/// A section whose lines stay as they are. The first line of `text` is its heading.
fn verbatim(heading: &str, text: &str) -> String {
    let lines = text.trim_end().lines().skip(1);
    let lines: String = lines
        .map(|line| escape(line.strip_prefix("  ").unwrap_or(line)) + "\n")
        .collect();
    format!(".SH {heading}\n.nf\n{lines}.fi\n")
}

/// Text as roff: nothing in it is a command, and hyphens can be pasted.
fn escape(line: &str) -> String {
    let text = line
        .replace('\\', "\\(rs")
        .replace('-', "\\-")
        .replace('\'', "\\(aq");
    if text.starts_with('.') {
        format!("\\&{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Vec<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        let program = super::super::programs()
            .into_iter()
            .find(|program| program.get_name() == name)
            .unwrap();
        write(
            program,
            &["spice-export".into(), "spice-diff".into()],
            folder.path(),
        )
        .unwrap();
        let files = fs::read_dir(folder.path()).unwrap();
        let mut pages: Vec<_> = files
            .map(|file| {
                let file = file.unwrap();
                let text = fs::read_to_string(file.path()).unwrap();
                (file.file_name().into_string().unwrap(), text)
            })
            .collect();
        pages.sort();
        pages
    }

    #[test]
    fn page_has_examples_exit_status_and_others() {
        let pages = of("spice-export");
        let [(name, text)] = &pages[..] else {
            panic!("{pages:?}");
        };
        assert_eq!(name, "spice-export.1");
        assert!(
            text.contains("spice\\-export \\-\\-context old | spice\\-import"),
            "{text}"
        );
        assert!(text.contains("\n\\fB75\\fR\nTry again"), "{text}");
        assert!(
            text.ends_with(".SH \"SEE ALSO\"\n\\fBspice\\-diff\\fR(1)\n"),
            "{text}"
        );
    }

    #[test]
    fn each_step_has_a_page() {
        let names: Vec<String> = of("spice-migrate").into_iter().map(|page| page.0).collect();
        for step in ["copy", "cutover", "plan"] {
            let name = format!("spice-migrate-{step}.1");
            assert!(names.contains(&name), "{name} not in {names:?}");
        }
        assert!(!names.contains(&"spice-migrate-help.1".into()), "{names:?}");
    }

    #[test]
    fn examples_stay_as_they_are() {
        let text = verbatim("EXAMPLES", "Examples:\n  a \\\n    .b 'c'\n  .d\n");
        assert_eq!(
            text,
            ".SH EXAMPLES\n.nf\na \\(rs\n  .b \\(aqc\\(aq\n\\&.d\n.fi\n"
        );
    }
}
