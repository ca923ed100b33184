//! A sound spool in segments, and what its follower gives out.

use std::path::{Path, PathBuf};

use spice_cli::CommandError;
use spice_record::Header;
use spice_record::record::StreamKind;
use spice_spool::{Polled, Spool, SpoolReader, SpoolWriter};

use crate::streams::changes;

/// Writes a spool of about so many lines, in segments of so many bytes; gives back its files.
///
/// # Errors
///
/// Those of writing.
pub fn write_spool(path: &Path, lines: u64, segment: u64) -> Result<Vec<PathBuf>, CommandError> {
    let spool = Spool::new(path);
    let (mut writer, _) = SpoolWriter::open(&spool, Some(segment))?;
    writer.header(Header {
        revision: Some("start".to_owned()),
        ..Header::new(StreamKind::Changes, "fuzz", "2026-11-25T00:00:00Z")
    })?;
    for change in changes(lines) {
        let revision = change.completed_revision().map(str::to_owned);
        writer.write(change)?;
        if let Some(revision) = revision {
            writer.rotate(&revision, Some("definition user {}"))?;
        }
    }
    writer.sync()?;
    let numbers = spool.segments().unwrap_or_default();
    Ok(numbers
        .into_iter()
        .map(|number| spool.segment(number))
        .collect())
}

/// What a follower gives out before it has caught up, and whether it refused the rest.
#[must_use]
pub fn follow(path: &Path) -> (Vec<String>, bool) {
    let mut given = Vec::new();
    let mut reader = match SpoolReader::open(&Spool::new(path)) {
        Ok(Some(reader)) => reader,
        Ok(None) => return (given, false),
        Err(_) => return (given, true),
    };
    loop {
        match reader.next() {
            Ok(Polled::Change(change, ..)) => given.push(format!("{change:?}")),
            Ok(Polled::CaughtUp) => return (given, false),
            Err(_) => return (given, true),
        }
    }
}
