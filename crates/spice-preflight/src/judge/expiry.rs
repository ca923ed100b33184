//! Precision of expiries, fields that would be lost, and clocks.

use authzed::DatastoreKind;

use crate::facts::Facts;
use crate::finding::{Finding, Place};

/// Seconds by which clocks may differ unnoticed.
const SKEW: f64 = 5.0;

/// The clock behind a server, and fields that only it knows.
pub(super) fn clock(place: Place, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![skew(place, facts)];
    if place == Place::Source {
        findings.extend(fields(facts));
    }
    findings
}

fn skew(place: Place, facts: &Facts) -> Finding {
    const CHECK: &str = "clock";
    let endpoint = &facts.endpoint;
    let Some(clock) = facts.clock else {
        return Finding::ok(
            place,
            CHECK,
            format!("the revisions of {endpoint} do not show its clock"),
        );
    };
    let is_off = clock.ahead > SKEW || (clock.is_now && clock.ahead < -SKEW);
    if !is_off {
        return Finding::ok(
            place,
            CHECK,
            match clock.is_now {
                true => format!("the clock of {endpoint} is that of this machine, to {SKEW} s"),
                false => format!("the clock of {endpoint} is not ahead of this machine's"),
            },
        );
    }
    let (by, direction) = match clock.ahead > 0.0 {
        true => (clock.ahead, "ahead of"),
        false => (-clock.ahead, "behind"),
    };
    let found = format!("the clock of {endpoint} is {by:.0} s {direction} this machine's");
    let finding = match facts.may_expire() {
        true => Finding::warns(place, CHECK, found),
        false => Finding::ok(place, CHECK, found),
    };
    finding
        .why(
            "each server judges an expiry by its own clock: a relationship that is about to expire on one \
             end, and no longer on the other",
        )
        .remedy("synchronise the clocks of both servers and of this machine (NTP)")
}

/// Fields that the source knows and this version does not.
fn fields(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "fields";
    let endpoint = &facts.endpoint;
    let Some(unknown) = &facts.unknown_fields else {
        return Some(Finding::ok(
            Place::Source,
            CHECK,
            format!(
                "{endpoint} does not describe its API; a field that is not known would end the export with an \
                 error"
            ),
        ));
    };
    if unknown.is_empty() {
        return Some(Finding::ok(
            Place::Source,
            CHECK,
            "all fields of relationships are known to this version",
        ));
    }
    let names = spice_cli::display::few(unknown.iter().cloned());
    Some(
        Finding::warns(
            Place::Source,
            CHECK,
            format!("{endpoint} has fields that this version does not know: {names}"),
        )
        .why("the export ends with an error at the first relationship that has one")
        .remedy(
            "use a newer version of these programs; --ignore-unknown-fields of spice-export and spice-watch \
             loses them",
        ),
    )
}

/// Whether the target keeps the expiries of the source.
pub(super) fn both(source: &Facts, target: &Facts) -> Option<Finding> {
    const CHECK: &str = "expiry";
    if !source.may_expire() {
        return None;
    }
    let (from, to) = (&source.endpoint, &target.endpoint);
    if !target.has.expiry {
        return Some(
            Finding::fails(
                Place::Target,
                CHECK,
                format!("relationships of {from} expire, and {to} does not know expiries"),
            )
            .why("it would grant for ever")
            .remedy("upgrade the target's SpiceDB to v1.40 or newer"),
        );
    }
    if target.takes_expiry == Some(false) {
        return Some(
            Finding::fails(
                Place::Target,
                CHECK,
                format!("relationships of {from} expire, and {to} has expiries switched off"),
            )
            .why("it refuses the schema, and every relationship that expires")
            .remedy(
                "start its SpiceDB with --enable-experimental-relationship-expiration (v1.40 to v1.45), or \
                 upgrade it",
            ),
        );
    }
    let resolution = |kind: DatastoreKind| kind.expiry_resolution();
    let (source_kind, target_kind) = (source.kind(), target.kind());
    let is_coarser = match (resolution(source_kind), resolution(target_kind)) {
        (Some(from), Some(to)) => to > from,
        _ => false,
    };
    if !is_coarser || resolution(target_kind) < Some(1_000_000_000) {
        return Some(Finding::ok(
            Place::Target,
            CHECK,
            format!(
                "relationships of {from} expire, and {to} keeps that to the microsecond, or as precisely as {from}"
            ),
        ));
    }
    let seen = source.sample.map_or(0, |sample| sample.below_seconds);
    Some(
        Finding::warns(
            Place::Target,
            CHECK,
            format!(
                "{target_kind} keeps an expiry to the second, and {source_kind} more of it ({seen} in the \
                 sample have a fraction)"
            ),
        )
        .why("a grant ends up to a second earlier; both ends are compared to the second")
        .remedy("nothing, if a second does not matter; otherwise use another datastore for the target"),
    )
}
