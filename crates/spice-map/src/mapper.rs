//! Changes relationships: their names, which of them are kept, their ids.

use std::collections::HashMap;

use authzed::v1::Relationship;
use prost_types::Value;
use prost_types::value::Kind;
use spice_cli::display::few;
use spice_cli::{CommandError, Exit};
use spice_record::record::{APPLIED_KEY, Transaction};
use spice_record::relationship::{StructJson, Update};

use crate::names::Unseen;
use crate::plan::Plan;
use crate::schema::{CLASH, MappedSchema, Unknown};

/// The most that names may take: each is kept. A schema of 4 MiB has fewer.
const MAX_NAME_BYTES: usize = 8 << 20;
/// What a name takes beside its text.
const NAME_BYTES: usize = 100;
/// The relation of a subject that is an object.
const ELLIPSIS: &str = "...";

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
    /// The old names, by the new ones.
    taken: HashMap<String, String>,
    name_bytes: usize,
    /// What the flags name, where no schema shows that the stream has it.
    unseen: Unseen,
    pub(crate) counts: Counts,
}

/// What a definition or caveat became.
struct Object {
    new: String,
    is_dropped: bool,
    members: HashMap<String, Member>,
    /// The old names of members, by the new ones.
    taken: HashMap<String, String>,
}

struct Member {
    new: String,
    is_dropped: bool,
}

impl Mapper {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            schema: MappedSchema::default(),
            objects: HashMap::new(),
            taken: HashMap::new(),
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
        self.schema = schema;
        self.objects.clear();
        self.taken.clear();
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

    /// Changes a relationship; `false` where it is left out.
    ///
    /// # Errors
    ///
    /// Exit 65 where two names of the stream would become one.
    pub(crate) fn map(&mut self, relationship: &mut Relationship) -> Result<bool, CommandError> {
        self.counts.read += 1;
        let is_kept = self.map_counted(relationship)?;
        self.counts.dropped += u64::from(!is_kept);
        Ok(is_kept)
    }

    fn map_counted(&mut self, relationship: &mut Relationship) -> Result<bool, CommandError> {
        let subject = relationship.subject.as_mut();
        let subject =
            subject.and_then(|found| Some((&mut found.optional_relation, found.object.as_mut()?)));
        let (Some(resource), Some((subject_relation, subject))) =
            (relationship.resource.as_mut(), subject)
        else {
            return Err(CommandError::new(
                Exit::BadData,
                "a relationship without a resource or a subject",
            ));
        };
        let caveat = relationship.optional_caveat.as_mut();
        self.learn(&resource.object_type, Some(&relationship.relation))?;
        self.learn(&subject.object_type, Some(subject_relation))?;
        if let Some(caveat) = &caveat {
            self.learn(&caveat.caveat_name, None)?;
        }
        let of = |name: &str| self.objects.get(name);
        let is_chosen = self.plan.only.as_ref().is_none_or(|only| {
            let prefixes = only.prefixes.get(&resource.object_type);
            let id = resource.object_id.as_str();
            only.has(&resource.object_type)
                && prefixes.is_none_or(|all| all.iter().any(|prefix| id.starts_with(prefix)))
        });
        let mut is_dropped = !is_chosen;
        let redactors =
            [&resource.object_type, &subject.object_type].map(|name| self.plan.redactor_of(name));
        let is_redacted = redactors.iter().any(Option::is_some);
        if let Some(redactor) = redactors[0] {
            resource.object_id = redactor.id(&resource.object_type, &resource.object_id);
        }
        if let Some(redactor) = redactors[1]
            && subject.object_id != "*"
        {
            subject.object_id = redactor.id(&subject.object_type, &subject.object_id);
        }
        for (object, member) in [
            (&mut resource.object_type, &mut relationship.relation),
            (&mut subject.object_type, subject_relation),
        ] {
            let Some(found) = of(object) else { continue };
            is_dropped |= found.is_dropped;
            if let Some(found) = found.members.get(member.as_str()) {
                is_dropped |= found.is_dropped;
                member.clone_from(&found.new);
            }
            object.clone_from(&found.new);
        }
        let Some(caveat) = caveat else {
            return Ok(!is_dropped);
        };
        let parameters = self.schema.parameters.get(&caveat.caveat_name);
        if let Some(found) = of(&caveat.caveat_name) {
            is_dropped |= found.is_dropped;
            caveat.caveat_name.clone_from(&found.new);
        }
        if let Some(context) = &mut caveat.context
            && let Some(redaction) = &self.plan.redaction
            && !is_dropped
        {
            if redaction.contexts {
                redaction.redactor.context(context, parameters);
            } else {
                self.counts.with_context += u64::from(is_redacted && !context.fields.is_empty());
            }
        }
        Ok(!is_dropped)
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
            if let Some(relationship) = &mut update.relationship
                && self.map(relationship)?
            {
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

    /// Finds out what a name becomes, and that no other one becomes that. A caveat has no member.
    fn learn(&mut self, object: &str, member: Option<&str>) -> Result<(), CommandError> {
        let is_type = member.is_some();
        let member = member.filter(|name| *name != ELLIPSIS).unwrap_or_default();
        let is_known = |found: &Object| member.is_empty() || found.members.contains_key(member);
        if self.objects.get(object).is_some_and(is_known) {
            return Ok(());
        }
        self.name_bytes += object.len() + member.len() + NAME_BYTES;
        if self.name_bytes > MAX_NAME_BYTES {
            return Err(CommandError::new(
                Exit::BadData,
                "more definitions and relations than a schema of 4 MiB can have",
            ));
        }
        let (plan, taken) = (&self.plan, &mut self.taken);
        if !self.objects.contains_key(object) {
            let new = plan.renames.of_object(object).into_owned();
            unique(taken, &new, object)?;
            let found = Object {
                new,
                is_dropped: plan.removal.objects.contains(object),
                members: HashMap::new(),
                taken: HashMap::new(),
            };
            self.objects.insert(object.to_owned(), found);
            self.unseen.object(object, is_type);
        }
        if let Some(found) = self.objects.get_mut(object)
            && !member.is_empty()
        {
            let new = plan.renames.of_member(object, member).to_owned();
            unique(&mut found.taken, &new, member)?;
            self.unseen.member(object, member);
            let key = (object.to_owned(), member.to_owned());
            let is_dropped = plan.removal.members.contains(&key) || self.schema.lost.contains(&key);
            found
                .members
                .insert(member.to_owned(), Member { new, is_dropped });
        }
        Ok(())
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

/// Notes a new name, unless another one has become it. Of a stream without a schema nothing else finds that.
fn unique(taken: &mut HashMap<String, String>, new: &str, old: &str) -> Result<(), CommandError> {
    match taken.insert(new.to_owned(), old.to_owned()) {
        Some(other) if other != old => Err(CommandError::new(
            Exit::BadData,
            format!("--rename: the stream has {other} and {old}, which would both be called {new}"),
        )
        .hint(CLASH)
        .also("the output is not complete: discard it")),
        _ => Ok(()),
    }
}
