//! A schema with other names and without what is dropped or not needed.

use std::collections::{BTreeSet, HashMap, HashSet};

use spice_cli::display::few;
use spice_cli::{CommandError, Exit};
use spice_record::record::MAX_SCHEMA_BYTES;
use spice_schema::{Refused, Remedy, Schema, SyntaxError};

use crate::names::{Name, Named};
use crate::plan::Plan;
use crate::redact::Parameters;

/// What to do about two names that would become one.
pub(crate) const CLASH: &str =
    "give one of the two another new name with --rename OLD=NEW, or leave one out with --drop";

/// What a schema became.
#[derive(Debug, Default)]
pub(crate) struct MappedSchema {
    pub(crate) text: String,
    /// What the flags name and it does not have.
    pub(crate) missing: BTreeSet<Named>,
    /// Those before the change, by their old names.
    pub(crate) definitions: BTreeSet<String>,
    /// Relations that were removed because they have no types any more, each with its definition, by their
    /// old names.
    pub(crate) lost: BTreeSet<(String, String)>,
    /// Of caveats, by their old names.
    pub(crate) parameters: HashMap<String, Parameters>,
    /// What it still has, by old names: definitions with their relations and permissions, and caveats.
    pub(crate) kept: Vec<(String, Vec<String>)>,
}

/// What a name that a schema does not have means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// A mistake.
    Refuse,
    /// A stream of changes may bring it, or has lost it.
    Warn,
    /// That was reported before.
    Ignore,
}

impl Plan {
    /// # Errors
    ///
    /// Exit 65 where the text is not understood, 2 where it does not have what the flags name or forbids
    /// what they ask for.
    pub(crate) fn map_schema(
        &self,
        text: &str,
        unknown: Unknown,
    ) -> Result<MappedSchema, CommandError> {
        let schema = Schema::parse(text).map_err(|error| not_understood(&error))?;
        let missing = self.check_names(&schema, unknown)?;
        let mut lost = BTreeSet::new();
        // Without the parts that are not kept.
        let mut rest = None;
        if !self.removal.is_empty() {
            let removed = schema.without(&self.removal);
            let removed = removed.map_err(|refused| self.cannot_drop(&schema, &refused))?;
            lost = removed.lost;
            rest = Some(Schema::parse(removed.text).map_err(|error| not_understood(&error))?);
        }
        if let Some(only) = &self.only {
            let kept = rest.as_ref().unwrap_or(&schema);
            let mut types = only.types();
            types.retain(|name| kept.definition(name).is_some());
            let text = kept.only(&types);
            let text =
                text.map_err(|refused| CommandError::usage(format!("--only-type: {refused}")))?;
            rest = Some(Schema::parse(text).map_err(|error| not_understood(&error))?);
        }
        let rest = rest.as_ref().unwrap_or(&schema);
        let text = if self.renames.is_empty() {
            rest.text().to_owned()
        } else {
            rest.rename(&self.renames).map_err(|refused| {
                let refused = self.in_original(&schema, refused);
                cannot_rename(&refused)
            })?
        };
        if text.len() > MAX_SCHEMA_BYTES {
            return Err(CommandError::usage(
                "--rename: the schema would have more than 4 MiB: no server takes it",
            ));
        }
        let caveats = schema.caveats().iter().map(|caveat| {
            let parameters = caveat.parameters.iter();
            let parameters = parameters.map(|one| (one.name.text.clone(), one.kind.clone()));
            (caveat.name.text.clone(), parameters.collect())
        });
        let definitions = schema.definitions().iter();
        let definitions = definitions.map(|found| found.name.text.clone());
        Ok(MappedSchema {
            text,
            missing,
            definitions: definitions.collect(),
            lost,
            parameters: caveats.collect(),
            kept: kept(rest),
        })
    }

    fn cannot_drop(&self, schema: &Schema, refused: &Refused) -> CommandError {
        let failure = CommandError::usage(format!("--drop: {refused}"));
        let Some(more) = schema.removable(&self.removal) else {
            return failure;
        };
        let members = more.members.difference(&self.removal.members);
        let members = members.map(|(definition, member)| format!("--drop {definition}#{member}"));
        let parts: Vec<String> = members.collect();
        let references = more.references && !self.removal.references;
        let failure = match parts.is_empty() {
            true => failure,
            false => failure.also(format!(
                "leave out what refers to it as well: {}",
                parts.join(" ")
            )),
        };
        match references {
            true => failure.also(
                "--drop-references removes it from the types of relations; relationships that need it are \
                 left out",
            ),
            false => failure,
        }
    }

    /// The problems at their places in the schema that was read, where it has them as well.
    fn in_original(&self, schema: &Schema, refused: Refused) -> Refused {
        let Err(mut original) = schema.rename(&self.renames) else {
            return refused;
        };
        original.problems.retain(|problem| {
            let messages = refused.problems.iter().map(|problem| &problem.message);
            messages
                .into_iter()
                .any(|message| *message == problem.message)
        });
        match original.problems.is_empty() {
            true => refused,
            false => original,
        }
    }

    /// What the flags name and a schema does not have.
    ///
    /// # Errors
    ///
    /// Exit 65 where the schema contradicts itself.
    pub(crate) fn missing(&self, schema: &Schema) -> Result<BTreeSet<Named>, CommandError> {
        let forbidden = |refused: Refused| {
            CommandError::new(Exit::BadData, format!("the stream's schema: {refused}"))
        };
        let renamed = self.renames.unknown(schema).map_err(forbidden)?;
        let removed = self.removal.unknown(schema).map_err(forbidden)?;
        let unknown: HashSet<String> = renamed.into_iter().chain(removed).collect();
        let is_missing = |named: &&Named| match &named.name {
            Name::Type(name) => schema.definition(name).is_none(),
            Name::Object(name) | Name::Prefix(name) => unknown.contains(name),
            Name::Member(definition, member) => unknown.contains(&format!("{definition}#{member}")),
        };
        Ok(self.names.iter().filter(is_missing).cloned().collect())
    }

    fn check_names(
        &self,
        schema: &Schema,
        unknown: Unknown,
    ) -> Result<BTreeSet<Named>, CommandError> {
        let missing = self.missing(schema)?;
        if missing.is_empty() || unknown == Unknown::Ignore {
            return Ok(missing);
        }
        let named = few(missing.iter().map(Named::to_string));
        let message = format!("the stream's schema does not have {named}");
        if unknown == Unknown::Refuse {
            return Err(CommandError::usage(message).hint(known(schema, &missing)));
        }
        tracing::warn!("{message}");
        Ok(missing)
    }
}

fn kept(schema: &Schema) -> Vec<(String, Vec<String>)> {
    let definitions = schema.definitions().iter().map(|found| {
        let name = found.name.text.clone();
        let members = schema.members(&name).unwrap_or_default();
        let members = members.into_iter().map(str::to_owned).collect();
        (name, members)
    });
    let caveats = schema.caveats().iter();
    let caveats = caveats.map(|found| (found.name.text.clone(), Vec::new()));
    definitions.chain(caveats).collect()
}

/// What a schema has instead of what it does not have.
fn known(schema: &Schema, missing: &BTreeSet<Named>) -> String {
    let list = |what: &str, names: Vec<&str>| match names.is_empty() {
        true => format!("no {what}"),
        false => format!("{what} {}", names.join(", ")),
    };
    let mut owners: BTreeSet<&str> = BTreeSet::new();
    let (mut has_types, mut has_caveats) = (false, false);
    for named in missing {
        match &named.name {
            Name::Member(definition, _) if schema.definition(definition).is_some() => {
                owners.insert(definition);
            }
            Name::Type(_) | Name::Member(..) => has_types = true,
            Name::Object(_) | Name::Prefix(_) => (has_types, has_caveats) = (true, true),
        }
    }
    let mut parts = Vec::new();
    if has_types {
        let names = schema.definitions().iter();
        let names = names.map(|found| found.name.text.as_str());
        parts.push(list("definitions", names.collect()));
    }
    if has_caveats && !schema.caveats().is_empty() {
        let names = schema.caveats().iter();
        let names = names.map(|found| found.name.text.as_str());
        parts.push(list("caveats", names.collect()));
    }
    for owner in owners {
        let names = schema.members(owner).unwrap_or_default();
        parts.push(list(&format!("in {owner}"), names));
    }
    format!("names are those of the input; it has: {}", parts.join("; "))
}

fn cannot_rename(refused: &Refused) -> CommandError {
    let mut failure = CommandError::usage(format!("--rename: {refused}"));
    let remedies = refused.problems.iter().map(|problem| &problem.remedy);
    for remedy in remedies.collect::<BTreeSet<_>>() {
        failure = match remedy {
            Remedy::Rule(rule) => failure.also(*rule),
            Remedy::OtherName => failure.also(CLASH),
            Remedy::Remove { .. } | Remedy::Unknown => failure,
        };
    }
    failure
}

fn not_understood(error: &SyntaxError) -> CommandError {
    CommandError::new(
        Exit::BadData,
        format!("the schema is not understood: {error}"),
    )
    .hint("this version reads schemas of SpiceDB v1.30 to v1.57")
}
