//! What the flags name, and whether the input has it.

use std::collections::BTreeSet;
use std::fmt;

use spice_cli::display::few;

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
