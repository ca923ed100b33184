//! Whether a server's schema, at some revision, is a given text, and what names it has.

mod text;
mod unseen;

use std::collections::HashMap;

use authzed::Client;
use authzed::v1::reflection_schema_diff::Diff;
use authzed::v1::{Consistency, ReflectSchemaResponse, ReflectionSchemaDiff};

use spice_cli::CommandError;
use spice_cli::display::few;

/// Whether a schema shows that relationships can expire: versions before v1.40 do not know its flag.
#[must_use]
pub fn uses_expiration(text: &str) -> bool {
    text.lines().any(|line| line.trim() == "use expiration")
}

/// How a server's schema differs from `text`, in words; `None` if nothing does.
///
/// DiffSchema compares what is stored with what it parses, so that a schema differs from the very text
/// that the server gives for it (measured, SpiceDB v1.56):
///
/// - It keeps comments as they were written, and ReadSchema renders them again: spaces, slashes and
///   stars at both ends of their lines come and go. A comment counts as changed only if more than these
///   has.
/// - It compares the parsed expressions of caveats, not what they say: one that was written with
///   redundant parentheses is another one, and so is `!(!a)`, which is rendered `!!a` and parsed again as `a`.
///   Such an expression counts as changed only if its text has.
///
/// Type annotations of permissions and `use` flags it does not compare at all. They are taken from the text
/// of the newest schema, for no call gives that of a revision, and count where both texts show them.
///
/// An older server has no DiffSchema: there the texts are compared, without comments, and always the newest
/// schema's ([`Offers::schema_at_revision`](authzed::Offers::schema_at_revision)).
///
/// # Errors
///
/// The server's: exit 4 for an exact revision that it no longer has.
pub async fn differences(
    client: &Client,
    consistency: Consistency,
    text: &str,
) -> Result<Option<String>, CommandError> {
    if !client.offers().schema_at_revision() {
        let there = client.read_schema().await?.unwrap_or_default();
        return Ok(text::difference(&there.text, text));
    }
    let answer = match client.diff_schema(consistency.clone(), text).await {
        Ok(answer) => answer,
        Err(error) if error.message().contains("parse error") => {
            return unparsed(client, consistency, text, error).await;
        }
        Err(error) => return Err(error.into()),
    };
    let mut diffs: Vec<Diff> = answer
        .diffs
        .into_iter()
        .filter_map(|ReflectionSchemaDiff { diff }| diff)
        .collect();
    if diffs.iter().any(may_be_rendering) {
        let there = There::of(client.reflect_schema(consistency).await?);
        diffs.retain(|diff| !there.is_only_rendered_otherwise(diff, text));
    }
    if diffs.is_empty() {
        if !unseen::is_shown_in(text) {
            return Ok(None);
        }
        let there = client.read_schema().await?.unwrap_or_default();
        return Ok(unseen::difference(&there.text, text));
    }
    Ok(Some(few(diffs.iter().map(describe))))
}

/// As [`differences`], of a text that the server does not parse. It may have rendered that itself: `'it"s'` in
/// a caveat becomes `"it\"s"`, which it does not read (measured, SpiceDB v1.57.1). Then the text is the newest
/// schema's, and that of the revision where both are made of the same.
async fn unparsed(
    client: &Client,
    consistency: Consistency,
    text: &str,
    error: authzed::Error,
) -> Result<Option<String>, CommandError> {
    let newest = client.read_schema().await?.unwrap_or_default();
    if text::difference(&newest.text, text).is_some() {
        return Err(error.into());
    }
    let at = client.reflect_schema(consistency).await?;
    let now = client
        .reflect_schema(Consistency::fully_consistent())
        .await?;
    let is_same = at.definitions == now.definitions && at.caveats == now.caveats;
    Ok((!is_same).then(|| "it has been changed since".to_owned()))
}

/// The definitions and caveats at a revision; none where there is no schema. Of an older server that cannot
/// show only the names, as the newest text has them.
///
/// # Errors
///
/// The server's: exit 4 for an exact revision that it no longer has.
pub async fn reflect(
    client: &Client,
    consistency: Consistency,
) -> Result<ReflectSchemaResponse, CommandError> {
    if client.offers().schema_at_revision() {
        return Ok(client.reflect_schema(consistency).await?);
    }
    let schema = client.read_schema().await?.unwrap_or_default();
    Ok(text::reflect(&schema.text))
}

/// The names of [`reflect`]'s definitions.
///
/// # Errors
///
/// As [`reflect`].
pub async fn definitions(
    client: &Client,
    consistency: Consistency,
) -> Result<Vec<String>, CommandError> {
    let schema = reflect(client, consistency).await?;
    let names = schema.definitions.into_iter().map(|found| found.name);
    Ok(names.collect())
}

/// Whether a difference is of a kind that two renderings of one schema can have.
fn may_be_rendering(diff: &Diff) -> bool {
    matches!(
        diff,
        Diff::DefinitionDocCommentChanged(_)
            | Diff::RelationDocCommentChanged(_)
            | Diff::PermissionDocCommentChanged(_)
            | Diff::CaveatDocCommentChanged(_)
            | Diff::CaveatExprChanged(_)
    )
}

/// What a server has stored of what it renders: comments by definition and name in it, the name empty for
/// the definition's own; comments and expressions of caveats.
#[derive(Default)]
struct There {
    comments: HashMap<(String, String), String>,
    caveats: HashMap<String, (String, String)>,
}

impl There {
    fn of(reflected: ReflectSchemaResponse) -> Self {
        let mut there = Self::default();
        for definition in reflected.definitions {
            let relations = definition.relations.into_iter();
            let relations = relations.map(|found| (found.name, found.comment));
            let permissions = definition.permissions.into_iter();
            let permissions = permissions.map(|found| (found.name, found.comment));
            for (name, comment) in relations.chain(permissions) {
                there
                    .comments
                    .insert((definition.name.clone(), name), comment);
            }
            let own = (definition.name, String::new());
            there.comments.insert(own, definition.comment);
        }
        for found in reflected.caveats {
            let caveat = (found.comment, found.expression);
            there.caveats.insert(found.name, caveat);
        }
        there
    }

    /// `text` is what was compared.
    fn is_only_rendered_otherwise(&self, diff: &Diff, text: &str) -> bool {
        let comment = |definition: &str, name: &str, comment: &str| {
            let there = self.comments.get(&(definition.to_owned(), name.to_owned()));
            there.is_some_and(|there| words(there) == words(comment))
        };
        match diff {
            Diff::DefinitionDocCommentChanged(d) => comment(&d.name, "", &d.comment),
            Diff::RelationDocCommentChanged(r) => {
                comment(&r.parent_definition_name, &r.name, &r.comment)
            }
            Diff::PermissionDocCommentChanged(p) => {
                comment(&p.parent_definition_name, &p.name, &p.comment)
            }
            Diff::CaveatDocCommentChanged(c) => {
                let there = self.caveats.get(&c.name);
                there.is_some_and(|(comment, _)| words(comment) == words(&c.comment))
            }
            Diff::CaveatExprChanged(c) => {
                let there = self.caveats.get(&c.name);
                there.is_some_and(|(_, expression)| {
                    *expression == c.expression || text::has_caveat(text, &c.name, expression)
                })
            }
            _ => false,
        }
    }
}

/// The lines of a comment, without what a renderer adds to their ends or takes from them.
fn words(comment: &str) -> Vec<&str> {
    let is_rendering = |c: char| c.is_whitespace() || matches!(c, '/' | '*');
    let lines = comment.lines().map(|line| line.trim_matches(is_rendering));
    lines.filter(|line| !line.is_empty()).collect()
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
) -> Result<Option<String>, CommandError> {
    match there {
        None if text.is_empty() => Ok(None),
        None => Ok(Some("it has none".to_owned())),
        Some(_) if text.is_empty() => Ok(Some("it should have none".to_owned())),
        Some(_) => differences(client, consistency, text).await,
    }
}

/// Describes how the server's schema differs from the one it was compared with: DiffSchema counts
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

#[cfg(test)]
mod tests;
