//! One run of a step: its folder, its state, its lock, and how it is spoken of.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lock::{self, AtWork, NotTaken};
use crate::phase::{Phase, Procedure, Refusal, Step, allows, next_step};
use crate::process::{Ended, Runner};
use crate::state::State;
use crate::store::Store;
use crate::suite::{CommandError, Exit, Outcome, Shutdown, Spool, also_to};
use crate::time::{Instant, Span};
use crate::words::Words;

/// How long another step may take to end that was asked to.
const STOPPING: Duration = Duration::from_secs(30);

/// A run of a step.
pub(crate) struct Session {
    pub(crate) store: Store,
    pub(crate) step: Step,
    pub(crate) runner: Runner,
    pub(crate) words: Words,
    pub(crate) shutdown: Shutdown,
    pub(crate) settle_flag: Option<Span>,
    /// Only warnings are shown.
    pub(crate) is_quiet: bool,
    state: RefCell<Option<State>>,
    work: RefCell<Option<tempfile::TempDir>>,
    held: RefCell<Option<lock::Held>>,
}

impl Session {
    pub(crate) fn new(store: Store, step: Step, words: Words, shutdown: Shutdown) -> Outcome<Self> {
        let state = store.load()?;
        Ok(Self {
            store,
            step,
            runner: Runner::new(),
            words,
            shutdown,
            settle_flag: None,
            is_quiet: false,
            state: RefCell::new(state),
            work: RefCell::new(None),
            held: RefCell::new(None),
        })
    }

    /// Takes the step's lock, and from now on keeps its messages in its log.
    pub(crate) fn begin(&mut self) -> Outcome {
        let (folder, step) = (self.store.folder().to_owned(), self.step);
        let held = match lock::take(&folder, step) {
            Ok(held) => held,
            Err(NotTaken::AtWork(at_work)) => return Err(self.is_at_work(step, at_work)),
            Err(NotTaken::Failed(error)) => {
                let message = format!(
                    "cannot lock {} in {}: {error}",
                    step.name(),
                    folder.display()
                );
                let hint = "free space there, or give a folder on a local disk that you can write with --state";
                return Err(CommandError::new(Exit::Failed, message).hint(hint));
            }
        };
        let _ = std::fs::remove_file(self.stop_file(step));
        crate::folder::clear_work(&folder, step.name());
        if let Ok(lock) = held.for_program() {
            self.runner.lock_with(lock);
        }
        self.held.replace(Some(held));
        // Another step may have changed it until now.
        self.state.replace(self.store.load()?);
        self.log(&folder)?;
        Ok(())
    }

    fn log(&mut self, folder: &Path) -> Outcome {
        let path = folder.join(format!("{}.log", self.step.name()));
        let open = || {
            let mut log = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&path)?;
            writeln!(log, "== {} {}", Instant::now(), self.words.same())?;
            Ok((log.try_clone()?, log))
        };
        let (log, copy) = open().map_err(|error: std::io::Error| {
            let message = format!("cannot write {}: {error}", path.display());
            CommandError::new(Exit::Failed, message).hint(format!(
                "free space on that disk; then run: {}",
                self.words.same()
            ))
        })?;
        self.runner.log_to(log);
        also_to(copy);
        Ok(())
    }

    /// The state, of a migration that was planned.
    pub(crate) fn state(&self) -> Outcome<State> {
        self.state
            .borrow()
            .clone()
            .ok_or_else(|| self.words.no_plan(self.store.folder()))
    }

    /// The state as it is now: other steps change it.
    pub(crate) fn reload(&self) -> Outcome<State> {
        self.state.replace(self.store.load()?);
        self.state()
    }

    /// The state, if there is one.
    pub(crate) fn known(&self) -> Option<State> {
        self.state.borrow().clone()
    }

    /// Changes the state, durably.
    pub(crate) fn update(&self, change: impl FnOnce(&mut State)) -> Outcome {
        let state = self.store.update(change)?;
        self.state.replace(Some(state));
        Ok(())
    }

    /// Keeps a first state.
    pub(crate) fn keep(&self, state: State) -> Outcome {
        let state = self.store.save(state)?;
        self.state.replace(Some(state));
        Ok(())
    }

    pub(crate) fn set_phase(&self, phase: Phase) -> Outcome {
        self.update(|state| state.phase = phase)
    }

    /// A file of the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.store.file(name)
    }

    pub(crate) fn spool(&self) -> Spool {
        Spool::new(&self.spool_file())
    }

    pub(crate) fn spool_file(&self) -> PathBuf {
        self.file("changes.ndjson")
    }

    pub(crate) fn position_file(&self) -> PathBuf {
        self.file("position")
    }

    pub(crate) fn applied_file(&self) -> PathBuf {
        self.file("applied.ndjson")
    }

    /// The pipe through which changes come before they have settled.
    pub(crate) fn early_file(&self) -> PathBuf {
        self.file("early")
    }

    /// A file that is removed when this run ends.
    pub(crate) fn temporary(&self, name: &str) -> Outcome<PathBuf> {
        let mut work = self.work.borrow_mut();
        let folder = match work.take() {
            Some(folder) => folder,
            None => crate::folder::work(self.store.folder(), self.step.name())?,
        };
        let path = folder.path().join(name);
        *work = Some(folder);
        Ok(path)
    }

    /// Opens a file of records for appending.
    pub(crate) fn append(&self, path: &Path) -> Outcome<File> {
        let mut options = OpenOptions::new();
        let opened = options.create(true).append(true).mode(0o600).open(path);
        opened.map_err(|error| self.cannot_write(path, &error))
    }

    pub(crate) fn cannot_write(&self, path: &Path, error: &std::io::Error) -> CommandError {
        let message = format!("cannot write {}: {error}", path.display());
        let hint = format!("free space on that disk; then run: {}", self.words.same());
        CommandError::new(Exit::Failed, message).hint(hint)
    }

    /// The settle time: this run's flag, else what was planned.
    pub(crate) fn settle(&self) -> Outcome<Option<Span>> {
        match &self.settle_flag {
            Some(settle) => Ok(Some(settle.clone())),
            None => Ok(self.state()?.settle),
        }
    }

    /// Refuses to continue while one of these is at work.
    pub(crate) fn alone(&self, steps: &[Step]) -> Outcome {
        for step in steps {
            if let Some(at_work) = lock::at_work(self.store.folder(), *step) {
                return Err(self.is_at_work(*step, at_work));
            }
        }
        Ok(())
    }

    fn is_at_work(&self, step: Step, at_work: AtWork) -> CommandError {
        let (name, same) = (step.name(), self.words.same());
        match at_work {
            AtWork::Step(Some(pid)) => CommandError::new(
                Exit::TryAgain,
                format!("{name} of this migration is still at work: process {pid}"),
            )
            .hint(format!(
                "wait for its end, or stop it with: kill {pid}; then run: {same}"
            )),
            AtWork::Step(None) => CommandError::new(
                Exit::TryAgain,
                format!("{name} of this migration is still at work"),
            )
            .hint(format!("wait for its end; then run: {same}")),
            AtWork::Orphans => CommandError::new(
                Exit::TryAgain,
                format!("programs of {name}, which was killed, are still at work"),
            )
            .hint(format!("they end by themselves; then run: {same}")),
        }
    }

    /// Ends a step politely, which its own message then explains, and waits for its end.
    pub(crate) async fn stop_step(&self, store: &Store, step: Step, why: &str) -> Outcome {
        if lock::at_work(store.folder(), step).is_none() {
            return Ok(());
        }
        let file = stop_file(store, step);
        let _ = std::fs::write(&file, why);
        let stopped = lock::stop(store.folder(), step, STOPPING).await;
        let _ = std::fs::remove_file(file);
        stopped.map(drop).map_err(|pid| {
            let name = step.name();
            let process = pid.map_or(String::new(), |pid| format!(" (process {pid})"));
            CommandError::new(
                Exit::TryAgain,
                format!(
                    "{name}{process} does not end: it was asked to {} s ago",
                    STOPPING.as_secs()
                ),
            )
            .hint(format!(
                "look at {}; when it has ended, run: {}",
                store.file(&format!("{name}.log")).display(),
                self.words.same()
            ))
        })
    }

    fn stop_file(&self, step: Step) -> PathBuf {
        stop_file(&self.store, step)
    }

    /// Why another step asked this one to end, if one did.
    pub(crate) fn asked_why(&self) -> Option<String> {
        std::fs::read_to_string(self.stop_file(self.step)).ok()
    }

    /// Whether the state allows this step.
    pub(crate) fn allowed(&self) -> Outcome {
        let state = self.state()?;
        allows(state.procedure, &state.phase, self.step).map_err(|why| self.refused(&state, why))
    }

    /// Forgets the fence: it is lifted, or does not hold.
    pub(crate) fn unfence(&self) -> Outcome {
        self.update(|state| state.phase = state.phase.clone().unfenced())
    }

    fn refused(&self, state: &State, why: Refusal) -> CommandError {
        let words = &self.words;
        let (source, target) = (&state.source.context, &state.target.context);
        let switched = state
            .phase
            .switch()
            .map(ToString::to_string)
            .unwrap_or_default();
        match why {
            Refusal::NothingCopied => CommandError::usage("nothing has been copied")
                .hint(format!("run: {}", words.step("copy"))),
            Refusal::CopyUnfinished => {
                CommandError::usage(format!("the copy is not finished: {}", state.phase))
                    .hint(format!("run: {}", words.step("copy")))
            }
            Refusal::ResyncUnfinished => CommandError::usage(format!(
                "a resync is not finished: {target} lies between what it was and {source}"
            ))
            .hint(format!("run: {}", words.step("resync"))),
            Refusal::SwitchNotOrdered => CommandError::usage(format!(
                "the switch was not ordered: what is on {target} comes from {source}"
            ))
            .hint(format!(
                "run: {}",
                words.step(next_step(state.procedure, &state.phase).name())
            )),
            Refusal::SwitchOrdered => {
                let reason = match self.step {
                    Step::Copy { .. } => {
                        "; a new copy would bring back what was deleted there since"
                    }
                    Step::Resync => "; a resync would take back what was written there since",
                    _ => "",
                };
                let message = format!("the switch to {target} was ordered {switched}{reason}");
                CommandError::usage(message)
                    .hint(format!(
                        "what is written to {target} comes back to {source} with: {}",
                        words.step("reverse")
                    ))
                    .also("for another migration, plan with another --state")
            }
            Refusal::IsFenced => CommandError::usage(
                "this migration was planned with --fenced: nothing is captured",
            )
            .hint(
                "copy and check are its steps; for the live procedure plan again, with another \
                 --state",
            ),
            Refusal::IsLive => CommandError::usage(format!(
                "check compares both ends as they are now, and {source} is being written: they \
                 always differ"
            ))
            .hint(format!(
                "how far {target} is: {}. cutover compares them",
                words.step("status")
            )),
        }
    }

    /// Fails because a program did, which has printed why.
    pub(crate) fn failed(&self, program: &str, ended: Ended, what: &str) -> CommandError {
        let same = self.words.same();
        let (exit, ended, hint) = match ended {
            Ended::Signal(number) => (
                Exit::TryAgain,
                format!("{program} was killed by signal {number}"),
                format!("run: {same}"),
            ),
            Ended::Code(code) => {
                let (exit, hint) = match code {
                    2 => (
                        Exit::Usage,
                        format!("correct what {program} prints above; then run: {same}"),
                    ),
                    3 => (
                        Exit::Partial,
                        format!("see what {program} prints above; then run: {same}"),
                    ),
                    4 => (
                        Exit::HistoryLost,
                        format!(
                            "let the server keep its history for longer (--datastore-gc-window of \
                             SpiceDB); then run: {same}"
                        ),
                    ),
                    65 => (
                        Exit::BadData,
                        format!(
                            "the message above names what is damaged; if that is {} or {}, a \
                             resync begins a new one: {}; then: {}",
                            self.spool_file().display(),
                            self.position_file().display(),
                            self.words.step("resync"),
                            self.words.step("follow"),
                        ),
                    ),
                    75 => (
                        Exit::TryAgain,
                        format!("when the server answers, run: {same}"),
                    ),
                    77 => (
                        Exit::Denied,
                        format!(
                            "correct what {program} prints above: token, TLS or permission; then run: {same}"
                        ),
                    ),
                    _ => (
                        Exit::Failed,
                        format!("see what {program} prints above; then run: {same}"),
                    ),
                };
                (exit, format!("{program} ended with {code}"), hint)
            }
        };
        CommandError::new(exit, format!("{what}: {ended}")).hint(hint)
    }

    /// Whether writes are stopped while applications run on.
    pub(crate) fn is_live(&self) -> bool {
        self.known()
            .is_none_or(|state| state.procedure == Procedure::Live)
    }
}

fn stop_file(store: &Store, step: Step) -> PathBuf {
    store.file(&format!("{}.stop", step.name()))
}
