//! Limits of both servers, and the largest of a sample.

use super::{Plan, if_planned};
use crate::facts::{Facts, Limit};
use crate::finding::{Finding, Place};

const CHECK: &str = "limits";

/// What SpiceDB v1.56 has by default. Smaller limits are named.
const PAGE: u64 = 1_000;
const UPDATES: u64 = 1_000;
const MESSAGE: u64 = 4 << 20;

pub(super) fn judge(place: Place, facts: &Facts) -> Vec<Finding> {
    let endpoint = &facts.endpoint;
    let mut findings = Vec::new();
    if let Limit::AtMost(page @ ..PAGE) = facts.limits.page {
        findings.push(
            Finding::warns(
                place,
                CHECK,
                format!("{endpoint} allows {page} relationships in a page of an export"),
            )
            .why("pages are read one after the other, so that an export takes longer")
            .remedy(
                "raise --max-bulk-export-relationships-limit of its SpiceDB (10,000 by default)",
            ),
        );
    }
    if place == Place::Target {
        findings.extend(target(facts));
    }
    let known: Vec<String> = [
        ("relationships a page", facts.limits.page),
        ("updates a write", facts.limits.updates),
        ("bytes of a caveat's context", facts.limits.context),
        ("bytes of a request", facts.limits.message),
    ]
    .into_iter()
    .filter_map(|(what, limit)| match limit {
        Limit::Unknown => None,
        Limit::AtMost(limit) => Some(format!("{limit} {what}")),
        Limit::MoreThan(limit) => Some(format!("more than {} {what}", limit.saturating_sub(1))),
    })
    .collect();
    if !known.is_empty() {
        findings.push(Finding::ok(
            place,
            CHECK,
            format!("{endpoint} takes {}", known.join(", ")),
        ));
    }
    findings
}

fn target(facts: &Facts) -> Vec<Finding> {
    let endpoint = &facts.endpoint;
    let mut findings = Vec::new();
    if let Limit::AtMost(updates @ ..UPDATES) = facts.limits.updates {
        findings.push(
            Finding::warns(
                Place::Target,
                CHECK,
                format!("{endpoint} takes {updates} updates in a write"),
            )
            .why(
                "a larger transaction of the source becomes several of the target, which can be read half \
                 done, and follow is slower",
            )
            .remedy("raise --write-relationships-max-updates-per-call of its SpiceDB (1,000 by default)"),
        );
    }
    if let Limit::AtMost(bytes @ ..MESSAGE) = facts.limits.message {
        findings.push(
            Finding::warns(
                Place::Target,
                CHECK,
                format!("{endpoint} takes {bytes} bytes in a request"),
            )
            .why("SpiceDB takes 4 MiB: a proxy in between takes less, so that calls have to be split")
            .remedy("raise the limit of that proxy to 4 MiB"),
        );
    }
    findings
}

/// The largest of the source's sample against the target's limits.
pub(super) fn both(source: &Facts, target: &Facts, plan: &Plan) -> Vec<Finding> {
    let Some(sample) = source.sample else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let of = match sample.is_complete {
        true => "of all".to_owned(),
        false => format!(
            "of a sample of {}, which are the first",
            sample.relationships
        ),
    };
    let (to, largest) = (&target.endpoint, sample.largest_context);
    match target.limits.context {
        Limit::AtMost(limit) if largest > limit => findings.push(
            Finding::new(
                if_planned(plan.steps.follows()),
                Place::Both,
                CHECK,
                format!(
                    "the largest caveat context ({of}) has {largest} bytes, and {to} takes {limit} in a write"
                ),
            )
            .why(
                "a bulk import is not measured by this limit, but every change of such a relationship is: \
                 follow and repairs are refused",
            )
            .remedy(format!(
                "raise --max-relationship-context-size of the target's SpiceDB to at least {largest}"
            )),
        ),
        Limit::Unknown => {}
        _ if largest > 0 => findings.push(Finding::ok(
            Place::Both,
            CHECK,
            format!("the largest caveat context ({of}) has {largest} bytes, which {to} takes in a write"),
        )),
        _ => {}
    }
    if let Limit::AtMost(limit) = target.limits.message
        && sample.largest + 64 > limit
    {
        findings.push(
            Finding::fails(
                Place::Both,
                CHECK,
                format!(
                    "the largest relationship ({of}) has {} bytes, and {to} takes {limit} in a request",
                    sample.largest
                ),
            )
            .why("it cannot be sent at all")
            .remedy("raise the limit of the proxy in front of the target"),
        );
    }
    findings
}
