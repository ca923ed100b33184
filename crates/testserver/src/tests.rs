use std::time::Duration;

use authzed::Kind;
use authzed::v1::{
    ExportBulkRelationshipsRequest, ReadSchemaRequest, WatchRequest, WriteRelationshipsRequest,
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn messages_and_pauses_arrive_in_order_by_the_paused_clock() {
    let server = Server::new();
    let reply = Reply::message(&checkpoint(1)).pause(600 * SECOND);
    server.script(WATCH, [reply.then(&checkpoint(2)).silence()]);
    let mut watch = server.client().watch(WatchRequest::default());
    let began = Instant::now();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first, checkpoint(1));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(watch.message().await.unwrap().unwrap(), checkpoint(2));
    assert!(began.elapsed() >= 600 * SECOND);
    assert!(server.cancelled(WATCH).is_empty());
    drop(watch);
    tokio::time::sleep(SECOND).await;
    assert_eq!(server.cancelled(WATCH).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn errors_have_reason_and_limit() {
    let server = Server::new();
    let metadata = [("maximum_updates_allowed", "500")];
    let refusal = Reply::refusal(
        Code::InvalidArgument,
        "TOO_MANY_UPDATES_IN_REQUEST",
        "too many",
        &metadata,
    );
    server.script(WRITE, [refusal, Reply::message(&written(3))]);
    let client = server.client();
    let error = client.write_marker().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.limit()),
        (Kind::LimitExceeded, Some(500))
    );
    assert_eq!(client.write_marker().await.unwrap(), token(3));
    assert_eq!(server.calls(WRITE), 2);
}

#[tokio::test(start_paused = true)]
async fn reset_ends_the_call_and_disconnect_the_connection() {
    for (reply, connections) in [
        (Reply::message(&checkpoint(1)).reset(), 1),
        (Reply::message(&checkpoint(1)).disconnect(), 2),
    ] {
        let server = Server::new();
        server.script(WATCH, [reply]);
        let client = server.client();
        for _ in 0..2 {
            let mut watch = client.watch(WatchRequest::default());
            assert!(watch.message().await.unwrap().is_some());
            let error = watch.message().await.unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        }
        assert_eq!(server.connections(), connections);
        assert_eq!(server.connections_of(WATCH), [1, connections]);
    }
}

#[tokio::test(start_paused = true)]
async fn refused_connections_and_web_pages_are_known_as_such() {
    let server = Server::new();
    server.script(READ_SCHEMA, [Reply::http(503)]);
    let client = server.client();
    let error = client.read_schema().await.unwrap_err();
    assert_eq!(error.http_status(), Some(503));
    server.refuse_connections(true);
    let error = client.reconnect().read_schema().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn requests_are_decoded_and_silence_times_out() {
    let server = Server::new();
    server.on(EXPORT, |request: ExportBulkRelationshipsRequest| {
        Reply::message(&page(&["a"], &request.optional_limit.to_string()))
    });
    server.on(READ_SCHEMA, |_: ReadSchemaRequest| Reply::silent());
    let client = server.client();
    let request = ExportBulkRelationshipsRequest {
        optional_limit: 9,
        ..Default::default()
    };
    let page = client.export(request).message().await.unwrap().unwrap();
    assert_eq!(page.after_result_cursor.unwrap().token, "9");
    let error = client.read_schema().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Deadline);
    let error = client
        .write(WriteRelationshipsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unimplemented);
}

#[tokio::test(start_paused = true)]
async fn after_a_call_without_an_answer_the_next_one_takes_another_connection() {
    let server = Server::new();
    server.on(READ_SCHEMA, |_: ReadSchemaRequest| Reply::silent());
    let client = server.client();
    server.script(WATCH, [Reply::message(&checkpoint(1)).silence()]);
    let mut watch = client.watch(WatchRequest::default());
    assert_eq!(watch.message().await.unwrap().unwrap(), checkpoint(1));
    for _ in 0..3 {
        let clone = client.clone();
        let both = tokio::join!(client.read_schema(), clone.read_schema());
        assert_eq!(both.0.unwrap_err().kind(), Kind::Deadline);
        assert_eq!(both.1.unwrap_err().kind(), Kind::Deadline);
    }
    let connections = server.connections_of(READ_SCHEMA);
    assert_eq!(connections, [1, 1, 2, 2, 3, 3], "one for both");
    server.on(EXPORT, |_: ExportBulkRelationshipsRequest| Reply::silent());
    for _ in 0..2 {
        let mut export = client.export(ExportBulkRelationshipsRequest::default());
        let error = export.message().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Deadline);
    }
    assert_eq!(server.connections_of(EXPORT), [4, 5]);
    assert!(server.cancelled(WATCH).is_empty(), "it has its own");
}

#[tokio::test(start_paused = true)]
async fn messages_of_an_import_reach_the_handler_as_one() {
    use authzed::RelationshipsEncoder;
    use authzed::v1::{ImportBulkRelationshipsRequest, ImportBulkRelationshipsResponse};

    let server = Server::new();
    server.on(IMPORT, |request: ImportBulkRelationshipsRequest| {
        Reply::message(&ImportBulkRelationshipsResponse {
            num_loaded: request.relationships.len() as u64,
        })
    });
    let mut encoder = RelationshipsEncoder::default();
    let messages: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|id| {
            encoder.push(&relationship(id, "anna"));
            encoder.take()
        })
        .collect();
    let loaded = server
        .client()
        .import(futures::stream::iter(messages))
        .await;
    assert_eq!(loaded.unwrap(), 3);
}
