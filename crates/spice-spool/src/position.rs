//! How far a change stream was applied: a file of one line that is always whole.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use spice_record::record::Position;
use spice_record::{Record, RecordReader};

use spice_cli::{CommandError, Exit};
use spice_cli::{cleanup, files};

/// Where a position is kept.
#[derive(Clone, Debug)]
pub struct PositionFile(PathBuf);

impl PositionFile {
    /// A file that need not be there yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// For messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads it; `None` where there is no file.
    ///
    /// # Errors
    ///
    /// Exit 1 if it cannot be read, 65 if it is no position.
    pub fn load(&self) -> Result<Option<Position>, CommandError> {
        let name = self.0.display().to_string();
        let bytes = match files::read_private(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let message = format!("cannot read the position {name}: {error}");
                return Err(CommandError::new(Exit::Failed, message));
            }
        };
        let mut records = RecordReader::new(bytes.as_slice(), &name);
        match records.next_record()? {
            Some(Record::Position(position)) => {
                records.expect_end()?;
                if position.checksum != Some(position.compute_checksum()?) {
                    return Err(CommandError::from(
                        records.fault("position altered: it does not have its checksum"),
                    )
                    .hint(
                        "nothing tells any more how far the target is: begin at a new copy, or at the \
                         beginning of the spool, which is harmless (without this file)",
                    ));
                }
                Ok(Some(*position))
            }
            _ => Err(
                CommandError::new(Exit::BadData, format!("{name}: not a position file")).hint(
                    "--position FILE is written by spice-apply; give another file, or remove this one \
                     to start from the beginning of the stream",
                ),
            ),
        }
    }

    /// Replaces it, durably: after a loss of power there is the old one or this one.
    ///
    /// # Errors
    ///
    /// Exit 1 if it cannot be written.
    pub fn save(&self, position: &Position) -> Result<(), CommandError> {
        self.write(position).map_err(|error| {
            let message = format!("cannot write the position {}: {error}", self.0.display());
            CommandError::new(Exit::Failed, message).hint(
                "what was written to the target stays there; run the same command again when there \
                 is room",
            )
        })
    }

    fn write(&self, position: &Position) -> io::Result<()> {
        let folder = match self.0.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        // tempfile creates with mode 0600.
        let mut file = tempfile::Builder::new()
            .prefix(".position.")
            .tempfile_in(folder)?;
        let sealed = Position {
            checksum: Some(position.compute_checksum()?),
            ..position.clone()
        };
        let line = serde_json::to_string(&Record::Position(Box::new(sealed)))?;
        let unfinished = cleanup::file(file.path());
        writeln!(file, "{line}")?;
        file.as_file().sync_all()?;
        file.persist(&self.0)?;
        drop(unfinished);
        File::open(folder)?.sync_all()
    }
}
