//! The life of a program, written once: every `main` is one call of [`main`].

use std::future::Future;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::exit::{Exit, Failure};
use crate::log::{self, LogArgs};
use crate::shutdown::Shutdown;

/// A program of the suite.
pub trait Program: clap::Parser {
    /// What it is called, also in messages.
    const NAME: &'static str;

    /// The flags about messages.
    fn log_args(&self) -> &LogArgs;

    /// Does the work. Data goes to stdout, events to `tracing`.
    fn run(self, shutdown: Shutdown) -> impl Future<Output = Result<Exit, Failure>>;
}

/// Runs a program to its end: parses the flags, listens for signals, prints the failure, and dies of
/// a signal where a signal was the reason.
#[must_use]
pub fn main<P: Program>() -> ExitCode {
    let program = match P::try_parse() {
        Ok(program) => program,
        Err(error) => {
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) {
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            // In a pipe it must be seen which program does not understand its flags.
            log::init(P::NAME, &LogArgs::of_command_line());
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            Failure::usage(text.trim_end()).report();
            return Exit::Usage.code();
        }
    };
    log::init(P::NAME, program.log_args());
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot start: {error}")))
        .and_then(|runtime| {
            let outcome = runtime.block_on(async {
                let shutdown = Shutdown::listen()
                    .map_err(|error| Failure::new(Exit::Failed, format!("signals: {error}")))?;
                program.run(shutdown).await
            });
            // A thread may be blocked in a read of stdin, which nothing can interrupt.
            runtime.shutdown_background();
            outcome
        });
    let exit = outcome.unwrap_or_else(|failure| {
        failure.report();
        failure.exit
    });
    if let Exit::Signal(number) = exit {
        let _ = signal_hook::low_level::emulate_default_handler(number);
    }
    exit.code()
}
