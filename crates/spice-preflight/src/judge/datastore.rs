//! Kinds of datastores, versions, zedtokens, and one datastore behind both ends.

use authzed::{DatastoreKind, Written};
use spice_client::same_datastore::{Sameness, datastore_id};
use spice_client::touch::Skips;

use super::Plan;
use crate::facts::{Answer, Facts};
use crate::finding::{Finding, Place, Severity};
use crate::steps::Call;

pub(super) fn judge(place: Place, facts: &Facts, plan: &Plan) -> Vec<Finding> {
    let mut findings = vec![kind(place, facts, plan)];
    findings.extend(unnamed(place, facts));
    if place == Place::Target {
        findings.extend(skipped_touches(facts));
    }
    findings
}

fn kind(place: Place, facts: &Facts, plan: &Plan) -> Finding {
    const CHECK: &str = "datastore";
    let endpoint = &facts.endpoint;
    let kind = match &facts.kind {
        Ok(kind) => *kind,
        Err(failure) => {
            return Finding::fails(place, CHECK, failure.message.clone())
                .why("each program would refuse this context")
                .remedy(failure.hint.clone());
        }
    };
    let version = match &facts.version {
        Some(version) => format!("SpiceDB {version}"),
        None => "a SpiceDB that keeps its version to itself".to_owned(),
    };
    if facts.head.is_none() {
        let found = format!("which datastore {endpoint} has is not known: it gave no revision");
        let why = "what follows from the kind of datastore was not looked at";
        let givers = [Call::ReadSchema, Call::ReflectSchema, Call::CheckBulk];
        let denied = givers
            .into_iter()
            .find(|call| matches!(facts.answers.get(call), Some(Answer::Denied(_))));
        return match denied {
            Some(call) => {
                let (severity, why) = match call {
                    // Not every plan asks it otherwise.
                    Call::CheckBulk => (
                        Severity::Fails,
                        "each step begins with the newest revision of both ends",
                    ),
                    // That is a finding of its own.
                    _ => (Severity::Warns, why),
                };
                Finding::new(severity, place, CHECK, found)
                    .why(why)
                    .remedy(format!("give the token the right to call {}", call.name()))
            }
            None => Finding::fails(place, CHECK, found)
                .why(why)
                .remedy("run the same command again when the server answers")
                .passing(),
        };
    }
    let id = facts.head.as_deref().and_then(datastore_id);
    let id = id.map_or_else(|| "without a name".to_owned(), |id| format!("id {id}"));
    let settles = match plan.settle(facts) {
        settle if settle.is_zero() || place == Place::Target => String::new(),
        settle => format!(
            "; a revision settles for {} s before it is used (--settle)",
            settle.as_secs_f64()
        ),
    };
    let found = format!("{endpoint} is {version} on {kind}, {id}{settles}");
    match kind {
        DatastoreKind::MemoryOrSpanner if place == Place::Target => {
            Finding::warns(place, CHECK, found)
                .why("which of the two it is decides whether there is a way back by reverse")
                .remedy(declare(&facts.context))
        }
        DatastoreKind::MemoryOrSpanner if plan.steps.follows() => Finding::fails(
            place,
            CHECK,
            format!(
                "{endpoint} is in memory or on Spanner, and its answers do not show which. Spanner cannot be \
                 followed"
            ),
        )
        .why("follow and cutover read the source's changes")
        .remedy(declare(&facts.context)),
        DatastoreKind::Unknown => Finding::warns(place, CHECK, found)
            .why("the form of its revisions is not known to this version")
            .remedy(declare(&facts.context)),
        _ => Finding::ok(place, CHECK, found),
    }
}

/// How the kind of a datastore is declared.
fn declare(context: &str) -> String {
    format!("write datastore = \"...\" with its kind into [{context}] of the contexts file")
}

/// A server that does not name its datastore.
fn unnamed(place: Place, facts: &Facts) -> Option<Finding> {
    if facts.names_datastore() != Some(false) {
        return None;
    }
    let found = format!(
        "zedtokens of {} do not name their datastore (SpiceDB v1.45 and older)",
        facts.endpoint
    );
    Some(
        Finding::warns(place, "version", found)
            .why("nothing notices a spool or a position that belongs to another server")
            .remedy("upgrade SpiceDB to v1.47 or newer; or look at the endpoints of both contexts twice"),
    )
}

/// A target that acknowledges touches, and does not do them.
fn skipped_touches(facts: &Facts) -> Option<Finding> {
    let written = Written {
        token: facts.head.clone()?,
        server_version: facts.version.clone(),
    };
    let which = match Skips::of(facts.has.expiry, &written) {
        Skips::Nothing => return None,
        Skips::Removals => "that take an expiry away",
        Skips::Both => "that change only an expiry",
    };
    let found = format!(
        "{} may acknowledge touches {which}, and not do them",
        facts.endpoint
    );
    Some(
        Finding::warns(Place::Target, "version", found)
            .why("such relationships are read again and written twice, which takes longer; none is lost")
            .remedy("upgrade SpiceDB to v1.49 or newer before the migration"),
    )
}

pub(super) fn both(
    source: &Facts,
    target: &Facts,
    sameness: &Sameness,
    plan: &Plan,
) -> Vec<Finding> {
    let mut findings = vec![same_datastore(source, target, sameness)];
    if !matches!(sameness, Sameness::Same(_)) {
        findings.push(zedtokens(source, target, plan));
    }
    findings
}

fn same_datastore(source: &Facts, target: &Facts, sameness: &Sameness) -> Finding {
    const CHECK: &str = "same-datastore";
    let (from, to) = (&source.endpoint, &target.endpoint);
    let mixed_up =
        "if both contexts led to one datastore, the copy would be written into the source";
    match sameness {
        Sameness::Same(id) => Finding::fails(
            Place::Both,
            CHECK,
            format!("source and target are the same datastore: {id} is behind {from} and behind {to}"),
        )
        .why("the copy would be written into the source")
        .remedy(
            "correct the endpoints in the contexts file. (A database restored from a backup of the source \
             has its id: use an empty one)",
        ),
        Sameness::Unknown => Finding::warns(
            Place::Both,
            CHECK,
            "whether source and target are one datastore cannot be known: neither names it",
        )
        .why(mixed_up)
        .remedy("compare the endpoints in the contexts file by hand"),
        Sameness::HalfKnown => Finding::warns(
            Place::Both,
            CHECK,
            "whether source and target are one datastore is not known: only one of them names it",
        )
        .why(mixed_up)
        .remedy("compare the endpoints in the contexts file by hand"),
        Sameness::Different => {
            Finding::ok(Place::Both, CHECK, "source and target are two datastores")
        }
    }
}

/// What becomes of the zedtokens that applications have stored.
fn zedtokens(source: &Facts, target: &Facts, plan: &Plan) -> Finding {
    const CHECK: &str = "zedtokens";
    let after = match plan.steps.follows() {
        true => "After the cutover",
        false => "After the switch",
    };
    // Without a datastore id a token is read as a revision of the target's own.
    if source.names_datastore() == Some(false) && source.kind() == target.kind() {
        return Finding::warns(
            Place::Both,
            CHECK,
            "zedtokens of the source do not name their datastore, and have the form of the target's",
        )
        .why(format!(
            "{after} the target takes a stored zedtoken for a revision of its own: at_least_as_fresh may \
             then give an older answer than it asks for, and at_exact_snapshot another one"
        ))
        .remedy("discard stored zedtokens at the switch, or ask with fully_consistent until they are");
    }
    Finding::ok(
        Place::Both,
        CHECK,
        format!(
            "zedtokens that applications have stored are of the source's datastore. {after} the target takes \
             at_least_as_fresh with them for fully_consistent (--mismatch-zed-token-behavior), and refuses \
             at_exact_snapshot and Watch"
        ),
    )
}
