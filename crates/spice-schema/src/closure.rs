//! A schema with what some definitions need, and nothing else.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::Schema;
use crate::edit::Edits;
use crate::error::{Problem, Refused, Remedy};
use crate::layout::extent;
use crate::tree::{Definition, Member};

impl Schema {
    /// The text with these definitions, the definitions, caveats and partials that they refer to, those that
    /// these refer to, and so on. What remains keeps its meaning.
    ///
    /// # Errors
    ///
    /// A name that is no definition.
    pub fn only(&self, definitions: &BTreeSet<String>) -> Result<String, Refused> {
        let named = |all: &[Definition]| -> HashMap<String, usize> {
            let names = all.iter().enumerate();
            names
                .map(|(index, found)| (found.name.text.clone(), index))
                .collect()
        };
        let (by_name, partials_by_name) = (named(&self.definitions), named(&self.partials));
        let missing = definitions
            .iter()
            .filter(|name| !by_name.contains_key(*name));
        let problems = missing.map(|name| Problem {
            position: self.position(0),
            message: format!("no definition {name}"),
            remedy: Remedy::Unknown,
        });
        Refused::unless_empty(problems.collect())?;
        let mut needed: HashSet<&str> = definitions.iter().map(String::as_str).collect();
        let mut open: Vec<&str> = needed.iter().copied().collect();
        while let Some(name) = open.pop() {
            let definition = by_name.get(name).map(|index| &self.definitions[*index]);
            let partial = partials_by_name
                .get(name)
                .map(|index| &self.partials[*index]);
            let parts = definition.into_iter().chain(partial);
            for reference in parts.flat_map(references) {
                if needed.insert(reference) {
                    open.push(reference);
                }
            }
        }
        let parts = self.definitions.iter().chain(&self.partials);
        let parts = parts.map(|found| (&found.name, found.span));
        let caveats = self.caveats.iter().map(|found| (&found.name, found.span));
        let mut edits = Edits::default();
        for (name, span) in parts.chain(caveats) {
            if !needed.contains(name.text.as_str()) {
                edits.remove(extent(&self.text, &self.comments, span));
            }
        }
        Ok(edits.apply(&self.text))
    }
}

/// The definitions, caveats and partials that a definition or partial names.
fn references(part: &Definition) -> Vec<&str> {
    let mut found = Vec::new();
    for member in &part.members {
        match member {
            Member::Include(include) => found.push(&*include.name.text),
            Member::Permission(permission) => {
                found.extend(permission.annotation.iter().map(|name| &*name.text));
            }
            Member::Relation(relation) => {
                for reference in &relation.types {
                    found.push(&*reference.object.text);
                    found.extend(reference.caveat.iter().map(|name| &*name.text));
                }
            }
        }
    }
    found
}
