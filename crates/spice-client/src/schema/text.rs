//! A schema's text, taken apart as far as two texts can be compared and their differences named.
//!
//! For servers that have neither ReflectSchema nor DiffSchema (measured: SpiceDB v1.30.0 and v1.35.0). The
//! text is what ReadSchema gives, so it parses: what is not understood is left as it is.

use std::collections::BTreeMap;

use authzed::v1::{
    ReflectSchemaResponse, ReflectionCaveat, ReflectionCaveatParameter, ReflectionDefinition,
    ReflectionPermission, ReflectionRelation,
};

use spice_cli::display::few;

/// How two texts differ, in words; `None` where only comments, spaces or the order of declarations do.
pub(super) fn difference(there: &str, text: &str) -> Option<String> {
    let (there, here) = (declarations(there), declarations(text));
    let mut named = Vec::new();
    for (name, tokens) in &here {
        match there.get(name) {
            None => named.push(format!("{name} missing")),
            Some(others) if others != tokens => named.push(format!("{name} otherwise")),
            Some(_) => {}
        }
    }
    let more = there.keys().filter(|name| !here.contains_key(*name));
    named.extend(more.map(|name| format!("{name} too many")));
    (!named.is_empty()).then(|| few(named.into_iter()))
}

/// The names in a text: definitions with their relations and permissions, caveats with their parameters.
pub(super) fn reflect(text: &str) -> ReflectSchemaResponse {
    let mut schema = ReflectSchemaResponse::default();
    for tokens in declarations(text).into_values() {
        let Some((name, body)) = tokens.get(1).cloned().zip(tokens.get(2..)) else {
            continue;
        };
        match tokens[0].as_str() {
            "definition" => schema.definitions.push(definition(name, body)),
            "caveat" => schema.caveats.push(ReflectionCaveat {
                name,
                parameters: parameters(body),
                ..ReflectionCaveat::default()
            }),
            _ => {}
        }
    }
    schema
}

/// Whether a text has a caveat with this expression, comments and spaces apart.
pub(super) fn has_caveat(text: &str, name: &str, expression: &str) -> bool {
    let declarations = declarations(text);
    let Some(caveat) = declarations.get(&format!("caveat {name}")) else {
        return false;
    };
    let begin = caveat.iter().position(|token| token == "{");
    let body = begin.and_then(|begin| caveat.get(begin + 1..caveat.len() - 1));
    body.is_some_and(|body| body == tokens(expression))
}

fn definition(name: String, body: &[String]) -> ReflectionDefinition {
    let mut found = ReflectionDefinition {
        name,
        ..ReflectionDefinition::default()
    };
    // `relation viewer: ...` and `permission view = ...`: no other place has a word in front of these.
    for part in body.windows(3) {
        match (part[0].as_str(), part[2].as_str()) {
            ("relation", ":") => found.relations.push(ReflectionRelation {
                name: part[1].clone(),
                parent_definition_name: found.name.clone(),
                ..ReflectionRelation::default()
            }),
            ("permission", "=" | ":") => found.permissions.push(ReflectionPermission {
                name: part[1].clone(),
                parent_definition_name: found.name.clone(),
                ..ReflectionPermission::default()
            }),
            _ => {}
        }
    }
    found
}

/// Of `(name type, name list<type>) { expression }`.
fn parameters(body: &[String]) -> Vec<ReflectionCaveatParameter> {
    let inner = body.iter().skip_while(|token| *token != "(").skip(1);
    let inner: Vec<&str> = inner
        .map(String::as_str)
        .take_while(|token| *token != ")")
        .collect();
    let one = |parameter: &[&str]| {
        let (name, kind) = parameter.split_first()?;
        Some(ReflectionCaveatParameter {
            name: (*name).to_owned(),
            r#type: kind.concat(),
            ..ReflectionCaveatParameter::default()
        })
    };
    inner.split(|token| *token == ",").filter_map(one).collect()
}

/// The declarations of a text by kind and name, each as its tokens.
pub(super) fn declarations(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    let mut current: Vec<String> = Vec::new();
    let (mut depth, mut has_body) = (0_usize, false);
    let mut end = |current: &mut Vec<String>| {
        if !current.is_empty() {
            let tokens = std::mem::take(current);
            let name = tokens.iter().take(2).cloned().collect::<Vec<_>>().join(" ");
            found.insert(name, tokens);
        }
    };
    for token in tokens(text) {
        let begins = matches!(token.as_str(), "definition" | "caveat" | "use" | "partial");
        // `use` has no body: it ends where something else begins.
        if depth == 0 && (has_body || (begins && current.len() >= 2)) {
            end(&mut current);
            has_body = false;
        }
        match token.as_str() {
            "{" | "(" => depth += 1,
            "}" | ")" => {
                depth = depth.saturating_sub(1);
                has_body = depth == 0 && token == "}";
            }
            _ => {}
        }
        current.push(token);
    }
    end(&mut current);
    found
}

/// Words, strings and signs, without comments and spaces.
fn tokens(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_whitespace() {
            first.len_utf8()
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else {
            let length = token_length(rest, first);
            found.push(rest[..length].to_owned());
            length
        };
        rest = &rest[length..];
    }
    found
}

fn token_length(rest: &str, first: char) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if first == '"' || first == '\'' {
        let mut escaped = false;
        let end = rest.char_indices().skip(1).find(|&(_, c)| {
            let ends = c == first && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        return end.map_or(rest.len(), |(at, _)| at + 1);
    }
    if !is_word(first) {
        return first.len_utf8();
    }
    // A prefixed name, `tenant/doc`, is one word; what looks like it, `a / b`, has spaces.
    let mut end = 0;
    for (at, c) in rest.char_indices() {
        let is_slash = c == '/' && rest[at + 1..].starts_with(|c: char| is_word(c));
        if !is_word(c) && !is_slash {
            break;
        }
        end = at + c.len_utf8();
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "use expiration\n\ncaveat tenant/c(a int, b list<string>) {\n\ta > 1 && \"x // y\" in b\n}\n\n\
        definition tenant/doc {\n\t// who reads\n\trelation viewer: user | user:* with tenant/c\n\
        \tpermission view = viewer + owner->view\n}\n\ndefinition user {}\n";

    #[test]
    fn comments_spaces_and_order_are_no_difference() {
        let other = "use expiration /* needed */ definition user{}\n// the document\ndefinition tenant/doc{\
            relation viewer:user|user:*with tenant/c permission view=viewer+owner->view}\
            caveat tenant/c(a int,b list<string>){a>1&&\"x // y\" in b}";
        assert_eq!(difference(ONE, other), None);
        assert_eq!(difference(other, ONE), None);
        assert_eq!(difference("", ""), None);
    }

    #[test]
    fn what_is_otherwise_is_named() {
        for (from, to, named) in [
            (
                "viewer + owner",
                "viewer - owner",
                "definition tenant/doc otherwise",
            ),
            ("\"x // y\"", "\"x //  y\"", "caveat tenant/c otherwise"),
            ("a > 1", "a > 2", "caveat tenant/c otherwise"),
            ("definition user {}", "", "definition user too many"),
            ("use expiration\n", "", "use expiration too many"),
            (
                "definition user {}",
                "definition user {}\ndefinition team {}",
                "definition team missing",
            ),
        ] {
            let text = ONE.replacen(from, to, 1);
            assert_ne!(text, ONE);
            assert_eq!(difference(ONE, &text).as_deref(), Some(named));
        }
    }

    #[test]
    fn caveats_with_parameters_like_keywords_are_compared() {
        let one = "caveat a(partial bool, use int) {\n\tpartial\n}\n\ncaveat b(partial bool) {\n\t!partial\n}";
        assert_eq!(difference(one, one), None);
        let other = one.replace("\tpartial", "\tuse > 1");
        assert_eq!(
            difference(one, &other).as_deref(),
            Some("caveat a otherwise")
        );
        assert_eq!(reflect(one).caveats.len(), 2);
        assert_eq!(reflect(one).caveats[0].parameters.len(), 2);
    }

    #[test]
    fn names_are_reflected() {
        let schema = reflect(ONE);
        let names: Vec<&str> = schema.definitions.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["tenant/doc", "user"]);
        let doc = &schema.definitions[0];
        assert_eq!(doc.relations[0].name, "viewer");
        assert_eq!(doc.permissions[0].name, "view");
        assert_eq!((doc.relations.len(), doc.permissions.len()), (1, 1));
        let caveat = &schema.caveats[0];
        let parameters: Vec<_> = caveat
            .parameters
            .iter()
            .map(|p| (p.name.as_str(), p.r#type.as_str()))
            .collect();
        assert_eq!(caveat.name, "tenant/c");
        assert_eq!(parameters, [("a", "int"), ("b", "list<string>")]);
    }

    #[test]
    fn a_relation_may_be_named_as_a_keyword() {
        let schema = reflect(
            "definition d {\n\trelation relation: d\n\trelation permission: d\n\tpermission definition = relation\n}",
        );
        let doc = &schema.definitions[0];
        let relations: Vec<&str> = doc.relations.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(relations, ["relation", "permission"]);
        assert_eq!(doc.permissions[0].name, "definition");
    }
}
