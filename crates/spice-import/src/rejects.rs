//! `--rejects`: the relationships that were refused or skipped, in a file and on stderr.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use authzed::Kind;
use authzed::v1::Relationship;
use prost::Message as _;
use spice_cli::{CommandError, Exit, files};
use spice_record::relationship::DisplayRelationship;
use spice_record::snapshot::write_relationship;

use crate::chunk::Row;

/// How many refused relationships are named on stderr; all of them are in the file.
const NAMED: u64 = 100;

/// Names relationships on stderr, up to a bound, and appends the refused ones to the file.
#[derive(Default)]
pub(crate) struct Rejects {
    file: Option<(File, PathBuf)>,
    rejected: u64,
    /// Why relationships of a shape are refused.
    shapes: HashMap<Vec<u8>, String>,
    /// The `--on-conflict` with which the same import resumes.
    policy: &'static str,
}

impl Rejects {
    /// Opens the file, private and for appending: the same command run again leaves what is there. May wait
    /// for the reader of a named pipe.
    pub(crate) fn open(
        path: Option<&Path>,
        input: &Path,
        policy: &'static str,
    ) -> Result<Self, CommandError> {
        let Some(path) = path else {
            return Ok(Self {
                policy,
                ..Self::default()
            });
        };
        let file = files::append("--rejects", path, &[input])?;
        Ok(Self {
            file: Some((file, path.to_owned())),
            policy,
            ..Self::default()
        })
    }

    /// Appends a row that the target refuses.
    ///
    /// # Errors
    ///
    /// Exit 1 where there is no file for it: then this row ends the import.
    pub(crate) fn reject(&mut self, row: &Row, error: &authzed::Error) -> Result<(), CommandError> {
        const REASONS: [&str; 4] = [
            "UNKNOWN_DEFINITION",
            "UNKNOWN_RELATION_OR_PERMISSION",
            "CANNOT_UPDATE_PERMISSION",
            "INVALID_SUBJECT_TYPE",
        ];
        if error
            .reason()
            .is_some_and(|reason| REASONS.contains(&reason))
        {
            self.shapes
                .insert(shape(&row.relationship), error.message().to_owned());
        }
        let message = error.message();
        if error.kind() == Kind::Internal {
            let message = format!(
                "{message}: perhaps its database cannot hold a value; see the log of the server"
            );
            return self.append(row, &message);
        }
        self.append(row, message)
    }

    /// Appends a row if another one of its shape was refused: it would also be.
    pub(crate) fn reject_by_shape(&mut self, row: &Row) -> Result<bool, CommandError> {
        let Some(reason) = self.shapes.get(&shape(&row.relationship)).cloned() else {
            return Ok(false);
        };
        self.append(row, &reason).map(|()| true)
    }

    fn append(&mut self, row: &Row, reason: &str) -> Result<(), CommandError> {
        let (line, text) = (row.line, DisplayRelationship(&row.relationship));
        let Some((file, path)) = &mut self.file else {
            return Err(CommandError::new(
                Exit::Failed,
                format!("line {line}: the target refuses {text}: {reason}"),
            )
            .hint(format!(
                "--rejects FILE --on-conflict {} continues, and collects what is refused in the file",
                self.policy
            )));
        };
        let mut bytes = Vec::new();
        write_relationship(&mut bytes, &row.relationship)
            .and_then(|()| file.write_all(&bytes))
            .map_err(|error| {
                CommandError::new(
                    Exit::Failed,
                    format!("--rejects {}: {error}", path.display()),
                )
            })?;
        self.rejected += 1;
        if self.rejected <= NAMED {
            tracing::warn!("line {line}: refused {text}: {reason}");
        } else if self.rejected == NAMED + 1 {
            tracing::warn!("more are refused; they are in {}", path.display());
        }
        Ok(())
    }

    /// Names a row that differs on the target and was left as it is there.
    pub(crate) fn skip(&mut self, row: &Row, there: &Row) {
        let (line, text) = (row.line, DisplayRelationship(&row.relationship));
        let other = other(row, there);
        tracing::warn!("line {line}: skipped {text}: {other}");
    }

    /// Makes the file durable, or removes it where nothing is in it.
    pub(crate) fn finish(&mut self) -> Result<(), CommandError> {
        let Some((file, path)) = self.file.take() else {
            return Ok(());
        };
        let sync = || {
            let metadata = file.metadata()?;
            // A device or a pipe is not ours to remove.
            if !metadata.is_file() {
                Ok(())
            } else if metadata.len() == 0 {
                fs::remove_file(&path)
            } else {
                file.sync_all()
            }
        };
        sync().map_err(|error| {
            CommandError::new(
                Exit::Failed,
                format!("--rejects {}: {error}", path.display()),
            )
        })
    }
}

pub(crate) fn conflict(row: &Row, known: &Row) -> CommandError {
    let (line, text) = (row.line, DisplayRelationship(&row.relationship));
    let other = other(row, known);
    CommandError::new(
        Exit::Failed,
        format!("line {line}: conflict of {text}: {other}"),
    )
    .hint("--on-conflict skip leaves it as it is on the target, --on-conflict touch overwrites it")
}

/// What is known under the key of a row that differs from it: on the target (line 0), or on another
/// line of the stream.
fn other(row: &Row, known: &Row) -> String {
    let whose = match known.line {
        0 => "the target holds".to_owned(),
        line => format!("line {line} has"),
    };
    // The texts leave out the context of a caveat, which may be long and is nobody's business.
    let text = DisplayRelationship(&known.relationship).to_string();
    if text == DisplayRelationship(&row.relationship).to_string() {
        format!("{whose} it with another caveat context")
    } else {
        format!("{whose} {text}")
    }
}

/// What decides whether a schema allows a relationship: all of it but ids, context and the time of
/// expiry.
fn shape(relationship: &Relationship) -> Vec<u8> {
    let mut shape = relationship.clone();
    if let Some(resource) = &mut shape.resource {
        resource.object_id.clear();
    }
    if let Some(object) = shape
        .subject
        .as_mut()
        .and_then(|subject| subject.object.as_mut())
        && object.object_id != "*"
    {
        object.object_id.clear();
    }
    if let Some(caveat) = &mut shape.optional_caveat {
        caveat.context = None;
    }
    if let Some(expiry) = &mut shape.optional_expires_at {
        *expiry = authzed::Timestamp::default();
    }
    shape.encode_to_vec()
}

#[cfg(test)]
mod tests;
