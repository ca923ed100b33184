//! What is written: a stream or a format of others, under its name only when it is complete.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write};
use std::path::{Path, PathBuf};

use authzed::v1::Relationship;
use spice_cli::CommandError;
use spice_cli::compression::Compression;
use spice_cli::stdio::Output;
use spice_foreign::{BackupWriter, Codec, ValidationWriter, text};
use spice_record::{ExpiryPrecision, Header, SnapshotWriter, Trailer};

use crate::Format;
use crate::duplicates::temporary_file;

/// Where and how to write.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) format: Format,
    /// `None` and `-` are stdout.
    pub(crate) path: Option<PathBuf>,
    pub(crate) compression: Option<Compression>,
    pub(crate) codec: Codec,
    pub(crate) precision: ExpiryPrecision,
    pub(crate) temp: PathBuf,
}

impl Target {
    fn path(&self) -> Option<&Path> {
        self.path.as_deref().filter(|path| *path != Path::new("-"))
    }

    /// Whether a file takes the output, which gets its name when it is complete. A device and a named pipe do not.
    fn is_file(&self) -> bool {
        self.path()
            .is_some_and(|path| !path.exists() || path.is_file())
    }

    /// Whether the output itself takes the bytes, and not a temporary file first.
    fn is_direct(&self) -> bool {
        self.format == Format::Stream || self.is_file()
    }

    /// The error of a write before the input has ended.
    fn failed(&self, error: &io::Error) -> CommandError {
        match self.is_direct() {
            true => self.output_failed(error),
            false => temporary_file(&self.temp, error),
        }
    }

    fn output_failed(&self, error: &io::Error) -> CommandError {
        CommandError::writing(self.path(), error)
    }
}

/// What takes the bytes. A format without an end marker that others believe must not reach a pipe before its
/// input was verified: what is there of it looks complete.
pub(crate) enum Destination {
    Direct(Output),
    Later(BufWriter<File>),
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Direct(out) => out.write(bytes),
            Self::Later(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Direct(out) => out.flush(),
            Self::Later(file) => file.flush(),
        }
    }
}

/// Takes relationships.
pub(crate) struct Sink {
    target: Target,
    writer: Writer,
}

#[expect(clippy::large_enum_variant, reason = "there is only one")]
enum Writer {
    Stream(SnapshotWriter<Destination>),
    Backup(BackupWriter<Destination>),
    Yaml(ValidationWriter<Destination>),
    Text(Destination, String),
}

/// What was written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Of a format that has one.
    pub(crate) trailer: Option<Trailer>,
    /// Expiries that were cut to milliseconds.
    pub(crate) truncated: u64,
    /// Whether it is a validation file that is not read back.
    pub(crate) is_too_long: bool,
}

impl Sink {
    /// Writes what comes before the relationships.
    pub(crate) fn create(target: Target, header: Header) -> Result<Self, CommandError> {
        let out = match target.is_direct() {
            true => Destination::Direct(Output::create(target.path(), target.compression)?),
            false => {
                let file = tempfile::tempfile_in(&target.temp);
                let file = file.map_err(|error| temporary_file(&target.temp, &error))?;
                Destination::Later(BufWriter::new(file))
            }
        };
        let precision = target.precision;
        let writer = match target.format {
            Format::Stream => SnapshotWriter::create(out, header, precision).map(Writer::Stream),
            Format::Zedbackup => {
                BackupWriter::create(out, header, precision, target.codec).map(Writer::Backup)
            }
            Format::Yaml => {
                ValidationWriter::create(out, header.schema.as_deref()).map(Writer::Yaml)
            }
            Format::Text => Ok(Writer::Text(out, String::new())),
        };
        match writer {
            Ok(writer) => Ok(Self { target, writer }),
            Err(error) => Err(target.failed(&error)),
        }
    }

    /// Writes one. The inner error is that of a relationship which the format cannot hold.
    pub(crate) fn write(
        &mut self,
        relationship: &Relationship,
    ) -> Result<Result<(), String>, CommandError> {
        let written = match &mut self.writer {
            Writer::Stream(writer) => writer.write(relationship),
            Writer::Backup(writer) => writer.write(relationship),
            Writer::Yaml(writer) => writer.write(relationship),
            Writer::Text(out, line) => {
                line.clear();
                match text::write(relationship, line) {
                    Ok(()) => {
                        line.push('\n');
                        out.write_all(line.as_bytes())
                    }
                    Err(message) => return Ok(Err(message)),
                }
            }
        };
        match written {
            Ok(()) => Ok(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Err(error.to_string())),
            Err(error) => Err(self.target.failed(&error)),
        }
    }

    /// Writes what comes after them, and gives a file its name.
    pub(crate) fn finish(self) -> Result<Written, CommandError> {
        let target = self.target;
        let mut written = Written::default();
        let out = match self.writer {
            Writer::Stream(writer) => writer.finish().map(|(trailer, out)| {
                written.trailer = Some(trailer);
                out
            }),
            Writer::Backup(writer) => {
                written.truncated = writer.truncated();
                writer.finish().map(|(trailer, out)| {
                    written.trailer = Some(trailer);
                    out
                })
            }
            Writer::Yaml(writer) => {
                written.is_too_long = writer.is_too_long();
                writer.finish()
            }
            Writer::Text(out, _) => Ok(out),
        };
        match out.map_err(|error| target.failed(&error))? {
            Destination::Direct(out) => {
                out.finish().map_err(|error| target.output_failed(&error))?;
            }
            Destination::Later(file) => copy(file, &target)?,
        }
        Ok(written)
    }
}

/// Passes on what was held back.
fn copy(file: BufWriter<File>, target: &Target) -> Result<(), CommandError> {
    let failed = |error: &io::Error| temporary_file(&target.temp, error);
    let file = file.into_inner().map_err(io::IntoInnerError::into_error);
    let mut file = file.map_err(|error| failed(&error))?;
    file.rewind().map_err(|error| failed(&error))?;
    let mut out = Output::create(target.path(), target.compression)?;
    let copied = io::copy(&mut file, &mut out).and_then(|_| out.finish());
    copied.map_err(|error| target.output_failed(&error))
}
