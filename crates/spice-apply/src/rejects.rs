//! `--rejects`: the file of the updates that the target refuses.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use authzed::v1::RelationshipUpdate;
use spice_cli::{CommandError, Exit, files};
use spice_record::Record;

/// The file, and how many updates this process has added to it.
pub(crate) struct Rejects {
    file: File,
    path: PathBuf,
    count: u64,
}

impl Rejects {
    /// Opens the file, private and for appending. May wait for the reader of a named pipe.
    pub(crate) fn open(path: &Path, inputs: &[PathBuf]) -> Result<Self, CommandError> {
        let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
        let file = files::append("--rejects", path, &inputs)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            count: 0,
        })
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Appends an update.
    pub(crate) fn append(&mut self, update: &RelationshipUpdate) -> Result<(), CommandError> {
        let mut line = serde_json::to_vec(&Record::Update(Box::new(update.clone().into())))?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .map_err(|error| self.failed(&error))?;
        self.count += 1;
        Ok(())
    }

    /// Makes it durable.
    pub(crate) fn sync(&self) -> Result<(), CommandError> {
        self.file.sync_all().or_else(|error| {
            // A device or a pipe cannot be synced.
            match self.file.metadata() {
                Ok(metadata) if !metadata.is_file() => Ok(()),
                _ => Err(self.failed(&error)),
            }
        })
    }

    fn failed(&self, error: &std::io::Error) -> CommandError {
        let path = self.path.display();
        CommandError::new(Exit::Failed, format!("--rejects {path}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use spice_client::scripted::{delete, touch};
    use spice_record::{Record, RecordReader};

    use super::Rejects;

    #[test]
    fn rejects_are_appended_as_updates_that_can_be_applied_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rejects");
        let updates = [touch("a"), delete("b"), touch("c")];
        for (index, update) in updates.iter().enumerate() {
            // Each process appends to what is there.
            let mut rejects = Rejects::open(&path, &[]).expect("opened");
            rejects.append(update).expect("appended");
            assert_eq!(rejects.count(), 1, "update {index}");
            rejects.sync().expect("synced");
        }
        let bytes = std::fs::read(&path).expect("the file");
        let mut records = RecordReader::new(bytes.as_slice(), "rejects");
        let mut read = Vec::new();
        while let Some(Record::Update(line)) = records.next_record().expect("a record") {
            read.push(line.update.0);
        }
        assert_eq!(read, updates);
    }

    #[test]
    fn a_device_need_not_be_synced() {
        let mut rejects = Rejects::open(std::path::Path::new("/dev/null"), &[]).expect("opened");
        rejects.append(&touch("a")).expect("appended");
        rejects.sync().expect("nothing to sync");
    }
}
