//! The schema of an input that does not hold it itself.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Component, Path};

use spice_cli::quote::quoted;
use spice_cli::{CommandError, Exit};
use spice_record::record::MAX_SCHEMA_BYTES;
use spice_schema::Schema;

/// The schema that a validation file names. Only one in its own folder, or below, is read: the file may come
/// from somebody else.
pub(crate) fn schema_beside(path: &Path, name: &str, named: &str) -> Result<String, CommandError> {
    // The file may come from somebody else, and the hint is pasted into a shell.
    let hint = format!("--schema-file {}", quoted(named));
    if path == Path::new("-") {
        let message = format!("schemaFile names {named:?}, but {name} has no folder");
        return Err(CommandError::new(Exit::BadData, message).hint(hint));
    }
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    let is_below = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    let mut is_own = Path::new(named).components().all(is_below);
    let path = folder.join(named);
    // Links count as what they lead to; a device or a named pipe is no schema.
    if let (true, Ok(folder), Ok(real)) = (is_own, folder.canonicalize(), path.canonicalize()) {
        is_own = real.starts_with(folder) && real.is_file();
    }
    if !is_own {
        let message =
            format!("{name}: schemaFile names {named:?}, which is no file in or below its folder");
        return Err(CommandError::new(Exit::BadData, message).hint(hint));
    }
    read_schema(&path)
}

/// Reads a schema from a file.
pub(crate) fn read_schema(path: &Path) -> Result<String, CommandError> {
    let name = path.display().to_string();
    let mut text = String::new();
    let read = File::open(path).and_then(|file| {
        file.take(MAX_SCHEMA_BYTES as u64 + 1)
            .read_to_string(&mut text)
    });
    if let Err(error) = read {
        let exit = match error.kind() {
            io::ErrorKind::InvalidData => Exit::BadData,
            _ => Exit::Failed,
        };
        let message = format!("cannot read the schema {name}: {error}");
        return Err(CommandError::new(exit, message));
    }
    if text.trim().is_empty() {
        let message = format!("{name}: no schema in it");
        return Err(CommandError::new(Exit::BadData, message));
    }
    check_schema(&name, &text).map(|()| text)
}

/// Refuses a schema that is too long, or none: what a cut or shifted file holds would become part of a snapshot.
pub(crate) fn check_schema(name: &str, text: &str) -> Result<(), CommandError> {
    let refused = |message: String| CommandError::new(Exit::BadData, message);
    if text.len() > MAX_SCHEMA_BYTES {
        let message = format!("{name}: a schema of more than 4 MiB: no server takes it");
        return Err(refused(message));
    }
    let parsed = Schema::parse(text);
    parsed.map(drop).map_err(|error| {
        refused(format!("{name}: the schema is not understood: {error}"))
            .hint("the file may be cut, or begin with something else: get it again")
    })
}
