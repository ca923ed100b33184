//! How this program and its steps are called in hints.

use std::path::{Path, PathBuf};

use crate::folder;
use crate::suite::{CommandError, quoted};

/// The words of this command line.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    program: String,
    state: Option<PathBuf>,
    same: String,
    is_reverse: bool,
}

impl Words {
    /// `state`: the folder, if it is not the default one.
    pub(crate) fn new(state: Option<PathBuf>, is_reverse: bool) -> Self {
        let mut arguments = std::env::args_os();
        let program = arguments.next().unwrap_or_else(|| "spice-migrate".into());
        let program = quoted(program);
        let rest = arguments.map(|argument| format!(" {}", quoted(argument)));
        let same = program.clone() + &rest.collect::<String>();
        Self {
            program,
            state,
            same,
            is_reverse,
        }
    }

    /// The same, of the migration back.
    pub(crate) fn on_the_way_back(&self) -> Self {
        Self {
            is_reverse: true,
            ..self.clone()
        }
    }

    /// The same command again.
    pub(crate) fn same(&self) -> &str {
        &self.same
    }

    /// A step of this migration.
    pub(crate) fn step(&self, step: &str) -> String {
        let name = step.split(' ').next();
        let state = match (self.is_reverse, name) {
            // A switch back has a way back of its own, in a folder of its own.
            (true, Some("reverse")) => {
                let folder = self.state.as_deref();
                Some(folder::reverse(
                    folder.unwrap_or(Path::new(folder::DEFAULT)),
                ))
            }
            _ => self.state.clone(),
        };
        let state = state.map(|state| format!(" --state {}", quoted(state)));
        let step = match (self.is_reverse, name) {
            // It runs the follow of the way back.
            (true, Some("follow")) => "reverse".to_owned(),
            (true, Some("status" | "verify" | "resync" | "cutover" | "abort")) => {
                format!("{step} --reverse")
            }
            _ => step.to_owned(),
        };
        format!("{}{} {step}", self.program, state.unwrap_or_default())
    }

    pub(crate) fn no_plan(&self, folder: &Path) -> CommandError {
        if self.is_reverse {
            return CommandError::usage(format!(
                "there is no plan in {}: the way back has not begun",
                folder.display()
            ))
            .hint(format!("after the switch run: {}", self.step("follow")));
        }
        let plan = self.step("plan --from CONTEXT --to CONTEXT");
        CommandError::usage(format!("there is no plan in {}", folder.display()))
            .hint(format!("run: {plan}"))
    }
}
