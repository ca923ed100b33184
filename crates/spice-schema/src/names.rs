//! Which names SpiceDB accepts.

/// The flags of `use`. Each makes a word a keyword.
pub const FLAGS: [&str; 6] = [
    "deprecation",
    "expiration",
    "import",
    "partial",
    "self",
    "typechecking",
];

const KEYWORDS: [&str; 6] = [
    "caveat",
    "definition",
    "nil",
    "permission",
    "relation",
    "with",
];

/// The longest name of a definition or caveat, with its prefix, that WriteSchema of v1.56 takes.
const MAX_BYTES: usize = 128;

/// What [`is_definition`] asks of a name.
pub const DEFINITION_RULE: &str = "a name has 3 to 64 lower-case letters, digits and underscores, first a letter, \
     last no underscore; a part of its prefix likewise, 3 to 63; both together at most 128";
/// What [`is_relation`] asks of a name.
pub const RELATION_RULE: &str = "a relation has 3 to 64 lower-case letters, digits and underscores, first a letter, \
     last no underscore";
/// What [`is_caveat`] asks of a name.
pub const CAVEAT_RULE: &str =
    "a caveat has letters, digits and underscores, and slashes between them, at most 128 in all";

/// Whether a word cannot be a name, or a part of one, where these flags are in use.
pub(crate) fn is_keyword(word: &str, has_flag: impl Fn(&str) -> bool) -> bool {
    match word {
        "and" => has_flag("expiration"),
        // The flag's own word remains a name.
        "deprecation" => false,
        _ => KEYWORDS.contains(&word) || (FLAGS.contains(&word) && has_flag(word)),
    }
}

/// The part of a name that is a keyword in every schema, whatever it uses.
#[must_use]
pub fn keyword_in(name: &str) -> Option<&str> {
    name.split('/').find(|part| KEYWORDS.contains(part))
}

/// Whether SpiceDB accepts the name of a definition: parts of 3 to 63 lower-case letters, digits and
/// underscores, the last of up to 64, joined by slashes, at most 128 bytes.
#[must_use]
pub fn is_definition(name: &str) -> bool {
    let (prefix, last) = name.rsplit_once('/').unwrap_or(("", name));
    let is_prefix = |prefix: &str| prefix.split('/').all(|part| is_part(part, 63));
    name.len() <= MAX_BYTES && is_part(last, 64) && (!name.contains('/') || is_prefix(prefix))
}

/// Whether SpiceDB accepts the name of a relation or permission.
#[must_use]
pub fn is_relation(name: &str) -> bool {
    is_part(name, 64)
}

/// Whether SpiceDB accepts the name of a caveat: letters, digits and underscores, joined by slashes, at
/// most 128 bytes.
#[must_use]
pub fn is_caveat(name: &str) -> bool {
    let is_word = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    name.len() <= MAX_BYTES && name.split('/').all(is_word)
}

fn is_part(part: &str, most: usize) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
    (3..=most).contains(&part.len())
        && part.starts_with(|first: char| first.is_ascii_lowercase())
        && !part.ends_with('_')
        && part.as_bytes().iter().all(is_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_api() {
        let (long, longer) = ("a".repeat(64), "a".repeat(65));
        for name in ["user", "a_b", "tenant/doc", "aaa/bbb/ccc", &long] {
            assert!(is_definition(name), "{name}");
        }
        let long_prefix = format!("{long}/doc");
        let prefix = "p".repeat(63);
        assert!(is_definition(&format!("{prefix}/{long}")));
        let deep = format!("org/{prefix}/{long}");
        for name in [
            "",
            "ab",
            "User",
            "1ab",
            "ab_",
            "a-b",
            "/doc",
            "doc/",
            "te/doc",
            "a//doc",
            &longer,
            &long_prefix,
            &deep,
        ] {
            assert!(!is_definition(name), "{name}");
        }
        assert!(is_relation("viewer") && !is_relation("tenant/viewer") && !is_relation("..."));
        assert!(is_caveat("c") && is_caveat("org/team/C_1"));
        assert!(!is_caveat("") && !is_caveat("a//b") && !is_caveat("a b"));
    }

    #[test]
    fn flags_make_words_keywords() {
        assert!(is_keyword("nil", |_| false) && !is_keyword("use", |_| true));
        for word in ["and", "expiration"] {
            assert!(is_keyword(word, |flag| flag == "expiration"));
            assert!(!is_keyword(word, |_| false));
        }
        assert!(!is_keyword("self", |flag| flag == "partial"));
        assert_eq!(keyword_in("crm/nil"), Some("nil"));
        assert_eq!(keyword_in("crm/self"), None);
    }
}
