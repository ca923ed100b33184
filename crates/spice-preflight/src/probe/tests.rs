//! The probes against a scripted server: what they send, and what they make of the answers.

use std::time::Duration;

use authzed::v1::{
    CheckBulkPermissionsRequest, CheckBulkPermissionsResponse, Consistency, DiffSchemaRequest,
    DiffSchemaResponse, ExportBulkRelationshipsRequest, ImportBulkRelationshipsRequest,
    ReadRelationshipsRequest, ReflectSchemaResponse, WriteRelationshipsRequest, WriteSchemaRequest,
};
use authzed::{Code, Kind};
use testserver::{
    CHECK_BULK, DIFF_SCHEMA, EXPORT, IMPORT, READ, READ_SCHEMA, REFLECT_SCHEMA, Reply, Server,
    WATCH, WRITE, WRITE_SCHEMA, checkpoint, page, schema_response, token, written,
};
use tokio::time::Instant;

use super::Probe;
use super::sample::Bounds;
use crate::facts::{Answer, Has, Limit, SchemaFit, SchemaText};
use crate::steps::Call;

const SECOND: Duration = Duration::from_secs(1);

const CALLS: [(Call, &str); 9] = [
    (Call::ReadSchema, READ_SCHEMA),
    (Call::DiffSchema, DIFF_SCHEMA),
    (Call::ReflectSchema, REFLECT_SCHEMA),
    (Call::WriteSchema, WRITE_SCHEMA),
    (Call::Export, EXPORT),
    (Call::Import, IMPORT),
    (Call::ReadRelationships, READ),
    (Call::WriteRelationships, WRITE),
    (Call::CheckBulk, CHECK_BULK),
];

fn probe(server: &Server) -> Probe {
    Probe {
        client: server.client(),
        patience: 5 * SECOND,
        deadline: Instant::now() + 60 * SECOND,
    }
}

/// A server that lets every call in, and refuses what is in it, as SpiceDB does.
fn refusing() -> Server {
    let server = Server::new();
    let refused = || {
        Reply::refusal(
            Code::InvalidArgument,
            "SCHEMA_PARSE_ERROR",
            "parse error",
            &[],
        )
    };
    server.script(READ_SCHEMA, [Reply::message(&schema_response("one", 7))]);
    server.script(
        REFLECT_SCHEMA,
        [Reply::message(&ReflectSchemaResponse::default())],
    );
    server.script(EXPORT, [Reply::empty()]);
    server.script(
        CHECK_BULK,
        [Reply::message(&CheckBulkPermissionsResponse::default())],
    );
    let unknown = || {
        Reply::refusal(
            Code::FailedPrecondition,
            "UNKNOWN_DEFINITION",
            "object definition",
            &[],
        )
    };
    for path in [DIFF_SCHEMA, WRITE_SCHEMA] {
        server.script(path, [refused()]);
    }
    for path in [READ, IMPORT, WRITE] {
        server.script(path, [unknown()]);
    }
    server
}

#[tokio::test(start_paused = true)]
async fn call_that_is_let_in_is_allowed_whatever_is_refused_in_it() {
    let server = refusing();
    let probe = probe(&server);
    for (call, path) in CALLS {
        assert_eq!(probe.answer(call).await, Some(Answer::Allowed), "{path}");
        assert!(server.calls(path) > 0, "{path}");
    }
    assert_eq!(probe.answer(Call::Watch).await, None);
}

#[tokio::test(start_paused = true)]
async fn refused_token_missing_call_and_silence_are_distinguished() {
    for (call, path) in CALLS {
        let server = refusing();
        server.script(path, [Reply::error(Code::PermissionDenied, "may not")]);
        let answer = probe(&server).answer(call).await;
        assert_eq!(answer, Some(Answer::Denied("may not".to_owned())), "{path}");
        server.script(path, [Reply::error(Code::Unimplemented, "unknown method")]);
        let answer = probe(&server).answer(call).await;
        assert_eq!(answer, Some(Answer::Missing), "{path}");
        server.script(path, [Reply::silent()]);
        let began = Instant::now();
        let answer = probe(&server).answer(call).await;
        assert!(
            matches!(answer, Some(Answer::Unsure(_))),
            "{path}: {answer:?}"
        );
        assert_eq!(began.elapsed().as_secs(), 5, "{path}: --request-timeout");
    }
}

#[tokio::test(start_paused = true)]
async fn error_that_passes_at_once_is_no_answer_yet() {
    let server = refusing();
    let away = || Reply::error(Code::Unavailable, "away");
    let refused = Reply::refusal(Code::InvalidArgument, "UNKNOWN_DEFINITION", "no", &[]);
    server.script(WRITE, [away(), away(), refused]);
    let answer = probe(&server).answer(Call::WriteRelationships).await;
    assert_eq!(answer, Some(Answer::Allowed));
    server.script(WRITE, [away()]);
    let answer = probe(&server).answer(Call::WriteRelationships).await;
    assert!(matches!(answer, Some(Answer::Unsure(_))), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn deadline_of_all_ends_each_call_that_is_left() {
    let server = refusing();
    server.script(EXPORT, [Reply::silent()]);
    let probe = Probe {
        deadline: Instant::now() + 2 * SECOND,
        ..probe(&server)
    };
    let began = Instant::now();
    for call in [Call::Export, Call::Export] {
        let answer = probe.answer(call).await;
        assert!(matches!(answer, Some(Answer::Unsure(_))));
    }
    assert_eq!(began.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn read_only_server_is_known_by_a_write_without_updates() {
    let server = refusing();
    let read_only = Reply::refusal(
        Code::Unavailable,
        "SERVICE_READ_ONLY",
        "service read-only",
        &[],
    );
    server.script(WRITE, [read_only]);
    let answer = probe(&server).answer(Call::WriteRelationships).await;
    assert_eq!(answer, Some(Answer::ReadOnly));
}

/// What each writing call holds, for whoever changes a probe: it must not be possible to apply it.
#[tokio::test(start_paused = true)]
async fn writing_calls_hold_nothing_that_can_be_applied() {
    let server = refusing();
    server.on(WRITE_SCHEMA, |request: WriteSchemaRequest| {
        assert!(
            request.schema.starts_with(')'),
            "an empty text is an empty schema"
        );
        Reply::refusal(
            Code::InvalidArgument,
            "SCHEMA_PARSE_ERROR",
            "parse error",
            &[],
        )
    });
    server.on(WRITE, |request: WriteRelationshipsRequest| {
        let [precondition] = request.optional_preconditions.as_slice() else {
            panic!("no precondition");
        };
        let filter = precondition.filter.as_ref().unwrap();
        assert_eq!(filter.resource_type, "preflight/nothing");
        assert_eq!(precondition.operation, 2, "MUST_MATCH");
        for update in &request.updates {
            assert_eq!(update.operation, 3, "DELETE");
            let resource = update.relationship.as_ref().unwrap().resource.as_ref();
            assert_eq!(resource.unwrap().object_type, "preflight/nothing");
        }
        Reply::refusal(
            Code::FailedPrecondition,
            "UNKNOWN_DEFINITION",
            "unknown",
            &[],
        )
    });
    server.on(IMPORT, |request: ImportBulkRelationshipsRequest| {
        let [relationship] = request.relationships.as_slice() else {
            panic!("not one relationship");
        };
        let resource = relationship.resource.as_ref().unwrap();
        assert_eq!(resource.object_type, "preflight/nothing");
        assert!(resource.object_id.contains('%'), "an invalid id");
        Reply::refusal(Code::InvalidArgument, "UNKNOWN_DEFINITION", "unknown", &[])
    });
    let probe = probe(&server);
    for call in [Call::WriteSchema, Call::WriteRelationships, Call::Import] {
        assert_eq!(probe.answer(call).await, Some(Answer::Allowed), "{call:?}");
    }
    probe.updates_limit().await;
    probe.context_limit().await;
    assert_eq!(server.calls(WRITE), 3);
}

/// Reading calls are of a form that gives little.
#[tokio::test(start_paused = true)]
async fn reading_calls_ask_for_one_relationship() {
    let server = refusing();
    server.on(EXPORT, |request: ExportBulkRelationshipsRequest| {
        assert_eq!(request.optional_limit, 1);
        Reply::empty()
    });
    server.on(READ, |request: ReadRelationshipsRequest| {
        assert_eq!(request.optional_limit, 1);
        Reply::empty()
    });
    server.on(CHECK_BULK, |request: CheckBulkPermissionsRequest| {
        assert_eq!(request.items.len(), 1);
        Reply::message(&CheckBulkPermissionsResponse::default())
    });
    let probe = probe(&server);
    for call in [Call::Export, Call::ReadRelationships, Call::CheckBulk] {
        assert_eq!(probe.answer(call).await, Some(Answer::Allowed), "{call:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn limits_are_learned_from_refusals() {
    let server = refusing();
    let probe = probe(&server);
    assert_eq!(probe.page_limit().await, Limit::MoreThan(100_001));
    assert_eq!(probe.updates_limit().await, Limit::MoreThan(1_001));
    assert_eq!(probe.context_limit().await, Limit::MoreThan(1_000_000));
    let refuse = |reason: &str, key: &str, limit: &str| {
        Reply::refusal(Code::InvalidArgument, reason, "too much", &[(key, limit)])
    };
    let page = refuse(
        "EXCEEDS_MAXIMUM_ALLOWABLE_LIMIT",
        "maximum_limit_allowed",
        "10",
    );
    server.script(EXPORT, [page]);
    let updates = refuse(
        "TOO_MANY_UPDATES_IN_REQUEST",
        "maximum_updates_allowed",
        "5",
    );
    let context = refuse("MAX_RELATIONSHIP_CONTEXT_SIZE", "max_allowed_size", "9");
    server.script(WRITE, [updates, context]);
    let message = "grpc: received message larger than max (4286674 vs. 4194304)";
    server.script(
        DIFF_SCHEMA,
        [Reply::error(Code::ResourceExhausted, message)],
    );
    assert_eq!(probe.page_limit().await, Limit::AtMost(10));
    assert_eq!(probe.updates_limit().await, Limit::AtMost(5));
    assert_eq!(probe.context_limit().await, Limit::AtMost(9));
    assert_eq!(probe.message_limit().await, Limit::AtMost(4 << 20));
}

#[tokio::test(start_paused = true)]
async fn expiries_that_are_switched_off_are_noticed() {
    let server = refusing();
    assert_eq!(probe(&server).takes_expiry().await, Some(true));
    let off = "support for expiring relationships is not enabled";
    server.script(WRITE, [Reply::error(Code::Unknown, off)]);
    assert_eq!(probe(&server).takes_expiry().await, Some(false));
    server.script(WRITE, [Reply::error(Code::PermissionDenied, "may not")]);
    assert_eq!(probe(&server).takes_expiry().await, None);
}

fn bounds(page: Option<u64>, seconds: u32, relationships: u64) -> Bounds<'static> {
    Bounds {
        page,
        time: seconds * SECOND,
        relationships,
        filter: None,
    }
}

#[tokio::test(start_paused = true)]
async fn sample_is_complete_or_bounded_in_time_and_number() {
    let server = Server::new();
    let pages = || Reply::messages([page(&["a", "b"], "1"), page(&["c"], "2")]);
    server.script(EXPORT, [pages()]);
    let probe = probe(&server);
    let newest = Consistency::fully_consistent;
    let sample = probe
        .sample(&newest(), bounds(None, 3, u64::MAX))
        .await
        .unwrap();
    assert_eq!((sample.relationships, sample.is_complete), (3, true));
    let sample = probe.sample(&newest(), bounds(None, 3, 2)).await.unwrap();
    assert_eq!((sample.relationships, sample.is_complete), (2, false));
    server.script(EXPORT, [pages().silence()]);
    let sample = probe
        .sample(&newest(), bounds(None, 3, u64::MAX))
        .await
        .unwrap();
    assert_eq!((sample.relationships, sample.is_complete), (3, false));
    assert_eq!(sample.seconds.round(), 3.0);
    server.script(EXPORT, [Reply::silent()]);
    let none = probe.sample(&newest(), bounds(None, 3, u64::MAX)).await;
    assert_eq!(none.unwrap_err().kind, Kind::Deadline);
}

#[tokio::test(start_paused = true)]
async fn pages_of_a_sample_are_within_the_limit() {
    let server = Server::new();
    server.on(EXPORT, |request: ExportBulkRelationshipsRequest| {
        assert_eq!(request.optional_limit, 10);
        Reply::empty()
    });
    let newest = Consistency::fully_consistent();
    let sample = probe(&server)
        .sample(&newest, bounds(Some(10), 1, 100))
        .await;
    assert!(sample.unwrap().is_complete);
}

#[tokio::test(start_paused = true)]
async fn silent_watch_is_left_and_one_that_is_off_is_an_error() {
    let server = Server::new();
    server.script(WATCH, [Reply::silent()]);
    server.script(READ_SCHEMA, [Reply::message(&schema_response("one", 7))]);
    let probe = probe(&server);
    let watched = probe.watch(Some(&token(7)), true).await.unwrap();
    assert_eq!((watched.first, watched.open.as_millis()), (None, 1_500));
    // A server that has stopped answering is not an idle one.
    server.script(READ_SCHEMA, [Reply::silent()]);
    let failure = probe.watch(Some(&token(7)), false).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Deadline);
    server.script(WATCH, [Reply::message(&checkpoint(8)).silence()]);
    let watched = probe.watch(Some(&token(7)), false).await.unwrap();
    assert!(watched.first.is_some());
    let off = Reply::error(Code::Unimplemented, "unknown service");
    server.script(WATCH, [off]);
    let failure = probe.watch(Some(&token(7)), false).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Unimplemented);
}

#[tokio::test(start_paused = true)]
async fn marker_is_followed_until_the_watch_includes_it() {
    let server = Server::new();
    server.script(WRITE, [Reply::message(&written(9))]);
    let watch = Reply::message(&checkpoint(8))
        .pause(SECOND)
        .then(&checkpoint(9));
    server.script(WATCH, [watch.silence()]);
    let probe = probe(&server);
    let marker = probe.mark(Some(&token(7)), false).await.unwrap();
    assert_eq!(marker.delivered.map(|time| time.as_secs()), Some(1));
    server.script(WATCH, [Reply::message(&checkpoint(8)).silence()]);
    let marker = probe.mark(Some(&token(7)), false).await.unwrap();
    assert_eq!(marker.delivered, None);
}

/// How the schema `text` fits a target.
async fn fit(server: &Server, has: Has, there: SchemaText, text: &str) -> SchemaFit {
    let source = SchemaText::Text(text.to_owned());
    probe(server).schema_fit(has, &there, &source).await
}

#[tokio::test(start_paused = true)]
async fn schema_is_compared_without_writing_it() {
    let server = Server::new();
    let text = |text: &str| SchemaText::Text(text.to_owned());
    assert_eq!(
        fit(&server, Has::ALL, text("a"), "a").await,
        SchemaFit::Equal
    );
    server.on(DIFF_SCHEMA, |request: DiffSchemaRequest| {
        match request.comparison_schema.as_str() {
            "bad" => Reply::refusal(
                Code::InvalidArgument,
                "SCHEMA_PARSE_ERROR",
                "parse error",
                &[],
            ),
            "away" => Reply::error(Code::Unavailable, "away"),
            "denied" => Reply::error(Code::PermissionDenied, "may not"),
            _ => Reply::message(&DiffSchemaResponse::default()),
        }
    });
    let bad = fit(&server, Has::ALL, SchemaText::None, "bad").await;
    assert_eq!(bad, SchemaFit::Refused("parse error".to_owned()));
    let bad = fit(&server, Has::ALL, text("a"), "bad").await;
    assert_eq!(bad, SchemaFit::Refused("parse error".to_owned()));
    let none = fit(&server, Has::ALL, SchemaText::None, "b").await;
    assert_eq!(none, SchemaFit::TargetHasNone { is_tried: true });
    let away = fit(&server, Has::ALL, SchemaText::None, "away").await;
    assert!(matches!(away, SchemaFit::Failed { passes: true, .. }));
    let away = fit(&server, Has::ALL, text("a"), "away").await;
    assert!(matches!(away, SchemaFit::Failed { passes: true, .. }));
    let denied = fit(&server, Has::ALL, SchemaText::None, "denied").await;
    assert_eq!(denied, SchemaFit::TargetHasNone { is_tried: false });
    let denied = fit(&server, Has::ALL, text("a"), "denied").await;
    assert!(matches!(denied, SchemaFit::Unknown(_)));
    assert_eq!(
        fit(&server, Has::ALL, text("a"), "b").await,
        SchemaFit::Equal
    );
    let old = Has {
        expiry: false,
        schema_at_revision: false,
        ..Has::ALL
    };
    let none = fit(&server, old, SchemaText::None, "b").await;
    assert_eq!(none, SchemaFit::TargetHasNone { is_tried: false });
    let expiring = fit(&server, old, SchemaText::None, "use expiration\n").await;
    assert!(matches!(expiring, SchemaFit::Refused(_)));
    let unknown = fit(&server, Has::ALL, SchemaText::Unknown, "b").await;
    assert!(matches!(unknown, SchemaFit::Unknown(_)));
    assert_eq!(server.calls(WRITE_SCHEMA), 0);
}
