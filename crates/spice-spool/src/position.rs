//! How far a change stream was applied: a file of one line that is always complete.

use std::io;
use std::path::{Path, PathBuf};

use spice_record::record::Position;
use spice_record::{Record, RecordReader};

use spice_cli::{CommandError, Exit, files, fsync};

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
                let exit = match error.kind() {
                    io::ErrorKind::InvalidData if self.0.is_file() => Exit::BadData,
                    _ => Exit::Failed,
                };
                let message = format!("cannot read the position {name}: {error}");
                return Err(CommandError::new(exit, message));
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
                        "it is unknown how far the target is: begin at a new copy, or at the \
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
        let sealed = Position {
            checksum: Some(position.compute_checksum()?),
            ..position.clone()
        };
        let line = serde_json::to_string(&Record::Position(Box::new(sealed)))?;
        fsync::replace(&self.0, &line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(source: &str) -> Position {
        Position {
            source_revision: source.to_owned(),
            target_revision: Some("t".to_owned()),
            ..Position::default()
        }
    }

    fn file() -> (tempfile::TempDir, PositionFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = PositionFile::new(&folder.path().join("position"));
        (folder, file)
    }

    #[test]
    fn position_is_read_as_it_was_saved_and_replaced_by_the_next() {
        let (folder, file) = file();
        assert!(file.load().unwrap().is_none());
        for source in ["one", "two"] {
            file.save(&position(source)).unwrap();
            let loaded = file.load().unwrap().unwrap();
            assert_eq!(loaded.source_revision, source);
            assert!(loaded.checksum.is_some());
        }
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 1, "no temporary file remains");
    }

    #[test]
    fn position_cut_or_changed_at_any_byte_is_refused() {
        let (_folder, file) = file();
        file.save(&position("one")).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        for cut in 0..bytes.len() {
            std::fs::write(file.path(), &bytes[..cut]).unwrap();
            assert_eq!(file.load().unwrap_err().exit, Exit::BadData, "cut at {cut}");
        }
        let last = bytes.len() - 1;
        for at in 0..last {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            std::fs::write(file.path(), &changed).unwrap();
            assert_eq!(file.load().unwrap_err().exit, Exit::BadData, "byte {at}");
        }
    }

    #[test]
    fn position_without_a_checksum_is_refused() {
        let (_folder, file) = file();
        let record = Record::Position(Box::new(position("one")));
        let line = serde_json::to_string(&record).unwrap();
        assert!(!line.contains("checksum"));
        std::fs::write(file.path(), line + "\n").unwrap();
        let failure = file.load().unwrap_err();
        assert_eq!(failure.exit, Exit::BadData);
        assert!(failure.message().contains("checksum"), "{failure:?}");
    }

    #[test]
    fn second_line_and_other_records_are_refused() {
        let (_folder, file) = file();
        file.save(&position("one")).unwrap();
        let line = std::fs::read_to_string(file.path()).unwrap();
        std::fs::write(file.path(), line.repeat(2)).unwrap();
        assert_eq!(file.load().unwrap_err().exit, Exit::BadData);
        std::fs::write(file.path(), "{\"checkpoint\":{\"revision\":\"a\"}}\n").unwrap();
        let failure = file.load().unwrap_err();
        assert!(failure.message().contains("not a position"), "{failure:?}");
    }

    #[test]
    fn folder_or_a_huge_file_in_its_place_is_refused_by_name() {
        let (folder, file) = file();
        let in_its_place = PositionFile::new(folder.path());
        let failure = in_its_place.load().unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        std::fs::write(file.path(), vec![b'0'; 2 << 20]).unwrap();
        let failure = file.load().unwrap_err();
        assert_eq!(failure.exit, Exit::BadData);
        let name = file.path().display().to_string();
        assert!(failure.message().contains(&name), "{failure:?}");
    }

    #[test]
    fn failed_save_leaves_the_old_position() {
        let (folder, file) = file();
        let nowhere = PositionFile::new(&folder.path().join("no/position"));
        assert_eq!(nowhere.save(&position("a")).unwrap_err().exit, Exit::Failed);
        file.save(&position("one")).unwrap();
        assert_eq!(file.load().unwrap().unwrap().source_revision, "one");
    }
}
