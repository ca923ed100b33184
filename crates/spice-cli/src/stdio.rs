//! stdin, stdout and files as streams.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufWriter, IsTerminal as _, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::NamedTempFile;

use crate::cleanup::{self, Registered};
use crate::compression::{Compression, Writer, decompressed};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::files::trusted_path;
use crate::shutdown;

pub(crate) const BUFFER_BYTES: usize = 256 << 10;

/// Opens a file, or stdin for `-`; zstd and gzip are recognised and decompressed. Also returns the name
/// for messages.
///
/// # Errors
///
/// Exit 1 if it cannot be opened.
pub fn open(path: &Path) -> Result<(Box<dyn BufRead + Send>, String), CommandError> {
    let name = name(path);
    let input: Box<dyn Read + Send> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let file = File::open(path).map_err(|error| cannot_open(&name, &error))?;
        Box::new(file)
    };
    let reader = decompressed(input)
        .map_err(|error| CommandError::new(Exit::Failed, format!("cannot read {name}: {error}")))?;
    Ok((reader, name))
}

/// Makes sure that a file can be opened, as [`open`] does later: before a server is called, whose error
/// would hide a mistyped name behind "try again". A named pipe is left alone, for it would notice.
///
/// # Errors
///
/// Exit 1, with the message of [`open`].
pub fn check_can_open(path: &Path) -> Result<(), CommandError> {
    if path == Path::new("-") {
        return Ok(());
    }
    let checked = fs::metadata(path).and_then(|found| match found.file_type() {
        kind if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        kind if kind.is_file() => File::open(path).map(drop),
        _ => Ok(()),
    });
    checked.map_err(|error| cannot_open(&name(path), &error))
}

fn cannot_open(name: &str, error: &io::Error) -> CommandError {
    CommandError::new(Exit::Failed, format!("cannot open {name}: {error}"))
}

/// What a file is called in messages.
#[must_use]
pub fn name(path: &Path) -> String {
    if path == Path::new("-") {
        return "<stdin>".to_owned();
    }
    path.display().to_string()
}

/// What kind of file it is, for `-` that behind stdin.
///
/// # Errors
///
/// The operating system's.
pub fn metadata(path: &Path) -> io::Result<fs::Metadata> {
    if path == Path::new("-") {
        return File::from(io::stdin().as_fd().try_clone_to_owned()?).metadata();
    }
    fs::metadata(path)
}

/// Whether stdin is a terminal: then somebody wants help, not a program that waits.
#[must_use]
pub fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Whether stdout is a pipe: then another program draws the progress.
#[must_use]
pub fn stdout_is_pipe() -> bool {
    stdout_file()
        .and_then(|file| file.metadata())
        .is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// Where a stream goes: stdout, or a file that appears under its name only when it is complete.
pub struct Output {
    writer: Writer<BufWriter<File>>,
    target: Option<Target>,
}

/// A file that has no name yet.
struct Target {
    temporary: NamedTempFile,
    path: PathBuf,
    unfinished: Registered,
}

impl Output {
    /// Opens stdout (`None` or `-`) or a file beside its final name, and compresses as chosen. May
    /// wait for the reader of a named pipe.
    ///
    /// # Errors
    ///
    /// Exit 1 if the file's folder cannot be written.
    pub fn create(
        path: Option<&Path>,
        compression: Option<Compression>,
    ) -> Result<Self, CommandError> {
        let path = path.filter(|path| *path != Path::new("-"));
        let failed = |error: io::Error| match path {
            Some(path) => CommandError::new(
                Exit::Failed,
                format!("cannot create {}: {error}", path.display()),
            ),
            None => CommandError::stdout(&error),
        };
        let (file, target) = match path {
            None => (stdout_file().map_err(failed)?, None),
            Some(path) if path.is_dir() => return Err(failed(io::ErrorKind::IsADirectory.into())),
            Some(path) if trusted_path(path).is_err() => {
                let error = trusted_path(path).err();
                return Err(failed(
                    error.unwrap_or_else(|| io::ErrorKind::NotFound.into()),
                ));
            }
            // A device or a named pipe: there is nothing to be put in its place.
            Some(path) if path.exists() && !path.is_file() => {
                let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
                (file, None)
            }
            Some(path) => {
                // The file behind a link gets the new content, the link stays.
                let real = fs::canonicalize(path);
                let path = real.as_deref().unwrap_or(path);
                let folder = match path.parent() {
                    Some(folder) if folder != Path::new("") => folder,
                    _ => Path::new("."),
                };
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                // tempfile creates with mode 0600: an export is everybody's permissions.
                let temporary = tempfile::Builder::new()
                    .prefix(&format!(".{name}."))
                    .suffix(".partial")
                    .tempfile_in(folder)
                    .map_err(failed)?;
                let file = temporary.as_file().try_clone().map_err(failed)?;
                let target = Target {
                    unfinished: cleanup::file(temporary.path()),
                    temporary,
                    path: path.to_owned(),
                };
                (file, Some(target))
            }
        };
        let buffered = BufWriter::with_capacity(BUFFER_BYTES, file);
        let writer = Writer::new(buffered, compression).map_err(failed)?;
        Ok(Self { writer, target })
    }

    /// Ends the stream. A file is synced and gets its name now; without this it is removed.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn finish(self) -> io::Result<()> {
        let buffered = self.writer.finish()?;
        let file = buffered
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        if let Some(target) = self.target {
            let Target {
                temporary,
                path,
                unfinished,
            } = target;
            file.sync_all()?;
            temporary.persist(&path)?;
            drop(unfinished);
            let folder = path.parent().filter(|folder| *folder != Path::new(""));
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// stdout without Rust's line buffer, which would cost a copy and a scan of everything.
pub(crate) fn stdout_file() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Whether the process was started without a stdout. Rust's runtime opens /dev/null in its place, so that is
/// looked at before it begins (`stdout.c`).
#[must_use]
pub fn is_stdout_closed() -> bool {
    std::env::var_os("SPICE_PIPES_STDOUT_CLOSED").is_some()
}

/// Writes one line of data to stdout at once. Waits for the reader of a full pipe, until a signal ends
/// that.
///
/// # Errors
///
/// As [`CommandError::stdout`]; an interruption after a signal.
pub fn print_line(line: &str) -> Result<(), CommandError> {
    let stdout = |error: io::Error| CommandError::stdout(&error);
    let mut file = stdout_file().map_err(stdout)?;
    let mut rest = [line.as_bytes(), b"\n"].concat();
    while !rest.is_empty() {
        wait_for_room(&file)?;
        // No more than a pipe takes without blocking, once it takes anything.
        let some = rest.len().min(PIPE_BYTES);
        match file.write(&rest[..some]) {
            Ok(written) => drop(rest.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever shares the other end may have made it so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(stdout(error)),
        }
    }
    Ok(())
}

/// `PIPE_BUF` of Linux.
const PIPE_BYTES: usize = 4096;

fn wait_for_room(file: &File) -> Result<(), CommandError> {
    const LOOK_EVERY: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    loop {
        let mut fds = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::OUT)];
        match poll(&mut fds, Some(&LOOK_EVERY)) {
            Ok(0) => {
                if let Some(number) = shutdown::hurry() {
                    return Err(CommandError::interrupted(number));
                }
            }
            // An error shows in the write.
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::Output;

    #[test]
    fn file_appears_when_it_is_complete_and_our_own_link_stays() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
        symlink(&file, &link).unwrap();
        std::fs::write(&file, "old").unwrap();
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        let mut output = Output::create(Some(&link), None).unwrap();
        writeln!(output, "new").unwrap();
        assert_eq!(names(), 3);
        drop(output);
        assert_eq!(names(), 2);
        assert_eq!(std::fs::read(&file).unwrap(), b"old");
        let mut output = Output::create(Some(&link), None).unwrap();
        writeln!(output, "new").unwrap();
        output.finish().unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new\n");
        assert!(link.is_symlink());
    }
}
