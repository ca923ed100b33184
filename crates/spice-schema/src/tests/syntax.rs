use super::{FILES, parsed};
use crate::Schema;
use crate::tree::{Function, Member, Operand, Permission, Relation, Subject};

fn relation(line: &str) -> Relation {
    let text = format!("use expiration\ndefinition doc {{\n{line}\n}}\n");
    match &parsed(&text).definitions()[0].members[0] {
        Member::Relation(relation) => relation.clone(),
        other => panic!("{other:?}"),
    }
}

fn permission(line: &str) -> Permission {
    let text = format!("use self\ndefinition doc {{\n{line}\n}}\n");
    match &parsed(&text).definitions()[0].members[0] {
        Member::Permission(permission) => permission.clone(),
        other => panic!("{other:?}"),
    }
}

/// An operand as text.
fn shown(operand: &Operand) -> String {
    match operand {
        Operand::Nil => "nil".to_owned(),
        Operand::SelfReference => "self".to_owned(),
        Operand::Name(name) => name.text.clone(),
        Operand::Arrow {
            relation,
            function,
            target,
        } => {
            let (from, to) = (&relation.text, &target.text);
            match function {
                None => format!("{from}->{to}"),
                Some(Function::Any) => format!("{from}.any({to})"),
                Some(Function::All) => format!("{from}.all({to})"),
            }
        }
    }
}

fn operands(line: &str) -> Vec<String> {
    permission(line).operands.iter().map(shown).collect()
}

fn error(text: &str) -> String {
    match Schema::parse(text) {
        Ok(_) => panic!("understood: {text}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_schema_of_the_repository_is_understood_and_kept() {
    assert!(FILES.len() > 50, "{}", FILES.len());
    for (path, text) in FILES.iter() {
        let schema = Schema::parse(text.as_str());
        let schema = schema.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(schema.text(), text);
        assert!(!schema.definitions().is_empty(), "{}", path.display());
    }
}

#[test]
fn subjects_of_relations_are_read() {
    let found = relation(
        "relation viewer: user | user:* | org/team#member | user#... | user with c | \
         user with expiration | user with org/c and expiration",
    );
    assert_eq!(found.name.text, "viewer");
    let types: Vec<_> = found
        .types
        .iter()
        .map(|found| {
            let subject = match &found.subject {
                Subject::Object => String::new(),
                Subject::Wildcard => ":*".to_owned(),
                Subject::Members(name) => format!("#{}", name.text),
            };
            let caveat = found.caveat.as_ref().map(|name| name.text.clone());
            (
                format!("{}{subject}", found.object.text),
                caveat,
                found.expiration,
            )
        })
        .collect();
    let expected = [
        ("user", None, false),
        ("user:*", None, false),
        ("org/team#member", None, false),
        ("user", None, false),
        ("user", Some("c"), false),
        ("user", None, true),
        ("user", Some("org/c"), true),
    ];
    let expected = expected
        .map(|(name, caveat, expiration)| (name.to_owned(), caveat.map(str::to_owned), expiration));
    assert_eq!(types, expected);
}

#[test]
fn operands_of_permissions_are_read() {
    for (line, expected) in [
        ("permission view = viewer", &["viewer"][..]),
        ("permission view = nil", &["nil"]),
        ("permission view = self + owner", &["self", "owner"]),
        ("permission view = a + b - c & d", &["a", "b", "c", "d"]),
        ("permission view = ((a - b) & (c))", &["a", "b", "c"]),
        ("permission view = a->b + c", &["a->b", "c"]),
        (
            "permission view = a.any(b) - c.all(d)",
            &["a.any(b)", "c.all(d)"],
        ),
        ("permission view = any->all", &["any->all"]),
        (
            "permission view = a +\n\n  // one\n b /* two */ & c",
            &["a", "b", "c"],
        ),
    ] {
        assert_eq!(operands(line), expected, "{line}");
    }
    let annotated = permission("permission view: user | org/team = viewer");
    let types: Vec<_> = annotated
        .annotation
        .iter()
        .map(|name| &*name.text)
        .collect();
    assert_eq!(types, ["user", "org/team"]);
}

#[test]
fn flags_decide_which_words_are_keywords() {
    let without = "definition self {}\ndefinition doc {\nrelation self: self with expiration\n\
                   permission view = self\n}\n";
    let schema = parsed(without);
    let Member::Permission(view) = &schema.definitions()[1].members[1] else {
        panic!("no permission");
    };
    assert_eq!(shown(&view.operands[0]), "self");
    assert!(matches!(view.operands[0], Operand::Name(_)));
    let found = error(&format!("use self\n{without}"));
    assert!(found.contains("keyword self"), "{found}");
    let found = error("use expiration\ndefinition expiration {}");
    assert!(found.contains("keyword expiration"), "{found}");
    for flag in [
        "expiration",
        "self",
        "typechecking",
        "partial",
        "import",
        "deprecation",
    ] {
        let text = format!("use {flag}\n\ndefinition user {{}}");
        assert_eq!(parsed(&text).uses()[0].flag, flag);
    }
}

#[test]
fn partials_imports_and_annotations_are_read() {
    let schema = parsed(
        "use partial\nuse import\nuse deprecation\nimport \"other.zed\"\n\
         partial shared {\n relation viewer: user\n ...more\n}\npartial more {}\n\
         @deprecated(warn, \"old\")\ndefinition user {}\n\
         definition doc {\n ...shared\n @deprecated(error)\n relation owner: user | \
         @deprecated(warn, \"no\") user:*\n}\n",
    );
    let names: Vec<_> = schema
        .partials()
        .iter()
        .map(|found| &*found.name.text)
        .collect();
    assert_eq!(names, ["shared", "more"]);
    assert!(schema.has_member("doc", "viewer").unwrap());
    assert!(schema.has_member("doc", "owner").unwrap());
    assert!(!schema.has_member("user", "viewer").unwrap());
    assert!(error("partial shared {}").contains("definition"));
    assert!(error("@deprecated(warn)\ndefinition user {}").contains("use deprecation"));
}

#[test]
fn parameters_of_caveats_are_read() {
    let schema = parsed("caveat org/c(a int, b list<map<any>>, c ipaddress) { a > 1 }\n");
    let caveat = &schema.caveats()[0];
    assert_eq!(caveat.name.text, "org/c");
    let names: Vec<_> = caveat
        .parameters
        .iter()
        .map(|one| &*one.name.text)
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    let list = &caveat.parameters[1].kind;
    assert_eq!(list.name, "list");
    assert_eq!(list.arguments[0].arguments[0].name, "any");
    assert_eq!(
        &schema.text()[caveat.body.start..caveat.body.end],
        " a > 1 "
    );
}

#[test]
fn expressions_of_caveats_are_followed_to_their_end() {
    for body in [
        "a == '}'",
        r#"a == "}" && b == '{'"#,
        r#"a == "it\"s }""#,
        r"a == r'\' || a == '}'",
        r#"a == R"\" && true"#,
        r"a == b'}' || a == br'\'",
        "a == '''}\n'}''' ",
        "a == \"\"\"}\n\"}\"\"\"",
        r#"a == """\"""}""""#,
        "{'k': {1: 2}}.size() == 1",
        "a == 1 // }\n",
        "/* } */ a == 1",
        "a.matches('^a*/b$') // '\n",
        "a == 'größe }' && rest == 1",
        "a == '//' && b == '/*'",
        "letter'}' == 1",
    ] {
        let text = format!("caveat c(a any) {{{body}}}\ndefinition user {{}}\n");
        let schema = parsed(&text);
        let span = schema.caveats()[0].body;
        assert_eq!(&text[span.start..span.end], body);
        assert_eq!(schema.definitions().len(), 1, "{body}");
    }
    for body in ["a == '}", "a == \"\n\"", "a == '''}'", "{ 1", "/* a"] {
        let found = error(&format!("caveat c(a any) {{{body}}}\n"));
        assert!(found.contains("does not end"), "{body}: {found}");
    }
}

#[test]
fn what_is_not_understood_is_refused_with_its_place() {
    for (text, expected) in [
        (
            "definition",
            "line 1, column 11: expected a name, found the end of the text",
        ),
        (
            "definition user {",
            "expected relation, permission or }, found the end",
        ),
        (
            "definition user {}\n\n  relation x: y",
            "line 3, column 3: expected definition",
        ),
        (
            "definition doc {\n relation viewer user\n}",
            "line 2, column 18: expected :, found user",
        ),
        (
            "definition doc {\n relation größe: §\n}",
            "line 2, column 18: unexpected character '§'",
        ),
        (
            "definition doc { relation viewer: user }",
            "expected the end of this statement",
        ),
        (
            "definition doc {\n relation viewer: user\n | group\n}",
            "line 3, column 2",
        ),
        (
            "definition doc {\n permission view = (a\n + b)\n}",
            "found the end of the line",
        ),
        (
            "definition doc {\n permission view = (a + b\n}",
            "expected an operator or )",
        ),
        (
            "definition doc {\n permission view = a b\n}",
            "the end of this statement",
        ),
        (
            "definition doc {\n permission view = a->b->c\n}",
            "an arrow from an arrow",
        ),
        (
            "definition doc {\n permission view = a.some(b)\n}",
            "expected any or all",
        ),
        (
            "definition doc {\n permission view = ()\n}",
            "a relation or permission, found )",
        ),
        (
            "definition doc {\n relation nil: user\n}",
            "found the keyword nil",
        ),
        (
            "definition doc {\n relation viewer: user:x\n}",
            "expected *",
        ),
        (
            "use expiration\ndefinition doc {\n relation a: b with c and d\n}",
            "expected expiration",
        ),
        (
            "use expiration\ndefinition doc {\n relation a: b with expiration and c\n}",
            "keyword and",
        ),
        ("use nothing\ndefinition user {}", "one of the flags"),
        ("definition user {}\nuse self", "use comes before"),
        ("caveat c() { true }", "the name of a parameter"),
        ("caveat c(a int) { }", "without an expression"),
        ("caveat c(a int) true", "expected {"),
        ("caveat c(a list<int) { true }", "expected >"),
        ("definition user {} \u{c}", "unexpected character"),
        ("/* never", "this comment does not end"),
        ("use import\nimport other", "a path in quotes"),
        ("}", "expected definition, caveat or use, found }"),
    ] {
        let found = error(text);
        assert!(found.contains(expected), "{text:?}: {found:?}");
    }
}

#[test]
fn nesting_is_bounded_by_named_limits() {
    let types = format!(
        "caveat c(a {}int{}) {{ true }}",
        "list<".repeat(31),
        ">".repeat(31)
    );
    parsed(&types);
    let types = format!(
        "caveat c(a {}int{}) {{ true }}",
        "list<".repeat(99_999),
        ">".repeat(99_999)
    );
    assert!(error(&types).contains("more than 32 types"));
    let nested = |depth: usize| {
        let (open, close) = ("(".repeat(depth), ")".repeat(depth));
        format!("definition doc {{\n permission view = {open}a{close}\n}}\n")
    };
    parsed(&nested(1_000));
    assert!(error(&nested(1_001)).contains("more than 1000 open parentheses"));
    let braces = format!("caveat c(a int) {{ {}1", "{".repeat(1_000_000));
    assert!(error(&braces).contains("does not end"));
}
