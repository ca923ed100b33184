//! The lock of a spool: one writer at a time, and a new generation with each writer. The lock of a
//! position: one `spice-apply` at a time.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use spice_cli::files::{beside, lock_within, open_private, private, read_private};
use spice_cli::{CommandError, Exit};

use crate::Spool;
use crate::position::PositionFile;

/// A follower that looks for a writer holds its lock for a moment, and a process that was killed keeps it
/// until it is gone.
const PATIENCE: Duration = Duration::from_secs(1);

/// The process that a lock file names.
fn owner(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

impl PositionFile {
    /// Locks the position for one `spice-apply`: of two that save it, one would leave out what the other
    /// has not written yet. The lock is a file beside it and is released when the process ends.
    ///
    /// # Errors
    ///
    /// Exit 2 where another process has it, 1 where the lock file cannot be opened.
    pub fn lock(&self) -> Result<File, CommandError> {
        let path = beside(self.path(), ".lock");
        let failed = |error: io::Error| {
            let message = format!("cannot lock the position: {}: {error}", path.display());
            CommandError::new(Exit::Failed, message)
        };
        let open = private().read(true).create(true).open(&path);
        let mut file = open.map_err(failed)?;
        if !lock_within(&file, PATIENCE).map_err(failed)? {
            let (position, owner) = (self.path().display(), owner(&mut file));
            let message = format!(
                "another spice-apply (process {owner}) applies with the position {position}"
            );
            return Err(CommandError::usage(message).hint(
                "one position has one spice-apply: wait for that one, or stop it with SIGTERM; \
                 then the same command",
            ));
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(file)
    }
}

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
        if !lock_within(&file, PATIENCE).map_err(failed)? {
            let owner = owner(&mut file);
            return Err(CommandError::usage(format!(
                "another spice-watch (process {owner}) appends to {}",
                self.0.display()
            ))
            .hint("one spool has one writer: stop that one, or give another --spool"));
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
