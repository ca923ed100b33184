//! The lock of a spool: one writer at a time, and a new generation with each writer.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use spice_cli::files::{open_private, private, read_private};
use spice_cli::{CommandError, Exit};

use crate::Spool;

impl Spool {
    /// Whether a writer is running.
    #[must_use]
    pub fn writer_lives(&self) -> bool {
        open_private(&self.lock_file())
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The content of the lock file, which changes with each writer.
    pub(crate) fn generation(&self) -> String {
        let content = read_private(&self.lock_file()).unwrap_or_default();
        String::from_utf8_lossy(&content).into_owned()
    }

    /// Locks the spool for a writer, which is a new generation from now on.
    pub(crate) fn lock(&self) -> Result<File, CommandError> {
        /// A follower that looks for the writer holds the lock for a moment.
        const PATIENCE: Duration = Duration::from_secs(1);
        let path = self.lock_file();
        let failed = |error: io::Error| {
            let path = path.display();
            CommandError::new(
                Exit::Failed,
                format!("cannot lock the spool: {path}: {error}"),
            )
        };
        let mut file = private()
            .read(true)
            .create(true)
            .open(&path)
            .map_err(failed)?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    let mut owner = String::new();
                    let _ = file.read_to_string(&mut owner);
                    let owner = owner.split_whitespace().next().unwrap_or("?").to_owned();
                    return Err(CommandError::usage(format!(
                        "another spice-watch (process {owner}) appends to {}",
                        self.0.display()
                    ))
                    .hint("one spool has one writer: stop that one, or give another --spool"));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        let now = jiff::Timestamp::now();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{} {now}", std::process::id()))
            .map_err(failed)?;
        Ok(file)
    }

    pub(crate) fn lock_file(&self) -> PathBuf {
        self.beside(".lock")
    }
}
