//! Files that survive a loss of power: the position, the state of a migration.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use crate::cleanup;

/// Replaces a file with one of a line, durably: after a loss of power there is the old one or this one.
///
/// # Errors
///
/// The operating system's; the old file is still there then.
pub fn replace(path: &Path, line: &str) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // tempfile creates with mode 0600.
    let mut file = tempfile::Builder::new()
        .prefix(".replacement.")
        .tempfile_in(folder)?;
    let unfinished = cleanup::file(file.path());
    writeln!(file, "{line}")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    drop(unfinished);
    File::open(folder)?.sync_all()
}
