//! What is unconfirmed as a process ends, kept for the next one beside the position.
//!
//! Without it everything is written again once it has settled, which is right as well and takes longer. So
//! whatever is wrong with this file, it is left unused.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use authzed::zedtoken::Revision;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use spice_cli::files::{beside, open_private, private};
use spice_record::digest::digest_text;

use super::{EarlyChanges, MOST, Written};

/// The largest of these files that is read.
const MOST_BYTES: u64 = 1_000 * MOST as u64;

/// The file beside a position.
pub(crate) struct KeptFile(PathBuf);

impl KeptFile {
    pub(crate) fn beside(position: &Path) -> Self {
        Self(beside(position, ".early"))
    }

    /// Keeps what is unconfirmed at a position, and acknowledged.
    pub(crate) fn save(&self, position: &str, early: &EarlyChanges) {
        let Some(text) = text(position, early).filter(|_| !early.is_empty()) else {
            return;
        };
        let mut options = private();
        let file = options.create(true).truncate(true).open(&self.0);
        if let Err(error) = file.and_then(|mut file| file.write_all(text.as_bytes())) {
            tracing::warn!("early: cannot write {}: {error}", self.0.display());
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// Takes what was kept at this position: it is used once.
    pub(crate) fn take(&self, position: &str) -> EarlyChanges {
        let text = match self.read() {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return EarlyChanges::default();
            }
            Err(error) => {
                tracing::warn!("early: cannot read {}: {error}", self.0.display());
                return EarlyChanges::default();
            }
        };
        // What cannot be removed could be taken again, after other writes.
        let removed = std::fs::remove_file(&self.0);
        if removed.is_err() {
            let _ = private().truncate(true).open(&self.0);
        }
        let parsed = removed.ok().and_then(|()| parse(position, &text));
        parsed.unwrap_or_default()
    }

    fn read(&self) -> io::Result<String> {
        let mut text = String::new();
        let file = open_private(&self.0)?;
        file.take(MOST_BYTES).read_to_string(&mut text)?;
        Ok(text)
    }
}

/// A digest of the rest, the position, then a line for each relationship.
fn text(position: &str, early: &EarlyChanges) -> Option<String> {
    let mut lines = format!("{position}\n");
    let unconfirmed = early.unconfirmed.iter();
    for (key, written) in unconfirmed.filter(|(_, written)| written.is_acknowledged) {
        let Revision::Integer(revision) = written.revision else {
            return None;
        };
        let (fingerprint, key) = (written.fingerprint, STANDARD.encode(key));
        writeln!(lines, "{revision} {fingerprint} {key}").ok()?;
    }
    Some(format!("{}\n{lines}", digest_text(&lines)))
}

fn parse(position: &str, text: &str) -> Option<EarlyChanges> {
    let (digest, lines) = text.split_once('\n')?;
    if digest != digest_text(lines).to_string() {
        return None;
    }
    let mut lines = lines.lines();
    if lines.next()? != position {
        return None;
    }
    let mut early = EarlyChanges::default();
    for line in lines {
        let mut fields = line.split(' ');
        let written = Written {
            revision: Revision::Integer(fields.next()?.parse().ok()?),
            fingerprint: fields.next()?.parse().ok()?,
            is_acknowledged: true,
        };
        let key = STANDARD.decode(fields.next()?).ok()?;
        early.unconfirmed.insert(key, written);
    }
    Some(early)
}
