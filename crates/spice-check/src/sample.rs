//! What is kept of a snapshot to ask about: a fair sample, whatever its size.

use std::collections::BTreeMap;
use std::io::BufRead;

use authzed::v1::{Relationship, SubjectReference};
use fastrand::Rng;
use prost::Message as _;
use prost_types::Value;
use spice_record::{ReadError, SnapshotReader};

/// How many stored values are kept of each parameter of a caveat.
const VALUES: usize = 16;

/// A larger one is not asked with: SpiceDB takes contexts of 4 KiB by default.
const LARGEST_VALUE: usize = 1 << 10;
/// Of how many parameters values are kept: more than any schema has.
const PARAMETERS: usize = 512;

/// Drawn from all relationships of a snapshot.
#[derive(Default)]
pub(crate) struct Sample {
    /// The ones to ask about.
    pub(crate) relationships: Vec<Relationship>,
    /// Subjects of other ones, but no wildcards: a server refuses to be asked about those.
    pub(crate) subjects: Vec<SubjectReference>,
    /// By caveat and parameter: values that relationships store.
    pub(crate) values: BTreeMap<(String, String), Vec<Value>>,
}

impl Sample {
    /// Reads a snapshot to its end. Every relationship is as likely to be kept as any other.
    pub(crate) fn draw<R: BufRead>(
        stream: &mut SnapshotReader<R>,
        size: usize,
        rng: &mut Rng,
    ) -> Result<Self, ReadError> {
        let mut sample = Self::default();
        let (mut seen, mut subjects) = (0, 0);
        while let Some(relationship) = stream.next_relationship()? {
            seen += 1;
            sample.keep_values(&relationship, rng);
            if let Some(subject) = relationship
                .subject
                .as_ref()
                .filter(|one| !is_wildcard(one))
            {
                subjects += 1;
                if let Some(place) = place(sample.subjects.len(), size, subjects, rng) {
                    put(&mut sample.subjects, place, subject.clone());
                }
            }
            if let Some(place) = place(sample.relationships.len(), size, seen, rng) {
                // The values are kept apart, few of each.
                let mut relationship = relationship;
                if let Some(caveat) = &mut relationship.optional_caveat {
                    caveat.context = None;
                }
                put(&mut sample.relationships, place, relationship);
            }
        }
        Ok(sample)
    }

    fn keep_values(&mut self, relationship: &Relationship, rng: &mut Rng) {
        let Some(caveat) = &relationship.optional_caveat else {
            return;
        };
        for (name, value) in caveat.context.iter().flat_map(|context| &context.fields) {
            if value.encoded_len() + name.len() > LARGEST_VALUE {
                continue;
            }
            let key = (caveat.caveat_name.clone(), name.clone());
            if self.values.len() >= PARAMETERS && !self.values.contains_key(&key) {
                continue;
            }
            let kept = self.values.entry(key).or_default();
            if kept.len() < VALUES {
                kept.push(value.clone());
            } else if rng.u8(..) == 0 {
                let place = rng.usize(..VALUES);
                kept[place] = value.clone();
            }
        }
    }
}

/// Whether it is everybody of a type.
pub(crate) fn is_wildcard(subject: &SubjectReference) -> bool {
    let object = subject.object.as_ref();
    object.is_none_or(|object| object.object_id == "*")
}

/// Where the one that was seen last goes, if anywhere: reservoir sampling.
fn place(kept: usize, size: usize, seen: usize, rng: &mut Rng) -> Option<usize> {
    if kept < size {
        return Some(kept);
    }
    Some(rng.usize(..seen)).filter(|place| *place < size)
}

fn put<T>(kept: &mut Vec<T>, place: usize, one: T) {
    match kept.get_mut(place) {
        Some(there) => *there = one,
        None => kept.push(one),
    }
}
