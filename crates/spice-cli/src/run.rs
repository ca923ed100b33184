//! The life of a program, written once: every `main` is one call of [`main`].

use std::future::Future;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::error::CommandError;
use crate::exit::Exit;
use crate::log::{self, LogArgs};
use crate::shutdown::{SIGTERM, Shutdown};
use crate::{cleanup, stdio};

/// What a program's stdout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdout {
    /// Nothing is written there.
    Unused,
    /// A summary at the end: the work is also useful without a reader.
    Summary,
    /// What the program is for: without a reader it ends.
    Data,
}

/// A program of the suite.
pub trait Program: clap::Parser {
    /// What it is called, also in messages.
    const NAME: &'static str;

    /// Whether it answers many small events and computes little: its work is then done on one thread,
    /// so that none has to be woken for another. What may block has a thread of its own all the same.
    const IS_SINGLE_THREADED: bool = false;

    /// The flags about messages.
    fn log_args(&self) -> &LogArgs;

    /// What stdout is for, with these flags.
    fn stdout(&self) -> Stdout {
        Stdout::Data
    }

    /// How it ends of SIGTERM, with these flags.
    fn ends_of_sigterm(&self) -> Exit {
        Exit::Signal(SIGTERM)
    }

    /// Does the work. Data goes to stdout, events to `tracing`.
    fn run(self, shutdown: Shutdown) -> impl Future<Output = Result<Exit, CommandError>>;
}

/// Names the process whose end also ends this program: `spice-migrate` sets it for its children.
pub const PARENT_VARIABLE: &str = "SPICE_PIPES_PARENT";

/// Asks the kernel for SIGTERM when the parent ends, however it ends, if the environment names the
/// parent.
///
/// # Errors
///
/// The parent has ended already.
fn end_with_parent() -> Result<(), CommandError> {
    let named = std::env::var(PARENT_VARIABLE).ok();
    let named = named.and_then(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?));
    let Some(parent) = named else {
        return Ok(());
    };
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    if rustix::process::getppid() == Some(parent) {
        return Ok(());
    }
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(None);
    // A grandchild, that of a token command for example, has another parent.
    match rustix::process::test_kill_process(parent) {
        Err(rustix::io::Errno::SRCH) => Err(CommandError::interrupted(SIGTERM)),
        _ => Ok(()),
    }
}

/// Runs a program to its end: parses the flags, listens for signals, prints the failure, and dies of
/// a signal where a signal was the reason.
#[must_use]
pub fn main<P: Program>() -> ExitCode {
    let program = match P::try_parse() {
        Ok(program) => program,
        Err(error) => {
            // Help is printed as it is: a message would be cut to its length.
            let after_help = match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Some(Exit::Done),
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Some(Exit::Usage),
                _ => None,
            };
            if let Some(exit) = after_help {
                return match error.print().and_then(|()| io::stdout().flush()) {
                    Ok(()) => exit.code(),
                    Err(error) => CommandError::stdout(&error).report().code(),
                };
            }
            // In a pipe it must be seen which program does not understand its flags.
            log::init(P::NAME, &LogArgs::of_command_line());
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            return CommandError::usage(text.trim_end()).report().code();
        }
    };
    log::init(P::NAME, program.log_args());
    let started = end_with_parent().and_then(|()| start(&program));
    let outcome = started.and_then(|(runtime, shutdown)| {
        let outcome = runtime.block_on(program.run(shutdown));
        // A thread may be blocked in a read of stdin, which nothing can interrupt.
        runtime.shutdown_background();
        outcome
    });
    let exit = outcome.unwrap_or_else(|failure| failure.report());
    cleanup::clear();
    if let Exit::Signal(number) = exit {
        let _ = signal_hook::low_level::emulate_default_handler(number);
    }
    exit.code()
}

fn start<P: Program>(program: &P) -> Result<(tokio::runtime::Runtime, Shutdown), CommandError> {
    let failed = |error| CommandError::new(Exit::Failed, format!("cannot start: {error}"));
    let stdout = program.stdout();
    // Signals first: whatever blocks after this can be ended.
    let shutdown = Shutdown::listen(program.ends_of_sigterm(), stdout == Stdout::Data);
    let shutdown = shutdown.map_err(failed)?;
    if stdout != Stdout::Unused && stdio::is_stdout_closed() {
        return Err(
            CommandError::new(Exit::Failed, "cannot write to stdout: it is closed")
                .hint("nothing was done; >/dev/null is how to throw the output away"),
        );
    }
    let mut builder = if P::IS_SINGLE_THREADED {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.enable_all().build().map_err(failed)?;
    Ok((runtime, shutdown))
}
