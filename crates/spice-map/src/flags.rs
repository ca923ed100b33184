//! What the flags of the command line name.

use std::fmt;
use std::str::FromStr;

use spice_cli::values::parse_id_prefix;
use spice_schema::names::{
    CAVEAT_RULE, DEFINITION_RULE, RELATION_RULE, is_caveat, is_definition, is_relation, keyword_in,
};

/// `--rename`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rename {
    /// Both end in a slash, or are empty.
    Prefix { from: String, to: String },
    /// A definition or caveat.
    Object { from: String, to: String },
    /// A relation or permission.
    Member {
        definition: String,
        from: String,
        to: String,
    },
}

impl FromStr for Rename {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((from, to)) = text.split_once('=') else {
            return Err("expected OLD=NEW".to_owned());
        };
        if from == to {
            return Err("both names are the same".to_owned());
        }
        let owned = |text: &str| text.to_owned();
        if let Some((definition, member)) = from.split_once('#') {
            if !is_caveat(definition) || !is_relation(member) {
                return Err(format!("{from} is no definition#relation"));
            }
            if !is_relation(to) {
                return Err(format!("{to:?} is no name of a relation: {RELATION_RULE}"));
            }
            refuse_keywords(to)?;
            return Ok(Self::Member {
                definition: owned(definition),
                from: owned(member),
                to: owned(to),
            });
        }
        let is_prefix = |text: &str| text.is_empty() || text.ends_with('/');
        if is_prefix(from) || is_prefix(to) {
            for (prefix, other) in [(from, to), (to, from)] {
                if !is_prefix(prefix) {
                    return Err(format!(
                        "{other:?} is a prefix, and {prefix:?} does not end in a slash"
                    ));
                }
                if !is_definition(&format!("{prefix}name")) {
                    return Err(format!(
                        "{prefix:?} is no prefix of SpiceDB: {DEFINITION_RULE}"
                    ));
                }
            }
            let (from, to) = (owned(from), owned(to));
            return Ok(Self::Prefix { from, to });
        }
        for name in [from, to] {
            if !is_caveat(name) {
                return Err(format!(
                    "{name:?} is no name of a definition or caveat: {DEFINITION_RULE}; {CAVEAT_RULE}"
                ));
            }
        }
        refuse_keywords(to)?;
        let (from, to) = (owned(from), owned(to));
        Ok(Self::Object { from, to })
    }
}

impl fmt::Display for Rename {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix { from, to } | Self::Object { from, to } => write!(f, "{from}={to}"),
            Self::Member {
                definition,
                from,
                to,
            } => write!(f, "{definition}#{from}={to}"),
        }
    }
}

/// `--drop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A definition or caveat.
    Object(String),
    /// A relation or permission of a definition.
    Member(String, String),
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = match text.split_once('#') {
            Some((definition, member)) if is_caveat(definition) && is_relation(member) => {
                Self::Member(definition.to_owned(), member.to_owned())
            }
            None if is_caveat(text) => Self::Object(text.to_owned()),
            _ => {
                return Err("expected a definition, a caveat, or definition#relation".to_owned());
            }
        };
        Ok(part)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(name) => f.write_str(name),
            Self::Member(definition, member) => write!(f, "{definition}#{member}"),
        }
    }
}

/// `--only-resource-prefix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PrefixOf {
    pub(crate) kind: String,
    pub(crate) prefix: String,
}

impl FromStr for PrefixOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((kind, prefix)) if !prefix.is_empty() => Ok(Self {
                kind: parse_type(kind)?,
                prefix: parse_id_prefix(prefix)?,
            }),
            _ => Err("expected TYPE:PREFIX".to_owned()),
        }
    }
}

fn refuse_keywords(name: &str) -> Result<(), String> {
    match keyword_in(name) {
        None => Ok(()),
        Some(word) => Err(format!("SpiceDB accepts no such name: {word} is a keyword")),
    }
}

/// A type that `--only-type` or `--redact` names.
pub(crate) fn parse_type(text: &str) -> Result<String, String> {
    match is_caveat(text) {
        true => Ok(text.to_owned()),
        false => Err("expected the name of a definition".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renames_are_prefixes_objects_or_members() {
        let parse = |text: &str| text.parse::<Rename>();
        for text in ["crm/=sales/", "=sales/", "crm/=", "a_b/c_d/=one/"] {
            assert!(matches!(parse(text), Ok(Rename::Prefix { .. })), "{text}");
        }
        for text in ["crm/doc=sales/document", "user=person", "c=d"] {
            assert!(matches!(parse(text), Ok(Rename::Object { .. })), "{text}");
        }
        let member = parse("crm/doc#viewer=reader");
        assert_eq!(member.unwrap().to_string(), "crm/doc#viewer=reader");
        for text in [
            "",
            "doc",
            "doc=doc",
            "crm/=sales",
            "crm=sales/",
            "doc#viewer=other#reader",
            "doc#viewer=",
            "doc#=reader",
            "#viewer=reader",
            "doc=a b",
            "Crm/=x/",
            "doc#a=sales/x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn refused_name_is_shown_with_its_rule() {
        for (text, name, rule) in [
            ("=xy/", "\"xy/\"", "3 to 63"),
            ("nope/=x/", "\"x/\"", "3 to 63"),
            ("=CRM/", "\"CRM/\"", "lower-case"),
            ("=a/b/", "\"a/b/\"", "3 to 63"),
            ("crm/=sales", "\"sales\"", "does not end in a slash"),
            ("doc#viewer=x", "\"x\"", "3 to 64"),
            ("doc=a b", "\"a b\"", "3 to 64"),
            ("doc=definition", "definition", "keyword"),
            ("doc=crm/nil", "nil", "keyword"),
            ("doc#viewer=permission", "permission", "keyword"),
        ] {
            let why = text.parse::<Rename>().unwrap_err();
            assert!(why.contains(name) && why.contains(rule), "{text}: {why}");
        }
    }

    #[test]
    fn parts_and_prefixes_are_parsed() {
        let part = |text: &str| text.parse::<Part>().map(|part| part.to_string());
        for text in ["doc", "crm/doc", "c", "doc#viewer"] {
            assert_eq!(part(text).as_deref(), Ok(text));
        }
        for text in ["", "crm/", "#viewer", "doc#", "a b"] {
            assert!(part(text).is_err(), "{text}");
        }
        assert_eq!(parse_type("crm/doc").as_deref(), Ok("crm/doc"));
        for text in ["", "crm/", "doc:a", "doc#viewer", "a b"] {
            assert!(parse_type(text).is_err(), "{text:?}");
        }
        let prefix: PrefixOf = "doc:a/b".parse().unwrap();
        assert_eq!((&*prefix.kind, &*prefix.prefix), ("doc", "a/b"));
        for text in ["", "doc", "doc:", ":a", "doc:%", "doc:a:b", "a doc:a"] {
            assert!(text.parse::<PrefixOf>().is_err(), "{text}");
        }
    }
}
