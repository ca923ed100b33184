//! How the updates of a write are divided into calls.
//!
//! Before each call it is asked how large that is and how many may be in flight; both follow what earlier
//! calls brought ([`Throughput`]). A transaction of the source that is written alone stays one call, if the server
//! takes so many updates; in a backlog transactions are merged first.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::time::Duration;

use authzed::Error;
use spice_cli::lock;

use super::Item;
use super::controller::{Bounds, Setting};
use super::throughput::{Call, TOGETHER, Throughput};

/// SpiceDB's default; the true limit is learned when it is lower.
const MAX_UPDATES_PER_CALL: usize = 1_000;
/// Where it starts. Databases plan large calls badly: MariaDB 10.11 plans a call of 200 in 20 ms, one of 300
/// in 56 ms and one of 1,000 in 1.2 s (measured on 2 busy cores).
const FIRST_UPDATES_PER_CALL: usize = 100;
/// Calls of fewer pay nowhere.
const LEAST_UPDATES_PER_CALL: usize = 10;
/// A call that takes longer is not made larger; one that takes four times as long is made smaller. Most calls
/// end before the program has to, after a signal.
const SLOW: Duration = Duration::from_millis(500);
/// A server takes no request above 4 MiB.
const BYTES_PER_CALL: usize = 3 << 20;
/// What an update takes in a request beside its relationship, in bytes.
const BYTES_PER_UPDATE: usize = 16;
const TOO_MANY_UPDATES: &str = "TOO_MANY_UPDATES_IN_REQUEST";

/// The size of the next call, and the number of calls in flight.
#[derive(Debug)]
pub(super) struct CallSizing {
    throughput: Mutex<Throughput>,
}

impl CallSizing {
    /// `in_flight`: how many calls are in flight after the first one, and at most.
    pub(super) fn new(in_flight: &RangeInclusive<usize>) -> Self {
        let sizes = FIRST_UPDATES_PER_CALL..=MAX_UPDATES_PER_CALL;
        let [first, most] = Setting::between(sizes, in_flight);
        let bounds = Bounds {
            first,
            most,
            least: LEAST_UPDATES_PER_CALL,
            together: TOGETHER,
            slow: SLOW,
            is_bulk: false,
        };
        Self {
            throughput: Mutex::new(Throughput::new(bounds, "updates")),
        }
    }

    /// The most updates that the server takes in one call, and in time.
    pub(super) fn limit(&self) -> usize {
        lock(&self.throughput).most()
    }

    pub(super) fn setting(&self) -> Setting {
        lock(&self.throughput).setting()
    }

    /// How many updates are best written together.
    pub(super) fn batch(&self) -> usize {
        lock(&self.throughput).batch()
    }

    /// How many updates the next call has, of a transaction or of updates without one.
    pub(super) fn updates_per_call(&self, is_transaction: bool) -> usize {
        match is_transaction {
            true => self.limit(),
            false => self.setting().size,
        }
    }

    /// How many calls may be in flight now.
    pub(super) fn calls_in_flight(&self) -> usize {
        self.setting().in_flight
    }

    /// A call with so many updates begins, of a write with one full call at least; `None` where it is no measure of
    /// the setting. `is_heavy`: its bytes are all that it can hold.
    pub(super) fn begin(&self, updates: usize, is_heavy: bool, is_backlog: bool) -> Option<Call> {
        let mut throughput = lock(&self.throughput);
        let is_full = is_heavy || updates == throughput.setting().size;
        (is_backlog && is_full).then(|| throughput.begin())
    }

    /// It has ended: so many updates are acknowledged.
    pub(super) fn end(&self, call: Call, updates: usize) {
        lock(&self.throughput).end(call, updates);
    }

    /// A call of any size was acknowledged after this time.
    pub(super) fn acknowledged(&self, updates: usize, after: Duration) {
        lock(&self.throughput).acknowledged(updates, after);
    }

    /// A call failed late. Returns how many updates a call has from now on, unless it had so few that their
    /// number cannot be the reason.
    pub(super) fn too_slow(&self, updates: usize) -> Option<usize> {
        lock(&self.throughput).too_slow(updates)
    }

    /// What to do with updates of which the server refuses at least one, or takes fewer in a call.
    pub(super) fn after_refusal(&self, updates: usize, error: &Error) -> AfterRefusal {
        if updates <= 1 {
            return AfterRefusal::Single;
        }
        // Any other limit is of bytes, and is one update's fault.
        if error.reason() != Some(TOO_MANY_UPDATES) {
            return AfterRefusal::Halve;
        }
        let learned = error.limit().and_then(|limit| usize::try_from(limit).ok());
        let limit = learned.unwrap_or(1).clamp(1, updates - 1);
        lock(&self.throughput).limit(limit);
        AfterRefusal::Smaller
    }
}

/// How updates are divided after a refusal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AfterRefusal {
    /// Into calls of as many as the server takes, which is known now.
    Smaller,
    /// In two: one of them is refused.
    Halve,
    /// Not at all: this one is refused.
    Single,
}

/// Updates that wait for their calls, in order.
#[derive(Debug)]
pub(super) struct CallQueue<T> {
    items: VecDeque<T>,
    /// What the write before this one has as well.
    held_back: Vec<T>,
    is_transaction: bool,
}

impl<T: Item> CallQueue<T> {
    /// `is_transaction`: these are one transaction of the source, and are to stay one if the server
    /// takes so many.
    pub(super) fn new(items: Vec<T>, is_transaction: bool, sizing: &CallSizing) -> Self {
        Self {
            is_transaction: is_transaction && items.len() <= sizing.limit(),
            items: items.into(),
            held_back: Vec::new(),
        }
    }

    /// Updates without a transaction; only the first ones have calls before [`release`](Self::release).
    pub(super) fn behind(mut items: Vec<T>, first: usize) -> Self {
        let held_back = items.split_off(first.min(items.len()));
        Self {
            items: items.into(),
            held_back,
            is_transaction: false,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.items.len() + self.held_back.len()
    }

    /// Whether these are a transaction of the source that remains one call.
    pub(super) fn is_transaction(&self) -> bool {
        self.is_transaction
    }

    /// Whether nothing waits for a call, but what is held back.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn holds_back(&self) -> bool {
        !self.held_back.is_empty()
    }

    /// What was held back has calls from now on.
    pub(super) fn release(&mut self) {
        self.items.extend(self.held_back.drain(..));
    }

    /// The updates of the next call, and whether their bytes are all that it can hold; `None` at the end. One that is
    /// too large by itself is a call.
    pub(super) fn next_call(&mut self, sizing: &CallSizing) -> Option<(Vec<T>, bool)> {
        let limit = sizing.updates_per_call(self.is_transaction);
        let (mut call, mut bytes) = (Vec::new(), 0);
        while let Some(item) = self.items.front() {
            let size = item.relationship().map_or(0, prost::Message::encoded_len);
            bytes += size + BYTES_PER_UPDATE;
            if call.len() >= limit || (bytes > BYTES_PER_CALL && !call.is_empty()) {
                break;
            }
            call.extend(self.items.pop_front());
        }
        (!call.is_empty()).then_some((call, bytes > BYTES_PER_CALL))
    }
}

#[cfg(test)]
mod tests {
    use authzed::v1::Relationship;

    use super::*;
    use crate::scripted::{relationship, too_many_updates};

    fn sizes(count: usize, is_transaction: bool, limit: Option<usize>) -> Vec<usize> {
        let sizing = CallSizing::new(&(1..=1));
        if let Some(limit) = limit {
            sizing.after_refusal(1_000, &too_many_updates(limit));
        }
        let items: Vec<Relationship> = (0..count).map(|id| relationship(&id.to_string())).collect();
        let mut queue = CallQueue::new(items.clone(), is_transaction, &sizing);
        let mut calls = Vec::new();
        let mut sent = Vec::new();
        while let Some((call, is_heavy)) = queue.next_call(&sizing) {
            assert!(!is_heavy);
            calls.push(call.len());
            sent.extend(call);
        }
        assert_eq!(sent, items, "each once, in order");
        calls
    }

    #[test]
    fn a_transaction_within_the_limit_is_one_call() {
        assert_eq!(sizes(1_000, true, None), [1_000]);
        assert_eq!(sizes(1, true, None), [1]);
        assert_eq!(sizes(0, true, None), [0; 0]);
    }

    #[test]
    fn what_cannot_be_one_transaction_goes_in_calls_of_100() {
        assert_eq!(
            sizes(1_001, true, None),
            [[100; 10].as_slice(), &[1]].concat()
        );
        assert_eq!(sizes(250, false, None), [100, 100, 50]);
    }

    #[test]
    fn a_learned_limit_bounds_later_calls() {
        assert_eq!(sizes(300, true, Some(300)), [300]);
        assert_eq!(sizes(301, true, Some(300)), [100, 100, 100, 1]);
        assert_eq!(sizes(25, false, Some(10)), [10, 10, 5]);
    }

    #[test]
    fn calls_are_split_by_bytes_and_a_huge_update_is_alone() {
        let sizing = CallSizing::new(&(1..=1));
        let large = |bytes: usize| {
            let mut relationship = relationship("x");
            relationship.relation = "r".repeat(bytes);
            relationship
        };
        let items = vec![
            large(1 << 20),
            large(1 << 20),
            large(1 << 20),
            large(5 << 20),
            large(1),
        ];
        let mut queue = CallQueue::new(items, true, &sizing);
        let mut calls = Vec::new();
        while let Some((call, is_heavy)) = queue.next_call(&sizing) {
            calls.push((call.len(), is_heavy));
        }
        assert_eq!(calls, [(2, true), (1, true), (1, true), (1, false)]);
    }

    #[test]
    fn learned_limit_only_falls_and_stays_above_zero() {
        let sizing = CallSizing::new(&(1..=1));
        let learn = |updates, limit| sizing.after_refusal(updates, &too_many_updates(limit));
        assert_eq!(learn(1_000, 400), AfterRefusal::Smaller);
        assert_eq!(sizing.limit(), 400);
        assert_eq!(learn(100, 900), AfterRefusal::Smaller);
        assert_eq!(sizing.limit(), 99);
        assert_eq!(learn(50, 0), AfterRefusal::Smaller);
        assert_eq!(sizing.limit(), 1);
        assert_eq!(learn(1, 0), AfterRefusal::Single);
    }

    #[test]
    fn any_other_refusal_is_bisected() {
        let sizing = CallSizing::new(&(4..=4));
        let refused = crate::scripted::refused("INVALID_SUBJECT_TYPE");
        assert_eq!(sizing.after_refusal(2, &refused), AfterRefusal::Halve);
        assert_eq!(sizing.after_refusal(1, &refused), AfterRefusal::Single);
        let too_large = crate::scripted::message_too_large();
        assert_eq!(sizing.after_refusal(9, &too_large), AfterRefusal::Halve);
        let after = (sizing.limit(), sizing.calls_in_flight());
        assert_eq!(after, (1_000, 1), "the first call is alone");
    }
}
