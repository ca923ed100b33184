//! Finds a relationship that an input holds twice, in bounded memory: no snapshot does.
//!
//! A sorted run of key digests goes to a temporary file whenever so many are in memory. The runs are merged at
//! the end, before the trailer is written.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use authzed::v1::Relationship;
use spice_cli::{CommandError, Exit};
use spice_record::digest::key_digest;

/// 32 bytes each: 64 MiB.
const IN_MEMORY: usize = 2 << 20;

/// The digest of a key, and where it was.
type Entry = (u128, u64);

/// The keys of all relationships that were read.
pub(crate) struct Duplicates {
    folder: PathBuf,
    in_memory: usize,
    entries: Vec<Entry>,
    files: Vec<File>,
}

impl Duplicates {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            in_memory: IN_MEMORY,
            entries: Vec::new(),
            files: Vec::new(),
        }
    }

    /// # Errors
    ///
    /// Exit 1 where a temporary file fails; so for [`first`](Self::first).
    pub(crate) fn add(
        &mut self,
        relationship: &Relationship,
        place: u64,
    ) -> Result<(), CommandError> {
        self.entries.push((key_digest(relationship).0, place));
        if self.entries.len() < self.in_memory {
            return Ok(());
        }
        let file = self.spill().map_err(|error| self.failed(&error))?;
        self.files.push(file);
        self.entries.clear();
        Ok(())
    }

    fn spill(&mut self) -> io::Result<File> {
        self.entries.sort_unstable();
        let mut file = BufWriter::new(tempfile::tempfile_in(&self.folder)?);
        for (key, place) in &self.entries {
            file.write_all(&key.to_le_bytes())?;
            file.write_all(&place.to_le_bytes())?;
        }
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(file)
    }

    /// The first place that repeats a relationship, behind the place where that was before.
    pub(crate) fn first(mut self) -> Result<Option<(u64, u64)>, CommandError> {
        self.entries.sort_unstable();
        let entries = std::mem::take(&mut self.entries);
        let files = std::mem::take(&mut self.files);
        let mut runs: Vec<Run> = files
            .into_iter()
            .map(|file| Run::File(BufReader::new(file)))
            .collect();
        runs.push(Run::Memory(entries.into_iter()));
        merge(&mut runs).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> CommandError {
        temporary_file(&self.folder, error)
    }
}

/// The error of a temporary file.
pub(crate) fn temporary_file(folder: &Path, error: &io::Error) -> CommandError {
    let folder = folder.display();
    let message = format!("cannot use a temporary file in {folder}: {error}");
    CommandError::new(Exit::Failed, message).hint("--temp-dir FOLDER takes another folder")
}

enum Run {
    Memory(std::vec::IntoIter<Entry>),
    File(BufReader<File>),
}

impl Run {
    fn next(&mut self) -> io::Result<Option<Entry>> {
        let file = match self {
            Self::Memory(entries) => return Ok(entries.next()),
            Self::File(file) => file,
        };
        let (mut key, mut place) = ([0; 16], [0; 8]);
        if file.read(&mut key[..1])? == 0 {
            return Ok(None);
        }
        file.read_exact(&mut key[1..])?;
        file.read_exact(&mut place)?;
        Ok(Some((u128::from_le_bytes(key), u64::from_le_bytes(place))))
    }
}

fn merge(runs: &mut [Run]) -> io::Result<Option<(u64, u64)>> {
    let mut heap = BinaryHeap::new();
    for (index, run) in runs.iter_mut().enumerate() {
        heap.extend(run.next()?.map(|(key, place)| Reverse((key, place, index))));
    }
    let mut last = None;
    let mut found: Option<(u64, u64)> = None;
    while let Some(Reverse((key, place, index))) = heap.pop() {
        match last {
            Some((same, before)) if same == key => {
                if found.is_none_or(|(_, repeated)| place < repeated) {
                    found = Some((before, place));
                }
            }
            _ => last = Some((key, place)),
        }
        heap.extend(
            runs[index]
                .next()?
                .map(|(key, place)| Reverse((key, place, index))),
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use testdata::Sample;

    use super::*;

    fn first(
        relationships: &[Relationship],
        in_memory: usize,
    ) -> Result<Option<(u64, u64)>, CommandError> {
        let mut duplicates = Duplicates {
            in_memory,
            ..Duplicates::new(&std::env::temp_dir())
        };
        for (place, relationship) in (1..).zip(relationships) {
            duplicates.add(relationship, place)?;
        }
        duplicates.first()
    }

    #[test]
    fn repeated_relationship_is_found_in_memory_and_on_disk() {
        let mut relationships: Vec<Relationship> = Sample::portable(1_000).iter().collect();
        for in_memory in [1, 7, 1_000, 10_000] {
            assert_eq!(first(&relationships, in_memory).unwrap(), None);
        }
        // Another caveat is no other relationship. The first to repeat one is named.
        let mut repeated = relationships[2].clone();
        repeated.optional_caveat = None;
        repeated.optional_expires_at = None;
        relationships[900] = relationships[899].clone();
        relationships.insert(500, repeated.clone());
        relationships.insert(700, repeated);
        for in_memory in [1, 7, 1_000, 10_000] {
            assert_eq!(first(&relationships, in_memory).unwrap(), Some((3, 501)));
        }
        assert_eq!(first(&[], 1).unwrap(), None);
    }

    #[test]
    fn folder_that_is_not_there_is_named() {
        let mut duplicates = Duplicates {
            in_memory: 1,
            ..Duplicates::new(Path::new("/no/such/folder"))
        };
        let one = Sample::portable(1).iter().next().unwrap();
        let failure = duplicates.add(&one, 1).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(failure.message().contains("/no/such/folder"), "{failure:?}");
        assert!(failure.hint_text().contains("--temp-dir"));
    }
}
