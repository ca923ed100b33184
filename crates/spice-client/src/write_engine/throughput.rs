//! What calls bring, round by round, for the [`Controller`].
//!
//! A round is some calls of one setting. Only calls that are as large as the setting asks are counted, and
//! only the time in which one of them is in flight: a writer that waits for its input learns nothing from
//! that. Calls that were begun with an earlier setting are left out.

use std::time::Duration;

use tokio::time::Instant;

use super::controller::{Bounds, Controller, Round, Setting};

/// A round has so many calls at least, and as many as are in flight twice.
const CALLS: usize = 3;
/// And takes so long at least: shorter ones measure the scheduler.
const ROUND: Duration = Duration::from_millis(50);
/// After this it is over, however few calls have ended.
const LONGEST_ROUND: Duration = Duration::from_secs(2);
/// How often the calls in flight are replaced by others before all of them are awaited.
const WAVES: usize = 4;
/// What is written together is held in memory.
const BATCH: usize = 16_000;
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
        (WAVES * wave)
            .min(second)
            .max(2 * wave)
            .min(BATCH.max(wave))
    }

    /// As [`Controller::limit`].
    pub fn limit(&mut self, size: usize) {
        let before = self.setting();
        self.controller.limit(size);
        self.begin_round(self.setting() != before, Instant::now());
    }

    /// As [`Controller::too_slow`].
    pub fn too_slow(&mut self, size: usize) -> Option<usize> {
        let most = self.controller.too_slow(size);
        self.begin_round(true, Instant::now());
        most
    }

    /// A call of the current setting begins.
    pub fn begin(&mut self) -> Call {
        let began = Instant::now();
        self.active += 1;
        self.since.get_or_insert(began);
        Call {
            generation: self.generation,
            began,
        }
    }

    /// It has ended with more than was measured, and is no measure of the setting.
    pub fn leave_out(&mut self, call: Call) {
        let now = Instant::now();
        self.ended(now);
        if call.generation == self.generation {
            self.begin_round(false, now);
        }
    }

    /// One call less is in flight; how long at least one was, in this round.
    fn ended(&mut self, now: Instant) -> Duration {
        self.active -= 1;
        let busy = self.busy + self.since.map_or(Duration::ZERO, |since| now - since);
        if self.active == 0 {
            self.busy = busy;
            self.since = None;
        }
        busy
    }

    /// It has ended: `count` relationships are acknowledged.
    pub fn end(&mut self, call: Call, count: usize) {
        let now = Instant::now();
        let busy = self.ended(now);
        if call.generation != self.generation {
            return;
        }
        self.calls += 1;
        self.count += count;
        self.time += now - call.began;
        let setting = self.setting();
        let is_complete = self.calls >= CALLS.max(2 * setting.in_flight) && busy >= ROUND;
        if !is_complete && busy < LONGEST_ROUND {
            return;
        }
        let round = Round {
            count: self.count,
            busy,
            call: self.time / u32::try_from(self.calls).unwrap_or(u32::MAX),
        };
        self.controller.observe(&round);
        self.log(&round, setting, now);
        self.begin_round(self.setting() != setting, now);
    }

    fn begin_round(&mut self, is_other_setting: bool, now: Instant) {
        self.generation += u64::from(is_other_setting);
        self.busy = Duration::ZERO;
        self.since = (self.active > 0).then_some(now);
        (self.calls, self.count, self.time) = (0, 0, Duration::ZERO);
    }

    fn log(&mut self, round: &Round, measured: Setting, now: Instant) {
        let setting = self.setting();
        let is_due = self
            .logged
            .is_none_or(|(at, logged)| logged != setting && now - at >= LOG_EVERY);
        if is_due {
            self.logged = Some((now, setting));
            tracing::debug!(
                "calls of {} {} with {} in flight took {} ms, {:.0} {} a second; next: calls of {}, {} in flight",
                measured.size,
                self.what,
                measured.in_flight,
                round.call.as_millis(),
                round.rate(),
                self.what,
                setting.size,
                setting.in_flight
            );
        }
    }
}

#[cfg(test)]
mod tests;
