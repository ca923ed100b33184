//! What is to be removed from a schema, and what is left of it.

use std::collections::{BTreeSet, HashSet};

use crate::Schema;
use crate::error::Refused;
use crate::resolve::Resolved;

/// What is to be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Definitions and caveats.
    pub objects: BTreeSet<String>,
    /// Relations and permissions, each with its definition.
    pub members: BTreeSet<(String, String)>,
    /// Whether the types of relations that refer to these are removed as well.
    pub references: bool,
}

/// A text without what was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The text.
    pub text: String,
    /// The relations that were removed because all of their types are gone, each with its definition.
    pub lost: BTreeSet<(String, String)>,
}

impl Removal {
    /// Whether nothing is removed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.members.is_empty()
    }

    /// What this names and a schema does not have.
    ///
    /// # Errors
    ///
    /// As [`Schema::without`].
    pub fn unknown(&self, schema: &Schema) -> Result<Vec<String>, Refused> {
        let resolved = Resolved::of(schema)?;
        let definitions = schema.definitions.iter().map(|found| &*found.name.text);
        let caveats = schema.caveats.iter().map(|found| &*found.name.text);
        let names: HashSet<&str> = definitions.chain(caveats).collect();
        let objects = self.objects.iter();
        let objects = objects.filter(|name| !names.contains(name.as_str()));
        let mut unknown: Vec<String> = objects.cloned().collect();
        for (definition, member) in &self.members {
            if resolved.member(definition, member).is_none() {
                unknown.push(format!("{definition}#{member}"));
            }
        }
        Ok(unknown)
    }
}
