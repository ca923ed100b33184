//! A schema with other names and without what is dropped or not needed.

use std::collections::{BTreeSet, HashMap};

use spice_cli::display::few;
use spice_cli::{CommandError, Exit};
use spice_record::record::MAX_SCHEMA_BYTES;
use spice_schema::{Refused, Schema, SyntaxError};

use crate::plan::{Only, Plan};
use crate::redact::Parameters;

/// What a schema became.
#[derive(Debug, Default)]
pub(crate) struct MappedSchema {
    pub(crate) text: String,
    /// Those before the change, by their old names.
    pub(crate) definitions: BTreeSet<String>,
    /// Relations that were removed because they have no types any more, each with its definition, by their
    /// old names.
    pub(crate) lost: BTreeSet<(String, String)>,
    /// Of caveats, by their old names.
    pub(crate) parameters: HashMap<String, Parameters>,
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
        self.check_names(&schema, unknown)?;
        let mut lost = BTreeSet::new();
        // Without the parts that are not kept.
        let mut rest = None;
        if !self.removal.is_empty() {
            let removed = schema.without(&self.removal);
            let removed = removed.map_err(|refused| self.cannot_drop(&refused))?;
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
                CommandError::usage(format!("--rename: {refused}"))
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
            definitions: definitions.collect(),
            lost,
            parameters: caveats.collect(),
        })
    }

    fn cannot_drop(&self, refused: &Refused) -> CommandError {
        let failure = CommandError::usage(format!("--drop: {refused}"));
        match self.removal.references {
            true => failure,
            false => failure.hint(
                "--drop-references removes it from the types of relations; relationships that need it are \
                 left out",
            ),
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

    fn check_names(&self, schema: &Schema, unknown: Unknown) -> Result<(), CommandError> {
        let has = |name: &String| schema.definition(name).is_some();
        let forbidden = |refused: Refused| {
            CommandError::new(Exit::BadData, format!("the stream's schema: {refused}"))
        };
        let types = self.only.iter().flat_map(Only::types);
        let redacted = self
            .redaction
            .iter()
            .flat_map(|found| found.types.iter().cloned());
        let definitions = types.chain(redacted).filter(|name| !has(name));
        let mut missing: Vec<String> = definitions.collect();
        missing.extend(self.renames.unknown(schema).map_err(forbidden)?);
        missing.extend(self.removal.unknown(schema).map_err(forbidden)?);
        if missing.is_empty() || unknown == Unknown::Ignore {
            return Ok(());
        }
        missing.sort();
        missing.dedup();
        let named = few(missing.into_iter());
        let message = format!("the stream's schema does not have {named}");
        if unknown == Unknown::Refuse {
            return Err(CommandError::usage(message)
                .hint("names are those of the input; jq -r .header.schema prints its schema"));
        }
        tracing::warn!("{message}");
        Ok(())
    }
}

fn not_understood(error: &SyntaxError) -> CommandError {
    CommandError::new(
        Exit::BadData,
        format!("the schema is not understood: {error}"),
    )
    .hint("this version reads schemas of SpiceDB v1.30 to v1.57")
}
