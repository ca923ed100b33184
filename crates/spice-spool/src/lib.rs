//! A change stream on disk: one program appends, another reads. Neither needs the other to be running.
//!
//! | file | is |
//! |---|---|
//! | `FILE`, `FILE.000001`, ... | the segments; each begins with a header, and no revision spans two |
//! | `FILE.lock` | locked by the writer as long as it lives; its content changes with each writer |
//! | `FILE.lost` | written by a writer that ended because the source had lost its history |
//!
//! A writer that opens a spool truncates what a predecessor left incomplete. A follower may have read a part
//! of that, so it looks at the content of the lock file after each read: where it has changed, what
//! was read of an unfinished revision is discarded and read again.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod find_revision;
mod lock;
pub mod position;
mod reader;
mod writer;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use spice_record::record::SpoolOffset;

use spice_cli::files::{self, private, read_private};
use spice_cli::{CommandError, Exit};

pub use self::reader::{Polled, SpoolReader};
pub use self::writer::{SpoolTail, SpoolWriter};

/// The files of one spool.
#[derive(Clone, Debug)]
pub struct Spool(PathBuf);

/// No spool has so many segments.
const MAX_SEGMENT: u64 = 1 << 40;

impl Spool {
    /// A spool that need not be there yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// For messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file of a segment.
    #[must_use]
    pub fn segment(&self, number: u64) -> PathBuf {
        match number {
            0 => self.0.clone(),
            _ => self.beside(&format!(".{number:06}")),
        }
    }

    /// The numbers of the segments that there are, rising.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn segments(&self) -> io::Result<Vec<u64>> {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        let entries = match fs::read_dir(self.folder()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let entry = entry?.file_name();
            let entry = entry.to_string_lossy();
            match entry.strip_prefix(name.as_ref()) {
                Some("") => numbers.push(0),
                Some(rest) => {
                    // Only as they are written: no segment has another spelling of its number.
                    let number = rest
                        .strip_prefix('.')
                        .and_then(|digits| digits.parse::<u64>().ok());
                    numbers.extend(number.filter(|number| {
                        (1..MAX_SEGMENT).contains(number) && rest == format!(".{number:06}")
                    }));
                }
                None => {}
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The file of the newest segment, if that is not the first.
    #[must_use]
    pub fn newest_segment(&self) -> Option<PathBuf> {
        let newest = *self.segments().ok()?.last()?;
        (newest > 0).then(|| self.segment(newest))
    }

    /// Where it ends now.
    #[must_use]
    pub fn end(&self) -> Option<SpoolOffset> {
        let segment = *self.segments().ok()?.last()?;
        let offset = fs::metadata(self.segment(segment)).ok()?.len();
        Some(SpoolOffset { segment, offset })
    }

    /// The message of a writer that ended because history was lost.
    #[must_use]
    pub fn lost(&self) -> Option<String> {
        let message = read_private(&self.lost_file()).ok()?;
        Some(String::from_utf8_lossy(&message).into_owned())
    }

    /// Stores that message for the readers.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn set_lost(&self, message: &str) -> io::Result<()> {
        let mut file = private()
            .create(true)
            .truncate(true)
            .open(self.lost_file())?;
        writeln!(file, "{message}")?;
        file.sync_all()
    }

    /// Removes that message: a later writer found the history complete.
    pub fn clear_lost(&self) {
        let _ = fs::remove_file(self.lost_file());
    }

    fn lost_file(&self) -> PathBuf {
        self.beside(".lost")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        files::beside(&self.0, suffix)
    }

    fn folder(&self) -> &Path {
        match self.0.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(self.folder())?.sync_all()
    }

    fn failed(&self, what: &str, error: &io::Error) -> CommandError {
        CommandError::new(
            Exit::Failed,
            format!("cannot {what} the spool {}: {error}", self.0.display()),
        )
    }
}

#[cfg(test)]
mod tests;
