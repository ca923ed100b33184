//! The code of the programs: what of `crates` is not generated, and of no test.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Folders that no program is made of.
const OTHERS: [&str; 7] = [
    "generated",
    "tests",
    "testserver",
    "testdata",
    "xtask",
    "fuzz",
    "floor",
];

/// The files of it below a folder, sorted.
///
/// # Errors
///
/// Those of reading a folder.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        entries.push(entry?.path());
    }
    entries.sort();
    let mut files = Vec::new();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if !OTHERS.contains(&&*name) {
                files.extend(self::files(&path)?);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            files.push(path);
        }
    }
    Ok(files)
}
