//! Judges what was seen. Every function here is pure: facts in, findings out.
//!
//! | module | judges |
//! |---|---|
//! | [`contact`] | whether the server is there, TLS, the token |
//! | [`rights`] | the calls that the token may make, and a read-only server |
//! | [`datastore`] | kinds of datastores, versions, zedtokens, one datastore behind both ends |
//! | [`watch`] | whether changes can be followed, there and back |
//! | [`schema`] | whether the target takes the schema, and what it holds |
//! | [`limits`] | limits of both servers, and the largest of a sample |
//! | [`history`] | whether the history outlasts the copy |
//! | [`expiry`] | precision of expiries, and clocks |

mod contact;
mod datastore;
mod expiry;
mod history;
mod limits;
mod rights;
mod schema;
#[cfg(test)]
mod tests;
mod watch;

use std::time::Duration;

use spice_client::same_datastore::Sameness;
use spice_client::settle::INTEGER_SETTLE;
use spice_record::record::Filter;

use crate::facts::{Facts, SchemaFit, SchemaText};
use crate::finding::{Finding, Place, Severity};
use crate::steps::Steps;

/// What is planned.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Steps,
    /// How long the source keeps its history, if that was given.
    pub(crate) gc_window: Option<Duration>,
    /// How long revisions of the source settle, if that was given.
    pub(crate) settle: Option<Duration>,
    /// About how many relationships the source holds, if that was given.
    pub(crate) relationships: Option<u64>,
    /// Whether the target may hold relationships.
    pub(crate) may_be_filled: bool,
    /// What is moved, where others stay.
    pub(crate) filter: Option<Filter>,
}

impl Plan {
    /// How long revisions of this source settle.
    fn settle(&self, source: &Facts) -> Duration {
        self.settle.unwrap_or(match source.kind().needs_settling() {
            true => INTEGER_SETTLE,
            false => Duration::ZERO,
        })
    }
}

/// What is known of both ends.
pub(crate) struct Ends<'a> {
    pub(crate) source: Option<&'a Facts>,
    pub(crate) target: Option<&'a Facts>,
    /// Of two ends that were both reached.
    pub(crate) fit: Option<&'a SchemaFit>,
}

impl Ends<'_> {
    /// What the zedtokens of both show of whether they are one datastore.
    fn sameness(&self) -> Option<Sameness> {
        let head = |facts: Option<&'_ Facts>| facts.and_then(|facts| facts.head.clone());
        Some(Sameness::of(&head(self.source)?, &head(self.target)?))
    }
}

/// All findings, the worst first, and of these the source's before the target's.
pub(crate) fn judge(ends: &Ends<'_>, plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    let sameness = ends.sameness();
    // Then what the target holds is the source's. Nothing may propose to empty it.
    let is_one = matches!(sameness, Some(Sameness::Same(_)));
    let sides = [(Place::Source, ends.source), (Place::Target, ends.target)];
    let sides = sides
        .into_iter()
        .filter_map(|(place, facts)| Some((place, facts?)));
    for (place, facts) in sides {
        findings.extend(contact::judge(place, facts));
        if facts.contact.is_err() {
            continue;
        }
        findings.extend(rights::judge(place, facts, ends, plan));
        findings.extend(datastore::judge(place, facts, plan));
        findings.extend(watch::judge(place, facts, plan));
        findings.extend(limits::judge(place, facts));
        findings.extend(expiry::clock(place, facts));
        match place {
            Place::Source => {
                findings.extend(history::judge(facts, ends.target, plan));
                let types = schema::types(facts, plan);
                findings.extend(types.or_else(|| schema::moved(facts, plan)));
                if ends.fit.is_none() && facts.schema == SchemaText::None {
                    findings.push(schema::none(facts));
                }
            }
            _ if is_one => {}
            _ => findings.extend(schema::holding(facts, sameness.as_ref(), plan)),
        }
    }
    let reached = |facts: Option<&'_ Facts>| facts.is_some_and(|facts| facts.contact.is_ok());
    if let (Some(source), Some(target)) = (ends.source, ends.target)
        && reached(ends.source)
        && reached(ends.target)
    {
        if let Some(sameness) = &sameness {
            findings.extend(datastore::both(source, target, sameness, plan));
        }
        findings.extend(ends.fit.map(|fit| schema::fit(fit, source, target, plan)));
        findings.extend(limits::both(source, target, plan));
        findings.extend(expiry::both(source, target));
    }
    findings.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.place));
    findings
}

/// How bad it is where it matters only for steps that are planned.
fn if_planned(is_planned: bool) -> Severity {
    match is_planned {
        true => Severity::Fails,
        false => Severity::Warns,
    }
}
