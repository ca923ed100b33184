//! Whether the source keeps its history for longer than the copy takes.
//!
//! No API returns how long that is, so it has to be given. How long the copy takes is projected from a
//! sample of an export, which is faster than a load: a rate that was measured for the kind of the target
//! bounds it.

use std::time::Duration;

use authzed::DatastoreKind;

use super::Plan;
use crate::facts::Facts;
use crate::finding::{Finding, Place};

const CHECK: &str = "history";

/// SpiceDB's default.
const DEFAULT_WINDOW: Duration = Duration::from_secs(24 * 3600);
/// The markers of follow, by default.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Relationships a second that a load is assumed to reach. Measured with SpiceDB v1.56 on 2 cores: 80,000 on
/// PostgreSQL, 45,000 in memory, 1,000 on Spanner's emulator; 8,300 to 22,500, in the median 20,000, on MariaDB
/// 10.11 beside other work (load 5 to 7; PostgreSQL then 38,000). CockroachDB was not measured.
fn load_rate(kind: DatastoreKind) -> f64 {
    match kind {
        DatastoreKind::Spanner => 1_000.0,
        DatastoreKind::MySql | DatastoreKind::Unknown | DatastoreKind::MemoryOrSpanner => 15_000.0,
        DatastoreKind::Memory | DatastoreKind::Postgres | DatastoreKind::CockroachDb => 40_000.0,
    }
}

/// How long the copy is expected to take.
struct Projection {
    seconds: f64,
    /// Relationships a second.
    rate: f64,
    /// What that is based on.
    basis: String,
}

fn project(source: &Facts, target: Option<&Facts>, plan: &Plan) -> Option<Projection> {
    let sample = source.sample?;
    let read = sample.rate();
    let load = target.filter(|target| target.contact.is_ok());
    let load = load.map_or(f64::INFINITY, |target| load_rate(target.kind()));
    let rate = read.unwrap_or(f64::INFINITY).min(load);
    let (count, counted) = match (plan.relationships, sample.is_complete) {
        (_, true) => (sample.relationships, "all were counted".to_owned()),
        (Some(given), false) => (given, "as given by --relationships".to_owned()),
        (None, false) => (
            sample.relationships,
            format!(
                "no more than {:.1} s of an export counted: --relationships gives their number",
                sample.seconds
            ),
        ),
    };
    let rated = match read {
        _ if !rate.is_finite() => "too few to show a rate".to_owned(),
        Some(read) if read <= load => format!("{read:.0} a second were read"),
        _ => format!("a load into the target is assumed to take {load:.0} a second"),
    };
    let at_least = match sample.is_complete || plan.relationships.is_some() {
        true => "",
        false => "at least ",
    };
    Some(Projection {
        seconds: match rate.is_finite() {
            true => count as f64 / rate,
            false => 0.0,
        },
        rate,
        basis: format!("{at_least}{count} relationships ({counted}), {rated}"),
    })
}

pub(super) fn judge(source: &Facts, target: Option<&Facts>, plan: &Plan) -> Option<Finding> {
    let projection = project(source, target, plan)?;
    let window = plan.gc_window.unwrap_or(DEFAULT_WINDOW);
    let given = match plan.gc_window {
        Some(_) => "as given by --gc-window",
        None => "SpiceDB's default, as no API returns it: --gc-window gives it",
    };
    let mut least = plan.settle(source);
    if plan.steps.follows() {
        least += HEARTBEAT;
    }
    let copy = Duration::try_from_secs_f64(projection.seconds).unwrap_or(Duration::MAX);
    let needed = copy.saturating_add(least);
    let found = format!(
        "the copy is expected to take {}: {}. The source keeps its history for {} ({given})",
        shown(copy),
        projection.basis,
        shown(window),
    );
    let why =
        "a snapshot, and the changes after it, can be read only as long as they are in the history";
    let remedy = format!(
        "raise --datastore-gc-window of the source's SpiceDB to {0} or more, at least until the switch, and \
         give --gc-window what it is then; copy --jobs reads faster",
        window_above(needed.saturating_mul(2))
    );
    Some(if window <= needed {
        let found = match copy >= least {
            true => found,
            false => format!(
                "{found}; settling and the interval of markers take another {}",
                shown(least)
            ),
        };
        Finding::fails(Place::Source, CHECK, found)
            .why(why)
            .remedy(remedy)
    } else if window <= needed.saturating_mul(2) {
        Finding::warns(Place::Source, CHECK, found)
            .why(why)
            .remedy(remedy)
    } else {
        let enough = match projection.rate.is_finite() {
            true => format!(
                ". That is enough for {:.0} relationships at this rate",
                projection.rate * window.as_secs_f64()
            ),
            false => String::new(),
        };
        Finding::ok(Place::Source, CHECK, found + &enough)
    })
}

/// A setting that is certainly above it, in hours.
fn window_above(duration: Duration) -> String {
    format!("{}h", duration.as_secs() / 3_600 + 1)
}

/// A duration as a person reads it.
fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=1 => format!("{:.1} s", duration.as_secs_f64()),
        2..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}
