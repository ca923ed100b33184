//! What is asked about a sample.

use std::collections::BTreeMap;

use authzed::v1::{
    CheckBulkPermissionsRequestItem as Item, Consistency, ReadRelationshipsRequest,
    ReflectSchemaResponse, Relationship, RelationshipFilter, SubjectReference,
};
use fastrand::Rng;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use spice_cli::CommandError;
use spice_client::retry::Retry;
use spice_record::checks::{Answer, Check, Permissionship};

use crate::checker::Checker;
use crate::sample::{Sample, is_wildcard};

/// How many members of a subject set are looked at, to ask about one of them.
const MEMBERS: u32 = 8;

/// The names that can be asked about, and what caveats take.
pub(crate) struct Schema {
    /// Permissions and relations by definition.
    names: BTreeMap<String, Vec<String>>,
    /// Parameters with their types by caveat.
    caveats: BTreeMap<String, Vec<(String, String)>>,
}

impl From<ReflectSchemaResponse> for Schema {
    fn from(schema: ReflectSchemaResponse) -> Self {
        let names = schema.definitions.into_iter().map(|definition| {
            let relations = definition.relations.into_iter().map(|one| one.name);
            let permissions = definition.permissions.into_iter().map(|one| one.name);
            (definition.name, relations.chain(permissions).collect())
        });
        let caveats = schema.caveats.into_iter().map(|caveat| {
            let parameters = caveat.parameters.into_iter();
            let parameters = parameters.map(|one| (one.name, one.r#type)).collect();
            (caveat.name, parameters)
        });
        Self {
            names: names.collect(),
            caveats: caveats.collect(),
        }
    }
}

/// Asks about a sample: each question first as it is, and where a caveat is in play once more with a
/// context.
pub(crate) async fn ask(
    checker: &mut Checker<'_>,
    schema: &Schema,
    sample: &Sample,
    rng: &mut Rng,
) -> Result<Vec<Check>, CommandError> {
    let mut requests = Vec::new();
    let mut about = Vec::new();
    for relationship in &sample.relationships {
        if let Some(request) = draw_request(checker, schema, sample, relationship, rng).await? {
            requests.push(request);
            about.push(relationship);
        }
    }
    let mut checks = checker.ask(requests).await?;
    let mut again = Vec::new();
    for (check, relationship) in checks.iter().zip(about) {
        let context = context(&check.answer, schema, sample, relationship, rng);
        if !context.fields.is_empty() {
            again.push(Item {
                context: Some(context.into()),
                ..check.request.0.clone()
            });
        }
    }
    checks.extend(checker.ask(again).await?);
    Ok(checks)
}

/// About the resource of a relationship: any of its permissions or relations, for the relationship's
/// own subject, or, as often, for any other subject of the sample.
async fn draw_request(
    checker: &Checker<'_>,
    schema: &Schema,
    sample: &Sample,
    relationship: &Relationship,
    rng: &mut Rng,
) -> Result<Option<Item>, CommandError> {
    let Some(resource) = &relationship.resource else {
        return Ok(None);
    };
    let names = schema.names.get(&resource.object_type);
    let permission = names.and_then(|names| rng.choice(names));
    let own = match &relationship.subject {
        Some(subject) if rng.bool() => pick_subject(checker, sample, subject, rng).await?,
        _ => None,
    };
    let subject = own.or_else(|| rng.choice(&sample.subjects).cloned());
    Ok(permission.zip(subject).map(|(permission, subject)| Item {
        resource: Some(resource.clone()),
        permission: permission.clone(),
        subject: Some(subject),
        context: None,
    }))
}

/// One for whom a relationship with this subject may say yes: the subject itself; of a set one of its
/// members, or the set; for a wildcard somebody of the type.
async fn pick_subject(
    checker: &Checker<'_>,
    sample: &Sample,
    subject: &SubjectReference,
    rng: &mut Rng,
) -> Result<Option<SubjectReference>, CommandError> {
    if is_wildcard(subject) {
        let kind = object_type(subject);
        let others = sample.subjects.iter();
        let same_type = others.filter(|other| object_type(other) == kind);
        return Ok(rng.choice(same_type.collect::<Vec<_>>()).cloned());
    }
    let Some(set) = subject
        .object
        .as_ref()
        .filter(|_| !subject.optional_relation.is_empty() && rng.bool())
    else {
        return Ok(Some(subject.clone()));
    };
    let request = ReadRelationshipsRequest {
        consistency: Some(Consistency::at_exact(checker.revision)),
        relationship_filter: Some(RelationshipFilter {
            resource_type: set.object_type.clone(),
            optional_resource_id: set.object_id.clone(),
            optional_relation: subject.optional_relation.clone(),
            ..RelationshipFilter::default()
        }),
        optional_limit: MEMBERS,
        optional_cursor: None,
    };
    let mut retry = Retry::new(checker.max_retries);
    let mut read = 0;
    let mut members: Vec<SubjectReference> = Vec::new();
    let mut responses = checker.client.read_relationships(request.clone());
    loop {
        match responses.message().await {
            Ok(Some(response)) => {
                read += 1;
                if read > MEMBERS {
                    break; // It was asked for no more.
                }
                let member = response.relationship.and_then(|one| one.subject);
                members.extend(member.filter(|member| !is_wildcard(member)));
            }
            Ok(None) => break,
            // A set may be a permission, which has no relationships of its own.
            Err(error) if error.kind() == authzed::Kind::Refused => break,
            Err(error) => {
                retry
                    .pause(error, "reading the members of a set again")
                    .await?;
                members.clear();
                read = 0;
                responses = checker.client.read_relationships(request.clone());
            }
        }
    }
    Ok(rng.choice(members).or_else(|| Some(subject.clone())))
}

fn object_type(subject: &SubjectReference) -> Option<&str> {
    subject
        .object
        .as_ref()
        .map(|object| object.object_type.as_str())
}

/// What a question is asked once more with: a value for all that its answer depends on, and for each
/// parameter of the caveat of the relationship that it came from.
fn context(
    answer: &Answer,
    schema: &Schema,
    sample: &Sample,
    relationship: &Relationship,
    rng: &mut Rng,
) -> Struct {
    let mut wanted = BTreeMap::new();
    let caveat = relationship.optional_caveat.as_ref();
    let own = caveat.map(|caveat| caveat.caveat_name.as_str());
    if let Some((caveat, parameters)) = own.and_then(|name| schema.caveats.get_key_value(name)) {
        for (name, kind) in parameters {
            wanted.insert(name.as_str(), (caveat, kind));
        }
    }
    if let Answer::Item(item) = answer
        && item.permissionship == Permissionship::Conditional
        && let Some(missing) = &item.partial_caveat_info
    {
        for (caveat, parameters) in &schema.caveats {
            for (name, kind) in parameters {
                if missing.missing_required_context.contains(name) {
                    wanted.entry(name).or_insert((caveat, kind));
                }
            }
        }
    }
    let fields = wanted.into_iter().map(|(name, (caveat, kind))| {
        let stored = sample.values.get(&(caveat.clone(), name.to_owned()));
        let stored = stored.and_then(|values| rng.choice(values)).cloned();
        let value = stored.unwrap_or_else(|| simple(kind, rng, 0));
        (name.to_owned(), value)
    });
    Struct {
        fields: fields.collect(),
    }
}

/// How deep a type of a caveat's parameter is followed: deeper values are refused by decoders.
const DEEPEST: usize = 16;

/// A plain value of a caveat parameter's type, as ReflectSchema names it.
fn simple(kind: &str, rng: &mut Rng, depth: usize) -> Value {
    let inner = kind
        .split_once('<')
        .filter(|_| depth < DEEPEST)
        .map(|(_, inner)| inner.trim_end_matches('>'));
    let kind = match kind {
        "bool" => Kind::BoolValue(rng.bool()),
        "int" | "uint" | "double" => Kind::NumberValue(f64::from(rng.u8(..2))),
        "bytes" => Kind::StringValue("YQ==".to_owned()),
        "duration" => Kind::StringValue("1h".to_owned()),
        "timestamp" => Kind::StringValue("2026-01-01T00:00:00Z".to_owned()),
        "ipaddress" => Kind::StringValue("10.1.2.3".to_owned()),
        _ if kind.starts_with("list<") => Kind::ListValue(ListValue {
            values: inner
                .map(|inner| simple(inner, rng, depth + 1))
                .into_iter()
                .collect(),
        }),
        _ if kind.starts_with("map<") => {
            let value = inner.map(|inner| ("a".to_owned(), simple(inner, rng, depth + 1)));
            Kind::StructValue(Struct {
                fields: value.into_iter().collect(),
            })
        }
        _ => Kind::StringValue("a".to_owned()),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_nested_without_end_are_cut() {
        for part in ["list<", "map<"] {
            let kind = part.repeat(200_000) + "int" + &">".repeat(200_000);
            let value = simple(&kind, &mut Rng::with_seed(1), 0);
            assert!(prost::Message::encoded_len(&value) < 1_000);
        }
    }
}
