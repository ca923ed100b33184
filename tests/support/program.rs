//! The suite's programs as processes of their own, in an environment that holds nothing of the
//! developer's.

use super::running::{Finished, Running};
use super::spicedb::Server;
use super::{contexts, root};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A program to be run: hermetic environment, empty stdin, captured stdout and stderr, one minute
/// at most.
pub struct Program {
    name: String,
    command: Command,
    input: Option<Vec<u8>>,
    home: tempfile::TempDir,
    pub(super) timeout: Duration,
    pub(super) stdin: Option<Stdio>,
    pub(super) stdout: Option<Stdio>,
}

impl Program {
    /// A program of the suite, `spice-export` for example.
    pub fn new(name: &str) -> Self {
        Self::at(&bin_folder().join(name))
    }

    /// A program of the suite, connected to a server.
    pub fn on(name: &str, server: &Server) -> Self {
        Self::new(name).args(["--context", server.context()])
    }

    /// The same by way of a proxy or gateway at an endpoint.
    pub fn through(endpoint: &str, name: &str, server: &Server) -> Self {
        Self::new(name).args(server.flags_by(endpoint))
    }

    /// A program of the repository, `scripts/copy` for example. The suite's programs are on its
    /// PATH.
    pub fn script(path: &str) -> Self {
        Self::at(&root().join(path))
    }

    /// Any other program, by its path or found on PATH.
    pub fn at(path: &Path) -> Self {
        let home = super::folder();
        let mut folders = vec![bin_folder()];
        folders.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        let mut command = Command::new(path);
        command
            .env_clear()
            .env(
                "PATH",
                std::env::join_paths(folders).expect("PATH can be joined"),
            )
            .env("HOME", home.path())
            .env("SPICE_CONTEXTS", contexts())
            .process_group(0);
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Self {
            name,
            command,
            input: None,
            home,
            timeout: Duration::from_secs(180),
            stdin: None,
            stdout: None,
        }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn current_folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// stdin: these bytes, then its end.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self.stdin = Some(Stdio::piped());
        self
    }

    pub fn input_file(mut self, path: &Path) -> Self {
        self.stdin = Some(
            File::open(path)
                .expect("the input file can be opened")
                .into(),
        );
        self
    }

    /// stdin stays open; the test writes to [`Running::take_stdin`].
    pub fn input_later(mut self) -> Self {
        self.stdin = Some(Stdio::piped());
        self
    }

    /// stdout goes to a file instead of into memory.
    pub fn output_file(mut self, path: &Path) -> Self {
        self.stdout = Some(
            File::create(path)
                .expect("the output file can be made")
                .into(),
        );
        self
    }

    /// stdin comes from where the test wants it, from a pipe of its own for example.
    pub fn stdin_from(mut self, from: impl Into<Stdio>) -> Self {
        self.stdin = Some(from.into());
        self
    }

    /// stdout goes where the test wants it, into a pipe of its own for example.
    pub fn stdout_to(mut self, to: impl Into<Stdio>) -> Self {
        self.stdout = Some(to.into());
        self
    }

    /// How long it may take; afterwards it is killed and the test fails.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Runs the program to its end.
    pub fn run(self) -> Finished {
        self.spawn().wait()
    }

    /// Starts the program and leaves it running.
    pub fn spawn(mut self) -> Running {
        self.command.stdin(self.stdin.unwrap_or_else(Stdio::null));
        self.command
            .stdout(self.stdout.unwrap_or_else(Stdio::piped))
            .stderr(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.name));
        let input = self.input.map(|bytes| {
            let mut to = child.stdin.take().expect("stdin is a pipe");
            // A program that ends before it has read everything is its own affair.
            std::thread::spawn(move || drop(to.write_all(&bytes)))
        });
        Running::new(self.name, child, input, self.timeout, self.home)
    }
}

fn bin_folder() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_spice-export"))
        .parent()
        .expect("a program is in a folder")
        .to_owned()
}
