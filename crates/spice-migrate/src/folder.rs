//! The folder of a migration on a machine that others use.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::suite::{CommandError, Exit, Outcome, files, quoted};

/// The state folder without `--state`.
pub(crate) const DEFAULT: &str = "migration";

/// The folder as it is used: never like a flag.
pub(crate) fn path(given: &Path) -> Outcome<PathBuf> {
    let text = given.to_string_lossy();
    if text.chars().any(char::is_control) {
        return Err(CommandError::usage("--state has control characters")
            .hint("give a folder without them"));
    }
    Ok(match text.starts_with('-') {
        true => Path::new(".").join(given),
        false => given.to_owned(),
    })
}

/// Makes it, for its owner alone.
pub(crate) fn make(folder: &Path) -> Outcome {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.map_err(|error| {
        let message = format!("cannot make {}: {error}", folder.display());
        CommandError::usage(message).hint("give a folder that you can write with --state")
    })
}

/// Refuses a folder that others can write: they would say what is copied, and from where.
pub(crate) fn only_ours(folder: &Path, same: &str) -> Outcome {
    let shown = folder.display();
    let metadata = match std::fs::metadata(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let message = format!("cannot look at {shown}: {error}");
            return Err(
                CommandError::new(Exit::Failed, message).hint("give another folder with --state")
            );
        }
        Ok(metadata) => metadata,
    };
    let own = files::own_uid();
    if metadata.uid() != own && metadata.uid() != 0 {
        return Err(CommandError::usage(format!(
            "{shown} belongs to another user, who could change what this does"
        ))
        .hint("give a folder of your own with --state"));
    }
    if metadata.mode() & 0o022 != 0 {
        let folder = quoted(folder);
        return Err(CommandError::usage(format!(
            "others can write to {shown}, and so change what this does"
        ))
        .hint(format!("run: chmod go-w {folder}; then run: {same}")));
    }
    Ok(())
}

/// The folder of the way back.
pub(crate) fn reverse(folder: &Path) -> PathBuf {
    folder.join("reverse")
}

/// Removes such folders of runs that were killed. The step is locked.
pub(crate) fn clear_work(folder: &Path, step: &str) {
    let prefix = format!(".{step}.");
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A folder for files of one run, removed at its end.
pub(crate) fn work(folder: &Path, step: &str) -> Outcome<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(&format!(".{step}."))
        .tempdir_in(folder)
        .map_err(|error| {
            let message = format!("cannot make a folder in {}: {error}", folder.display());
            CommandError::new(Exit::Failed, message)
                .hint("give a folder on a local disk with space with --state")
        })
}
