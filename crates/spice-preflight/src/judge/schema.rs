//! Whether the target takes the source's schema, and what both hold of what is moved.

use spice_cli::quote::quoted;
use spice_client::same_datastore::Sameness;
use spice_schema::Schema;

use super::{Plan, if_planned};
use crate::facts::{Facts, SchemaFit};
use crate::finding::{Finding, Place, Severity};

const CHECK: &str = "schema";

pub(super) fn fit(fit: &SchemaFit, source: &Facts, target: &Facts, plan: &Plan) -> Finding {
    let (from, to) = (&source.endpoint, &target.endpoint);
    let holds = target.sample.is_some_and(|sample| sample.relationships > 0);
    match fit {
        SchemaFit::Equal => {
            Finding::ok(Place::Target, CHECK, format!("{to} has the schema of {from}"))
        }
        SchemaFit::TargetHasNone { is_tried: true } => Finding::ok(
            Place::Target,
            CHECK,
            format!("{to} has no schema, and parses that of {from}"),
        ),
        SchemaFit::TargetHasNone { is_tried: false } => Finding::warns(
            Place::Target,
            CHECK,
            format!(
                "{to} has no schema; whether it takes that of {from} cannot be asked without DiffSchema"
            ),
        )
        .why("the import begins with the schema, and an older version does not parse each newer one")
        .remedy("write the schema to an empty server of the target's version first, to try it"),
        SchemaFit::SourceHasNone => none(source),
        SchemaFit::Differs(difference) => Finding::fails(
            Place::Target,
            CHECK,
            format!("the schema of {to} is not that of {from}: {difference}"),
        )
        .why(match holds {
            true => {
                "the import refuses such a target. Writing the source's schema is refused while \
                 relationships are there under what it leaves out"
            }
            false => "the import refuses such a target",
        })
        .remedy(match plan.filter {
            None => format!(
                "empty the target, its schema as well; or write the source's schema to it, and no relationships: {}",
                write_schema(source, target)
            ),
            Some(_) => "make both schemas equal, what others need there included".to_owned(),
        }),
        SchemaFit::Refused(message) => Finding::fails(
            Place::Target,
            CHECK,
            format!("{to} does not take the schema of {from}: {message}"),
        )
        .why("the import begins with the schema")
        .remedy(
            "upgrade the target's SpiceDB to the version of the source, or take out of the schema what it does \
             not know",
        ),
        SchemaFit::Unknown(message) => unknown(Severity::Warns, from, to, message)
            .remedy("remove what the other findings name; then run the same command again"),
        SchemaFit::Failed {
            message,
            passes: true,
        } => unknown(Severity::Fails, from, to, message)
            .remedy("run the same command again when the server answers")
            .passing(),
        SchemaFit::Failed { message, .. } => unknown(Severity::Fails, from, to, message)
            .remedy("look at the log of the target for DiffSchema"),
    }
}

/// The command that gives the target the source's schema alone: the header of an export holds it.
fn write_schema(source: &Facts, target: &Facts) -> String {
    format!(
        "spice-export --context {} | head -n 1 | spice-import --context {} --no-trailer --schema write \
         --on-conflict fail",
        quoted(&source.context),
        quoted(&target.context)
    )
}

fn unknown(severity: Severity, from: &str, to: &str, message: &str) -> Finding {
    let found = format!("whether {to} takes the schema of {from} is not known: {message}");
    Finding::new(severity, Place::Target, CHECK, found)
        .why("the import begins with the schema, and refuses a target that has another one")
}

/// A source without a schema.
pub(super) fn none(source: &Facts) -> Finding {
    let found = format!("{} has no schema", source.endpoint);
    Finding::fails(Place::Source, CHECK, found)
        .why("there is nothing to migrate")
        .remedy("is it the right server? correct --from, or the endpoint in its context")
}

/// A type that the source's schema does not have: the copy refuses it.
pub(super) fn types(facts: &Facts, plan: &Plan) -> Option<Finding> {
    let filter = plan.filter.as_ref()?;
    let schema = Schema::parse(facts.schema.text()?).ok()?;
    let unknown = |name: &&String| schema.definition(name).is_none();
    let name = filter.types.iter().find(unknown)?;
    let known = schema.definitions().iter();
    let known: Vec<&str> = known.map(|known| known.name.text.as_str()).collect();
    let endpoint = &facts.endpoint;
    let found = format!("--type {name}: the schema of {endpoint} has no such definition");
    Some(
        Finding::fails(Place::Source, "filter", found)
            .why("the copy refuses it")
            .remedy(format!("correct --type; it has: {}", known.join(", "))),
    )
}

/// A source that holds nothing within the filter: a misspelled prefix would be proven to be equal.
pub(super) fn moved(facts: &Facts, plan: &Plan) -> Option<Finding> {
    let (sample, filter) = (facts.sample?, plan.filter.as_ref()?);
    let is_none = sample.is_complete && sample.relationships == 0;
    is_none.then(|| {
        let found = format!("{} holds no relationships of {filter}", facts.endpoint);
        Finding::fails(Place::Source, "filter", found)
            .why("there is nothing to move")
            .remedy("check --type and --resource-prefix: each character counts, upper and lower case differ")
    })
}

/// What the target holds. Whoever empties it has to know that it is not the source.
pub(super) fn holding(facts: &Facts, sameness: Option<&Sameness>, plan: &Plan) -> Option<Finding> {
    const CHECK: &str = "target";
    let sample = facts.sample?;
    let endpoint = &facts.endpoint;
    let count = sample.relationships;
    let filter = plan.filter.as_ref();
    let within = filter.map_or(String::new(), |filter| format!(" of {filter}"));
    if count == 0 {
        return Some(Finding::ok(
            Place::Target,
            CHECK,
            format!("{endpoint} holds no relationships{within}"),
        ));
    }
    let at_least = if sample.is_complete { "" } else { "at least " };
    let found = format!("{endpoint} holds {at_least}{count} relationships{within}");
    let finding = Finding::new(if_planned(!plan.may_be_filled), Place::Target, CHECK, found);
    Some(match plan.may_be_filled {
        true => finding
            .why(
                "what differs there is kept, skipped or overwritten by --on-conflict; what only it holds stays, \
                 and then the copy is found to be different",
            )
            .remedy(
                "make sure that the source has all of it; relationships that are to stay beside those of the \
                 source need --type or --resource-prefix, by which they differ",
            ),
        false => finding
            .why("the import refuses a target that holds relationships which are not from this migration")
            .remedy(match sameness {
                _ if filter.is_some() => {
                    "name another target, or delete these from this one; only if they are meant to be there: \
                     --on-conflict fail|skip|touch"
                }
                Some(Sameness::Different) => {
                    "name another target, or empty this one; only if they are meant to be there: \
                     --on-conflict fail|skip|touch"
                }
                _ => {
                    "make sure by hand that it is not the source; then name another target, or empty this \
                     one; only if they are meant to be there: --on-conflict fail|skip|touch"
                }
            }),
    })
}
