use proptest::prelude::*;

use super::{FILES, parsed, renames};
use crate::{Removal, Schema};

/// Words, signs and pieces that the language is made of, and what else people type.
fn pieces() -> impl Strategy<Value = String> {
    const PIECES: [&str; 52] = [
        "definition",
        "caveat",
        "relation",
        "permission",
        "use",
        "partial",
        "import",
        "with",
        "nil",
        "self",
        "expiration",
        "and",
        "user",
        "org/doc",
        "viewer",
        "any",
        "all",
        "{",
        "}",
        "(",
        ")",
        ":",
        "*",
        "#",
        "|",
        "+",
        "-",
        "&",
        "->",
        ".",
        "...",
        "=",
        ";",
        ",",
        "<",
        ">",
        "@",
        "/",
        "\"",
        "'",
        "\"\"\"",
        "'''",
        "//",
        "/*",
        "*/",
        "\n",
        "\r\n",
        " ",
        "\t",
        "\\",
        "größe",
        "r'",
    ];
    prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..60).prop_map(|all| all.concat())
}

/// A small schema: two definitions with random relations, comments and spaces.
fn schema() -> impl Strategy<Value = String> {
    let space = prop::sample::select(vec![" ", "  ", "\t", " /* c */ ", "/*viewer*/ "]);
    let operator = prop::sample::select(vec!["+", "-", "&"]);
    let subject = prop::sample::select(vec!["", ":*", "#viewer", " with cav"]);
    (space, operator, subject, any::<bool>()).prop_map(|(space, operator, subject, lines)| {
        let end = if lines { "\n" } else { ";" };
        format!(
            "// crm/user\ndefinition{space}crm/user{space}{{}}\n\ncaveat{space}cav(a int){{a > 1}}\n\
             definition{space}crm/doc{space}{{{space}relation{space}viewer:{space}crm/user|crm/doc{subject}{end}\
             {space}relation{space}parent{space}:{space}crm/doc{end}\
             permission{space}view{space}={space}(viewer){space}{operator}{space}parent->viewer{end}}}"
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}") {
        let _ = Schema::parse(text);
    }

    #[test]
    fn no_mixture_of_the_language_makes_the_parser_panic(text in pieces()) {
        if let Ok(schema) = Schema::parse(text.clone()) {
            prop_assert_eq!(schema.text(), &text);
            let _ = schema.rename(&renames(&["user=person", "org/=sales/"]));
            let _ = schema.without(&Removal {
                objects: ["user".to_owned()].into(),
                references: true,
                ..Removal::default()
            });
        }
    }

    #[test]
    fn truncated_and_damaged_schemas_make_nothing_panic(
        file in 0..FILES.len(),
        at in any::<prop::sample::Index>(),
        with in prop::sample::select(vec!["", "}", "{", "\"", "'", "/*", "//", "\n", ";", "->", "§"]),
        cut in any::<bool>(),
    ) {
        let text = &FILES[file].1;
        let mut at = at.index(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let rest = if cut { "" } else { &text[at..] };
        let text = format!("{}{with}{rest}", &text[..at]);
        if let Ok(schema) = Schema::parse(text) {
            let _ = schema.rename(&renames(&["user=person", "=all/"]));
        }
    }

    /// What is between the names stays, whatever they become.
    #[test]
    fn text_outside_of_names_is_unchanged(text in schema()) {
        let flags = ["crm/=a_longer/prefix/", "crm/doc#viewer=seen_by", "cav=d_v"];
        let found = parsed(&text).rename(&renames(&flags)).unwrap();
        let back = renames(&["a_longer/prefix/=crm/", "a_longer/prefix/doc#seen_by=viewer", "d_v=cav"]);
        prop_assert_eq!(parsed(&found).rename(&back).unwrap(), text.clone());
        let without_names = |text: &str, names: &[&str]| {
            names.iter().fold(text.to_owned(), |text, name| text.replace(name, ""))
        };
        let before = without_names(&text, &["crm/", "viewer", "cav"]);
        let after = without_names(&found, &["a_longer/prefix/", "crm/", "seen_by", "viewer", "d_v", "cav"]);
        prop_assert_eq!(without_names(&before, &["eat"]), without_names(&after, &["eat"]));
    }

    /// An empty change is none.
    #[test]
    fn nothing_renamed_or_removed_is_the_same_text(file in 0..FILES.len()) {
        let text = &FILES[file].1;
        let schema = parsed(text);
        prop_assert_eq!(&schema.rename(&renames(&["nosuch/=a/", "nosuch=other"])).unwrap(), text);
        prop_assert_eq!(&schema.without(&Removal::default()).unwrap().text, text);
    }
}
