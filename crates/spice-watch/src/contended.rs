//! Relationships whose state does not follow from the order of their events.
//!
//! MySQL and memory number a transaction when it begins. Of two that overlap the one with the lower
//! number may be the one that wins: a DELETE at 87 that waited for the TOUCH at 90, and removed it.
//! Watch delivers both, in the order of their numbers, and a replay revives the relationship
//! (measured, SpiceDB v1.56). Only a read at a settled revision shows which won. That needs two events,
//! at least, of transactions that overlap; so a relationship is *contended* if it changed more than
//! once within twice the settle time, and is read at the end of a round.
//!
//! Time is when a revision was seen as head. What comes after a settled revision began at most a settle
//! time before that was seen, and what it overlaps began at most another one before. How late we come
//! to read any of it does not matter.

use std::collections::{HashMap, HashSet};

use authzed::v1::{Relationship, RelationshipUpdate, relationship_update::Operation};
use prost::Message as _;
use spice_client::lookup::{ByKey, key};
use spice_record::ExpiryPrecision;
use spice_record::digest::{equal_at_precision, key_digest};
use tokio::time::{Duration, Instant};

use crate::recent::Recent;

/// With so many to be read, or so many bytes of them, a round is cut. No more are kept to be read again.
const MOST: usize = 20_000;
const MOST_BYTES: usize = 8 << 20;
/// With so many updates a round is also cut: what is between two checkpoints may have to come again.
const LONGEST: usize = 100_000;

/// Tracks what changes, and decides which relationships must be read.
pub(crate) struct Contended {
    settle: Duration,
    recent: Recent,
    pending: HashMap<u128, Pending>,
    /// How many of these are to be read now, and how many later.
    now: Load,
    later: Load,
    /// Updates since the last checkpoint.
    updates: usize,
    /// Whether what is read at a settled revision may be wrong, so that it must be read again.
    must_reread: bool,
    /// Until when what changed before this began is not known.
    unknown_until: Option<Instant>,
    /// When the end of the last round, and of this one, was seen as head.
    settled: Option<Instant>,
    ends: Instant,
    /// Those that were read at another revision than that of this checkpoint.
    doubted: HashSet<u128>,
    /// Whether nothing comes after this round: then nothing can be read later.
    is_last: bool,
}

#[derive(Default)]
struct Load {
    count: usize,
    bytes: usize,
}

impl Load {
    fn is_full(&self) -> bool {
        self.count >= MOST || self.bytes >= MOST_BYTES
    }
}

struct Pending {
    /// The last update in the stream.
    last: RelationshipUpdate,
    /// To be read at a revision that was seen as head at this time or later.
    from: Option<Instant>,
    /// Whether it was seen to change more than once, and is not read only because it may have.
    collided: bool,
}

impl Contended {
    pub(crate) fn new(settle: Duration, must_reread: bool, now: Instant) -> Self {
        Self {
            settle,
            recent: Recent::new(now),
            pending: HashMap::new(),
            now: Load::default(),
            later: Load::default(),
            updates: 0,
            must_reread,
            unknown_until: None,
            settled: None,
            ends: now,
            doubted: HashSet::new(),
            is_last: false,
        }
    }

    /// How far back a change may matter.
    fn window(&self) -> Duration {
        self.settle * 2
    }

    /// How much of the stream before its last checkpoint is tracked when it is resumed. Where reads are
    /// doubtful also what was read within a settle time, for it was to be read again.
    pub(crate) fn resumed_window(&self) -> Duration {
        match self.must_reread {
            true => self.window() + self.settle,
            false => self.window(),
        }
    }

    /// What changed before `now` is not known: every relationship that changes is read, until nothing
    /// can come that overlaps it.
    pub(crate) fn past_is_unknown(&mut self, now: Instant) {
        self.unknown_until = Some(now + self.window());
    }

    /// A round begins, to a revision that was seen as head at this time.
    pub(crate) fn begin(&mut self, ends: Instant) {
        self.ends = ends;
        if let (Some(until), Some(settled)) = (self.unknown_until, self.settled)
            && settled >= until
        {
            self.unknown_until = None;
        }
    }

    /// The last round begins, to a marker behind which nothing is in flight.
    pub(crate) fn begin_last(&mut self, ends: Instant) {
        self.begin(ends);
        self.is_last = true;
    }

    /// These were emitted.
    pub(crate) fn track(&mut self, updates: &[RelationshipUpdate]) {
        self.updates += updates.len();
        for update in updates {
            let Some(relationship) = &update.relationship else {
                continue;
            };
            let key = key_digest(relationship).0;
            let again = self.recent.insert(key);
            let pending = self.pending.get(&key);
            let collided = again || pending.is_some_and(|pending| pending.collided);
            if again || pending.is_some() || self.unknown_until.is_some() {
                self.put(key, update.clone(), None, collided);
            }
        }
    }

    /// These changed, and were left out of the stream.
    pub(crate) fn track_skipped(&mut self, updates: &[RelationshipUpdate]) {
        for relationship in relationships(updates) {
            self.recent.insert(key_digest(relationship).0);
        }
    }

    /// These are states that were read when the stream was written. Where reads are doubtful each is read again:
    /// a wrong one has no second event near it (what made it contended may lie before the tail of a spool), and
    /// who was to read it again may have been stopped.
    pub(crate) fn track_read(&mut self, updates: &[RelationshipUpdate]) {
        for update in updates {
            let Some(relationship) = &update.relationship else {
                continue;
            };
            let key = key_digest(relationship).0;
            match self.pending.get(&key) {
                Some(Pending { collided, .. }) => self.put(key, update.clone(), None, *collided),
                None if self.must_reread => self.put(key, update.clone(), None, true),
                None => {}
            }
        }
    }

    fn put(&mut self, key: u128, last: RelationshipUpdate, from: Option<Instant>, collided: bool) {
        self.remove(key);
        let load = self.load(from);
        load.count += 1;
        load.bytes += weight(&last);
        let pending = Pending {
            last,
            from,
            collided,
        };
        self.pending.insert(key, pending);
    }

    fn remove(&mut self, key: u128) -> Option<Pending> {
        let pending = self.pending.remove(&key)?;
        let load = self.load(pending.from);
        load.count -= 1;
        load.bytes -= weight(&pending.last);
        Some(pending)
    }

    fn load(&mut self, from: Option<Instant>) -> &mut Load {
        match from {
            None => &mut self.now,
            Some(_) => &mut self.later,
        }
    }

    /// Whether there is no room for more.
    pub(crate) fn is_full(&self) -> bool {
        self.now.is_full()
    }

    /// Whether a checkpoint is due, though the round is not at its end.
    pub(crate) fn is_long(&self) -> bool {
        self.updates >= LONGEST || self.is_full()
    }

    /// Whether something was emitted since the last checkpoint.
    pub(crate) fn needs_checkpoint(&self) -> bool {
        self.updates > 0
    }

    /// The last updates of those that are to be read now.
    pub(crate) fn due(&self, ends_round: bool) -> Vec<RelationshipUpdate> {
        let all = ends_round && self.is_last;
        let is_due = |pending: &&Pending| {
            let from = pending.from;
            all || from.is_none_or(|from| ends_round && from <= self.ends)
        };
        let due = self.pending.values().filter(is_due);
        due.map(|pending| pending.last.clone()).collect()
    }

    /// Those of them that are not as their last update left them, where a read may be wrong: it is asked again at a
    /// later revision. Behind the last marker nothing was in flight.
    /// All of them are read again later, however many there are.
    pub(crate) fn doubtful(
        &mut self,
        due: &[RelationshipUpdate],
        there: &ByKey<Relationship>,
        now: jiff::Timestamp,
    ) -> Vec<RelationshipUpdate> {
        if !self.must_reread || self.is_last {
            return Vec::new();
        }
        let differs = |last: &&RelationshipUpdate| {
            let relationship = last.relationship.as_ref();
            relationship.is_some_and(|one| !leads_to(last, there.get(&key(one)), now))
        };
        let doubtful: Vec<RelationshipUpdate> = due.iter().filter(differs).cloned().collect();
        let keys = relationships(&doubtful).map(|one| key_digest(one).0);
        self.doubted = keys.collect();
        doubtful
    }

    /// Compares what was read with the last updates. Returns the states to emit, because they differ, and how
    /// many differ. At the last end all that collided are emitted, so that spice-apply compares them with the
    /// target.
    pub(crate) fn compare(
        &mut self,
        due: &[RelationshipUpdate],
        there: &ByKey<Relationship>,
        now: jiff::Timestamp,
    ) -> (Vec<RelationshipUpdate>, usize) {
        let (mut states, mut wrong) = (Vec::new(), 0);
        for last in due {
            let Some(relationship) = &last.relationship else {
                continue;
            };
            let digest = key_digest(relationship).0;
            let pending = self.remove(digest);
            let was_read_before = pending
                .as_ref()
                .is_some_and(|pending| pending.from.is_some());
            let collided = pending.is_some_and(|pending| pending.collided);
            let is = there.get(&key(relationship));
            let is_right = leads_to(last, is, now);
            let state = if is_right {
                last.clone()
            } else {
                wrong += 1;
                state(relationship, is)
            };
            if !is_right || (self.is_last && collided) {
                states.push(state.clone());
            }
            let is_doubted = self.doubted.remove(&digest);
            let has_room = !was_read_before && !self.later.is_full();
            if self.must_reread && (is_doubted || has_room) {
                self.put(digest, state, Some(self.ends + self.settle), collided);
            }
        }
        (states, wrong)
    }

    /// Everything so far was emitted, and a checkpoint follows. That may be the end of a round.
    pub(crate) fn checkpoint(&mut self, ends_round: bool) {
        self.updates = 0;
        if ends_round {
            self.settled = Some(self.ends);
            let window = self.window();
            self.recent.forget_before(self.ends, window);
        }
    }
}

/// Takes what a later read shows of the doubtful ones, where that is what their last updates led to: the snapshot of
/// the earlier revision was incomplete.
pub(crate) fn confirm(
    doubtful: &[RelationshipUpdate],
    later: &mut ByKey<Relationship>,
    there: &mut ByKey<Relationship>,
    now: jiff::Timestamp,
) {
    for last in doubtful {
        let Some(key) = last.relationship.as_ref().map(key) else {
            continue;
        };
        if leads_to(last, later.get(&key), now) {
            match later.remove(&key) {
                Some(is) => there.insert(key, is),
                None => there.remove(&key),
            };
        }
    }
}

fn relationships(updates: &[RelationshipUpdate]) -> impl Iterator<Item = &Relationship> {
    let all = updates.iter();
    all.filter_map(|update| update.relationship.as_ref())
}

/// About how much memory it takes.
fn weight(update: &RelationshipUpdate) -> usize {
    2 * update.encoded_len() + 256
}

/// Whether an update leads to what is there. What has expired is not there.
fn leads_to(update: &RelationshipUpdate, is: Option<&Relationship>, now: jiff::Timestamp) -> bool {
    let is_deleted = update.operation() == Operation::Delete;
    let (Some(last), false) = (&update.relationship, is_deleted) else {
        return is.is_none();
    };
    match is {
        None => last.optional_expires_at.is_some_and(|expiry| {
            (expiry.seconds, expiry.nanos) <= (now.as_second(), now.subsec_nanosecond())
        }),
        Some(is) => {
            last.optional_expires_at == is.optional_expires_at
                && equal_at_precision(last, is, ExpiryPrecision::Micros)
        }
    }
}

/// The update that leads to what is there: a touch, or a bare delete.
fn state(relationship: &Relationship, is: Option<&Relationship>) -> RelationshipUpdate {
    let (operation, relationship) = match is {
        Some(is) => (Operation::Touch, is.clone()),
        None => {
            let bare = Relationship {
                optional_caveat: None,
                optional_expires_at: None,
                ..relationship.clone()
            };
            (Operation::Delete, bare)
        }
    };
    RelationshipUpdate {
        operation: operation.into(),
        relationship: Some(relationship),
    }
}

#[cfg(test)]
mod tests;
