//! Changes relationships: their names, which of them are kept, their ids.

use std::collections::HashMap;

use authzed::v1::relationship_update::Operation;
use authzed::v1::{ContextualizedCaveat, ObjectReference, Relationship, RelationshipUpdate};
use prost_types::Value;
use prost_types::value::Kind;
use spice_cli::display::few;
use spice_cli::{CommandError, Exit};
use spice_record::record::{APPLIED_KEY, Transaction};
use spice_record::relationship::{StructJson, Update};

use crate::names::{Taken, Unseen};
use crate::plan::Plan;
use crate::schema::{MappedSchema, Unknown};

/// The most that names may take: each is kept. A schema of 4 MiB has fewer.
const MAX_NAME_BYTES: usize = 8 << 20;
/// What a name takes beside its text.
const NAME_BYTES: usize = 100;

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) read: u64,
    pub(crate) dropped: u64,
    /// With a caveat context, which was not redacted.
    pub(crate) with_context: u64,
    /// What the flags name and a stream of changes never had.
    pub(crate) unseen: Option<String>,
}

impl Counts {
    pub(crate) fn report(&self) {
        let written = self.read - self.dropped;
        tracing::info!(
            "read {} relationships: wrote {written}, left out {}",
            self.read,
            self.dropped
        );
        if self.with_context > 0 {
            tracing::warn!(
                hints = "without --keep-contexts the strings in them are redacted",
                "{} relationships of redacted types have a caveat context, which may hold ids",
                self.with_context
            );
        }
        if let Some(unseen) = &self.unseen {
            tracing::warn!("no schema and no relationship of the stream has {unseen}");
        }
    }
}

pub(crate) struct Mapper {
    plan: Plan,
    schema: MappedSchema,
    objects: HashMap<String, Object>,
    /// By what is written, and by what the flags and the schema name.
    taken: Taken,
    name_bytes: usize,
    /// What the flags name, where no schema shows that the stream has it.
    unseen: Unseen,
    pub(crate) counts: Counts,
}

/// What becomes of a relationship.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    LeftOut,
    /// Its key is kept, and its caveat is dropped.
    Deleted,
}

/// What a definition or caveat became.
struct Object {
    new: String,
    is_dropped: bool,
    /// A relationship with it was written.
    is_written: bool,
    members: HashMap<String, Member>,
}

struct Member {
    new: String,
    is_dropped: bool,
    is_written: bool,
}

impl Mapper {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            schema: MappedSchema::default(),
            objects: HashMap::new(),
            taken: Taken::of(&plan, &[]),
            name_bytes: 0,
            unseen: Unseen::of(plan.names.clone()),
            plan,
            counts: Counts::default(),
        }
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What a schema becomes. It is in force for the relationships after it.
    ///
    /// # Errors
    ///
    /// As [`Plan::map_schema`].
    pub(crate) fn schema(&mut self, text: &str, unknown: Unknown) -> Result<String, CommandError> {
        let schema = self.plan.map_schema(text, unknown)?;
        if let Some(new) = self.not_redacted(&schema) {
            tracing::warn!("the schema now has {new}: ids of that are not redacted");
        }
        self.unseen.retain_missing(&schema.missing);
        self.taken = Taken::of(&self.plan, &schema.kept);
        self.schema = schema;
        self.objects.clear();
        self.name_bytes = 0;
        Ok(std::mem::take(&mut self.schema.text))
    }

    /// What the flags name and neither a schema nor a relationship had, in words.
    pub(crate) fn unseen(&self) -> Option<String> {
        self.unseen.shown()
    }

    /// The definitions that a later schema brings, which no flag can have named.
    pub(crate) fn not_redacted(&self, schema: &MappedSchema) -> Option<String> {
        let redacted = &self.plan.redaction.as_ref()?.types;
        let before = &self.schema.definitions;
        let new = schema.definitions.difference(before);
        let new = new.filter(|name| !redacted.contains(*name)).cloned();
        let new: Vec<String> = new.collect();
        let is_later = !before.is_empty() && !new.is_empty();
        is_later.then(|| few(new.into_iter()))
    }

    /// Changes a relationship of a snapshot; `false` where it is left out.
    ///
    /// # Errors
    ///
    /// Exit 65 where two names of the stream would become one.
    pub(crate) fn map(&mut self, relationship: &mut Relationship) -> Result<bool, CommandError> {
        let fate = self.fate(relationship, false)?;
        Ok(self.count(fate == Fate::Kept))
    }

    /// Changes an update; `false` where it is left out.
    ///
    /// A relationship that gets a dropped caveat is in no mapped snapshot from then on: its update deletes what
    /// the target may hold of it. One that is deleted may be there without that caveat.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map).
    pub(crate) fn map_update(
        &mut self,
        update: &mut RelationshipUpdate,
    ) -> Result<bool, CommandError> {
        let fate = match &mut update.relationship {
            Some(relationship) => self.fate(relationship, true)?,
            None => Fate::LeftOut,
        };
        if fate == Fate::Deleted {
            update.set_operation(Operation::Delete);
        }
        Ok(self.count(fate != Fate::LeftOut))
    }

    fn count(&mut self, is_kept: bool) -> bool {
        self.counts.read += 1;
        self.counts.dropped += u64::from(!is_kept);
        is_kept
    }

    /// Changes a relationship that is written, and decides whether it is. Of one that is to be deleted only
    /// its key is left.
    fn fate(
        &mut self,
        relationship: &mut Relationship,
        is_update: bool,
    ) -> Result<Fate, CommandError> {
        let Some(mut parts) = Parts::of(relationship) else {
            return Err(CommandError::new(
                Exit::BadData,
                "a relationship without a resource or a subject",
            ));
        };
        let is_gone = self.learn_key(&parts)?;
        let has_no_caveat = match &parts.caveat {
            Some(caveat) => self.learn(&caveat.caveat_name, None)?,
            None => false,
        };
        let is_left_out = is_gone || (has_no_caveat && !is_update);
        if is_left_out || !self.plan.is_chosen(parts.resource) {
            return Ok(Fate::LeftOut);
        }
        if has_no_caveat {
            parts.caveat = None;
        }
        self.redact(&mut parts);
        self.rename(&mut parts)?;
        if !has_no_caveat {
            return Ok(Fate::Kept);
        }
        relationship.optional_caveat = None;
        relationship.optional_expires_at = None;
        Ok(Fate::Deleted)
    }

    /// Learns the names of a relationship's key. Whether one of them is dropped.
    fn learn_key(&mut self, parts: &Parts<'_>) -> Result<bool, CommandError> {
        let of_resource = self.learn(&parts.resource.object_type, Some(parts.relation))?;
        let of_subject = self.learn(&parts.subject.object_type, Some(parts.subject_relation))?;
        Ok(of_resource || of_subject)
    }

    /// Redacts the ids and the context of a relationship that still has its old names.
    fn redact(&mut self, parts: &mut Parts<'_>) {
        let Some(redaction) = &self.plan.redaction else {
            return;
        };
        let mut is_redacted = false;
        for object in [&mut *parts.resource, &mut *parts.subject] {
            if let Some(redactor) = self.plan.redactor_of(&object.object_type) {
                is_redacted = true;
                // A wildcard is no id.
                if object.object_id != "*" {
                    object.object_id = redactor.id(&object.object_type, &object.object_id);
                }
            }
        }
        let Some(caveat) = &mut parts.caveat else {
            return;
        };
        let Some(context) = &mut caveat.context else {
            return;
        };
        if redaction.contexts {
            let parameters = self.schema.parameters.get(&caveat.caveat_name);
            redaction.redactor.context(context, parameters);
        } else {
            self.counts.with_context += u64::from(is_redacted && !context.fields.is_empty());
        }
    }

    /// Gives a relationship that is written its new names.
    fn rename(&mut self, parts: &mut Parts<'_>) -> Result<(), CommandError> {
        for (object, member) in [
            (&mut parts.resource.object_type, &mut *parts.relation),
            (&mut parts.subject.object_type, &mut *parts.subject_relation),
        ] {
            self.claim(object, member)?;
            let Some(found) = self.objects.get(object) else {
                continue;
            };
            if let Some(found) = found.members.get(member) {
                member.clone_from(&found.new);
            }
            object.clone_from(&found.new);
        }
        if let Some(caveat) = &mut parts.caveat {
            self.claim(&caveat.caveat_name, "")?;
            if let Some(found) = self.objects.get(&caveat.caveat_name) {
                caveat.caveat_name.clone_from(&found.new);
            }
        }
        Ok(())
    }

    /// Takes the new names of these old ones, the first time.
    fn claim(&mut self, object: &str, member: &str) -> Result<(), CommandError> {
        let Some(found) = self.objects.get_mut(object) else {
            return Ok(());
        };
        let of_member = found.members.get_mut(member);
        let is_written = |member: &&mut Member| member.is_written;
        if found.is_written && of_member.as_ref().is_none_or(is_written) {
            return Ok(());
        }
        let member = of_member.as_ref().map_or("", |_| member);
        self.taken.claim(&self.plan, object, member)?;
        found.is_written = true;
        if let Some(member) = of_member {
            member.is_written = true;
        }
        Ok(())
    }

    /// Changes the updates of a transaction, and its metadata: where ids are redacted these can hold some,
    /// and only what `spice-apply` has written there is kept.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map).
    pub(crate) fn transaction(&mut self, change: &mut Transaction) -> Result<(), CommandError> {
        let mut kept = Vec::with_capacity(change.updates.len());
        for Update(mut update) in std::mem::take(&mut change.updates) {
            if self.map_update(&mut update)? {
                kept.push(Update(update));
            }
        }
        change.updates = kept;
        if self.plan.redaction.is_some() {
            // One for each writer, however little is left of it.
            for StructJson(metadata) in &mut change.metadata {
                metadata
                    .fields
                    .retain(|key, value| key == APPLIED_KEY && keep_origin(value));
            }
        }
        Ok(())
    }

    /// Finds out what a name becomes, and whether it is dropped. A caveat has no member.
    fn learn(&mut self, object: &str, member: Option<&str>) -> Result<bool, CommandError> {
        let is_type = member.is_some();
        let member = member.unwrap_or_default();
        if let Some(is_dropped) = self.is_dropped(object, member) {
            return Ok(is_dropped);
        }
        self.name_bytes += object.len() + member.len() + NAME_BYTES;
        if self.name_bytes > MAX_NAME_BYTES {
            return Err(CommandError::new(
                Exit::BadData,
                "more definitions and relations than a schema of 4 MiB can have",
            ));
        }
        let plan = &self.plan;
        if !self.objects.contains_key(object) {
            let found = Object {
                new: plan.new_name(object, is_type)?,
                is_dropped: plan.removal.objects.contains(object),
                is_written: false,
                members: HashMap::new(),
            };
            self.objects.insert(object.to_owned(), found);
            self.unseen.object(object, is_type);
        }
        if let Some(found) = self.objects.get_mut(object)
            && !member.is_empty()
        {
            self.unseen.member(object, member);
            let key = (object.to_owned(), member.to_owned());
            let is_dropped = plan.removal.members.contains(&key) || self.schema.lost.contains(&key);
            let kept = Member {
                new: plan.renames.of_member(object, member).to_owned(),
                is_dropped,
                is_written: false,
            };
            found.members.insert(member.to_owned(), kept);
        }
        Ok(self.is_dropped(object, member).unwrap_or_default())
    }

    /// Whether it is left out, once it is known.
    fn is_dropped(&self, object: &str, member: &str) -> Option<bool> {
        let found = self.objects.get(object)?;
        if member.is_empty() {
            return Some(found.is_dropped);
        }
        let of_member = found.members.get(member)?;
        Some(found.is_dropped || of_member.is_dropped)
    }
}

/// What is changed in a relationship.
struct Parts<'a> {
    resource: &'a mut ObjectReference,
    relation: &'a mut String,
    subject: &'a mut ObjectReference,
    subject_relation: &'a mut String,
    caveat: Option<&'a mut ContextualizedCaveat>,
}

impl<'a> Parts<'a> {
    fn of(relationship: &'a mut Relationship) -> Option<Self> {
        let subject = relationship.subject.as_mut()?;
        Some(Self {
            resource: relationship.resource.as_mut()?,
            relation: &mut relationship.relation,
            subject: subject.object.as_mut()?,
            subject_relation: &mut subject.optional_relation,
            caveat: relationship.optional_caveat.as_mut(),
        })
    }
}

/// Leaves nothing but the origin that `spice-apply` writes; `false` where there is none.
fn keep_origin(applied: &mut Value) -> bool {
    let Some(Kind::StructValue(origin)) = &mut applied.kind else {
        return false;
    };
    origin.fields.retain(|key, value| {
        let is_known = ["source", "revision"].contains(&key.as_str());
        is_known && matches!(value.kind, Some(Kind::StringValue(_) | Kind::NullValue(_)))
    });
    true
}
