//! Man pages and completions.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder to write to: man1/, bash/, zsh/ and fish/ are made in it
    folder: PathBuf,
}

/// Every program of the suite.
fn programs() -> [Command; 3] {
    [
        spice_export::Export::command(),
        spice_import::Import::command(),
        spice_revision::Revision::command(),
    ]
}

pub(crate) fn run(args: &Args) -> Result<()> {
    for (folder, shell) in [
        ("bash", Shell::Bash),
        ("zsh", Shell::Zsh),
        ("fish", Shell::Fish),
    ] {
        let folder = args.folder.join(folder);
        fs::create_dir_all(&folder)?;
        for mut program in programs() {
            let name = program.get_name().to_owned();
            clap_complete::generate_to(shell, &mut program, name, &folder)?;
        }
    }
    let man = args.folder.join("man1");
    fs::create_dir_all(&man)?;
    for program in programs() {
        clap_mangen::Man::new(program).generate_to(&man)?;
    }
    Ok(())
}
