//! The programs that a step runs: how they are found, started, waited for and stopped.
//!
//! They are started from the main thread, and ask the kernel for SIGTERM at its end (see
//! [`PARENT_VARIABLE`]): none of them outlives this process, however it ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::sync::oneshot;

use crate::commands::Command;
use crate::suite::{CommandError, Exit, Outcome, PARENT_VARIABLE};

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
}

impl Ended {
    pub(crate) fn is_success(self) -> bool {
        self == Self::Code(0)
    }

    /// The code of a shell.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(number) => 128 + number,
        }
    }

    /// It lost its reader, or was asked to end: another program is the reason.
    pub(crate) fn is_of_another(self) -> bool {
        matches!(self, Self::Signal(13 | 15))
    }
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, number) => Self::Signal(number.unwrap_or(9)),
        }
    }
}

/// What a program reads.
pub(crate) enum Input {
    /// Nothing: its stdin is the lock of the step.
    None,
    /// Another program's output.
    Pipe(std::io::PipeReader),
}

/// Where a program's stdout goes.
pub(crate) enum Output {
    /// Nowhere.
    Null,
    /// Into memory.
    Kept,
    /// To another program.
    Pipe(std::io::PipeWriter),
    /// Into a file.
    File(File),
}

/// A program that runs.
pub(crate) struct Child {
    pub(crate) program: &'static str,
    pid: Pid,
    ended: oneshot::Receiver<Ended>,
    status: Option<Ended>,
    output: Option<JoinHandle<Vec<u8>>>,
    messages: Option<JoinHandle<Vec<u8>>>,
    runner: Live,
}

/// Live programs by process id. One that has ended is on the list until it was reaped, so an id on the
/// list is no other process's.
type Live = Arc<Mutex<BTreeMap<i32, &'static str>>>;

/// Starts programs.
pub(crate) struct Runner {
    folder: Option<PathBuf>,
    path: Vec<PathBuf>,
    log: Option<File>,
    lock: RefCell<Option<File>>,
    live: Live,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runner {
    /// Programs are found beside this one, else on PATH.
    pub(crate) fn new() -> Self {
        let own = std::env::current_exe().ok();
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self {
            folder: own.and_then(|own| Some(own.parent()?.to_owned())),
            path: std::env::split_paths(&path).collect(),
            log: None,
            lock: RefCell::new(None),
            live: Live::default(),
        }
    }

    /// Messages of programs also go here.
    pub(crate) fn log_to(&mut self, log: File) {
        self.log = Some(log);
    }

    /// Programs inherit this lock.
    pub(crate) fn lock_with(&self, lock: File) {
        *self.lock.borrow_mut() = Some(lock);
    }

    /// Where a program is.
    pub(crate) fn find(&self, program: &str) -> Outcome<PathBuf> {
        let folders = self.folder.iter().chain(&self.path);
        let mut files = folders.map(|folder| folder.join(program));
        files.find(|file| is_executable(file)).ok_or_else(|| {
            CommandError::usage(format!(
                "there is no {program} beside this program or on PATH"
            ))
            .hint("install all programs of the suite: make install")
        })
    }

    /// Starts a program of the suite.
    pub(crate) fn spawn(&self, command: &Command, input: Input, output: Output) -> Outcome<Child> {
        let path = self.find(command.program)?;
        let mut process = std::process::Command::new(path);
        process
            .args(&command.arguments)
            .env(PARENT_VARIABLE, std::process::id().to_string());
        self.start(command.program, process, input, output, true)
    }

    /// The same; its messages go into the log alone.
    pub(crate) fn spawn_silent(&self, command: &Command, output: Output) -> Outcome<Child> {
        let path = self.find(command.program)?;
        let mut process = std::process::Command::new(path);
        process
            .args(&command.arguments)
            .env(PARENT_VARIABLE, std::process::id().to_string());
        self.start(command.program, process, Input::None, output, false)
    }

    /// Starts a shell command of the operator. Its stdout is shown on stderr.
    pub(crate) fn shell(&self, command: &str) -> Outcome<Child> {
        let mut process = std::process::Command::new("sh");
        process.args(["-c", &format!("exec >&2\n{command}")]);
        let lock = self.lock.borrow_mut().take();
        let child = self.start("the command", process, Input::None, Output::Null, true);
        *self.lock.borrow_mut() = lock;
        child
    }

    fn start(
        &self,
        program: &'static str,
        mut process: std::process::Command,
        input: Input,
        output: Output,
        is_shown: bool,
    ) -> Outcome<Child> {
        let failed = |error: &std::io::Error| {
            let message = format!("cannot start {program}: {error}");
            CommandError::new(Exit::Failed, message).hint("run the same command again")
        };
        let lock = self.lock.borrow();
        process.stdin(match (input, lock.as_ref()) {
            (Input::Pipe(reader), _) => Stdio::from(reader),
            (Input::None, Some(lock)) => lock.try_clone().map_err(|e| failed(&e))?.into(),
            (Input::None, None) => Stdio::null(),
        });
        let keeps = matches!(output, Output::Kept);
        process.stdout(match output {
            Output::Null => Stdio::null(),
            Output::Kept => Stdio::piped(),
            Output::Pipe(writer) => Stdio::from(writer),
            Output::File(file) => Stdio::from(file),
        });
        process.stderr(Stdio::piped());
        let mut live = locked(&self.live);
        let mut child = process.spawn().map_err(|error| failed(&error))?;
        drop(process); // the pipe ends that are its own now
        let pid = Pid::from_child(&child);
        live.insert(pid.as_raw_nonzero().get(), program);
        drop(live);
        let log = self.log.as_ref().and_then(|log| log.try_clone().ok());
        let messages = child.stderr.take().map(|from| pass_on(from, log, is_shown));
        let stdout = child.stdout.take().filter(|_| keeps);
        let output = stdout.map(|mut from| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = from.read_to_end(&mut bytes);
                bytes
            })
        });
        let (sender, ended) = oneshot::channel();
        let live = Arc::clone(&self.live);
        std::thread::spawn(move || {
            // Not reaped before it has left the list.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
            let mut live = locked(&live);
            let status = child.wait();
            live.remove(&pid.as_raw_nonzero().get());
            drop(live);
            let _ = sender.send(status.map_or(Ended::Signal(9), Ended::from));
        });
        Ok(Child {
            program,
            pid,
            ended,
            status: None,
            output,
            messages,
            runner: Arc::clone(&self.live),
        })
    }

    /// Signals every program that lives.
    pub(crate) fn signal_all(&self, signal: Signal) {
        for pid in locked(&self.live).keys() {
            if let Some(pid) = Pid::from_raw(*pid) {
                let _ = kill_process(pid, signal);
            }
        }
    }

    /// Whether any program lives.
    pub(crate) fn has_live(&self) -> bool {
        !locked(&self.live).is_empty()
    }

    /// Waits until none lives.
    pub(crate) async fn all_ended(&self) {
        while self.has_live() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Runs a program to its end; its stdout.
    pub(crate) async fn run(&self, command: &Command) -> Outcome<(Ended, Vec<u8>)> {
        let child = self.spawn(command, Input::None, Output::Kept)?;
        Ok(child.finish().await)
    }
}

impl Child {
    /// Waits for its end; with its stdout, and its messages if they were not shown.
    pub(crate) async fn finish_silent(mut self) -> (Ended, Vec<u8>, Vec<u8>) {
        let messages = self.messages.take();
        let (ended, output) = self.finish().await;
        let messages = messages.map(JoinHandle::join);
        (
            ended,
            output,
            messages.and_then(Result::ok).unwrap_or_default(),
        )
    }

    /// Waits for its end, and for its last messages.
    pub(crate) async fn wait(&mut self) -> Ended {
        if let Some(ended) = self.status {
            return ended;
        }
        let ended = (&mut self.ended).await.unwrap_or(Ended::Signal(9));
        self.status = Some(ended);
        // What it has started and left behind may hold its stderr open.
        for _ in 0..100 {
            match &self.messages {
                Some(thread) if !thread.is_finished() => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                _ => break,
            }
        }
        self.messages = None;
        ended
    }

    /// Waits for its end; with what it wrote to stdout.
    pub(crate) async fn finish(mut self) -> (Ended, Vec<u8>) {
        let ended = self.wait().await;
        let output = self.output.take().map(JoinHandle::join);
        (ended, output.and_then(Result::ok).unwrap_or_default())
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        !locked(&self.runner).contains_key(&self.pid.as_raw_nonzero().get())
    }

    /// Sends a signal, unless it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        let live = locked(&self.runner);
        if live.contains_key(&self.pid.as_raw_nonzero().get()) {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Asks it to end, and waits for that.
    pub(crate) async fn terminate(&mut self) -> Ended {
        self.signal(Signal::TERM);
        self.wait().await
    }
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;

    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Passes messages on to stderr and to the log, as they come.
fn pass_on(
    mut from: impl Read + Send + 'static,
    log: Option<File>,
    show: bool,
) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut chunk = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            let bytes = chunk.get(..count).unwrap_or_default();
            if show {
                let _ = std::io::stderr().lock().write_all(bytes);
            } else {
                kept.extend_from_slice(bytes);
            }
            if let Some(mut log) = log.as_ref() {
                let _ = log.write_all(bytes);
            }
        }
        kept
    })
}

/// A pipe to a program that reads a file: the next program that is started inherits the reading end, and
/// finds it at this path. Drop that end then.
pub(crate) fn pipe_at_a_path() -> Outcome<(std::io::PipeReader, PathBuf, std::io::PipeWriter)> {
    use std::os::fd::AsRawFd as _;

    let (reader, writer) = pipe()?;
    let inherited = rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::empty());
    inherited.map_err(|error| {
        let message = format!("cannot pass a pipe on: {error}");
        CommandError::new(Exit::Failed, message).hint("run the same command again")
    })?;
    let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
    Ok((reader, path, writer))
}

/// A pipe between two programs.
pub(crate) fn pipe() -> Outcome<(std::io::PipeReader, std::io::PipeWriter)> {
    std::io::pipe().map_err(|error| {
        let message = format!("cannot make a pipe: {error}");
        CommandError::new(Exit::Failed, message)
            .hint("close other programs; then run the same command again")
    })
}
