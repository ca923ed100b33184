//! The calls that the token may make of an end, and a server that takes no writes.

use super::{Ends, Plan};
use crate::facts::{Answer, Facts, SchemaFit, SchemaText};
use crate::finding::{Finding, Place, Severity};
use crate::steps::{Call, Level, Need, needs};

const CHECK: &str = "rights";

pub(super) fn judge(place: Place, facts: &Facts, ends: &Ends<'_>, plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut allowed = Vec::new();
    for need in needs(place, plan.steps) {
        let severity = match need.level {
            Level::May if is_certain(need, facts, plan) => Severity::Fails,
            Level::May => Severity::Warns,
            Level::Must if is_spared(need, ends) => Severity::Warns,
            Level::Must => Severity::Fails,
        };
        match facts.answers.get(&need.call) {
            Some(Answer::Allowed) => allowed.push(need.call.name()),
            Some(Answer::Denied(message)) => findings.push(denied(need, severity, message)),
            Some(Answer::Missing) if need.call != Call::Watch => {
                findings.push(missing(need, severity));
            }
            Some(Answer::Unsure(message)) => findings.push(
                failed(need, severity, message)
                    .remedy(
                        "run the same command again when the server answers; request-timeout in its \
                         context, and --timeout, give it longer",
                    )
                    .passing(),
            ),
            Some(Answer::Failed(message)) => findings.push(
                failed(need, severity, message)
                    .remedy("look at the log of the server for this call"),
            ),
            // Judged where a Watch and writes are; or not asked, as an old server does not have it.
            Some(Answer::Missing | Answer::ReadOnly) | None => {}
        }
    }
    if facts.is_read_only() {
        findings.push(read_only(place, facts, plan));
    }
    if !allowed.is_empty() {
        let names = allowed.join(", ");
        findings.push(Finding::ok(
            place,
            CHECK,
            format!("the token may call {names}"),
        ));
    }
    findings
}

/// Whether a call that is made only sometimes is certain to be made: the definitions are read with --type, and to
/// compare comments that are rendered otherwise than they were written; without a schema the newest revision
/// comes from there.
fn is_certain(need: &Need, facts: &Facts, plan: &Plan) -> bool {
    let has_types = plan
        .filter
        .as_ref()
        .is_some_and(|filter| !filter.types.is_empty());
    let is_read = has_types || facts.lacks_definitions || facts.schema == SchemaText::None;
    need.call == Call::ReflectSchema && is_read
}

/// Nothing has to write a schema that is there.
fn is_spared(need: &Need, ends: &Ends<'_>) -> bool {
    need.place == Place::Target
        && matches!(need.call, Call::WriteSchema | Call::DiffSchema)
        && ends.fit == Some(&SchemaFit::Equal)
}

fn denied(need: &Need, severity: Severity, message: &str) -> Finding {
    let call = need.call.name();
    let found = format!("the token may not call {call}: {message}");
    Finding::new(severity, need.place, CHECK, found)
        .why(need.use_for)
        .remedy(format!(
            "give the token the right to call {call}, or name another one with token-file in the context"
        ))
}

fn missing(need: &Need, severity: Severity) -> Finding {
    let call = need.call.name();
    let found = format!("the server does not have {call}, or has it switched off");
    Finding::new(severity, need.place, CHECK, found)
        .why(need.use_for)
        .remedy("upgrade SpiceDB; docs/versions.md lists what works with which version")
}

fn failed(need: &Need, severity: Severity, message: &str) -> Finding {
    let call = need.call.name();
    let found = format!("whether the token may call {call} is not known: {message}");
    Finding::new(severity, need.place, CHECK, found).why(need.use_for)
}

fn read_only(place: Place, facts: &Facts, plan: &Plan) -> Finding {
    const READ_ONLY: &str = "read-only";
    let endpoint = &facts.endpoint;
    let found = format!("{endpoint} takes no writes: it, or its database, was made read-only");
    match (place, plan.steps.follows()) {
        (Place::Source, false) => Finding::ok(place, READ_ONLY, found),
        (Place::Source, true) => Finding::warns(place, READ_ONLY, found)
            .why(
                "no marker can be written: on PostgreSQL nothing proves that the last change was seen, an \
                 idle Watch can leave the history window, and there is no way back by reverse",
            )
            .remedy(
                "start it without --datastore-readonly; or, if its writes have been stopped for good: \
                 spice-migrate plan --fenced",
            ),
        _ => Finding::fails(place, READ_ONLY, found)
            .why("nothing can be loaded into it")
            .remedy(
                "start it without --datastore-readonly, and its database without \
                 default_transaction_read_only",
            ),
    }
}
