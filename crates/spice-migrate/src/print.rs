//! The steps as commands for bash: what `--print` prints instead of running them.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use crate::Migrate;
use crate::cli::Steps;
use crate::commands::Command;
use crate::print_steps::Script;
use crate::session::Session;
use crate::status;
use crate::suite::{CommandError, Outcome, quoted};

/// Encloses the name of a shell variable in an argument.
const MARKS: [u8; 2] = [0x01, 0x02];

/// A shell variable in an argument of a command that is printed.
pub(crate) fn variable(name: &str) -> String {
    format!("{}{name}{}", char::from(MARKS[0]), char::from(MARKS[1]))
}

/// A word in which variables are expanded and nothing else is.
fn word(argument: &OsStr) -> String {
    let mut out = String::new();
    let mut rest = argument.as_bytes();
    let find = |bytes: &[u8], mark: u8| bytes.iter().position(|byte| *byte == mark);
    while let Some(start) = find(rest, MARKS[0])
        && let Some(end) = find(rest, MARKS[1])
    {
        let (literal, name) = (&rest[..start], &rest[start + 1..end]);
        if !literal.is_empty() {
            out += &quoted(OsStr::from_bytes(literal));
        }
        out += &format!("\"${}\"", String::from_utf8_lossy(name));
        rest = &rest[end + 1..];
    }
    if !rest.is_empty() || out.is_empty() {
        out += &quoted(std::ffi::OsString::from_vec(rest.to_vec()));
    }
    out
}

/// A command on lines of at most 76 columns, where its words allow that.
pub(crate) fn command(command: &Command, indent: usize) -> String {
    const WIDTH: usize = 76;
    let mut out = command.program.to_owned();
    let mut column = indent + out.len();
    for argument in &command.arguments {
        let word = word(argument);
        // A space, the word, a space and the backslash.
        if column + word.len() + 3 > WIDTH {
            out += &format!(" \\\n{:1$}", "", indent + 2);
            column = indent + 2;
        } else {
            out.push(' ');
            column += 1;
        }
        column += word.len();
        out += &word;
    }
    out
}

/// A path.
pub(crate) fn path(path: &Path) -> String {
    quoted(path)
}

impl Migrate {
    /// The commands of this step, if they are asked for.
    pub(crate) fn printed(&self, session: &Session) -> Option<Outcome<String>> {
        self.print.then(|| {
            let script = Script::new(session, &self.step)?;
            // Commands that would undo an ordered switch are not printed either.
            if let Some(state) = session.known()
                && let Some(switch) = state.phase.switch()
            {
                match self.step {
                    Steps::Plan(_) | Steps::Status(_) | Steps::Abort(_) => {}
                    // A run only compares again; the commands would drain and switch again.
                    Steps::Cutover(_) => {
                        let message = format!("the switch was ordered {switch}");
                        let hint = status::way_back(session, &state);
                        return Err(CommandError::usage(message).hint(hint));
                    }
                    _ => session.allowed()?,
                }
            }
            Ok(script.text(&self.step))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{command, variable};
    use crate::commands::{self, At};

    #[test]
    fn variables_are_expanded_and_nothing_else_is() {
        let revision = variable("revision");
        let export = commands::export("it's $HOME", At::Revision(&revision), "us", None, None);
        assert_eq!(
            command(&export, 0),
            "spice-export '--context=it'\\''s $HOME' --at=\"$revision\" \\\n  --expiry-precision=us"
        );
    }

    #[test]
    fn lines_are_at_most_76_columns() {
        let context = "a".repeat(30);
        let export = commands::export(&context, At::Settled(Some("35s")), "us", Some(4), None);
        assert!(command(&export, 4).lines().all(|line| line.len() <= 76));
    }
}
