//! The controller against simulated targets. The numbers of the models are those of real servers, rounded.

use std::time::Duration;

use super::{Bounds, Controller, Round, Setting};

/// A target: what a call costs, in seconds.
#[derive(Clone, Copy)]
struct Target {
    round_trip: f64,
    call: f64,
    update: f64,
    /// For each pair of updates in a call: databases plan large calls badly.
    pair: f64,
    /// How many calls it works on at the same time.
    workers: f64,
    /// By how much each further call in flight slows all of them.
    contention: f64,
}

const WARM: Target = Target {
    round_trip: 0.0005,
    call: 0.004,
    update: 50e-6,
    pair: 2e-8,
    workers: 2.0,
    contention: 0.0,
};
const COLD: Target = Target {
    update: 1.5e-3,
    ..WARM
};
const MYSQL: Target = Target {
    call: 0.01,
    update: 30e-6,
    pair: 1.2e-6,
    workers: 1.5,
    contention: 0.5,
    ..WARM
};
const MEMORY: Target = Target {
    call: 0.002,
    workers: 1.0,
    pair: 0.0,
    ..WARM
};

/// PostgreSQL behind a slow line: calls that overlap make each other begin again.
const SLOW: Target = Target {
    call: 0.15,
    update: 1.2e-3,
    workers: 1.0,
    contention: 0.3,
    ..WARM
};

impl Target {
    fn at(self, milliseconds: f64) -> Self {
        let round_trip = milliseconds / 1000.0;
        Self { round_trip, ..self }
    }

    /// How long a call takes.
    fn call(self, setting: Setting) -> f64 {
        let (size, in_flight) = (setting.size as f64, setting.in_flight as f64);
        let work = self.call + self.update * size + self.pair * size * size;
        let work = work * (1.0 + self.contention * (in_flight - 1.0));
        (self.round_trip + work).max(in_flight * work / self.workers)
    }

    fn rate(self, setting: Setting) -> f64 {
        (setting.in_flight * setting.size) as f64 / self.call(setting)
    }

    /// The rate of the best setting in a grid.
    fn best(self, in_flight: usize) -> f64 {
        let mut best = 0.0_f64;
        for size in [25, 50, 100, 200, 400, 800, 1_000] {
            for in_flight in [1, 2, 4, 8, 16, 32].into_iter().filter(|&n| n <= in_flight) {
                best = best.max(self.rate(Setting { size, in_flight }));
            }
        }
        best
    }
}

fn bounds(start: usize, most: usize) -> Bounds {
    let [first, most] = Setting::between(100..=1_000, &(start..=most));
    Bounds {
        first,
        most,
        least: 10,
        together: 8_000,
        slow: Duration::from_millis(500),
        is_bulk: false,
    }
}

/// Ten percent up or down: other things run on that machine.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        0.9 + 0.2 * (self.0 % 1_000) as f64 / 1_000.0
    }
}

/// One round with the setting, a longer one where that decides nothing; how long it took, and for how many.
fn round(controller: &mut Controller, target: Target, noise: &mut Noise) -> (usize, f64) {
    let setting = controller.setting();
    let measure = |seconds: f64, noise: f64| {
        let call = target.call(setting) * noise;
        let each = call / setting.in_flight as f64;
        let calls = (2 * setting.in_flight).max(3);
        let calls = calls.max((seconds / each).ceil() as usize);
        let calls = calls.min((2.0 / each).ceil() as usize);
        Round {
            count: calls * setting.size,
            busy: Duration::from_secs_f64(calls as f64 * each),
            call: Duration::from_secs_f64(call),
        }
    };
    let mut round = measure(0.05, noise.next());
    if !controller.is_clear(&round) {
        let mean = (noise.next() + noise.next() + noise.next()) / 3.0;
        round = measure(0.25, mean);
    }
    controller.observe(&round);
    (round.count, round.busy.as_secs_f64())
}

/// The rate over so many updates from the start, the search included.
fn writes(controller: &mut Controller, target: Target, count: usize, noise: &mut Noise) -> f64 {
    let (mut done, mut time) = (0, 0.0);
    while done < count {
        let (more, busy) = round(controller, target, noise);
        done += more;
        time += busy;
    }
    done as f64 / time
}

/// Of an import: 20 us a row beside what a transaction costs.
const BULK: Target = Target {
    call: 0.02,
    update: 20e-6,
    pair: 0.0,
    ..WARM
};

fn bulk(start: usize, most: usize) -> Bounds {
    let [first, most] = Setting::between(1_000..=40_000, &(start..=most));
    Bounds {
        first,
        most,
        least: 1_000,
        together: 80_000,
        slow: Duration::from_secs(2),
        is_bulk: true,
    }
}

#[test]
fn bulk_calls_are_large_after_a_few_however_noisy_their_rate_is() {
    for seed in 1..50 {
        let (mut controller, mut noise) = (Controller::new(bulk(4, 4)), Noise(seed));
        let mut rounds = 0;
        while controller.is_starting() {
            assert_eq!(controller.setting().in_flight, 1);
            round(&mut controller, BULK, &mut noise);
            rounds += 1;
        }
        let Setting { size, in_flight } = controller.setting();
        assert!(size > 30_000, "{size}");
        assert!(rounds <= 6, "{rounds}");
        assert_eq!(in_flight, 80_000 / size, "at once, as many as are held");
    }
}

#[test]
fn bulk_calls_of_a_slow_target_take_no_longer_than_is_slow() {
    let slow = Target {
        update: 1e-3,
        ..BULK
    };
    let (mut controller, mut noise) = (Controller::new(bulk(4, 4)), Noise(7));
    round(&mut controller, slow, &mut noise);
    assert_eq!(controller.setting().in_flight, 4, "they are small enough");
    for _ in 0..40 {
        round(&mut controller, slow, &mut noise);
        assert!(
            slow.call(controller.setting()) < 5.0,
            "{:?}",
            controller.setting()
        );
    }
    controller.too_slow(1_000);
    assert!(controller.setting().size <= 500);
}

#[test]
fn it_comes_near_the_best_setting_of_each_target() {
    for (name, target, (start, most), least) in [
        ("PostgreSQL", WARM, (4, 32), 0.88),
        ("PostgreSQL, 40 ms", WARM.at(40.0), (4, 32), 0.85),
        ("PostgreSQL, 150 ms", WARM.at(150.0), (4, 32), 0.74),
        ("without statistics", COLD, (4, 32), 0.88),
        ("MySQL", MYSQL, (1, 32), 0.85),
        ("MySQL, 40 ms", MYSQL.at(40.0), (1, 32), 0.85),
        ("memory", MEMORY, (1, 1), 0.85),
        ("memory, 40 ms", MEMORY.at(40.0), (1, 1), 0.88),
    ] {
        for seed in 1..=50 {
            let mut controller = Controller::new(bounds(start, most));
            let rate = writes(&mut controller, target, 200_000, &mut Noise(seed));
            let part = rate / target.best(most);
            assert!(part >= least, "{name}, {seed}: {part}, {controller:?}");
        }
    }
}

#[test]
fn slow_target_is_written_to_in_a_few_large_calls_that_end_in_time() {
    for seed in 1..=50 {
        let (mut controller, mut noise) = (Controller::new(bounds(4, 32)), Noise(seed));
        let rate = writes(&mut controller, SLOW, 50_000, &mut noise);
        let part = rate / SLOW.best(32);
        assert!(part >= 0.8, "{seed}: {part}, {controller:?}");
        let call = SLOW.call(controller.setting());
        assert!(call < 2.0, "{seed}: {call} s, {controller:?}");
    }
}

#[test]
fn limit_or_stuck_first_call_does_not_end_the_search() {
    let mut limited = Controller::new(bounds(4, 32));
    limited.limit(50);
    round(&mut limited, WARM, &mut Noise(1));
    let four = Setting {
        size: 50,
        in_flight: 4,
    };
    assert_eq!(limited.setting(), four, "as without a limit");
    let mut stuck = Controller::new(bounds(4, 32));
    let slow = Target {
        update: 60e-3,
        ..WARM
    };
    round(&mut stuck, slow, &mut Noise(1));
    let alone = Setting {
        size: 50,
        in_flight: 1,
    };
    assert_eq!(stuck.setting(), alone, "not four that take as long");
}

#[test]
fn statistics_that_arrive_are_made_use_of() {
    for seed in 1..=50 {
        let mut noise = Noise(seed);
        let mut controller = Controller::new(bounds(4, 32));
        writes(&mut controller, COLD.at(40.0), 60_000, &mut noise);
        let warm = WARM.at(40.0);
        let rate = writes(&mut controller, warm, 400_000, &mut noise);
        let part = rate / warm.best(32);
        assert!(part >= 0.8, "{seed}: {part}, {controller:?}");
    }
}

#[test]
fn contention_takes_calls_in_flight_back() {
    for seed in 1..=50 {
        let mut noise = Noise(seed);
        let mut controller = Controller::new(bounds(4, 32));
        writes(&mut controller, WARM.at(150.0), 200_000, &mut noise);
        assert!(controller.setting().in_flight >= 8, "{controller:?}");
        let contended = Target {
            contention: 0.3,
            ..WARM
        };
        let rate = writes(&mut controller, contended, 400_000, &mut noise);
        let part = rate / contended.best(32);
        assert!(part >= 0.7, "{seed}: {part}, {controller:?}");
        assert!(controller.setting().in_flight <= 4, "{controller:?}");
    }
}

#[test]
fn announced_limit_is_never_exceeded_again() {
    let mut noise = Noise(7);
    let mut controller = Controller::new(bounds(4, 32));
    writes(&mut controller, WARM, 100_000, &mut noise);
    controller.limit(90);
    for _ in 0..500 {
        assert!(controller.setting().size <= 90, "{controller:?}");
        round(&mut controller, WARM, &mut noise);
    }
    // A larger one that comes later, from another server behind the same name, does not raise it.
    controller.limit(1_000);
    assert_eq!(controller.most(), 90);
}

#[test]
fn calls_that_fail_late_are_halved_down_to_few() {
    let mut controller = Controller::new(bounds(4, 32));
    assert_eq!(controller.too_slow(1_000), Some(500));
    assert_eq!(controller.too_slow(500), Some(250));
    // An older call of the larger size raises nothing.
    assert_eq!(controller.too_slow(1_000), Some(250));
    assert_eq!(controller.too_slow(16), Some(8));
    assert_eq!(controller.setting().size, 8);
    assert_eq!(controller.too_slow(8), None, "the target is away");
}

#[test]
fn call_that_takes_long_is_made_smaller_at_once() {
    let mut controller = Controller::new(bounds(1, 1));
    let slow = Target {
        update: 20e-3,
        ..MEMORY
    };
    for _ in 0..6 {
        round(&mut controller, slow, &mut Noise(3));
    }
    let call = slow.call(controller.setting());
    assert!(call < 1.3, "{call} s, {controller:?}");
}

#[test]
fn where_nothing_pays_it_looks_again_more_and_more_seldom() {
    let flat = Target {
        round_trip: 0.0,
        call: 0.0,
        update: 1e-3,
        pair: 0.0,
        workers: 1.0,
        contention: 0.0,
    };
    let mut controller = Controller::new(bounds(1, 4));
    let mut changes = Vec::new();
    for number in 0..600 {
        let before = controller.setting();
        // Without noise, so that less in a call is never faster.
        let call = flat.call(before);
        controller.observe(&Round {
            count: before.size * before.in_flight,
            busy: Duration::from_secs_f64(call * (1.0 + number as f64 * 1e-4)),
            call: Duration::from_secs_f64(call),
        });
        if controller.setting() != before {
            changes.push(number);
        }
    }
    let late = changes.iter().filter(|&&number| number >= 300).count();
    let early = changes.iter().filter(|&&number| number < 300).count();
    assert!(late > 0 && late < early, "{changes:?}");
    assert!(late < 60, "{changes:?}");
}

#[test]
fn bounds_of_one_leave_no_choice() {
    let mut one = bounds(4, 4);
    one.most = Setting {
        size: 1,
        in_flight: 1,
    };
    let mut controller = Controller::new(one);
    for _ in 0..50 {
        round(&mut controller, WARM, &mut Noise(1));
        assert_eq!(controller.setting(), one.most);
    }
}
