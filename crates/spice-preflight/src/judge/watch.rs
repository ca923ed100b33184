//! Whether changes can be followed: from the source there, and from the target back.

use super::{Plan, if_planned};
use crate::facts::{Answer, Facts, Marker};
use crate::finding::{Finding, Place};
use crate::steps::{Call, Steps};

const CHECK: &str = "watch";

/// A slower delivery is named.
const SLOW: f64 = 2.0;

pub(super) fn judge(place: Place, facts: &Facts, plan: &Plan) -> Vec<Finding> {
    let is_planned = match place {
        Place::Source => plan.steps.follows(),
        _ => plan.steps == Steps::All,
    };
    if !is_planned {
        return Vec::new();
    }
    let mut findings = vec![followed(place, facts)];
    findings.extend(facts.marker.as_ref().map(|marker| match marker {
        Ok(marker) => marked(place, marker),
        Err(failure) => {
            let found = format!(
                "no marker could be written and followed: {}",
                failure.message
            );
            let finding = Finding::warns(place, "marker", found)
                .why("follow keeps its place with markers, and cutover ends at one")
                .remedy(failure.hint.clone());
            match failure.passes {
                true => finding.passing(),
                false => finding,
            }
        }
    }));
    findings
}

fn followed(place: Place, facts: &Facts) -> Finding {
    let endpoint = &facts.endpoint;
    let is_source = place == Place::Source;
    let bad = |found: String| Finding::new(if_planned(is_source), place, CHECK, found);
    let why = match is_source {
        true => "follow and cutover read the source's changes",
        false => {
            "there is no way back by reverse: what is written to the target after the switch stays there"
        }
    };
    let fenced = match is_source {
        true => {
            "migrate with writes stopped from copy to switch: --for copy, and spice-migrate plan --fenced"
        }
        false => "plan the switch without a way back by reverse",
    };
    if facts.kind().can_be_followed() == Some(false) {
        return bad(format!(
            "{endpoint} is on {}, which cannot be followed: its Watch leaves the expiry of relationships out",
            facts.kind()
        ))
        .why(why)
        .remedy(fenced);
    }
    if !facts.has.checkpoints {
        return bad(format!(
            "{endpoint} cannot be followed: its Watch has no checkpoints (SpiceDB v1.44 has them), so where \
             its changes end cannot be known"
        ))
        .why(why)
        .remedy(format!("upgrade SpiceDB; or {fenced}"));
    }
    match facts.answers.get(&Call::Watch) {
        Some(Answer::Missing) => bad(format!("{endpoint} does not offer Watch"))
            .why(why)
            .remedy(format!(
                "if its Watch is off, start its SpiceDB without --datastore-disable-watch-support, and its \
                 PostgreSQL with track_commit_timestamp=on; or {fenced}"
            )),
        Some(Answer::Allowed) => Finding::ok(place, CHECK, opened(facts)),
        // Judged with the rights.
        _ => Finding::ok(place, CHECK, format!("the Watch of {endpoint} was not seen at work")),
    }
}

fn opened(facts: &Facts) -> String {
    let endpoint = &facts.endpoint;
    match facts.watched {
        Some(watched) => match watched.first {
            Some(first) => format!(
                "the Watch of {endpoint} answers: its first response came after {:.1} s",
                first.as_secs_f64()
            ),
            None => format!(
                "the Watch of {endpoint} opens; it was silent for {:.1} s, as that of an idle server is",
                watched.open.as_secs_f64()
            ),
        },
        None => format!("the Watch of {endpoint} opens"),
    }
}

fn marked(place: Place, marker: &Marker) -> Finding {
    const CHECK: &str = "marker";
    let Some(delivered) = marker.delivered else {
        return Finding::warns(
            place,
            CHECK,
            "a marker was written, and the Watch did not deliver it within 10 s",
        )
        .why("cutover waits, with writes stopped, until the Watch has delivered its marker")
        .remedy(
            "look at the load and the log of the source's SpiceDB; then run the same command again",
        );
    };
    let seconds = delivered.as_secs_f64();
    let found = format!("a marker was written, and the Watch delivered it after {seconds:.2} s");
    match seconds > SLOW {
        false => Finding::ok(place, CHECK, found),
        true => Finding::warns(place, CHECK, found)
            .why("the write downtime of a cutover is at least this long")
            .remedy("shorten --watch-api-heartbeat of the source's SpiceDB, or cut over under less load"),
    }
}
