//! The state on disk: `state.json`, and `switch.json` as a second record of an ordered switch.
//!
//! Both are written to a temporary file, synced and renamed, and the folder is synced, before a write
//! counts; `history.ndjson` has each of them, for people. The switch is recorded in both before it is
//! announced, so whoever has read the announcement has a folder that records it, even after a loss
//! of power. A folder with `switch.json` counts as switched, whatever `state.json` holds:
//! an older state cannot undo a switch.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use spice_record::digest::{Digest, digest_text};
use spice_record::record::Filter;

use crate::phase::{Phase, Switch};
use crate::state::{End, FORMAT, State, VERSION};
use crate::suite::{CommandError, Exit, files, fsync};

/// The folder of a migration.
#[derive(Clone, Debug)]
pub struct Store(PathBuf);

/// What was written durably: only then it may be announced.
#[derive(Debug)]
pub struct Durable<T>(T);

impl<T> Durable<T> {
    /// What was written.
    pub fn get(&self) -> &T {
        &self.0
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchRecord {
    format: String,
    version: u64,
    source: End,
    target: End,
    /// Of a part of the source: other parts are switched by migrations of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<Filter>,
    switch: Switch,
    /// Of everything above but the format and its version.
    checksum: Digest,
}

impl SwitchRecord {
    fn compute_checksum(&self) -> serde_json::Result<Digest> {
        let ends = [&self.source, &self.target];
        let text = match &self.filter {
            None => serde_json::to_string(&(ends, &self.switch)),
            Some(filter) => serde_json::to_string(&(ends, filter, &self.switch)),
        };
        text.map(|text| digest_text(&text))
    }
}

impl Store {
    /// A folder that need not be there.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// A file of it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Reads the state; `None` where nothing was planned.
    ///
    /// # Errors
    ///
    /// Exit 65 for a damaged file, 2 for one of a newer version or of the old script, 1 where it cannot be
    /// read. Nothing is changed.
    pub fn load(&self) -> Result<Option<State>, CommandError> {
        let Some(bytes) = self.read("state.json")? else {
            if self.file("ends").exists() {
                return Err(CommandError::usage(format!(
                    "{} holds the state of the script scripts/migrate, which this program does not continue",
                    self.0.display()
                ))
                .hint("finish that migration with the script, or plan again with another folder: --state DIR"));
            }
            if self.file("switch.json").exists() {
                return Err(self.damaged(
                    "state.json",
                    "it is missing, and switch.json records an ordered switch",
                ));
            }
            return Ok(None);
        };
        self.check_version("state.json", &bytes)?;
        let state: State =
            serde_json::from_slice(&bytes).map_err(|error| self.damaged("state.json", error))?;
        if state.checksum.is_none() || state.checksum != state.compute_checksum().ok() {
            return Err(self.damaged("state.json", "it does not have its checksum"));
        }
        Ok(Some(self.with_switch(state)?))
    }

    /// A state that is older than the recorded switch gets it.
    fn with_switch(&self, mut state: State) -> Result<State, CommandError> {
        if state.phase.switch().is_none()
            && let Some(switch) = self.load_switch(&state)?
        {
            state.phase = Phase::Switched { switch };
        }
        Ok(state)
    }

    fn load_switch(&self, state: &State) -> Result<Option<Switch>, CommandError> {
        let Some(bytes) = self.read("switch.json")? else {
            return Ok(None);
        };
        self.check_version("switch.json", &bytes)?;
        let record: SwitchRecord =
            serde_json::from_slice(&bytes).map_err(|error| self.damaged("switch.json", error))?;
        let checksum = record.compute_checksum();
        let checksum = checksum.map_err(|error| self.damaged("switch.json", error))?;
        if record.checksum != checksum {
            return Err(self.damaged("switch.json", "it does not have its checksum"));
        }
        let ends = [&record.source, &record.target];
        let ids = |ends: [&End; 2]| ends.map(|end| (end.context.clone(), end.datastore_id.clone()));
        let is_same = ids(ends) == ids([&state.source, &state.target]);
        if !is_same || record.filter != state.filter {
            let (file, [source, target]) = (self.file("switch.json"), ends);
            return Err(CommandError::usage(format!(
                "{} records the switch of another migration: {} from {} ({}) to {} ({})",
                file.display(),
                Filter::described(record.filter.as_ref()),
                source.context,
                source.id(),
                target.context,
                target.id()
            ))
            .hint("bring back this folder's own file, or move that one away if no switch was ordered here"));
        }
        Ok(Some(record.switch))
    }

    /// Replaces the state, durably.
    ///
    /// # Errors
    ///
    /// Exit 1 where that fails. The state before is still there then.
    pub fn save(&self, mut state: State) -> Result<State, CommandError> {
        let failed = |error: &dyn std::fmt::Display| {
            let name = self.file("state.json");
            CommandError::new(
                Exit::Failed,
                format!("cannot write {}: {error}", name.display()),
            )
            .hint("free space on that disk; then run the same command again")
        };
        state.checksum = Some(state.compute_checksum().map_err(|error| failed(&error))?);
        let text = serde_json::to_string_pretty(&state).map_err(|error| failed(&error))?;
        fsync::replace(&self.file("state.json"), &text).map_err(|error| failed(&error))?;
        self.record(&state);
        Ok(state)
    }

    /// Appends the state to the history, which is for people and decides nothing.
    fn record(&self, state: &State) {
        let file = files::private()
            .create(true)
            .append(true)
            .open(self.file("history.ndjson"));
        if let (Ok(mut file), Ok(line)) = (file, serde_json::to_string(state)) {
            let _ = writeln!(file, "{line}");
        }
    }

    /// Changes the state on disk, while no other step of the migration does.
    ///
    /// # Errors
    ///
    /// As [`Store::load`] and [`Store::save`]; exit 2 where nothing was planned.
    pub fn update(&self, change: impl FnOnce(&mut State)) -> Result<State, CommandError> {
        let _alone = self.alone()?;
        let Some(mut state) = self.load()? else {
            return Err(CommandError::usage(format!(
                "there is no plan in {}",
                self.0.display()
            )));
        };
        change(&mut state);
        self.save(state)
    }

    /// Records the switch, durably, in both files.
    ///
    /// # Errors
    ///
    /// Exit 1 where that fails: it must not be announced then.
    pub fn record_switch(
        &self,
        state: &State,
        switch: Switch,
    ) -> Result<Durable<Switch>, CommandError> {
        let failed = |error: &dyn std::fmt::Display| {
            let name = self.file("switch.json");
            CommandError::new(
                Exit::Failed,
                format!("cannot write {}: {error}", name.display()),
            )
        };
        let mut record = SwitchRecord {
            format: FORMAT.to_owned(),
            version: VERSION,
            source: state.source.clone(),
            target: state.target.clone(),
            filter: state.filter.clone(),
            switch: switch.clone(),
            checksum: Digest::default(),
        };
        record.checksum = record.compute_checksum().map_err(|error| failed(&error))?;
        let text = serde_json::to_string_pretty(&record).map_err(|error| failed(&error))?;
        fsync::replace(&self.file("switch.json"), &text).map_err(|error| failed(&error))?;
        let recorded = switch.clone();
        self.update(|state| state.phase = Phase::Switched { switch: recorded })?;
        Ok(Durable(switch))
    }

    /// The lock for changes of the state.
    pub(crate) fn alone(&self) -> Result<File, CommandError> {
        let lock = || {
            let file = files::private()
                .create(true)
                .open(self.file("state.lock"))?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(|error: io::Error| {
            let folder = self.0.display();
            CommandError::new(
                Exit::Failed,
                format!("cannot lock the state in {folder}: {error}"),
            )
            .hint("give a folder on a local disk that you can write with --state")
        })
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, CommandError> {
        let path = self.file(name);
        match files::read_private(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(self.damaged(name, error))
            }
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.display());
                Err(CommandError::new(Exit::Failed, message))
            }
        }
    }

    /// A file of another program or of a newer version is named as such before its fields are read.
    fn check_version(&self, name: &str, bytes: &[u8]) -> Result<(), CommandError> {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| self.damaged(name, error))?;
        if value["format"] != FORMAT {
            return Err(self.damaged(name, format!("its format is not {FORMAT:?}")));
        }
        match value["version"].as_u64() {
            Some(VERSION) => Ok(()),
            Some(newer) if newer > VERSION => Err(CommandError::usage(format!(
                "{} was written by a newer spice-migrate: it has version {newer}, and this one reads {VERSION}",
                self.file(name).display()
            ))
            .hint("continue this migration with that version of the programs")),
            _ => Err(self.damaged(name, "it has no version")),
        }
    }

    fn damaged(&self, name: &str, why: impl std::fmt::Display) -> CommandError {
        let path = self.file(name);
        CommandError::new(Exit::BadData, format!("{} is damaged: {why}", path.display())).hint(
            "nothing was changed; bring back this file from a copy of the folder, or plan again with \
             another folder (--state DIR) unless the switch was announced",
        )
    }
}

/// Removes a file, if it is there.
///
/// # Errors
///
/// The operating system's.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
