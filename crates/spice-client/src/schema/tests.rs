use authzed::Code;
use authzed::v1::reflection_schema_diff::Diff;
use authzed::v1::{
    DiffSchemaResponse, ReflectSchemaResponse, ReflectionCaveat, ReflectionDefinition,
    ReflectionRelation,
};
use spice_cli::Exit;
use testserver::{DIFF_SCHEMA, READ_SCHEMA, REFLECT_SCHEMA, Reply, Server, schema_response, token};

use super::*;

/// What `differences` finds of `text` on a server.
async fn compare(server: &Server, text: &str) -> Result<Option<String>, CommandError> {
    let at = Consistency::at_exact(token(7));
    differences(&server.client(), at, text).await
}

fn diffs(diffs: Vec<Diff>) -> Reply {
    let diffs = diffs.into_iter();
    let diffs = diffs.map(|diff| ReflectionSchemaDiff { diff: Some(diff) });
    Reply::message(&DiffSchemaResponse {
        diffs: diffs.collect(),
        ..DiffSchemaResponse::default()
    })
}

fn definition(name: &str, comment: &str) -> ReflectionDefinition {
    ReflectionDefinition {
        name: name.to_owned(),
        comment: comment.to_owned(),
        ..ReflectionDefinition::default()
    }
}

#[tokio::test(start_paused = true)]
async fn same_schema_needs_one_call() {
    let server = Server::new();
    server.script(DIFF_SCHEMA, [diffs(Vec::new())]);
    assert_eq!(compare(&server, "definition user {}").await.unwrap(), None);
    assert_eq!(server.calls(REFLECT_SCHEMA) + server.calls(READ_SCHEMA), 0);
}

#[tokio::test(start_paused = true)]
async fn comment_that_is_only_rendered_otherwise_is_no_difference() {
    let server = Server::new();
    let changed = |comment| Diff::DefinitionDocCommentChanged(definition("doc", comment));
    server.script(
        DIFF_SCHEMA,
        [
            diffs(vec![changed("// one")]),
            diffs(vec![changed("// two")]),
        ],
    );
    server.script(
        REFLECT_SCHEMA,
        [Reply::message(&ReflectSchemaResponse {
            definitions: vec![definition("doc", "//one")],
            ..ReflectSchemaResponse::default()
        })],
    );
    assert_eq!(compare(&server, "definition doc {}").await.unwrap(), None);
    let found = compare(&server, "definition doc {}").await.unwrap();
    assert!(found.is_some_and(|found| found.contains("doc")));
}

#[tokio::test(start_paused = true)]
async fn added_definition_is_named() {
    let server = Server::new();
    let added = Diff::DefinitionAdded(definition("folder", ""));
    server.script(DIFF_SCHEMA, [diffs(vec![added])]);
    let found = compare(&server, "definition folder {}").await.unwrap();
    assert!(found.unwrap().contains("folder"));
}

#[tokio::test(start_paused = true)]
async fn schema_that_its_server_cannot_parse_is_compared_as_text() {
    let server = Server::new();
    let refusal = Reply::error(Code::InvalidArgument, "parse error in schema: what");
    server.script(DIFF_SCHEMA, [refusal]);
    server.script(
        READ_SCHEMA,
        [Reply::message(&schema_response("definition a {}", 9))],
    );
    let reflected = |name: &str| {
        Reply::message(&ReflectSchemaResponse {
            definitions: vec![definition(name, "")],
            ..ReflectSchemaResponse::default()
        })
    };
    server.script(
        REFLECT_SCHEMA,
        [
            reflected("a"),
            reflected("a"),
            reflected("b"),
            reflected("a"),
        ],
    );
    assert_eq!(compare(&server, "definition a {}").await.unwrap(), None);
    let changed = compare(&server, "definition a {}").await.unwrap();
    assert!(changed.is_some(), "the revision had another schema");
    let failure = compare(&server, "definition other {}").await.unwrap_err();
    assert!(failure.message().contains("parse error"), "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn expired_revision_has_no_schema_any_more() {
    let server = Server::new();
    server.script(DIFF_SCHEMA, [Reply::error(Code::OutOfRange, "expired")]);
    let failure = compare(&server, "definition a {}").await.unwrap_err();
    assert_eq!(failure.exit, Exit::HistoryLost);
}

#[tokio::test(start_paused = true)]
async fn flags_that_are_not_compared_are_taken_from_the_newest_text() {
    let server = Server::new();
    server.script(DIFF_SCHEMA, [diffs(Vec::new())]);
    let text = |flag: &str| format!("use {flag}\n\ndefinition a {{}}");
    let newest = Reply::message(&schema_response(&text("expiration"), 9));
    server.script(READ_SCHEMA, [newest]);
    assert_eq!(compare(&server, &text("expiration")).await.unwrap(), None);
    let found = compare(&server, &text("typechecking")).await.unwrap();
    assert_eq!(found.as_deref(), Some("use flags"));
}

#[test]
fn comment_is_the_same_however_it_is_rendered() {
    // As they were written, and as SpiceDB v1.56 gives them back.
    for (written, rendered) in [
        ("/**\n* a person\n*/", "/** a person */"),
        ("/**one*/", "/** one */"),
        ("//no space", "// no space"),
        ("//  two spaces", "// two spaces"),
        ("//\ttab", "// tab"),
        (
            "////////\n// Users\n////////",
            "// //////\n// Users\n// //////",
        ),
        ("// list:\n//   - three", "// list:\n// - three"),
        ("/**\n*   * two\n*/", "/**\n* * two\n*/"),
        (
            "/** a caveat\nwith two lines */",
            "/**\n* a caveat\n* with two lines\n*/",
        ),
        ("/***\n*** a ***\n***/", "/**\n*\n* ** a ***\n* *\n*/"),
        ("/// rust doc", "// / rust doc"),
        ("/** */", "/**  */"),
        ("/**\n\n* a\n\n*\n* b\n\n*/", "/**\n* a\n*\n*\n* b\n*/"),
    ] {
        assert_eq!(words(written), words(rendered), "{written:?}");
    }
    for (one, other) in [
        ("// a person", "// a robot"),
        ("// read/write", "// read write"),
        ("// a\n// b", "// b\n// a"),
        ("// a b", "// ab"),
        ("// ----", "// ===="),
        ("// a", ""),
    ] {
        assert_ne!(words(one), words(other), "{one:?}");
    }
}

#[test]
fn rendering_is_distinguished_from_a_difference() {
    let relation = |comment: &str| ReflectionRelation {
        name: "viewer".to_owned(),
        parent_definition_name: "doc".to_owned(),
        comment: comment.to_owned(),
        ..ReflectionRelation::default()
    };
    let caveat = |comment: &str, expression: &str| ReflectionCaveat {
        name: "c".to_owned(),
        comment: comment.to_owned(),
        expression: expression.to_owned(),
        ..ReflectionCaveat::default()
    };
    let there = There::of(ReflectSchemaResponse {
        definitions: vec![ReflectionDefinition {
            name: "doc".to_owned(),
            relations: vec![relation("//who reads")],
            ..ReflectionDefinition::default()
        }],
        caveats: vec![caveat("/**one*/", "a > 1")],
        read_at: None,
    });
    let only_rendered = |diff: Diff| {
        assert!(may_be_rendering(&diff));
        there.is_only_rendered_otherwise(&diff, "caveat c(a int) {\n\ta  > 3\n}")
    };
    let changed = Diff::RelationDocCommentChanged;
    assert!(only_rendered(changed(relation("// who reads"))));
    assert!(!only_rendered(changed(relation("// who writes"))));
    let changed = Diff::CaveatDocCommentChanged;
    assert!(only_rendered(changed(caveat("/** one */", ""))));
    assert!(!only_rendered(changed(caveat("/** two */", ""))));
    let changed = Diff::CaveatExprChanged;
    assert!(only_rendered(changed(caveat("", "a > 1"))));
    assert!(!only_rendered(changed(caveat("", "a > 2"))));
    let parsed = Diff::CaveatExprChanged(caveat("", "3 < a"));
    assert!(!there.is_only_rendered_otherwise(&parsed, "caveat c(a int) { a > 3 }"));
    assert!(there.is_only_rendered_otherwise(&parsed, "caveat c(a int) { a>1 /* one */ }"));
    let other = Diff::RelationAdded(relation("//who reads"));
    assert!(!may_be_rendering(&other) && !there.is_only_rendered_otherwise(&other, ""));
}
