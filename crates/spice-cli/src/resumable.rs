//! A file that several runs of a program write, one after the other, until it is complete and gets its name.
//!
//! Until then it is `NAME.partial`, beside its name: mode 0600, and locked as long as a process writes it.
//! At a checkpoint the compressed data ends and everything is on the disk. A later run continues at a
//! checkpoint, after it has compared the bytes before it with their digest.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spice_record::Digest;
use spice_record::digest::BytesDigest;

use crate::compression::{Compression, Writer};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::files::{beside, lock_within, own_uid, private, trusted_path};
use crate::stdio::BUFFER_BYTES;

/// A process that was killed keeps its lock until it is gone.
const PATIENCE: Duration = Duration::from_secs(1);

/// The file. When it is dropped before anything in it is worth keeping, it is removed.
pub struct ResumableFile {
    part: Part,
    /// Has the lock.
    file: File,
    compression: Option<Compression>,
    path: PathBuf,
    partial: PathBuf,
    is_kept: bool,
    /// Before compression, since the last checkpoint.
    written: u64,
}

/// The bytes before a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// How many.
    pub bytes: u64,
    /// Their digest.
    pub digest: Digest,
}

/// Where the writer is.
enum Part {
    /// Between two pieces of compressed data.
    Between(BufWriter<Digested>),
    Within(Writer<BufWriter<Digested>>),
    /// After a failed write.
    Failed,
}

/// Counts and digests what it writes.
struct Digested {
    file: File,
    digest: BytesDigest,
    bytes: u64,
}

impl Write for Digested {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ResumableFile {
    /// Opens or makes the partial file of `path`, and locks it.
    ///
    /// # Errors
    ///
    /// Exit 2 where another process writes it, or `path` is no file; 1 where it cannot be opened, or others
    /// can read or write it.
    pub fn open(path: &Path, compression: Option<Compression>) -> Result<Self, CommandError> {
        if path.exists() && !path.is_file() {
            let path = path.display();
            return Err(CommandError::usage(format!(
                "--resume: {path} is no file that could be replaced"
            )));
        }
        let failed = |shown: &Path| {
            let shown = shown.display().to_string();
            move |error: io::Error| {
                CommandError::new(Exit::Failed, format!("cannot open {shown}: {error}"))
            }
        };
        trusted_path(path).map_err(failed(path))?;
        // The file behind a link gets the new content, the link stays.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let partial = beside(&path, ".partial");
        let Some(file) = open_locked(&partial).map_err(failed(&partial))? else {
            let partial = partial.display();
            return Err(
                CommandError::usage(format!("another process writes {partial}")).hint(
                    "one file has one export: wait for that one, or stop it with SIGTERM; then the same command",
                ),
            );
        };
        let bytes = file.metadata().map_err(failed(&partial))?.len();
        let part = Part::begin(&file, BytesDigest::default(), 0).map_err(failed(&partial))?;
        Ok(Self {
            part,
            file,
            compression,
            path,
            partial,
            is_kept: bytes > 0,
            written: 0,
        })
    }

    /// The file that is written.
    #[must_use]
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// How many bytes it has.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Throws away what it has.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.is_kept = false;
        self.part = Part::begin(&self.file, BytesDigest::default(), 0)?;
        Ok(())
    }

    /// Continues at a checkpoint, and removes what comes after it, if the bytes before it are as they were.
    /// Returns whether they are: otherwise nothing is changed.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn continue_at(&mut self, checkpoint: Checkpoint) -> io::Result<bool> {
        let mut digest = BytesDigest::default();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        let mut rest = checkpoint.bytes;
        let mut buffer = vec![0; BUFFER_BYTES];
        while rest > 0 {
            let wanted = usize::try_from(rest).unwrap_or(usize::MAX);
            let wanted = wanted.min(buffer.len());
            match file.read(&mut buffer[..wanted]) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    digest.update(&buffer[..read]);
                    rest -= read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if digest.digest() != checkpoint.digest {
            return Ok(false);
        }
        self.file.set_len(checkpoint.bytes)?;
        self.part = Part::begin(&self.file, digest, checkpoint.bytes)?;
        Ok(true)
    }

    /// What was written since the last checkpoint, before compression.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Ends the compressed data, and waits until everything is on the disk. From now on it is kept.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn checkpoint(&mut self) -> io::Result<Checkpoint> {
        let mut out = self.part.end()?;
        out.flush()?;
        self.file.sync_data()?;
        let digested = out.get_ref();
        let checkpoint = Checkpoint {
            bytes: digested.bytes,
            digest: digested.digest.digest(),
        };
        self.part = Part::Between(out);
        self.is_kept = true;
        self.written = 0;
        Ok(checkpoint)
    }

    /// Ends the file and gives it its name, durably.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn finish(mut self) -> io::Result<()> {
        self.checkpoint()?;
        fs::rename(&self.partial, &self.path)?;
        sync_folder(&self.path)
    }
}

impl Write for ResumableFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Part::Between(_) = self.part {
            let out = self.part.end()?;
            self.part = Part::Within(Writer::new(out, self.compression)?);
        }
        match &mut self.part {
            Part::Within(writer) => {
                let written = writer.write(bytes)?;
                self.written += written as u64;
                Ok(written)
            }
            _ => Err(after_a_failure()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.part {
            Part::Within(writer) => writer.flush(),
            Part::Between(out) => out.flush(),
            Part::Failed => Err(after_a_failure()),
        }
    }
}

impl Drop for ResumableFile {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

impl Part {
    fn begin(file: &File, digest: BytesDigest, bytes: u64) -> io::Result<Self> {
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(bytes))?;
        let digested = Digested {
            file,
            digest,
            bytes,
        };
        Ok(Self::Between(BufWriter::with_capacity(
            BUFFER_BYTES,
            digested,
        )))
    }

    /// Takes out the writer, after the end of compressed data.
    fn end(&mut self) -> io::Result<BufWriter<Digested>> {
        match std::mem::replace(self, Self::Failed) {
            Self::Between(out) => Ok(out),
            Self::Within(writer) => writer.finish(),
            Self::Failed => Err(after_a_failure()),
        }
    }
}

fn after_a_failure() -> io::Error {
    io::Error::other("an earlier write has failed")
}

/// `None` where another process has the lock.
fn open_locked(partial: &Path) -> io::Result<Option<File>> {
    loop {
        let file = match private().read(true).create_new(true).open(partial) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                match private().read(true).open(partial) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    opened => opened?,
                }
            }
            made => made?,
        };
        let found = file.metadata()?;
        let denied = |why: &str| io::Error::new(io::ErrorKind::PermissionDenied, why);
        if !found.is_file() || found.uid() != own_uid() {
            return Err(denied("it is no file of ours"));
        }
        if found.mode() & 0o077 != 0 {
            return Err(denied("others can read or write it"));
        }
        if !lock_within(&file, PATIENCE)? {
            return Ok(None);
        }
        // Whoever had the lock may have finished the file, or removed it.
        let there = fs::symlink_metadata(partial);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (found.dev(), found.ino())) {
            return Ok(Some(file));
        }
    }
}

/// Waits until the names in the folder of a file are on the disk.
///
/// # Errors
///
/// The operating system's.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests;
