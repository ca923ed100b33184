//! Man pages, completions and the help texts, from the programs' own definitions.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write man pages and completions here: man1/, bash/, zsh/ and fish/ are made in it
    folder: Option<PathBuf>,
    /// Write each program's help to NAME.txt in this folder
    #[arg(long, value_name = "FOLDER")]
    help_to: Option<PathBuf>,
    /// Change nothing; fail where the help texts are not the programs'
    #[arg(long, requires = "help_to")]
    check: bool,
}

/// Every program of the suite.
fn programs() -> [Command; 12] {
    [
        spice_export::Export::command(),
        spice_import::Import::command(),
        spice_revision::Revision::command(),
        spice_watch::Watch::command(),
        spice_apply::Apply::command(),
        spice_digest::Digest::command(),
        spice_diff::Diff::command(),
        spice_convert::Convert::command(),
        spice_map::Map::command(),
        spice_check::Check::command(),
        spice_preflight::Preflight::command(),
        spice_migrate::Migrate::command(),
    ]
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(folder) = &args.help_to {
        help(folder, args.check)?;
    }
    if let Some(folder) = &args.folder {
        pages(folder)?;
    }
    Ok(())
}

/// The help texts are checked in, so that a change of the interface shows in a review.
fn help(folder: &Path, check: bool) -> Result<()> {
    fs::create_dir_all(folder)?;
    for program in programs() {
        let path = folder.join(format!("{}.txt", program.get_name()));
        let text = help_of(program);
        if !check {
            fs::write(&path, text)?;
        } else if fs::read_to_string(&path).unwrap_or_default() != text {
            let (path, folder) = (path.display(), folder.display());
            bail!("{path} is out of date: cargo run -p xtask -- pages --help-to {folder}");
        }
    }
    Ok(())
}

/// The help of a program, and of each of its steps.
fn help_of(program: Command) -> String {
    let mut program = program.term_width(100);
    program.build();
    let mut text = program.render_long_help().to_string();
    for step in program.get_subcommands_mut() {
        text += &format!("\n{}\n", step.render_long_help());
    }
    text
}

fn pages(folder: &Path) -> Result<()> {
    for (shell_folder, shell) in [
        ("bash", Shell::Bash),
        ("zsh", Shell::Zsh),
        ("fish", Shell::Fish),
    ] {
        let shell_folder = folder.join(shell_folder);
        fs::create_dir_all(&shell_folder)?;
        for mut program in programs() {
            let name = program.get_name().to_owned();
            clap_complete::generate_to(shell, &mut program, name, &shell_folder)?;
        }
    }
    let man = folder.join("man1");
    fs::create_dir_all(&man)?;
    for program in programs() {
        clap_mangen::Man::new(program).generate_to(&man)?;
    }
    Ok(())
}
