//! What a scripted server holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, SystemTime};

use authzed::v1::{Relationship, RelationshipUpdate, relationship_update::Operation};
use authzed::{Error, Written};
use tokio::time::Instant;

use super::errors::{already_exists, too_many_updates};
use super::{Call, End, Rule, token};
use crate::lookup::{ByKey, key};

pub(super) struct State {
    pub(super) relationships: BTreeMap<Vec<u8>, Relationship>,
    pub(super) schema: Option<String>,
    pub(super) revision: u64,
    pub(super) writes: VecDeque<End>,
    pub(super) imports: VecDeque<End>,
    pub(super) import_counts: VecDeque<u64>,
    pub(super) markers: VecDeque<Result<(), Error>>,
    pub(super) schema_writes: VecDeque<End>,
    pub(super) rule: Option<Rule>,
    pub(super) max_updates: usize,
    pub(super) latency: Duration,
    pub(super) message_time: Duration,
    pub(super) skips_touches: bool,
    pub(super) keeps_expiry: bool,
    /// Writes that are applied at a later time, whatever their callers were answered.
    pub(super) late: Vec<(Instant, Vec<RelationshipUpdate>)>,
    pub(super) calls: Vec<Call>,
    pub(super) in_flight: usize,
    pub(super) max_in_flight: usize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            relationships: BTreeMap::new(),
            schema: None,
            revision: 1_000,
            writes: VecDeque::new(),
            imports: VecDeque::new(),
            import_counts: VecDeque::new(),
            markers: VecDeque::new(),
            schema_writes: VecDeque::new(),
            rule: None,
            max_updates: 1_000,
            latency: Duration::ZERO,
            message_time: Duration::ZERO,
            skips_touches: false,
            keeps_expiry: true,
            late: Vec::new(),
            calls: Vec::new(),
            in_flight: 0,
            max_in_flight: 0,
        }
    }
}

impl State {
    pub(super) fn next_token(&mut self) -> String {
        self.revision += 1;
        token(self.revision)
    }

    pub(super) fn apply_late(&mut self, now: Instant) {
        let late = std::mem::take(&mut self.late);
        let (due, later): (Vec<_>, Vec<_>) = late.into_iter().partition(|(at, _)| *at <= now);
        self.late = later;
        for (_, updates) in due {
            let _ = self.check_and_write(&updates);
        }
    }

    pub(super) fn write(&mut self, updates: &[RelationshipUpdate]) -> Result<Written, Error> {
        if updates.len() > self.max_updates {
            return Err(too_many_updates(self.max_updates));
        }
        self.check_and_write(updates)?;
        Ok(Written {
            token: self.next_token(),
            // A version that does every TOUCH on every datastore.
            server_version: (!self.skips_touches).then(|| "v1.56.0".to_owned()),
        })
    }

    /// All of them or none.
    pub(super) fn check_and_write(&mut self, updates: &[RelationshipUpdate]) -> Result<(), Error> {
        if let Some(error) = self
            .rule
            .as_ref()
            .and_then(|rule| updates.iter().find_map(rule))
        {
            return Err(error);
        }
        let keyed = || {
            let relationships = updates.iter().map(|update| (update, &update.relationship));
            relationships
                .filter_map(|(update, it)| Some((update.operation(), key(it.as_ref()?), it)))
        };
        let mut created = BTreeSet::new();
        for (operation, key, _) in keyed() {
            let is_create = operation == Operation::Create;
            if is_create && (self.relationships.contains_key(&key) || !created.insert(key)) {
                return Err(already_exists());
            }
        }
        for (operation, key, relationship) in keyed() {
            let there = self.relationships.get(&key);
            match (operation, relationship) {
                (Operation::Delete, _) | (_, None) => {
                    self.relationships.remove(&key);
                }
                (Operation::Touch, Some(touched))
                    if self.skips_touches && is_skipped(there, touched) => {}
                (_, Some(written)) => {
                    self.relationships.insert(key, written.clone());
                }
            }
        }
        Ok(())
    }

    pub(super) fn lookup(&self, rows: &[&Relationship]) -> Result<ByKey<Relationship>, Error> {
        let refused = |row: &&Relationship| {
            let id = row.resource.as_ref().map_or("", |it| &it.object_id);
            id.contains('!').then(|| super::refused("INVALID_ARGUMENT"))
        };
        if let Some(error) = rows.iter().find_map(refused) {
            return Err(error);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        let is_visible = |there: &&Relationship| {
            let expiry = there.optional_expires_at.as_ref();
            expiry.is_none_or(|expiry| expiry.seconds > now)
        };
        let found = rows.iter().filter_map(|row| {
            let key = key(row);
            let there = self.relationships.get(&key).filter(is_visible)?;
            Some((key, there.clone()))
        });
        Ok(found.collect())
    }
}

/// MySQL before v1.49 compares what is touched with what is there less its expiry.
fn is_skipped(there: Option<&Relationship>, touched: &Relationship) -> bool {
    let Some(there) = there else {
        return false;
    };
    let without_expiry = Relationship {
        optional_expires_at: None,
        ..there.clone()
    };
    without_expiry == *touched
}
