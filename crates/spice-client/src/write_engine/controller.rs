//! How large a call is, and how many are in flight: the setting that the target was seen to take best.
//!
//! It starts small, with one call alone, and looks for a better setting by trying a neighbour: twice the size, twice
//! the calls in flight, or half of either. What pays is kept and tried again in the same direction, what does not is
//! taken back. Then it stays with the setting for longer and longer before it looks again: statistics
//! arrive, caches fill. It knows nothing of servers and clocks: whoever drives it
//! ([`Throughput`](super::throughput::Throughput)) reports to it what a round of calls brought.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Relationships in a call, and calls in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Relationships in a call.
    pub size: usize,
    /// Calls in flight.
    pub in_flight: usize,
}

impl Setting {
    /// The first setting and the largest one.
    #[must_use]
    pub fn between(sizes: RangeInclusive<usize>, in_flight: &RangeInclusive<usize>) -> [Self; 2] {
        let setting = |size, in_flight| Self { size, in_flight };
        [
            setting(*sizes.start(), *in_flight.start()),
            setting(*sizes.end(), *in_flight.end()),
        ]
    }
}

/// Between which settings the controller chooses.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The size of the first calls, and how many are in flight once one has shown what it brings alone.
    pub first: Setting,
    /// The largest of either.
    pub most: Setting,
    /// The smallest size of a call that is tried.
    pub least: usize,
    /// The most relationships in all calls in flight.
    pub together: usize,
    /// A call that takes longer is not made larger, and one that takes [`STUCK`] times as long is made smaller.
    pub slow: Duration,
    /// A larger call costs nothing but time, as in a bulk import: so it is not tried whether that pays. Calls grow,
    /// one at a time, while the next one is expected to end within half of `slow`; then as many as in the first
    /// setting follow, and only their number in flight is tried.
    pub is_bulk: bool,
}

impl Bounds {
    fn start(&self) -> Setting {
        Setting {
            size: self.first.size.clamp(1, self.most.size),
            in_flight: match self.starts_alone() {
                true => 1,
                false => self.in_flight(),
            },
        }
    }

    /// With how many calls in flight the search begins.
    fn in_flight(&self) -> usize {
        self.first.in_flight.clamp(1, self.most.in_flight)
    }

    /// Whether the first call is alone.
    fn starts_alone(&self) -> bool {
        match self.is_bulk {
            true => self.grows(),
            false => self.in_flight() > 1,
        }
    }

    /// Whether calls begin smaller than they may become without a trial.
    fn grows(&self) -> bool {
        self.is_bulk && self.first.size < self.most.size
    }

    /// With how many in flight bulk calls of this size continue at least.
    fn grown(&self, size: usize) -> usize {
        let most = self.most.in_flight.min(self.together / size.max(1));
        self.first.in_flight.min(most)
    }
}

/// What several calls of one setting brought.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Relationships that were acknowledged.
    pub count: usize,
    /// How long at least one call was in flight.
    pub busy: Duration,
    /// How long a call took, on average.
    pub call: Duration,
}

impl Round {
    /// Relationships in a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.busy.as_secs_f64().max(1e-6)
    }
}

/// More has to be faster by so much, less must not be slower at all: what is equally fast stays as it is.
const PAYS: f64 = 1.05;
/// Calls in flight that do not pay are in each other's way: PostgreSQL makes some of them begin again, up to
/// 1.5 s later, with 8 to 16 in flight on 2 cores (SpiceDB v1.56).
const MORE_IN_FLIGHT_PAYS: f64 = 1.15;
/// A rate that differs by less from the one that was kept is measured for longer before it decides.
const CLEAR: f64 = 1.3;
/// The rate falls so much only if the server has changed: then the search begins again at the start.
const FELL: f64 = 2.0;
/// And it rises so much only then, as well: then everything is tried again soon.
const ROSE: f64 = 1.5;
/// After all moves have failed, so many rounds pass before the next one is tried: doubled each time.
const PATIENCE: RangeInclusive<u32> = 4..=64;
/// A call that takes so many times as long as a slow one is made smaller at once.
const STUCK: u32 = 4;
/// So many times as large is the next bulk call at most, and so many times at least, or it stays as it is.
const GROWS: RangeInclusive<usize> = 2..=4;
/// Fewer relationships in a call that failed late are not too many: the target was away.
const TOO_MANY_FROM: usize = 16;

/// A step to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// From one call alone to as many as the search begins with.
    Start,
    MoreInFlight,
    LargerCalls,
    SmallerCalls,
    FewerInFlight,
}

const MOVES: [Move; 4] = [
    Move::MoreInFlight,
    Move::LargerCalls,
    Move::SmallerCalls,
    Move::FewerInFlight,
];

/// A move that is being tried.
#[derive(Clone, Copy, Debug)]
struct Trial {
    tried: Move,
    /// The setting before it.
    from: Setting,
}

/// Chooses the setting.
#[derive(Clone, Debug)]
pub struct Controller {
    bounds: Bounds,
    setting: Setting,
    /// The most relationships in a call that the server takes in time, as far as is known.
    in_time: usize,
    /// The rate of the setting that was kept last, if it has been measured.
    kept: Option<f64>,
    trial: Option<Trial>,
    /// Whether calls are alone and one decides: the first one of all, and bulk calls that grow still.
    is_starting: bool,
    /// The place in [`MOVES`] of the move that is tried next.
    next: usize,
    /// How many moves in a row have failed.
    failed: usize,
    /// Rounds until the next trial, and how many there will be after the next failure of all moves.
    wait: u32,
    patience: u32,
}

impl Controller {
    /// Starts with the first setting of these bounds.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let most = Setting {
            size: bounds.most.size.max(1),
            in_flight: bounds.most.in_flight.max(1),
        };
        let bounds = Bounds { most, ..bounds };
        Self {
            bounds,
            setting: bounds.start(),
            in_time: most.size,
            kept: None,
            trial: None,
            is_starting: bounds.starts_alone(),
            next: 0,
            failed: 0,
            wait: 0,
            patience: *PATIENCE.start(),
        }
    }

    /// The setting for the next call.
    #[must_use]
    pub fn setting(&self) -> Setting {
        self.setting
    }

    /// The most relationships that are put into a call.
    #[must_use]
    pub fn most(&self) -> usize {
        self.bounds.most.size.min(self.in_time)
    }

    /// Whether one call is enough to decide.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.is_starting
    }

    /// Relationships in a second with this setting, once that was measured.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        self.kept
    }

    /// The server announced that it takes no more in a call.
    pub fn limit(&mut self, size: usize) {
        let most = &mut self.bounds.most.size;
        *most = size.clamp(1, *most);
        self.shrink();
    }

    /// A call with so many failed after more than half of the server's time limit: it was too large,
    /// whatever its error is. Returns how many are the most now, unless so few cannot be too many.
    pub fn too_slow(&mut self, size: usize) -> Option<usize> {
        if size < TOO_MANY_FROM {
            return None;
        }
        self.in_time = self.in_time.min(size / 2);
        self.shrink();
        Some(self.most())
    }

    /// A call with so many was acknowledged after this time. A server that was away, or slow for a while, is
    /// given larger ones again.
    pub fn acknowledged(&mut self, size: usize, after: Duration) {
        let most = self.bounds.most.size;
        if self.in_time >= most || after >= self.bounds.slow * STUCK {
            return;
        }
        // As large as is tried now.
        if size >= self.setting.size.min(self.in_time / 2) {
            self.in_time = (self.in_time * 2).min(most);
            let first = self.bounds.start().size.min(self.in_time);
            if self.setting.size < first {
                self.setting.size = first;
                self.restart();
            }
        }
    }

    /// Makes the setting as small as it has to be.
    fn shrink(&mut self) {
        let most = self.most();
        if self.setting.size > most {
            self.setting.size = most;
            self.restart();
        }
    }

    /// Whether what was measured for a short time decides already. Rates of few calls differ by chance, by more
    /// than what one setting is better than its neighbour.
    #[must_use]
    pub fn is_clear(&self, round: &Round) -> bool {
        // The first rate of a setting is what others are compared with, and the first calls of all are slow.
        let change = self.kept.map_or(1.0, |kept| round.rate() / kept);
        let is_similar = (1.0 / CLEAR..=CLEAR).contains(&change);
        self.is_starting || !is_similar || self.is_slow(round, STUCK)
    }

    /// What the calls of the current setting brought; it may have another setting now.
    pub fn observe(&mut self, round: &Round) {
        let rate = round.rate();
        let least = self.bounds.least;
        let is_stuck = self.is_slow(round, STUCK) && self.setting.size > least;
        if self.is_starting {
            self.is_starting = self.grow(round);
            if self.is_starting || (!is_stuck && self.start_in_flight(rate)) {
                return;
            }
        }
        match self.trial.take() {
            Some(Trial { tried, .. }) if self.pays(tried, rate) && !is_stuck => {
                self.kept = Some(rate);
                self.failed = 0;
                self.patience = *PATIENCE.start();
            }
            Some(Trial { from, .. }) => {
                self.setting = from;
                self.setting.size = from.size.min(self.most());
                self.next = (self.next + 1) % MOVES.len();
                self.failed += 1;
                // The rate of what it was taken back to is measured before the next trial.
                self.wait = 1;
                return;
            }
            None => {
                let kept = self.kept.unwrap_or(rate);
                if rate * FELL < kept {
                    // What was right may be what is wrong now.
                    self.setting = self.bounds.start();
                    self.restart();
                    self.is_starting = self.bounds.starts_alone();
                    return;
                }
                if rate > kept * ROSE {
                    self.restart();
                }
                self.kept = Some(self.kept.map_or(rate, |kept| f64::midpoint(kept, rate)));
            }
        }
        if is_stuck {
            self.setting.size = (self.setting.size / 2).max(least);
            self.restart();
            return;
        }
        self.wait = self.wait.saturating_sub(1);
        if self.wait > 0 {
            return;
        }
        if self.failed >= MOVES.len() {
            self.failed = 0;
            self.wait = self.patience;
            self.patience = (self.patience * 2).min(*PATIENCE.end());
            return;
        }
        self.try_next(round);
    }

    /// What was alone, with this rate, is followed by as many in flight as the search begins with; whether that is
    /// more. Unless it is a bulk import, they are alone again if they are slower: they make each other begin again.
    fn start_in_flight(&mut self, rate: f64) -> bool {
        let from = self.setting;
        let is_bulk = self.bounds.is_bulk;
        let is_in_time = self.in_time >= self.bounds.most.size;
        let in_flight = match is_bulk {
            true => self.bounds.grown(from.size),
            false => self.bounds.in_flight(),
        };
        if in_flight <= from.in_flight || (is_bulk && !is_in_time) {
            return false;
        }
        self.setting.in_flight = in_flight;
        if !is_bulk {
            self.kept = Some(rate);
            let tried = Move::Start;
            self.trial = Some(Trial { tried, from });
        }
        true
    }

    /// Makes bulk calls larger; whether that was worth it.
    fn grow(&mut self, round: &Round) -> bool {
        if !self.bounds.grows() {
            return false;
        }
        let Setting { size, in_flight } = self.setting;
        let half = self.bounds.slow.as_secs_f64() / 2.0;
        let in_half = size as f64 * half / round.call.as_secs_f64().max(1e-6);
        let most = self.most().min(self.bounds.together / in_flight);
        let larger = (in_half as usize).min(size * GROWS.end()).min(most);
        let is_worth_it = larger >= size * GROWS.start() || (larger == most && larger > size);
        if is_worth_it {
            self.setting.size = larger;
        }
        is_worth_it
    }

    /// Forgets what was measured, and looks again soon.
    fn restart(&mut self) {
        if self.bounds.is_bulk {
            self.is_starting = self.bounds.grows();
        }
        self.trial = None;
        self.kept = None;
        self.failed = 0;
        self.wait = 0;
        self.patience = *PATIENCE.start();
    }

    fn pays(&self, tried: Move, rate: f64) -> bool {
        let kept = self.kept.unwrap_or(0.0);
        match tried {
            Move::MoreInFlight => rate > kept * MORE_IN_FLIGHT_PAYS,
            Move::LargerCalls => rate > kept * PAYS,
            Move::Start | Move::SmallerCalls | Move::FewerInFlight => rate >= kept,
        }
    }

    fn is_slow(&self, round: &Round, times: u32) -> bool {
        round.call > self.bounds.slow * times
    }

    /// Takes the next move that leads anywhere.
    fn try_next(&mut self, round: &Round) {
        while self.failed < MOVES.len() {
            let tried = MOVES[self.next];
            let from = self.setting;
            let to = self.after(tried, round);
            if to != from {
                self.setting = to;
                self.trial = Some(Trial { tried, from });
                return;
            }
            self.next = (self.next + 1) % MOVES.len();
            self.failed += 1;
        }
    }

    fn after(&self, tried: Move, round: &Round) -> Setting {
        let Setting { size, in_flight } = self.setting;
        let most = Setting {
            size: self.most(),
            ..self.bounds.most
        };
        let to = match tried {
            Move::Start => self.setting,
            Move::LargerCalls | Move::SmallerCalls if self.bounds.is_bulk => self.setting,
            Move::MoreInFlight => Setting {
                in_flight: (in_flight * 2).min(most.in_flight),
                size,
            },
            Move::LargerCalls if self.is_slow(round, 1) => self.setting,
            Move::LargerCalls => Setting {
                size: (size * 2).min(most.size),
                in_flight,
            },
            Move::SmallerCalls => Setting {
                size: size.min((size / 2).max(self.bounds.least)),
                in_flight,
            },
            Move::FewerInFlight => Setting {
                in_flight: in_flight.div_ceil(2),
                size,
            },
        };
        match to.size * to.in_flight > self.bounds.together.max(size * in_flight) {
            true => self.setting,
            false => to,
        }
    }
}

#[cfg(test)]
mod tests;
