//! Which shards an export consists of, and how far each has come.
//!
//! A shard is a filter. The first ones are one of everything, or one a definition. With `--jobs`, definitions
//! that turn out to be large are split by the first character of the resource id. A resumed export keeps to
//! the plan with which it began, whatever its `--jobs` and `--page-size` are: a shard that was split is not
//! read in one piece.

use std::collections::{BTreeMap, BTreeSet};

use authzed::v1::RelationshipFilter;
use serde::{Deserialize, Serialize};
use spice_record::record::by_prefix;

/// The shards, numbered from 0: the first ones, then those of the large definitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Plan {
    /// A shard each; without them there is one of everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    definitions: Option<Vec<String>>,
    /// Of resource ids.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    prefix: String,
    /// The numbers of the shards that are split. Their own are read by nobody.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    large: BTreeSet<usize>,
    /// By what they are split: set when all large ones are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    characters: Option<String>,
}

impl Plan {
    pub(crate) fn new(definitions: Option<Vec<String>>, prefix: Option<&str>) -> Self {
        Self {
            definitions,
            prefix: prefix.unwrap_or_default().to_owned(),
            ..Self::default()
        }
    }

    /// The first shards; `None` is everything.
    pub(crate) fn first(&self) -> Vec<Option<RelationshipFilter>> {
        let prefix = &*self.prefix;
        match &self.definitions {
            None if prefix.is_empty() => vec![None],
            None => vec![Some(by_prefix("", prefix))],
            Some(names) => names.iter().map(|n| Some(by_prefix(n, prefix))).collect(),
        }
    }

    /// Whether a large shard can be split.
    pub(crate) fn is_by_definition(&self) -> bool {
        self.definitions.is_some()
    }

    /// A shard of the first ones is split.
    pub(crate) fn split(&mut self, shard: usize) {
        self.large.insert(shard);
    }

    pub(crate) fn is_split(&self) -> bool {
        !self.large.is_empty()
    }

    pub(crate) fn characters(&self) -> Option<&str> {
        self.characters.as_deref()
    }

    pub(crate) fn set_characters(&mut self, characters: String) {
        self.characters = Some(characters);
    }

    /// The shards of the large definitions, with their numbers.
    pub(crate) fn second(&self) -> Vec<(usize, RelationshipFilter)> {
        let definitions = self.definitions.as_deref().unwrap_or_default();
        let characters: Vec<char> = self.characters.iter().flat_map(|c| c.chars()).collect();
        let large = self
            .large
            .iter()
            .filter_map(|shard| definitions.get(*shard));
        let shards = large.flat_map(|name| split(name, &self.prefix, &characters));
        (definitions.len()..).zip(shards).collect()
    }
}

/// How far the shards of a plan have come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Shards {
    /// All with a lower number were read to their ends.
    finished_below: usize,
    /// These also.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    finished: BTreeSet<usize>,
    /// The cursors of the last pages of those that were begun.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    cursors: BTreeMap<usize, String>,
}

impl Shards {
    pub(crate) fn advance(&mut self, shard: usize, cursor: String) {
        self.cursors.insert(shard, cursor);
    }

    pub(crate) fn finish(&mut self, shard: usize) {
        self.cursors.remove(&shard);
        self.finished.insert(shard);
        while self.finished.remove(&self.finished_below) {
            self.finished_below += 1;
        }
    }

    pub(crate) fn is_finished(&self, shard: usize) -> bool {
        shard < self.finished_below || self.finished.contains(&shard)
    }

    pub(crate) fn cursor(&self, shard: usize) -> Option<&str> {
        self.cursors.get(&shard).map(String::as_str)
    }
}

/// Cuts "ids of a definition that begin with a prefix" by the character after it. The id that *is*
/// the prefix has none, and is a shard of its own.
fn split<'a>(
    definition: &'a str,
    prefix: &'a str,
    characters: &'a [char],
) -> impl Iterator<Item = RelationshipFilter> + 'a {
    let itself = (!prefix.is_empty()).then(|| RelationshipFilter {
        resource_type: definition.to_owned(),
        optional_resource_id: prefix.to_owned(),
        ..RelationshipFilter::default()
    });
    let longer = characters
        .iter()
        .map(move |c| by_prefix(definition, &format!("{prefix}{c}")));
    itself.into_iter().chain(longer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_of_a_prefix_are_the_id_itself_and_each_next_character() {
        let shards: Vec<_> = split("document", "ab", &['c', 'd']).collect();
        let ids: Vec<(&str, &str)> = shards
            .iter()
            .map(|f| (&*f.optional_resource_id, &*f.optional_resource_id_prefix))
            .collect();
        assert_eq!(ids, [("ab", ""), ("", "abc"), ("", "abd")]);
        assert_eq!(split("document", "", &['c']).count(), 1);
    }

    #[test]
    fn first_shards_are_everything_a_prefix_or_one_a_definition() {
        assert_eq!(Plan::new(None, None).first(), [None]);
        let prefix = Plan::new(None, Some("a"));
        assert_eq!(prefix.first(), [Some(by_prefix("", "a"))]);
        assert!(!prefix.is_by_definition());
        let names = vec!["x".to_owned(), "y".to_owned()];
        let plan = Plan::new(Some(names), Some("a"));
        let shards = [("x", "a"), ("y", "a")].map(|(name, prefix)| Some(by_prefix(name, prefix)));
        assert_eq!(plan.first(), shards);
    }

    #[test]
    fn split_definitions_are_numbered_in_their_order_behind_the_first_shards() {
        let names = ["x", "y", "z"].map(str::to_owned).to_vec();
        let mut plan = Plan::new(Some(names), None);
        assert!(!plan.is_split() && plan.second().is_empty());
        // In the order in which they were found.
        plan.split(2);
        plan.split(0);
        plan.set_characters("ab".to_owned());
        let shards = plan.second();
        let shown: Vec<(usize, &str, &str)> = shards
            .iter()
            .map(|(n, f)| (*n, &*f.resource_type, &*f.optional_resource_id_prefix))
            .collect();
        let expected = [(3, "x", "a"), (4, "x", "b"), (5, "z", "a"), (6, "z", "b")];
        assert_eq!(shown, expected);
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }

    #[test]
    fn finished_shards_are_remembered_in_any_order_and_without_their_cursors() {
        let mut shards = Shards::default();
        for shard in [3, 0, 1] {
            shards.advance(shard, format!("at {shard}"));
        }
        assert_eq!(shards.cursor(3), Some("at 3"));
        for shard in [3, 1] {
            shards.finish(shard);
        }
        let finished = |shards: &Shards| {
            let finished: Vec<usize> = (0..6).filter(|n| shards.is_finished(*n)).collect();
            finished
        };
        assert_eq!(finished(&shards), [1, 3]);
        let text = serde_json::to_string(&shards).unwrap();
        let mut shards: Shards = serde_json::from_str(&text).unwrap();
        assert_eq!((shards.cursor(0), shards.cursor(3)), (Some("at 0"), None));
        shards.finish(0);
        assert_eq!(finished(&shards), [0, 1, 3]);
        shards.finish(2);
        let text = serde_json::to_string(&shards).unwrap();
        assert_eq!(text, r#"{"finishedBelow":4}"#);
    }
}
