//! `spice-migrate`: moves a SpiceDB that is being written to another one, step by step.
//!
//! It runs the programs of the suite with real pipes between them; `--print` shows these commands.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`], [`session`] | the command line; one run of a step |
//! | [`phase`], [`state`], [`store`] | how far a migration is, which step that allows, and how it is kept |
//! | [`lock`], [`folder`] | one process of a step at a time; the folder |
//! | [`commands`], [`process`], [`restart`] | command lines of the suite; programs that run, and run again |
//! | [`ends`], [`compare`], [`records`], [`spool_view`] | what is known of both servers, of records, of the spool |
//! | [`plan`], [`preflight`], [`plan_text`], [`copy`], [`capture`], [`check`], [`follow`], [`resync`] | the steps |
//! | [`verify`], [`schemas`], [`answers`] | both ends compared while they are written |
//! | [`cutover`], [`cutover_compare`], [`drain`], [`leaks`], [`reverse`], [`abort`] | the switch, the way back, abort |
//! | [`status`], [`safety`], [`verify_age`], [`rows`] | the lag of the target, and whether it is safe to cut over |
//! | [`live`], [`screen`] | the same as a live screen |
//! | [`mod@print`], [`print_steps`], [`print_live`] | the steps as commands for bash |

#![forbid(unsafe_code)]

mod abort;
mod answers;
mod capture;
mod check;
mod cli;
mod commands;
mod compare;
mod copy;
mod cutover;
mod cutover_compare;
mod drain;
mod early;
mod ends;
mod folder;
mod follow;
mod leaks;
mod live;
mod lock;
mod part;
pub mod phase;
mod plan;
mod plan_text;
mod preflight;
mod print;
mod print_live;
mod print_steps;
mod process;
mod records;
mod restart;
mod resync;
mod reverse;
mod rows;
pub mod safety;
mod schemas;
mod screen;
mod session;
mod spool_view;
pub mod state;
pub mod status;
pub mod store;
mod suite;
pub mod time;
mod verify;
mod verify_age;
mod words;

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

pub use crate::cli::Migrate;
use crate::cli::Steps;
use crate::phase::Step;
use crate::session::Session;
use crate::store::Store;
use crate::suite::{CommandError, Exit, LogArgs, Outcome, Program, SIGTERM, Shutdown, Stdout};
use crate::words::Words;

/// However long the programs of a step take to end; a second signal ends this one at once, and them.
const GRACE: Duration = Duration::from_secs(24 * 3_600);
/// After Ctrl-C, which the programs get as well: their time before they are asked again.
const INTERRUPTED: Duration = Duration::from_secs(2);
const SIGINT: i32 = 2;

/// How much later a signal may come to this process than to one that it runs.
const SIGNAL_LAG: Duration = Duration::from_millis(100);

impl Program for Migrate {
    const NAME: &'static str = "spice-migrate";
    /// Programs end with the thread that starts them: it is the main one.
    const IS_SINGLE_THREADED: bool = true;

    fn log_args(&self) -> &LogArgs {
        &self.log
    }

    fn stdout(&self) -> Stdout {
        Stdout::Summary
    }

    async fn run(self, shutdown: Shutdown) -> Result<Exit, CommandError> {
        shutdown.grace(GRACE);
        let session = self.session(shutdown)?;
        self.run_step(session).await
    }
}

impl Migrate {
    fn session(&self, shutdown: Shutdown) -> Outcome<Session> {
        let folder = folder::path(&self.state)?;
        let given = (self.state != Path::new(folder::DEFAULT)).then(|| folder.clone());
        let step = self.step.step();
        let words = Words::new(given, self.step.is_on_the_way_back());
        folder::only_ours(&folder, words.same())?;
        let folder = match self.step.is_on_the_way_back() {
            true => folder::reverse(&folder),
            false => folder,
        };
        let mut session = Session::new(Store::new(&folder), step, words, shutdown)?;
        if matches!(self.step, Steps::Reverse(_)) && !self.print {
            // It is the follow of a migration of its own.
            let store = reverse::prepare(&session)?;
            let words = session.words.on_the_way_back();
            session = Session::new(store, Step::Follow, words, session.shutdown)?;
        }
        session.is_quiet = self.log.quiet;
        session.settle_flag = self.step.settle().cloned();
        Ok(session)
    }

    async fn run_step(self, mut session: Session) -> Outcome<Exit> {
        if let Some(text) = self.printed(&session) {
            suite::stdio::print_line(text?.trim_end())?;
            return Ok(Exit::Done);
        }
        if let Steps::Status(status) = &self.step {
            return status::run(&session, status);
        }
        self.begin(&mut session)?;
        let shutdown = session.shutdown.clone();
        let outcome = {
            let step = self.dispatch(&session);
            tokio::select! {
                outcome = step => Some(outcome),
                _ = shutdown.requested() => None,
            }
        };
        // A terminal signals all programs at once: one that was run may have ended of that before it came here.
        let outcome = match outcome {
            Some(Err(failure))
                if failure.exit == Exit::TryAgain
                    && tokio::time::timeout(SIGNAL_LAG, shutdown.requested())
                        .await
                        .is_ok() =>
            {
                tracing::info!("{}", failure.message());
                None
            }
            outcome => outcome,
        };
        match outcome {
            Some(outcome) => outcome.map(|()| Exit::Done),
            None => Ok(stopped(&session, &shutdown).await),
        }
    }

    /// What holds for every step that runs programs.
    fn begin(&self, session: &mut Session) -> Outcome {
        for program in commands::PROGRAMS {
            session.runner.find(program)?;
        }
        if !matches!(self.step, Steps::Plan(_)) {
            session.state()?;
        }
        if let Steps::Plan(plan) = &self.step {
            plan::may_begin(session, plan)?;
            folder::make(session.store.folder())?;
        }
        session.begin()
    }

    async fn dispatch(&self, session: &Session) -> Outcome {
        match &self.step {
            Steps::Plan(flags) => plan::run(session, flags).await,
            Steps::Copy(flags) => copy::run(session, flags).await,
            Steps::Check(_) => check::run(session).await,
            Steps::Follow(flags) | Steps::Reverse(flags) => follow::run(session, flags).await,
            Steps::Verify(flags) => verify::run(session, flags).await,
            Steps::Resync(flags) => resync::run(session, flags).await,
            Steps::Cutover(flags) => cutover::run(session, flags).await,
            Steps::Abort(_) => abort::run(session).await,
            Steps::Status(_) => Ok(()),
        }
    }
}

/// Ends the programs, keeps the state, and ends as the signal asks.
async fn stopped(session: &Session, shutdown: &Shutdown) -> Exit {
    let number = shutdown.requested().await;
    let is_patient = tokio::select! {
        biased;
        _ = shutdown.in_a_hurry() => false,
        () = std::future::ready(()) => true,
    };
    let runs_for_long = matches!(session.step, Step::Follow);
    if session.runner.has_live() {
        tracing::info!(
            "stopping: what is under way has less than a second to end (a second signal cuts it)"
        );
        // A step that takes over has the time to let a call under way end: one that is dropped may be
        // applied late, and whoever continues has to wait 30 s for that.
        let signal = match is_patient && runs_for_long {
            true => Signal::USR1,
            false => Signal::TERM,
        };
        if number == SIGINT {
            let ended = tokio::time::timeout(INTERRUPTED, session.runner.all_ended()).await;
            if ended.is_err() {
                session.runner.signal_all(signal);
            }
        } else {
            session.runner.signal_all(signal);
        }
        if is_patient {
            tokio::select! {
                () = session.runner.all_ended() => {}
                _ = shutdown.in_a_hurry() => session.runner.signal_all(Signal::TERM),
            }
        }
        session.runner.all_ended().await;
    }
    let why = session.asked_why();
    if let Some(why) = &why {
        tracing::info!("{}", why.trim_end());
    }
    // These two are meant to be stopped; what others were to prove or to switch, they have not.
    if is_patient && runs_for_long {
        return Exit::Done;
    }
    if why.is_none() {
        say_stopped(session, number);
    }
    Exit::Signal(number)
}

fn say_stopped(session: &Session, number: i32) {
    let name = match number {
        1 => "SIGHUP".to_owned(),
        SIGINT => "SIGINT".to_owned(),
        SIGTERM => "SIGTERM".to_owned(),
        _ => format!("signal {number}"),
    };
    let same = session.words.same();
    let state = session.known();
    let fenced = state
        .as_ref()
        .filter(|state| state.phase.fenced_at().is_some());
    match fenced {
        Some(state) if session.step == Step::Cutover => {
            let source = &state.source.context;
            tracing::info!(
                "stopped by {name} behind the fence: writes to {source} are STILL STOPPED, and nothing is switched"
            );
            tracing::info!("hint: to resume, run: {same}");
            tracing::info!(
                "hint: to give up: {}; then lift the fence",
                session.words.step("abort")
            );
        }
        _ => {
            tracing::info!("stopped by {name}; nothing is lost");
            tracing::info!("hint: to resume, run: {same}");
        }
    }
}
