//! What the flags name and whether the input has it; who has which name in the output.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use spice_cli::display::few;
use spice_cli::{CommandError, Exit};

use crate::plan::Plan;
use crate::schema::CLASH;

/// The flag that gives other names.
pub(crate) const RENAME: &str = "--rename";

/// A name of the input.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// A definition.
    Type(String),
    /// A definition or caveat.
    Object(String),
    /// A relation or permission of a definition.
    Member(String, String),
    /// Of definitions and caveats.
    Prefix(String),
}

/// A name that a flag gives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    pub(crate) name: Name,
    flag: &'static str,
}

impl Named {
    pub(crate) fn new(flag: &'static str, name: Name) -> Self {
        Self { name, flag }
    }

    /// Whether a definition, or else a caveat, is or has what is named.
    pub(crate) fn is_object(&self, name: &str, is_type: bool) -> bool {
        match &self.name {
            Name::Type(found) => is_type && found == name,
            Name::Object(found) => found == name,
            Name::Prefix(prefix) => name.starts_with(prefix),
            Name::Member(..) => false,
        }
    }

    pub(crate) fn is_member(&self, definition: &str, member: &str) -> bool {
        let Name::Member(found, relation) = &self.name else {
            return false;
        };
        found == definition && relation == member
    }

    fn is_prefix(&self) -> bool {
        matches!(self.name, Name::Prefix(_))
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Name::Type(name) | Name::Object(name) | Name::Prefix(name) => write!(f, "{name:?}")?,
            Name::Member(definition, member) => write!(f, "\"{definition}#{member}\"")?,
        }
        write!(f, " ({})", self.flag)
    }
}

/// Who has which name in the output.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// The old names of definitions and caveats, by the new ones.
    objects: HashMap<String, String>,
    /// The old names of members, by the old name of their definition and their new one.
    members: HashMap<String, HashMap<String, String>>,
}

impl Taken {
    /// Takes the names that the flags give and those that the output's schema has, which no relationship need
    /// have: one that already has such a name would become one of what is renamed to it.
    pub(crate) fn of(plan: &Plan, kept: &[(String, Vec<String>)]) -> Self {
        let mut taken = Self::default();
        let named = plan.names.iter();
        for named in named.filter(|named| named.flag == RENAME) {
            match &named.name {
                Name::Object(name) => taken.object(plan, name),
                Name::Member(definition, member) => taken.member(plan, definition, member),
                Name::Type(_) | Name::Prefix(_) => None,
            };
        }
        for (name, members) in kept {
            taken.object(plan, name);
            for member in members {
                taken.member(plan, name, member);
            }
        }
        taken
    }

    /// Takes the new name of a definition or caveat; who had it before.
    fn object(&mut self, plan: &Plan, name: &str) -> Option<String> {
        let new = plan.renames.of_object(name).into_owned();
        self.objects.insert(new, name.to_owned())
    }

    /// The same of a relation or permission.
    fn member(&mut self, plan: &Plan, definition: &str, member: &str) -> Option<String> {
        let new = plan.renames.of_member(definition, member).to_owned();
        let members = self.members.entry(definition.to_owned()).or_default();
        members.insert(new, member.to_owned())
    }

    /// Takes the names of a relationship that is written. A caveat has no member.
    ///
    /// # Errors
    ///
    /// Exit 65 where something else has the name. Of a stream without a schema nothing else finds that.
    pub(crate) fn claim(
        &mut self,
        plan: &Plan,
        object: &str,
        member: &str,
    ) -> Result<(), CommandError> {
        unique(self.object(plan, object), object, || {
            plan.renames.of_object(object).into_owned()
        })?;
        if member.is_empty() {
            return Ok(());
        }
        unique(self.member(plan, object, member), member, || {
            plan.renames.of_member(object, member).to_owned()
        })
    }
}

fn unique(
    before: Option<String>,
    old: &str,
    new: impl FnOnce() -> String,
) -> Result<(), CommandError> {
    match before {
        Some(other) if other != old => Err(CommandError::new(
            Exit::BadData,
            format!(
                "--rename: {other} and {old} of the stream would both be called {}",
                new()
            ),
        )
        .hint(CLASH)
        .also("the output is not complete: discard it")),
        _ => Ok(()),
    }
}

/// What has not come in the stream yet.
#[derive(Debug, Default)]
pub(crate) struct Unseen(BTreeSet<Named>);

impl Unseen {
    pub(crate) fn of(names: BTreeSet<Named>) -> Self {
        Self(names)
    }

    /// A definition or caveat has come.
    pub(crate) fn object(&mut self, name: &str, is_type: bool) {
        self.0.retain(|named| !named.is_object(name, is_type));
    }

    /// A relation or permission has come.
    pub(crate) fn member(&mut self, definition: &str, member: &str) {
        self.0.retain(|named| !named.is_member(definition, member));
    }

    /// Keeps what a schema does not have either.
    pub(crate) fn retain_missing(&mut self, missing: &BTreeSet<Named>) {
        self.0.retain(|named| missing.contains(named));
    }

    /// In words, if there is any. A prefix that no name has changes nothing.
    pub(crate) fn shown(&self) -> Option<String> {
        let names = self.0.iter().filter(|named| !named.is_prefix());
        let names: Vec<String> = names.map(Named::to_string).collect();
        (!names.is_empty()).then(|| few(names.into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_seen_as_what_it_names() {
        let unseen = || {
            Unseen::of(BTreeSet::from([
                Named::new("--redact", Name::Type("user".to_owned())),
                Named::new("--drop", Name::Object("named".to_owned())),
                Named::new(
                    "--drop",
                    Name::Member("doc".to_owned(), "viewer".to_owned()),
                ),
                Named::new("--rename", Name::Prefix("crm/".to_owned())),
            ]))
        };
        let mut found = unseen();
        let all = "\"user\" (--redact), \"named\" (--drop), \"doc#viewer\" (--drop)";
        assert_eq!(found.shown().as_deref(), Some(all));
        // The name of a caveat is no type.
        found.object("user", false);
        found.object("named", false);
        found.member("folder", "viewer");
        let left = "\"user\" (--redact), \"doc#viewer\" (--drop)";
        assert_eq!(found.shown().as_deref(), Some(left));
        found.object("user", true);
        found.member("doc", "viewer");
        assert_eq!(found.shown(), None);
        let mut found = unseen();
        found.retain_missing(&BTreeSet::from([Named::new(
            "--redact",
            Name::Type("user".to_owned()),
        )]));
        assert_eq!(found.shown().as_deref(), Some("\"user\" (--redact)"));
    }
}
