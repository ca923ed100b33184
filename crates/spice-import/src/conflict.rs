//! `--on-conflict`: what becomes of rows that the target may hold already.

use authzed::v1::Relationship;
use spice_cli::CommandError;
use spice_client::lookup::{ByKey, key};
use spice_record::ExpiryPrecision;
use spice_record::digest::equal_at_precision;

use crate::chunk::Row;
use crate::rejects::conflict;

/// `--on-conflict`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnConflict {
    /// Stop at the first relationship that differs.
    Fail,
    /// Leave it as it is on the target, name it, and end with exit code 3.
    Skip,
    /// Write the stream's over it.
    Touch,
}

impl OnConflict {
    /// The policy with which an import that ended early resumes: what it has loaded itself must not end
    /// it again.
    pub(crate) fn resume_policy(self) -> &'static str {
        match self {
            Self::Fail | Self::Skip => "skip",
            Self::Touch => "touch",
        }
    }
}

/// The rows of a chunk by what has to be done about them.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    /// The target, or an earlier row, has them already.
    pub(crate) present: u64,
    /// They differ on the target and stay as they are there; with what is known of them.
    pub(crate) skipped: Vec<(Row, Row)>,
    /// They are not visible on the target. In the order of their lines.
    pub(crate) absent: Vec<Row>,
    /// They are touched; what is there has an expiry as they have, or none as they have.
    pub(crate) touch_unchanged: Vec<Row>,
    /// They are touched. They get an expiry, lose one, or are not visible: something that has expired
    /// may be under them.
    pub(crate) touch: Vec<Row>,
}

/// Sorts rows by what the target holds under their keys.
///
/// # Errors
///
/// The conflict that ends the import.
pub(crate) fn sort(
    rows: &[Row],
    there: ByKey<Relationship>,
    policy: OnConflict,
    precision: ExpiryPrecision,
) -> Result<Sorted, CommandError> {
    let expires = |relationship: &Relationship| relationship.optional_expires_at.is_some();
    let expires_there: ByKey<bool> = there
        .iter()
        .map(|(key, relationship)| (key.clone(), expires(relationship)))
        .collect();
    let mut known: ByKey<Row> = there
        .into_iter()
        .map(|(key, relationship)| (key, Row::of_target(relationship)))
        .collect();
    let mut sorted = Sorted::default();
    let mut absent: ByKey<Row> = ByKey::new();
    let mut touch: ByKey<Row> = ByKey::new();
    for row in rows {
        let key = key(&row.relationship);
        let Some(other) = known.get(&key) else {
            // A stream made by hand may hold a relationship twice: the first one counts as there.
            known.insert(key.clone(), row.clone());
            absent.insert(key, row.clone());
            continue;
        };
        if equal_at_precision(&row.relationship, &other.relationship, precision) {
            sorted.present += 1;
            continue;
        }
        match policy {
            OnConflict::Fail => return Err(conflict(row, other)),
            OnConflict::Skip => sorted.skipped.push((row.clone(), other.clone())),
            OnConflict::Touch => {
                // Of several, the last one wins, and is written for all of them.
                let replaced = absent.remove(&key).or_else(|| touch.remove(&key));
                sorted.present += u64::from(replaced.is_some());
                known.insert(key.clone(), row.clone());
                touch.insert(key, row.clone());
            }
        }
    }
    sorted.absent = in_order(absent);
    (sorted.touch_unchanged, sorted.touch) = in_order(touch).into_iter().partition(|row| {
        let there = expires_there.get(&key(&row.relationship));
        there == Some(&expires(&row.relationship))
    });
    Ok(sorted)
}

fn in_order(rows: ByKey<Row>) -> Vec<Row> {
    let mut rows: Vec<Row> = rows.into_values().collect();
    rows.sort_by_key(|row| row.line);
    rows
}
