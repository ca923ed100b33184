//! Man pages, completions and the help texts, from the programs' own definitions.

mod man;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

/// What to write, and where.
#[derive(Debug, clap::Args)]
pub struct Args {
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

/// Writes or checks what the arguments ask for.
pub fn run(args: &Args) -> Result<()> {
    if let Some(folder) = &args.help_to {
        help(folder, args.check)?;
    }
    if let Some(folder) = &args.folder {
        write(folder)?;
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

/// The functions of clap_complete 4.6.11 for bash look for `spice__migrate__subcmd__copy` under
/// `spice__subcmd__migrate__subcmd__copy`, because the program's name has a hyphen: no step completes.
fn with_steps(name: &str, script: &str) -> String {
    let (right, wrong) = (name.replace('-', "__"), name.replace('-', "__subcmd__"));
    script.replace(&format!("{wrong}__subcmd__"), &format!("{right}__subcmd__"))
}

/// Writes man pages and completions: man1/, bash/, zsh/ and fish/ are made in the folder.
pub fn write(folder: &Path) -> Result<()> {
    for (shell_folder, shell) in [
        ("bash", Shell::Bash),
        ("zsh", Shell::Zsh),
        ("fish", Shell::Fish),
    ] {
        let shell_folder = folder.join(shell_folder);
        fs::create_dir_all(&shell_folder)?;
        for mut program in programs() {
            let name = program.get_name().to_owned();
            let file = clap_complete::generate_to(shell, &mut program, &name, &shell_folder)?;
            if shell == Shell::Bash {
                fs::write(&file, with_steps(&name, &fs::read_to_string(&file)?))?;
            }
        }
    }
    let pages = folder.join("man1");
    fs::create_dir_all(&pages)?;
    let all = programs().map(|program| program.get_name().to_owned());
    for program in programs() {
        man::write(program, &all, &pages)?;
    }
    Ok(())
}
