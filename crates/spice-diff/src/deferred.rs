//! What cannot be compared at this pair of revisions.
//!
//! On PostgreSQL a revision's snapshot leaves out transactions that overlapped it, though they were
//! delivered, and applied, before it (measured, SpiceDB v1.56). So a target that has everything of the
//! spool through a revision holds more than the source's snapshot at that revision: exactly the
//! relationships of spool records at or before it that it does not see. What differs among these is set
//! aside, to be compared again at a later pair. So is what a side holds twice, as a snapshot of PostgreSQL or MySQL
//! can: the report adds that.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use authzed::zedtoken::revision_of;
use spice_cli::{CommandError, Exit, stdio};
use spice_record::digest::key_digest;
use spice_record::record::Transaction;
use spice_record::relationship::Update;
use spice_record::{Change, Integrity, Record, RecordReader, UpdateReader};
use spice_spool::{Polled, Spool, SpoolReader};

/// Digests of keys.
pub(crate) type Keys = HashSet<u128>;

/// After a restart of its writer a spool may hold a revision again, close behind. Beyond so many keys
/// it does not come any more.
const AGAIN_WITHIN: usize = 1_000_000;

/// The relationships of spool records at or before a revision that it does not see.
///
/// # Errors
///
/// Exit 1 where there is no spool, 65 where it is damaged, was mapped in another way than B, or does not
/// hold the revision.
pub(crate) fn unseen(
    spool: &Path,
    revision: &str,
    mapping: &[String],
) -> Result<Keys, CommandError> {
    let path = spool.display();
    let Some(mut follower) = SpoolReader::open(&Spool::new(spool))? else {
        return Err(CommandError::new(
            Exit::Failed,
            format!("there is no spool {path}"),
        ));
    };
    if follower.header().mapping != mapping {
        return Err(CommandError::new(
            Exit::BadData,
            format!("the spool {path} and B were mapped in different ways: their names cannot be compared"),
        )
        .hint("compare exports that spice-map has not changed"));
    }
    let at = revision_of(revision);
    let mut met = follower
        .header()
        .revision
        .as_deref()
        .map(revision_of)
        .as_ref()
        == Some(&at);
    let (mut keys, mut since) = (Keys::new(), Keys::new());
    while let Polled::Change(change, ..) = follower.next()? {
        let token = match &change {
            Change::Transaction(change) => {
                if at.sees(&revision_of(&change.revision)) != Some(true) {
                    since.extend(keys_of(change));
                }
                &change.revision
            }
            Change::Schema(change) => &change.revision,
            Change::Checkpoint(checkpoint) => &checkpoint.revision,
        };
        if revision_of(token) == at {
            met = true;
            keys.extend(since.drain());
        } else if met && since.len() > AGAIN_WITHIN {
            break;
        }
    }
    if !met {
        return Err(CommandError::new(
            Exit::BadData,
            format!("the spool {path} does not hold B's revision {revision}"),
        )
        .hint("B has to be exported at the source's revision of a sync point of that spool"));
    }
    Ok(keys)
}

/// The relationships of these files: update streams, or updates line by line.
///
/// # Errors
///
/// Exit 1 where one cannot be read, 65 for other records.
pub(crate) fn named(files: &[PathBuf]) -> Result<Keys, CommandError> {
    let mut keys = Keys::new();
    for path in files {
        add_named(path, &mut keys)?;
    }
    Ok(keys)
}

fn add_named(path: &Path, keys: &mut Keys) -> Result<(), CommandError> {
    let (input, name) = stdio::open(path)?;
    let mut records = RecordReader::new(input, name);
    let mut updates = match records.next_record()? {
        Some(Record::Header(header)) => UpdateReader::after(records, header, Integrity::Verified)?,
        Some(Record::Update(line)) if line.checksum.is_some() => {
            let fault = "an update stream without its header: lines are missing";
            return Err(records.fault(fault).into());
        }
        Some(first @ Record::Update(_)) => UpdateReader::by_hand(records, first),
        Some(other) => return Err(records.unexpected("updates", &other).into()),
        None => return Err(records.stream_fault("empty: no updates").into()),
    };
    while let Some(update) = updates.next_update()? {
        keys.extend(key_of(&Update(update)));
    }
    Ok(())
}

fn keys_of(change: &Transaction) -> impl Iterator<Item = u128> {
    change.updates.iter().filter_map(key_of)
}

fn key_of(Update(update): &Update) -> Option<u128> {
    update.relationship.as_ref().map(|one| key_digest(one).0)
}
