//! What calls bring, round by round, for the [`Controller`].
//!
//! A round is some calls of one setting. Only calls that are about as large as the setting asks, or that their
//! bytes fill, are counted, and only the time in which one of them is in flight: a writer that waits for its
//! input learns nothing from that. Calls that were begun with an earlier setting are left out.

use std::time::Duration;

use tokio::time::Instant;

use super::controller::{Bounds, Controller, Round, Setting};

/// A round has so many calls at least, and as many as are in flight twice, unless one alone decides.
const CALLS: usize = 3;
/// And takes so long at least: shorter ones measure the scheduler.
const ROUND: Duration = Duration::from_millis(50);
/// And so long if its rate is about the one that it is compared with, or the first one.
const LONG_ROUND: Duration = Duration::from_millis(250);
/// After this it is over once as many calls have ended as are in flight.
const LONGEST_ROUND: Duration = Duration::from_secs(2);
/// How often the calls in flight are replaced by others in one batch.
const WAVES: usize = 4;
/// What is written together is held in memory, of two batches.
const BATCH: usize = 10_000;
/// What is in flight is held twice.
pub const TOGETHER: usize = 8_000;
/// How often a decision is logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// A call in flight.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    generation: u64,
    began: Instant,
}

/// Measures, and asks the controller.
#[derive(Debug)]
pub struct Throughput {
    controller: Controller,
    /// What is in a call, for the log.
    what: &'static str,
    /// Counts the settings.
    generation: u64,
    active: usize,
    /// How many of them were begun with an earlier setting. Until they have ended nothing is counted.
    stale: usize,
    /// Since when at least one call is in flight and counted.
    since: Option<Instant>,
    busy: Duration,
    calls: usize,
    count: usize,
    time: Duration,
    logged: Option<(Instant, Setting)>,
}

impl Throughput {
    /// `what`: what is in a call, in the plural.
    #[must_use]
    pub fn new(bounds: Bounds, what: &'static str) -> Self {
        Self {
            controller: Controller::new(bounds),
            what,
            generation: 0,
            active: 0,
            stale: 0,
            since: None,
            busy: Duration::ZERO,
            calls: 0,
            count: 0,
            time: Duration::ZERO,
            logged: None,
        }
    }

    /// The setting for the next call.
    #[must_use]
    pub fn setting(&self) -> Setting {
        self.controller.setting()
    }

    /// The most that is put into a call.
    #[must_use]
    pub fn most(&self) -> usize {
        self.controller.most()
    }

    /// How many fill the calls in flight several times: twice, or more if that takes no longer than about a
    /// second.
    #[must_use]
    pub fn batch(&self) -> usize {
        let Setting { size, in_flight } = self.setting();
        let wave = size * in_flight;
        let second = self
            .controller
            .rate()
            .map_or(usize::MAX, |rate| rate as usize);
        (WAVES * wave).min(second).max(2 * wave).min(BATCH)
    }

    /// As [`Controller::limit`].
    pub fn limit(&mut self, size: usize) {
        self.adjust("the server takes no more in a call", |controller| {
            controller.limit(size);
        });
    }

    /// As [`Controller::too_slow`].
    pub fn too_slow(&mut self, size: usize) -> Option<usize> {
        self.adjust("a call took too long", |controller| {
            controller.too_slow(size)
        })
    }

    /// A call of any size was acknowledged, as [`Controller::acknowledged`].
    pub fn acknowledged(&mut self, size: usize, after: Duration) {
        self.adjust("calls of that size are quick", |controller| {
            controller.acknowledged(size, after);
        });
    }

    /// Reports something to the controller. Another setting begins a round of its own.
    fn adjust<T>(&mut self, why: &str, report: impl FnOnce(&mut Controller) -> T) -> T {
        let before = self.setting();
        let answer = report(&mut self.controller);
        if self.setting() != before {
            let now = Instant::now();
            self.log(now, || why.to_owned());
            self.begin_round(true, now);
        }
        answer
    }

    /// A call of the current setting begins.
    pub fn begin(&mut self) -> Call {
        let began = Instant::now();
        self.active += 1;
        if self.stale == 0 {
            self.since.get_or_insert(began);
        }
        Call {
            generation: self.generation,
            began,
        }
    }

    /// It has ended with more than was measured, and is no measure of the setting.
    pub fn leave_out(&mut self, call: Call) {
        let now = Instant::now();
        if self.ended(call, now).is_some() {
            self.begin_round(false, now);
        }
    }

    /// It has ended: `count` relationships are acknowledged.
    pub fn end(&mut self, call: Call, count: usize) {
        let now = Instant::now();
        let Some(busy) = self.ended(call, now) else {
            return;
        };
        self.calls += 1;
        self.count += count;
        self.time += now - call.began;
        let setting = self.setting();
        let is_complete = match self.controller.is_starting() {
            true => self.calls >= setting.in_flight,
            false => self.calls >= CALLS.max(2 * setting.in_flight) && busy >= ROUND,
        };
        if !is_complete && (busy < LONGEST_ROUND || self.calls < setting.in_flight) {
            return;
        }
        let round = Round {
            count: self.count,
            busy,
            call: self.time / u32::try_from(self.calls).unwrap_or(u32::MAX),
        };
        if busy < LONG_ROUND && !self.controller.is_clear(&round) {
            return;
        }
        self.controller.observe(&round);
        let what = self.what;
        self.log(now, || {
            format!(
                "calls of {} {what} with {} in flight took {} ms, {:.0} {what} a second",
                setting.size,
                setting.in_flight,
                round.call.as_millis(),
                round.rate(),
            )
        });
        self.begin_round(self.setting() != setting, now);
    }

    /// One call less is in flight. How long at least one was, in this round, if this one counts.
    fn ended(&mut self, call: Call, now: Instant) -> Option<Duration> {
        self.active -= 1;
        if call.generation != self.generation {
            self.stale -= 1;
            if self.stale == 0 {
                self.begin_round(false, now);
            }
            return None;
        }
        if self.stale > 0 {
            return None;
        }
        let busy = self.busy + self.since.map_or(Duration::ZERO, |since| now - since);
        if self.active == 0 {
            self.busy = busy;
            self.since = None;
        }
        Some(busy)
    }

    fn begin_round(&mut self, is_other_setting: bool, now: Instant) {
        if is_other_setting {
            self.generation += 1;
            self.stale = self.active;
        }
        self.busy = Duration::ZERO;
        self.since = (self.active > 0 && self.stale == 0).then_some(now);
        (self.calls, self.count, self.time) = (0, 0, Duration::ZERO);
    }

    /// Reports why the setting is what it is, where it has changed, and not too often.
    fn log(&mut self, now: Instant, why: impl FnOnce() -> String) {
        let setting = self.setting();
        let is_due = self
            .logged
            .is_none_or(|(at, logged)| logged != setting && now - at >= LOG_EVERY);
        if is_due {
            self.logged = Some((now, setting));
            tracing::debug!(
                "{}; next: calls of {}, {} in flight",
                why(),
                setting.size,
                setting.in_flight
            );
        }
    }
}

#[cfg(test)]
mod tests;
