use std::time::Duration;

use authzed::Code;
use authzed::v1::reflection_schema_diff::Diff;
use authzed::v1::{
    DiffSchemaResponse, ReflectSchemaResponse, ReflectionDefinition, ReflectionSchemaDiff,
};
use clap::Parser as _;
use spice_cli::connection::ConnectionArgs;
use spice_cli::settings::Settings;
use testserver::{
    DIFF_SCHEMA, EXPORT, READ_SCHEMA, REFLECT_SCHEMA, Reply, Server, page, schema_response, token,
    token_of,
};
use tokio::time::Instant;

use super::*;

fn args(flags: &[&str]) -> Export {
    Export::parse_from(["spice-export"].iter().chain(flags))
}

async fn choose(server: &Server, flags: &[&str]) -> Result<Snapshot, CommandError> {
    let settings = Settings {
        endpoint: Some("test.invalid:50051".to_owned()),
        insecure: true,
        ..Settings::default()
    };
    let connection = ConnectionArgs {
        context: None,
        settings,
    };
    let connection = connection.resolve().await.unwrap();
    let shutdown = Shutdown::listen(Exit::Done, false).unwrap();
    choose_revision(&args(flags), &connection, &server.client(), &shutdown).await
}

/// The server's answers to ReadSchema and DiffSchema, in turn.
fn server(schemas: &[(&str, &str)], different: &[bool]) -> Server {
    let server = Server::new();
    let schemas = schemas.iter().map(|(text, revision)| {
        let mut response = schema_response(text, 0);
        let token = token_of(revision, "aaaaaaaa");
        response.read_at = Some(authzed::v1::ZedToken { token });
        Reply::message(&response)
    });
    server.script(READ_SCHEMA, schemas);
    let answers = different.iter().map(|different| {
        let added = ReflectionSchemaDiff {
            diff: Some(Diff::DefinitionAdded(definition("folder"))),
        };
        Reply::message(&DiffSchemaResponse {
            diffs: different.then_some(added).into_iter().collect(),
            ..DiffSchemaResponse::default()
        })
    });
    server.script(DIFF_SCHEMA, answers);
    server
}

fn definition(name: &str) -> ReflectionDefinition {
    ReflectionDefinition {
        name: name.to_owned(),
        ..ReflectionDefinition::default()
    }
}

/// Revisions of PostgreSQL, which need no settle time.
const FIRST: &str = "CLsG";
const SECOND: &str = "CL4G";

#[tokio::test(start_paused = true)]
async fn head_with_its_schema_is_exported_at_once() {
    let began = Instant::now();
    let found = choose(&server(&[("one", FIRST)], &[false]), &[])
        .await
        .unwrap();
    assert_eq!(found.schema, "one");
    assert_eq!(found.revision, token_of(FIRST, "aaaaaaaa"));
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn head_of_mysql_is_used_only_once_it_has_settled() {
    let began = Instant::now();
    let found = choose(&server(&[("one", "7")], &[false]), &[])
        .await
        .unwrap();
    assert_eq!(found.revision, token(7));
    assert_eq!(began.elapsed().as_secs(), 35);
}

#[tokio::test(start_paused = true)]
async fn schema_that_changes_meanwhile_takes_a_newer_revision() {
    let server = server(&[("one", FIRST), ("two", SECOND)], &[true, false]);
    let found = choose(&server, &[]).await.unwrap();
    assert_eq!(found.schema, "two");
    assert_eq!(found.revision, token_of(SECOND, "aaaaaaaa"));
}

#[tokio::test(start_paused = true)]
async fn schema_that_never_rests_is_given_up() {
    let server = server(&[("one", FIRST)], &[true]);
    let failure = choose(&server, &[]).await.err().unwrap();
    assert!(failure.message().contains("changed 3 times"), "{failure:?}");
    assert_eq!(server.calls(DIFF_SCHEMA), 3);
}

#[tokio::test(start_paused = true)]
async fn older_revision_with_another_schema_is_refused() {
    let at = token(3);
    let server = server(&[("one", "7")], &[true]);
    let failure = choose(&server, &["--at", &at]).await.err().unwrap();
    assert_eq!(failure.exit, Exit::Failed);
    assert!(failure.message().contains(&at), "{failure:?}");
    assert_eq!(server.calls(DIFF_SCHEMA), 1, "it is not tried again");
}

#[tokio::test(start_paused = true)]
async fn server_without_a_schema_has_nothing_to_export() {
    let server = Server::new();
    let empty = "No schema has been defined; please call WriteSchema to start";
    server.script(READ_SCHEMA, [Reply::error(Code::NotFound, empty)]);
    let failure = choose(&server, &[]).await.err().unwrap();
    assert!(failure.message().contains("has no schema"), "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn without_the_schema_only_the_revision_is_checked() {
    let server = server(&[("one", FIRST)], &[true]);
    server.script(EXPORT, [Reply::message(&page(&["a"], "1"))]);
    choose(&server, &["--no-schema"]).await.unwrap();
    assert_eq!((server.calls(EXPORT), server.calls(DIFF_SCHEMA)), (1, 0));
    server.script(EXPORT, [Reply::error(Code::OutOfRange, "expired")]);
    let failure = choose(&server, &["--no-schema"]).await.err().unwrap();
    assert_eq!(failure.exit, Exit::HistoryLost);
}

#[tokio::test(start_paused = true)]
async fn unknown_type_is_refused_and_the_known_ones_are_named() {
    let server = Server::new();
    server.script(
        REFLECT_SCHEMA,
        [Reply::message(&ReflectSchemaResponse {
            definitions: ["user", "document"].map(definition).to_vec(),
            ..ReflectSchemaResponse::default()
        })],
    );
    let (client, at) = (server.client(), token(7));
    let of = async |flags: &[&str]| definitions(&args(flags), &client, &at).await;
    let failure = of(&["--type", "file"]).await.unwrap_err();
    assert!(
        failure.hint_text().contains("user, document"),
        "{failure:?}"
    );
    let one = of(&["--type", "document"]).await.unwrap();
    assert_eq!(one.unwrap(), ["document"]);
    let all = of(&["--jobs", "2"]).await.unwrap();
    assert_eq!(all.unwrap(), ["user", "document"]);
    assert!(of(&[]).await.unwrap().is_none(), "one stream needs no list");
}

#[tokio::test(start_paused = true)]
async fn export_cut_short_by_an_expired_revision_is_refused() {
    let server = Server::new();
    let expired = Reply::error(Code::OutOfRange, "the specified zedtoken has expired");
    server.script(EXPORT, [expired]);
    let failure = confirm(&server.client(), &token(7), 3).await.unwrap_err();
    assert_eq!(failure.exit, Exit::HistoryLost);
    assert!(failure.message().contains("incomplete"), "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn check_of_the_revision_is_repeated_while_the_server_is_away() {
    let server = Server::new();
    let away = || Reply::error(Code::Unavailable, "down");
    server.script(EXPORT, [away(), away(), Reply::empty()]);
    confirm(&server.client(), &token(7), 2).await.unwrap();
    server.script(EXPORT, [away()]);
    let failure = confirm(&server.client(), &token(7), 2).await.unwrap_err();
    assert_eq!(failure.exit, Exit::TryAgain);
}

#[test]
fn header_names_the_filter_only_where_there_is_one() {
    let snapshot = Snapshot {
        revision: token(7),
        schema: "one".to_owned(),
    };
    let plain = header(&args(&[]), &snapshot);
    assert_eq!((plain.filter, plain.schema.as_deref()), (None, Some("one")));
    let filtered = header(&args(&["--type", "a", "--no-schema"]), &snapshot);
    assert_eq!(filtered.filter.unwrap().types, ["a"]);
    assert_eq!(filtered.schema, None);
}
