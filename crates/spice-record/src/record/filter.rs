//! Which relationships a stream is about: those of some resources.

use std::collections::BTreeSet;
use std::fmt;

use authzed::v1::{Relationship, RelationshipFilter, RelationshipUpdate};
use serde::{Deserialize, Deserializer, Serialize};

use crate::object::objects;

/// Which relationships a stream is about: those of resources of these types, whose ids begin with this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    remote = "Self",
    expecting = "a JSON object",
    rename_all = "camelCase",
    deny_unknown_fields
)]
pub struct Filter {
    /// Resource types, sorted, each once; empty means all.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "sorted"
    )]
    pub types: Vec<String>,
    /// Prefix of the resource ids. Each of its characters is literal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_prefix: Option<String>,
}

/// Two filters that name the same types are equal, in whatever order somebody wrote them.
fn sorted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let types = BTreeSet::<String>::deserialize(deserializer)?;
    Ok(types.into_iter().collect())
}

impl Filter {
    /// A filter in words, or what there is without one.
    #[must_use]
    pub fn described(filter: Option<&Self>) -> String {
        filter.map_or_else(|| "all resources".to_owned(), ToString::to_string)
    }

    /// Whether a relationship is one of these.
    #[must_use]
    pub fn matches(&self, relationship: &Relationship) -> bool {
        let Some(resource) = &relationship.resource else {
            return false;
        };
        let prefix = self.resource_prefix.as_deref().unwrap_or_default();
        let is_of_type = self.types.is_empty() || self.types.contains(&resource.object_type);
        is_of_type && resource.object_id.starts_with(prefix)
    }

    /// Drops the updates of other relationships.
    pub fn retain(&self, updates: &mut Vec<RelationshipUpdate>) {
        updates.retain(|update| {
            let relationship = update.relationship.as_ref();
            relationship.is_some_and(|relationship| self.matches(relationship))
        });
    }

    /// The same for a request: what one of these matches. None of them means everything, because a server
    /// refuses an empty one.
    #[must_use]
    pub fn requests(&self) -> Vec<RelationshipFilter> {
        let prefix = self.resource_prefix.as_deref().unwrap_or_default();
        match (self.types.as_slice(), prefix) {
            ([], "") => Vec::new(),
            ([], _) => vec![by_prefix("", prefix)],
            (types, _) => types.iter().map(|name| by_prefix(name, prefix)).collect(),
        }
    }
}

/// For a request: resources of this type, whose ids begin with this. Either may be empty.
#[must_use]
pub fn by_prefix(resource_type: &str, prefix: &str) -> RelationshipFilter {
    RelationshipFilter {
        resource_type: resource_type.to_owned(),
        optional_resource_id_prefix: prefix.to_owned(),
        ..RelationshipFilter::default()
    }
}

/// In words: "resources of type document with ids that begin with \"acme-\"".
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("resources")?;
        if !self.types.is_empty() {
            write!(f, " of type {}", self.types.join(", "))?;
        }
        if let Some(prefix) = &self.resource_prefix {
            write!(f, " with ids that begin with {prefix:?}")?;
        }
        if self.requests().is_empty() {
            // spice-map --redact leaves out the prefix, which is a part of an id.
            f.write_str(" by a filter that is not shown")?;
        }
        Ok(())
    }
}

objects!(Filter);

#[cfg(test)]
mod tests {
    use authzed::v1::{ObjectReference, Relationship, RelationshipUpdate};

    use super::Filter;

    fn filter(types: &[&str], prefix: Option<&str>) -> Filter {
        Filter {
            types: types.iter().map(|name| (*name).to_owned()).collect(),
            resource_prefix: prefix.map(str::to_owned),
        }
    }

    fn of(object_type: &str, object_id: &str) -> Relationship {
        Relationship {
            resource: Some(ObjectReference {
                object_type: object_type.to_owned(),
                object_id: object_id.to_owned(),
            }),
            ..Relationship::default()
        }
    }

    #[test]
    fn order_of_types_in_a_stream_does_not_matter() {
        let read: Filter =
            serde_json::from_str(r#"{"types":["group","document","group"]}"#).unwrap();
        assert_eq!(read, filter(&["document", "group"], None));
    }

    #[test]
    fn type_and_prefix_must_both_match() {
        let both = filter(&["document", "folder"], Some("acme-"));
        for (object_type, id, expected) in [
            ("document", "acme-1", true),
            ("folder", "acme-", true),
            ("document", "acme", false),
            ("document", "Acme-1", false),
            ("document", "x-acme-1", false),
            ("group", "acme-1", false),
            ("documents", "acme-1", false),
        ] {
            let found = both.matches(&of(object_type, id));
            assert_eq!(found, expected, "{object_type}:{id}");
        }
        assert!(filter(&[], Some("acme-")).matches(&of("group", "acme-1")));
        assert!(filter(&["document"], None).matches(&of("document", "x")));
        assert!(filter(&[], None).matches(&of("document", "x")));
        assert!(!both.matches(&Relationship::default()), "it names none");
    }

    #[test]
    fn wildcards_of_sql_are_literal() {
        for (prefix, id, expected) in [
            ("a_", "a_1", true),
            ("a_", "ab1", false),
            ("a%", "a%1", true),
            ("a%", "abc", false),
        ] {
            let found = filter(&[], Some(prefix)).matches(&of("document", id));
            assert_eq!(found, expected, "{prefix} {id}");
        }
    }

    #[test]
    fn updates_of_others_are_dropped() {
        let update = |id: &str| RelationshipUpdate {
            relationship: Some(of("document", id)),
            ..RelationshipUpdate::default()
        };
        let mut updates = vec![update("acme-1"), update("evil-1"), update("acme-2")];
        updates.push(RelationshipUpdate::default());
        filter(&[], Some("acme-")).retain(&mut updates);
        assert_eq!(updates, [update("acme-1"), update("acme-2")]);
    }

    #[test]
    fn a_request_has_a_filter_for_each_type() {
        let shown = |filter: Filter| {
            let requests = filter.requests().into_iter();
            requests
                .map(|one| format!("{} {}", one.resource_type, one.optional_resource_id_prefix))
                .collect::<Vec<_>>()
        };
        assert!(shown(filter(&[], None)).is_empty());
        assert_eq!(shown(filter(&[], Some("a"))), [" a"]);
        assert_eq!(shown(filter(&["x", "y"], Some("a"))), ["x a", "y a"]);
        assert_eq!(shown(filter(&["x"], None)), ["x "]);
    }

    #[test]
    fn it_is_shown_in_words() {
        let shown = filter(&["a", "b"], Some("x_")).to_string();
        assert_eq!(
            shown,
            "resources of type a, b with ids that begin with \"x_\""
        );
        let hidden = filter(&[], None).to_string();
        assert_eq!(hidden, "resources by a filter that is not shown");
    }
}
