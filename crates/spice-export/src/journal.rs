//! The journal of a resumable export: a line beside the partial file that names a checkpoint in it.
//!
//! It is written after the bytes that it names are on the disk, and replaced in one step. So after a crash
//! or a loss of power it names bytes that are there, and whatever follows them was never promised.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spice_cli::compression::Compression;
use spice_cli::files::{beside, open_private, private};
use spice_cli::quote::quoted;
use spice_cli::resumable::{Checkpoint, sync_folder};
use spice_cli::{CommandError, Exit};
use spice_record::digest::{StoredSum, digest_text};
use spice_record::{Digest, ExpiryPrecision};

use crate::Export;
use crate::plan::{Plan, Shards};

const FORMAT: &str = "spice-export-journal/1";
/// More than the names of 100,000 definitions.
const MAX_BYTES: u64 = 16 << 20;

/// What was written up to a checkpoint, and how it continues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Journal {
    pub(crate) format: String,
    /// When the stream was begun, as in its header.
    pub(crate) begun_at: String,
    /// Where; for messages, and for servers whose zedtokens do not name a datastore.
    pub(crate) endpoint: String,
    /// The zedtoken of the revision that is exported.
    pub(crate) revision: String,
    /// Digest of the schema's text at that revision.
    pub(crate) schema: Digest,
    pub(crate) content: Content,
    /// The checksum of the header.
    pub(crate) header: Digest,
    pub(crate) plan: Plan,
    pub(crate) shards: Shards,
    pub(crate) sum: StoredSum,
    /// The size of the file.
    pub(crate) bytes: u64,
    pub(crate) bytes_digest: Digest,
    /// Of all other fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checksum: Option<Digest>,
}

/// The flags that decide what is in the stream. The others may change between two runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Content {
    types: Vec<String>,
    resource_prefix: Option<String>,
    no_schema: bool,
    pub(crate) expiry_precision: ExpiryPrecision,
    ignore_unknown_fields: bool,
    compression: Option<String>,
}

impl Content {
    pub(crate) fn of(args: &Export) -> Self {
        let kind = |chosen| match chosen {
            Compression::Zstd(_) => "zstd".to_owned(),
            Compression::Gzip(_) => "gzip".to_owned(),
        };
        let mut types = args.filter.types.clone();
        types.sort_unstable();
        types.dedup();
        Self {
            types,
            resource_prefix: args.filter.resource_prefix.clone(),
            no_schema: args.no_schema,
            expiry_precision: args.expiry_precision,
            ignore_unknown_fields: args.unknown.ignore_unknown_fields,
            compression: args.compression.chosen().map(kind),
        }
    }

    pub(crate) fn omits_schema(&self) -> bool {
        self.no_schema
    }

    /// The flags that mean the same.
    fn flags(&self) -> Vec<String> {
        let mut flags: Vec<String> = self.types.iter().map(|t| format!("--type {t}")).collect();
        flags.extend(
            self.resource_prefix
                .iter()
                .map(|p| format!("--resource-prefix {p}")),
        );
        flags.extend(self.no_schema.then(|| "--no-schema".to_owned()));
        flags.push(format!("--expiry-precision {}", self.expiry_precision));
        let ignores = self.ignore_unknown_fields;
        flags.extend(ignores.then(|| "--ignore-unknown-fields".to_owned()));
        flags.extend(self.compression.iter().map(|kind| format!("--{kind}")));
        flags
    }

    /// What differs from the flags with which an export began, for a message.
    fn difference(&self, began: &Self) -> Option<String> {
        (self != began).then(|| {
            let (began, now) = (began.flags().join(" "), self.flags().join(" "));
            format!("it was begun with {began}, and this command has {now}")
        })
    }
}

impl Journal {
    /// That of a stream of which nothing was written yet.
    pub(crate) fn new(revision: String, schema: Digest, content: Content) -> Self {
        Self {
            format: FORMAT.to_owned(),
            begun_at: String::new(),
            endpoint: String::new(),
            revision,
            schema,
            content,
            header: Digest::default(),
            plan: Plan::default(),
            shards: Shards::default(),
            sum: StoredSum::default(),
            bytes: 0,
            bytes_digest: Digest::default(),
            checksum: None,
        }
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            bytes: self.bytes,
            digest: self.bytes_digest,
        }
    }

    /// Refuses flags with which the stream would be another one. `at` is the revision of `--at`.
    pub(crate) fn check_flags(
        &self,
        content: &Content,
        at: Option<&str>,
        partial: &Path,
    ) -> Result<(), CommandError> {
        let other_revision = at.filter(|at| *at != self.revision).map(|at| {
            let began = &self.revision;
            format!("it was begun at revision {began}, and this command has --at {at}")
        });
        let Some(difference) = content.difference(&self.content).or(other_revision) else {
            return Ok(());
        };
        let (partial, remove) = (partial.display(), remove_command(partial));
        Err(
            CommandError::usage(format!("{partial} cannot be resumed: {difference}")).hint(
                format!("give the flags with which it was begun; or start over: {remove}"),
            ),
        )
    }

    fn compute_checksum(&self) -> io::Result<Digest> {
        let bare = Self {
            checksum: None,
            ..self.clone()
        };
        Ok(digest_text(&serde_json::to_string(&bare)?))
    }
}

/// The command that throws the progress away.
pub(crate) fn remove_command(partial: &Path) -> String {
    let journal = JournalFile::of(partial);
    format!("rm {} {}", quoted(partial), quoted(&journal.0))
}

/// Where the journal is.
#[derive(Clone, Debug)]
pub(crate) struct JournalFile(PathBuf);

impl JournalFile {
    /// That of a partial file.
    pub(crate) fn of(partial: &Path) -> Self {
        Self(beside(partial, ".journal"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Reads it; `None` where there is none.
    pub(crate) fn load(&self) -> Result<Option<Journal>, CommandError> {
        let shown = self.0.display();
        let mut text = String::new();
        let opened = open_private(&self.0);
        let read = opened.and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                let message = format!("cannot read {shown}: {error}");
                let hint = "nothing was changed: once it can be read, the same command resumes";
                return Err(CommandError::new(Exit::Failed, message).hint(hint));
            }
            _ => {}
        }
        let damaged = |why: String| CommandError::new(Exit::BadData, format!("{shown}: {why}"));
        let journal: Journal = serde_json::from_str(&text)
            .map_err(|error| damaged(format!("no journal of an export: {error}")))?;
        if journal.checksum
            != Some(
                journal
                    .compute_checksum()
                    .map_err(|e| damaged(e.to_string()))?,
            )
        {
            return Err(damaged("altered: it does not have its checksum".to_owned()));
        }
        if journal.format != FORMAT {
            let format = &journal.format;
            return Err(damaged(format!(
                "format {format:?}: this version resumes {FORMAT}"
            )));
        }
        Ok(Some(journal))
    }

    /// Replaces it, durably.
    pub(crate) fn save(&self, journal: &Journal) -> io::Result<()> {
        let sealed = Journal {
            checksum: Some(journal.compute_checksum()?),
            ..journal.clone()
        };
        let new = self.new_file();
        // Of a process that was killed; the partial file's lock excludes another one.
        remove(&new)?;
        let mut file = private().create_new(true).open(&new)?;
        writeln!(file, "{}", serde_json::to_string(&sealed)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.0)?;
        sync_folder(&self.0)
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        remove(&self.new_file())?;
        remove(&self.0)
    }

    fn new_file(&self) -> PathBuf {
        beside(&self.0, ".new")
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
