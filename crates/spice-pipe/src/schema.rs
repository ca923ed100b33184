//! Whether a server's schema, at some revision, is a given text.

use std::collections::HashMap;

use authzed::Client;
use authzed::v1::reflection_schema_diff::Diff;
use authzed::v1::{Consistency, ReflectionSchemaDiff};

use crate::exit::Failure;

/// What tells a server's schema from `text`, in words; `None` if nothing does.
///
/// DiffSchema compares the parsed expressions of caveats, not what they say, so that a caveat that was
/// once written with redundant parentheses differs from the very text that the server gives for it
/// (measured, SpiceDB v1.56). Such an expression counts as changed only if its text has.
///
/// # Errors
///
/// The server's: exit 4 for an exact revision that it no longer has.
pub async fn differences(
    client: &Client,
    consistency: Consistency,
    text: &str,
) -> Result<Option<String>, Failure> {
    const NAMED: usize = 5;
    let mut diffs: Vec<Diff> = client
        .diff_schema(consistency.clone(), text)
        .await?
        .diffs
        .into_iter()
        .filter_map(|ReflectionSchemaDiff { diff }| diff)
        .collect();
    if diffs
        .iter()
        .any(|diff| matches!(diff, Diff::CaveatExprChanged(_)))
    {
        let caveats = client.reflect_schema(consistency).await?.caveats;
        let expressions: HashMap<String, String> = caveats
            .into_iter()
            .map(|caveat| (caveat.name, caveat.expression))
            .collect();
        diffs.retain(|diff| match diff {
            Diff::CaveatExprChanged(c) => expressions.get(&c.name) != Some(&c.expression),
            _ => true,
        });
    }
    if diffs.is_empty() {
        return Ok(None);
    }
    let named: Vec<String> = diffs.iter().take(NAMED).map(describe).collect();
    let more = match diffs.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    Ok(Some(format!("{}{more}", named.join(", "))))
}

/// As [`differences`], where the server may have no schema, and an empty text is none either: DiffSchema
/// compares neither. `there` is what ReadSchema gives.
///
/// # Errors
///
/// As [`differences`].
pub async fn difference(
    client: &Client,
    consistency: Consistency,
    there: Option<&str>,
    text: &str,
) -> Result<Option<String>, Failure> {
    match there {
        None if text.is_empty() => Ok(None),
        None => Ok(Some("it has none".to_owned())),
        Some(_) if text.is_empty() => Ok(Some("it should have none".to_owned())),
        Some(_) => differences(client, consistency, text).await,
    }
}

/// Says what the server's schema has otherwise than the one it was compared with: DiffSchema counts
/// from its own schema to the other.
fn describe(diff: &Diff) -> String {
    let relation = |definition: &str, name: &str| format!("{definition}#{name}");
    match diff {
        Diff::DefinitionAdded(d) => format!("definition {} missing", d.name),
        Diff::DefinitionRemoved(d) => format!("definition {} too many", d.name),
        Diff::DefinitionDocCommentChanged(d) => format!("comment of definition {}", d.name),
        Diff::RelationAdded(r) => {
            format!(
                "relation {} missing",
                relation(&r.parent_definition_name, &r.name)
            )
        }
        Diff::RelationRemoved(r) => {
            format!(
                "relation {} too many",
                relation(&r.parent_definition_name, &r.name)
            )
        }
        Diff::RelationDocCommentChanged(r) => {
            format!(
                "comment of relation {}",
                relation(&r.parent_definition_name, &r.name)
            )
        }
        Diff::RelationSubjectTypeAdded(c) | Diff::RelationSubjectTypeRemoved(c) => {
            let relation = c
                .relation
                .as_ref()
                .map(|r| relation(&r.parent_definition_name, &r.name));
            format!(
                "allowed subjects of relation {}",
                relation.unwrap_or_default()
            )
        }
        Diff::PermissionAdded(p) => {
            format!(
                "permission {} missing",
                relation(&p.parent_definition_name, &p.name)
            )
        }
        Diff::PermissionRemoved(p) => {
            format!(
                "permission {} too many",
                relation(&p.parent_definition_name, &p.name)
            )
        }
        Diff::PermissionDocCommentChanged(p) => {
            format!(
                "comment of permission {}",
                relation(&p.parent_definition_name, &p.name)
            )
        }
        Diff::PermissionExprChanged(p) => {
            format!(
                "expression of permission {}",
                relation(&p.parent_definition_name, &p.name)
            )
        }
        Diff::CaveatAdded(c) => format!("caveat {} missing", c.name),
        Diff::CaveatRemoved(c) => format!("caveat {} too many", c.name),
        Diff::CaveatDocCommentChanged(c) => format!("comment of caveat {}", c.name),
        Diff::CaveatExprChanged(c) => format!("expression of caveat {}", c.name),
        Diff::CaveatParameterAdded(p) | Diff::CaveatParameterRemoved(p) => {
            format!("parameter {} of caveat {}", p.name, p.parent_caveat_name)
        }
        Diff::CaveatParameterTypeChanged(c) => {
            let parameter = c.parameter.as_ref();
            parameter.map_or_else(
                || "a caveat parameter's type".to_owned(),
                |p| {
                    format!(
                        "type of parameter {} of caveat {}",
                        p.name, p.parent_caveat_name
                    )
                },
            )
        }
    }
}
